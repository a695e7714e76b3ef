//! Dictionaries that SAELens saved are read, compute what SAELens computes, and are written back whole.
//! `fixtures/saelens/export.py` made them.
#![allow(clippy::unwrap_used)]
#![allow(deprecated, reason = "burn-ndarray is on its way out upstream; here it is the second opinion")]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use monosema_sae::Dictionary;
use safetensors::SafeTensors;
use serde_json::Value;

/// f32 sums over at most 40 values of size 1 to 10, in another order.
const TOLERANCE: f32 = 1e-5;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/saelens").join(name)
}

fn golden(directory: &Path, name: &str, device: &Device) -> Tensor<2> {
    let bytes = std::fs::read(directory.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    let values: Vec<f32> =
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Tensor::from_data(TensorData::new(values, view.shape().to_vec()), device)
}

#[track_caller]
fn assert_close(found: Tensor<2>, expected: Tensor<2>) {
    assert_eq!(found.dims(), expected.dims());
    let [found, expected] = [found, expected].map(|t| t.into_data().try_into_vec::<f32>().unwrap());
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= TOLERANCE * b.abs().max(1.0), "expected {b}, found {a}");
    }
}

#[test]
fn a_dictionary_of_saelens_computes_what_saelens_computes() {
    for device in [Device::flex(), Device::ndarray()] {
        for name in ["plain", "b_dec"] {
            let directory = fixture(name);
            let dictionary = Dictionary::load(&directory, &device).unwrap();
            let x = golden(&directory, "x", &device);
            let acts = dictionary.encode(x.clone());
            assert_close(acts, golden(&directory, "acts", &device));
            let x_hat = dictionary.decode(golden(&directory, "acts", &device), x);
            assert_close(x_hat, golden(&directory, "x_hat", &device));
        }
    }
}

#[test]
fn a_dictionary_of_saelens_is_written_back_whole() {
    let directory = fixture("b_dec");
    let dictionary = Dictionary::load(&directory, &Device::flex()).unwrap();
    let metadata = dictionary.metadata();
    assert_eq!(metadata.model_name.as_deref(), Some("gpt2-small"));
    assert_eq!(metadata.hook.to_string(), "blocks.8.hook_resid_pre");
    assert_eq!((metadata.context_size, metadata.prepend_bos), (Some(128), Some(true)));

    let copy = tempfile::tempdir().unwrap();
    dictionary.save(copy.path()).unwrap();
    let read = |directory: &Path, name: &str| std::fs::read(directory.join(name)).unwrap();
    for name in ["sae_weights.safetensors", "sparsity.safetensors"] {
        let (before, after) = (read(&directory, name), read(copy.path(), name));
        let tensors = |bytes| {
            let mut all = SafeTensors::deserialize(bytes).unwrap().tensors();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all.into_iter()
                .map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()))
                .collect::<Vec<_>>()
        };
        assert_eq!(tensors(&before), tensors(&after));
    }
    let cfg = |directory: &Path| serde_json::from_slice::<Value>(&read(directory, "cfg.json")).unwrap();
    let (before, mut after) = (cfg(&directory), cfg(copy.path()));
    let ours = after["metadata"].as_object_mut().unwrap();
    // All that is added.
    assert!(ours.remove("monosema").is_some());
    assert_eq!(before, after);
}
