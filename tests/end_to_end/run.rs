//! Runs the binary and keeps what it said.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A finished run of the binary.
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Runs `command` to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Fails the test unless the run ended well.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 0, "stderr: {}", self.stderr);
        self
    }

    /// Fails the test unless the run ended with `status` and one error that has all of `parts`.
    pub(crate) fn fails(self, status: i32, parts: &[&str]) -> Self {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in {:?}", self.stderr);
        }
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// The repository, where the configurations' relative paths begin.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// `monosema` with `args`, at the root of the repository.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_monosema"));
    command.args(args).current_dir(root()).env_remove("MONOSEMA_LOG");
    command
}

/// Runs `monosema` with `args` at the root of the repository.
pub(crate) fn monosema(args: &[&str]) -> Run {
    Run::of(&mut command(args))
}

/// Starts `monosema` and does not wait for it.
pub(crate) fn start(args: &[&str]) -> Child {
    command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The demo experiment, cut down to seconds. Every stage, kill and refusal is the real one.
pub(crate) const SMALL: [&str; 12] = [
    "--set",
    "harvest.tokens=20000",
    "--set",
    "train.tokens=65536",
    "--set",
    "train.batch_tokens=1024",
    "--set",
    "train.shuffle_buffer_tokens=8192",
    "--set",
    "train.width={latents=256}",
    "--set",
    "eval.tokens=4000",
];

/// `verb` of the small demo experiment into `out`, with further arguments.
pub(crate) fn small<'a>(verb: &'a str, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![verb, "configs/quickstart.toml", "--out", out.to_str().unwrap()];
    args.extend(SMALL);
    args.extend(more);
    args
}
