#!/usr/bin/env bash
# Exactly what continuous integration runs: format, tests, lints, docs, licences, and that the CUDA build
# type-checks. Stops at the first failure. Needs Rust, a C compiler and cargo-deny (`cargo install cargo-deny`).
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

step "format"
# Not `cargo fmt`: it does not see modules that a registration macro declares.
git ls-files -z '*.rs' | xargs -0 rustfmt --check --config-path rustfmt.toml

step "tests (the README's command)"
cargo test --release --workspace
git diff --exit-code -- Cargo.lock

step "lints"
cargo clippy --release --workspace --all-targets -- -D warnings

step "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# Advisories are left to a scheduled job: they change without the project changing, and need the network.
step "licences and sources"
cargo deny --all-features check licenses bans sources

step "the CUDA build type-checks"
cargo check --release -p monosema --features cuda,ndarray

step "done"
