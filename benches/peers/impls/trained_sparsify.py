"""sparsify's dictionaries for `quality`, by its own `Trainer.fit` with Adam, as in `compare`. What is not said here is its
default; the learning rate falls linearly from the end of the warm-up on."""

from sparsify_ import HOOK, MemoryModel, MemoryTrainer, Tokens  # first: it sets what sparsify looks at when imported

from sparsify import SparseCoderConfig, TrainConfig

from trained import Task, Trained, main


def top_k(task: Task) -> Trained:
    model = MemoryModel(task.d_in)
    cfg = TrainConfig(
        SparseCoderConfig(num_latents=task.d_sae, k=task.k),
        batch_size=1,
        optimizer="adam",
        lr=task.lr,
        lr_warmup_steps=task.warmup_steps,
        hookpoints=[HOOK],
        init_seeds=[task.seed],
        log_to_wandb=False,
    )
    trainer = MemoryTrainer(cfg, Tokens(task.steps, task.batch), model)
    model.batches = task.batches()
    trainer.fit()
    sae = trainer.saes[HOOK]
    return Trained(sae.encoder.weight.T, sae.encoder.bias, sae.W_dec, sae.b_dec, True, task.k)


if __name__ == "__main__":
    main({"sparsify-topk": top_k})
