"""The hand-written gradients of torch_loop.py, clip and Adam through `torch.compile`, as one graph.

A process of its own: dictionary-learning imports nnsight, which patches what the compiler traces with.
"""

import torch
from torch import Tensor

from common import BETA1, BETA2, CLIP, EPS, L1, LR, Clock, Loop, Maths, Problem, main


@torch.compile(fullgraph=True, dynamic=False)
def step(x: Tensor, weights: list[Tensor], means: list[Tensor], squares: list[Tensor], t: Tensor) -> None:
    """weights: W_enc, b_enc, W_dec, b_dec; means, squares: Adam's moments; t: f32, 1 at the first step."""
    w_enc, b_enc, w_dec, b_dec = weights
    n = x.shape[0]
    acts = (x @ w_enc + b_enc).relu()
    g_x_hat = (acts @ w_dec + b_dec - x) * (2 / n)
    norms = torch.linalg.vector_norm(w_dec, dim=1)
    g_w_dec = acts.T @ g_x_hat + w_dec * (acts.sum(0) * (L1 / n) / norms)[:, None]
    g_pre = torch.where(acts > 0, g_x_hat @ w_dec.T + norms * (L1 / n), 0.0)
    grads = [x.T @ g_pre, g_pre.sum(0), g_w_dec, g_x_hat.sum(0)]

    norm = torch.sqrt(sum(grad.pow(2).sum() for grad in grads))
    scale = 1 / (norm / CLIP).clamp(min=1.0)
    step_size, root = LR / (1 - BETA1**t), torch.sqrt(1 - BETA2**t)
    for weight, mean, square, grad in zip(weights, means, squares, grads):
        grad = grad * scale
        mean.mul_(BETA1).add_(grad, alpha=1 - BETA1)
        square.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
        weight.sub_(step_size * mean / (square.sqrt() / root + EPS))


def dense_l1(problem: Problem) -> Loop:
    names = ["W_enc", "b_enc", "W_dec", "b_dec"]
    weights = [problem.w_enc.clone(), problem.b_enc.clone(), problem.w_dec.clone(), problem.b_dec.clone()]
    means = [torch.zeros_like(weight) for weight in weights]
    squares = [torch.zeros_like(weight) for weight in weights]
    t = torch.zeros(())

    @torch.no_grad()
    def train(clock: Clock) -> None:
        for x in clock:
            t.add_(1)
            step(x, weights, means, squares, t)

    return Loop(train, lambda: dict(zip(names, weights)), lambda: dict(zip(names, means)), Maths(l1=L1))


if __name__ == "__main__":
    main({"torch-compile": dense_l1})
