//! The step as an operation of burn's backends.

use burn::{
    backend::{
        Backend, Dispatch, ExtensionType, Flex, TensorMetadata, backend_extension, flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::{Device, Tensor, TensorData},
};

use crate::{Activation, Form, Found, Hints, Parameters, Path, Phases, Settings, State, cpu};

/// Whether a step can be taken on `device`.
pub fn supports(device: &Device) -> bool {
    *device == Device::flex()
}

/// Takes a step on `x [n, d_in]`: the new state, and what was found on the way. All tensors are f32 on one device without
/// autodiff. Where nothing else holds the state's tensors, it is changed in place.
///
/// # Panics
/// If shapes do not fit together, if there is no token, no latent, or a `k` of 0, or on a device that is not [supported](supports).
pub fn step(state: State, x: Tensor<2>, form: Form, settings: Settings) -> (State, Found) {
    let [d_sae, d_in] = state.parameters.w_enc.dims();
    for values in [&state.parameters, &state.gradients, &state.first, &state.second] {
        let Parameters { w_enc, w_dec, b_enc, b_dec } = values;
        let shapes = (w_enc.dims(), w_dec.dims(), b_enc.dims(), b_dec.dims());
        assert_eq!(shapes, ([d_sae, d_in], [d_sae, d_in], [d_sae], [d_in]), "the state has one size");
    }
    assert_eq!(x.dims()[1], d_in, "tokens are as wide as the dictionary");
    let k = match form.activation {
        Activation::Relu => 1,
        Activation::TopK { k } | Activation::BatchTopK { k } => k,
    };
    assert!(x.dims()[0] * d_in * d_sae * k > 0, "there is something to compute");
    let Stepped { state, numbers, fired, hints, path, phases } =
        Dispatch::sae_step(state.into(), x.into_dispatch(), form, settings);
    let found = Found {
        numbers: Tensor::from_dispatch(numbers),
        fired: Tensor::from_dispatch(fired),
        hints,
        path,
        phases,
    };
    (state.into(), found)
}

/// [`Parameters`] of a backend.
#[derive(ExtensionType)]
pub struct Values<B: Backend> {
    w_enc: FloatTensor<B>,
    w_dec: FloatTensor<B>,
    b_enc: FloatTensor<B>,
    b_dec: FloatTensor<B>,
}

/// [`State`] of a backend.
#[derive(ExtensionType)]
pub struct StateOf<B: Backend> {
    #[extension_type]
    parameters: Values<B>,
    #[extension_type]
    gradients: Values<B>,
    #[extension_type]
    first: Values<B>,
    #[extension_type]
    second: Values<B>,
}

/// The new state, and [`Found`].
#[derive(ExtensionType)]
pub struct Stepped<B: Backend> {
    #[extension_type]
    state: StateOf<B>,
    numbers: FloatTensor<B>,
    fired: FloatTensor<B>,
    hints: Hints,
    path: Path,
    phases: Phases,
}

/// What a backend must implement.
#[backend_extension(Flex)]
pub trait SaeStep: Backend {
    /// See [`step`].
    fn sae_step(
        #[extension_type] state: StateOf<Self>,
        x: FloatTensor<Self>,
        form: Form,
        settings: Settings,
    ) -> Stepped<Self>;
}

impl SaeStep for Flex {
    fn sae_step(
        mut state: StateOf<Self>,
        mut x: FlexTensor,
        form: Form,
        settings: Settings,
    ) -> Stepped<Self> {
        make_whole(&mut x);
        let found = {
            let [parameters, gradients, first, second] =
                [&mut state.parameters, &mut state.gradients, &mut state.first, &mut state.second]
                    .map(slices);
            cpu::step(cpu::State { parameters, gradients, first, second }, x.storage(), form, &settings)
        };
        let vector = |values: Vec<f32>| {
            let n = values.len();
            FlexTensor::from_data(TensorData::new(values, [n]))
        };
        let numbers = [found.squared_error, found.penalty, found.grad_norm].map(|number| number as f32);
        Stepped {
            state,
            numbers: vector(numbers.to_vec()),
            fired: vector(found.fired),
            hints: Hints { share: found.share, floor: found.floor },
            path: found.path,
            phases: found.phases,
        }
    }
}

/// The numbers of every tensor, to change in place; copied first if somebody else holds them too.
fn slices(values: &mut Values<Flex>) -> cpu::Values<&mut [f32]> {
    let Values { w_enc, w_dec, b_enc, b_dec } = values;
    let [w_enc, w_dec, b_enc, b_dec] = [w_enc, w_dec, b_enc, b_dec].map(|tensor| {
        make_whole(tensor);
        tensor.storage_mut::<f32>()
    });
    cpu::Values { w_enc, w_dec, b_enc, b_dec }
}

/// Copies what is not yet all that is in its memory, in order.
fn make_whole(tensor: &mut FlexTensor) {
    let bytes = tensor.shape().num_elements() * size_of::<f32>();
    if !(tensor.is_contiguous() && tensor.layout().start_offset() == 0 && tensor.bytes().len() == bytes) {
        *tensor = tensor.to_contiguous();
    }
}

impl From<State> for StateOf<Dispatch> {
    fn from(state: State) -> Self {
        let State { parameters, gradients, first, second } = state;
        let [parameters, gradients, first, second] = [parameters, gradients, first, second].map(Into::into);
        Self { parameters, gradients, first, second }
    }
}

impl From<StateOf<Dispatch>> for State {
    fn from(state: StateOf<Dispatch>) -> Self {
        let StateOf { parameters, gradients, first, second } = state;
        let [parameters, gradients, first, second] = [parameters, gradients, first, second].map(Into::into);
        Self { parameters, gradients, first, second }
    }
}

impl From<Parameters> for Values<Dispatch> {
    fn from(Parameters { w_enc, w_dec, b_enc, b_dec }: Parameters) -> Self {
        Self {
            w_enc: w_enc.into_dispatch(),
            w_dec: w_dec.into_dispatch(),
            b_enc: b_enc.into_dispatch(),
            b_dec: b_dec.into_dispatch(),
        }
    }
}

impl From<Values<Dispatch>> for Parameters {
    fn from(Values { w_enc, w_dec, b_enc, b_dec }: Values<Dispatch>) -> Self {
        Self {
            w_enc: Tensor::from_dispatch(w_enc),
            w_dec: Tensor::from_dispatch(w_dec),
            b_enc: Tensor::from_dispatch(b_enc),
            b_dec: Tensor::from_dispatch(b_dec),
        }
    }
}
