#!/usr/bin/env bash
# Exactly what continuous integration runs: format, tests, lints (of the build for GPUs too), docs, licences, and the GPU's
# kernels in software. Stops at the first failure. Needs Rust, a C compiler and cargo-deny (`cargo install cargo-deny`).
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

step "format"
# Not `cargo fmt`: it does not see modules that a registration macro declares.
git ls-files -z '*.rs' | xargs -0 rustfmt --check --config-path rustfmt.toml

step "tests (the README's command)"
cargo test --release --workspace
git diff --exit-code -- Cargo.lock

step "no warnings there"
# What those builds said is said again. The lints below are of another choice of features.
warnings="$(cargo test --release --workspace --no-run 2>&1 | grep -A 12 '^warning' || true)"
[ -z "$warnings" ] || { echo "$warnings"; exit 1; }

# With all features, so that what is for GPUs is looked at too, and dependencies are checked once. It needs no GPU.
features=monosema/cuda,monosema/wgpu,monosema/ndarray,monosema-kernels/wgpu,monosema-benches/cuda,monosema-benches/wgpu
step "lints, of the build for GPUs too"
cargo clippy --release --workspace --all-targets --features "$features" -- -D warnings

step "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --features "$features"

# Advisories are left to a scheduled job: they change without the project changing, and need the network.
step "licences and sources"
cargo deny --all-features check licenses bans sources

# Vulkan in software will do: Debian calls it mesa-vulkan-drivers.
step "the GPU's kernels"
if compgen -G "/usr/share/vulkan/icd.d/*.json" >/dev/null; then
    cargo test --profile software -p monosema-kernels --features wgpu --test autodiff
else
    echo "skipped: there is no Vulkan driver"
fi

step "done"
