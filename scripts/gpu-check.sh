#!/usr/bin/env bash
# Checks monosema on a machine with an NVIDIA GPU, with one prebuilt binary and no network:
#
#   CUDARC_CUDA_VERSION=13000 cargo build --release --features cuda     (where Rust is)
#   scripts/gpu-check.sh target/release/monosema                        (where the GPU is; default: that path)
#
# A second argument names another device than cuda:0: with a build that has it, `ndarray` tries this script itself.
#
# Lists the devices; holds the device against the CPU: every hook of the language model, replacement at a hook, and a short
# training of every architecture; runs harvest → train → eval of the embedded demo on both, compares
# what they measured, and prints how fast each trained. Exits non-zero at a disagreement.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=$(realpath "${1:-target/release/monosema}")
device=${2:-cuda:0}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# CUDA headers for NVRTC, where they are not in the default place.
export CUDA_PATH="${CUDA_PATH:-/usr/local/cuda}"

command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
"$binary" devices
"$binary" check-device "$device" data/demo/model

for on in cpu "$device"; do
    echo "== $on"
    "$binary" run configs/quickstart.toml --out "$out/$on" --set "device=$on"
done

python3 - "$out" "$device" <<'EOF_PYTHON'
import json, pathlib, sys

out, device = pathlib.Path(sys.argv[1]), sys.argv[2]
failed = False
report = {d: json.loads((out / d / "report.json").read_text())["metrics"] for d in ("cpu", device)}
# The clean pass involves the model alone: rounding (TF32 products included) is all that may differ. The
# dictionaries went through a training each, in which rounding differences grow.
tolerance = {"ce.clean": 2e-3, "ce.zero": 2e-2, "ce.mean": 2e-2, "ce.sae": 2e-2, "fvu": 5e-2, "l0": 5e-2}
for name, relative in tolerance.items():
    cpu, found = report["cpu"][name], report[device][name]
    difference = abs(found - cpu) / abs(cpu)
    verdict = "ok" if difference <= relative else "DIFFERS"
    failed |= difference > relative
    print(f"{name:10} cpu {cpu:.6g}  {device} {found:.6g}  relative {difference:.2e} (at most {relative:.0e})  {verdict}")
for on in ("cpu", device):
    lines = (out / on / "dictionary" / "logs" / "metrics.jsonl").read_text().splitlines()
    print(f"training on {on}: {json.loads(lines[-1])['tokens_per_s']:.0f} tokens/s at the last log line")
sys.exit(failed)
EOF_PYTHON
echo "gpu-check: all of it agrees"
