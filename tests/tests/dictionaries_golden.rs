//! Dictionaries of other tools are read, compute what those tools compute, and are written as others. The `export.py` in each folder of
//! fixtures made them, most of them with the tools themselves.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor, TensorData};
use monosema_core::HookPoint;
use monosema_sae::{
    Description, Dictionary,
    formats::{self, Format, Given},
    same_function::{difference, inputs},
};
use safetensors::SafeTensors;

/// f32 sums over at most 24 values, in another order, in parts of the largest value.
const TOLERANCE: f32 = 1e-5;

/// A fixture, what it is, and the hook that its files and directories say.
struct Case {
    path: &'static str,
    format: Format,
    architecture: &'static str,
    hook: Option<&'static str>,
    hook_out: Option<&'static str>,
}

const fn case(
    path: &'static str,
    format: Format,
    architecture: &'static str,
    hook: Option<&'static str>,
    hook_out: Option<&'static str>,
) -> Case {
    Case { path, format, architecture, hook, hook_out }
}

const MID: Option<&str> = Some("blocks.8.hook_resid_mid");
const OUT: Option<&str> = Some("blocks.8.hook_mlp_out");
const POST: Option<&str> = Some("blocks.3.hook_resid_post");
const LLAMA: Option<&str> = Some("blocks.4.hook_resid_post");

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("saelens/architectures/standard_layer_norm", Format::SaeLens, "standard", MID, None),
    case("saelens/architectures/standard_constant_norm", Format::SaeLens, "standard", MID, None),
    case("saelens/architectures/jumprelu_expected_average", Format::SaeLens, "jumprelu", MID, None),
    case("saelens/architectures/topk", Format::SaeLens, "topk", MID, None),
    case("saelens/architectures/topk_rescaled", Format::SaeLens, "topk", MID, None),
    case("saelens/architectures/jumprelu", Format::SaeLens, "jumprelu", MID, None),
    case("saelens/architectures/gated", Format::SaeLens, "gated", MID, None),
    case("saelens/architectures/transcoder", Format::SaeLens, "transcoder", MID, OUT),
    case("saelens/architectures/transcoder_layer_norm", Format::SaeLens, "transcoder", MID, OUT),
    case("saelens/architectures/skip_transcoder", Format::SaeLens, "skip_transcoder", MID, OUT),
    case("saelens/architectures/skip_transcoder_layer_norm", Format::SaeLens, "skip_transcoder", MID, OUT),
    case("saelens/architectures/jumprelu_transcoder", Format::SaeLens, "jumprelu_transcoder", MID, OUT),
    case("saelens/architectures/jumprelu_skip_transcoder", Format::SaeLens, "jumprelu_skip_transcoder", MID, OUT),
    case("sparsify/layers.5", Format::Sparsify, "topk", Some("blocks.5.hook_resid_post"), None),
    case("sparsify/layers.3.mlp", Format::Sparsify, "topk", Some("blocks.3.hook_mlp_out"), None),
    case("sparsify/transcoder/layers.2", Format::Sparsify, "topk_transcoder", Some("blocks.2.hook_resid_pre"), Some("blocks.2.hook_resid_post")),
    case("sparsify/skip_transcoder/layers.7.mlp", Format::Sparsify, "topk_skip_transcoder", None, Some("blocks.7.hook_mlp_out")),
    case("dictionary_learning/auto_encoder", Format::DictionaryLearning, "standard", POST, None),
    case("dictionary_learning/auto_encoder_new", Format::DictionaryLearning, "standard", Some("blocks.3.hook_mlp_out"), None),
    case("dictionary_learning/gated", Format::DictionaryLearning, "gated", Some("blocks.3.hook_attn_out"), None),
    case("dictionary_learning/top_k", Format::DictionaryLearning, "topk", POST, None),
    case("dictionary_learning/batch_top_k", Format::DictionaryLearning, "jumprelu", POST, None),
    case("dictionary_learning/matryoshka", Format::DictionaryLearning, "jumprelu", POST, None),
    case("dictionary_learning/jump_relu", Format::DictionaryLearning, "jumprelu", None, None),
    case("gemma_scope/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71", Format::GemmaScope, "jumprelu", Some("blocks.20.hook_resid_post"), None),
    case("gemma_scope/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_35", Format::GemmaScope, "jumprelu", Some("blocks.20.hook_resid_post"), None),
    case("gemma_scope/gemma-scope-2-1b-pt/resid_post/layer_12_width_16k_l0_medium", Format::GemmaScope2, "jumprelu", Some("blocks.12.hook_resid_post"), None),
    case("gemma_scope/gemma-scope-2-1b-pt/attn_out/layer_7_width_16k_l0_small", Format::GemmaScope2, "jumprelu", Some("blocks.7.attn.hook_z"), None),
    case("gemma_scope/gemma-scope-2-1b-pt/transcoder/layer_5_width_16k_l0_big_affine", Format::GemmaScope2, "jumprelu_skip_transcoder", None, Some("blocks.5.hook_mlp_out")),
    case("llamascopium/relu_inference", Format::Llamascopium, "standard", LLAMA, None),
    case("llamascopium/relu_token_wise", Format::Llamascopium, "standard", LLAMA, None),
    case("llamascopium/jump_relu_dataset_wise", Format::Llamascopium, "jumprelu", LLAMA, None),
    case("llamascopium/older_names", Format::Llamascopium, "jumprelu", LLAMA, None),
    case("llamascopium/jump_relu_transcoder", Format::Llamascopium, "jumprelu_transcoder", LLAMA, Some("blocks.4.hook_mlp_out")),
    case("llamascopium/top_k", Format::Llamascopium, "topk", LLAMA, None),
];

