//! The loop: every interval a decision.

use crate::{
    Core, Decision, Entry, Inputs, LOG_SIZE, Log, Outcome, Recipe, Shadowed, Stage, Verdict,
    failures::Failures,
    log_file::{About, LogFile, Made},
    moves::Mover,
};
use std::{
    fmt,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use vibra_client::{ClientError, Directory, Follower, follow};
use vibra_model::{Command, CustomerId, Plan, Rejection, Snapshot, Timestamp, UsageWindow};
use vibra_policy::View;

/// The time between decisions unless it is configured (section 3.5).
pub const INTERVAL: Duration = Duration::from_secs(3);
/// How often a decision is made anew within one interval because allocations changed meanwhile.
const TRIES: usize = 3;
/// How far back usage is asked for beyond the last answer. Hosts' clocks may run behind the allocator's by so much;
/// policies count each sample once anyway.
const OVERLAP: Duration = Duration::from_secs(10);
/// The longest wait for one answer of the directory.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the policies' state is written while the allocator runs.
const SAVES: Duration = Duration::from_secs(30);

/// What tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp::ZERO.after(since_1970.unwrap_or(Duration::ZERO))
    })
}

/// How an [`Allocator`] runs.
#[derive(Clone)]
pub struct Settings {
    /// The time between decisions; above zero.
    pub interval: Duration,
    /// Where every decision is appended as a [line](crate::Line) of JSON; nowhere if `None`.
    pub log_file: Option<PathBuf>,
    /// How large the log file grows, in bytes, before a new one is begun.
    pub log_size: u64,
    /// The policies by name, as the log has them.
    pub recipe: Recipe,
    /// Where the policies' state is kept over restarts; nowhere if `None`.
    pub state_file: Option<PathBuf>,
    /// Whether plans are proposed.
    pub mode: Mode,
    /// What tells the time.
    pub clock: Clock,
}

/// Whether plans are proposed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    #[default]
    Real,
    /// They are made, checked and logged, and nothing is changed.
    DryRun,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            interval: INTERVAL,
            log_file: None,
            log_size: LOG_SIZE,
            recipe: Recipe::default(),
            state_file: None,
            mode: Mode::Real,
            clock: system_clock(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Settings");
        debug.field("interval", &self.interval).field("log_file", &self.log_file).field("mode", &self.mode);
        debug.finish_non_exhaustive()
    }
}

/// Policies that decide beside the real ones, are checked and logged, and change nothing.
#[derive(Debug)]
pub struct Shadow {
    /// What the log calls them.
    pub policies: String,
    /// They.
    pub core: Core,
}

/// Decides for one customer, again and again.
pub struct Allocator {
    directory: Arc<dyn Directory>,
    /// `None` while it decides, on a thread that may block.
    core: Option<Core>,
    shadows: Vec<Shadow>,
    customer: CustomerId,
    settings: Settings,
    log: Log,
    file: Option<LogFile>,
    /// When usage was last received.
    looked: Option<Timestamp>,
    /// When the state was last written.
    saved: Timestamp,
    /// True once it is to stop.
    stopping: watch::Receiver<bool>,
}

/// What a decision is made from.
#[derive(Clone)]
struct Known {
    snapshot: Arc<Snapshot>,
    usage: Arc<UsageWindow>,
    /// Samples up to this time were not asked for.
    from: Timestamp,
}

impl Allocator {
    /// An allocator that has not begun yet.
    pub fn new(directory: Arc<dyn Directory>, core: Core, settings: Settings) -> Self {
        let about = About { customer: core.customer().clone(), recipe: settings.recipe.clone() };
        let log_file = |path: &PathBuf| LogFile::new(path.clone(), settings.log_size, about);
        Allocator {
            directory,
            customer: core.customer().clone(),
            core: Some(core),
            shadows: Vec::new(),
            log: Log::default(),
            file: settings.log_file.as_ref().map(log_file),
            looked: None,
            saved: Timestamp::ZERO,
            stopping: watch::channel(false).1,
            settings,
        }
    }

    /// The same, with policies in the shadow.
    #[must_use]
    pub fn with_shadows(self, shadows: Vec<Shadow>) -> Self {
        Allocator { shadows, ..self }
    }

    /// Its log, to be read while it runs.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Decides every interval, and at once when a VM fails or comes back, until `stop` is done; then returns what has decided, whose state can be saved. A
    /// decision that is under way is finished first, which takes as long as the policies and the directory may take.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> Core {
        self.begin().await;
        let follower = follow(self.directory.clone());
        let mut ticks = interval(self.settings.interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = Failures::new(&follower, self.customer.clone());
        let (tell, stopping) = watch::channel(false);
        self.stopping = stopping.clone();
        let working = async {
            loop {
                tokio::select! {
                    biased;
                    () = told(stopping.clone()) => break,
                    _ = ticks.tick() => self.interval(&follower).await,
                    () = failures.next() => self.interval(&follower).await,
                }
            }
        };
        let stopped = async {
            stop.await;
            tell.send_replace(true);
        };
        tokio::join!(stopped, working);
        self.save_state().await;
        self.core.expect("nothing is being decided")
    }

