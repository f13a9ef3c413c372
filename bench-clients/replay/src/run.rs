//! A replay from beginning to end.

use crate::message::Messages;
use crate::progress::{Counters, Progress};
use crate::record::Record;
use crate::summary::Effort;
use crate::worker::{Job, work};
use crate::{Mode, Options, ReplayError, Summary, os};
use std::panic;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use vibra_trace::Trace;

/// What comes out of one thread.
type Part = (Record, Effort);

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Time for the threads to get ready before the first request is due.
const LEAD: Duration = Duration::from_millis(20);

/// Longest replay.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);

/// Replays `trace` on threads of its own and tells `progress` ten times a second, and once more at the end.
///
/// Blocks the calling thread until the last request is over; async code calls it from `spawn_blocking`. The wait is
/// bounded: a request is over when [`Options::timeout`] has passed. May raise the process's soft limit on open files.
/// The generator threads go before others where they may ([`Summary::generator_nice`]).
///
/// # Errors
///
/// If an option is out of its range, the replay would last longer than a year, or a thread, timer or event loop could
/// not be had. What goes wrong with single requests is in the [`Summary`].
pub fn replay(trace: &Trace, options: &Options, progress: impl FnMut(Progress)) -> Result<Summary, ReplayError> {
    options.check()?;
    let planned = planned(trace, options)?;
    os::make_room(options.connections);
    let job = Job {
        trace,
        options,
        messages: Messages::new(trace, options)?,
        start: Instant::now() + LEAD,
        counters: Counters::default(),
        next: 0.into(),
    };
    let (record, effort): Part = thread::scope(|scope| {
        // Nothing is sent: the channel closes when the last thread is done.
        let (alive, done) = channel::<()>();
        let worker = |number| {
            let (job, alive) = (&job, alive.clone());
            let body = move || {
                let _alive = alive;
                work(job, number)
            };
            let builder = thread::Builder::new().name(format!("replay-{number}"));
            builder.spawn_scoped(scope, body)
        };
        let spawned: Result<Vec<_>, _> = (0..options.threads).map(worker).collect();
        let workers = spawned.map_err(|source| ReplayError::Setup { what: "a thread was refused", source })?;
        drop(alive);
        watch(&job, planned, &done, progress);
        let join = |worker: ScopedJoinHandle<'_, Result<Part, ReplayError>>| {
            worker.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        };
        let parts: Vec<Part> = workers.into_iter().map(join).collect::<Result<_, _>>()?;
        let merge = |mut sum: Part, part: Part| {
            sum.0.merge(part.0);
            sum.1.merge(part.1);
            sum
        };
        Ok(parts.into_iter().reduce(merge).expect("there is at least one thread"))
    })?;
    Ok(Summary::new(options, &record, effort))
}

/// How many requests are to be sent, if the schedule can be kept.
fn planned(trace: &Trace, options: &Options) -> Result<u64, ReplayError> {
    let Mode::Open { speed, .. } = options.mode else { return Ok(trace.requests.len() as u64) };
    let stop = options.stop_after.unwrap_or(Duration::MAX);
    // In f64, as a hostile trace's times may become too long for Duration.
    let last = trace.requests.last().map_or(0.0, |last| last.at.as_secs_f64());
    let seconds = (last + trace.resolution.as_secs_f64()) / speed;
    if seconds.min(stop.as_secs_f64()) > MAX_DURATION.as_secs_f64() {
        return Err(ReplayError::TooLong(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).min(stop)));
    }
    let in_time = |request: &vibra_trace::Request| request.at.as_secs_f64() / speed < stop.as_secs_f64();
    Ok(trace.requests.partition_point(in_time) as u64)
}

/// Tells progress until all threads are done.
fn watch(job: &Job<'_>, planned: u64, done: &Receiver<()>, mut progress: impl FnMut(Progress)) {
    loop {
        let over = done.recv_timeout(PROGRESS_EVERY) == Err(RecvTimeoutError::Disconnected);
        progress(job.counters.read(job.start.elapsed(), planned));
        if over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spread;
    use vibra_trace::{LoggedBytes, Method, Objects, Origin, Request};

    fn trace(last: Duration) -> Trace {
        let mut objects = Objects::new();
        let object = objects.intern("/");
        let request =
            |at| Request { at, client: 0, object, bytes: LoggedBytes::NONE, method: Method::Get, status: 200 };
        let requests = vec![request(Duration::ZERO), request(last)];
        let origin = Origin::Synthetic { seed: 0 };
        Trace { name: "test".into(), origin, start: None, resolution: Duration::ZERO, objects, requests }
    }

    fn options(speed: f64, stop_after: Option<Duration>) -> Options {
        let mode = Mode::Open { speed, spread: Spread::Burst };
        Options { stop_after, ..Options::new(([127, 0, 0, 1], 80).into(), mode) }
    }

    #[test]
    fn what_would_last_for_ever_is_refused() {
        let trace = trace(Duration::from_secs(u64::MAX));
        let refusal = planned(&trace, &options(0.5, None)).expect_err("too long").to_string();
        assert!(refusal.contains("raise the speed, or set a time after which it stops"), "{refusal}");
        assert_eq!(planned(&trace, &options(0.5, Some(Duration::from_secs(9)))).expect("short"), 1);
    }

    #[test]
    fn requests_after_the_stop_are_not_planned() {
        let trace = trace(Duration::from_secs(10));
        for (speed, stop, expected) in [(1.0, None, 2), (1.0, Some(10), 1), (2.0, Some(10), 2)] {
            let options = options(speed, stop.map(Duration::from_secs));
            assert_eq!(planned(&trace, &options).expect("short"), expected);
        }
    }
}
