"""SAELens's dictionaries for `quality`, by its own `SAETrainer.fit`. What is not said here is its default, b_dec applied to the
input and, for TopK and what derives from it, rescaling by the decoder's norms and the auxiliary loss for dead latents included.
JumpReLU's penalty is of the number of active latents, and its gradient reaches the threshold alone."""

import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig
from sae_lens.saes.sae import TrainingSAE
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

from trained import Task, Trained, main


def standard(task: Task) -> Trained:
    cfg = StandardTrainingSAEConfig(
        d_in=task.d_in, d_sae=task.d_sae, l1_coefficient=task.value, l1_warm_up_steps=task.warmup_steps
    )
    sae = fit(task, StandardTrainingSAE(cfg))
    return Trained(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, cfg.apply_b_dec_to_input)


def gated(task: Task) -> Trained:
    cfg = GatedTrainingSAEConfig(
        d_in=task.d_in, d_sae=task.d_sae, l1_coefficient=task.value, l1_warm_up_steps=task.warmup_steps
    )
    sae = fit(task, GatedTrainingSAE(cfg))
    magnitude = sae.r_mag, sae.b_mag
    return Trained(sae.W_enc, sae.b_gate, sae.W_dec, sae.b_dec, cfg.apply_b_dec_to_input, magnitude=magnitude)


def jump_relu(task: Task) -> Trained:
    cfg = JumpReLUTrainingSAEConfig(
        d_in=task.d_in, d_sae=task.d_sae, l0_coefficient=task.value, l0_warm_up_steps=task.warmup_steps
    )
    sae = fit(task, JumpReLUTrainingSAE(cfg))
    threshold = sae.threshold.clamp(min=0)
    return Trained(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, cfg.apply_b_dec_to_input, threshold=threshold)


@torch.no_grad()
def folded(sae: TopKTrainingSAE, **activation) -> Trained:
    """With decoder rows of norm 1, as its `save_inference_model` leaves them: the same function, without rescaling."""
    norms = sae.W_dec.norm(dim=1)
    w_enc, b_enc, w_dec = sae.W_enc * norms, sae.b_enc * norms, sae.W_dec / norms[:, None]
    return Trained(w_enc, b_enc, w_dec, sae.b_dec, sae.cfg.apply_b_dec_to_input, **activation)


def top_k(task: Task) -> Trained:
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=task.d_in, d_sae=task.d_sae, k=task.k))
    return folded(fit(task, sae), top_k=task.k)


def batch_top_k(task: Task) -> Trained:
    return by_threshold(task, BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=task.d_in, d_sae=task.d_sae, k=task.k)))


def matryoshka(task: Task) -> Trained:
    cfg = MatryoshkaBatchTopKTrainingSAEConfig(
        d_in=task.d_in, d_sae=task.d_sae, k=task.k, matryoshka_widths=task.prefixes
    )
    return by_threshold(task, MatryoshkaBatchTopKTrainingSAE(cfg))


def by_threshold(task: Task, sae: BatchTopKTrainingSAE) -> Trained:
    sae = fit(task, sae)
    return folded(sae, threshold=sae.topk_threshold.float().expand(task.d_sae))


def fit(task: Task, sae: TrainingSAE) -> TrainingSAE:
    cfg = SAETrainerConfig(
        total_training_samples=task.steps * task.batch,
        train_batch_size_samples=task.batch,
        lr=task.lr,
        lr_end=task.lr,
        lr_decay_steps=task.decay_steps,
        logger=LoggingConfig(log_to_wandb=False),
    )
    with torch.enable_grad():
        return SAETrainer(cfg, sae, data_provider=task.batches()).fit()


if __name__ == "__main__":
    main(
        {
            "saelens": standard,
            "saelens-gated": gated,
            "saelens-topk": top_k,
            "saelens-batchtopk": batch_top_k,
            "saelens-matryoshka": matryoshka,
            "saelens-jumprelu": jump_relu,
        }
    )
