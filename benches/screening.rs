//! Holds screened encoding against encoding in f32 on stored activations and a trained dictionary: which latents are
//! active by the one and not by the other, and how far their pre-activations are from the threshold. What is within
//! rounding of it may be active or not: the two add up in different orders.
//!
//! `cargo run --release -p monosema-benches --bin screening -- RUN/acts RUN/dictionary`

#![allow(clippy::print_stdout, reason = "the figures are the result")]

use std::{error::Error, path::PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use monosema_kernels::{
    Activation, Form, Last, Memory, Parameters, Path, Precision, Settings, State, screens, step,
};
use monosema_sae::Dictionary;
use monosema_store::Store;

#[derive(Parser)]
struct Args {
    /// A directory of activations.
    acts: PathBuf,
    /// A dictionary of one of its hooks.
    dictionary: PathBuf,
    /// Tokens a step. Activity is counted over these; where the counts differ, the tokens are searched for.
    #[arg(long, default_value = "4096")]
    batch: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    monosema_allocator::keep_pages();
    let args = Args::parse();
    if !screens() {
        return Err("this processor has no instructions for bf16: there is nothing to compare".into());
    }
    let store = Store::open(&args.acts)?;
    let dictionary = Dictionary::load(&args.dictionary, &Device::flex())?;
    let form = dictionary
        .sae()
        .config()
        .form(dictionary.size(), false)
        .ok_or("the fused step does not know this architecture")?;
    let encoder = Encoder { form, parameters: dictionary.sae().to_parameters() };
    let exact = Exact::new(&encoder)?;
    let (mut tokens, mut active, mut differ, mut furthest) = (0, 0.0, 0_u64, 0.0_f64);
    for batch in store.sequential(dictionary.metadata().hook, args.batch) {
        let batch = batch?;
        let [f32, auto] = encoder.fired(&batch.x);
        active += f32.iter().sum::<f64>();
        if f32 != auto {
            for difference in encoder.differences(&batch.x, 0) {
                let x = &batch.x[difference.token * batch.width..][..batch.width];
                let distance = exact.distance(x, difference.latent);
                let by = if difference.in_f32 { "in f32" } else { "when screened" };
                println!(
                    "token {}, latent {}: active only {by}, {distance:+.2} units from the threshold",
                    tokens + difference.token,
                    difference.latent,
                );
                differ += 1;
                furthest = furthest.max(distance.abs());
            }
        }
        tokens += batch.n;
    }
    println!("{tokens} tokens, {active} active latents in f32, {differ} of them otherwise when screened");
    println!("those are {furthest:.2} units from the threshold or less; a unit is 2^-24 ‖x‖‖w‖");
    Ok(())
}

/// A latent that is active on a token by one way of encoding alone.
struct Difference {
    token: usize,
    latent: usize,
    in_f32: bool,
}

/// A dictionary whose encoding is looked at.
struct Encoder {
    form: Form,
    parameters: Parameters,
}

impl Encoder {
    /// On how many tokens of `x [n, d_in]` each latent is active, in f32 and when screened.
    fn fired(&self, x: &[f32]) -> [Vec<f64>; 2] {
        [Precision::F32, Precision::Auto].map(|precision| self.fired_in(x, precision))
    }

    /// Where the two differ, by halves; `first` is the number of the first token. (A token that gains a latent hides another
    /// one that loses the same.)
    fn differences(&self, x: &[f32], first: usize) -> Vec<Difference> {
        let [f32, auto] = self.fired(x);
        let n = x.len() / self.parameters.b_dec.dims()[0];
        if n > 1 && f32 != auto {
            let (left, right) = x.split_at(n / 2 * (x.len() / n));
            let mut found = self.differences(left, first);
            found.extend(self.differences(right, first + n / 2));
            return found;
        }
        let each = f32.iter().zip(&auto).enumerate().filter(|(_, (f32, auto))| f32 != auto);
        each.map(|(latent, (f32, auto))| Difference { token: first, latent, in_f32: f32 > auto }).collect()
    }

    fn fired_in(&self, x: &[f32], precision: Precision) -> Vec<f64> {
        let state = State::new(self.parameters.clone());
        let d_in = self.parameters.b_dec.dims()[0];
        let x = TensorData::new(x.to_vec(), [x.len() / d_in, d_in]);
        let settings = Settings { precision, path: Some(Path::Sparse), ..Settings::default() };
        // So few that screening is worth it.
        let memory = Memory::from(Last { share: 0.0, ..Last::default() });
        let (_, found) = step(state, Tensor::from_data(x, &Device::flex()), &self.form, settings, &memory);
        found.fired.into_data().iter::<f64>().collect()
    }
}

/// The same dictionary in f64.
struct Exact {
    k: usize,
    /// `[d_sae, d_in]`.
    w_enc: Vec<f64>,
    b_enc: Vec<f64>,
    /// What is subtracted from the input, `[d_in]`.
    shift: Vec<f64>,
}

impl Exact {
    fn new(encoder: &Encoder) -> Result<Self, Box<dyn Error>> {
        let Parameters { w_enc, b_enc, b_dec, .. } = &encoder.parameters;
        let k = match encoder.form.activation {
            Activation::Relu => b_enc.dims()[0],
            Activation::TopK { k } => k,
            other => return Err(format!("{other:?} has other thresholds than this looks at").into()),
        };
        let subtracted = if encoder.form.apply_b_dec_to_input { 1.0 } else { 0.0 };
        Ok(Self {
            k,
            w_enc: w_enc.to_data().iter().collect(),
            b_enc: b_enc.to_data().iter().collect(),
            shift: b_dec.to_data().iter::<f64>().map(|b| subtracted * b).collect(),
        })
    }

    /// How far the pre-activation of `latent` on `x` is above (or below) the nearest value at which it would not (or would) be
    /// active, in units of 2⁻²⁴‖x‖‖w‖.
    fn distance(&self, x: &[f32], latent: usize) -> f64 {
        let x: Vec<f64> = x.iter().zip(&self.shift).map(|(x, shift)| f64::from(*x) - shift).collect();
        let row = |i: usize| &self.w_enc[i * x.len()..][..x.len()];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let pre_act = |i: usize| dot(&x, row(i)) + self.b_enc[i];
        // Of the others, the k-th largest: what a latent has to exceed.
        let mut threshold = 0.0;
        if self.k < self.b_enc.len() {
            let others = (0..self.b_enc.len()).filter(|i| *i != latent);
            let mut others: Vec<f64> = others.map(pre_act).collect();
            let (_, kth, _) = others.select_nth_unstable_by(self.k - 1, |a, b| b.total_cmp(a));
            threshold = kth.max(0.0);
        }
        let norms = (dot(&x, &x) * dot(row(latent), row(latent))).sqrt();
        (pre_act(latent) - threshold) / (norms * 0.5_f64.powi(24))
    }
}
