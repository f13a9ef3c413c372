//! Waiting for a point in time, to some tens of microseconds.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer of the kernel's high resolution clock, in the runtime's own epoll set.
///
/// Tokio's timers round up to a whole millisecond, which would add half a millisecond to the mean response time (it
/// counts from when a request was due). Spinning would be exact, but takes the processor from the servers under test.
/// A timerfd wakes the thread that sleeps in epoll_wait anyway, at the cost of one system call a request.
pub(crate) struct Pacer {
    timer: AsyncFd<OwnedFd>,
    /// What the timer is set to.
    armed: Option<Instant>,
}

impl Pacer {
    /// Must be called within the runtime that drives it.
    #[expect(
        deprecated,
        reason = "its successor is unsafe, as a descriptor might be closed under it; an OwnedFd is not, and unsafe code \
                  is forbidden here"
    )]
    pub(crate) fn new() -> io::Result<Pacer> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Pacer { timer: AsyncFd::with_interest(timer, Interest::READABLE)?, armed: None })
    }

    /// Waits until `due`. May be dropped at any time.
    pub(crate) async fn until(&mut self, due: Instant) -> io::Result<()> {
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            if self.armed != Some(due) {
                self.arm(wait)?;
                self.armed = Some(due);
            }
            // Setting the timer again also takes back its expiry, so that it need not be read.
            self.timer.readable().await?.clear_ready();
            self.armed = None;
        }
    }

    fn arm(&self, wait: Duration) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
        let once = Itimerspec { it_interval: zero, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
    }

    /// How long after each of a hundred points in time, 700 µs apart, the wait for it ended; sorted.
    async fn lags(pacer: &mut Pacer) -> Vec<Duration> {
        let start = Instant::now();
        let mut lags = Vec::new();
        for k in 1..=100 {
            let due = start + Duration::from_micros(700) * k;
            pacer.until(due).await.expect("the timer works");
            lags.push(Instant::now().checked_duration_since(due).expect("no wait ends early"));
        }
        lags.sort();
        lags
    }

    #[test]
    fn it_is_more_exact_than_a_clock_of_milliseconds() {
        run(async {
            let mut pacer = Pacer::new().expect("a timer");
            // With Tokio's timers half of the waits would end more than 500 µs late. Others who use the machine may
            // do that to one round, or to some.
            let mut medians = Vec::new();
            while medians.iter().all(|&median| median > Duration::from_micros(400)) {
                assert!(medians.len() < 20, "{medians:?}");
                medians.push(lags(&mut pacer).await[50]);
            }
        });
    }

    #[test]
    fn a_wait_that_is_dropped_does_not_spoil_the_next() {
        run(async {
            let mut pacer = Pacer::new().expect("a timer");
            let soon = Instant::now() + Duration::from_millis(1);
            tokio::select! {
                biased;
                _ = pacer.until(soon) => panic!("not yet"),
                () = std::future::ready(()) => {}
            }
            let later = soon + Duration::from_millis(20);
            pacer.until(later).await.expect("the timer works");
            assert!(Instant::now() >= later);
            // The past is no wait.
            pacer.until(soon).await.expect("the timer works");
        });
    }
}
