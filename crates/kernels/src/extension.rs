//! The step as an operation of burn's backends.

use burn::{
    backend::{
        Backend, Dispatch, DispatchDevice, ExtensionType, Flex, TensorMetadata, backend_extension,
        flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::{Device, Tensor, TensorData},
};

use crate::{Activation, Form, Found, Last, Memory, Parameters, Settings, State, cpu};

/// Whether a step of this form can be taken on `device`.
#[cfg_attr(not(feature = "cube"), allow(unused_variables, reason = "the CPU can do all forms"))]
pub fn supports(device: &Device, form: Form) -> bool {
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(device) => crate::cube::supports(device, form),
        _ => false,
    }
}

/// Takes a step on `x [n, d_in]`: the new state, and what was found on the way. All tensors are f32 on one device without
/// autodiff. Where nothing else holds the state's tensors, it is changed in place.
///
/// # Panics
/// If shapes do not fit together, if there is no token, no latent, or a `k` of 0, or on a device that is not [supported](supports).
pub fn step(state: State, x: Tensor<2>, form: Form, settings: Settings, memory: &Memory) -> (State, Found) {
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
    let Stepped { state, numbers, fired } =
        Dispatch::sae_step(state.into(), x.into_dispatch(), form, settings, memory.clone());
    let found = Found { numbers: Tensor::from_dispatch(numbers), fired: Tensor::from_dispatch(fired) };
    (state.into(), found)
}

/// [`Parameters`] of a backend.
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Values<B: Backend> {
    pub(crate) w_enc: FloatTensor<B>,
    pub(crate) w_dec: FloatTensor<B>,
    pub(crate) b_enc: FloatTensor<B>,
    pub(crate) b_dec: FloatTensor<B>,
}

/// [`State`] of a backend.
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct StateOf<B: Backend> {
    #[extension_type]
    pub(crate) parameters: Values<B>,
    #[extension_type]
    pub(crate) gradients: Values<B>,
    #[extension_type]
    pub(crate) first: Values<B>,
    #[extension_type]
    pub(crate) second: Values<B>,
}

/// The new state, and [`Found`].
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Stepped<B: Backend> {
    #[extension_type]
    pub(crate) state: StateOf<B>,
    pub(crate) numbers: FloatTensor<B>,
    pub(crate) fired: FloatTensor<B>,
}

/// What a backend must implement.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "fusion"))]
pub trait SaeStep: Backend {
    /// See [`step`].
    #[fusion(meta = stepped)]
    fn sae_step(
        #[extension_type] state: StateOf<Self>,
        x: FloatTensor<Self>,
        form: Form,
        settings: Settings,
        memory: Memory,
    ) -> Stepped<Self>;
}

/// What comes out of a step, before it is taken.
#[cfg(feature = "fusion")]
fn stepped(
    state: &StateOfMetadata,
    _: &burn::backend::fusion::custom::TensorSpec,
    _: &Form,
    _: &Settings,
    _: &Memory,
) -> SteppedMetadata {
    let fired = state.parameters.b_enc.clone();
    let numbers = burn::backend::fusion::custom::TensorSpec { shape: [3].into(), ..fired.clone() };
    SteppedMetadata { state: state.clone(), numbers, fired }
}

#[cfg(feature = "cube")]
impl SaeStep for burn_cubecl::CubeBackend {
    fn sae_step(
        state: StateOf<Self>,
        x: FloatTensor<Self>,
        form: Form,
        settings: Settings,
        memory: Memory,
    ) -> Stepped<Self> {
        crate::cube::step(state, x, form, settings, &memory)
    }
}

impl SaeStep for Flex {
    fn sae_step(
        mut state: StateOf<Self>,
        mut x: FlexTensor,
        form: Form,
        settings: Settings,
        memory: Memory,
    ) -> Stepped<Self> {
        make_whole(&mut x);
        let found = {
            let [parameters, gradients, first, second] =
                [&mut state.parameters, &mut state.gradients, &mut state.first, &mut state.second]
                    .map(slices);
            let state = cpu::State { parameters, gradients, first, second };
            cpu::step(state, x.storage(), form, &settings, &memory.last())
        };
        let cpu::Found { share, floor, path, phases, .. } = found;
        memory.keep(Last { share, floor, most: 0, path: Some(path), phases });
        let vector = |values: Vec<f32>| {
            let n = values.len();
            FlexTensor::from_data(TensorData::new(values, [n]))
        };
        let numbers = [found.squared_error, found.penalty, found.grad_norm].map(|number| number as f32);
        Stepped { state, numbers: vector(numbers.to_vec()), fired: vector(found.fired) }
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
