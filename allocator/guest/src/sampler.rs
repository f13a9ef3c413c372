//! Estimates a working set over and over, on a thread of its own.

use crate::{
    protocol::{Method, Sampling, WorkingSet},
    working_set::{Observation, estimate},
};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Shorter periods would measure little but themselves.
pub const SHORTEST: Duration = Duration::from_secs(1);

/// Whose working set it is: a whole machine, or a control group.
pub trait Subject: Send {
    /// Makes what is used from now on stand out from what is not.
    ///
    /// # Errors
    /// Why that cannot be done here, in words that say what to do.
    fn begin(&mut self, method: Method) -> io::Result<()>;

    /// What was used since then. `refaults` are to be those since the start of the subject.
    ///
    /// # Errors
    /// Those of the kernel's files.
    fn observe(&mut self, method: Method) -> io::Result<Observation>;

    /// Pages of files that were given up and read again, since the start of the subject.
    ///
    /// # Errors
    /// Those of the kernel's files.
    fn refaults(&mut self) -> io::Result<u64>;
}

/// What a sampler has found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// What it was told to do last.
    pub sampling: Option<Sampling>,
    /// The newest estimate by that; `None` until the first period has passed, and after one that failed.
    pub working_set: Option<WorkingSet>,
    /// Why there is none.
    pub trouble: Option<String>,
}

/// Samples a working set until it is dropped.
#[derive(Debug)]
pub struct Sampler {
    orders: Sender<Option<Sampling>>,
    found: Arc<Mutex<Found>>,
}

impl Sampler {
    /// Samples nothing until it is told to.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn start(subject: impl Subject + 'static) -> io::Result<Sampler> {
        let (orders, inbox) = channel();
        let found = Arc::new(Mutex::new(Found::default()));
        let worker = Worker { subject, inbox, found: found.clone() };
        thread::Builder::new().name("working-set".to_owned()).spawn(|| worker.run())?;
        Ok(Sampler { orders, found })
    }

    /// Samples so from now on; a period that has begun is given up.
    pub fn set(&self, sampling: Option<Sampling>) {
        // The thread ends only when this sender is gone.
        let _ = self.orders.send(sampling);
    }

    /// What was found.
    pub fn found(&self) -> Found {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Worker<S> {
    subject: S,
    inbox: Receiver<Option<Sampling>>,
    found: Arc<Mutex<Found>>,
}

impl<S: Subject> Worker<S> {
    fn run(mut self) {
        let mut order = self.inbox.recv().ok();
        while let Some(sampling) = order {
            self.tell(Found { sampling, ..Found::default() });
            order = match sampling {
                None => self.inbox.recv().ok(),
                Some(sampling) => self.sample(sampling),
            };
        }
    }

    /// Samples until there is another order, and returns that; `None`: there is nobody any more.
    fn sample(&mut self, sampling: Sampling) -> Option<Option<Sampling>> {
        let period = Duration::from_millis(sampling.period_ms).max(SHORTEST);
        for count in 1.. {
            let began = Instant::now();
            let before = self.subject.begin(sampling.method).and_then(|()| self.subject.refaults());
            let cost_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            match self.inbox.recv_timeout(period.saturating_sub(began.elapsed())) {
                Ok(order) => return Some(order),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let seen = before.and_then(|before| {
                let seen = self.subject.observe(sampling.method)?;
                Ok(Observation { refaults: seen.refaults.saturating_sub(before), ..seen })
            });
            let made = seen.map(|seen| {
                let (bytes, page_cache) = estimate(seen);
                WorkingSet { bytes, page_cache, sampling, count, cost_us }
            });
            let trouble = made.as_ref().err().map(ToString::to_string);
            self.tell(Found { sampling: Some(sampling), working_set: made.ok(), trouble });
        }
        None
    }

    fn tell(&self, found: Found) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Begins as often as it was told to, and fails afterwards.
    struct Scripted {
        begins: u32,
        refaults: u64,
    }

    impl Subject for Scripted {
        fn begin(&mut self, _: Method) -> io::Result<()> {
            self.begins = self.begins.checked_sub(1).ok_or_else(|| io::Error::other("worn out"))?;
            Ok(())
        }

        fn observe(&mut self, _: Method) -> io::Result<Observation> {
            self.refaults += 5;
            Ok(Observation { in_use: 100, page_cache: 50, idle: 20, refaults: self.refaults })
        }

        fn refaults(&mut self) -> io::Result<u64> {
            Ok(self.refaults)
        }
    }

    fn wait_for(sampler: &Sampler, holds: impl Fn(&Found) -> bool) -> Found {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = sampler.found();
            if holds(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{found:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn periods_follow_each_other_until_one_fails() {
        let sampler = Sampler::start(Scripted { begins: 1, refaults: 7 }).unwrap();
        assert_eq!(sampler.found(), Found::default());
        let sampling = Some(Sampling { method: Method::Refaults, period_ms: 0 });
        sampler.set(sampling);
        let found = wait_for(&sampler, |found| found.working_set.is_some());
        let working_set = found.working_set.unwrap();
        // Five pages were read again, of which what was used holds none: 30 bytes are not a page.
        assert_eq!((working_set.bytes, working_set.page_cache, working_set.count), (80 + 20_450, 30 + 20_450, 1));
        let failed = wait_for(&sampler, |found| found.trouble.is_some());
        assert_eq!((failed.working_set, failed.sampling), (None, sampling), "an old estimate is none");
        assert_eq!(failed.trouble.unwrap(), "worn out");
        sampler.set(None);
        wait_for(&sampler, |found| found.sampling.is_none() && found.trouble.is_none());
    }
}
