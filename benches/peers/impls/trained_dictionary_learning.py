"""dictionary_learning's dictionaries for `quality`, by its trainers' own `update`. What is not said here is its default."""

from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import TopKTrainer

from trained import Task, Trained, main


def april(task: Task) -> Trained:
    warmup = {"sparsity_warmup_steps": task.warmup_steps}
    trainer = StandardTrainerAprilUpdate(**common(task), **warmup, l1_penalty=task.value)
    return fit(task, trainer, lambda ae: ae.bias)


def top_k(task: Task) -> Trained:
    # The running threshold is for inference without a k, which is not looked at.
    trainer = TopKTrainer(**common(task), k=task.k)
    # At step 0 it replaces the parameter's data, so that it is looked up at the end.
    return fit(task, trainer, lambda ae: ae.b_dec, task.k)


def common(task: Task) -> dict:
    return {
        "steps": task.steps,
        "activation_dim": task.d_in,
        "dict_size": task.d_sae,
        "layer": 0,
        "lm_name": "none",
        "lr": task.lr,
        "warmup_steps": task.warmup_steps,
        "decay_start": task.steps - task.decay_steps,
        "seed": task.seed,
        "device": "cpu",
    }


def fit(task: Task, trainer, b_dec, k: int | None = None) -> Trained:
    for step, x in enumerate(task.batches()):
        trainer.update(step, x)
    ae = trainer.ae
    return Trained(ae.encoder.weight.T, ae.encoder.bias, ae.decoder.weight.T, b_dec(ae), True, k)


if __name__ == "__main__":
    main({"dictionary-learning": april, "dictionary-learning-topk": top_k})
