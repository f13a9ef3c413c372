//! Which hosts were silent for too long.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use vibra_model::HostId;

/// When each host was last heard of, by the monotonic clock, which is passed in.
#[derive(Debug)]
pub(crate) struct Silence {
    deadline: Duration,
    heard: HashMap<HostId, Instant>,
    looked: Instant,
}

impl Silence {
    /// Hosts may be silent for `deadline`.
    pub(crate) fn new(deadline: Duration, now: Instant) -> Self {
        Silence { deadline, heard: HashMap::new(), looked: now }
    }

    /// How often [`overdue`](Self::overdue) is to be asked.
    pub(crate) fn interval(&self) -> Duration {
        self.deadline / 8
    }

    /// A host gave a sign of life.
    pub(crate) fn hear(&mut self, host: &HostId, now: Instant) {
        match self.heard.get_mut(host) {
            Some(heard) => *heard = now,
            None => {
                self.heard.insert(host.clone(), now);
            }
        }
    }

    /// Those of the `expected` hosts that were silent past the deadline. Those seen here for the first time, such as
    /// all of them after a restart, have a full deadline from now. Who is not expected is forgotten.
    pub(crate) fn overdue<'a>(&mut self, expected: impl Iterator<Item = &'a HostId>, now: Instant) -> Vec<HostId> {
        // While this process did not run (stopped, starved, machine asleep) nobody could be heard.
        let absent = now.duration_since(self.looked).saturating_sub(2 * self.interval());
        self.looked = now;
        let heard = expected.map(|host| (host.clone(), self.heard.get(host).map_or(now, |&heard| heard + absent)));
        self.heard = heard.map(|(host, heard)| (host, heard.min(now))).collect();
        let silent = self.heard.iter().filter(|(_, heard)| now.duration_since(**heard) > self.deadline);
        silent.map(|(host, _)| host.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(800);
    const TICK: Duration = Duration::from_millis(100);

    /// Lets `ticks` intervals pass; who was found overdue, with the tick.
    fn pass(silence: &mut Silence, hosts: &[HostId], from: Instant, ticks: u32) -> Vec<(u32, HostId)> {
        let at = |tick| from + tick * TICK;
        let found = (1..=ticks).map(|tick| (tick, silence.overdue(hosts.iter(), at(tick))));
        found.flat_map(|(tick, hosts)| hosts.into_iter().map(move |host| (tick, host))).collect()
    }

    #[test]
    fn a_host_is_overdue_once_the_deadline_has_passed() {
        let start = Instant::now();
        let mut silence = Silence::new(DEADLINE, start);
        let (quiet, talking): (HostId, HostId) = ("quiet".parse().unwrap(), "talking".parse().unwrap());
        let hosts = [quiet.clone(), talking.clone()];
        hosts.iter().for_each(|host| silence.hear(host, start));
        assert_eq!(pass(&mut silence, &hosts, start, 5), []);
        silence.hear(&talking, start + 5 * TICK);
        assert_eq!(pass(&mut silence, &hosts, start + 5 * TICK, 4), [(4, quiet)]);
    }

    #[test]
    fn a_host_never_heard_of_has_a_full_deadline() {
        let start = Instant::now();
        let mut silence = Silence::new(DEADLINE, start);
        let host: HostId = "h".parse().unwrap();
        // First looked for at tick 1.
        assert_eq!(pass(&mut silence, std::slice::from_ref(&host), start, 10), [(10, host)]);
    }

    #[test]
    fn time_in_which_nobody_listened_does_not_count() {
        let start = Instant::now();
        let mut silence = Silence::new(DEADLINE, start);
        let host: HostId = "h".parse().unwrap();
        silence.hear(&host, start);
        let later = start + Duration::from_secs(60);
        assert!(silence.overdue([&host].into_iter(), later).is_empty());
        let found = pass(&mut silence, std::slice::from_ref(&host), later, 9);
        assert!(found.first().is_some_and(|(tick, _)| (6..=9).contains(tick)), "{found:?}");
    }
}
