//! Benchmarks, one Criterion file a stage: `cargo bench -p monosema-benches --bench store`.
//!
//! Figures and their commands are kept in BENCHMARKS.md.
