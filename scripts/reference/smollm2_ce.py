#!/usr/bin/env python3
"""Cross-entropy of a language model by transformers, on the same token windows as monosema's evaluator.

What `report.json` gives as `ce.clean` is held against this program's figures: same weights, same windows,
another implementation. For the experiment configs/smollm2-sotu.toml:

    pip install -r scripts/reference/requirements.txt
    scripts/fetch-demo.sh
    python scripts/reference/smollm2_ce.py --out scripts/reference/smollm2_ce.json
    python scripts/reference/compare.py runs/smollm2-sotu/report.json scripts/reference/smollm2_ce.json

For other models and windows:

    smollm2_ce.py data/demo/model --text data/demo/stories/heldout.jsonl --length 256 --tokens 0
    smollm2_ce.py MODEL --windows windows.json --losses --out losses.json

MODEL is a .gguf file (SmolLM2's, if none is given; its weights are dequantised to f32) or a Hugging Face directory.

Windows are made and counted by the rules of monosema's `[context]` section with its defaults at `--length`:
documents in the order of their sorted paths (a .txt file is one, a line of .jsonl is one), each tokenised
alone without special tokens, the tokenizer's EOS between two documents of one window, cut every `--length`
tokens. No BOS is added; a model whose tokenizer adds one is refused. Position 0 of a window does not count,
nor does a special token. As with `eval.tokens`, a text ends after so many counted tokens, in the middle of a
window if need be. To score windows made elsewhere, give `--windows FILE`: JSON ([[ids], ...]) or safetensors
(an integer tensor `tokens` [windows, length]).

Each token but the last of its window makes a prediction. The figures are means over predictions, in nats
a token, of three nested sets:

    all        every prediction
    from_1     made from position 1 or later
    counted    made from a token that counts: the report's `ce.clean`

`windows_sha256` is of the ids as little-endian u32, in order, window after window, as they are given to the
model: equal digests mean equal inputs. `--losses` adds every window and the loss of each of its tokens but
the first.

Logits are f32, as the model computes them (`--float64` shows how much of a difference is rounding);
log-softmax and sums are f64.
"""

import argparse
import glob
import hashlib
import json
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

ROOT = Path(__file__).resolve().parents[2]
SMOLLM2 = ROOT / "data/cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# The held-out texts of configs/smollm2-sotu.toml, below `--texts`.
CORPORA = {
    "sotu-1990-2021": ["sotu/199*.txt", "sotu/20*.txt"],
    "moby-dick": ["moby-dick/data.txt"],
}
TOKEN_TYPE_CONTROL = 3  # llama.cpp's LLAMA_TOKEN_TYPE_CONTROL: never the product of text


def read_tokenizer(model: Path):
    """The tokenizer of a model, its end-of-text id and its special ids."""
    return gguf_tokenizer(model) if model.is_file() else directory_tokenizer(model)


