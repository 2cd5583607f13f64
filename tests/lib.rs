//! Nothing: the tests of this package are in `it/`, their samples and helper programs beside it.
