"""Writes what `harvest` gives to everybody: a language model of random weights in a shape that people study, and text for it.

    python harvest_inputs.py --model gpt2-small --context 128 --windows 256 --out DIR

DIR/model is a Hugging Face directory with a tokenizer whose words are the numbers of its tokens, DIR/text.jsonl one document of
them, DIR/tokens.safetensors the same windows [windows, context] for those who take tokens. Speed does not depend on what the
weights are; that everybody computes the same does not either.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, AutoModelForCausalLM

SHAPES = {
    "smollm2-135m": LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e5},
    ),
    "gpt2-small": GPT2Config(),
    "pythia-70m": GPTNeoXConfig(
        vocab_size=50304, hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8, max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=SHAPES, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    torch.manual_seed(0)
    config = SHAPES[args.model]
    directory = args.out / "model"
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
    words = {str(id): id for id in range(config.vocab_size)}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "unk_token": "0", "vocab": words},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))

    tokens = torch.randint(config.vocab_size, (args.windows, args.context))
    save_file({"tokens": tokens}, args.out / "tokens.safetensors")
    text = " ".join(map(str, tokens.flatten().tolist()))
    (args.out / "text.jsonl").write_text(json.dumps({"text": text}) + "\n")


if __name__ == "__main__":
    main()
