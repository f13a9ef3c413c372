//! How figures are to be made.

use crate::progress;
use indicatif::ProgressBar;
use std::{path::PathBuf, time::Duration};

/// How a figure is to be made.
pub(crate) struct Run {
    /// With shorter runs and fewer points.
    pub(crate) quick: bool,
    /// Of everything random.
    pub(crate) seed: u64,
    /// Where traces are that are not part of the project.
    pub(crate) traces: Option<PathBuf>,
    /// To say what is being done.
    pub(crate) bar: ProgressBar,
}

/// Why a figure cannot be made on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unable(pub(crate) String);

impl Run {
    /// Of so many figures, without traces.
    pub(crate) fn new(quick: bool, seed: u64, figures: usize) -> Run {
        let bar = progress::steps(figures as u64);
        bar.enable_steady_tick(Duration::from_millis(200));
        Run { quick, seed, traces: None, bar }
    }
}
