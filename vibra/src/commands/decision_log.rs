//! What `explain --decision` and `replay-decisions` share: where the log is, and how its numbers are shown.

use crate::{
    config::{self, Config},
    exit::Failure,
};
use anyhow::{Context, anyhow};
use std::{
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};
use vibra_daemon::{Line, read_log};
use vibra_model::{CustomerId, Resource, Timestamp};

/// Where a decision log is: a file, or what a configuration says.
pub(super) struct Place<'a> {
    pub(super) log: Option<&'a Path>,
    pub(super) config: &'a Path,
    pub(super) customer: Option<&'a CustomerId>,
}

impl Place<'_> {
    /// The log's file.
    ///
    /// # Errors
    /// If neither option nor configuration names one.
    pub(super) fn file(&self) -> Result<PathBuf, Failure> {
        if let Some(log) = self.log {
            return Ok(log.to_owned());
        }
        let config = Config::load(self.config).map_err(Failure::Usage)?;
        let named = config.allocator.as_ref().and_then(|allocator| allocator.log.as_ref());
        let none = || Failure::Usage(anyhow!("{} names no decision log: use --log FILE", self.config.display()));
        let path = named.ok_or_else(none)?;
        let customer = match (self.customer, &config.customers[..]) {
            (Some(customer), _) => customer,
            (None, [only]) => &only.id,
            (None, _) => return Err(Failure::Usage(anyhow!("say whose decisions: --customer NAME, or --log FILE"))),
        };
        Ok(config::Allocator::file_of(path, customer, config.customers.len()))
    }

    /// The log's lines, oldest first.
    ///
    /// # Errors
    /// As [`file`](Self::file), or if it cannot be read.
    pub(super) fn lines(&self) -> Result<impl Iterator<Item = anyhow::Result<Line>> + use<>, Failure> {
        let file = self.file()?;
        let lines = read_log(&file).with_context(|| format!("the decision log {}", file.display()))?;
        Ok(lines.map(move |line| line.with_context(|| format!("reading {}", file.display()))))
    }
}

/// An amount in its base unit, in words.
pub(super) fn amount(resource: Resource, raw: u64) -> String {
    resource.amount(raw).to_string()
}

/// A time of day, in UTC.
pub(super) fn time(at: Timestamp) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_micros(at.0)).to_string()
}