    /// Takes over where an earlier allocator stopped.
    async fn begin(&mut self) {
        let customer = self.customer.clone();
        if let Some(path) = self.settings.state_file.clone() {
            let restored = self.blocking(move |core, _| restore_state(core, &path)).await;
            match restored {
                Ok(true) => tracing::info!(%customer, "the policies go on with their saved state"),
                Ok(false) => {}
                Err(why) => tracing::warn!(%customer, "the policies begin afresh: {why}"),
            }
        }
        match self.file.as_ref().map(LogFile::last_id).transpose() {
            Ok(last) => self.log.go_on_after(last.unwrap_or(0)),
            Err(error) => tracing::error!(%customer, "decision log cannot be read: {error}"),
        }
        self.saved = (self.settings.clock)();
    }

    /// Works with the policies on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Core, &mut [Shadow]) -> T + Send + 'static,
    ) -> T {
        let (mut core, mut shadows) = (self.core.take().expect("one at a time"), std::mem::take(&mut self.shadows));
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut core, &mut shadows);
            (core, shadows, done)
        });
        let (core, shadows, done) = match done.await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        (self.core, self.shadows) = (Some(core), shadows);
        done
    }

    /// One interval's decision, and what becomes of it.
    async fn interval(&mut self, follower: &Follower) {
        let Ok(mut snapshot) = timeout(self.settings.interval, follower.current()).await else {
            let link = follower.link().borrow().clone();
            return self.note(Outcome::Held { why: format!("the directory is not heard: {link:?}") }).await;
        };
        let now = (self.settings.clock)();
        // Without a last time, the last interval's usage is enough to begin with.
        let from = Timestamp(self.looked.unwrap_or(now).0.saturating_sub(OVERLAP.as_micros() as u64));
        let usage = match patient(self.directory.usage(from)).await {
            Ok(usage) => Arc::new(usage),
            Err(error) => return self.note(failed(&error)).await,
        };
        self.looked = Some(now);
        for _ in 0..TRIES {
            let entry = self.decide(Known { snapshot, usage: usage.clone(), from }).await;
            if !matches!(entry.outcome, Outcome::Stale { .. }) {
                if matches!(entry.outcome, Outcome::Accepted { .. }) && !entry.plan.moves.is_empty() {
                    let mover = Mover { directory: self.directory.clone(), follower, stopping: self.stopping.clone() };
                    mover.make_all(&entry, self).await;
                }
                break;
            }
            // The follower may not have heard of it yet.
            match patient(self.directory.snapshot()).await {
                Ok(newest) => snapshot = Arc::new(newest),
                Err(error) => return self.note(failed(&error)).await,
            }
        }
        if now.since(self.saved) >= SAVES {
            self.save_state().await;
        }
    }

    /// Decides, has that carried out and logs it.
    async fn decide(&mut self, known: Known) -> Arc<Entry> {
        let (now, wants_state) = ((self.settings.clock)(), self.file.as_ref().is_some_and(LogFile::wants_state));
        let of = known.clone();
        let (state, decision) = self
            .blocking(move |core, _| {
                let state = wants_state.then(|| core.save());
                (state, of.decided_by(core, now))
            })
            .await;
        let outcome = propose(&*self.directory, self.settings.mode, &decision).await;
        let stale = matches!(outcome, Outcome::Stale { .. });
        let mut entry = entry(decision, outcome);
        if !stale {
            let of = known.clone();
            let step = move |_: &mut Core, shadows: &mut [Shadow]| -> Vec<_> {
                shadows.iter_mut().map(|shadow| shadow.step(&of, now)).collect()
            };
            for (shadowed, alarms) in self.blocking(step).await {
                entry.alarms.extend(alarms);
                entry.shadows.push(shadowed);
            }
        }
        let made = Made { snapshot: &known.snapshot, usage: &known.usage, from: known.from, state };
        self.record(entry, Some(made)).await
    }

    /// Logs that nothing was decided.
    pub(crate) async fn note(&mut self, outcome: Outcome) {
        let nothing = Decision {
            at: (self.settings.clock)(),
            inputs: Inputs::default(),
            plan: Plan::default(),
            verdict: Verdict::Nothing,
            alarms: Vec::new(),
        };
        self.record(entry(nothing, outcome), None).await;
    }

    async fn record(&mut self, entry: Entry, made: Option<Made<'_>>) -> Arc<Entry> {
        let customer = self.customer.clone();
        entry.alarms.iter().for_each(|alarm| tracing::error!(%customer, "{alarm}"));
        match &entry.outcome {
            Outcome::Accepted { revision } => {
                tracing::debug!(%customer, %revision, changes = entry.plan.actions.len(), "plan accepted");
            }
            Outcome::Nothing => tracing::trace!(%customer, "nothing to change"),
            Outcome::DryRun => {
                tracing::info!(%customer, changes = entry.plan.actions.len(), "dry run: nothing is changed");
            }
            Outcome::Move { vm, from, to, stage: Stage::Failed { why, left_out }, .. } => {
                tracing::warn!(%customer, left_out, "VM {vm} is not moved from host {from} to host {to}: {why}");
            }
            Outcome::Move { vm, from, to, stage, .. } => {
                tracing::info!(%customer, "VM {vm} moves from host {from} to host {to}: {stage:?}");
            }
            // Usual until the first reports come in.
            Outcome::Held { why } => tracing::info!(%customer, "no decision: {why}"),
            other => tracing::warn!(%customer, outcome = ?other, "no change made"),
        }
        let entry = self.log.record(entry);
        if let Some(file) = &mut self.file
            && let Err(error) = file.write(&entry, made).await
        {
            self.log.line_lost();
            tracing::error!(%customer, file = ?self.settings.log_file, "decision log cannot be written: {error}");
        }
        entry
    }

    async fn save_state(&mut self) {
        self.saved = (self.settings.clock)();
        let Some(path) = self.settings.state_file.clone() else { return };
        if let Err(error) = self.blocking(move |core, _| write_state(core, &path)).await {
            let (customer, file) = (&self.customer, &self.settings.state_file);
            tracing::error!(%customer, ?file, "the policies' state cannot be written: {error}");
        }
    }
}

