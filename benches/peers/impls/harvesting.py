"""What the harvesting peers share: the windows, the clock and the one line of JSON.

An implementation is a function from an `Inputs` to a function from tokens [batch, context] to what the residual stream holds
after block `layer`, [batch, context, d_model]. It is called for one batch after another; the first ones are not timed.
"""

import argparse
import json
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
from safetensors.torch import load_file

Harvest = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Inputs:
    model: Path
    layer: int


def main(implementations: dict[str, Callable[[Inputs], Harvest]]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--impl", choices=implementations, required=True)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--layer", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--save", type=Path, help="write what was harvested of the first batch here")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    batches = load_file(args.inputs / "tokens.safetensors")["tokens"].split(args.batch)
    with torch.inference_mode():
        harvest = implementations[args.impl](Inputs(args.inputs / "model", args.layer))
        if args.save:
            from safetensors.torch import save_file

            save_file({"x": harvest(batches[0]).float().contiguous().clone()}, args.save)
            return
        for tokens in batches[: args.warmup]:
            harvest(tokens)
        started, cpu = time.perf_counter(), time.process_time()
        for tokens in batches:
            harvest(tokens)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    tokens = sum(tokens.numel() for tokens in batches)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"tokens_per_s": tokens / seconds, "tokens_per_cpu_s": tokens / cpu, "peak_mb": peak}))