impl Case {
    fn directory(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(self.path)
    }

    /// What a user must say.
    fn given(&self) -> Given {
        let hook: HookPoint = "blocks.9.hook_resid_mid".parse().unwrap();
        Given { hook: self.hook.is_none().then_some(hook), ..Given::default() }
    }

    fn load(&self) -> Dictionary {
        formats::load(&self.directory(), &self.given(), &Device::flex()).unwrap()
    }
}

fn golden(directory: &Path, name: &str) -> Tensor<2> {
    let bytes = fs::read(directory.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    let values: Vec<f32> =
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Tensor::from_data(TensorData::new(values, view.shape().to_vec()), &Device::flex())
}

#[track_caller]
fn assert_close(path: &str, found: Tensor<2>, expected: Tensor<2>) {
    assert_eq!(found.dims(), expected.dims(), "{path}");
    let [found, expected] = [found, expected].map(|t| t.into_data().try_into_vec::<f32>().unwrap());
    let largest = expected.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= TOLERANCE * largest, "{path}: expected {b}, found {a}");
    }
}

#[test]
fn dictionaries_of_other_tools_compute_what_those_compute() {
    for case in CASES {
        let (directory, path) = (case.directory(), case.path);
        assert_eq!(Format::of(&directory).unwrap(), case.format, "{path}");
        let dictionary = case.load();
        assert_eq!(formats::saelens::architecture(&dictionary), case.architecture, "{path}");
        let x = golden(&directory, "x");
        let acts = dictionary.encode(x.clone());
        assert_close(path, acts.clone(), golden(&directory, "acts"));
        assert_close(path, dictionary.decode(acts, x), golden(&directory, "x_hat"));
    }
}

