//! What a training begins with.

use monosema_core::Seed;

/// What initial weights are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Init {
    /// The source of the random directions.
    pub seed: Seed,
    /// Norm of every decoder row.
    pub decoder_norm: f64,
    /// Norm of what encodes every latent.
    pub encoder_norm: f64,
    /// Whether the encoder begins in the decoder's directions.
    pub tied: bool,
    /// b_dec, `[d_out]`; nothing for zeros.
    pub b_dec: Vec<f32>,
}

impl Init {
    /// Tied directions of this norm, and zeros.
    pub fn new(seed: Seed, norm: f64) -> Self {
        Self { seed, decoder_norm: norm, encoder_norm: norm, tied: true, b_dec: Vec::new() }
    }
}
