"""The fixture of tests/tests/conformance.rs: a dictionary, and what SAELens and SAEBench measure of it."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import torch

from windows import digest

FILES = ["cfg.json", "sae_weights.safetensors", "sparsity.safetensors"]


def write(dictionary: Path, directory: Path, text: Path, judges: list, windows: torch.Tensor) -> None:
    """Copies the dictionary into `directory`, and writes `figures.json` beside it."""
    (directory / "dictionary").mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(dictionary / name, directory / "dictionary" / name)
    found = {
        "text": text.name,
        "windows": windows.tolist(),
        "windows_sha256": digest(windows),
        "versions": {name: version(name) for name in ("sae-lens", "sae-bench", "transformer-lens", "torch")},
        "judges": {judge.name: judge.figures for judge in judges},
    }
    # A line a window: a list of thousands of lines is no use to anybody.
    windows = ",\n".join("    " + json.dumps(window) for window in found.pop("windows"))
    rest = json.dumps(found, indent=2, ensure_ascii=False).removeprefix("{\n")
    (directory / "figures.json").write_text('{\n  "windows": [\n' + windows + "\n  ],\n" + rest + "\n")
    print(f"wrote {directory}")