#[test]
fn what_files_and_directories_say_of_hooks_is_read_and_what_they_do_not_say_is_asked_for() {
    for case in CASES {
        let (directory, path) = (case.directory(), case.path);
        let Some(hook) = case.hook else {
            let error = Dictionary::load(&directory, &Device::flex()).unwrap_err().to_string();
            assert!(error.contains("--hook ") && error.contains(path), "{error}");
            assert_eq!(error, Description::read(&directory).unwrap_err().to_string());
            continue;
        };
        let metadata = Description::read(&directory).unwrap().metadata;
        assert_eq!(metadata.hook.to_string(), hook, "{path}");
        assert_eq!(metadata.hook_out.map(|hook| hook.to_string()).as_deref(), case.hook_out, "{path}");
        // What a user says counts more.
        let other: HookPoint = "hook_embed".parse().unwrap();
        let given = Given { hook: Some(other), model_name: Some("mine".into()), ..Given::default() };
        let metadata = formats::describe(&directory, &given).unwrap().metadata;
        assert_eq!((metadata.hook, metadata.model_name.as_deref()), (other, Some("mine")), "{path}");
    }
    let model = |path: &str| {
        let case = CASES.iter().find(|case| case.path.contains(path)).unwrap();
        formats::describe(&case.directory(), &case.given()).unwrap().metadata.model_name.unwrap()
    };
    assert_eq!(model("dictionary_learning/top_k"), "EleutherAI/pythia-70m-deduped");
    assert_eq!(model("gemma-scope-2b-pt-res"), "gemma-2-2b");
    assert_eq!(model("gemma-scope-2-1b-pt/resid_post"), "gemma-v3-1b-pt");
    assert_eq!(model("gemma-scope-2-1b-pt/attn_out"), "gemma-3-1b-pt");
}

#[test]
fn a_description_is_what_loading_finds() {
    for case in CASES {
        let dictionary = case.load();
        let description = formats::describe(&case.directory(), &case.given()).unwrap();
        assert_eq!(description.architecture, dictionary.sae().config(), "{}", case.path);
        assert_eq!((description.size, &description.metadata), (dictionary.size(), dictionary.metadata()));
    }
}

#[test]
fn every_dictionary_is_written_as_every_format_that_can_hold_it() {
    let mut written = [0; 2];
    for case in CASES {
        let before = case.load();
        for (count, format) in written.iter_mut().zip([Format::SaeLens, Format::Sparsify]) {
            // monosema's own files are SAELens's, and may be of transcoders that SAELens has not.
            if format == Format::Sparsify && format.expresses(&before).is_err() {
                continue;
            }
            let copy = tempfile::tempdir().unwrap();
            let files = format.save(&before, copy.path()).unwrap();
            assert_eq!(files.len(), fs::read_dir(copy.path()).unwrap().count());
            let after = Dictionary::load(copy.path(), &Device::flex()).unwrap();
            let found = difference(&before, &after, &inputs(&before));
            assert!(found.is_rounding(), "{} as {}: {found:?}", case.path, format.name());
            assert_eq!(before.metadata(), after.metadata(), "{} as {}", case.path, format.name());
            *count += 1;
        }
    }
    // All of them; the TopK ones.
    assert_eq!(written, [CASES.len(), 8]);
}

#[test]
fn what_a_format_cannot_hold_is_named() {
    let refused = |path: &str, format: Format| {
        let case = CASES.iter().find(|case| case.path == path).unwrap();
        format.expresses(&case.load()).unwrap_err().to_string()
    };
    let error = refused("saelens/architectures/jumprelu", Format::Sparsify);
    assert!(error.contains("sparsify cannot hold") && error.contains("it is jumprelu"), "{error}");
    let error = refused("sparsify/transcoder/layers.2", Format::SaeLens);
    assert!(error.contains("transcoders of standard and jumprelu, not of topk"), "{error}");
    let error = refused("saelens/architectures/topk", Format::GemmaScope);
    assert!(error.contains("only read"), "{error}");
}

