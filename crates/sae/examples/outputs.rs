//! Writes what a dictionary makes of random inputs, for `scripts/check-saelens.py` to compare:
//! `cargo run --release -p monosema-sae --example outputs -- DICTIONARY OUTPUTS.safetensors`

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use monosema_core::Seed;
use monosema_sae::Dictionary;
use rand::Rng;
use safetensors::{Dtype, tensor::TensorView};

/// Rows of input.
const N: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dictionary), Some(outputs)) = (arguments.next(), arguments.next()) else {
        return Err("expected a dictionary's directory and the file to write".into());
    };
    let device = Device::flex();
    let dictionary = Dictionary::load(Path::new(&dictionary), &device)?;
    // Raw activations are 1 / scale times as large as what the dictionary was trained on.
    let size = 1.0 / dictionary.metadata().scale.unwrap_or(1.0) as f32;
    let mut rng = Seed(0).stream("outputs");
    let values = (0..N * dictionary.d_in()).map(|_| rng.random_range(-2.0 * size..2.0 * size)).collect();
    let x = Tensor::<2>::from_data(TensorData::new(values, [N, dictionary.d_in()]), &device);
    let acts = dictionary.encode(x.clone());
    let x_hat = dictionary.decode(acts.clone(), x.clone());
    let tensors =
        [("x", x), ("acts", acts), ("x_hat", x_hat)].map(|(name, tensor)| (name, tensor.into_data()));
    let views = tensors.iter().map(|(name, data)| {
        let view = TensorView::new(Dtype::F32, data.shape().to_vec(), data.as_bytes());
        (*name, view.expect("a tensor's bytes fit its shape"))
    });
    safetensors::serialize_to_file(views, None, Path::new(&outputs))?;
    Ok(())
}
