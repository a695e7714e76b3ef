#!/usr/bin/env bash
# SAELens and SAEBench as judges of our dictionaries: do they take them, and do they measure what we measure?
#
#   scripts/conformance.sh                                 # trains the demo first
#   scripts/conformance.sh --run runs/quickstart           # takes what was trained (a run of configs/quickstart.toml)
#   scripts/conformance.sh --write-fixture                 # also writes tests/fixtures/conformance anew
#
#   --venv DIR         Python environment, made if it is not there; default: that of benches/peers, ~/.cache/monosema/peers
#   --no-install       take the environment as it is
#   --monosema PATH    a program that is built, with the example `outputs` in examples/ beside it; default: cargo builds them
#   --windows N        windows of the held-out text for the demo's dictionary; default: 128
#   --work DIR         where to train; default: a directory that is removed in the end
#
# 1. Loads the demo's dictionary, small ones of every architecture, and transcoders with SAELens, and compares encode, decode and
#    the reconstruction, on random inputs and on the model's activations: within 1e-5.
# 2. Runs SAELens's evaluation and SAEBench's `core` on the same windows, model and dictionaries as `monosema eval`, in f32 on the CPU,
#    and puts every figure beside ours. Where they differ, ours is recomputed by their convention (crates/evaluator/CONVENTIONS.md), one
#    difference after the other; what is left must be less than 1e-3 of the figure.
#
# Exits with 1 if anything differs. Needs Python 3.11 or newer, and a network for pip (several GB) the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'conformance: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 2; }

venv="${XDG_CACHE_HOME:-$HOME/.cache}/monosema/peers"
install=1 monosema="" run="" work="" windows=128 fixture=()
while [ $# -gt 0 ]; do
    case "$1" in
        --venv | --monosema | --run | --work | --windows)
            [ $# -ge 2 ] || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
        --no-install) install=0 && shift ;;
        --write-fixture) fixture=(yes) && shift ;;
        --help | -h) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit 0 ;;
        *) fail "$1 is no option; --help lists them" ;;
    esac
done

python="$venv/bin/python"
if [ "$install" = 1 ]; then
    PYTHONPATH=benches/peers python3 -c 'import sys, pathlib, harness; harness.prepare_venv(pathlib.Path(sys.argv[1]))' "$venv"
fi
[ -x "$python" ] || fail "no $python: without --no-install it is made"

if [ -z "$monosema" ]; then
    say "building monosema"
    cargo build --release --workspace --bin monosema --example outputs >&2
    monosema="${CARGO_TARGET_DIR:-target}/release/monosema"
fi
outputs="$(dirname "$monosema")/examples/outputs"
[ -x "$monosema" ] && [ -x "$outputs" ] || fail "expected programs $monosema and $outputs"

if [ -z "$work" ]; then
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
if [ -z "$run" ]; then
    run="$work/quickstart"
    "$monosema" run configs/quickstart.toml --out "$run" >&2
fi
for kind in dictionaries transcoders; do
    for stage in harvest train; do
        "$monosema" "$stage" "scripts/conformance/$kind.toml" --out "$work/$kind" >&2
    done
done
members=("$work"/dictionaries/sweep/*/dictionary "$work"/transcoders/sweep/*/dictionary)
if [ ${#fixture[@]} -gt 0 ]; then
    fixture=(--write-fixture "$work/dictionaries/sweep/architecture.kind=relu,sparsity=1.0/dictionary" tests/fixtures/conformance)
fi

# Nothing is fetched: what it says it needs is here.
HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false "$python" scripts/conformance/main.py --monosema "$monosema" --outputs "$outputs" \
    --model data/demo/model --text data/demo/stories/heldout.jsonl --windows "$windows" --work "$work" \
    ${fixture[@]+"${fixture[@]}"} "$run/dictionary" "${members[@]}"
