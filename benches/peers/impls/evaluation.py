"""SAELens's evaluation, or SAEBench's `core`, on given windows; one line of JSON. `evaluation` runs it beside ours.

The model, the dictionary and the windows are in memory before the clock starts.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from harvest_transformer_lens import hooked

# What runs them is what judges our figures.
sys.path.append(str(Path(__file__).resolve().parents[3] / "scripts/conformance"))

PROGRAMS = ["saelens", "saebench"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--impl", choices=PROGRAMS, required=True)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="sae_lens")

    import theirs

    torch.set_num_threads(args.threads)
    tokens = load_file(args.inputs / "tokens.safetensors")["tokens"]
    model = hooked(args.inputs / "model")
    model.set_tokenizer(AutoTokenizer.from_pretrained(args.inputs / "model"))
    run = {
        "saelens": lambda windows: theirs.saelens(model, args.inputs / "dictionary", windows, args.batch),
        "saebench": lambda windows: theirs.saebench(model, args.inputs / "dictionary", windows, args.batch, exclude_special=True),
    }[args.impl]
    run(tokens[: args.batch])
    started = time.perf_counter()
    figures, _ = run(tokens)
    seconds = time.perf_counter() - started
    print(json.dumps({"tokens_per_s": tokens.numel() / seconds, "ce": figures["ce_loss_with_sae"]}))


if __name__ == "__main__":
    main()
