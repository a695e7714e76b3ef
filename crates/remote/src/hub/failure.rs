//! What the hub's answers mean, in words.

use hf_hub::HFError;

use super::{Address, Hub};
use crate::RemoteError;

impl Hub {
    /// What `error` says about `what`.
    pub(super) fn explain(&self, what: &Address, error: HFError) -> RemoteError {
        let place = self.client.endpoint();
        let page = format!("{place}/{}", what.page());
        let code = match &error {
            HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Http { context } => context.error_code.clone(),
            HFError::RevisionNotFound { context, .. } | HFError::EntryNotFound { context, .. } => {
                context.as_ref().and_then(|context| context.error_code.clone())
            }
            _ => None,
        };
        let said = code.as_deref().unwrap_or_default();
        let what_said = what.to_string();
        let denied = |reason: String| RemoteError::Denied { what: what_said.clone(), reason };
        let not_found = |reason: String| RemoteError::NotFound { what: what_said.clone(), reason };
        let status = match &error {
            HFError::AuthRequired { .. } => 401,
            HFError::Forbidden { .. } => 403,
            HFError::Http { context } => context.status.as_u16(),
            HFError::RepoNotFound { .. }
            | HFError::RevisionNotFound { .. }
            | HFError::EntryNotFound { .. } => 404,
            _ => 0,
        };
        match (status, said, &error) {
            (_, "GatedRepo", _) | (403, _, _) => denied(format!(
                "the repository is gated: accept its terms at {page}, then give a token of that account (HF_TOKEN, or \
                 `hf auth login`)"
            )),
            // The hub does not tell strangers which repositories are private.
            (401, _, _) | (_, "RepoNotFound", _) => not_found(format!(
                "the repository does not exist, or it is private; look at {page}, and if it is private give a token that \
                 may read it (HF_TOKEN, or `hf auth login`)"
            )),
            (404, "RevisionNotFound", _) => not_found(format!(
                "the repository has no revision {}; its branches and tags are at {page}/tree/main",
                what.revision
            )),
            (404, _, HFError::RevisionNotFound { .. }) => not_found(format!(
                "there is no such repository, or it has no revision {}; look at {page}",
                what.revision
            )),
            (404, _, _) => {
                not_found(format!("it is not in the repository; see {page}/tree/{}", what.revision))
            }
            (_, _, HFError::Request { source, .. }) => RemoteError::Unreachable {
                what: what.to_string(),
                place: place.to_owned(),
                reason: format!(
                    "{}; check the network (HTTPS_PROXY, HF_ENDPOINT), or work with what the cache has: HF_HUB_OFFLINE=1",
                    chain(source)
                ),
            },
            _ => RemoteError::Failed { what: what.to_string(), reason: chain(&error) },
        }
    }
}

/// Whether trying again may help: the connection broke, or the hub has too much to do.
pub(super) fn is_passing(error: &HFError) -> bool {
    match error {
        HFError::Request { .. } | HFError::RateLimited { .. } | HFError::Xet { .. } => true,
        HFError::Http { context } => context.status.is_server_error(),
        _ => false,
    }
}

/// An error and all that caused it: a transport's own message is only that something was wrong.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
