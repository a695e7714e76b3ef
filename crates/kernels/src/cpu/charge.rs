//! What an activation adds to the penalty, and the gradients of that.

/// A penalty that is a sum over activations.
#[derive(Clone, Copy)]
pub(super) enum Charge<'a> {
    Nothing,
    /// Σ actsᵢ νᵢ.
    Norm(Weighted<'a>),
    /// Σ actsᵢᵖ.
    Power {
        p: f32,
        coefficient: f32,
    },
    /// Σ tanh(c·actsᵢ νᵢ).
    Tanh {
        scale: f32,
        of: Weighted<'a>,
    },
}

/// A penalty that knows how long decoder rows are.
#[derive(Clone, Copy)]
pub(super) struct Weighted<'a> {
    /// νᵢ = ‖W_dec,i‖₂, `[d_sae]`.
    pub(super) norms: &'a [f32],
    /// λ / tokens.
    pub(super) coefficient: f32,
}

/// What one activation adds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Share {
    /// To the penalty, before its coefficient.
    pub(super) penalty: f32,
    /// To the gradient of the activation.
    pub(super) by_act: f32,
    /// To the gradient of the norm.
    pub(super) by_norm: f32,
}

impl Charge<'_> {
    /// For an activation of a latent.
    #[inline(always)]
    pub(super) fn of(&self, latent: u32, act: f32) -> Share {
        match *self {
            Self::Nothing => Share::default(),
            Self::Norm(Weighted { norms, coefficient }) => {
                let norm = norms[latent as usize];
                Share { penalty: act * norm, by_act: coefficient * norm, by_norm: coefficient * act }
            }
            Self::Power { p, coefficient } => {
                if act == 0.0 {
                    return Share::default();
                }
                let slope = act.powf(p - 1.0);
                Share { penalty: act * slope, by_act: coefficient * p * slope, by_norm: 0.0 }
            }
            Self::Tanh { scale, of: Weighted { norms, coefficient } } => {
                let norm = norms[latent as usize];
                let tanh = (scale * act * norm).tanh();
                let slope = coefficient * scale * (1.0 - tanh * tanh);
                Share { penalty: tanh, by_act: slope * norm, by_norm: slope * act }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_worked_out_by_hand() {
        let of = Weighted { norms: &[2.0, 0.5], coefficient: 0.1 };
        let close = |found: Share, [penalty, by_act, by_norm]: [f32; 3]| {
            for (found, expected) in
                [(found.penalty, penalty), (found.by_act, by_act), (found.by_norm, by_norm)]
            {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        };
        close(Charge::Nothing.of(0, 3.0), [0.0; 3]);
        close(Charge::Norm(of).of(0, 3.0), [6.0, 0.2, 0.3]);
        // √9, 0.5 / √9 times the coefficient.
        close(Charge::Power { p: 0.5, coefficient: 0.6 }.of(1, 9.0), [3.0, 0.1, 0.0]);
        close(Charge::Power { p: 0.5, coefficient: 0.6 }.of(1, 0.0), [0.0; 3]);
        // tanh(2 · 1 · 0.5), and 0.1 · 2 · (1 − tanh²(1)) times the norm and the activation.
        let (tanh, slope) = (0.761_594_2, 0.2 * 0.419_974_34);
        close(Charge::Tanh { scale: 2.0, of }.of(1, 1.0), [tanh, slope * 0.5, slope]);
        close(Charge::Tanh { scale: 2.0, of }.of(1, 0.0), [0.0, 0.1, 0.0]);
    }
}
