//! `monosema models`: the families of models, how their checkpoints are known, and which hooks they have.

use monosema_core::{BlockHook, HookPoint};
use monosema_transformer::{Family, GGUF_SPLITS};
use serde_json::{Value, json};

use crate::{failure::Outcome, output, table};

/// Lists them.
pub(crate) fn list(json: bool) -> Outcome {
    if json {
        let families: Vec<Value> = Family::ALL.iter().map(|&family| described(family)).collect();
        let hooks: Vec<String> = every_hook().collect();
        return output::print(format_args!("{:#}", json!({ "families": families, "hooks": hooks })));
    }
    let rows = Family::ALL.iter().map(|family| {
        let hooks = match family.not_in_every_block() {
            [] => "all".into(),
            some => format!("all, but not in every block {}", join(some.iter().map(name))),
        };
        let [types, gguf] =
            [family.model_types(), family.gguf_architecture().as_slice()].map(|s| s.join(", "));
        vec![family.to_string(), types, gguf, hooks]
    });
    let head = ["family", "config.json: model_type", "GGUF: general.architecture", "hooks"];
    output::print(table::render(&head, head.len(), rows))?;
    output::print(format_args!("\nHooks: {} (L = 0, 1, …).", join(every_hook())))?;
    output::print(
        "A model is a directory as on the Hugging Face hub (config.json, tokenizer.json, and model.safetensors or \
         pytorch_model.bin, whole or in shards) or a .gguf file.",
    )?;
    output::print(format_args!(
        "The tokenizer of a .gguf file is one of SentencePiece's (tokenizer.ggml.model llama), or byte-level (gpt2) and split \
         as {GGUF_SPLITS} is (tokenizer.ggml.pre); models with another need their directory."
    ))
}

fn described(family: Family) -> Value {
    json!({
        "family": family.to_string(),
        "model_types": family.model_types(),
        "architectures": family.architectures(),
        "gguf_architecture": family.gguf_architecture(),
        "hooks_not_in_every_block": family.not_in_every_block().iter().map(name).collect::<Vec<_>>(),
    })
}

/// The names of all hooks, of those in blocks with `L` for the number.
fn every_hook() -> impl Iterator<Item = String> {
    HookPoint::all(1).map(|hook| hook.to_string().replacen("blocks.0.", "blocks.L.", 1))
}

fn name(hook: &BlockHook) -> String {
    hook.name().to_owned()
}

fn join(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
