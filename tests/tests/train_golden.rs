//! Losses, gradients and parameters of training steps are those of PyTorch, SAELens, dictionary_learning and sparsify, for every
//! architecture, by autodiff and by the fused step. `fixtures/README.md` says what each file is, and the `export.py` beside it made
//! it.
#![allow(clippy::unwrap_used)]
#![allow(deprecated, reason = "burn-ndarray is on its way out upstream; here it is the second opinion")]

use std::{collections::HashMap, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_kernels::{self as kernels, Examples, Last, Memory, Precision, Settings, State};
use monosema_sae::{
    AuxK, Now, Output, Sae, SaeConfig, Size, Weights,
    architecture::{
        batch_top_k::BatchTopKConfig,
        gated::GatedConfig,
        jump_relu::{JumpReluConfig, Penalty},
        matryoshka::MatryoshkaConfig,
        p_anneal::PAnnealConfig,
        relu::ReluConfig,
        top_k::TopKConfig,
    },
};
use monosema_store::HookColumn;
use monosema_trainer::{
    Betas, DecoderNorm, GradClip, Optimizer, Rates, StoreFacts, TrainBatch, TrainConfig, TrainPlan, Width,
    step::{AutodiffStep, FusedStep, TrainStep},
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// The reference is float64; a gradient here is a float32 sum over 16 tokens and up to 61 latents.
const GRADIENT_TOLERANCE: f32 = 3e-6;
/// Ten steps of 2e-3 move a weight by at most 0.02, and Adam divides by gradients that are near 0 at times.
///
/// Its ε is 1e-8, PyTorch's, in the exporters and in the recipes. With 1e-5, which is burn's own default, the steps of
/// weights with small gradients are shorter: `W_dec` is then 7e-6 away, and the test fails.
const WEIGHT_TOLERANCE: f32 = 3e-6;

const PATHS: [kernels::Path; 2] = [kernels::Path::Dense, kernels::Path::Sparse];
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Auto];

/// The files, each with the kind of its architecture.
const FILES: [(&str, &str); 28] = [
    ("train_step/golden", "relu"),
    ("train_step_relu/plain", "relu"),
    ("train_step_relu/b_dec", "relu"),
    ("train_step_relu_unit/golden", "relu"),
    ("train_step_top_k/plain", "top_k"),
    ("train_step_top_k/b_dec", "top_k"),
    ("train_step_top_k_aux/golden", "top_k"),
    ("train_step_batch_top_k/golden", "batch_top_k"),
    ("train_step_batch_top_k/in_parts", "batch_top_k"),
    ("train_step_matryoshka/plain", "matryoshka"),
    ("train_step_matryoshka/aux", "matryoshka"),
    ("train_step_jump_relu/step", "jump_relu"),
    ("train_step_jump_relu/step_ste", "jump_relu"),
    ("train_step_jump_relu/log", "jump_relu"),
    ("train_step_jump_relu/tanh", "jump_relu"),
    ("train_step_jump_relu/target", "jump_relu"),
    ("train_step_gated/golden", "gated"),
    ("train_step_p_anneal/golden", "p_anneal"),
    ("train_step_transcoder/transcoder", "relu"),
    ("train_step_transcoder/skip", "relu"),
    ("train_step_transcoder/skip_top_k", "top_k"),
    ("train_step_transcoder/gated", "gated"),
    ("train_step_transcoder/batch_top_k", "batch_top_k"),
    ("train_step_transcoder/matryoshka", "matryoshka"),
    ("train_step_transcoder/jump_relu", "jump_relu"),
    ("train_step_transcoder/p_anneal", "p_anneal"),
    ("train_step_optimisers/adamw", "relu"),
    ("train_step_optimisers/signum", "relu"),
];

/// A training, and what its reference made of it.
struct Case {
    file: &'static str,
    kind: &'static str,
    settings: Value,
    /// Shapes and values by name.
    golden: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

fn cases() -> Vec<Case> {
    FILES.iter().map(|(file, kind)| Case::read(file, kind)).collect()
}

/// Those whose batches are taken as a whole.
fn whole() -> impl Iterator<Item = Case> {
    cases().into_iter().filter(|case| case.micro_batch().is_none())
}

impl Case {
    fn read(file: &'static str, kind: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/{file}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let values =
            |data: &[u8]| data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let golden = tensors
            .iter()
            .map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), values(view.data()))))
            .collect();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().and_then(|metadata| metadata.get("settings"));
        let settings = match (metadata, file) {
            (Some(settings), _) => serde_json::from_str(settings).unwrap(),
            // These have none: what their exporters say.
            (None, "train_step/golden") => json!({
                "lr": 2e-3, "betas": [0.9, 0.999], "eps": 1e-8, "grad_clip": 20.0, "l1": 0.7,
                "unit_decoder": false, "apply_b_dec_to_input": false,
            }),
            (None, _) => json!({
                "lr": 2e-3, "betas": [0.9, 0.999], "eps": 1e-8, "grad_clip": 11.0, "l1": 0.0, "k": 3,
                "unit_decoder": true, "apply_b_dec_to_input": file.ends_with("b_dec"),
            }),
        };
        Self { file, kind, settings, golden }
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.settings.get(key)?.as_f64()
    }

    fn is_set(&self, key: &str) -> bool {
        self.settings.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Tokens of the parts in which the reference takes its batches, if it does.
    fn micro_batch(&self) -> Option<usize> {
        self.number("micro_batch_tokens").map(|tokens| tokens as usize)
    }

    /// Whether the loss is a mean over tokens: then gradients of parts add up to those of the whole. What chooses in batches, a
    /// squared distance from a target and AuxK's relative error are not.
    fn adds_up(&self) -> bool {
        let of_batch = matches!(self.kind, "batch_top_k" | "matryoshka");
        !of_batch && self.number("target_l0").is_none() && self.number("aux_coefficient").is_none()
    }

    /// Every way in which our configuration can say it. SAELens's rescaling makes no difference while decoder rows have norm 1.
    fn architectures(&self) -> Vec<SaeConfig> {
        let apply_b_dec_to_input = self.is_set("apply_b_dec_to_input");
        let k = || (self.number("k").unwrap() as usize).try_into().unwrap();
        let aux = match self.number("aux_coefficient") {
            Some(coefficient) => AuxK { coefficient, k: self.number("k_aux").map(|k| k as usize) },
            None => AuxK::OFF,
        };
        vec![match self.kind {
            "relu" => SaeConfig::Relu(ReluConfig { apply_b_dec_to_input }),
            "gated" => SaeConfig::Gated(GatedConfig { apply_b_dec_to_input }),
            "p_anneal" => {
                SaeConfig::PAnneal(PAnnealConfig { apply_b_dec_to_input, ..PAnnealConfig::default() })
            }
            "top_k" => {
                let config = |rescale_acts_by_decoder_norm| {
                    SaeConfig::TopK(TopKConfig {
                        k: k(),
                        apply_b_dec_to_input,
                        rescale_acts_by_decoder_norm,
                        aux,
                    })
                };
                let both = self.is_set("unit_decoder") && aux == AuxK::OFF;
                return if both { vec![config(false), config(true)] } else { vec![config(false)] };
            }
            "batch_top_k" => SaeConfig::BatchTopK(BatchTopKConfig { k: k(), apply_b_dec_to_input, aux }),
            "matryoshka" => {
                let widths: Vec<f64> = serde_json::from_value(self.settings["prefixes"].clone()).unwrap();
                let (all, inner) = widths.split_last().unwrap();
                let prefixes = inner.iter().map(|width| width / all).collect();
                SaeConfig::Matryoshka(MatryoshkaConfig { k: k(), prefixes, apply_b_dec_to_input, aux })
            }
            _ => SaeConfig::JumpRelu(JumpReluConfig {
                apply_b_dec_to_input,
                penalty: match (self.number("target_l0"), self.number("jumprelu_tanh_scale")) {
                    (Some(target), _) => Penalty::TargetL0(target),
                    (None, Some(scale)) => Penalty::Tanh(scale),
                    (None, None) => Penalty::L0,
                },
                bandwidth: self.number("bandwidth").unwrap(),
                log_threshold: self.is_set("log"),
                ste_to_input: self.is_set("jumprelu_ste_to_input"),
                pre_act_coefficient: self.number("pre_act_loss_coefficient").unwrap_or(0.0),
                ..JumpReluConfig::default()
            }),
        }]
    }

    /// One step's numbers of a series.
    fn at(&self, name: &str, step: usize) -> &[f32] {
        let (shape, values) = &self.golden[name];
        let each = values.len() / shape[0];
        &values[step * each..][..each]
    }

    /// What a step's loss holds besides its squared error and its penalty: the auxiliary loss, and the squared errors of all prefixes
    /// but the last. The oldest files do not tell it, for theirs hold nothing.
    fn rest(&self, step: usize) -> f32 {
        let series = |name: &str| if self.golden.contains_key(name) { self.at(name, step) } else { &[] };
        let inner = series("prefix_mse").split_last().map_or(&[][..], |(_, inner)| inner);
        series("aux").iter().chain(inner).sum()
    }

    /// Steps, tokens of each, and their width.
    fn dims(&self) -> [usize; 3] {
        self.golden["x"].0[..].try_into().unwrap()
    }

    fn size(&self) -> Size {
        let [d_sae, d_out] = self.golden["start.W_dec"].0[..].try_into().unwrap();
        let output = self.golden.contains_key("y").then(|| Output { d_out, skip: self.is_set("skip") });
        Size { output, ..Size::new(self.dims()[2], d_sae) }
    }

    /// Weights as the file has them under `prefix`; ours has W_skip the other way round.
    fn weight(&self, prefix: &str, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, values) = self.golden[&format!("{prefix}.{name}")].clone();
        match (name, &shape[..]) {
            ("W_skip", &[rows, columns]) => {
                let turned = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
                (vec![columns, rows], turned)
            }
            _ => (shape, values),
        }
    }

    fn start(&self, architecture: &SaeConfig, device: &Device) -> Sae {
        let mut weights = Weights::default();
        for (name, expected) in architecture.shapes(self.size()) {
            let (shape, values) = self.weight("start", name);
            assert_eq!(shape, expected, "{}, {name}", self.file);
            weights.insert_data(name, TensorData::new(values, shape));
        }
        Sae::from_weights(architecture, self.size(), weights, device)
    }

    fn batch(&self, step: usize, device: &Device) -> TrainBatch {
        let tensor = |name: &str| {
            let shape = &self.golden[name].0;
            let data = TensorData::new(self.at(name, step).to_vec(), [shape[1], shape[2]]);
            Tensor::<2>::from_data(data, device)
        };
        let y = self.golden.contains_key("y").then(|| tensor("y"));
        TrainBatch { x: tensor("x"), y, variance: 1.0 }
    }

    fn dead(&self, step: usize, device: &Device) -> Option<Tensor<1>> {
        let there = self.golden.contains_key("dead");
        there.then(|| Tensor::from_data(self.at("dead", step), device))
    }

    fn rates(&self, step: usize) -> Rates {
        let lr = self.number("lr").unwrap();
        if self.kind != "p_anneal" {
            return Rates::new(lr, self.number("l1").unwrap());
        }
        let [p, sparsity] = ["p", "coefficient"].map(|name| f64::from(self.at(name, step)[0]));
        Rates { p, ..Rates::new(lr, sparsity) }
    }

    fn plan(&self, architecture: &SaeConfig, precision: Precision) -> TrainPlan {
        let ([steps, n, width], size) = (self.dims(), self.size());
        let hook = |layer| HookPoint::block(layer, BlockHook::ResidPost);
        let hooks =
            vec![HookColumn { hook: hook(0), width }, HookColumn { hook: hook(1), width: size.d_out() }];
        let decoder = if self.is_set("unit_decoder") { DecoderNorm::Unit } else { DecoderNorm::Free };
        let config = TrainConfig {
            architecture: Some(architecture.clone()),
            hook: Some(hook(0)),
            hook_out: size.output.map(|_| hook(1)),
            skip: size.skips(),
            width: Width::Latents(size.d_sae),
            batch_tokens: Some(n),
            adam_betas: Some(Betas(serde_json::from_value(self.settings["betas"].clone()).unwrap())),
            adam_eps: self.number("eps"),
            optimizer: Some(
                self.settings
                    .get("optimizer")
                    .map_or(Optimizer::Adam, |name| serde_json::from_value(name.clone()).unwrap()),
            ),
            weight_decay: self.number("weight_decay").or(Some(0.0)),
            grad_clip: Some(self.number("grad_clip").map_or(GradClip::None, GradClip::Norm)),
            decoder: Some(decoder),
            ema_decay: self.number("ema_decay").or(Some(0.0)),
            micro_batch_tokens: self.micro_batch(),
            precision,
            ..TrainConfig::default()
        };
        TrainPlan::resolve(
            &config,
            &StoreFacts { hooks, tokens: (n * steps) as u64, ..StoreFacts::default() },
            Seed(0),
        )
        .unwrap()
    }

    /// Trains for all steps: every step's numbers, and the weights after the first and the last.
    #[track_caller]
    fn check(&self, what: &str, mut step: Box<dyn TrainStep>, device: &Device) {
        let steps = self.dims()[0];
        for index in 0..steps {
            let stats = step.step(&self.batch(index, device), self.rates(index), self.dead(index, device));
            let mut found = vec![
                ("loss", values(stats.loss)),
                ("mse", values(stats.squared_error)),
                ("grad_norm", values(stats.grad_norm)),
                ("fired", values(stats.fired)),
            ];
            let rest = stats.rest.map_or_else(|| vec![0.0], values);
            assert_close(
                &format!("{what}, step {index}, rest"),
                &rest,
                &[self.rest(index)],
                GRADIENT_TOLERANCE,
            );
            // Of TopK's the exporter tells Σ f ‖W_dec‖, which is not in the loss.
            if self.golden.contains_key("penalty") {
                found.push(("penalty", values(stats.penalty)));
            } else if self.kind == "relu" {
                found.push(("l1", values(stats.penalty)));
            }
            // Where fewer are positive than may be kept, the reference tells the smallest of those; ours is 0, for none was refused.
            let kept = self.at("fired", index).iter().sum::<f32>();
            let full = self.number("k").is_some_and(|k| f64::from(kept) == k * self.dims()[1] as f64);
            if let Some(smallest) = stats.smallest.filter(|_| full && self.golden.contains_key("smallest")) {
                found.push(("smallest", values(smallest)));
            }
            for (name, found) in found {
                let what = format!("{what}, step {index}, {name}");
                assert_close(&what, &found, self.at(name, index), GRADIENT_TOLERANCE);
            }
            if index == 0 || index == steps - 1 {
                self.check_weights(what, &format!("after{}", index + 1), &step.sae());
                if self.number("ema_decay").is_some() {
                    self.check_weights(what, &format!("average{}", index + 1), &step.averaged());
                }
            }
        }
    }

    #[track_caller]
    fn check_weights(&self, what: &str, prefix: &str, sae: &Sae) {
        for (name, found) in sae.to_weights().iter() {
            let (found, expected) = (found.as_slice().unwrap(), self.weight(prefix, name).1);
            assert_close(&format!("{what}, {prefix}.{name}"), found, &expected, WEIGHT_TOLERANCE);
        }
    }
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(
        worst <= tolerance * largest.max(1.0),
        "{what}: differs by {worst}, the largest value is {largest}"
    );
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

