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
ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")


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
        print(json.dumps({"file": path.name} | figures(*read(path), x, features)), flush=True)


def read(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """The config and the tensors, in f64 and by SAELens's names."""
    if path.is_dir():
        cfg, tensors = json.loads((path / "cfg.json").read_text()), load_file(path / "sae_weights.safetensors")
    else:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            cfg = json.loads(file.metadata()["cfg"])
    assert cfg["architecture"] in ARCHITECTURES and not cfg.get("rescale_acts_by_decoder_norm"), cfg
    return cfg, {name: tensor.double() for name, tensor in tensors.items()}


def encode(cfg: dict, weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Activations [n, d_sae] of x [n, d_in]."""
    if cfg["apply_b_dec_to_input"]:
        x = x - weights["b_dec"]
    encoded = x @ weights["W_enc"]
    if cfg["architecture"] == "gated":
        magnitude = (encoded * weights["r_mag"].exp() + weights["b_mag"]).relu()
        return magnitude * (encoded + weights["b_gate"] > 0)
    pre_acts = encoded + weights["b_enc"]
    if cfg["architecture"] == "jumprelu":
        return pre_acts.relu() * (pre_acts > weights["threshold"])
    acts = pre_acts.relu()
    if cfg["architecture"] == "topk":
        largest = acts.topk(cfg["k"], dim=1)
        acts = torch.zeros_like(acts).scatter(1, largest.indices, largest.values)
    return acts


@torch.no_grad()
def figures(cfg: dict, weights: dict[str, torch.Tensor], x: torch.Tensor, features: torch.Tensor) -> dict[str, float]:
    active, error = torch.zeros(weights["W_dec"].shape[0], dtype=torch.float64), 0.0
    for part in x.split(CHUNK):
        acts = encode(cfg, weights, part)
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
