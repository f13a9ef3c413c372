//! How a command ends: its exit code, and the errors that choose one.

use std::process::ExitCode;

/// Everything that a command can end with but success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not go on.
    Runtime(anyhow::Error),
    /// It was asked for something that makes no sense.
    Usage(anyhow::Error),
    /// It ran, and a stated threshold was missed.
    Missed(String),
    /// It ran, and what it measured means nothing.
    Void(String),
}

impl Failure {
    /// Wrong usage or configuration.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Failure::Usage(error.into())
    }

    /// Says what happened on standard error; the exit code follows the table in the help text.
    pub(crate) fn report(self) -> ExitCode {
        let (code, text) = match self {
            // The whole chain of causes, once.
            Failure::Runtime(error) => (1, format!("error: {error:#}")),
            Failure::Usage(error) => (2, format!("error: {error:#}")),
            Failure::Missed(what) => (3, format!("threshold missed: {what}")),
            Failure::Void(why) => (4, format!("the run is void: {why}")),
        };
        eprintln!("{text}");
        ExitCode::from(code)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Runtime(error.into())
    }
}

/// What a command returns.
pub(crate) type Outcome = Result<(), Failure>;
