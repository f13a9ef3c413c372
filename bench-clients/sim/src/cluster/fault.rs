//! What goes wrong, and when.

use std::{fmt, str::FromStr, time::Duration};
use vibra_model::Resource;

/// Something that goes wrong with a VM or host for a while: `vm2:down@60s..90s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The VM or host.
    pub of: String,
    /// What.
    pub kind: FaultKind,
    /// From when on.
    pub from: Duration,
    /// Until when; `None`: to the end.
    pub until: Option<Duration>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It fails, with all its requests, and starts again with a cold cache. A host fails with its VMs, and is silent.
    Down,
    /// An actuator does nothing: a balloon that does not inflate, a rate that stays. What it has is read back as it is.
    Stuck(Resource),
    /// The sensors tell again and again what they told last.
    Stale,
}

/// A text that is no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no fault: {why}; write NAME:WHAT@FROM..UNTIL, such as vm2:down@60s..90s, vm1:stuck-memory@10s, or \
         vm3:stale@10s..40s"
)]
pub struct FaultError {
    text: String,
    why: String,
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let wrong = |why: String| FaultError { text: text.to_owned(), why };
        let (of, rest) = text.split_once(':').ok_or_else(|| wrong("it names nobody".into()))?;
        let (kind, times) = rest.split_once('@').ok_or_else(|| wrong("it does not say when".into()))?;
        let kind = match kind.split_once('-') {
            None if kind == "down" => FaultKind::Down,
            None if kind == "stale" => FaultKind::Stale,
            Some(("stuck", resource)) => FaultKind::Stuck(resource.parse().map_err(wrong)?),
            _ => return Err(wrong(format!("{kind:?} is not down, stale or stuck-RESOURCE"))),
        };
        let time = |text: &str| humantime::parse_duration(text).map_err(|error| wrong(format!("{text:?}: {error}")));
        let (from, until) = match times.split_once("..") {
            Some((from, until)) => (time(from)?, Some(time(until)?)),
            None => (time(times)?, None),
        };
        if until.is_some_and(|until| until <= from) {
            return Err(wrong("it ends before it begins".into()));
        }
        Ok(Fault { of: of.to_owned(), kind, from, until })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::Down => "down".to_owned(),
            FaultKind::Stuck(resource) => format!("stuck-{resource}"),
            FaultKind::Stale => "stale".to_owned(),
        };
        write!(f, "{}:{kind}@{}", self.of, humantime::format_duration(self.from))?;
        self.until.map_or(Ok(()), |until| write!(f, "..{}", humantime::format_duration(until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_written_as_they_are_read() {
        for text in ["vm2:down@1m..1m 30s", "vm1:stuck-memory@10s", "h1:down@500ms", "vm3:stale@10s..40s"] {
            assert_eq!(text.parse::<Fault>().expect("a fault").to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("down@5s", "names nobody"),
            ("vm1:down", "when"),
            ("vm1:up@5s", "not down"),
            ("vm1:stuck-disk@5s", "disk"),
            ("vm1:down@9s..5s", "before it begins"),
            ("vm1:down@5", "\"5\""),
        ] {
            let error = text.parse::<Fault>().expect_err("wrong").to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
