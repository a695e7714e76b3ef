//! What a step tells the next one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::Path;

/// What the last step found; shared by all clones. It makes the next step faster, and changes what comes out by rounding at
/// most. Where a device works behind the host, the last step is the last one that the device was told of.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Last>>);

impl From<Last> for Memory {
    fn from(last: Last) -> Self {
        Self(Arc::new(Mutex::new(last)))
    }
}

impl Memory {
    /// What is remembered.
    pub fn last(&self) -> Last {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(&self, last: Last) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Last {
    /// Share of latents that were active.
    pub share: f64,
    /// Share of dead latents that took part in the auxiliary loss; 0 without one.
    pub aux_share: f64,
    /// The smallest active pre-activation of a batch from which the largest were chosen; 0 otherwise.
    pub floor: f32,
    /// About how many were active on the token that had most; 0 if nobody looked.
    pub most: usize,
    /// The path that was taken; `None` before the first step.
    pub path: Option<Path>,
    /// Where the time went; nothing where a device works behind the host.
    pub phases: Phases,
}

impl Default for Last {
    /// Nothing is known: as if every latent had been active.
    fn default() -> Self {
        Self { share: 1.0, aux_share: 1.0, floor: 0.0, most: 0, path: None, phases: Phases::default() }
    }
}

/// How long the parts of a step took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Pre-activations, and the choice of the active ones.
    pub encode: Duration,
    /// Decoding, the error, and the gradients of pre-activations.
    pub decode: Duration,
    /// The gradients of all parameters, and their norm.
    pub gradients: Duration,
    /// Clipping and Adam.
    pub update: Duration,
}
