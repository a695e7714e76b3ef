"""Evaluates dictionaries of any of `quality`'s implementations on held-out data, all by this code and in f64.

    python evaluate.py --data data.safetensors DICTIONARY...

A dictionary is a file of `impls/trained.py` or a SAELens v6 directory, which is what monosema writes. One line of JSON each.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

CHUNK = 8192


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("dictionaries", type=Path, nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = load_file(args.data)
    x, features = data["heldout"].double(), data["features"].double()
    for path in args.dictionaries:
        weights, top_k = read(path)
        print(json.dumps({"file": path.name} | figures(weights, top_k, x, features)), flush=True)


def read(path: Path) -> tuple[dict[str, torch.Tensor], int]:
    """W_enc, b_enc, W_dec, b_dec in f64 and what is subtracted from the input; and k, 0 for ReLU."""
    if path.is_dir():
        cfg = json.loads((path / "cfg.json").read_text())
        assert cfg["architecture"] in ("standard", "topk") and not cfg.get("rescale_acts_by_decoder_norm"), cfg
        tensors, top_k, apply_b_dec = load_file(path / "sae_weights.safetensors"), cfg.get("k", 0), cfg["apply_b_dec_to_input"]
    else:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        top_k, apply_b_dec = int(metadata["top_k"]), metadata["apply_b_dec"] == "1"
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    weights["shift"] = weights["b_dec"] if apply_b_dec else torch.zeros_like(weights["b_dec"])
    return weights, top_k


@torch.no_grad()
def figures(weights: dict[str, torch.Tensor], top_k: int, x: torch.Tensor, features: torch.Tensor) -> dict[str, float]:
    active, error = torch.zeros(weights["W_dec"].shape[0], dtype=torch.float64), 0.0
    for part in x.split(CHUNK):
        acts = ((part - weights["shift"]) @ weights["W_enc"] + weights["b_enc"]).relu()
        if top_k:
            largest = acts.topk(top_k, dim=1)
            acts = torch.zeros_like(acts).scatter(1, largest.indices, largest.values)
        active += (acts > 0).sum(0)
        error += (part - acts @ weights["W_dec"] - weights["b_dec"]).pow(2).sum().item()
    rows = torch.nn.functional.normalize(weights["W_dec"], dim=1)
    return {
        "l0": active.sum().item() / len(x),
        "fvu": error / (x - x.mean(0)).pow(2).sum().item(),
        # Of every true feature the cosine with the nearest latent.
        "mmcs": (features @ rows.T).amax(1).mean().item(),
        "dead": (active == 0).double().mean().item(),
    }


if __name__ == "__main__":
    main()
