"""Hand-written PyTorch, eager: what somebody writes who wants the speed and knows the library.

Gradients by hand into buffers that are allocated once, biases inside the products (`addmm`), the clip inside Adam
(its `grad_scale`, which is for mixed precision, divides the gradients on the way), Adam fused into one pass.
"""

import warnings

import torch
from torch import Tensor

from common import BETA1, BETA2, BF16_TOLERANCE, CLIP, EPS, L1, LR, Clock, Loop, Maths, Problem, main, moments_of

# "Sparse CSR tensor support is in beta state": --check holds what is used of it against autograd.
warnings.filterwarnings("ignore", message="Sparse CSR")


class Adam:
    """Fused Adam over parameters with gradient buffers, clipped by their global norm."""

    def __init__(self, parameters: dict[str, Tensor]):
        self.parameters = parameters
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self.adam = torch.optim.Adam(parameters.values(), lr=LR, betas=(BETA1, BETA2), eps=EPS, fused=True)

    def step(self) -> None:
        norms = torch.stack([torch.linalg.vector_norm(p.grad) for p in self.parameters.values()])
        self.adam.grad_scale = (torch.linalg.vector_norm(norms) / CLIP).clamp_(min=1.0)
        self.adam.step()

    def first_moments(self) -> dict[str, Tensor]:
        return moments_of(self.adam, self.parameters)


def start_parameters(problem: Problem, zero_b_enc: bool = False) -> dict[str, Tensor]:
    parameters = {"W_enc": problem.w_enc, "b_enc": problem.b_enc, "W_dec": problem.w_dec, "b_dec": problem.b_dec}
    parameters = {name: tensor.clone() for name, tensor in parameters.items()}
    if zero_b_enc:
        parameters["b_enc"].zero_()
    return parameters


def dense_l1(problem: Problem) -> Loop:
    """ReLU-L1 in f32: five products, and as few passes over [batch, d_sae] as eager mode allows."""
    parameters = start_parameters(problem)
    adam = Adam(parameters)
    w_enc, b_enc, w_dec, b_dec = parameters.values()
    n = problem.batch
    acts, g_pre = w_enc.new_empty(n, problem.d_sae), w_enc.new_empty(n, problem.d_sae)
    g_x_hat = w_enc.new_empty(n, problem.d_in)

    def step(x: Tensor) -> None:
        torch.addmm(b_enc, x, w_enc, out=acts).relu_()
        torch.addmm(b_dec, acts, w_dec, out=g_x_hat).sub_(x).mul_(2 / n)
        norms = torch.linalg.vector_norm(w_dec, dim=1)
        torch.mm(acts.T, g_x_hat, out=w_dec.grad).addcmul_(w_dec, (acts.sum(0).mul_(L1 / n) / norms)[:, None])
        torch.addmm(norms.mul_(L1 / n), g_x_hat, w_dec.T, out=g_pre)
        torch.ops.aten.threshold_backward.grad_input(g_pre, acts, 0, grad_input=g_pre)
        torch.mm(x.T, g_pre, out=w_enc.grad)
        torch.sum(g_pre, 0, out=b_enc.grad)
        torch.sum(g_x_hat, 0, out=b_dec.grad)
        adam.step()

    return Loop(every(step), lambda: parameters, adam.first_moments, Maths(l1=L1))


def dense_l1_bf16(problem: Problem) -> Loop:
    """The same with products in bf16; weights, their gradients and Adam in f32."""
    parameters = start_parameters(problem)
    adam = Adam(parameters)
    w_enc, b_enc, w_dec, b_dec = parameters.values()
    n = problem.batch
    half = {"dtype": torch.bfloat16}
    acts, g_pre = w_enc.new_empty(n, problem.d_sae, **half), w_enc.new_empty(n, problem.d_sae, **half)
    x_hat, g_x_hat = w_enc.new_empty(n, problem.d_in, **half), w_enc.new_empty(n, problem.d_in, **half)
    w_enc_half, w_dec_half = torch.empty_like(w_enc, **half), torch.empty_like(w_dec, **half)
    g_w_enc, g_w_dec = torch.empty_like(w_enc_half), torch.empty_like(w_dec_half)

    def step(x: Tensor) -> None:
        w_enc_half.copy_(w_enc)
        w_dec_half.copy_(w_dec)
        x_half = x.bfloat16()
        torch.addmm(b_enc.bfloat16(), x_half, w_enc_half, out=acts).relu_()
        torch.addmm(b_dec.bfloat16(), acts, w_dec_half, out=x_hat)
        g_x_hat.copy_(torch.sub(x_hat, x).mul_(2 / n))
        norms = torch.linalg.vector_norm(w_dec, dim=1)
        w_dec.grad.copy_(torch.mm(acts.T, g_x_hat, out=g_w_dec))
        w_dec.grad.addcmul_(w_dec, (acts.sum(0, dtype=torch.float32).mul_(L1 / n) / norms)[:, None])
        torch.addmm(norms.mul_(L1 / n).bfloat16(), g_x_hat, w_dec_half.T, out=g_pre)
        torch.ops.aten.threshold_backward.grad_input(g_pre, acts, 0, grad_input=g_pre)
        w_enc.grad.copy_(torch.mm(x_half.T, g_pre, out=g_w_enc))
        torch.sum(g_pre, 0, dtype=torch.float32, out=b_enc.grad)
        torch.sum(g_x_hat, 0, dtype=torch.float32, out=b_dec.grad)
        adam.step()

    return Loop(every(step), lambda: parameters, adam.first_moments, Maths(l1=L1, tolerance=BF16_TOLERANCE))


