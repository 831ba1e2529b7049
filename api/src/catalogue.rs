//! The catalogue: one row per served resource. Router, discovery, OpenAPI, authorization, tables, garbage collection
//! and namespace deletion read rows; CustomResourceDefinitions add rows at run time.
