"""sparsify: its own `Trainer.fit` with Adam, around a language model that hands out batches and computes nothing.

Left out are the language model and the checkpoint at the end of `fit`. What `fit` does to activations is in: hooks,
the mask of excluded tokens, a copy of the outputs. It subtracts b_dec from the encoder's input and does not clip.
Its default optimiser is SignSGD; Adam is what the others have (torch's, where bitsandbytes is not installed).
"""

import os

import torch

# Its Triton kernels are for GPUs, and are chosen wherever Triton can be imported.
os.environ["SPARSIFY_DISABLE_TRITON"] = "1"

from sparsify import SparseCoderConfig, Trainer, TrainConfig  # noqa: E402

from common import LR, Clock, Loop, Maths, Problem, main, moments_of  # noqa: E402

HOOK = "hook"


class MemoryModel(torch.nn.Module):
    """As much of a transformers model as `Trainer` looks at. Every forward pass is one batch from the clock."""

    def __init__(self, d_in: int):
        super().__init__()
        self.hook = torch.nn.Identity()
        self.device = torch.device("cpu")
        self.dummy_inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.long)}
        self.batches = iter([torch.zeros(1, d_in)])

    @property
    def base_model(self):
        return self

    def forward(self, input_ids: torch.Tensor):
        return self.hook(next(self.batches)[None])


class MemoryTrainer(Trainer):
    def save(self) -> None:
        """No checkpoint: nothing is written while others are timed."""


class Tokens(torch.utils.data.Dataset):
    """One sequence of ids a step; the model ignores them, `fit` counts them."""

    def __init__(self, steps: int, batch: int):
        self.steps, self.ids = steps, torch.zeros(batch, dtype=torch.long)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> dict:
        return {"input_ids": self.ids}


def top_k(problem: Problem) -> Loop:
    model = MemoryModel(problem.d_in)
    cfg = TrainConfig(
        SparseCoderConfig(num_latents=problem.d_sae, k=problem.k),
        batch_size=1,
        optimizer="adam",
        lr=LR,
        lr_warmup_steps=0,
        hookpoints=[HOOK],
        log_to_wandb=False,
        # Otherwise the first step replaces b_dec by the mean of its batch.
        finetune="inputs.safetensors",
    )
    # Twice the steps: its learning rate falls linearly to 0 at the end, and must not be 0 in a run of one step.
    trainer = MemoryTrainer(cfg, Tokens(2 * problem.total_steps, problem.batch), model)
    trainer.dataset = Tokens(problem.total_steps, problem.batch)
    sae = trainer.saes[HOOK]
    with torch.no_grad():
        sae.encoder.weight.copy_(problem.w_enc.T)
        sae.encoder.bias.zero_()
        sae.W_dec.copy_(problem.w_dec)
        sae.b_dec.copy_(problem.b_dec)
    parameters = {"W_enc": sae.encoder.weight, "b_enc": sae.encoder.bias, "W_dec": sae.W_dec, "b_dec": sae.b_dec}

    def train(clock: Clock) -> None:
        model.batches = clock
        trainer.fit()

    def in_our_layout(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().T if name == "W_enc" else tensor.detach() for name, tensor in tensors.items()}

    return Loop(
        train,
        lambda: in_our_layout(parameters),
        lambda: in_our_layout(moments_of(trainer.optimizers[0], parameters)),
        Maths(k=problem.k, subtract_b_dec=True, fvu=True, project=True, clip=None),
    )


if __name__ == "__main__":
    main({"sparsify-topk": top_k})