fn devices() -> [Device; 2] {
    [Device::flex(), Device::ndarray()]
}

/// A module whose parameters are the gradients of another's, so that they have names.
struct Gradients<'a>(&'a GradientsParams);

impl burn::module::ModuleMapper for Gradients<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let gradient = self.0.get::<D>(param.id).unwrap();
        param.map(|_| gradient)
    }
}

/// How many parameters a module has.
#[derive(Default)]
struct Count(usize);

impl ModuleVisitor for Count {
    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        self.0 += 1;
    }
}

#[test]
fn gradients_of_autodiff_are_the_references() {
    for case in whole() {
        for architecture in case.architectures() {
            for device in devices() {
                let sae = case.start(&architecture, &device.clone().autodiff());
                let TrainBatch { x, y, .. } = case.batch(0, &device);
                let x = x.autodiff();
                let y = y.map_or_else(|| x.clone(), Tensor::autodiff);
                let Rates { sparsity, p, .. } = case.rates(0);
                let dead = case.dead(0, &device).map(Tensor::autodiff);
                let loss = sae.loss(x, y, &Now { p, dead, ..Now::new(sparsity) });
                let gradients = GradientsParams::from_grads(loss.total.backward(), &sae);
                let mut count = Count::default();
                sae.visit(&mut count);
                let found = sae.map(&mut Gradients(&gradients)).to_weights();
                assert_eq!(found.iter().count(), count.0);
                for (name, found) in found.iter() {
                    let what = format!("{}, {architecture:?}, {name}", case.file);
                    let (found, expected) = (found.as_slice().unwrap(), case.weight("gradient", name).1);
                    assert_close(&what, found, &expected, GRADIENT_TOLERANCE);
                }
            }
        }
    }
}

