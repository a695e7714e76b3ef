"""SAELens: its training SAEs through its own `SAETrainer.fit`, fed from memory.

Left out are its language model, activation store, evaluations and logging; `fit` takes any iterator of batches.
`apply_b_dec_to_input` is off, which spares it the product that would give the input's gradient. The rest is default.
"""

import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.sae import TrainingSAE
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

from common import L1, LR, Clock, Loop, Maths, Problem, main, moments_of


def standard(problem: Problem) -> Loop:
    cfg = StandardTrainingSAEConfig(
        d_in=problem.d_in, d_sae=problem.d_sae, l1_coefficient=L1, apply_b_dec_to_input=False
    )
    return loop(problem, StandardTrainingSAE(cfg), problem.b_enc, Maths(l1=L1))


def top_k(problem: Problem) -> Loop:
    cfg = TopKTrainingSAEConfig(d_in=problem.d_in, d_sae=problem.d_sae, k=problem.k, apply_b_dec_to_input=False)
    return loop(problem, TopKTrainingSAE(cfg), torch.zeros_like(problem.b_enc), Maths(k=problem.k))


def loop(problem: Problem, sae: TrainingSAE, b_enc: torch.Tensor, maths: Maths) -> Loop:
    with torch.no_grad():
        sae.W_enc.copy_(problem.w_enc)
        sae.b_enc.copy_(b_enc)
        sae.W_dec.copy_(problem.w_dec)
        sae.b_dec.copy_(problem.b_dec)
    cfg = SAETrainerConfig(
        total_training_samples=problem.total_steps * problem.batch,
        train_batch_size_samples=problem.batch,
        lr=LR,
        lr_end=LR,
        logger=LoggingConfig(log_to_wandb=False),
    )
    parameters = {"W_enc": sae.W_enc, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    trainer = None

    def train(clock: Clock) -> None:
        nonlocal trainer
        trainer = SAETrainer(cfg, sae, data_provider=clock)
        trainer.fit()

    return Loop(
        train,
        lambda: {name: parameter.detach() for name, parameter in parameters.items()},
        lambda: moments_of(trainer.optimizer, parameters),
        maths,
    )


if __name__ == "__main__":
    main({"saelens": standard, "saelens-topk": top_k})