class Compressed:
    """Where activations [n, d_sae] are not zero: CSR of them and of their transpose, for products with dense ones."""

    def __init__(self, rows_end: Tensor, columns: Tensor, shape: tuple[int, int]):
        """rows_end: [n + 1] i32; columns: [nnz] i32."""
        self.shape, self.rows_end, self.columns = shape, rows_end, columns
        self.order = torch.argsort(columns, stable=True)
        counts = torch.bincount(columns, minlength=shape[1])
        self.columns_end = torch.zeros(shape[1] + 1, dtype=torch.int32)
        torch.cumsum(counts, 0, dtype=torch.int32, out=self.columns_end[1:])
        self.rows = torch.repeat_interleave(torch.arange(shape[0], dtype=torch.int32), rows_end.diff())
        self.rows_by_column = self.rows[self.order]

    def by_row(self, values: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(self.rows_end, self.columns, values, self.shape, check_invariants=False)

    def by_column(self, values: Tensor) -> Tensor:
        shape = self.shape[::-1]
        values = values[self.order]
        return torch.sparse_csr_tensor(self.columns_end, self.rows_by_column, values, shape, check_invariants=False)


def active_gradients(active: Compressed, values: Tensor, g_x_hat: Tensor, w_dec: Tensor) -> Tensor:
    """[nnz]: the entries of g_x_hat · w_decᵀ at the active ones alone."""
    return torch.sparse.sampled_addmm(active.by_row(values), g_x_hat, w_dec.T, beta=0.0).values()


def sparse_l1(problem: Problem) -> Loop:
    """ReLU-L1 with a dense encoder and the four other products sparse. W_enc is held as [d_sae, d_in]."""
    parameters = start_parameters(problem)
    parameters["W_enc"] = parameters["W_enc"].T.contiguous()
    adam = Adam(parameters)
    w_enc, b_enc, w_dec, b_dec = parameters.values()
    n = problem.batch
    acts = w_enc.new_empty(n, problem.d_sae)
    g_x_hat = w_enc.new_empty(n, problem.d_in)

    def step(x: Tensor) -> None:
        torch.addmm(b_enc, x, w_enc.T, out=acts).relu_()
        compressed = acts.to_sparse_csr()
        values, columns = compressed.values(), compressed.col_indices().int()
        active = Compressed(compressed.crow_indices().int(), columns, acts.shape)
        torch.addmm(b_dec, active.by_row(values), w_dec, out=g_x_hat).sub_(x).mul_(2 / n)
        norms = torch.linalg.vector_norm(w_dec, dim=1)
        sums = torch.zeros_like(b_enc).index_add_(0, columns, values)
        torch.mm(active.by_column(values), g_x_hat, out=w_dec.grad)
        w_dec.grad.addcmul_(w_dec, (sums.mul_(L1 / n) / norms)[:, None])
        g_values = active_gradients(active, values, g_x_hat, w_dec).add_(norms.mul_(L1 / n)[columns])
        torch.mm(active.by_column(g_values), x, out=w_enc.grad)
        b_enc.grad.zero_().index_add_(0, columns, g_values)
        torch.sum(g_x_hat, 0, out=b_dec.grad)
        adam.step()

    return Loop(every(step), transposed(lambda: parameters), transposed(adam.first_moments), Maths(l1=L1))


def sparse_top_k(problem: Problem) -> Loop:
    """TopK, unit decoder rows, the parallel part of their gradient removed. W_enc is held as [d_sae, d_in]."""
    parameters = start_parameters(problem, zero_b_enc=True)
    parameters["W_enc"] = parameters["W_enc"].T.contiguous()
    adam = Adam(parameters)
    w_enc, b_enc, w_dec, b_dec = parameters.values()
    n, k = problem.batch, problem.k
    pre_acts = w_enc.new_empty(n, problem.d_sae)
    g_x_hat = w_enc.new_empty(n, problem.d_in)
    rows_end = torch.arange(0, n * k + 1, k, dtype=torch.int32)

    def step(x: Tensor) -> None:
        torch.addmm(b_enc, x, w_enc.T, out=pre_acts)
        values, columns = pre_acts.topk(k, dim=1, sorted=False)
        values, columns = values.relu_().flatten(), columns.flatten().int()
        active = Compressed(rows_end, columns, pre_acts.shape)
        torch.addmm(b_dec, active.by_row(values), w_dec, out=g_x_hat).sub_(x).mul_(2 / n)
        torch.mm(active.by_column(values), g_x_hat, out=w_dec.grad)
        parallel = torch.linalg.vecdot(w_dec.grad, w_dec)
        w_dec.grad.addcmul_(w_dec, parallel[:, None], value=-1)
        g_values = active_gradients(active, values, g_x_hat, w_dec).mul_(values > 0)
        torch.mm(active.by_column(g_values), x, out=w_enc.grad)
        b_enc.grad.zero_().index_add_(0, columns, g_values)
        torch.sum(g_x_hat, 0, out=b_dec.grad)
        adam.step()
        w_dec.div_(torch.linalg.vector_norm(w_dec, dim=1, keepdim=True))

    return Loop(every(step), transposed(lambda: parameters), transposed(adam.first_moments), Maths(k=k, project=True))


def every(step):
    @torch.no_grad()
    def train(clock: Clock) -> None:
        for x in clock:
            step(x)

    return train


def transposed(tensors):
    return lambda: {name: tensor.T if name == "W_enc" else tensor for name, tensor in tensors().items()}


if __name__ == "__main__":
    main(
        {
            "torch": dense_l1,
            "torch-sparse": sparse_l1,
            "torch-bf16": dense_l1_bf16,
            "torch-topk": sparse_top_k,
        }
    )