/// A copy of a fixture, one of whose files is changed.
fn changed(path: &str, file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> tempfile::TempDir {
    let case = CASES.iter().find(|case| case.path == path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // Below one of a name that says where it belongs.
    let copy = dir.path().join("layers.5");
    fs::create_dir(&copy).unwrap();
    for name in case.format.files_in(&case.directory()) {
        let bytes = fs::read(case.directory().join(name)).unwrap();
        fs::write(copy.join(name), if name == file { change(bytes) } else { bytes }).unwrap();
    }
    dir
}

#[track_caller]
fn assert_refused(path: &str, file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>, parts: &[&str]) {
    let dir = changed(path, file, change);
    let given = Given { hook: Some("hook_embed".parse().unwrap()), ..Given::default() };
    let error = formats::load(&dir.path().join("layers.5"), &given, &Device::flex()).unwrap_err().to_string();
    for part in [&[file], parts].concat() {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

fn replaced(from: &'static str, to: &'static str) -> impl Fn(Vec<u8>) -> Vec<u8> {
    move |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(from), "{text}");
        text.replace(from, to).into_bytes()
    }
}

#[test]
fn configurations_that_are_no_function_here_are_refused_with_the_reason() {
    let (sparse, learnt, llama) = ("sparsify/layers.5", "dictionary_learning/top_k", "llamascopium/top_k");
    #[rustfmt::skip]
    let cases: &[(&str, &str, &'static str, &'static str, &[&str])] = &[
        (sparse, "cfg.json", "\"activation\": \"topk\"", "\"activation\": \"groupmax\"", &["`activation`", "groupmax"]),
        (sparse, "cfg.json", "\"skip_connection\": false", "\"skip_connection\": true", &["`skip_connection`"]),
        (sparse, "cfg.json", "\"k\": 4", "\"k\": 400", &["`k`", "24 latents"]),
        (sparse, "cfg.json", "\"k\": 4", "\"k\": 4, \"signed\": true", &["`signed`", "negative"]),
        (sparse, "cfg.json", "\"d_in\": 8", "\"d_in\": \"8\"", &["`d_in`", "\"8\""]),
        (learnt, "config.json", "AutoEncoderTopK", "IdentityDict", &["`trainer.dict_class`", "IdentityDict", "BatchTopKSAE"]),
        (learnt, "config.json", "\"k\": 4", "\"k\": 5", &["`trainer.k`", "4, as ae.pt has it"]),
        (llama, "config.json", "\"act_fn\": \"topk\"", "\"act_fn\": \"batchtopk\"", &["`act_fn`", "other tokens"]),
        (llama, "config.json", "dataset-wise", "batch-wise", &["`norm_activation`", "other tokens"]),
        (llama, "config.json", "\"use_glu_encoder\": false", "\"use_glu_encoder\": true", &["`use_glu_encoder`"]),
        (llama, "config.json", "\"sae_type\": \"sae\"", "\"sae_type\": \"clt\"", &["`sae_type`", "\"clt\""]),
    ];
    for (path, file, from, to, parts) in cases {
        assert_refused(path, file, replaced(from, to), parts);
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let path = "dictionary_learning/top_k";
    let dir = changed(path, "config.json", replaced("\"dict_size\": 24", "\"dict_size\": 25"));
    let error = Dictionary::load(&dir.path().join("layers.5"), &Device::flex()).unwrap_err().to_string();
    assert!(
        error.contains("ae.pt: tensor `encoder.weight`: expected shape [25, 8], found [24, 8]"),
        "{error}"
    );
    // As another class, it has something too many.
    let dir = changed(path, "config.json", replaced("AutoEncoderTopK", "AutoEncoder"));
    let error = Dictionary::load(&dir.path().join("layers.5"), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("tensor `bias` is missing") && error.contains("b_dec"), "{error}");
}

#[test]
fn damaged_files_are_told() {
    for (path, file, kind) in [
        ("sparsify/layers.5", "sae.safetensors", "not a whole safetensors file"),
        ("dictionary_learning/gated", "ae.pt", "not a whole PyTorch file"),
        (
            "gemma_scope/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
            "params.npz",
            "not a whole npz file",
        ),
        (
            "gemma_scope/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_35",
            "params.npz",
            "not a whole npz file",
        ),
    ] {
        assert_refused(path, file, |bytes| bytes[..bytes.len() / 2].to_vec(), &[kind]);
        assert_refused(path, file, |_| b"not this".to_vec(), &[kind]);
    }
}

#[test]
fn a_pickle_is_never_run() {
    // `os.system("touch RAN")`, as protocol 0 spells it.
    let dir = tempfile::tempdir().unwrap();
    let ran = dir.path().join("RAN");
    let program = format!("cos\nsystem\n(Vtouch {}\ntR.", ran.display());
    let dictionary = changed("dictionary_learning/gated", "ae.pt", |_| program.clone().into_bytes());
    assert!(Dictionary::load(&dictionary.path().join("layers.5"), &Device::flex()).is_err());
    assert!(!ran.exists());
}
