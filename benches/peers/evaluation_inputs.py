"""Writes what `evaluation` gives to everybody: what harvest_inputs.py writes, and a dictionary at a hook of the model.

    python evaluation_inputs.py --model gpt2-small --hook blocks.5.hook_resid_post --latents 6144 --l0 64 --context 128 --windows 64 --out DIR

`--model demo` is the model in data/demo and its text. The dictionary, DIR/dictionary in SAELens's format, has random directions, and one
encoder bias, chosen so that on the first windows so many latents are active: speed depends on no more.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformers import AutoTokenizer

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
sys.path += [str(HERE / "impls"), str(REPO / "scripts/conformance")]

from harvest_transformer_lens import hooked
from windows import cut


def demo(args: argparse.Namespace) -> None:
    model, text = REPO / "data/demo/model", REPO / "data/demo/stories/heldout.jsonl"
    shutil.copytree(model, args.out / "model")
    shutil.copyfile(text, args.out / "text.jsonl")
    tokens = cut(AutoTokenizer.from_pretrained(model), text, args.context, args.windows, args.windows)
    save_file({"tokens": tokens}, args.out / "tokens.safetensors")


@torch.no_grad()
def dictionary(args: argparse.Namespace) -> StandardSAE:
    tokens = load_file(args.out / "tokens.safetensors")["tokens"][:8]
    _, cache = hooked(args.out / "model").run_with_cache(tokens, names_filter=[args.hook])
    x = cache[args.hook].flatten(0, 1)
    directions = torch.nn.functional.normalize(torch.randn(args.latents, x.shape[1]), dim=-1)
    pre_acts = (x @ directions.T).flatten()
    rare = pre_acts.topk(args.l0 * len(x)).values.min()
    metadata = SAEMetadata(hook_name=args.hook, context_size=args.context, prepend_bos=False, model_name=args.model)
    sae = StandardSAE(StandardSAEConfig(d_in=x.shape[1], d_sae=args.latents, apply_b_dec_to_input=False, metadata=metadata))
    sae.load_state_dict({
        "W_enc": directions.T.contiguous(), "W_dec": directions, "b_enc": torch.full((args.latents,), -rare), "b_dec": x.mean(0),
    })
    return sae


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--hook", required=True)
    parser.add_argument("--latents", type=int, required=True)
    parser.add_argument("--l0", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    torch.manual_seed(0)
    if args.model == "demo":
        demo(args)
    else:
        shape = ["--model", args.model, "--context", str(args.context), "--windows", str(args.windows), "--out", args.out]
        subprocess.run([sys.executable, HERE / "harvest_inputs.py", *shape], check=True)
    dictionary(args).save_model(args.out / "dictionary")
    tokens = load_file(args.out / "tokens.safetensors")["tokens"]
    # EOS, the only special token of the demo, does not count; of random tokens all do.
    counted = int((tokens != 0).sum()) if args.model == "demo" else tokens.numel()
    (args.out / "counted.json").write_text(json.dumps(counted))


if __name__ == "__main__":
    main()
