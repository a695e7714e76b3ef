"""What every implementation shares: the inputs, the clock, the check and the one line of JSON it prints.

An implementation is a function from a `Problem` to a `Loop`. It starts from the same weights as all others, takes its
batches from the clock until there are no more, and leaves everything else to its own trainer. Run one alone:

    compare --keep-inputs /tmp/in --shape 64x512 --batch 512 --impl torch    # leaves /tmp/in/inputs.safetensors
    python impls/torch_loop.py --impl torch --inputs /tmp/in/inputs.safetensors --batch 512 --check
"""

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from typing import Callable

import torch
from safetensors.torch import load_file

# Adam moves every weight by about this much a step: too little for the density to change while it is timed.
LR = 1e-7
# The L1 coefficient of the April 2024 recipe, at its data scale (a mean norm of the square root of d_in).
L1 = 5.0
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
# Global gradient norm.
CLIP = 1.0

# Relative error of a gradient in the Euclidean norm. f32 sums in another order come to 1e-6; a latent that rounding
# switches at the threshold is one among thousands.
F32_TOLERANCE = 1e-3
# bf16 keeps 8 bits, and switches more latents.
BF16_TOLERANCE = 1e-1


@dataclass
class Problem:
    """The shared inputs, all f32: x [rows, d_in], w_enc [d_in, d_sae], b_enc, w_dec [d_sae, d_in], b_dec."""

    x: torch.Tensor
    w_enc: torch.Tensor
    b_enc: torch.Tensor
    w_dec: torch.Tensor
    b_dec: torch.Tensor
    batch: int
    k: int
    total_steps: int

    @property
    def d_in(self) -> int:
        return self.w_enc.shape[0]

    @property
    def d_sae(self) -> int:
        return self.w_enc.shape[1]


@dataclass
class Maths:
    """What one step computes, for the reference gradient of `--check` and for the L0."""

    k: int | None = None  # TopK; ReLU otherwise
    l1: float = 0.0  # coefficient of the activations weighted by the decoder's norms
    subtract_b_dec: bool = False  # from the encoder's input
    fvu: bool = False  # squared error over the batch's variance, not over its tokens
    project: bool = False  # the gradient parallel to the decoder's rows is removed
    clip: float | None = CLIP
    tolerance: float = F32_TOLERANCE


@dataclass
class Loop:
    train: Callable[["Clock"], None]  # trains on every batch the clock hands out
    weights: Callable[[], dict[str, torch.Tensor]]  # W_enc, b_enc, W_dec, b_dec in the layout of the inputs
    first_moments: Callable[[], dict[str, torch.Tensor]]  # Adam's, in the same layout
    maths: Maths


class Clock:
    """Hands out batches that are views of the data in memory; starts when the last warm-up step has returned."""

    def __init__(self, x: torch.Tensor, batch: int, warmup: int, steps: int):
        self.batches = x.split(batch)
        self.warmup, self.steps, self.given = warmup, steps, 0
        # A GPU works behind the host: the clock is read when it has caught up.
        self.catch_up = torch.cuda.synchronize if x.is_cuda else lambda: None

    def __iter__(self):
        return self

    def __next__(self) -> torch.Tensor:
        if self.given == self.warmup + self.steps:
            raise StopIteration
        if self.given == self.warmup:
            self.catch_up()
            self.started = time.perf_counter(), time.process_time()
        self.given += 1
        return self.batches[(self.given - 1) % len(self.batches)]

    def stop(self) -> tuple[float, float]:
        """Wall-clock and CPU seconds since the start."""
        self.catch_up()
        ended = time.perf_counter(), time.process_time()
        if self.given != self.warmup + self.steps:
            sys.exit(f"{self.given} batches were taken, expected {self.warmup + self.steps}")
        return ended[0] - self.started[0], ended[1] - self.started[1]