def gguf_tokenizer(gguf: Path):
    """Built here from the file's tokens and merges: `smollm` means GPT-2's ByteLevel BPE after a split of digits
    into single ones (llama.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM).
    """
    fields = GGUFReader(gguf).fields
    get = lambda key: fields[f"tokenizer.ggml.{key}"].contents()
    assert (get("model"), get("pre")) == ("gpt2", "smollm"), "another kind of tokenizer: give --windows"
    vocab = {token: i for i, token in enumerate(get("tokens"))}
    merges = [tuple(m.split(" ")) for m in get("merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = {i for i, kind in enumerate(get("token_type")) if kind == TOKEN_TYPE_CONTROL}
    return tokenizer, get("eos_token_id"), special


def directory_tokenizer(directory: Path):
    """As transformers reads it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    assert not tokenizer("")["input_ids"], "the tokenizer adds special tokens: give --windows"
    return tokenizer.backend_tokenizer, tokenizer.eos_token_id, set(tokenizer.all_special_ids)


def documents(path: Path) -> list[str]:
    """The documents of a .txt or .jsonl file."""
    text = path.read_bytes().decode("utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in text.split("\n") if line.strip()]
    return [text]


def pack(paths: list[Path], tokenizer: Tokenizer, separator: int, length: int) -> list[list[int]]:
    """The documents at `paths` in windows of `length`."""
    stream: list[int] = []
    for path in paths:
        for text in documents(path):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert tokenizer.decode(ids, skip_special_tokens=False) == text, f"{path}: the tokens are not the text"
            # Between two documents of one window: where a window has just closed, nothing crosses its edge.
            stream.extend([separator, *ids] if len(stream) % length else ids)
    windows = [stream[i : i + length] for i in range(0, len(stream), length)]
    return [window for window in windows if len(window) >= 2]


def read_windows(path: Path) -> list[list[int]]:
    """Windows made elsewhere."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    from safetensors.numpy import load_file

    return load_file(path)["tokens"].tolist()


def limited(windows: list[list[int]], special: set[int], tokens: int | None) -> list[list[int]]:
    """The windows up to the `tokens`-th token that counts, the last one cut after it."""
    kept = []
    for window in windows:
        counted = [i for i, token in enumerate(window) if i >= 1 and token not in special]
        if tokens is not None and len(counted) >= tokens:
            return [*kept, window[: counted[tokens - 1] + 1]]
        if tokens is not None:
            tokens -= len(counted)
        kept.append(window)
    return kept


def token_losses(model, windows: list[list[int]]) -> list[np.ndarray]:
    """Cross-entropy of every token but the first of each window, in nats, f64."""
    out: list[np.ndarray] = []
    with torch.inference_mode():
        for window in windows:
            tokens = torch.tensor([window])
            logits = model(tokens, use_cache=False).logits[0, :-1].double()
            out.append(-logits.log_softmax(-1).gather(-1, tokens[0, 1:, None]).squeeze(-1).numpy())
            if len(out) % 8 == 0:
                print(f"  {len(out)}/{len(windows)} windows, CE so far {np.concatenate(out).mean():.6f}", flush=True)
    return out


def figures(ce: list[np.ndarray], windows: list[list[int]], special: set[int]) -> dict:
    """Means over the nested sets of predictions, and each window's mean over all of its own."""
    sets: dict[str, list[float]] = {"all": [], "from_1": [], "counted": []}
    for window, values in zip(windows, ce):
        for position, (token, value) in enumerate(zip(window, values)):
            sets["all"].append(value)
            if position >= 1:
                sets["from_1"].append(value)
                if token not in special:
                    sets["counted"].append(value)
    ids = np.array([token for window in windows for token in window], dtype="<u4")
    return {
        "windows": len(windows),
        "tokens": len(ids),
        "windows_sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
        "ce": {name: {"nats_per_token": float(np.mean(x)), "predictions": len(x)} for name, x in sets.items()},
        "ce_of_window": [float(x.mean()) for x in ce if len(x)],
    }


def load(path: Path):
    """The model, in f32."""
    directory, extra = (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **extra).eval()


def weights_sha256(path: Path) -> str:
    """Of the file, or of the one file of weights in a directory."""
    file = path if path.is_file() else path / "model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def inputs(args, tokenizer: Tokenizer, separator: int) -> dict[str, list[list[int]]]:
    """Windows by the name of their text."""
    if args.windows:
        return {args.windows.name: read_windows(args.windows)}
    if args.text:
        return {"text": pack(args.text, tokenizer, separator, args.length)}
    found = {}
    for name, patterns in CORPORA.items():
        paths = sorted({Path(p) for pattern in patterns for p in glob.glob(str(args.texts / pattern))})
        assert paths, f"no text for {name} in {args.texts}: run scripts/fetch-demo.sh first"
        found[name] = pack(paths, tokenizer, separator, args.length)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=SMOLLM2, help="a .gguf file or a Hugging Face directory")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--texts", type=Path, default=ROOT / "data/cache", help="where the folders sotu and moby-dick are")
    source.add_argument("--text", type=Path, nargs="+", help="score these .txt or .jsonl files, as one text")
    source.add_argument("--windows", type=Path, help="score these windows (.json, .safetensors)")
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=40_000, help="counted tokens of each text, from its beginning; 0: all")
    parser.add_argument("--losses", action="store_true", help="write every window and every token's loss too")
    parser.add_argument("--float64", action="store_true", help="compute in f64")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    tokenizer, eos, special = read_tokenizer(args.model)
    texts = inputs(args, tokenizer, eos)
    model = load(args.model)
    if args.float64:
        model = model.double()
    report = {
        "model": args.model.name,
        "model_sha256": weights_sha256(args.model),
        "dtype": "f64" if args.float64 else "f32",
        "window_length": args.length,
        "separator": eos,
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "texts": {},
    }
    for name, windows in texts.items():
        windows = limited(windows, special, args.tokens or None)
        print(f"{name}: {len(windows)} windows", flush=True)
        began = time.monotonic()
        ce = token_losses(model, windows)
        report["texts"][name] = figures(ce, windows, special)
        if args.losses:
            report["texts"][name]["token_losses"] = {"windows": windows, "losses": [x.tolist() for x in ce]}
        for which, value in report["texts"][name]["ce"].items():
            print(f"  {which:8} {value['nats_per_token']:.12f} nats/token over {value['predictions']} predictions")
        print(f"  {time.monotonic() - began:.0f} s")
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
