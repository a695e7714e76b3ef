//! How a command ends badly: which exit status, and what the user reads.

use std::process::ExitCode;

/// A failed command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, the configuration or what it names cannot be used: status 2, nothing was begun.
    Usage(anyhow::Error),
    /// The work failed on the way: status 1.
    Run(anyhow::Error),
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// Wraps an error found before any work began.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    /// Wraps an error of the work itself.
    pub(crate) fn run(error: impl Into<anyhow::Error>) -> Self {
        Self::Run(error.into())
    }

    /// The same, found after work began.
    pub(crate) fn into_run(self) -> Self {
        match self {
            Self::Usage(error) | Self::Run(error) => Self::Run(error),
        }
    }

    /// Prints the error to standard error and gives the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        let (error, status) = match self {
            Self::Usage(error) => (error, 2),
            Self::Run(error) => (error, 1),
        };
        say(&format!("error: {}", describe(error)));
        ExitCode::from(status)
    }
}

/// The chain of causes in one line. Some errors tell their cause themselves: it is not said twice.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[allow(clippy::print_stderr, reason = "the last word of a failed command is not a log line")]
fn say(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cause_is_told_twice() {
        let error = anyhow::anyhow!("not found").context("a.txt: not found").context("reading text");
        assert_eq!(describe(&error), "reading text: a.txt: not found");
    }
}
