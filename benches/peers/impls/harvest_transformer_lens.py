"""TransformerLens: `run_with_cache` of one hook, with `stop_at_layer`. Without weight processing, as for training dictionaries.

It knows models by their names on the hub. Here it gets the shape of the model as its own configuration and the weights through its own
conversion, so that what it computes can be held against the others.
"""

from pathlib import Path

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights, convert_llama_weights, convert_neox_weights
from transformers import AutoModelForCausalLM

from harvesting import Harvest, Inputs, main


def configuration(hf) -> tuple[dict, object]:
    common = {"d_vocab": hf.vocab_size, "default_prepend_bos": False, "device": "cpu", "original_architecture": hf.architectures[0]}
    match hf.model_type:
        case "gpt2":
            return common | {
                "d_model": hf.n_embd, "n_layers": hf.n_layer, "n_heads": hf.n_head, "d_head": hf.n_embd // hf.n_head, "n_ctx": hf.n_positions,
                "eps": hf.layer_norm_epsilon, "act_fn": hf.activation_function, "normalization_type": "LN",
            }, convert_gpt2_weights
        case "gpt_neox":
            d_head = hf.hidden_size // hf.num_attention_heads
            return common | {
                "d_model": hf.hidden_size, "n_layers": hf.num_hidden_layers, "n_heads": hf.num_attention_heads, "d_head": d_head,
                "d_mlp": hf.intermediate_size, "n_ctx": hf.max_position_embeddings, "eps": hf.layer_norm_eps, "act_fn": hf.hidden_act,
                "normalization_type": "LN", "positional_embedding_type": "rotary", "rotary_dim": d_head // 4, "parallel_attn_mlp": True,
                "rotary_adjacent_pairs": False,
            }, convert_neox_weights
        case "llama":
            d_head = hf.hidden_size // hf.num_attention_heads
            return common | {
                "d_model": hf.hidden_size, "n_layers": hf.num_hidden_layers, "n_heads": hf.num_attention_heads, "d_head": d_head,
                "n_key_value_heads": hf.num_key_value_heads, "d_mlp": hf.intermediate_size, "n_ctx": 2048, "eps": hf.rms_norm_eps,
                "act_fn": hf.hidden_act, "normalization_type": "RMS", "positional_embedding_type": "rotary", "rotary_dim": d_head,
                "rotary_base": int(hf.rope_parameters["rope_theta"]), "rotary_adjacent_pairs": False, "gated_mlp": True, "final_rms": True,
            }, convert_llama_weights


def hooked(model: Path) -> HookedTransformer:
    """The model of a Hugging Face directory, without a tokenizer."""
    theirs = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    settings, convert = configuration(theirs.config)
    found = HookedTransformer(HookedTransformerConfig(**settings))
    found.load_and_process_state_dict(
        convert(theirs, found.cfg), fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return found


def stop_at_layer(inputs: Inputs) -> Harvest:
    model = hooked(inputs.model)
    hook = f"blocks.{inputs.layer}.hook_resid_post"

    def harvest(tokens: torch.Tensor) -> torch.Tensor:
        _, cache = model.run_with_cache(tokens, names_filter=[hook], stop_at_layer=inputs.layer + 1, return_type=None)
        return cache[hook]

    return harvest


if __name__ == "__main__":
    main({"transformer-lens": stop_at_layer})
