//! Tests of the patch formats.
