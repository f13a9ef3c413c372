//! The loop: every interval a decision.

use crate::{Core, Decision, Entry, Inputs, Log, Outcome, Verdict};
use std::{
    fmt,
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncWriteExt,
    time::{MissedTickBehavior, interval, timeout},
};
use vibra_client::{ClientError, Directory, Follower, follow};
use vibra_model::{Command, Plan, Rejection, Snapshot, Timestamp};

/// The time between decisions unless it is configured (section 3.5).
pub const INTERVAL: Duration = Duration::from_secs(3);
/// How often a decision is made anew within one interval because allocations changed meanwhile.
const TRIES: usize = 3;
/// How far back usage is asked for beyond the last answer. Hosts' clocks may run behind the allocator's by so much;
/// policies count each sample once anyway.
const OVERLAP: Duration = Duration::from_secs(10);
/// The longest that one interval's requests may take together.
const PATIENCE: Duration = Duration::from_secs(30);

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
    /// Where every decision is appended as a line of JSON; nowhere if `None`.
    pub log_file: Option<PathBuf>,
    /// What tells the time.
    pub clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { interval: INTERVAL, log_file: None, clock: system_clock() }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Settings");
        debug.field("interval", &self.interval).field("log_file", &self.log_file).finish_non_exhaustive()
    }
}

/// Decides for one customer, again and again.
pub struct Allocator {
    directory: Arc<dyn Directory>,
    core: Core,
    settings: Settings,
    log: Log,
    file: Option<File>,
    /// When usage was last received.
    looked: Option<Timestamp>,
}

impl Allocator {
    /// An allocator that has not begun yet.
    pub fn new(directory: Arc<dyn Directory>, core: Core, settings: Settings) -> Self {
        Allocator { directory, core, settings, log: Log::default(), file: None, looked: None }
    }

    /// Its log, to be read while it runs.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Decides every interval until `stop` is done; then returns what has decided, whose state can be saved. A
    /// decision that is under way is finished first, within half a minute.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> Core {
        let follower = follow(self.directory.clone());
        let mut ticks = interval(self.settings.interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return self.core,
                _ = ticks.tick() => self.interval(&follower).await,
            }
        }
    }

    /// One interval's decision, and what becomes of it.
    async fn interval(&mut self, follower: &Follower) {
        if timeout(PATIENCE, self.decide(follower)).await.is_err() {
            let why = format!("the directory took more than {} s", PATIENCE.as_secs());
            self.record(None, Outcome::Failed { why }).await;
        }
    }

    async fn decide(&mut self, follower: &Follower) {
        let Ok(mut snapshot) = timeout(self.settings.interval, follower.current()).await else {
            let link = follower.link().borrow().clone();
            return self.record(None, Outcome::Held { why: format!("the directory is not heard: {link:?}") }).await;
        };
        let now = (self.settings.clock)();
        // Without a last time, the last interval's usage is enough to begin with.
        let since = self.looked.unwrap_or(now).0.saturating_sub(OVERLAP.as_micros() as u64);
        let usage = match self.directory.usage(Timestamp(since)).await {
            Ok(usage) => usage,
            Err(error) => return self.record(None, failed(&error)).await,
        };
        self.looked = Some(now);
        for _ in 0..TRIES {
            let decision = self.core.step(&snapshot, &usage, (self.settings.clock)());
            let outcome = propose(&*self.directory, &decision).await;
            let stale = matches!(outcome, Outcome::Stale { .. });
            self.record(Some(decision), outcome).await;
            if !stale {
                return;
            }
            // The follower may not have heard of it yet.
            match self.directory.snapshot().await {
                Ok(newest) => snapshot = Arc::<Snapshot>::new(newest),
                Err(error) => return self.record(None, failed(&error)).await,
            }
        }
    }

    async fn record(&mut self, decision: Option<Decision>, outcome: Outcome) {
        let (inputs, plan, alarms) = match decision {
            Some(decision) => (decision.inputs, decision.plan, decision.alarms),
            None => (Inputs::default(), Plan::default(), Vec::new()),
        };
        let customer = self.core.customer().clone();
        alarms.iter().for_each(|alarm| tracing::error!(%customer, "{alarm}"));
        match &outcome {
            Outcome::Accepted { revision } => {
                tracing::debug!(%customer, %revision, changes = plan.actions.len(), "plan accepted");
            }
            Outcome::Nothing => tracing::trace!(%customer, "nothing to change"),
            // Usual until the first reports come in.
            Outcome::Held { why } => tracing::info!(%customer, "no decision: {why}"),
            other => tracing::warn!(%customer, outcome = ?other, "no change made"),
        }
        let at = (self.settings.clock)();
        let entry = self.log.record(Entry { id: 0, at, inputs, plan, outcome, alarms });
        if let Err(error) = self.write(&entry).await {
            self.file = None;
            self.log.line_lost();
            tracing::error!(%customer, file = ?self.settings.log_file, "decision log cannot be written: {error}");
        }
    }

    /// Appends an entry to the log file, if there is one; opens it first where needed.
    async fn write(&mut self, entry: &Entry) -> std::io::Result<()> {
        let Some(path) = &self.settings.log_file else { return Ok(()) };
        let mut file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().create(true).append(true).open(path).await?,
        };
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        file.write_all(&line).await?;
        file.flush().await?;
        self.file = Some(file);
        Ok(())
    }
}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Allocator");
        debug.field("core", &self.core).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Has the decision carried out.
async fn propose(directory: &dyn Directory, decision: &Decision) -> Outcome {
    let checked = match &decision.verdict {
        Verdict::Propose(checked) => checked,
        Verdict::Nothing => return Outcome::Nothing,
        Verdict::TooOld => return Outcome::Held { why: "there is no new usage".to_owned() },
        Verdict::Faulty(faults) => {
            return Outcome::Faulty { faults: faults.iter().map(ToString::to_string).collect() };
        }
    };
    match directory.command(Command::Propose(checked.proposal())).await {
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