/// Those that reach the optimiser: of decoder rows that keep their norm, without what points along them.
#[test]
fn gradients_of_the_fused_step_are_the_references() {
    let device = Device::flex();
    for case in whole() {
        for architecture in case.architectures() {
            let form = architecture.form(case.size(), case.is_set("unit_decoder")).unwrap();
            for path in PATHS {
                for precision in PRECISIONS {
                    let state = State::new(case.start(&architecture, &device).to_parameters());
                    let Rates { sparsity: l1, p, lr, .. } = case.rates(0);
                    let settings = Settings { l1, p, lr, precision, path: Some(path), ..Settings::default() };
                    // So few active latents that screening is worth it.
                    let memory = Memory::from(Last { share: 0.0, ..Last::default() });
                    let TrainBatch { x, y, .. } = case.batch(0, &device);
                    let examples = Examples { x, y, dead: case.dead(0, &device) };
                    let (State { gradients, .. }, _) =
                        kernels::step(state, examples, &form, settings, &memory);
                    let found = Sae::from_parameters(&architecture, case.size(), gradients).to_weights();
                    for (name, found) in found.iter() {
                        let projected = form.unit_decoder && name == "W_dec";
                        let expected = case.weight(if projected { "projected" } else { "gradient" }, name).1;
                        let what =
                            format!("{}, {architecture:?}, {path:?}, {precision:?}, {name}", case.file);
                        assert_close(&what, found.as_slice().unwrap(), &expected, GRADIENT_TOLERANCE);
                    }
                }
            }
        }
    }
}

