"""Whether SAELens computes with a dictionary what monosema computes with it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sae_lens import SAE
from transformer_lens import HookedTransformer

# Largest difference relative to the largest value: f32 sums over d_in or d_sae in another order.
TOLERANCE = 1e-5

# Rows of random inputs.
RANDOM = 256

# How TransformerLens must load the model, for its residual stream to be what the dictionary was trained on.
MODEL_KWARGS = {"center_writing_weights": False}


@dataclass
class Function:
    """How far apart the two programs are on one kind of inputs."""

    inputs: str
    rows: int
    encode: float
    decode: float
    reconstruct: float

    def agrees(self) -> bool:
        # Not of the largest: `max` may pass over what is not a number.
        return all(apart <= TOLERANCE for apart in (self.encode, self.decode, self.reconstruct))


def check_metadata(directory: Path, sae: SAE) -> None:
    """What SAELens read of `cfg.json` must be what stands there."""
    cfg = json.loads((directory / "cfg.json").read_text())
    found = (sae.cfg.architecture(), sae.cfg.metadata.hook_name, sae.cfg.metadata.model_from_pretrained_kwargs)
    # sae_lens/evals.py unpacks the last.
    expected = (cfg["architecture"], cfg["metadata"]["hook_name"], MODEL_KWARGS)
    assert found == expected, f"{directory}: expected {expected}, found {found}"
    sparsity = directory / "sparsity.safetensors"
    if sparsity.exists():
        shape = tuple(load_file(sparsity)["sparsity"].shape)
        assert shape == (sae.cfg.d_sae,), f"{sparsity}: expected one value for each of {sae.cfg.d_sae} latents, found {shape}"


def compare(program: Path, directory: Path, model: HookedTransformer, tokens: torch.Tensor, work: Path) -> list[Function]:
    """Encode, decode and reconstruct, on random inputs and on the model's own activations of `tokens`."""
    sae = SAE.load_from_disk(directory)
    check_metadata(directory, sae)
    hook = sae.cfg.metadata.hook_name
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=[hook])
    # Position 0 is not what dictionaries are trained on.
    real = cache[hook][:, 1:].flatten(0, 1)
    size = real.square().mean().sqrt()
    random = torch.randn(RANDOM, sae.cfg.d_in, generator=torch.Generator().manual_seed(0)) * size
    return [of_inputs(program, directory, sae, name, x, work) for name, x in (("random", random), ("real", real))]


@torch.no_grad()
def of_inputs(program: Path, directory: Path, sae: SAE, name: str, x: torch.Tensor, work: Path) -> Function:
    kept = decided(directory, x)
    assert 2 * len(kept) > len(x), f"{directory}: which latents are active hangs on rounding for {len(x) - len(kept)} of {len(x)} tokens"
    save_file({"x": kept}, work / "inputs.safetensors")
    subprocess.run([program, directory, work / "inputs.safetensors", work / "outputs.safetensors"], check=True)
    ours = load_file(work / "outputs.safetensors")
    assert ours["acts"].any(), f"{directory}: no latent is active on {name} inputs, so nothing can differ"
    acts = sae.encode(kept)
    decoded = sae.decode(ours["acts"])
    if hasattr(sae, "W_skip"):
        # Goes past the latents, so not through `decode`.
        decoded = decoded + kept @ sae.W_skip.T
    return Function(name, len(kept), apart(acts, ours["acts"]), apart(decoded, ours["x_hat"]), apart(sae(kept), ours["x_hat"]))


def decided(directory: Path, x: torch.Tensor) -> torch.Tensor:
    """Those rows of `x` of which no choice hangs on rounding: the same latents are active if they are a hair longer or shorter."""
    sae = SAE.load_from_disk(directory, dtype="float64").double()
    near = [sae.encode(x.double() * factor) != 0 for factor in (1 - TOLERANCE, 1.0, 1 + TOLERANCE)]
    return x[((near[0] == near[1]) & (near[1] == near[2])).all(-1)].contiguous()


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
