"""Writes the data and weights that all implementations start from.

A token is a sum of the decoder's rows, a few of them, frequent ones more often than rare ones, and noise; scaled to a
mean norm of the square root of d_in. The encoder is the decoder transposed, and one negative bias for all latents
lets through as many as the mean L0 asks for. So latents are active as unevenly as in a trained dictionary.

    python inputs.py --shape 64x512 --batch 512 --l0 45 --out /tmp/inputs.safetensors
"""

import argparse
import math

import torch
from safetensors.torch import save_file

# Mean number of true features a token has, and how fast their frequency falls with their rank.
FEATURES, EXPONENT, RANK_OFFSET = 32, 0.7, 10
# Noise per coordinate against the features' part, both as mean square.
NOISE = 0.5
BATCHES = 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--l0", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    d_in, d_sae = map(int, args.shape.split("x"))
    torch.manual_seed(args.seed)

    w_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in), dim=1)
    frequency = (torch.arange(d_sae) + RANK_OFFSET).double().pow(-EXPONENT)
    frequency = (frequency * min(FEATURES, d_sae / 4) / frequency.sum()).clamp(max=0.5).float()
    frequency = frequency[torch.randperm(d_sae)]
    x = torch.cat([tokens(args.batch, frequency, w_dec) for _ in range(BATCHES)])
    x -= x.mean(0)
    x *= math.sqrt(d_in) / x.norm(dim=1).mean()
    w_enc = w_dec.T.contiguous()
    b_enc = torch.full((d_sae,), -threshold(x, w_enc, args.batch, args.l0))
    inputs = {"x": x, "W_enc": w_enc, "b_enc": b_enc, "W_dec": w_dec, "b_dec": torch.zeros(d_in)}
    save_file(inputs, args.out)
    print(f"threshold {-b_enc[0]:.4f}")


def tokens(n: int, frequency: torch.Tensor, w_dec: torch.Tensor) -> torch.Tensor:
    """[n, d_in]: features with exponential magnitudes, and noise."""
    strength = (torch.rand(n, len(frequency)) < frequency) * torch.empty(n, len(frequency)).exponential_()
    x = strength @ w_dec
    return x + torch.randn_like(x) * (NOISE * x.pow(2).mean()).sqrt()


def threshold(x: torch.Tensor, w_enc: torch.Tensor, chunk: int, l0: float) -> float:
    """The value that a mean of l0 pre-activations a token lie above."""
    # Twice as many of each chunk: chunks differ by far less than that.
    wanted = min(2 * l0, w_enc.shape[1])
    kept = [(part @ w_enc).flatten().topk(int(wanted * len(part))).values for part in x.split(chunk)]
    highest = torch.cat(kept).sort(descending=True).values
    at = min(round(l0 * len(x)), len(highest) - 1)
    return ((highest[at - 1] + highest[at]) / 2).item()


if __name__ == "__main__":
    main()
