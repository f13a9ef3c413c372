//! How many requests may be sent again.

use crate::limits::Limits;

/// So many seconds are looked back on.
const WINDOW: usize = 10;

/// Bounds retries to a share of the requests of the last ten seconds, and a few a second besides, so that retries
/// cannot multiply the load of servers that fail because of their load (the scheme of Finagle and Linkerd).
#[derive(Debug)]
pub(crate) struct RetryBudget {
    percent: u32,
    per_second: u32,
    /// Counts of one second each; the second `n` has its place at `n % WINDOW`.
    seconds: [Second; WINDOW],
    /// The second that is counted now.
    now: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    requests: u32,
    retries: u32,
}

impl RetryBudget {
    pub(crate) fn new(limits: &Limits) -> Self {
        let Limits { retry_percent: percent, retries_per_second: per_second, .. } = *limits;
        RetryBudget { percent, per_second, seconds: Default::default(), now: 0 }
    }

    /// A request came. Times are in whole seconds since any fixed moment.
    pub(crate) fn request(&mut self, now: u64) {
        let requests = &mut self.second(now).requests;
        *requests = requests.saturating_add(1);
    }

    /// Whether a request may be sent again now; if so, it counts.
    pub(crate) fn retry(&mut self, now: u64) -> bool {
        self.second(now);
        let sum = |count: fn(&Second) -> u32| self.seconds.iter().map(|second| u64::from(count(second))).sum::<u64>();
        let share = sum(|second| second.requests) * u64::from(self.percent) / 100;
        let allowed = share + u64::from(self.per_second) * WINDOW as u64;
        if sum(|second| second.retries) >= allowed {
            return false;
        }
        self.second(now).retries += 1;
        true
    }

    /// The counts of this second; those that are too old are forgotten.
    fn second(&mut self, now: u64) -> &mut Second {
        while self.now < now {
            // Beyond a whole window there is nothing left to forget.
            self.now = (self.now + 1).max(now.saturating_sub(WINDOW as u64));
            self.seconds[self.now as usize % WINDOW] = Second::default();
        }
        &mut self.seconds[self.now as usize % WINDOW]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(retry_percent: u32, retries_per_second: u32) -> RetryBudget {
        RetryBudget::new(&Limits { retry_percent, retries_per_second, ..Limits::default() })
    }

    fn retries(budget: &mut RetryBudget, now: u64) -> usize {
        (0..1000).take_while(|_| budget.retry(now)).count()
    }

    #[test]
    fn retries_are_a_share_of_requests() {
        let mut budget = budget(20, 0);
        assert_eq!(retries(&mut budget, 0), 0);
        (0..100).for_each(|_| budget.request(1));
        assert_eq!(retries(&mut budget, 1), 20);
        (0..50).for_each(|_| budget.request(5));
        assert_eq!(retries(&mut budget, 5), 10);
    }

    #[test]
    fn a_few_are_allowed_where_requests_are_few() {
        let mut budget = budget(20, 1);
        assert_eq!(retries(&mut budget, 0), 10);
        assert_eq!(retries(&mut budget, 9), 0);
        assert_eq!(retries(&mut budget, 10), 10);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut budget = budget(50, 0);
        (0..100).for_each(|_| budget.request(3));
        (0..10).for_each(|_| budget.request(7));
        assert!(budget.retry(12));
        assert_eq!(retries(&mut budget, 13), 4);
        assert_eq!(retries(&mut budget, 17), 0);
        (0..100).for_each(|_| budget.request(20));
        assert_eq!(retries(&mut budget, 1_000_000_000), 0);
    }

    #[test]
    fn none_at_all_can_be_asked_for() {
        let mut budget = budget(0, 0);
        (0..100).for_each(|_| budget.request(0));
        assert!(!budget.retry(0));
    }
}