def main(builders: dict[str, Callable[[Problem], Loop]]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--impl", required=True, choices=[*builders, "gemm"])
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--check", action="store_true", help="compare one step's gradients with autograd's in f64")
    args = parser.parse_args()
    if args.check:
        args.warmup, args.steps = 0, 1

    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    if args.device == "cuda":
        # TF32 in f32 products, as ours has it there.
        torch.set_float32_matmul_precision("high")
    inputs = {name: tensor.clone().to(args.device) for name, tensor in load_file(args.inputs).items()}
    problem = Problem(
        **{name.lower(): tensor for name, tensor in inputs.items()},
        batch=args.batch,
        k=args.k,
        total_steps=args.warmup + args.steps,
    )
    if args.impl == "gemm":
        print(json.dumps({"impl": "gemm-torch", "gflops": gemm_gflops(problem, args.warmup, args.steps)}))
        return

    start_mb = peak_mb()
    loop = builders[args.impl](problem)
    clock = Clock(problem.x, problem.batch, args.warmup, args.steps)
    loop.train(clock)
    wall_s, cpu_s = clock.stop()
    end_mb = peak_mb()
    gpu_mb = torch.cuda.max_memory_reserved() / 1e6 if args.device == "cuda" else None
    if args.check:
        check(args.impl, problem, loop)
        return
    tokens = args.steps * problem.batch
    line = {
        "impl": args.impl,
        "shape": f"{problem.d_in}x{problem.d_sae}",
        "threads": args.threads,
        "tokens_per_s": tokens / wall_s,
        "tokens_per_cpu_s": tokens / cpu_s,
        "peak_mb": end_mb,
        "start_mb": start_mb,
        "gpu_mb": gpu_mb,
        "l0": l0(problem, loop),
        "step_ms": 1e3 * wall_s / args.steps,
    }
    print(json.dumps(line))


def peak_mb() -> float:
    """The most memory this process has had resident so far, in 10⁶ bytes, Python and libraries included."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def gemm_gflops(problem: Problem, warmup: int, steps: int) -> float:
    """The f32 product of the encoder, [batch, d_in] by [d_in, d_sae], alone; the median of its repetitions."""
    x = problem.x[: problem.batch]
    out = x.new_empty(problem.batch, problem.d_sae)
    seconds = []
    catch_up = torch.cuda.synchronize if x.is_cuda else lambda: None
    for _ in range(warmup + max(steps, 10)):
        catch_up()
        start = time.perf_counter()
        torch.matmul(x, problem.w_enc, out=out)
        catch_up()
        seconds.append(time.perf_counter() - start)
    median = sorted(seconds[warmup:])[(len(seconds) - warmup) // 2]
    return 2e-9 * problem.batch * problem.d_in * problem.d_sae / median


def encode(x: torch.Tensor, weights: dict[str, torch.Tensor], maths: Maths) -> torch.Tensor:
    """Activations [n, d_sae] of x [n, d_in]."""
    if maths.subtract_b_dec:
        x = x - weights["b_dec"]
    pre_acts = x @ weights["W_enc"] + weights["b_enc"]
    if maths.k is None:
        return pre_acts.relu()
    top = pre_acts.topk(maths.k, dim=1)
    return torch.zeros_like(pre_acts).scatter(1, top.indices, top.values.relu())


@torch.no_grad()
def l0(problem: Problem, loop: Loop) -> float:
    """Mean over all tokens, with the weights as they are after training."""
    active = sum((encode(x, loop.weights(), loop.maths) > 0).sum().item() for x in problem.x.split(problem.batch))
    return active / len(problem.x)


def reference_gradients(problem: Problem, maths: Maths) -> dict[str, torch.Tensor]:
    """Of the first step, by autograd in f64, after projection and clip."""
    start = {"W_enc": problem.w_enc, "b_enc": problem.b_enc, "W_dec": problem.w_dec, "b_dec": problem.b_dec}
    if maths.k is not None:
        start["b_enc"] = torch.zeros_like(problem.b_enc)
    weights = {name: tensor.double().requires_grad_() for name, tensor in start.items()}
    x = problem.x[: problem.batch].double()
    acts = encode(x, weights, maths)
    squares = (x - acts @ weights["W_dec"] - weights["b_dec"]).pow(2).sum()
    loss = squares / ((x - x.mean(0)).pow(2).sum() if maths.fvu else len(x))
    loss = loss + maths.l1 * (acts * weights["W_dec"].norm(dim=1)).sum() / len(x)
    grads = dict(zip(weights, torch.autograd.grad(loss, list(weights.values()))))
    with torch.no_grad():
        if maths.project:
            rows = weights["W_dec"] / weights["W_dec"].norm(dim=1, keepdim=True)
            grads["W_dec"] -= (grads["W_dec"] * rows).sum(1, keepdim=True) * rows
        if maths.clip is not None:
            norm = torch.sqrt(sum(grad.pow(2).sum() for grad in grads.values()))
            grads = {name: grad / max(norm / maths.clip, 1.0) for name, grad in grads.items()}
    return grads


def check(impl: str, problem: Problem, loop: Loop) -> None:
    """After one step Adam's first moment is 1 - beta1 times the gradient it got. Exits with 1 on a difference."""
    failed = False
    reference = reference_gradients(problem, loop.maths)
    for name, moment in loop.first_moments().items():
        expected = reference[name]
        error = ((moment.double() / (1 - BETA1) - expected).norm() / expected.norm()).item()
        failed |= not error <= loop.maths.tolerance
        print(f"{impl:24} {name:6} relative error {error:.1e} (tolerance {loop.maths.tolerance:.0e})")
    sys.exit(1 if failed else 0)


def moments_of(optimizer: torch.optim.Optimizer, parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: optimizer.state[parameter]["exp_avg"] for name, parameter in parameters.items()}


# Nothing here may ask the network or log anywhere.
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false")
