//! A Messages-API server with a fault plan, for tests, benchmarks and trying things out.
