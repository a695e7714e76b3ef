//! Faults of a SAELens directory, each with the message that a user sees.

use burn::tensor::Device;
use monosema_core::{BlockHook, HookPoint, Seed};
use serde_json::{Value, json};

use super::*;
use crate::{Description, Init, Metadata, Sae, SaeConfig, Size, Weights};

fn saved() -> tempfile::TempDir {
    let sae = Sae::init(&SaeConfig::default(), Size::new(3, 5), &Init::new(Seed(1), 0.1), &Device::flex());
    let metadata = Metadata::new(HookPoint::block(0, BlockHook::ResidPre));
    let dir = tempfile::tempdir().unwrap();
    Dictionary::new(sae, metadata, Some(vec![-1.0; 5])).save(dir.path()).unwrap();
    dir
}

#[track_caller]
fn assert_fault(dir: &Path, parts: &[&str]) {
    for error in faults(dir) {
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}

/// What loading says, and what describing says, which must see the same.
fn faults(dir: &Path) -> [String; 2] {
    let loading = Dictionary::load(dir, &Device::flex()).unwrap_err();
    [loading.to_string(), Description::read(dir).unwrap_err().to_string()]
}

fn assert_cfg_fault(change: impl Fn(&mut Value), parts: &[&str]) {
    let dir = saved();
    let path = dir.path().join(CFG);
    let mut cfg: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut cfg);
    std::fs::write(&path, cfg.to_string()).unwrap();
    assert_fault(dir.path(), &[&["cfg.json"], parts].concat());
}

#[test]
fn faults_of_the_configuration_name_the_key() {
    assert_cfg_fault(
        |c| c["architecture"] = "temporal".into(),
        &["`architecture`", "\"standard\"", "\"temporal\""],
    );
    assert_cfg_fault(|c| c["architecture"] = "topk".into(), &["\"topk\"", "missing field `k`"]);
    assert_cfg_fault(|c| c["d_in"] = 0.into(), &["`d_in`", "from 1 on", "found 0"]);
    assert_cfg_fault(|c| c["d_sae"] = "5".into(), &["`d_sae`", "found \"5\""]);
    assert_cfg_fault(
        |c| c["normalize_activations"] = "covariance_whitening".into(),
        &["`normalize_activations`", "\"none\"", "fold another normalisation"],
    );
    assert_cfg_fault(
        |c| c["normalize_activations"] = "expected_average_only_in".into(),
        &["`normalize_activations`", "activation_scaler.json", "does not say which"],
    );
    for (name, why) in [
        ("abstopk", "negative"),
        ("matching_pursuit", "one after another"),
        ("batchtopk", "depends on its batch"),
        ("temporal", "tokens before"),
    ] {
        assert_cfg_fault(|c| c["architecture"] = name.into(), &["`architecture`", name, why]);
    }
    assert_cfg_fault(
        |c| c["reshape_activations"] = "hook_z".into(),
        &["`reshape_activations`", "\"hook_z\""],
    );
    assert_cfg_fault(|c| c["k"] = 32.into(), &["`architecture`", "unknown field `k`"]);
    assert_cfg_fault(|c| c["apply_b_dec_to_input"] = 1.into(), &["\"standard\"", "invalid type"]);
    assert_cfg_fault(|c| c["metadata"] = Value::Null, &["`metadata.sae_lens_version`", "found none"]);
    assert_cfg_fault(|c| drop(c.as_object_mut().unwrap().remove("metadata")), &["`metadata`", "found none"]);
    assert_cfg_fault(|c| c["metadata"]["sae_lens_version"] = "5.9.1".into(), &["sae_lens_version", "5.9.1"]);
    assert_cfg_fault(
        |c| c["metadata"]["hook_name"] = "blocks.1".into(),
        &["metadata.hook_name", "`blocks.1`"],
    );
    assert_cfg_fault(|c| c["metadata"]["hook_head_index"] = 3.into(), &["hook_head_index", "found 3"]);
    assert_cfg_fault(|c| c["metadata"]["context_size"] = json!([1]), &["metadata.context_size", "found [1]"]);
    assert_cfg_fault(|c| c["metadata"]["monosema"]["scale"] = "x".into(), &["metadata.monosema.scale"]);
    assert_cfg_fault(|c| *c = json!([]), &["expected a JSON object"]);
}

#[test]
fn a_text_that_is_not_json_and_an_empty_directory_are_told_apart() {
    let dir = saved();
    std::fs::write(dir.path().join(CFG), "{\"d_in\": ").unwrap();
    assert_fault(dir.path(), &["cfg.json", "EOF"]);
    assert_fault(
        tempfile::tempdir().unwrap().path(),
        &["not a dictionary", "cfg.json and sae_weights.safetensors"],
    );
}

/// Writes other tensors in place of the weights.
fn with_weights(
    file: &str,
    tensors: &[(&str, safetensors::Dtype, Vec<usize>, Vec<u8>)],
) -> tempfile::TempDir {
    let dir = saved();
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &dir.path().join(file)).unwrap();
    dir
}

fn f32s(name: &str, shape: [usize; 2], value: f32) -> (&str, safetensors::Dtype, Vec<usize>, Vec<u8>) {
    let shape: Vec<_> = shape.into_iter().filter(|&n| n > 0).collect();
    let bytes = value.to_le_bytes().repeat(shape.iter().product());
    (name, safetensors::Dtype::F32, shape, bytes)
}

