//! Rules for names (`k8s.io/apimachinery/pkg/util/validation`). Each check returns upstream's messages; none means valid.