#[test]
fn ten_steps_of_autodiff_are_the_references() {
    for case in cases() {
        for architecture in case.architectures() {
            for device in devices() {
                let sae = case.start(&architecture, &device.clone().autodiff());
                let step = AutodiffStep::new(sae, &case.plan(&architecture, Precision::Auto));
                case.check(&format!("{}, {architecture:?}", case.file), Box::new(step), &device);
            }
        }
    }
}

/// Of parts that leave a remainder.
#[test]
fn ten_steps_in_micro_batches_are_those_of_whole_batches() {
    let device = Device::flex();
    for case in whole().filter(Case::adds_up) {
        for architecture in case.architectures() {
            let plan = TrainPlan { micro_batch_tokens: 5, ..case.plan(&architecture, Precision::Auto) };
            let sae = case.start(&architecture, &device.clone().autodiff());
            let step = AutodiffStep::new(sae, &plan);
            case.check(&format!("{}, {architecture:?}, in parts", case.file), Box::new(step), &device);
        }
    }
}

#[test]
fn ten_fused_steps_are_the_references() {
    let device = Device::flex();
    for case in whole() {
        for architecture in case.architectures() {
            for precision in PRECISIONS {
                for path in [None, Some(PATHS[0]), Some(PATHS[1])] {
                    let plan = case.plan(&architecture, precision);
                    let sae = case.start(&architecture, &device);
                    let mut step = FusedStep::new(sae, &plan, &device).unwrap();
                    step.force(path);
                    let what = format!("{}, {architecture:?}, {precision:?}, {path:?}", case.file);
                    case.check(&what, Box::new(step), &device);
                }
            }
        }
    }
}
