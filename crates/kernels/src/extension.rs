//! The step as an operation of burn's backends.

use burn::{
    backend::{
        Backend, Dispatch, DispatchDevice, ExtensionType, Flex, TensorMetadata, backend_extension,
        flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::{Device, Tensor, TensorData},
};

use crate::{Examples, Extras, Form, Found, Last, Memory, Parameters, Settings, State, cpu};

/// Numbers that a step finds besides firings: squared error, reconstruction, penalty, aux, gradient norm.
const NUMBERS: usize = 5;

/// Whether a step of this form, with such settings, can be taken on `device`.
#[cfg_attr(not(feature = "cube"), allow(unused_variables, reason = "the CPU can do all forms"))]
pub fn supports(device: &Device, form: &Form, settings: &Settings) -> bool {
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(device) => crate::cube::supports(device, form, settings),
        _ => false,
    }
}

/// Takes a step: the new state, and what was found on the way. All tensors are f32 on one device without
/// autodiff. Where nothing else holds the state's tensors, it is changed in place.
///
/// # Panics
/// If shapes do not fit together, if there is no token, no latent, or a fault in the form, or on a device that is not
/// [supported](supports).
pub fn step(
    state: State,
    examples: impl Into<Examples>,
    form: &Form,
    settings: Settings,
    memory: &Memory,
) -> (State, Found) {
    let Examples { x, y, dead } = examples.into();
    let ([d_sae, d_in], [d_out]) = (state.parameters.w_enc.dims(), state.parameters.b_dec.dims());
    for values in
        [&state.parameters, &state.gradients, &state.first, &state.second].into_iter().chain(&state.average)
    {
        let Parameters { w_enc, w_dec, b_enc, b_dec, .. } = values;
        let shapes = (w_enc.dims(), w_dec.dims(), b_enc.dims(), b_dec.dims());
        assert_eq!(shapes, ([d_sae, d_in], [d_sae, d_out], [d_sae], [d_out]), "the state has one size");
    }
    let n = x.dims()[0];
    assert_eq!(x.dims(), [n, d_in], "tokens are as wide as the dictionary");
    assert_eq!(y.as_ref().map_or([n, d_in], Tensor::dims), [n, d_out], "there is a target for each token");
    assert_eq!(dead.as_ref().map_or([d_sae], Tensor::dims), [d_sae], "each latent is dead or not");
    assert!(n * d_in * d_out * d_sae > 0, "there is something to compute");
    assert_eq!(form.fault(d_in, d_out, d_sae), None, "{form:?}");
    let device = x.device();
    let given = Given { y: y.is_some(), dead: dead.is_some(), average: state.average.is_some() };
    let y = y.unwrap_or_else(|| Tensor::zeros([1, 1], &device));
    let dead = dead.unwrap_or_else(|| Tensor::zeros([1], &device));
    let Stepped { state, numbers, fired } = Dispatch::sae_step(
        StateOf::new(state, &device),
        x.into_dispatch(),
        y.into_dispatch(),
        dead.into_dispatch(),
        given,
        form.clone(),
        settings,
        memory.clone(),
    );
    let numbers = Tensor::<1>::from_dispatch(numbers);
    let number = |i| numbers.clone().narrow(0, i, 1);
    let [squared_error, reconstruction, penalty, aux, grad_norm]: [_; NUMBERS] = std::array::from_fn(number);
    let fired = Tensor::from_dispatch(fired);
    (state.into_state(given), Found { squared_error, reconstruction, penalty, aux, grad_norm, fired })
}

/// Which of the tensors that a step can do without are there. In place of those that are not there is a single number.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    y: bool,
    dead: bool,
    average: bool,
}

/// [`Parameters`] of a backend.
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Values<B: Backend> {
    pub(crate) w_enc: FloatTensor<B>,
    pub(crate) w_dec: FloatTensor<B>,
    pub(crate) b_enc: FloatTensor<B>,
    pub(crate) b_dec: FloatTensor<B>,
    #[extension_type]
    pub(crate) extras: ExtrasOf<B>,
}

/// [`Extras`] of a backend.
#[derive(ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct ExtrasOf<B: Backend> {
    pub(crate) first: FloatTensor<B>,
    pub(crate) second: FloatTensor<B>,
    pub(crate) w_skip: FloatTensor<B>,
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
    #[extension_type]
    pub(crate) average: Values<B>,
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
    #[allow(
        clippy::too_many_arguments,
        reason = "tensors that may be missing cannot be in a structure of their own"
    )]
    fn sae_step(
        #[extension_type] state: StateOf<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        dead: FloatTensor<Self>,
        given: Given,
        form: Form,
        settings: Settings,
        memory: Memory,
    ) -> Stepped<Self>;
}

/// What comes out of a step, before it is taken.
#[cfg(feature = "fusion")]
#[allow(clippy::too_many_arguments, reason = "those of the step")]
fn stepped(
    state: &StateOfMetadata,
    _: &burn::backend::fusion::custom::TensorSpec,
    _: &burn::backend::fusion::custom::TensorSpec,
    _: &burn::backend::fusion::custom::TensorSpec,
    _: &Given,
    _: &Form,
    _: &Settings,
    _: &Memory,
) -> SteppedMetadata {
    let fired = state.parameters.b_enc.clone();
    let numbers = burn::backend::fusion::custom::TensorSpec { shape: [NUMBERS].into(), ..fired.clone() };
    SteppedMetadata { state: state.clone(), numbers, fired }
}

