//! What can be wrong with a comparison.

use std::{io, path::PathBuf};

use monosema_sae::SaeError;

/// A comparison that cannot be made, or failed.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Nothing to compare with.
    #[error("expected two dictionaries or more, found {0}; name another one")]
    TooFew(usize),
    /// A threshold above which, or below which, there is nothing.
    #[error("expected a threshold between -1 and 1, as cosines are; found {0}; 0.7 is usual")]
    BadThreshold(f64),
    /// A dictionary that cannot be read.
    #[error(transparent)]
    Dictionary(#[from] SaeError),
    /// Dictionaries that write into spaces of different widths.
    #[error(
        "{}: its latents write vectors of {found} dimensions, and those of {} of {expected}; only dictionaries of the same \
         activations can be compared", directory.display(), first.display()
    )]
    Width {
        /// The dictionary that differs.
        directory: PathBuf,
        /// Its width.
        found: usize,
        /// The first dictionary.
        first: PathBuf,
        /// The width of that.
        expected: usize,
    },
    /// A dictionary of which nothing is left to compare.
    #[error(
        "{}: none of its {d_sae} latents can be compared: {zero} have a decoder row of zeros, {dead} are dead and left out; \
         keep dead ones, or choose another dictionary", directory.display()
    )]
    NoLatents {
        /// The dictionary.
        directory: PathBuf,
        /// How many latents it has.
        d_sae: usize,
        /// How many of them point nowhere.
        zero: usize,
        /// How many others were left out.
        dead: usize,
    },
    /// The device failed.
    #[error("the device failed while cosines were computed: {reason}; try --device cpu")]
    Device {
        /// What the device says.
        reason: String,
    },
    /// The library that matches gave up.
    #[error("{a} and {b} could not be matched: {reason}; leave the matching out with --match-up-to 0")]
    Matching {
        /// The one.
        a: String,
        /// The other.
        b: String,
        /// What the library says.
        reason: String,
    },
    /// The disk failed.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}
