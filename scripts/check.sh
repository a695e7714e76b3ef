#!/usr/bin/env bash
# Exactly what continuous integration runs: format, tests, lints, docs, licences, and that the CUDA build
# type-checks. Stops at the first failure. Needs Rust and a C compiler, nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

step "format"
cargo fmt --all --check

step "tests (the README's command)"
cargo test --release --workspace

step "lints"
cargo clippy --release --workspace --all-targets -- -D warnings

step "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

step "licences and sources"
cargo deny --all-features check licenses bans sources

step "the CUDA build type-checks"
cargo check --release -p monosema --features cuda,ndarray

step "done"