#[cfg(feature = "cube")]
impl SaeStep for burn_cubecl::CubeBackend {
    fn sae_step(
        state: StateOf<Self>,
        x: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        given: Given,
        form: Form,
        settings: Settings,
        memory: Memory,
    ) -> Stepped<Self> {
        crate::cube::step(state, x, given.average, form, settings, &memory)
    }
}

impl SaeStep for Flex {
    fn sae_step(
        mut state: StateOf<Self>,
        mut x: FlexTensor,
        mut y: FlexTensor,
        mut dead: FlexTensor,
        given: Given,
        form: Form,
        settings: Settings,
        memory: Memory,
    ) -> Stepped<Self> {
        [&mut x, &mut y, &mut dead].into_iter().for_each(make_whole);
        let found = {
            let average = given.average.then(|| slices(&mut state.average, &form));
            let [parameters, gradients, first, second] =
                [&mut state.parameters, &mut state.gradients, &mut state.first, &mut state.second]
                    .map(|values| slices(values, &form));
            let state = cpu::State { parameters, gradients, first, second, ema: average };
            let examples = cpu::Examples {
                x: x.storage(),
                y: given.y.then(|| y.storage()),
                dead: given.dead.then(|| dead.storage()),
            };
            cpu::step(state, examples, &form, &settings, &memory.last())
        };
        let cpu::Found { share, aux_share, floor, path, phases, .. } = found;
        memory.keep(Last { share, aux_share, floor, most: 0, path: Some(path), phases });
        let vector = |values: Vec<f32>| {
            let n = values.len();
            FlexTensor::from_data(TensorData::new(values, [n]))
        };
        let numbers: [f64; NUMBERS] =
            [found.squared_error, found.reconstruction, found.penalty, found.aux, found.grad_norm];
        let numbers = numbers.map(|number| number as f32).to_vec();
        Stepped { state, numbers: vector(numbers), fired: vector(found.fired) }
    }
}

/// The numbers of every tensor that the form has, to change in place; copied first if somebody else holds them too.
fn slices<'a>(values: &'a mut Values<Flex>, form: &Form) -> cpu::Values<&'a mut [f32]> {
    let Values { w_enc, w_dec, b_enc, b_dec, extras: ExtrasOf { first, second, w_skip } } = values;
    let [w_enc, w_dec, b_enc, b_dec] = [w_enc, w_dec, b_enc, b_dec].map(slice);
    let vectors = form.activation.vectors();
    let extra = |tensor, there| if there { slice(tensor) } else { &mut [] };
    let more = [extra(first, vectors > 0), extra(second, vectors > 1)];
    cpu::Values { w_enc, w_dec, b_enc, b_dec, more, w_skip: extra(w_skip, form.skip) }
}

fn slice(tensor: &mut FlexTensor) -> &mut [f32] {
    make_whole(tensor);
    tensor.storage_mut()
}

/// Copies what is not yet all that is in its memory, in order.
fn make_whole(tensor: &mut FlexTensor) {
    let bytes = tensor.shape().num_elements() * size_of::<f32>();
    if !(tensor.is_contiguous() && tensor.layout().start_offset() == 0 && tensor.bytes().len() == bytes) {
        *tensor = tensor.to_contiguous();
    }
}

impl StateOf<Dispatch> {
    fn new(state: State, device: &Device) -> Self {
        let State { parameters, gradients, first, second, average } = state;
        let nothing = || {
            let matrix = || Tensor::zeros([1, 1], device);
            let vector = || Tensor::zeros([1], device);
            let extras = Extras::none(device);
            Parameters { w_enc: matrix(), w_dec: matrix(), b_enc: vector(), b_dec: vector(), extras }
        };
        let average = average.unwrap_or_else(nothing);
        let [parameters, gradients, first, second, average] =
            [parameters, gradients, first, second, average].map(Into::into);
        Self { parameters, gradients, first, second, average }
    }

    fn into_state(self, given: Given) -> State {
        let Self { parameters, gradients, first, second, average } = self;
        let [parameters, gradients, first, second, average] =
            [parameters, gradients, first, second, average].map(Into::into);
        State { parameters, gradients, first, second, average: given.average.then_some(average) }
    }
}

impl From<Parameters> for Values<Dispatch> {
    fn from(Parameters { w_enc, w_dec, b_enc, b_dec, extras }: Parameters) -> Self {
        Self {
            w_enc: w_enc.into_dispatch(),
            w_dec: w_dec.into_dispatch(),
            b_enc: b_enc.into_dispatch(),
            b_dec: b_dec.into_dispatch(),
            extras: ExtrasOf {
                first: extras.first.into_dispatch(),
                second: extras.second.into_dispatch(),
                w_skip: extras.w_skip.into_dispatch(),
            },
        }
    }
}

impl From<Values<Dispatch>> for Parameters {
    fn from(Values { w_enc, w_dec, b_enc, b_dec, extras }: Values<Dispatch>) -> Self {
        Self {
            w_enc: Tensor::from_dispatch(w_enc),
            w_dec: Tensor::from_dispatch(w_dec),
            b_enc: Tensor::from_dispatch(b_enc),
            b_dec: Tensor::from_dispatch(b_dec),
            extras: Extras {
                first: Tensor::from_dispatch(extras.first),
                second: Tensor::from_dispatch(extras.second),
                w_skip: Tensor::from_dispatch(extras.w_skip),
            },
        }
    }
}
