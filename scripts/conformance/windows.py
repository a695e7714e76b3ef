"""Text as windows of token ids, cut as monosema cuts it: documents one after the other, EOS between two of a window."""

import hashlib
import json
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase


def cut(tokenizer: PreTrainedTokenizerBase, file: Path, length: int, n: int, batch: int) -> torch.Tensor:
    """The first `n` windows of a file of JSON lines, `[n, length]`, or some batches more: the last one ends in no special token.

    A limit of counted tokens ends a window after a counted token, so only such windows can be asked for as a whole.
    """
    special, windows, window = set(tokenizer.all_special_ids), [], []
    assert tokenizer.bos_token_id is None, "windows that begin with BOS are not cut here"
    for document in documents(file):
        tokens = tokenizer.encode(document, add_special_tokens=False)
        # A window never begins with the separator.
        for token in ([tokenizer.eos_token_id] if window and tokens else []) + tokens:
            window.append(token)
            if len(window) == length:
                windows.append(window)
                window = []
                if len(windows) >= n and len(windows) % batch == 0 and token not in special:
                    return torch.tensor(windows)
    raise SystemExit(f"{file}: expected {n} windows of {length} tokens, found {len(windows)}")


def documents(file: Path):
    with file.open() as lines:
        for line in lines:
            yield json.loads(line)["text"]


def digest(windows: torch.Tensor) -> str:
    """What a report calls `windows_sha256`."""
    return hashlib.sha256(windows.numpy().astype("<u4").tobytes()).hexdigest()
