"""The hand-written gradients of torch_loop.py, clip and Adam through `torch.compile`, as one graph.

A process of its own: dictionary-learning imports nnsight, which patches what the compiler traces with.
"""

import torch
from torch import Tensor

from common import BETA1, BETA2, BF16_TOLERANCE, CLIP, EPS, L1, LR, Clock, Loop, Maths, Problem, main


@torch.compile(fullgraph=True, dynamic=False)
def step(
    x: Tensor, weights: list[Tensor], means: list[Tensor], squares: list[Tensor], t: Tensor, dtype: torch.dtype
) -> None:
    """weights: W_enc, b_enc, W_dec, b_dec; means, squares: Adam's moments; t: f32, 1 at the first step; dtype: of products."""
    w_enc, b_enc, w_dec, b_dec = weights
    n = x.shape[0]
    low = lambda tensor: tensor.to(dtype)
    x_low, w_enc_low, w_dec_low = low(x), low(w_enc), low(w_dec)
    acts = ((x_low @ w_enc_low) + b_enc).relu()
    acts_low = low(acts)
    g_x_hat = ((acts_low @ w_dec_low) + b_dec - x) * (2 / n)
    g_low = low(g_x_hat)
    norms = torch.linalg.vector_norm(w_dec, dim=1)
    g_w_dec = acts_low.T @ g_low + w_dec * (acts.sum(0) * (L1 / n) / norms)[:, None]
    g_pre = torch.where(acts > 0, g_low @ w_dec_low.T + norms * (L1 / n), 0.0)
    grads = [x_low.T @ low(g_pre), g_pre.sum(0), g_w_dec, g_x_hat.sum(0)]

    norm = torch.sqrt(sum(grad.pow(2).sum() for grad in grads))
    scale = 1 / (norm / CLIP).clamp(min=1.0)
    step_size, root = LR / (1 - BETA1**t), torch.sqrt(1 - BETA2**t)
    for weight, mean, square, grad in zip(weights, means, squares, grads):
        grad = grad * scale
        mean.mul_(BETA1).add_(grad, alpha=1 - BETA1)
        square.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
        weight.sub_(step_size * mean / (square.sqrt() / root + EPS))


def dense_l1(problem: Problem, dtype: torch.dtype = torch.float32) -> Loop:
    names = ["W_enc", "b_enc", "W_dec", "b_dec"]
    weights = [problem.w_enc.clone(), problem.b_enc.clone(), problem.w_dec.clone(), problem.b_dec.clone()]
    means = [torch.zeros_like(weight) for weight in weights]
    squares = [torch.zeros_like(weight) for weight in weights]
    t = torch.zeros((), device=problem.x.device)

    @torch.no_grad()
    def train(clock: Clock) -> None:
        for x in clock:
            t.add_(1)
            step(x, weights, means, squares, t, dtype)

    maths = Maths(l1=L1) if dtype == torch.float32 else Maths(l1=L1, tolerance=BF16_TOLERANCE)
    return Loop(train, lambda: dict(zip(names, weights)), lambda: dict(zip(names, means)), maths)


if __name__ == "__main__":
    main({
        "torch-compile": dense_l1,
        "torch-compile-bf16": lambda problem: dense_l1(problem, torch.bfloat16),
    })
