"""What the trainings of `quality` share: the task, the points of a front, and the file that a training leaves.

An implementation is a function from a `Task` to a `Trained`. It takes its batches in the order in which they lie there, and
leaves everything else to its own trainer. Every point (an L1 coefficient or a k, and a learning rate) is a training of its own.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
from safetensors.torch import load_file, save_file

# Of the steps: λ grows over the first 5 %, and so does the learning rate where a library's own default is to warm up; it falls
# to 0 over the last 20 %. (The defaults count steps of much longer runs.)
WARMUP, DECAY = 0.05, 0.2
# Of Matryoshka's latents, which no library has a default for: those of dictionary_learning's examples.
PREFIXES = [1 / 32, 3 / 32, 7 / 32, 15 / 32, 1]
# p-annealing begins with the penalty in full; from 1 to 0.2 as in the paper, and as in dictionary_learning's examples.
P_END = 0.2


@dataclass
class Task:
    """x [tokens, d_in] f32, of a mean norm of the square root of d_in."""

    x: torch.Tensor
    d_sae: int
    batch: int
    value: float  # the coefficient of the penalty, k, or the L0 that is aimed at
    lr: float
    seed: int

    @property
    def d_in(self) -> int:
        return self.x.shape[1]

    @property
    def k(self) -> int:
        return int(self.value)

    @property
    def steps(self) -> int:
        return len(self.x) // self.batch

    @property
    def warmup_steps(self) -> int:
        return round(WARMUP * self.steps)

    @property
    def decay_steps(self) -> int:
        return round(DECAY * self.steps)

    @property
    def prefixes(self) -> list[int]:
        return [round(self.d_sae * share) for share in PREFIXES]

    def batches(self):
        return iter(self.x.split(self.batch)[: self.steps])


@dataclass
class Trained:
    """A dictionary: acts = activation((x - b_dec · apply_b_dec) · W_enc + b_enc), x̂ = acts · W_dec + b_dec.

    The activation is ReLU, and of that the k largest with `top_k`, or what is above `threshold` [d_sae]; or a gate on (the same
    without b_enc) · exp(r_mag) + b_mag, where b_enc is b_gate. BatchTopK is its threshold, as it is when it is used."""

    w_enc: torch.Tensor  # [d_in, d_sae]
    b_enc: torch.Tensor
    w_dec: torch.Tensor  # [d_sae, d_in]
    b_dec: torch.Tensor
    apply_b_dec: bool
    top_k: int | None = None
    threshold: torch.Tensor | None = None
    magnitude: tuple[torch.Tensor, torch.Tensor] | None = None  # r_mag, b_mag

    def save(self, path: Path) -> None:
        """As SAELens names tensors and architectures."""
        tensors = {"W_enc": self.w_enc, "b_enc": self.b_enc, "W_dec": self.w_dec, "b_dec": self.b_dec}
        architecture = "standard" if self.top_k is None else "topk"
        if self.threshold is not None:
            architecture, tensors["threshold"] = "jumprelu", self.threshold
        if self.magnitude is not None:
            architecture, tensors["b_gate"] = "gated", tensors.pop("b_enc")
            tensors["r_mag"], tensors["b_mag"] = self.magnitude
        tensors = {name: tensor.detach().float().contiguous().clone() for name, tensor in tensors.items()}
        cfg = {"architecture": architecture, "apply_b_dec_to_input": self.apply_b_dec, "k": self.top_k}
        save_file(tensors, path, {"cfg": json.dumps(cfg)})


def main(trainings: dict[str, Callable[[Task], Trained]]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--impl", required=True, choices=list(trainings))
    parser.add_argument("--data", required=True)
    parser.add_argument("--d-sae", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--values", type=float, nargs="+", required=True)
    parser.add_argument("--lrs", type=float, nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    x = load_file(args.data)["x"]
    for value in args.values:
        for lr in args.lrs:
            torch.manual_seed(args.seed)
            task = Task(x, args.d_sae, args.batch, value, lr, args.seed)
            started = time.perf_counter()
            trained = trainings[args.impl](task)
            seconds = time.perf_counter() - started
            path = args.out / f"{args.impl}-{value:g}-{lr:g}.safetensors"
            trained.save(path)
            print(json.dumps({"value": value, "lr": lr, "seconds": seconds, "file": path.name}), flush=True)


# Nothing here may ask the network or log anywhere.
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false")
