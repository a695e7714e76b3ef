//! Every tensor of every family counts: without it, or with a value that is no number, a model is refused by its name.

use std::{collections::BTreeMap, fs};

use monosema_transformer::Family;
use safetensors::SafeTensors;

use crate::{
    damaged::{Copy, Raw, refused},
    fixture::Case,
};

const FILE: &str = "model.safetensors";

/// The cases whose weights are one file of safetensors.
fn cases() -> Vec<Case> {
    let cases: Vec<Case> = Case::all().into_iter().filter(|case| case.model.join(FILE).exists()).collect();
    let families = |family: &Family| cases.iter().any(|case| case.checkpoint().info().family == *family);
    assert!(Family::ALL.iter().all(families), "a family has no case");
    cases
}

fn tensors(case: &Case) -> BTreeMap<String, Raw> {
    let bytes = fs::read(case.model.join(FILE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let raw = |view: safetensors::tensor::TensorView| Raw {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.tensors().into_iter().map(|(name, view)| (name, raw(view))).collect()
}

#[test]
fn a_tensor_that_is_missing_or_no_number_is_named() {
    for case in cases() {
        let (copy, mut tensors) = (Copy::of(&case.name), tensors(&case));
        let write = |tensors: &BTreeMap<String, Raw>| {
            fs::write(copy.path(FILE), safetensors::serialize(tensors.clone(), None).unwrap()).unwrap();
        };
        // What sees has nothing to do with language.
        let sees =
            |name: &str| name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.");
        let names: Vec<String> = tensors.keys().filter(|name| !sees(name)).cloned().collect();
        for name in names {
            let mut tensor = tensors.remove(&name).unwrap();
            write(&tensors);
            let text = name.strip_prefix("language_model.").unwrap_or(&name);
            refused(copy.open_directory(), &[text, "is missing", "fetch both again"]);

            let whole = tensor.bytes.clone();
            // All bits set make no number of any type.
            tensor.bytes[..4].fill(0xff);
            tensors.insert(name.clone(), tensor);
            write(&tensors);
            refused(copy.open_directory(), &[&name, "value 0 is NaN"]);
            tensors.get_mut(&name).unwrap().bytes = whole;
        }
        write(&tensors);
        copy.open_directory().unwrap();
        // One too many within a block, and outside.
        for name in ["lm_head.bias", "model.layers.0.self_attn.sinks", "transformer.h.0.attn.c_attn.sinks"] {
            tensors.insert(name.into(), Raw::zeros(&[2]));
            write(&tensors);
            refused(copy.open_directory(), &["no tensor", name]);
            tensors.remove(name);
        }
    }
}

#[test]
fn weights_of_another_family_are_refused() {
    let cases = cases();
    let first =
        |family: &Family| cases.iter().find(|case| case.checkpoint().info().family == *family).unwrap();
    for family in Family::ALL {
        let copy = Copy::of(&first(family).name);
        for other in Family::ALL.iter().filter(|other| *other != family) {
            fs::copy(first(other).model.join(FILE), copy.path(FILE)).unwrap();
            let message = copy.open_directory().unwrap_err().to_string();
            let expected = ["is missing", "no tensor", "expected shape", "(tied)"];
            assert!(expected.iter().any(|part| message.contains(part)), "{family} of {other}: {message}");
        }
    }
}
