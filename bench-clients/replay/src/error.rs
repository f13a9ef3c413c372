//! Why a replay did not happen.

use std::io;
use std::time::Duration;

/// Why a replay did not happen. What goes wrong with single requests is counted in
/// [`Summary::errors`](crate::Summary::errors) instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// An option is out of its range.
    #[error("the replay's {option} is {value}; it must be {allowed}")]
    Option {
        /// Which.
        option: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// The trace lasts longer than can be scheduled.
    #[error("the replay would last {0:?}; raise the speed, or set a time after which it stops")]
    TooLong(Duration),
    /// The machine refused what the generator needs before it can start.
    #[error("the load generator could not be set up: {what}")]
    Setup {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}
