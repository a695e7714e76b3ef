"""SAELens's dictionaries for `quality`, by its own `SAETrainer.fit`. What is not said here is its default, b_dec applied to the
input and, for TopK, rescaling by the decoder's norms and the auxiliary loss for dead latents included."""

import torch
from sae_lens.config import LoggingConfig, SAETrainerConfig
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


@torch.no_grad()
def folded(sae: TopKTrainingSAE, k: int) -> Trained:
    """With decoder rows of norm 1, as its `save_inference_model` leaves them: the same function, without rescaling."""
    norms = sae.W_dec.norm(dim=1)
    cfg = sae.cfg
    return Trained(sae.W_enc * norms, sae.b_enc * norms, sae.W_dec / norms[:, None], sae.b_dec, cfg.apply_b_dec_to_input, k)


def top_k(task: Task) -> Trained:
    return folded(fit(task, TopKTrainingSAE(TopKTrainingSAEConfig(d_in=task.d_in, d_sae=task.d_sae, k=task.k))), task.k)


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
    main({"saelens": standard, "saelens-topk": top_k})