impl Known {
    fn decided_by(&self, core: &mut Core, now: Timestamp) -> Decision {
        let customer = core.customer().clone();
        core.decide(&View::shared(&self.snapshot, &customer, &self.usage), now)
    }
}

impl Shadow {
    /// What it would do, and its alarms.
    fn step(&mut self, known: &Known, now: Timestamp) -> (Shadowed, Vec<String>) {
        let decision = known.decided_by(&mut self.core, now);
        let faults = match decision.verdict {
            Verdict::Faulty(faults) => faults.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let alarms = decision.alarms.into_iter().map(|alarm| format!("in the shadow: {alarm}")).collect();
        (Shadowed { policies: self.policies.clone(), plan: decision.plan, faults }, alarms)
    }
}

fn entry(decision: Decision, outcome: Outcome) -> Entry {
    let Decision { at, inputs, plan, alarms, .. } = decision;
    Entry { id: 0, at, inputs, plan, outcome, alarms, shadows: Vec::new() }
}

/// Waits until it is to stop.
async fn told(mut stopping: watch::Receiver<bool>) {
    // Without its sender, too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Waits for the directory, but not for ever.
pub(crate) async fn patient<T>(request: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let silent = |_| ClientError::Silent { address: "the directory".to_owned(), after: PATIENCE };
    timeout(PATIENCE, request).await.map_err(silent)?
}

/// Gives the policies the state in `path`; false if there is none.
fn restore_state(core: &mut Core, path: &Path) -> Result<bool, String> {
    let wrong = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(wrong(&error)),
    };
    let state = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    core.restore(&state).map(|()| true).map_err(|error| wrong(&error))
}

/// Writes the policies' state so that the file is always whole.
fn write_state(core: &Core, path: &Path) -> std::io::Result<()> {
    let beside = path.with_added_extension("new");
    std::fs::write(&beside, core.save().to_string())?;
    std::fs::rename(beside, path)
}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Allocator");
        debug.field("core", &self.core).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Has the decision carried out.
async fn propose(directory: &dyn Directory, mode: Mode, decision: &Decision) -> Outcome {
    let checked = match &decision.verdict {
        Verdict::Propose(_) if mode == Mode::DryRun => return Outcome::DryRun,
        Verdict::Propose(checked) => checked,
        Verdict::Nothing => return Outcome::Nothing,
        Verdict::TooOld => return Outcome::Held { why: "there is no new usage".to_owned() },
        Verdict::Faulty(faults) => {
            return Outcome::Faulty { faults: faults.iter().map(ToString::to_string).collect() };
        }
    };
    match patient(directory.command(Command::Propose(checked.proposal()))).await {
        Ok(accepted) => Outcome::Accepted { revision: accepted.revision },
        Err(ClientError::Rejected(stale @ Rejection::Stale { .. })) => Outcome::Stale { why: stale.to_string() },
        Err(ClientError::Rejected(refused)) => Outcome::Refused { why: refused.to_string() },
        Err(error) => failed(&error),
    }
}

fn failed(error: &ClientError) -> Outcome {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Outcome::Failed { why: format!("{error}{cause}") }
}

#[cfg(test)]
#[path = "allocator_tests.rs"]
mod tests;
