//! What object stores' answers mean, in words.

use object_store::Error;

use crate::{RemoteError, hub::chain};

/// What `error` says about `what`.
pub(crate) fn explain(what: &str, error: Error) -> RemoteError {
    // Stores answer in XML, of several lines.
    let text = chain(&error).split_whitespace().collect::<Vec<_>>().join(" ");
    let what = what.to_owned();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"]) {
        let reason = format!("there is no such bucket, or not in this account or at this endpoint: {text}");
        return RemoteError::NotFound { what, reason };
    }
    if says(&["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"]) {
        let reason = format!("the bucket is in another region: set AWS_REGION to its own ({text})");
        return RemoteError::Denied { what, reason };
    }
    if says(&["169.254.169.254", "metadata.google.internal"]) {
        let reason = format!("no credentials were found; {} ({text})", credentials(&what));
        return RemoteError::Denied { what, reason };
    }
    match &error {
        Error::NotFound { .. } => RemoteError::NotFound { what, reason: text },
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            let reason = format!(
                "the credentials do not allow it (or there are none); {} ({text})",
                credentials(&what)
            );
            RemoteError::Denied { what, reason }
        }
        Error::Precondition { .. } => {
            let reason = format!("it changed since it was found; run the command again ({text})");
            RemoteError::Damaged { what, reason }
        }
        _ if says(&["error sending request", "Connection refused", "dns error"]) => {
            let reason = format!("{text}; check the network and the endpoint (AWS_ENDPOINT_URL)");
            RemoteError::Unreachable { what, place: "the object store".into(), reason }
        }
        _ => RemoteError::Failed { what, reason: text },
    }
}

/// Whether trying again is in vain. The client has tried for a while itself.
pub(crate) fn is_final(error: &Error) -> bool {
    !matches!(error, Error::Generic { .. })
}

fn credentials(what: &str) -> &'static str {
    match what.get(..2) {
        Some("gs") => "set GOOGLE_SERVICE_ACCOUNT to the file of a service account's key",
        Some("az") => "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        _ => {
            "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (AWS_ENDPOINT_URL for a store that is not Amazon's)"
        }
    }
}
