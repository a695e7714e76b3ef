"""SAELens's own evaluation and SAEBench's, of one dictionary on given windows."""

from pathlib import Path
from typing import Any

import sae_bench.evals.core.main as core
import torch
from datasets import Dataset
from sae_bench.evals.core.eval_config import CoreEvalConfig
from sae_bench.sae_bench_utils.general_utils import load_and_format_sae
from sae_lens import SAE, ActivationsStore
from sae_lens.evals import get_eval_everything_config, run_evals
from sae_lens.training.activation_scaler import ActivationScaler
from transformer_lens import HookedTransformer

from figures import Figures, Latents


def store(model: HookedTransformer, sae: SAE, tokens: torch.Tensor, batch: int) -> ActivationsStore:
    """Hands out the windows as they are, in their order."""
    dataset = Dataset.from_dict({"tokens": tokens.tolist()})
    # As many rows as there are: fewer than the default asks for would be a warning.
    return ActivationsStore.from_sae(model, sae, dataset, context_size=tokens.shape[1], store_batch_size_prompts=batch,
                                     total_tokens=len(tokens))


def numbers(groups: dict[str, dict[str, Any]]) -> Figures:
    """Their groups of figures as one, without the counts of tokens."""
    return {name: value for group, figures in groups.items() if group != "token_stats" for name, value in figures.items()}


def saelens(model: HookedTransformer, directory: Path, tokens: torch.Tensor, batch: int) -> tuple[Figures, Latents]:
    sae = SAE.load_from_disk(directory)
    batches = len(tokens) // batch
    config = get_eval_everything_config(batch, batches, batches)
    figures, latents = run_evals(sae, store(model, sae, tokens, batch), model, ActivationScaler(), config)
    return numbers(figures), {name: torch.tensor(values) for name, values in latents.items()}


def saebench(
    model: HookedTransformer, directory: Path, tokens: torch.Tensor, batch: int, exclude_special: bool
) -> tuple[Figures, Latents]:
    """`core.main.multiple_evals` without what fetches the model and the text by name."""
    _, sae, _ = load_and_format_sae("monosema", SAE.load_from_disk(directory), "cpu")
    batches = len(tokens) // batch
    everything = {f"compute_{name}": True for name in (
        "kl", "ce_loss", "l2_norms", "sparsity_metrics", "variance_metrics", "featurewise_density_statistics",
        "featurewise_weight_based_metrics",
    )}
    config = CoreEvalConfig(batch_size_prompts=batch, n_eval_reconstruction_batches=batches, n_eval_sparsity_variance_batches=batches,
                            exclude_special_tokens_from_reconstruction=exclude_special, **everything)
    tokenizer = model.tokenizer
    special = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}
    figures, latents = core.run_evals(sae, store(model, sae, tokens, batch), model, config, ignore_tokens=special)
    figures["misc_metrics"] = core.calculate_misc_metrics(latents)
    return numbers(figures), {name: torch.tensor(values) for name, values in latents.items()}
