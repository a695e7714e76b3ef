"""Writes synthetic data in superposition: more features than dimensions, of which a token has few.

Features are random directions of norm 1 in d_in dimensions. A token has each of them independently with the same
probability, in a strength uniform between 0.5 and 1.5; nothing else is in it. All is scaled to a mean norm of the
square root of d_in. Trainings get `x`; `heldout` and `features` are for the evaluation alone.

    python superposition.py --d-in 64 --features 512 --active 3 --tokens 768000 --heldout 65536 --out /tmp/data.safetensors
"""

import argparse
import math

import torch
from safetensors.torch import save_file

CHUNK = 16_384


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--d-in", type=int, required=True)
    parser.add_argument("--features", type=int, required=True)
    parser.add_argument("--active", type=float, required=True, help="mean features of a token")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--heldout", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    features = torch.nn.functional.normalize(torch.randn(args.features, args.d_in), dim=1)
    x, heldout = (tokens(n, features, args.active) for n in (args.tokens, args.heldout))
    scale = math.sqrt(args.d_in) / x.norm(dim=1).mean()
    save_file({"x": x * scale, "heldout": heldout * scale, "features": features}, args.out)


def tokens(n: int, features: torch.Tensor, active: float) -> torch.Tensor:
    """[n, d_in]."""
    parts = []
    for begin in range(0, n, CHUNK):
        shape = min(CHUNK, n - begin), len(features)
        strength = (torch.rand(shape) < active / len(features)) * torch.empty(shape).uniform_(0.5, 1.5)
        parts.append(strength @ features)
    return torch.cat(parts)


if __name__ == "__main__":
    main()
