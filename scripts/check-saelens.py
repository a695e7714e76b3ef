#!/usr/bin/env python3
"""Checks that SAELens's own loader takes a dictionary directory and computes what monosema computes.

Function, on random inputs:

    cargo run --release -p monosema-sae --example outputs -- runs/quickstart/dictionary /tmp/outputs.safetensors
    scripts/check-saelens.py runs/quickstart/dictionary --outputs /tmp/outputs.safetensors

Scale, on raw activations of the text that a report is about: the fraction of variance unexplained (FVU) that SAELens's
encoder and decoder leave must be the report's. Harvest the same tokens first (as many as `eval.tokens`):

    cargo run --release -- harvest configs/quickstart.toml --out /tmp/heldout \\
        --set 'harvest.text.files=["data/demo/stories/heldout.jsonl"]' --set harvest.tokens=40000
    scripts/check-saelens.py runs/quickstart/dictionary --report runs/quickstart/report.json --acts /tmp/heldout/acts

Needs `pip install sae-lens pyarrow` (sae-lens 6.x). Exits with 1 if anything differs by more than its tolerance.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from safetensors.torch import load_file
from sae_lens import SAE

# Largest difference relative to the largest value: f32 sums over d_in or d_sae in another order.
OUTPUT_TOLERANCE = 1e-5

# Relative. x and x̂ are f32 in both programs, sums f64 here and there. A scale that was folded wrongly, or
# twice, is off by its square.
FVU_TOLERANCE = 1e-4

# How TransformerLens must load the model, for its residual stream to be what the dictionary was trained on.
MODEL_KWARGS = {"center_writing_weights": False}


def check_outputs(sae: SAE, file: Path) -> bool:
    """Whether SAELens makes of random inputs what monosema made of them."""
    outputs = load_file(file)
    with torch.no_grad():
        # Not `decode`: what goes past the latents of a transcoder is added after it.
        found = {"acts": sae.encode(outputs["x"]), "x_hat": sae(outputs["x"])}
    good = True
    for name, value in found.items():
        error = ((value - outputs[name]).abs().max() / outputs[name].abs().max()).item()
        good &= error <= OUTPUT_TOLERANCE
        print(f"{name}: largest relative difference {error:.2e}")
    return good


def activations(directory: Path, hook: str):
    """The vectors of every shard, f32, as `crates/store/README.md` describes them."""
    shards = sorted(directory.glob("shard-*.parquet"), key=lambda path: int(path.stem.split("-")[1]))
    assert shards, f"no activations in {directory}"
    for shard in shards:
        table = pyarrow.parquet.read_table(shard, columns=[hook])
        metadata = pyarrow.parquet.read_schema(shard).metadata
        kind = (metadata[b"monosema.dtype"], metadata[b"monosema.layout"])
        assert kind == (b"f32", b"binary"), f"{shard}: expected f32 in binary columns, found {kind}"
        width = {h["hook"]: h["width"] for h in json.loads(metadata[b"monosema.hooks"])}[hook]
        for batch in table.to_batches(max_chunksize=4096):
            # As rows: a batch is a slice, and its buffer the whole.
            yield np.frombuffer(b"".join(batch.column(0).to_pylist()), "<f4").reshape(-1, width)


def fvu(sae: SAE, directory: Path, hook: str) -> tuple[float, int]:
    """Σ‖x − x̂‖² / Σ‖x − x̄‖² over all stored vectors, and how many those are."""
    n, sums, squares, error = 0, 0.0, 0.0, 0.0
    for x in activations(directory, hook):
        with torch.no_grad():
            x_hat = sae.decode(sae.encode(torch.from_numpy(x.copy()))).numpy()
        wide = x.astype("f8")
        n += len(x)
        sums = sums + wide.sum(axis=0)
        squares += (wide**2).sum()
        error += ((wide - x_hat) ** 2).sum()
    return float(error / (squares - (sums**2).sum() / n)), n


def check_fvu(sae: SAE, report: Path, directory: Path, text: str | None) -> bool:
    """Whether SAELens reconstructs raw activations as well as the report says."""
    found, n = fvu(sae, directory, sae.cfg.metadata.hook_name)
    texts = {entry["name"]: entry for entry in json.loads(report.read_text())["texts"]}
    text = text or next(iter(texts))
    expected, counted = texts[text]["metrics"]["fvu"], texts[text]["counted_tokens"]
    if n != counted:
        print(f"{directory}: expected the {counted} tokens of {text}, found {n}", file=sys.stderr)
        return False
    error = abs(found - expected) / expected
    print(f"fvu of {text}: {found:.7f}, the report's {expected:.7f}, relative difference {error:.1e}, {n} tokens")
    return error <= FVU_TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionary", type=Path)
    parser.add_argument("--outputs", type=Path, help="what the example `outputs` wrote")
    parser.add_argument("--report", type=Path, help="a report.json of this dictionary; needs --acts")
    parser.add_argument("--acts", type=Path, help="activations of a text of the report")
    parser.add_argument("--text", help="which text of the report; default: the first")
    args = parser.parse_args()
    if bool(args.report) != bool(args.acts) or not (args.outputs or args.report):
        parser.error("give --outputs, or --report and --acts, or all three")

    sae = SAE.load_from_disk(args.dictionary)
    cfg = json.loads((args.dictionary / "cfg.json").read_text())
    assert sae.cfg.architecture() == cfg["architecture"]
    assert sae.cfg.metadata.hook_name == cfg["metadata"]["hook_name"]
    kwargs = sae.cfg.metadata.model_from_pretrained_kwargs
    assert kwargs == MODEL_KWARGS, f"sae_lens/evals.py unpacks it: expected {MODEL_KWARGS}, found {kwargs}"
    print(f"{sae.cfg.architecture()} {sae.cfg.d_in} -> {sae.cfg.d_sae} at {sae.cfg.metadata.hook_name}")
    sparsity = args.dictionary / "sparsity.safetensors"
    if sparsity.exists():
        values = load_file(sparsity)["sparsity"]
        assert values.shape == (sae.cfg.d_sae,), f"sparsity has shape {tuple(values.shape)}"
        print(f"sparsity: log10 frequency from {values.min():.2f} to {values.max():.2f}")
    good = True
    if args.outputs:
        good &= check_outputs(sae, args.outputs)
    if args.report:
        good &= check_fvu(sae, args.report, args.acts, args.text)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
