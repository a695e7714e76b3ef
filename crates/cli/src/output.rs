//! Results on standard output.

use std::io::{self, Write};

use crate::failure::{Failure, Outcome};

/// Prints `text` and a line's end. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(text: impl std::fmt::Display) -> Outcome {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::run(error)),
        _ => Ok(()),
    }
}
