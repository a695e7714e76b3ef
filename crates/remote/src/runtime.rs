//! The one runtime that all of this crate's waiting is done on.

use std::{io, sync::OnceLock};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

use crate::RemoteError;

/// Threads for what waits for the network. Little is computed there.
const THREADS: usize = 2;

fn runtime() -> Result<&'static Runtime, RemoteError> {
    static RUNTIME: OnceLock<Result<Runtime, io::ErrorKind>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        let built =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name("remote").enable_all().build();
        built.map_err(|error| error.kind())
    });
    started.as_ref().map_err(|kind| RemoteError::Failed {
        what: "threads for the network".into(),
        reason: format!("cannot be started: {kind}"),
    })
}

/// Waits for `future` on the calling thread.
pub(crate) fn wait<T>(future: impl Future<Output = Result<T, RemoteError>>) -> Result<T, RemoteError> {
    runtime()?.block_on(future)
}

/// Lets `future` run on its own.
pub(crate) fn begin<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<JoinHandle<T>, RemoteError> {
    Ok(runtime()?.spawn(future))
}