#[test]
fn faults_of_the_weights_name_the_tensor() {
    let good = [
        f32s("W_enc", [3, 5], 1.0),
        f32s("b_enc", [5, 0], 1.0),
        f32s("W_dec", [5, 3], 1.0),
        f32s("b_dec", [3, 0], 1.0),
    ];
    let check = |tensors: &[_], parts: &[&str]| {
        let dir = with_weights(WEIGHTS, tensors);
        assert_fault(dir.path(), &[&["sae_weights.safetensors"], parts].concat());
    };
    Dictionary::load(with_weights(WEIGHTS, &good).path(), &Device::flex()).unwrap();

    check(&good[..3], &["`b_dec` is missing", "shape [3]", "W_dec, W_enc, b_enc"]);
    check(
        &[&good[..], &[f32s("threshold", [5, 0], 1.0)]].concat(),
        &["`threshold` has no place", "standard"],
    );
    let mut bad = good.clone();
    bad[0] = f32s("W_enc", [5, 3], 1.0);
    check(&bad, &["`W_enc`", "expected shape [3, 5], found [5, 3]"]);
    bad[0] = ("W_enc", safetensors::Dtype::I32, vec![3, 5], vec![0; 60]);
    check(&bad, &["`W_enc`", "found I32"]);

    let dir = saved();
    let path = dir.path().join(WEIGHTS);
    let bytes = std::fs::read(&path).unwrap();
    for wrong in
        [&bytes[..bytes.len() - 1], &bytes[..40], &bytes[..5], &[&bytes[..], b"x"].concat(), &[0xff; 99]]
    {
        std::fs::write(&path, wrong).unwrap();
        assert_fault(dir.path(), &["sae_weights.safetensors", "not a whole safetensors file"]);
    }
}

/// What only loading sees.
#[test]
fn faults_beyond_the_header_are_found_on_loading() {
    let fault = |dir: &Path| {
        Description::read(dir).unwrap();
        Dictionary::load(dir, &Device::flex()).unwrap_err().to_string()
    };
    let dir = with_weights(SPARSITY, &[f32s("sparsity", [4, 0], -1.0)]);
    let error = fault(dir.path());
    assert!(
        error.contains("sparsity.safetensors") && error.contains("expected shape [5], found [4]"),
        "{error}"
    );

    let dir = saved();
    let path = dir.path().join(WEIGHTS);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = fault(dir.path());
    assert!(error.contains("expected finite numbers, found NaN at index"), "{error}");
}

#[test]
fn a_description_is_what_loading_finds() {
    let dir = saved();
    let dictionary = Dictionary::load(dir.path(), &Device::flex()).unwrap();
    let expected = Description {
        architecture: dictionary.sae().config(),
        size: dictionary.size(),
        metadata: dictionary.metadata().clone(),
    };
    assert_eq!(Description::read(dir.path()).unwrap(), expected);
}

#[test]
fn what_could_not_be_loaded_is_not_saved() {
    let size = Size::new(1, 2);
    let mut weights = Weights::default();
    weights.insert("W_enc", vec![1.0, 1.0], [1, 2]);
    weights.insert("b_enc", vec![0.0, f32::INFINITY], [2]);
    weights.insert("W_dec", vec![1.0, 1.0], [2, 1]);
    weights.insert("b_dec", vec![0.0], [1]);
    let sae = Sae::from_weights(&SaeConfig::default(), size, weights, &Device::flex());
    assert_eq!(sae.size(), size);
    let metadata = Metadata::new(HookPoint::block(0, BlockHook::ResidPre));
    let dir = tempfile::tempdir().unwrap();
    let error = Dictionary::new(sae, metadata, Some(vec![-1.0; 2])).save(dir.path()).unwrap_err().to_string();
    assert!(error.contains("tensor `b_enc`") && error.contains("found inf at index 1"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn half_precision_weights_are_widened() {
    let mut tensors = [
        f32s("W_enc", [3, 5], 1.5),
        f32s("b_enc", [5, 0], 1.0),
        f32s("W_dec", [5, 3], 1.0),
        f32s("b_dec", [3, 0], 1.0),
    ];
    // 1.5 is 0x3FC0 in bf16.
    tensors[0] = ("W_enc", safetensors::Dtype::BF16, vec![3, 5], [0xC0, 0x3F].repeat(15));
    let dir = with_weights(WEIGHTS, &tensors);
    let weights = Dictionary::load(dir.path(), &Device::flex()).unwrap().sae().to_weights();
    let (_, w_enc) = weights.iter().find(|(name, _)| *name == "W_enc").unwrap();
    assert_eq!(w_enc.as_slice::<f32>().unwrap(), [1.5; 15]);
}

#[test]
fn transcoders_are_named_after_their_activation() {
    let output = |skip| Some(Output { d_out: 3, skip });
    for (kind, output, expected) in [
        ("standard", None, "standard"),
        ("standard", output(false), "transcoder"),
        ("standard", output(true), "skip_transcoder"),
        ("jumprelu", output(false), "jumprelu_transcoder"),
        ("jumprelu", output(true), "jumprelu_skip_transcoder"),
    ] {
        assert_eq!(name(kind, output), expected);
        assert_eq!(parse_name(expected), (kind, output.map(|output| output.skip)));
    }
}
