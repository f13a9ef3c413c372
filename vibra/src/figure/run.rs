//! How figures are to be made.

use crate::{parts::stop, progress};
use anyhow::{Context, bail};
use indicatif::ProgressBar;
use std::{
    any::Any, cell::RefCell, collections::BTreeMap, path::PathBuf, rc::Rc, sync::OnceLock, thread, time::Duration,
};
use tokio::{runtime, sync::watch};

/// How a figure is to be made.
pub(crate) struct Run {
    /// With shorter runs and fewer points.
    pub(crate) quick: bool,
    /// Of everything random.
    pub(crate) seed: u64,
    /// Where traces are that are not part of the project.
    pub(crate) traces: Option<PathBuf>,
    /// With VMs in this process even where namespaces could be made.
    pub(crate) in_process: bool,
    /// The most rounds in which whatever is repeated is repeated.
    pub(crate) rounds: u64,
    /// To say what is being done.
    pub(crate) bar: ProgressBar,
    /// Whether the user has asked to stop; listened for from the first live work on, which must not end without its
    /// clean-up. Before that, the system ends the process, and there is nothing to leave behind.
    asked: OnceLock<watch::Receiver<bool>>,
    /// What figures have measured that others show as well.
    shared: RefCell<BTreeMap<&'static str, Rc<dyn Any>>>,
}

/// How much of its time a run has in a quick look.
const QUICK: f64 = 0.4;
/// How long work that was interrupted may take to end: to write files, or to replay the rest of a run.
const LINGER: Duration = Duration::from_secs(15);

/// Why a figure cannot be made on this machine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unable(pub(crate) String);

impl Run {
    /// Of so many figures, one round, without traces.
    pub(crate) fn new(quick: bool, seed: u64, figures: usize) -> Run {
        let bar = progress::steps(figures as u64);
        bar.enable_steady_tick(Duration::from_millis(200));
        let (asked, shared) = (OnceLock::new(), RefCell::default());
        Run { quick, seed, traces: None, in_process: false, rounds: 1, bar, asked, shared }
    }

    /// So many seconds, or less in a quick look.
    pub(crate) fn seconds(&self, whole: u64) -> Duration {
        Duration::from_secs(whole).mul_f64(if self.quick { QUICK } else { 1.0 })
    }

    /// What `make` makes, made once for all figures that ask for it by this name.
    ///
    /// # Errors
    /// What `make` says; it is asked again the next time.
    ///
    /// # Panics
    /// If two things of different types have one name.
    pub(crate) fn once<T: 'static>(
        &self,
        name: &'static str,
        make: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<Rc<T>> {
        let known = self.shared.borrow().get(name).cloned();
        let made = match known {
            Some(known) => known,
            None => Rc::new(make()?),
        };
        self.shared.borrow_mut().insert(name, made.clone());
        Ok(made.downcast().unwrap_or_else(|_| panic!("{name:?} is a name of two things")))
    }

    /// Does work that makes things which must not be left behind: VMs, processes. If the user asks to stop, the work is
    /// dropped and takes along what it made.
    ///
    /// # Errors
    /// What the work says; or that it was stopped.
    pub(crate) fn live<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let asked = self.asked.get_or_init(listen).clone();
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let done = runtime.block_on(async {
            tokio::select! {
                done = work => done,
                () = stop::told(asked) => bail!("stopped as asked for"),
            }
        });
        // What is under way on other threads makes things as well, such as files.
        runtime.shutdown_timeout(LINGER);
        done
    }

    /// Whether the user has asked to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.asked.get().is_some_and(|asked| *asked.borrow())
    }
}

/// Tells when the user asks to stop.
fn listen() -> watch::Receiver<bool> {
    let (ask, asked) = watch::channel(false);
    thread::spawn(move || {
        let waited = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .and_then(|runtime| runtime.block_on(stop::requested()))
            .context("listening for signals");
        match waited {
            Ok(()) => drop(ask.send_replace(true)),
            Err(error) => tracing::warn!("{error:#}: an interrupt leaves VMs behind, which the next run removes"),
        }
    });
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_figures_share_is_made_once_and_a_failure_is_not_kept() {
        let run = Run::new(true, 1, 1);
        assert!(run.once::<u32>("number", || bail!("not yet")).is_err());
        let made = [3, 4].map(|number| *run.once("number", || Ok(number)).expect("made"));
        assert_eq!(made, [3, 3]);
        assert_eq!(run.seconds(10), Duration::from_secs(4));
    }

    #[test]
    fn live_work_returns_what_it_makes() {
        let run = Run::new(false, 1, 1);
        assert_eq!(run.live(async { Ok(7) }).expect("done"), 7);
        assert!(!run.is_stopped());
    }
}
