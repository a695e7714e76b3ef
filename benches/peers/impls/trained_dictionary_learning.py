"""dictionary_learning's dictionaries for `quality`, by its trainers' own `update`. What is not said here is its default."""

import math
from dataclasses import replace

from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.p_anneal import PAnnealTrainer
from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import TopKTrainer

from trained import P_END, PREFIXES, Task, Trained, main


def april(task: Task) -> Trained:
    trainer = StandardTrainerAprilUpdate(**common(task), **warmup(task), l1_penalty=task.value)
    ae = fit(task, trainer)
    return trained(ae, ae.bias)


def p_anneal(task: Task) -> Trained:
    schedule = {"anneal_start": task.warmup_steps, "p_end": P_END, "sparsity_function": "Lp^p"}
    trainer = PAnnealTrainer(**common(task), **warmup(task), **schedule, initial_sparsity_penalty=task.value)
    ae = fit(task, trainer)
    return trained(ae, ae.bias)


def gated(task: Task) -> Trained:
    ae = fit(task, GatedSAETrainer(**common(task), **warmup(task), l1_penalty=task.value))
    weights = ae.encoder.weight.T, ae.gate_bias, ae.decoder.weight.T, ae.decoder_bias
    return Trained(*weights, True, magnitude=(ae.r_mag, ae.mag_bias))


def top_k(task: Task) -> Trained:
    # The running threshold is for inference without a k, which is not looked at.
    ae = fit(task, TopKTrainer(**common(task), k=task.k))
    return trained(ae, ae.b_dec, top_k=task.k)


def batch_top_k(task: Task) -> Trained:
    ae = fit(task, BatchTopKTrainer(**common(task), **threshold(task), k=task.k))
    return trained(ae, ae.b_dec, threshold=ae.threshold.expand(task.d_sae))


def matryoshka(task: Task) -> Trained:
    fractions = [wide - narrow for narrow, wide in zip([0, *PREFIXES], PREFIXES)]
    trainer = MatryoshkaBatchTopKTrainer(**common(task), **threshold(task), k=task.k, group_fractions=fractions)
    assert trainer.ae.group_indices[1:] == task.prefixes, trainer.ae.group_indices
    ae = fit(task, trainer)
    return Trained(ae.W_enc, ae.b_enc, ae.W_dec, ae.b_dec, True, threshold=ae.threshold.expand(task.d_sae))


def jump_relu(task: Task) -> Trained:
    # Its bandwidth and its first threshold, 0.001, are for tokens of a mean norm of 1, to which `trainSAE` brings them.
    scale = math.sqrt(task.d_in)
    task = replace(task, x=task.x / scale)
    ae = fit(task, JumpReluTrainer(**common(task), **warmup(task), target_l0=task.value))
    ae.scale_biases(scale)
    return Trained(ae.W_enc, ae.b_enc, ae.W_dec, ae.b_dec, ae.apply_b_dec_to_input, threshold=ae.threshold)


def warmup(task: Task) -> dict:
    return {"sparsity_warmup_steps": task.warmup_steps}


def threshold(task: Task) -> dict:
    """It runs from the end of the warm-up on; by default from step 1000 on, of much longer trainings."""
    return {"threshold_start_step": task.warmup_steps}


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


def fit(task: Task, trainer):
    for step, x in enumerate(task.batches()):
        trainer.update(step, x)
    # Parameters are replaced while it trains.
    return trainer.ae


def trained(ae, b_dec, **activation) -> Trained:
    return Trained(ae.encoder.weight.T, ae.encoder.bias, ae.decoder.weight.T, b_dec, True, **activation)


if __name__ == "__main__":
    main(
        {
            "dictionary-learning": april,
            "dictionary-learning-panneal": p_anneal,
            "dictionary-learning-gated": gated,
            "dictionary-learning-topk": top_k,
            "dictionary-learning-batchtopk": batch_top_k,
            "dictionary-learning-matryoshka": matryoshka,
            "dictionary-learning-jumprelu": jump_relu,
        }
    )
