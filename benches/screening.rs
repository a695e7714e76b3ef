//! Holds screened encoding against encoding in f32 on stored activations and a trained dictionary: how many latents are
//! active on how many tokens by the one and by the other.
//!
//! `cargo run --release -p monosema-benches --bin screening -- RUN/acts RUN/dictionary`

#![allow(clippy::print_stdout, reason = "the figures are the result")]

use std::{error::Error, path::PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use monosema_kernels::{Form, Hints, Parameters, Path, Precision, Settings, State, screens, step};
use monosema_sae::Dictionary;
use monosema_store::Store;

#[derive(Parser)]
struct Args {
    /// A directory of activations.
    acts: PathBuf,
    /// A dictionary of one of its hooks.
    dictionary: PathBuf,
    /// Tokens a step.
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
    let form = dictionary.sae().config().form().ok_or("the fused step does not know this architecture")?;
    let parameters = dictionary.sae().affine().to_parameters();
    let (mut tokens, mut active, mut differ) = (0, 0.0, 0.0);
    for batch in store.sequential(dictionary.metadata().hook, args.batch) {
        let batch = batch?;
        let x = Tensor::from_data(TensorData::new(batch.x, [batch.n, batch.width]), &Device::flex());
        let [f32, auto] = [Precision::F32, Precision::Auto]
            .map(|precision| fired(parameters.clone(), x.clone(), form, precision));
        tokens += batch.n;
        active += f32.iter().sum::<f64>();
        differ += f32.iter().zip(&auto).map(|(a, b)| (a - b).abs()).sum::<f64>();
    }
    println!("{tokens} tokens, {active} active latents in f32, {differ} of them otherwise when screened");
    Ok(())
}

/// On how many tokens each latent is active.
fn fired(parameters: Parameters, x: Tensor<2>, form: Form, precision: Precision) -> Vec<f64> {
    let zeros = || Parameters {
        w_enc: parameters.w_enc.zeros_like(),
        w_dec: parameters.w_dec.zeros_like(),
        b_enc: parameters.b_enc.zeros_like(),
        b_dec: parameters.b_dec.zeros_like(),
    };
    let state = State { gradients: zeros(), first: zeros(), second: zeros(), parameters: parameters.clone() };
    let settings = Settings {
        l1: 0.0,
        lr: 0.0,
        betas: [0.9, 0.999],
        eps: 1e-8,
        grad_clip: 1.0,
        time: 1,
        precision,
        path: Some(Path::Sparse),
        // So few that screening is worth it.
        hints: Hints { share: 0.0, floor: 0.0 },
    };
    let (_, found) = step(state, x, form, settings);
    found.fired.into_data().iter::<f64>().collect()
}
