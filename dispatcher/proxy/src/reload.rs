//! Taking over a changed configuration while requests go on: as a whole, or not at all.

use crate::config::{Config, Source};
use crate::error::{Chain, StartError};
use serde::Serialize;
use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};
use vibra_model::Timestamp;

/// Reads the configuration again, from wherever it came; called at every reload, on a thread that may block.
pub type Loader = Box<dyn Fn() -> Result<Config, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// Why a configuration was not taken over. Nothing of it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// There is none to read.
    #[error("there is no configuration to read again: this dispatcher was started without a file")]
    Nowhere,
    /// It cannot be read.
    #[error("{0}")]
    Load(#[source] Box<dyn Error + Send + Sync>),
    /// It makes no sense.
    #[error(transparent)]
    Invalid(#[from] StartError),
    /// It changes what is fixed while the dispatcher runs.
    #[error("{what} cannot change while the dispatcher runs: restart it, or change that back")]
    Fixed {
        /// The parts, by the names of the fields of [`Config`].
        what: String,
    },
    /// The dispatcher is coming to its end.
    #[error("the dispatcher is stopping")]
    Stopping,
}

/// A reload: when it was, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reload {
    /// When it was.
    pub at: Timestamp,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: ReloadOutcome,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadOutcome {
    /// The configuration holds.
    Applied {
        /// The parts that differ from what held before, by the names of the fields of [`Config`].
        changed: Vec<&'static str>,
    },
    /// What held before still holds.
    Refused {
        /// What is wrong, and with what.
        why: String,
    },
}

/// The reloads since the start.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    pub(crate) applied: u64,
    pub(crate) refused: u64,
    pub(crate) last: Option<Reload>,
}

impl Reloads {
    /// Takes note of one, for operators to see.
    pub(crate) fn note(&mut self, result: &Result<Vec<&'static str>, ReloadError>) {
        let outcome = match result {
            Ok(changed) => {
                self.applied += 1;
                tracing::info!(target: "operator", "configuration reloaded; changed: {}", Listed(changed));
                ReloadOutcome::Applied { changed: changed.clone() }
            }
            Err(error) => {
                self.refused += 1;
                let why = Chain(error).to_string();
                tracing::error!(target: "operator", "configuration not reloaded, the old one stays: {why}");
                ReloadOutcome::Refused { why }
            }
        };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last = Some(Reload { at: Timestamp(0).after(since_epoch), outcome });
    }
}

/// Names in a row, or that there are none.
struct Listed<'a>(&'a [&'static str]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { f.write_str("nothing") } else { f.write_str(&self.0.join(", ")) }
    }
}

/// Which parts of a configuration differ.
///
/// # Errors
/// If one of them is fixed while the dispatcher runs.
pub(crate) fn changes(old: &Config, new: &Config) -> Result<Vec<&'static str>, ReloadError> {
    // Whole, so that a new part cannot be forgotten here.
    let Config {
        listen,
        admin,
        threads,
        settings,
        source,
        manner,
        health,
        timeouts,
        limits,
        drain,
        peers,
        access_log,
        trace,
        tls,
        server_tls,
        http2,
    } = new;
    let differing = |parts: &[(&'static str, bool)]| -> Vec<_> {
        parts.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
    };
    let (servers, origin) = match (&old.source, source) {
        (Source::Static(old), Source::Static(new)) => (old != new, false),
        (Source::Directory { customer: old, .. }, Source::Directory { customer: new, .. }) => (false, old != new),
        _ => (false, true),
    };
    let mut fixed = differing(&[
        ("listen", *listen != old.listen),
        ("admin", *admin != old.admin),
        ("threads", *threads != old.threads),
        ("source", origin),
        ("timeouts.tick", timeouts.tick != old.timeouts.tick),
        ("access_log", *access_log != old.access_log),
        ("trace", *trace != old.trace),
        ("http2", *http2 != old.http2),
        ("tls.listen", tls.as_ref().map(|tls| &tls.listen) != old.tls.as_ref().map(|tls| &tls.listen)),
    ]);
    // What all threads keep count of together.
    let (was, is) = (&old.limits, limits);
    fixed.extend(differing(&[
        ("limits.connections", is.connections != was.connections),
        ("limits.connections_per_address", is.connections_per_address != was.connections_per_address),
        ("limits.rate", is.rate != was.rate),
        ("limits.requests_per_server", is.requests_per_server != was.requests_per_server),
        ("limits.queue_per_server", is.queue_per_server != was.queue_per_server),
        ("limits.memory", is.memory != was.memory),
        ("limits.retry_percent", is.retry_percent != was.retry_percent),
        ("limits.retries_per_second", is.retries_per_second != was.retries_per_second),
    ]));
    if !fixed.is_empty() {
        return Err(ReloadError::Fixed { what: fixed.join(", ") });
    }
    Ok(differing(&[
        ("servers", servers),
        ("manner", *manner != old.manner),
        ("settings", *settings != old.settings),
        ("health.active", health.active != old.health.active),
        ("health.passive", health.passive != old.health.passive),
        ("health.slow_start", health.slow_start != old.health.slow_start),
        ("timeouts", *timeouts != old.timeouts),
        ("limits", *limits != old.limits),
        ("tls", *tls != old.tls),
        ("server_tls", *server_tls != old.server_tls),
        ("peers", *peers != old.peers),
        ("drain", *drain != old.drain),
    ]))
}
