#!/usr/bin/env python3
"""Reference cross-entropy: what transformers says of each token of given windows.

    token_losses.py MODEL --windows windows.json > losses.json
    token_losses.py MODEL --text a.txt b.txt --context 384 --tokens 2304 > losses.json

MODEL is a .gguf file or a Hugging Face directory. `windows.json` is a list of lists of token ids; with
`--text` the windows are made here: the texts are tokenised without special tokens, joined, and cut.
Prints {"windows": [[id, ...], ...], "losses": [[nats, ...], ...]}; `losses[w][i]` is of token `i + 1` of window
`w` given those before it. The mean goes to standard error.

Needs torch, transformers, accelerate and gguf; no network. Everything is computed in float32 (`--float64` to
see how much of a difference is rounding).
"""

import argparse
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def source(model):
    """The arguments of from_pretrained for a directory or a .gguf file."""
    if os.path.isdir(model):
        return model, {}
    return os.path.dirname(os.path.abspath(model)), {"gguf_file": os.path.basename(model)}


def windows_of(texts, tokenizer, context, tokens):
    ids = []
    for path in texts:
        with open(path, encoding="utf-8") as file:
            ids += tokenizer(file.read(), add_special_tokens=False)["input_ids"]
        if len(ids) >= tokens:
            break
    ids = ids[: tokens - tokens % context]
    return [ids[begin : begin + context] for begin in range(0, len(ids), context)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--windows")
    parser.add_argument("--text", nargs="+")
    parser.add_argument("--context", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=2304)
    parser.add_argument("--float64", action="store_true")
    arguments = parser.parse_args()

    directory, extra = source(arguments.model)
    if arguments.windows:
        with open(arguments.windows) as file:
            windows = json.load(file)
    elif arguments.text:
        tokenizer = AutoTokenizer.from_pretrained(directory, **extra)
        windows = windows_of(arguments.text, tokenizer, arguments.context, arguments.tokens)
    else:
        parser.error("give --windows or --text")

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **extra).eval()
    if arguments.float64:
        model = model.double()
    losses = []
    with torch.no_grad():
        for window in windows:
            ids = torch.tensor([window])
            log_probabilities = model(ids).logits[0, :-1].log_softmax(-1)
            losses.append((-log_probabilities.gather(1, ids[0, 1:, None])[:, 0]).tolist())
    json.dump({"windows": windows, "losses": losses}, sys.stdout)
    every = [loss for window in losses for loss in window]
    print(f"mean over {len(every)} tokens: {sum(every) / len(every):.6f} nats", file=sys.stderr)


if __name__ == "__main__":
    main()
