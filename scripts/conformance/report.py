"""What `monosema eval` measures of a dictionary on given windows, by the names that SAELens and SAEBench have for it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from figures import Figures
from windows import digest

OURS = {
    "ce_loss_without_sae": "ce.clean",
    "ce_loss_with_sae": "ce.sae",
    "ce_loss_with_ablation": "ce.zero",
    "ce_loss_score": "loss_recovered.zero",
    "kl_div_with_sae": "kl",
    "kl_div_with_ablation": "kl.zero",
    "kl_div_score": "kl_recovered",
    "l2_ratio": "l2_ratio",
    "relative_reconstruction_bias": "rel_bias",
    "l0": "l0",
    "l1": "l1",
    "explained_variance": "ev.r2",
    "explained_variance_legacy": "ev.legacy",
    "mse": "mse",
    "cossim": "cos",
}

CONFIG = """\
[model]
path = {model}

[context]
length = {length}
skip_first = {skip_first}

[eval]
tokens = {tokens}
conventions = ["saelens", "saebench"]
batch_contexts = {batch}

[[eval.texts]]
name = "text"
files = [{text}]
"""


@dataclass
class Reporter:
    """The program, and what it evaluates on: the first windows of a text."""

    program: Path
    model: Path
    text: Path
    windows: torch.Tensor
    special: set[int]
    batch: int
    work: Path

    def counted(self, skip_first: int) -> int:
        """How many tokens of the windows count: a limit of so many is all of them and no more."""
        special = torch.isin(self.windows, torch.tensor(sorted(self.special)))
        return int((~special[:, skip_first:]).sum())

    def figures(self, dictionary: Path, skip_first: int) -> tuple[Figures, dict]:
        """Figures under the names of the others, and the report."""
        out = self.work / "eval"
        out.mkdir(exist_ok=True)
        link = out / "dictionary"
        link.unlink(missing_ok=True)
        link.symlink_to(dictionary.resolve())
        config = self.work / "eval.toml"
        config.write_text(CONFIG.format(
            model=json.dumps(str(self.model.resolve())), length=self.windows.shape[1], skip_first=skip_first,
            tokens=self.counted(skip_first), batch=self.batch, text=json.dumps(str(self.text.resolve())),
        ))
        command = [self.program, "eval", config, "--out", out, "--overwrite", "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        found = report["texts"][0]["windows_sha256"]
        assert found == digest(self.windows), f"monosema cut other windows than windows.py: {found}"
        return by_their_names(report), report


def by_their_names(report: dict) -> Figures:
    metrics, d_sae = report["metrics"], report["dictionary"]["d_sae"]
    figures = {theirs: metrics[ours] for theirs, ours in OURS.items()}
    figures["frac_alive"] = 1 - metrics["dead"]
    figures["freq_over_1_percent"] = metrics["density.above_0.01"] / d_sae
    figures["freq_over_10_percent"] = metrics["density.above_0.1"] / d_sae
    return figures
