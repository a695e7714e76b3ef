//! Which latents are active on a batch, found by whatever instructions are here.

use rayon::prelude::*;

use super::{
    encode::{Product, encode},
    exact::Exact,
    pairs::{Multiplier, Multiply, WithMultiplier},
    screened::{self, Screened},
    select::{self, Entries, Select},
    step::TOKENS,
};
use crate::{Precision, Settings};

/// A batch's smallest active pre-activation is taken to be no less than this much of the last one's. If it is, encoding is
/// repeated.
const GUESS: f32 = 0.8;

/// What to screen with, if that is wanted.
#[derive(Clone, Copy)]
pub(super) struct Instructions(Option<Multiplier>);

impl Instructions {
    pub(super) fn new(multiplier: Option<Multiplier>, settings: &Settings) -> Self {
        Self(multiplier.filter(|_| settings.precision == Precision::Auto))
    }

    /// None where so many latents are active that screening would leave most of the work still to do.
    pub(super) fn for_share(self, share: f64) -> Self {
        Self(self.0.filter(|_| share < screened::WORTHWHILE))
    }
}

/// What to encode with what.
#[derive(Clone, Copy)]
pub(super) struct Encoder<'a> {
    /// `[d_sae, d_in]`.
    pub(super) w_enc: &'a [f32],
    /// `[d_sae]`.
    pub(super) b_enc: &'a [f32],
    /// `[n, d_in]`.
    pub(super) input: &'a [f32],
}

impl Encoder<'_> {
    fn d_in(&self) -> usize {
        self.w_enc.len() / self.b_enc.len()
    }

    /// The entries of every token, task by task.
    pub(super) fn encode(self, instructions: Instructions, select: Select<'_>) -> Vec<Vec<Entries>> {
        self.dispatch(instructions, What::Select(select))
    }

    /// Those of the `wanted` largest of the batch, where the smallest was `last` of the batch before.
    pub(super) fn encode_largest(
        self,
        instructions: Instructions,
        wanted: usize,
        last: f32,
    ) -> Vec<Vec<Entries>> {
        self.dispatch(instructions, What::Largest { wanted, guess: GUESS * last.max(0.0) })
    }

    fn dispatch(self, instructions: Instructions, what: What<'_>) -> Vec<Vec<Entries>> {
        match instructions.0 {
            Some(multiplier) => multiplier.dispatch(Activate { encoder: self, what }),
            None => self.by(&Exact::new(self.w_enc, self.b_enc, self.d_in()), what),
        }
    }

    fn by<P: Product>(self, product: &P, what: What<'_>) -> Vec<Vec<Entries>> {
        let weights = [self.w_enc, self.b_enc];
        let encoded = |select| -> Vec<Vec<Entries>> {
            let tasks = self.input.par_chunks(TOKENS * self.d_in());
            tasks.map(|input| encode(product, weights, select, input)).collect()
        };
        match what {
            What::Select(select) => encoded(select),
            What::Largest { wanted, guess } => {
                let mut entries = encoded(Select::Above(guess));
                let found: usize = entries.iter().flatten().map(Vec::len).sum();
                if found < wanted && guess > 0.0 {
                    entries = encoded(Select::Above(0.0));
                }
                select::largest_of_batch(wanted, &mut entries);
                entries
            }
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
enum What<'a> {
    Select(Select<'a>),
    Largest { wanted: usize, guess: f32 },
}

struct Activate<'a> {
    encoder: Encoder<'a>,
    what: What<'a>,
}

impl WithMultiplier for Activate<'_> {
    type Output = Vec<Vec<Entries>>;

    fn with_multiplier<M: Multiply>(self, multiplier: M) -> Vec<Vec<Entries>> {
        let Self { encoder, what } = self;
        let screened = Screened::new(multiplier, encoder.w_enc, encoder.b_enc, encoder.d_in());
        encoder.by(&screened, what)
    }
}
