//! The mathematics that a step computes, whatever the device.

/// What is trained: acts = activation(input·W_enc + b_enc), x̂ = acts·W_dec + b_dec (+ x·W_skip), and
///
/// loss = Σ over prefixes of the mean over tokens of ‖y − x̂‖² + λ · penalty + what the options below add,
///
/// where y is x itself, or what a transcoder is to make of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Form {
    /// What makes activations of pre-activations.
    pub activation: Activation,
    /// What λ multiplies.
    pub penalty: Penalty,
    /// Whether the input is x − b_dec, instead of x. Only where y is as wide as x.
    pub apply_b_dec_to_input: bool,
    /// Whether rows of W_dec keep a norm of 1: what points along them is taken from their gradients, and after the step
    /// they are divided by their norms (Bricken et al. 2023, appendix "Neuron resampling and the constraint").
    pub unit_decoder: bool,
    /// How many of the first latents each reconstruction is made of, ascending; the last is all of them (Matryoshka: Bussmann
    /// et al. 2025, arXiv:2503.17547). Empty: one reconstruction, of all.
    pub prefixes: Vec<usize>,
    /// Whether x·W_skip is added to every reconstruction.
    pub skip: bool,
    /// An auxiliary loss that makes dead latents reconstruct the error.
    pub aux: Option<Aux>,
    /// κ of the pre-act loss, κ · mean over tokens of Σ ReLU(θᵢ − zᵢ)‖W_dec,i‖₂ over dead latents. Only with
    /// [`Activation::JumpRelu`].
    pub pre_act: Option<f64>,
}

impl Form {
    /// An autoencoder with one reconstruction, and no more than this.
    pub fn new(activation: Activation, penalty: Penalty) -> Self {
        Self {
            activation,
            penalty,
            apply_b_dec_to_input: false,
            unit_decoder: false,
            prefixes: Vec::new(),
            skip: false,
            aux: None,
            pre_act: None,
        }
    }

    /// Whether there is a dense path for it.
    ///
    /// Not with several prefixes: each latent meets the error of its own prefix, and how many are active is chosen.
    pub fn has_dense_path(&self) -> bool {
        self.prefixes.len() < 2
    }
}

/// Which latents are active on a token, and what their activation is. z = input·W_enc + b_enc.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// ReLU(z).
    Relu,
    /// Of ReLU(z), the `k` largest of each token (Gao et al. 2024, section 2.3).
    TopK {
        /// 1 or more.
        k: usize,
    },
    /// Of ReLU(z), the `k · n` largest of a batch of n tokens (Bussmann et al. 2024, arXiv:2412.06410).
    BatchTopK {
        /// 1 or more.
        k: usize,
    },
    /// z where z > θ, and 0 elsewhere (Rajamanoharan et al. 2024, arXiv:2407.14435), with a θ of its own for every latent:
    /// the first of the parameters that are `more`.
    ///
    /// What is not smooth has pseudo-derivatives, with K = 1 where |z − θ| < ε/2, else 0: −(θ/ε)K of the activation by θ, and
    /// −(1/ε)K of H(z − θ).
    JumpRelu {
        /// ε, positive.
        bandwidth: f64,
        /// Whether the parameter is log θ. If it is θ, it is kept from becoming negative.
        log: bool,
        /// Whether the pseudo-derivatives pass, negated, to z too.
        ste_to_input: bool,
    },
    /// ReLU(m) where z > 0, and 0 elsewhere, with m = exp(r_mag)·(z − b_enc) + b_mag (Rajamanoharan et al. 2024,
    /// arXiv:2404.16014). b_enc is the gate's bias; r_mag and b_mag are the parameters that are `more`.
    ///
    /// The loss has another term, the mean over tokens of ‖y − ReLU(z)·W_dec − b_dec (− x·W_skip)‖², which does not change
    /// what it decodes with.
    Gated,
}

/// Of every token, what λ multiplies; its mean over tokens is meant. νᵢ = ‖W_dec,i‖₂.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Penalty {
    /// Nothing.
    None,
    /// Σ actsᵢ νᵢ. Of [`Activation::Gated`]: Σ ReLU(zᵢ) νᵢ.
    L1,
    /// Σ actsᵢᵖ over active latents, with the p of [`Settings`](crate::Settings). Not with [`Activation::Gated`].
    Power,
    /// Σ H(zᵢ − θᵢ): how many are active. Only with [`Activation::JumpRelu`].
    Step,
    /// Σ tanh(c·actsᵢ νᵢ) (Anthropic, January 2025). Not with [`Activation::Gated`].
    Tanh {
        /// c.
        scale: f64,
    },
    /// (L0 / target − 1)², where L0 is the mean over tokens of how many are active. Only with [`Activation::JumpRelu`].
    TargetL0 {
        /// Positive.
        target: f64,
    },
}

/// α · Σ‖ê − e‖² / Σ‖e − ē‖² (Gao et al. 2024, section A.2): e = y − x̂ is what all active latents leave over, and passes
/// no gradient; ē is its mean over tokens; ê = Σ ReLU(zᵢ)·W_dec,i over the `k` dead latents whose z is largest. 0 if none is
/// dead, or where nothing is left over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aux {
    /// Dead latents that take part in a token, at most; 1 or more.
    pub k: usize,
    /// α.
    pub coefficient: f64,
}
