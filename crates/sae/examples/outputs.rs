//! Writes what a dictionary makes of inputs, for `scripts/conformance.sh` to compare:
//! `cargo run --release -p monosema-sae --example outputs -- DICTIONARY INPUTS.safetensors OUTPUTS.safetensors`
//!
//! INPUTS has `x [n, d_in]` in f32; OUTPUTS gets `acts [n, d_sae]` and `x_hat [n, d_out]`.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use monosema_sae::Dictionary;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dictionary, inputs, outputs] = arguments.as_slice() else {
        return Err("expected a dictionary's directory, the file of inputs and the file to write".into());
    };
    let device = Device::flex();
    let dictionary = Dictionary::load(Path::new(dictionary), &device)?;
    let x = inputs_of(Path::new(inputs), dictionary.d_in(), &device)?;
    let acts = dictionary.encode(x.clone());
    let x_hat = dictionary.decode(acts.clone(), x);
    let tensors = [("acts", acts), ("x_hat", x_hat)].map(|(name, tensor)| (name, tensor.into_data()));
    let views = tensors.iter().map(|(name, data)| {
        let view = TensorView::new(Dtype::F32, data.shape().to_vec(), data.as_bytes());
        (*name, view.expect("a tensor's bytes fit its shape"))
    });
    safetensors::serialize_to_file(views, None, Path::new(outputs))?;
    Ok(())
}

/// `x [n, d_in]` of a file.
fn inputs_of(file: &Path, d_in: usize, device: &Device) -> Result<Tensor<2>, Box<dyn std::error::Error>> {
    let bytes = std::fs::read(file)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let x = tensors.tensor("x")?;
    let (dtype, shape) = (x.dtype(), x.shape());
    if dtype != Dtype::F32 || shape.len() != 2 || shape[1] != d_in {
        let file = file.display();
        return Err(format!("{file}: x: expected f32 [n, {d_in}], found {dtype:?} {shape:?}").into());
    }
    let values: Vec<f32> =
        x.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(Tensor::from_data(TensorData::new(values, shape.to_vec()), device))
}
