//! Aligns the features of dependencies, so that `make demo` and `make test` share one build of each. It has no code.
