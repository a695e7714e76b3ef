//! Benchmarks, one file a stage.
