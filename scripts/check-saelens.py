#!/usr/bin/env python3
"""Checks that SAELens's own loader takes a dictionary directory and computes the same function.

    cargo run --release -p monosema-sae --example outputs -- DICTIONARY /tmp/outputs.safetensors
    scripts/check-saelens.py DICTIONARY /tmp/outputs.safetensors

Needs `pip install sae-lens` (6.x). Exits with 1 if any output differs by more than the tolerance.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from sae_lens import SAE

# Largest difference relative to the largest value: f32 sums over d_in or d_sae in another order.
TOLERANCE = 1e-5


def main() -> int:
    directory, outputs = Path(sys.argv[1]), load_file(sys.argv[2])
    sae = SAE.load_from_disk(directory)
    cfg = json.loads((directory / "cfg.json").read_text())
    assert sae.cfg.architecture() == cfg["architecture"]
    assert sae.cfg.metadata.hook_name == cfg["metadata"]["hook_name"]
    print(f"{sae.cfg.architecture()} {sae.cfg.d_in} -> {sae.cfg.d_sae} at {sae.cfg.metadata.hook_name}")
    with torch.no_grad():
        acts = sae.encode(outputs["x"])
        found = {"acts": acts, "x_hat": sae.decode(acts)}
    worst = 0.0
    for name, value in found.items():
        error = ((value - outputs[name]).abs().max() / outputs[name].abs().max()).item()
        worst = max(worst, error)
        print(f"{name}: largest relative difference {error:.2e}")
    sparsity = directory / "sparsity.safetensors"
    if sparsity.exists():
        values = load_file(sparsity)["sparsity"]
        assert values.shape == (sae.cfg.d_sae,), f"sparsity has shape {tuple(values.shape)}"
        print(f"sparsity: log10 frequency from {values.min():.2f} to {values.max():.2f}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
