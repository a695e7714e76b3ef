"""Every figure of SAELens's and SAEBench's evaluation from first principles, under any convention between theirs and ours.

crates/evaluator/CONVENTIONS.md has the definitions. Sums are f64; the language model and the dictionary are theirs.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from sae_lens import SAE
from transformer_lens import HookedTransformer

Figures = dict[str, float]
# One value a latent.
Latents = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Convention:
    """What programs do differently. All False is monosema with its defaults."""

    position_0: bool = False
    splice_everywhere: bool = False
    ablate_everywhere: bool = False
    last_divergence: bool = False
    means_of_batches: bool = False
    error_divided_twice: bool = False
    squares_for_means: bool = False


REASONS = {
    "position_0": "position 0 is measured, and spliced",
    "splice_everywhere": "x̂ is spliced in at special tokens too",
    "ablate_everywhere": "0 is spliced in at every position",
    "last_divergence": "divergence of the last position of windows counts",
    "means_of_batches": "of each batch, not of the text",
    "error_divided_twice": "divided by the batch's tokens twice",
    "squares_for_means": "E[x²] in place of E[x], and a mean over dimensions",
}

OURS = Convention()
# Ours with `skip_first = 0`.
ALL_POSITIONS = Convention(position_0=True)
SAELENS = Convention(position_0=True, ablate_everywhere=True, last_divergence=True, means_of_batches=True)
# With `exclude_special_tokens_from_reconstruction`; without it x̂ is spliced in at special tokens too.
SAEBENCH = replace(SAELENS, error_divided_twice=True, squares_for_means=True)
SAEBENCH_DEFAULT = replace(SAEBENCH, splice_everywhere=True)


class Text:
    """A text, a model and a dictionary; `tokens [windows, length]` go through the model in batches."""

    def __init__(self, model: HookedTransformer, sae: SAE, tokens: torch.Tensor, special: set[int], batch: int):
        self.model, self.sae, self.tokens, self.batch = model, sae, tokens, batch
        self.hook = sae.cfg.metadata.hook_name
        self.special = torch.isin(tokens, torch.tensor(sorted(special)))
        self.kept: dict[tuple, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def batches(self) -> range:
        return range(0, len(self.tokens), self.batch)

    @cached_property
    def x(self) -> torch.Tensor:
        """Activations at the hook `[windows, length, d_in]`, f32."""
        rows = []
        for i in self.batches():
            _, cache = self.model.run_with_cache(self.tokens[i : i + self.batch], names_filter=[self.hook])
            rows.append(cache[self.hook].flatten(2))
        return torch.cat(rows)

    @cached_property
    def acts(self) -> torch.Tensor:
        """Latents `[windows, length, d_sae]`, f32."""
        return torch.cat([self.sae.encode(self.x[i : i + self.batch]) for i in self.batches()])

    @cached_property
    def x_hat(self) -> torch.Tensor:
        """Reconstructions `[windows, length, d_in]`, f32."""
        rows = []
        for i in self.batches():
            # Again, because what undoes a normalisation is kept from the last encoding.
            rows.append(self.sae.decode(self.sae.encode(self.x[i : i + self.batch])))
        return torch.cat(rows)

    def measured(self, convention: Convention) -> torch.Tensor:
        """Which positions are measured `[windows, length]`."""
        mask = ~self.special
        if not convention.position_0:
            mask[:, 0] = False
        return mask

    def losses(self, rows: torch.Tensor, where: torch.Tensor, key: tuple) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cross-entropy untouched `[windows, length - 1]`, and cross-entropy and divergence `[windows, length]` with `rows` at `where`."""
        if key not in self.kept:
            parts = [self.losses_of(i, rows, where) for i in self.batches()]
            self.kept[key] = tuple(torch.cat(part) for part in zip(*parts))
        return self.kept[key]

    def losses_of(self, i: int, rows: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch = slice(i, i + self.batch)
        tokens = self.tokens[batch]

        def splice(x: torch.Tensor, hook) -> torch.Tensor:
            return torch.where(where[batch, :, None], rows[batch].reshape(x.flatten(2).shape), x.flatten(2)).reshape(x.shape)

        clean = self.model(tokens).double().log_softmax(-1)
        spliced = self.model.run_with_hooks(tokens, fwd_hooks=[(self.hook, splice)]).double().log_softmax(-1)
        next_token = tokens[:, 1:, None]
        ce = [-p[:, :-1].gather(-1, next_token)[..., 0] for p in (clean, spliced)]
        return *ce, (clean.exp() * (clean - spliced)).sum(-1)

    @torch.no_grad()
    def figures(self, convention: Convention) -> Figures:
        """Every figure that is one number, by SAELens's names and SAEBench's."""
        return {**self.of_predictions(convention), **self.of_activations(convention), **self.of_latents(convention)}

    def of_predictions(self, convention: Convention) -> Figures:
        measured = self.measured(convention)
        everywhere = torch.ones_like(measured)
        splice = everywhere if convention.splice_everywhere else measured
        ablate = everywhere if convention.ablate_everywhere else measured
        at = convention.position_0
        clean, ce, kl = self.losses(self.x_hat, splice, ("x_hat", convention.splice_everywhere or at, convention.splice_everywhere))
        zero = torch.zeros_like(self.x)
        _, ce_zero, kl_zero = self.losses(zero, ablate, ("0", convention.ablate_everywhere or at, convention.ablate_everywhere))
        predicting = measured[:, :-1]
        diverging = measured.clone()
        diverging[:, -1] &= convention.last_divergence
        without, with_sae, ablated = (losses[predicting].mean().item() for losses in (clean, ce, ce_zero))
        divergence, divergence_ablated = (losses[diverging].mean().item() for losses in (kl, kl_zero))
        return {
            "ce_loss_without_sae": without,
            "ce_loss_with_sae": with_sae,
            "ce_loss_with_ablation": ablated,
            "ce_loss_score": (ablated - with_sae) / (ablated - without),
            "kl_div_with_sae": divergence,
            "kl_div_with_ablation": divergence_ablated,
            "kl_div_score": (divergence_ablated - divergence) / divergence_ablated,
        }

    def of_activations(self, convention: Convention) -> Figures:
        mask = self.measured(convention)
        x, x_hat, acts = (values[mask].double() for values in (self.x, self.x_hat, self.acts))
        # The rows of each batch of windows.
        sizes = [mask[i : i + self.batch].sum().item() for i in self.batches()]
        by_batch = list(zip(x.split(sizes), x_hat.split(sizes)))
        groups = by_batch if convention.means_of_batches else [(x, x_hat)]
        error = (x - x_hat).square().sum(-1)
        spread = torch.cat([(x - x.mean(0)).square().sum(-1) for x, _ in groups])
        bias = [x_hat.square().sum(-1).mean() / (x * x_hat).sum(-1).mean() for x, x_hat in groups]
        norm, norm_hat = x.norm(dim=-1), x_hat.norm(dim=-1)
        if convention.squares_for_means:
            errors = torch.stack([(x - x_hat).square().sum(-1).mean() for x, x_hat in by_batch]).mean()
            squares = torch.stack([x.square().sum(-1).mean() for x, _ in by_batch]).mean()
            taken_off = torch.stack([x.square().mean() for x, _ in by_batch]).mean().square()
        else:
            errors, squares, taken_off = error.mean(), x.square().sum(-1).mean(), x.mean(0).square().sum()
        mse = error
        if convention.error_divided_twice:
            mse = error / torch.cat([torch.full((size,), float(size)) for size in sizes])
        figures = {
            "l2_norm_in": norm.mean(),
            "l2_norm_out": norm_hat.mean(),
            "l2_ratio": (norm_hat / torch.where(norm < 1e-4, 1.0, norm)).mean(),
            "relative_reconstruction_bias": torch.stack(bias).mean(),
            "l0": (acts != 0).sum(-1).double().mean(),
            "l1": acts.abs().sum(-1).mean(),
            "explained_variance": 1 - errors / (squares - taken_off),
            "explained_variance_legacy": (1 - error / spread).mean(),
            "mse": mse.mean(),
            "cossim": ((x * x_hat).sum(-1) / (norm * norm_hat)).mean(),
        }
        return {name: value.item() for name, value in figures.items()}

    def of_latents(self, convention: Convention) -> Figures:
        latents = self.latents(convention)
        density = latents["feature_density"]
        over = {percent: density > percent / 100 for percent in (1, 10)}
        return {
            "frac_alive": (density > 0).double().mean().item(),
            **{f"freq_over_{p}_percent": rows.double().mean().item() for p, rows in over.items()},
            **{f"normalized_freq_over_{p}_percent": (density[rows].sum() / density.sum()).item() for p, rows in over.items()},
            **{f"average_max_{w}_cosine_sim": latents[f"max_{w}_cosine_sim"].mean().item() for w in ("encoder", "decoder")},
        }

    @torch.no_grad()
    def latents(self, convention: Convention) -> Latents:
        """Every figure that each latent has one of."""
        mask = self.measured(convention)
        active = (self.acts != 0) & mask[..., None]
        counts = active.sum((0, 1)).double()
        w_enc, w_dec = self.sae.W_enc.double(), self.sae.W_dec.double()
        bias = {name: value for name, value in self.sae.named_parameters() if name in ("b_enc", "b_mag")}
        return {
            "feature_density": counts / mask.sum(),
            "consistent_activation_heuristic": counts / active.any(1).sum(0),
            "encoder_norm": w_enc.norm(dim=0),
            "encoder_bias": next(iter(bias.values())).double(),
            "encoder_decoder_cosine_sim": torch.cosine_similarity(w_enc.T, w_dec, dim=-1),
            "max_encoder_cosine_sim": nearest(w_enc.T),
            "max_decoder_cosine_sim": nearest(w_dec),
        }


def nearest(rows: torch.Tensor) -> torch.Tensor:
    """The largest cosine of each of `rows [n, d]` with another, `[n]`."""
    rows = torch.nn.functional.normalize(rows, dim=-1)
    return (rows @ rows.T).fill_diagonal_(-torch.inf).amax(-1)


@dataclass
class Step:
    """What one difference between two conventions does to a figure."""

    reason: str
    change: float


def why(text: Text, theirs: Convention) -> dict[str, list[Step]]:
    """For each figure what takes it from ours to theirs, one difference after the other."""
    steps: dict[str, list[Step]] = {}
    here, values = OURS, text.figures(OURS)
    for field in fields(Convention):
        if getattr(theirs, field.name):
            here = replace(here, **{field.name: True})
            after = text.figures(here)
            for name, value in after.items():
                if abs(value - values[name]) > 1e-6 * abs(values[name]):
                    steps.setdefault(name, []).append(Step(REASONS[field.name], value - values[name]))
            values = after
    return steps
