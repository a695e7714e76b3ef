#!/usr/bin/env bash
# Checks monosema on a machine with an NVIDIA GPU, with one prebuilt binary and no network:
#
#   CUDARC_CUDA_VERSION=13000 cargo build --release --features cuda     (where Rust is)
#   scripts/gpu-check.sh target/release/monosema                        (where the GPU is; default: that path)
#
# Lists the devices; holds the language model on CUDA against the CPU, prediction by prediction and layer by
# layer; runs harvest → train → eval of the embedded demo on both, compares what they measured, and prints
# how fast each trained. Exits non-zero at a disagreement.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=$(realpath "${1:-target/release/monosema}")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# CUDA headers for NVRTC, where they are not in the default place.
export CUDA_PATH="${CUDA_PATH:-/usr/local/cuda}"

command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
"$binary" devices
"$binary" devices --json | python3 -c '
import json, sys
state = {d["name"]: d["state"] for d in json.load(sys.stdin)["devices"]}
if state.get("cuda:0") != "works":
    sys.exit(f"cuda:0 does not work here: {state}")'

for device in cpu cuda:0; do
    dir="$out/${device%%:*}"
    echo "== $device"
    "$binary" inspect data/demo/model --text data/demo/stories/heldout.jsonl --device "$device" --json >"$dir.json"
    "$binary" run configs/quickstart.toml --out "$dir" --set "device=$device"
done

python3 - "$out" <<'EOF_PYTHON'
import json, pathlib, sys

out = pathlib.Path(sys.argv[1])
failed = False
model = {d: json.loads((out / f"{d}.json").read_text()) for d in ("cpu", "cuda")}
ce = [[p["ce"] for p in model[d]["predictions"]] for d in ("cpu", "cuda")]
worst = max(abs(a - b) for a, b in zip(*ce, strict=True))
norms = [[layer["mean"] for layer in model[d]["layers"]] for d in ("cpu", "cuda")]
worst_norm = max(abs(a - b) / a for a, b in zip(*norms, strict=True))
# TF32 products keep 10 bits of mantissa; over four blocks that is some 1e-3 of a logit.
for name, found, limit in [("cross-entropy of a token, nats", worst, 5e-2), ("mean norm of a layer, relative", worst_norm, 1e-2)]:
    verdict = "ok" if found <= limit else "DIFFERS"
    failed |= found > limit
    print(f"{name}: largest difference {found:.2e} (at most {limit:.0e})  {verdict}")

report = {d: json.loads((out / d / "report.json").read_text())["metrics"] for d in ("cpu", "cuda")}
# The clean pass involves the model alone: rounding (TF32 products included) is all that may differ. The
# dictionaries went through a training each, in which rounding differences grow.
tolerance = {"ce.clean": 2e-3, "ce.zero": 2e-2, "ce.mean": 2e-2, "ce.sae": 2e-2, "fvu": 5e-2, "l0": 5e-2}
for name, relative in tolerance.items():
    cpu, cuda = report["cpu"][name], report["cuda"][name]
    difference = abs(cuda - cpu) / abs(cpu)
    verdict = "ok" if difference <= relative else "DIFFERS"
    failed |= difference > relative
    print(f"{name:10} cpu {cpu:.6g}  cuda {cuda:.6g}  relative {difference:.2e} (at most {relative:.0e})  {verdict}")
for device in ("cpu", "cuda"):
    lines = (out / device / "dictionary" / "logs" / "metrics.jsonl").read_text().splitlines()
    print(f"training on {device}: {json.loads(lines[-1])['tokens_per_s']:.0f} tokens/s at the last log line")
sys.exit(failed)
EOF_PYTHON
echo "gpu-check: all of it agrees"
