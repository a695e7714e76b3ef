//! The definitions, worked out the long way: one window at a time, every sum over values held in memory.

use burn::tensor::{Int, Tensor, TensorData};
use monosema_evaluator::NamedText;
use monosema_sae::Dictionary;
use monosema_text::{Context, ContextPlan, Corpus, contexts};
use monosema_transformer::{Capture, LanguageModel, NoTap, Replace};

use crate::world::{D_MODEL, World, context, device, hook};

pub(crate) struct Reference {
    model: LanguageModel,
    pub(crate) windows: Vec<Context>,
    /// Activations at every position of every window.
    x: Vec<Vec<Vec<f32>>>,
}

/// What the model says with something spliced in: log-probabilities of each counted position that predicts.
pub(crate) struct Spliced {
    log_p: Vec<Vec<f64>>,
    targets: Vec<u32>,
}

impl Reference {
    pub(crate) fn new(world: &World, texts: &[NamedText]) -> Self {
        let checkpoint = world.checkpoint();
        let (tokenizer, model) = (checkpoint.tokenizer().unwrap(), checkpoint.load(&device()).unwrap());
        let plan = ContextPlan::new(&context(), &tokenizer).unwrap();
        let mut windows = Vec::new();
        for text in texts {
            let corpus = Corpus::open(&text.text()).unwrap();
            windows.extend(contexts(corpus.documents(), &tokenizer, &plan).map(Result::unwrap));
        }
        let x = windows.iter().map(|window| activations(&model, window)).collect();
        Self { model, windows, x }
    }

    /// Activations at the counted positions.
    pub(crate) fn counted(&self) -> Vec<Vec<f32>> {
        let pairs = self.windows.iter().zip(&self.x);
        pairs.flat_map(|(w, x)| w.counted().map(|position| x[position].clone())).collect()
    }

    pub(crate) fn mean(&self) -> Vec<f64> {
        let x = self.counted();
        (0..D_MODEL).map(|d| x.iter().map(|x| f64::from(x[d])).sum::<f64>() / x.len() as f64).collect()
    }

    /// Runs every window with `f(x)` in place of x at the counted positions.
    pub(crate) fn splice(&self, f: impl Fn(&[f32]) -> Vec<f32>) -> Spliced {
        let mut spliced = Spliced { log_p: Vec::new(), targets: Vec::new() };
        for (window, x) in self.windows.iter().zip(&self.x) {
            let replaced: Vec<f32> = x
                .iter()
                .enumerate()
                .flat_map(|(position, x)| if window.counts(position) { f(x) } else { x.clone() })
                .collect();
            let value =
                Tensor::<3>::from_data(TensorData::new(replaced, [1, window.len(), D_MODEL]), &device());
            let hidden = self.model.forward(ids(window), &mut Replace::new(hook(), |_| value.clone()));
            spliced.add(window, &self.model, hidden);
        }
        spliced
    }

    /// Runs every window as it is.
    pub(crate) fn clean(&self) -> Spliced {
        let mut clean = Spliced { log_p: Vec::new(), targets: Vec::new() };
        for window in &self.windows {
            clean.add(window, &self.model, self.model.forward(ids(window), &mut NoTap));
        }
        clean
    }
}

impl Spliced {
    fn add(&mut self, window: &Context, model: &LanguageModel, hidden: Tensor<3>) {
        let logits = model.unembed(hidden).try_into_vec_as::<f32>().unwrap();
        let d_vocab = model.info().d_vocab;
        for t in 0..window.len() - 1 {
            if window.counts(t) {
                let row = &logits[t * d_vocab..(t + 1) * d_vocab];
                let total: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
                self.log_p.push(row.iter().map(|&l| f64::from(l) - total.ln()).collect());
                self.targets.push(window.tokens[t + 1]);
            }
        }
    }

    pub(crate) fn ce(&self) -> f64 {
        let losses = self.log_p.iter().zip(&self.targets).map(|(log_p, &target)| -log_p[target as usize]);
        losses.sum::<f64>() / self.targets.len() as f64
    }

    /// KL(self ‖ other).
    pub(crate) fn kl(&self, other: &Self) -> f64 {
        let one = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.log_p.iter().zip(&other.log_p).map(|(p, q)| one(p, q)).sum::<f64>() / self.log_p.len() as f64
    }

    /// How often both have the same first choice.
    pub(crate) fn top1(&self, other: &Self) -> f64 {
        let first = |p: &[f64]| (0..p.len()).rev().max_by(|&a, &b| p[a].total_cmp(&p[b]));
        let both = self.log_p.iter().zip(&other.log_p);
        both.filter(|(p, q)| first(p) == first(q)).count() as f64 / self.log_p.len() as f64
    }

    pub(crate) fn predictions(&self) -> usize {
        self.targets.len()
    }
}

fn ids(window: &Context) -> Tensor<2, Int> {
    let ids: Vec<i32> = window.tokens.iter().map(|&t| i32::try_from(t).unwrap()).collect();
    Tensor::from_data(TensorData::new(ids, [1, window.len()]), &device())
}

fn activations(model: &LanguageModel, window: &Context) -> Vec<Vec<f32>> {
    let mut capture = Capture::new([hook()]);
    model.run(ids(window), &mut capture);
    let values = capture.take(hook()).unwrap().try_into_vec_as::<f32>().unwrap();
    values.chunks(D_MODEL).map(<[f32]>::to_vec).collect()
}

/// Latents and reconstruction of one token.
pub(crate) fn reconstruct(dictionary: &Dictionary, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let x = Tensor::from_data(TensorData::new(x.to_vec(), [1, D_MODEL]), &device());
    let acts = dictionary.encode(x.clone());
    let x_hat = dictionary.decode(acts.clone(), x).try_into_vec_as().unwrap();
    (acts.try_into_vec_as().unwrap(), x_hat)
}
