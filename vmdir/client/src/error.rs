//! What can go wrong between a client and the directory.

use std::time::Duration;
use vibra_model::Rejection;

/// Why the directory did not do what it was asked. `Display` says what happened; [`source`](std::error::Error::source)
/// leads to the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The directory's rules do not allow the command. Nothing was changed.
    #[error("the directory refused the command")]
    Rejected(#[from] Rejection),
    /// The directory does not know the token.
    #[error("the directory does not know the token: {message}")]
    Unauthorised {
        /// The directory's own words.
        message: String,
    },
    /// The token's role does not allow it.
    #[error("the token does not allow it: {message}")]
    Forbidden {
        /// The directory's own words.
        message: String,
    },
    /// The request itself is wrong, such as a command that cannot be sent or an address that is none.
    #[error("the request is not valid: {message}")]
    Invalid {
        /// What is wrong with it.
        message: String,
    },
    /// The watch fell behind, or the revision is too old or unknown: take a new snapshot and watch from there.
    #[error("the watch lost commits: take a new snapshot and watch from there")]
    Resync,
    /// No connection, or it broke.
    #[error("the directory at {address} cannot be reached")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What the network says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer, or no sign of life, within the time that was set for it.
    #[error("the directory at {address} was silent for {} ms", after.as_millis())]
    Silent {
        /// Where it is.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// The directory failed at its work.
    #[error("the directory failed (HTTP {status}): {message}")]
    Failed {
        /// The HTTP status.
        status: u16,
        /// The directory's own words.
        message: String,
    },
    /// The answer is not one of this API.
    #[error("the directory's answer is not understood: {message}")]
    Protocol {
        /// What was wrong with it.
        message: String,
    },
}

/// Who has to act when a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The asker: another request, token or plan is needed.
    Caller,
    /// The directory, or what stands at its address.
    Directory,
    /// The way to it.
    Network,
}

impl ClientError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            ClientError::Rejected(_)
            | ClientError::Unauthorised { .. }
            | ClientError::Forbidden { .. }
            | ClientError::Invalid { .. }
            | ClientError::Resync => Fault::Caller,
            ClientError::Unreachable { .. } | ClientError::Silent { .. } => Fault::Network,
            ClientError::Failed { .. } | ClientError::Protocol { .. } => Fault::Directory,
        }
    }

    /// Whether the very same request may succeed later. Repeating it is then safe even where the first was carried
    /// out unnoticed: every command either sets a value or names the revision that it was made for.
    pub fn is_retryable(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. } | ClientError::Silent { .. } | ClientError::Failed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use vibra_model::Revision;

    #[test]
    fn only_what_may_pass_by_itself_is_worth_a_retry() {
        let stale = Rejection::Stale { base: Revision(1), changed: Revision(2) };
        let silent = ClientError::Silent { address: "h:1".into(), after: Duration::from_secs(5) };
        assert!(silent.is_retryable());
        assert_eq!(silent.fault(), Fault::Network);
        assert!(!ClientError::from(stale).is_retryable());
        assert!(!ClientError::Resync.is_retryable());
        assert_eq!(ClientError::Failed { status: 503, message: "full".into() }.fault(), Fault::Directory);
    }

    #[test]
    fn the_message_does_not_repeat_its_cause() {
        let refused = ClientError::from(Rejection::Stale { base: Revision(1), changed: Revision(2) });
        assert!(!refused.to_string().contains("revision 1"));
        assert!(refused.source().unwrap().to_string().contains("revision 1"));
    }
}
