#!/usr/bin/env python3
"""Cross-entropy of SmolLM2 by transformers, on the same token windows as monosema's evaluator.

What `report.json` gives as `ce.clean` is held against this program's figures: same weights (the GGUF file,
dequantised to f32), same windows, another implementation.

    pip install -r scripts/reference/requirements.txt
    scripts/fetch-demo.sh
    python scripts/reference/smollm2_ce.py --out scripts/reference/smollm2_ce.json

Windows are made by the rule that monosema's `[context]` section states with its defaults at `length = 384`:
documents in the order of their sorted paths, each tokenised alone without special tokens, the tokenizer's
EOS between two documents of one window, cut every 384 tokens; a last, shorter window is left out. No
BOS is added, because the tokenizer adds none. To score windows made elsewhere, give `--windows FILE`: JSON ([[ids], ...]) or
safetensors (an integer tensor `tokens` [windows, length]).

Each window gives length - 1 predictions, one from each position but the last. The figures are means over
predictions, in nats a token, of three nested sets:

    all        every prediction
    from_1     made from position 1 or later: position 0 carries a massive activation
    counted    from_1, and the token at that position is not a special one (here: not the separator);
               what monosema counts with the defaults `skip_first = 1`, `skip_special = true`

Logits are f32, as the model computes them; log-softmax and sums are f64.
"""

import argparse
import glob
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

ROOT = Path(__file__).resolve().parents[2]
CORPORA = {
    "sotu-1990-2021": ["sotu/199*.txt", "sotu/2*.txt"],
    "moby-dick": ["moby-dick/data.txt"],
}
TOKEN_TYPE_CONTROL = 3  # llama.cpp's LLAMA_TOKEN_TYPE_CONTROL: never the product of text


def read_tokenizer(gguf: Path):
    """The tokenizer in the GGUF file, its end-of-text id and its special ids.

    Built here from the file's tokens and merges: `smollm` means GPT-2's ByteLevel BPE after a split of digits
    into single ones (llama.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM).
    """
    fields = GGUFReader(gguf).fields
    get = lambda key: fields[f"tokenizer.ggml.{key}"].contents()
    assert (get("model"), get("pre")) == ("gpt2", "smollm"), "another kind of tokenizer"
    vocab = {token: i for i, token in enumerate(get("tokens"))}
    merges = [tuple(m.split(" ")) for m in get("merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = {i for i, kind in enumerate(get("token_type")) if kind == TOKEN_TYPE_CONTROL}
    return tokenizer, get("eos_token_id"), special


def pack(paths: list[Path], tokenizer: Tokenizer, separator: int, length: int) -> np.ndarray:
    """Every whole window [windows, length] of the documents at `paths`, joined by `separator`."""
    stream: list[int] = []
    for path in paths:
        text = path.read_bytes().decode("utf-8")
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text, f"{path}: the tokens are not the text"
        # Between two documents of one window: where a window has just closed, nothing crosses its edge.
        stream.extend([separator, *ids] if len(stream) % length else ids)
    whole = len(stream) // length
    return np.array(stream[: whole * length], dtype=np.int64).reshape(whole, length)


def read_windows(path: Path) -> np.ndarray:
    """Windows made elsewhere."""
    if path.suffix == ".json":
        return np.array(json.loads(path.read_text()), dtype=np.int64)
    from safetensors.numpy import load_file

    return load_file(path)["tokens"].astype(np.int64)


def losses(model, windows: np.ndarray, batch: int) -> np.ndarray:
    """Cross-entropy [windows, length - 1] of each next token, in nats, f64."""
    out = []
    with torch.inference_mode():
        for start in range(0, len(windows), batch):
            tokens = torch.from_numpy(windows[start : start + batch])
            logits = model(tokens, use_cache=False).logits[:, :-1].double()
            logp = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
            out.append(-logp.numpy())
            print(f"  {min(start + batch, len(windows))}/{len(windows)} windows, CE so far {np.concatenate(out).mean():.6f}", flush=True)
    return np.concatenate(out)


def figures(ce: np.ndarray, windows: np.ndarray, special: set[int]) -> dict:
    """Means over the nested sets of predictions, and each window's mean over all of its own."""
    plain = ~np.isin(windows[:, :-1], list(special))
    later = np.broadcast_to(np.arange(ce.shape[1]) >= 1, ce.shape)
    sets = {"all": np.ones_like(later), "from_1": later, "counted": later & plain}
    return {
        "windows": len(windows),
        "window_tokens": windows.shape[1],
        # Of the ids as little-endian u32, window after window: equal digests mean equal inputs.
        "tokens_sha256": hashlib.sha256(windows.astype("<u4").tobytes()).hexdigest(),
        "first_tokens": windows[0, :8].tolist(),
        "ce": {name: {"nats_per_token": float(ce[mask].mean()), "predictions": int(mask.sum())} for name, mask in sets.items()},
        "ce_of_window": [float(x) for x in ce.mean(axis=1)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, default=ROOT / "data/cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--texts", type=Path, default=ROOT / "data/cache", help="where the folders sotu and moby-dick are")
    parser.add_argument("--windows", type=Path, help="score these windows (.json, .safetensors) in place of the two texts")
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--max-windows", type=int, default=64, help="of each text, from its beginning; 0: all")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    tokenizer, eos, special = read_tokenizer(args.gguf)
    if args.windows:
        inputs = {args.windows.name: read_windows(args.windows)}
    else:
        inputs = {}
        for name, patterns in CORPORA.items():
            paths = sorted({Path(p) for pattern in patterns for p in glob.glob(str(args.texts / pattern))})
            assert paths, f"no text for {name} in {args.texts}: run scripts/fetch-demo.sh first"
            inputs[name] = pack(paths, tokenizer, eos, args.length)
    limit = args.max_windows or None

    model = transformers.AutoModelForCausalLM.from_pretrained(args.gguf.parent, gguf_file=args.gguf.name, dtype=torch.float32)
    model.eval()
    report = {
        "model": args.gguf.name,
        "model_sha256": hashlib.sha256(args.gguf.read_bytes()).hexdigest(),
        "dtype": "f32",
        "separator": eos,
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "texts": {},
    }
    for name, windows in inputs.items():
        available, windows = len(windows), windows[:limit]
        print(f"{name}: {len(windows)} of {available} windows of {windows.shape[1]} tokens", flush=True)
        began = time.monotonic()
        report["texts"][name] = figures(losses(model, windows, args.batch), windows, special)
        report["texts"][name]["windows_available"] = available
        for which, value in report["texts"][name]["ce"].items():
            print(f"  {which:8} {value['nats_per_token']:.12f} nats/token over {value['predictions']} predictions")
        print(f"  {time.monotonic() - began:.0f} s")
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
