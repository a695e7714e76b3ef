"""dictionary_learning: its trainers' own `update`, as its `trainSAE` calls them, fed from memory.

Left out are `trainSAE`'s progress bar, logging and checkpoints. Both of its dictionaries subtract b_dec from the
encoder's input, so there is a sixth product: the input's gradient, summed for that of b_dec.
"""

import torch
from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import TopKTrainer

from common import L1, LR, Clock, Loop, Maths, Problem, main, moments_of


def april(problem: Problem) -> Loop:
    trainer = StandardTrainerAprilUpdate(**schedule(problem), l1_penalty=L1, sparsity_warmup_steps=0)
    maths = Maths(l1=L1, subtract_b_dec=True)
    # Its input bias is b_dec, and (x - b_dec) · W_enc + b_enc is what the shared b_enc means where b_dec is 0.
    return loop(problem, trainer, trainer.ae.bias, problem.b_enc, maths)


def top_k(problem: Problem) -> Loop:
    # The running threshold is what training has from step 1000 on.
    trainer = TopKTrainer(**schedule(problem), k=problem.k, threshold_start_step=0)
    maths = Maths(k=problem.k, subtract_b_dec=True, project=True)
    return loop(problem, trainer, trainer.ae.b_dec, torch.zeros_like(problem.b_enc), maths)


def schedule(problem: Problem) -> dict:
    return {
        # Its schedule wants more steps than it warms up for; nothing decays.
        "steps": problem.total_steps + 1,
        "activation_dim": problem.d_in,
        "dict_size": problem.d_sae,
        "layer": 0,
        "lm_name": "none",
        "lr": LR,
        "warmup_steps": 0,
        "device": "cpu",
    }


def loop(problem: Problem, trainer, b_dec: torch.nn.Parameter, b_enc: torch.Tensor, maths: Maths) -> Loop:
    encoder, decoder = trainer.ae.encoder, trainer.ae.decoder
    with torch.no_grad():
        encoder.weight.copy_(problem.w_enc.T)
        encoder.bias.copy_(b_enc)
        decoder.weight.copy_(problem.w_dec.T)
        b_dec.copy_(problem.b_dec)
    parameters = {"W_enc": encoder.weight, "b_enc": encoder.bias, "W_dec": decoder.weight, "b_dec": b_dec}

    def train(clock: Clock) -> None:
        # From step 1: at step 0 TopK replaces b_dec by the data's geometric median.
        for step, x in enumerate(clock, start=1):
            trainer.update(step, x)

    def in_our_layout(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().T if tensor.ndim == 2 else tensor.detach() for name, tensor in tensors.items()}

    return Loop(
        train,
        lambda: in_our_layout(parameters),
        lambda: in_our_layout(moments_of(trainer.optimizer, parameters)),
        maths,
    )


if __name__ == "__main__":
    main({"dictionary-learning": april, "dictionary-learning-topk": top_k})
