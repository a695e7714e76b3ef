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

    /// What is wrong with it for a dictionary of these sizes, if anything is.
    pub fn fault(&self, d_in: usize, d_out: usize, d_sae: usize) -> Option<&'static str> {
        use {Activation as A, Penalty as P};
        let jump = matches!(self.activation, A::JumpRelu { .. });
        let zero = matches!(self.activation, A::TopK { k: 0 } | A::BatchTopK { k: 0 });
        let narrow = matches!(self.activation, A::JumpRelu { bandwidth, .. } if bandwidth <= 0.0);
        let ascending = self.prefixes.is_sorted() && self.prefixes.last().is_none_or(|last| *last == d_sae);
        let faults = [
            (zero || self.aux.is_some_and(|aux| aux.k == 0), "k must be 1 or more"),
            (narrow, "a bandwidth must be positive"),
            (!ascending, "prefixes must ascend, to all latents"),
            (self.apply_b_dec_to_input && d_in != d_out, "b_dec is not as wide as the input"),
            (self.pre_act.is_some() && !jump, "a pre-act loss needs thresholds"),
            (matches!(self.penalty, P::Step | P::TargetL0 { .. }) && !jump, "this penalty needs thresholds"),
            (
                matches!(self.penalty, P::Power | P::Tanh { .. }) && self.activation == A::Gated,
                "a gate has no such penalty",
            ),
            (matches!(self.penalty, P::TargetL0 { target } if target <= 0.0), "a target must be positive"),
        ];
        faults.into_iter().find(|(fault, _)| *fault).map(|(_, why)| why)
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

impl Activation {
    /// Vectors of parameters that it has besides b_enc.
    pub(crate) fn vectors(&self) -> usize {
        match self {
            Self::Relu | Self::TopK { .. } | Self::BatchTopK { .. } => 0,
            Self::JumpRelu { .. } => 1,
            Self::Gated => 2,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_go_together_is_said() {
        let jump = Activation::JumpRelu { bandwidth: 0.1, log: true, ste_to_input: false };
        let aux = Some(Aux { k: 2, coefficient: 0.1 });
        let fine = [
            Form { apply_b_dec_to_input: true, ..Form::new(Activation::Relu, Penalty::L1) },
            Form { pre_act: Some(1.0), ..Form::new(jump, Penalty::TargetL0 { target: 2.0 }) },
            Form { prefixes: vec![2, 2, 8], aux, ..Form::new(Activation::TopK { k: 1 }, Penalty::None) },
        ];
        assert!(fine.iter().all(|form| form.fault(4, 4, 8).is_none()));
        let no_jump = Activation::JumpRelu { bandwidth: 0.0, log: true, ste_to_input: false };
        let faults = [
            Form::new(Activation::TopK { k: 0 }, Penalty::None),
            Form { aux: Some(Aux { k: 0, coefficient: 1.0 }), ..fine[0].clone() },
            Form::new(no_jump, Penalty::Step),
            Form { prefixes: vec![2, 4], ..fine[2].clone() },
            Form { prefixes: vec![4, 2, 8], ..fine[2].clone() },
            Form { pre_act: Some(1.0), ..fine[0].clone() },
            Form::new(Activation::Relu, Penalty::Step),
            Form::new(Activation::Gated, Penalty::Power),
            Form::new(jump, Penalty::TargetL0 { target: 0.0 }),
        ];
        assert!(faults.iter().all(|form| form.fault(4, 4, 8).is_some()));
        assert!(fine[0].fault(4, 5, 8).is_some());
    }
}
