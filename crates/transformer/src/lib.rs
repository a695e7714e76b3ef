//! Frozen decoder-only language models on burn that expose hook points.
