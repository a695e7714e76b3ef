//! What a step works on, and what its parts share.

use std::ops::Range;

use burn::{
    backend::{TensorMetadata, ops::FloatTensorOps},
    tensor::{DType, Shape, Slice},
};
use burn_cubecl::{
    CubeBackend, CubeDevice,
    kernel::{
        cast, into_contiguous,
        matmul::{MatmulStrategy, matmul},
    },
    ops::{
        numeric::{empty_device_contiguous_dtype, zeros},
        reshape,
    },
    tensor::CubeTensor,
};
use cubecl::client::Client;

use crate::{Form, Path, Precision, Settings, extension::Values};

pub(super) type B = CubeBackend;

/// Pre-activations that are held at a time; a step over more goes by stretches of tokens. 1 GiB.
const HELD: usize = 1 << 28;

/// What a step works on.
pub(super) struct Batch {
    pub(super) client: Client,
    pub(super) device: CubeDevice,
    /// `[n, d_in]`.
    pub(super) x: CubeTensor,
    /// What is encoded, `[n, d_in]`.
    pub(super) input: CubeTensor,
    /// The same as it is multiplied.
    pub(super) encoded: CubeTensor,
    /// The encoder as it is multiplied, `[d_in, d_sae]`.
    pub(super) w_enc: CubeTensor,
    pub(super) parameters: Values<B>,
    pub(super) form: Form,
    pub(super) settings: Settings,
    pub(super) n: usize,
    pub(super) d_in: usize,
    pub(super) d_sae: usize,
}

/// What a pass through the dictionary and back found.
pub(super) struct Found {
    pub(super) gradients: Values<B>,
    /// Σ over tokens, `[1]`.
    pub(super) squared_error: CubeTensor,
    /// Σ over tokens, `[1]`.
    pub(super) penalty: CubeTensor,
    /// Σ of the squares of each latent's gradients, `[d_sae]`.
    pub(super) squares: CubeTensor,
    /// `[d_sae]`.
    pub(super) fired: CubeTensor,
    pub(super) share: f64,
    pub(super) floor: f32,
    pub(super) most: usize,
    pub(super) path: Path,
}

impl Batch {
    /// Calls `then` with the pre-activations but for the bias, `[tokens, d_sae]`, of one stretch of tokens after the other.
    pub(super) fn for_pre_activations(&self, mut then: impl FnMut(Range<usize>, CubeTensor)) {
        for tokens in self.stretches() {
            let pre = self.product(self.rows(&self.encoded, &tokens), self.w_enc.clone());
            then(tokens, pre);
        }
    }

    /// Gradient of the decoder's bias, of the sum of errors `[1, d_in]` and the gradient of the encoder's `[d_sae]`.
    pub(super) fn of_b_dec(&self, error: CubeTensor, b_enc: &CubeTensor) -> CubeTensor {
        let (of_error, _) = self.factors();
        let mut gradient = B::float_mul_scalar(error, of_error.into());
        if self.form.apply_b_dec_to_input {
            gradient = B::float_sub(gradient, self.weighted_sum(&self.parameters.w_enc, b_enc));
        }
        reshape(into_contiguous(gradient), Shape::new([self.d_in]))
    }

    /// What a token's error and what the penalty are multiplied by in gradients.
    pub(super) fn factors(&self) -> (f32, f32) {
        let n = self.n as f64;
        ((2.0 / n) as f32, (self.settings.l1 / n) as f32)
    }

    /// Stretches of tokens whose pre-activations are held at a time.
    pub(super) fn stretches(&self) -> impl Iterator<Item = Range<usize>> {
        let tokens = (HELD / self.d_sae).max(1);
        let n = self.n;
        (0..n).step_by(tokens).map(move |first| first..(first + tokens).min(n))
    }

    /// Some rows of a matrix.
    pub(super) fn rows(&self, matrix: &CubeTensor, rows: &Range<usize>) -> CubeTensor {
        if *rows == (0..matrix.shape()[0]) {
            return matrix.clone();
        }
        let slices = [Slice::from(rows.clone()), Slice::from(0..matrix.shape()[1])];
        into_contiguous(B::float_slice(matrix.clone(), &slices))
    }

    /// A matrix as it is multiplied.
    pub(super) fn operand(&self, matrix: CubeTensor) -> CubeTensor {
        operand(matrix, self.settings.precision)
    }

    /// A matrix product in f32; in TF32 where burn finds that faster.
    pub(super) fn product(&self, left: CubeTensor, right: CubeTensor) -> CubeTensor {
        let out = self.empty([left.shape()[0], right.shape()[1]], DType::F32);
        let product = matmul(left, right, Some(out), MatmulStrategy::default(), DType::F32);
        product.expect("shapes fit together")
    }

    /// Waits for the device.
    pub(super) fn read<E: burn::tensor::Element>(&self, tensor: &CubeTensor) -> Vec<E> {
        let data = burn_cubecl::ops::into_data_sync(tensor.clone());
        data.try_to_vec().expect("it is of this type")
    }

    pub(super) fn empty<const D: usize>(&self, shape: [usize; D], dtype: DType) -> CubeTensor {
        empty_device_contiguous_dtype(self.client.clone(), self.device.clone(), Shape::new(shape), dtype)
    }

    pub(super) fn zeros<const D: usize>(&self, shape: [usize; D], dtype: DType) -> CubeTensor {
        into_contiguous(zeros(self.device.clone(), Shape::new(shape), dtype))
    }
}

/// A matrix as it is multiplied.
pub(super) fn operand(matrix: CubeTensor, precision: Precision) -> CubeTensor {
    match precision {
        Precision::Bf16 => cast(matrix, DType::BF16),
        Precision::Auto | Precision::F32 => matrix,
    }
}

/// A vector as a row.
pub(super) fn row(vector: &CubeTensor) -> CubeTensor {
    let len = vector.shape().num_elements();
    reshape(vector.clone(), Shape::new([1, len]))
}

pub(super) fn square(tensor: CubeTensor) -> CubeTensor {
    B::float_mul(tensor.clone(), tensor)
}
