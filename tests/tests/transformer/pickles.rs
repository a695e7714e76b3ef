//! PyTorch's files: tensors come out of them, and nothing else happens. `gpt2_pickled` and `llama_pickled_shards` are
//! golden cases too.

use std::{fs, path::Path};

use burn::tensor::{Device, Tensor};
use monosema_transformer::Capture;

use crate::{
    damaged::{Copy, refused},
    fixture::{Case, directory},
};

const FILE: &str = "pytorch_model.bin";

#[test]
fn what_a_pickle_would_run_is_not_run() {
    // Beside the weights there is a call of Python's mkdir (`Trap` in hub_cases.py).
    let case = Case::read("gpt2_pickled");
    let bytes = fs::read(case.model.join(FILE)).unwrap();
    let directory = b"a-pickle-was-run";
    assert!(bytes.windows(directory.len()).any(|window| window == directory));
    case.load(&Device::flex());
    // A pickle that is such a call and no more.
    let call = Copy::of("gpt2_pickled").bytes(FILE, |bytes| {
        *bytes = b"cos\nmkdir\n(Va-pickle-was-run\ntR.".to_vec();
    });
    refused(call.open_directory(), &[FILE, "mkdir", "fetch"]);
    // A call where weights should be.
    let inside = Copy::of("gpt2_pickled").bytes(FILE, |bytes| {
        *bytes = b"}Va\ncos\nmkdir\n(Va-pickle-was-run\ntRs.".to_vec();
    });
    refused(inside.open_directory(), &["transformer.wte.weight", "missing"]);
    assert!(!Path::new("a-pickle-was-run").exists());
}

#[test]
fn a_file_cut_short_or_changed_is_refused() {
    let whole = fs::metadata(directory().join("gpt2_pickled").join(FILE)).unwrap().len() as usize;
    for n in [0, 3, 100, whole / 2, whole - 1] {
        let cut = Copy::of("gpt2_pickled").bytes(FILE, |bytes| bytes.truncate(n));
        refused(cut.open_directory(), &[FILE, "fetch"]);
    }
    let other = Copy::of("gpt2_pickled").bytes(FILE, |bytes| *bytes = b"version https://git-lfs".to_vec());
    refused(other.open_directory(), &[FILE, "fetch"]);
    // One bit of a weight: the archive's checksum knows.
    let case = Case::read("gpt2_pickled");
    let changed = Copy::of("gpt2_pickled").bytes(FILE, |bytes| {
        let values: Vec<u8> = first_weights(&case);
        let at = bytes.windows(values.len()).position(|window| window == values).unwrap();
        bytes[at] ^= 1;
    });
    refused(changed.open_directory(), &[FILE, "tensor transformer.", "fetch"]);
}

/// The bytes of the embedding of token 0, which the model's first hook shows.
fn first_weights(case: &Case) -> Vec<u8> {
    let (device, hook) = (Device::flex(), "hook_embed".parse().unwrap());
    let mut capture = Capture::new([hook]);
    case.load(&device).run(Tensor::zeros([1, 1], &device), &mut capture);
    let embedding = capture.take(hook).unwrap().into_data();
    embedding.iter::<f32>().flat_map(f32::to_le_bytes).collect()
}

#[test]
fn shards_must_be_what_the_index_says() {
    let gone = Copy::of("llama_pickled_shards");
    fs::remove_file(gone.path("pytorch_model-00002-of-00003.bin")).unwrap();
    refused(gone.open_directory(), &["pytorch_model-00002-of-00003.bin", "cannot be read"]);
    let swapped = Copy::of("llama_pickled_shards");
    let [first, second] = [1, 2].map(|n| swapped.path(&format!("pytorch_model-0000{n}-of-00003.bin")));
    fs::copy(first, second).unwrap();
    refused(swapped.open_directory(), &["also in", "00001-of-00003.bin"]);
}

#[test]
fn safetensors_are_preferred() {
    let both = Copy::of("gpt2");
    fs::write(both.path(FILE), "no pickle").unwrap();
    both.open_directory().unwrap();
    fs::remove_file(both.path("model.safetensors")).unwrap();
    refused(both.open_directory(), &[FILE]);
    fs::remove_file(both.path(FILE)).unwrap();
    refused(both.open_directory(), &["no weights", FILE]);
}
