//! A generator thread.

use crate::exchange::{Failure, judge};
use crate::message::{Expected, Message, Messages};
use crate::os::{cpu_time, take_precedence};
use crate::pacer::Pacer;
use crate::pool::Pool;
use crate::progress::Counters;
use crate::record::{Record, Sample};
use crate::summary::Effort;
use crate::{Mode, Options, ReplayError};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::time::timeout_at;
use vibra_trace::Trace;

/// What all generator threads of a replay share.
pub(crate) struct Job<'a> {
    pub(crate) trace: &'a Trace,
    pub(crate) options: &'a Options,
    pub(crate) messages: Messages<'a>,
    /// When the replay begins.
    pub(crate) start: Instant,
    pub(crate) counters: Counters,
    /// Closed loop: which request is sent next.
    pub(crate) next: AtomicUsize,
}

/// How many overdue requests may be sent before sockets are looked at again.
const SENT_AT_ONCE: usize = 32;

/// Does the part of `job` that is the thread's with this number, on the calling thread.
pub(crate) fn work(job: &Job<'_>, thread: usize) -> Result<(Record, Effort), ReplayError> {
    let nice = take_precedence();
    let setup = |what| move |source| ReplayError::Setup { what, source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(setup("an event loop was refused"))?;
    let worker = Worker {
        job,
        pool: Pool::new(job.options.target, job.options.share(job.options.connections, thread)),
        record: RefCell::new(Record::new(job.options.warm_up)),
    };
    let cpu = cpu_time();
    runtime.block_on(worker.run(thread)).map_err(setup("a timer was refused"))?;
    let cpu = cpu_time().saturating_sub(cpu);
    let effort = Effort {
        connections: worker.pool.opened(),
        retries: worker.pool.retries(),
        cpu,
        nice,
        busiest: cpu.as_secs_f64() / job.start.elapsed().as_secs_f64(),
    };
    Ok((worker.record.into_inner(), effort))
}

struct Worker<'a> {
    job: &'a Job<'a>,
    pool: Pool,
    record: RefCell<Record>,
}

impl Worker<'_> {
    async fn run(&self, thread: usize) -> io::Result<()> {
        let mut pacer = Pacer::new()?;
        pacer.until(self.job.start).await?;
        match self.job.options.mode {
            Mode::Open { speed, spread } => {
                let stop = self.job.options.stop_after.unwrap_or(Duration::MAX);
                let dues = self.job.trace.schedule(speed, spread).map(|(_, due)| due);
                let schedule = dues
                    .enumerate()
                    .take_while(|&(_, due)| due < stop)
                    .filter(|(index, _)| index % self.job.options.threads == thread);
                self.open_loop(schedule, pacer).await
            }
            Mode::Closed { concurrency } => {
                let clients = (0..self.job.options.share(concurrency, thread)).map(|_| self.client());
                clients.collect::<FuturesUnordered<_>>().collect::<()>().await;
                Ok(())
            }
        }
    }

    /// Sends each request when it is due, however many are under way.
    async fn open_loop(&self, schedule: impl Iterator<Item = (usize, Duration)>, mut pacer: Pacer) -> io::Result<()> {
        let mut under_way = FuturesUnordered::new();
        let mut overdue = 0;
        for (index, due) in schedule {
            let at = self.job.start + due;
            if Instant::now() < at {
                overdue = 0;
            } else {
                overdue += 1;
            }
            loop {
                tokio::select! {
                    biased;
                    waited = pacer.until(at) => break waited?,
                    Some(()) = under_way.next() => {}
                }
            }
            under_way.push(self.request(index, Some(due)));
            // Sends it.
            poll_fn(|context| Poll::Ready(under_way.poll_next_unpin(context).is_ready())).await;
            if overdue >= SENT_AT_ONCE {
                overdue = 0;
                tokio::task::yield_now().await;
            }
        }
        under_way.collect::<()>().await;
        Ok(())
    }

    /// Sends a request whenever the one before is over.
    async fn client(&self) {
        let stop = self.job.options.stop_after.unwrap_or(Duration::MAX);
        while self.job.start.elapsed() < stop {
            let index = self.job.next.fetch_add(1, Relaxed);
            if index >= self.job.trace.requests.len() {
                break;
            }
            self.request(index, None).await;
        }
    }

    /// One request of the trace, due at a time since the beginning or now.
    async fn request(&self, index: usize, due: Option<Duration>) {
        let Some((message, expected)) = self.job.messages.message(&self.job.trace.requests[index]) else {
            self.record.borrow_mut().skipped += 1;
            return;
        };
        self.job.counters.start();
        let sent = self.job.start.elapsed();
        let due = due.unwrap_or(sent);
        let deadline = self.job.start + due + self.job.options.timeout;
        let outcome = timeout_at(deadline.into(), self.exchange(message, expected)).await;
        let outcome = outcome.unwrap_or(Err(Failure::Timeout));
        self.job.counters.finish(outcome.as_ref().ok().copied());
        let finished = self.job.start.elapsed();
        self.record.borrow_mut().add(Sample { due, sent, finished, outcome });
    }

    async fn exchange(&self, message: Message, expected: Expected) -> Result<u64, Failure> {
        judge(self.pool.exchange(message).await?, expected)
    }
}
