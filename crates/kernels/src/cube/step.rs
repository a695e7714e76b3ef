//! One step from front to back, as kernels that are launched one after the other.
//!
//! The host waits for the device to learn how many latents are active: how much room their lists need, and which path is faster.
//! For TopK on the sparse path it need not. No sum depends on the order in which cubes happen to run.

use burn::backend::{TensorMetadata, ops::FloatTensorOps};
use burn_cubecl::{CubeDevice, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::features::Plane;

use super::{
    batch::{B, Batch, Found, operand, row, square},
    lists::Counted,
    select,
    units::{SMALLEST_PLANE, UNITS},
};
use crate::{
    Activation, Form, Last, Memory, Optimiser, Path, Penalty, Settings,
    extension::{StateOf, Stepped, Values},
};

/// From this share of active latents on, products over all of them are faster. An estimate for tensor cores, not measured:
/// an active latent costs four passes over rows of memory, one of all 8·d_in multiplications and additions.
const DENSE: f64 = 0.005;

/// Whether a device has the instructions that the kernels need, and they have room for what is to be selected.
pub(crate) fn supports(device: &CubeDevice, form: &Form, settings: &Settings) -> bool {
    let plain = Form {
        apply_b_dec_to_input: form.apply_b_dec_to_input,
        unit_decoder: form.unit_decoder,
        ..Form::new(form.activation, form.penalty)
    };
    let adam = settings.optimiser == Optimiser::Adam && settings.weight_decay == 0.0;
    if *form != plain
        || !matches!(form.penalty, Penalty::None | Penalty::L1)
        || !adam
        || settings.grad_clip.is_infinite()
    {
        return false;
    }
    let client = device.client();
    let fits = match form.activation {
        Activation::TopK { k } => k <= select::MOST,
        Activation::Relu | Activation::BatchTopK { .. } => true,
        Activation::JumpRelu { .. } | Activation::Gated => false,
    };
    let hardware = &client.properties().hardware;
    let room = form.activation == Activation::Relu || hardware.max_shared_memory_size >= select::SHARED;
    // CubeCL denies planes to Vulkan in software, which has them, of one size: a device without is said to have all sizes.
    let one_size = hardware.plane_size_min == hardware.plane_size_max;
    let planes = client.features().plane.contains(Plane::Ops) || one_size;
    let units = hardware.max_units_per_cube >= UNITS && hardware.plane_size_min >= SMALLEST_PLANE;
    fits && room && planes && units
}

/// Takes a step on `x [n, d_in]`.
pub(crate) fn step(
    state: StateOf<B>,
    x: CubeTensor,
    averages: bool,
    form: Form,
    settings: Settings,
    memory: &Memory,
) -> Stepped<B> {
    let x = into_contiguous(x);
    let parameters = writable(state.parameters);
    let dims = [&x, &parameters.w_dec].map(|tensor| tensor.shape());
    let (n, d_in, d_sae) = (dims[0][0], dims[0][1], dims[1][0]);
    let input = match form.apply_b_dec_to_input {
        true => into_contiguous(B::float_sub(x.clone(), row(&parameters.b_dec))),
        false => x.clone(),
    };
    let batch = Batch {
        client: x.client.clone(),
        device: x.device.clone(),
        w_enc: B::float_transpose(operand(parameters.w_enc.clone(), settings.precision)),
        encoded: operand(input.clone(), settings.precision),
        input,
        x,
        parameters,
        form,
        settings,
        n,
        d_in,
        d_sae,
    };
    // Its memory is where this step's go.
    drop(state.gradients);
    let batch_form = batch.form.clone();
    let found = batch.pass(&memory.last());
    let Found { gradients, squared_error, penalty, squares, fired, share, floor, most, path } = found;

    let square = B::float_add(B::float_sum(squares), B::float_sum(square(gradients.b_dec.clone())));
    let grad_norm = B::float_sqrt(square);
    let average = averages.then_some(state.average);
    let moments = [writable(state.first), writable(state.second)];
    let state = batch.adam(gradients, moments, average, &grad_norm);
    let per_token = |sum| B::float_mul_scalar(sum, (1.0 / n as f64).into());
    let (squared_error, penalty) = (per_token(squared_error), per_token(penalty));
    let aux = B::float_mul_scalar(penalty.clone(), 0.0.into());
    let penalty = if batch_form.penalty == Penalty::None { aux.clone() } else { penalty };
    let numbers = vec![squared_error.clone(), squared_error, penalty, aux, grad_norm];
    let numbers = B::float_cat(numbers, 0);
    memory.keep(Last { share, floor, most, path: Some(path), ..Last::default() });
    Stepped { state, numbers, fired }
}

impl Batch {
    fn pass(&self, last: &Last) -> Found {
        let path = |share| match self.settings.path {
            Some(path) => path,
            None if share >= DENSE => Path::Dense,
            None => Path::Sparse,
        };
        let share = |all| all as f64 / (self.n * self.d_sae) as f64;
        let (lists, counted, floor) = match self.form.activation {
            Activation::Relu => {
                if path(last.share) == Path::Dense {
                    return self.dense(None);
                }
                let (lists, counted) = self.above_known(0.0, last.most, |counted| path(share(counted.all)));
                match lists {
                    Some(lists) => (lists, counted, 0.0),
                    None => return self.dense(None),
                }
            }
            Activation::TopK { k } => {
                let k = k.min(self.d_sae);
                (self.top_k(k), Counted { all: self.n * k, most: k }, 0.0)
            }
            Activation::BatchTopK { k } => self.largest_of_batch(k.saturating_mul(self.n), k, last),
            Activation::JumpRelu { .. } | Activation::Gated => unreachable!("it is not supported"),
        };
        let share = share(counted.all);
        let found = match path(share) {
            Path::Dense => self.dense(Some(&lists)),
            Path::Sparse => self.sparse(&lists, counted),
        };
        // Rare tokens with many active latents are remembered for a while: a list that is too short costs a second encoding.
        let most = counted.most.max(last.most - last.most / 8);
        Found { share, floor, most, ..found }
    }
}

/// Tensors that a kernel may write to: copies of those that somebody else holds too, or whose numbers do not lie in order.
fn writable(values: Values<B>) -> Values<B> {
    let Values { w_enc, w_dec, b_enc, b_dec, extras } = values;
    let [w_enc, w_dec, b_enc, b_dec] = [w_enc, w_dec, b_enc, b_dec].map(|tensor| {
        let tensor = into_contiguous(tensor);
        if tensor.can_mut() { tensor } else { into_contiguous(tensor.copy()) }
    });
    Values { w_enc, w_dec, b_enc, b_dec, extras }
}
