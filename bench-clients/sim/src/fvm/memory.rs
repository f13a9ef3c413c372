//! The host's memory: how much of what threads use is there.

use super::Testbed;

/// The size of a page, in bytes.
const PAGE: f64 = 4096.0;
/// Pages that an access to the disk brings in.
pub(super) const CLUSTER: f64 = 8.0;
/// Less of a share than this is as good as nothing.
const LEAST: f64 = 1e-12;

/// The pages that threads use, in expectation. What a VM needs for itself is in use all the time, and stays.
///
/// Where memory runs out, pages give way: first those of suspended threads, which nobody uses, then any, as likely as any
/// other. What was touched long ago has so had more chances to be evicted. That is kept by two hazards, of active
/// and of suspended threads' pages: with hazard h at a page's last touch and H now, it is there with probability
/// e^(h − H).
#[derive(Debug)]
pub(super) struct Memory {
    /// Pages for all threads.
    total: f64,
    /// Pages of a part.
    of_part: f64,
    parts: u32,
    active: Pages,
    suspended: Pages,
}

#[derive(Debug, Default)]
struct Pages {
    there: f64,
    hazard: f64,
}

/// A thread's memory, in the parts that it touches one after another: the hazard at the last touch of each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Touched(Vec<f64>);

impl Memory {
    /// Of VMs that have no thread yet; a thread touches its memory in so many `parts`.
    pub(super) fn new(testbed: &Testbed, parts: u32) -> Memory {
        let pages = |bytes: vibra_model::Bytes| bytes.0 as f64 / PAGE;
        let total = (pages(testbed.memory) - testbed.vms as f64 * pages(testbed.base)).max(0.0);
        let of_part = pages(testbed.of_thread) / f64::from(parts);
        Memory { total, of_part, parts, active: Pages::default(), suspended: Pages::default() }
    }

    /// A thread begins, with memory that nobody has written to: it is there at once.
    pub(super) fn begin(&mut self) -> Touched {
        self.active.there += self.of_part * f64::from(self.parts);
        self.evict();
        Touched(vec![self.active.hazard; self.parts as usize])
    }

    /// A thread touches a part of its memory; returns how many pages of it were not there.
    pub(super) fn touch(&mut self, touched: &mut Touched, part: u32) -> f64 {
        let Some(mark) = touched.0.get_mut(part as usize) else { return 0.0 };
        let faults = self.of_part * (1.0 - (*mark - self.active.hazard).exp());
        self.active.there += faults;
        self.evict();
        *mark = self.active.hazard;
        faults
    }

    /// A thread is suspended.
    pub(super) fn suspend(&mut self, touched: &mut Touched) {
        self.active.hand_over(&mut self.suspended, touched, self.of_part);
    }

    /// A suspended thread goes on with what is left of its memory.
    pub(super) fn resume(&mut self, touched: &mut Touched) {
        self.suspended.hand_over(&mut self.active, touched, self.of_part);
    }

    /// Makes everything fit again.
    fn evict(&mut self) {
        let excess = (self.active.there + self.suspended.there - self.total).max(0.0);
        let first = excess.min(self.suspended.there);
        self.suspended.lose(first);
        self.active.lose(excess - first);
    }
}

impl Pages {
    /// So many of them are evicted.
    fn lose(&mut self, pages: f64) {
        if pages > 0.0 {
            let kept = (1.0 - pages / self.there).max(LEAST);
            self.there *= kept;
            self.hazard -= kept.ln();
        }
    }

    /// What is there of a thread's memory goes to `other`.
    fn hand_over(&mut self, other: &mut Pages, touched: &mut Touched, of_part: f64) {
        for mark in &mut touched.0 {
            let there = (*mark - self.hazard).exp().max(LEAST);
            self.there = (self.there - there * of_part).max(0.0);
            other.there += there * of_part;
            *mark = other.hazard + there.ln();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vibra_model::Bytes;

    /// 100 pages for threads of 10 pages, which they touch in 2 parts.
    fn memory() -> Memory {
        let bytes = |pages: u64| Bytes(pages * PAGE as u64);
        let testbed =
            Testbed { vms: 2, memory: bytes(120), base: bytes(10), of_thread: bytes(10), ..Testbed::default() };
        Memory::new(&testbed, 2)
    }

    fn touch_all(memory: &mut Memory, threads: &mut [Touched]) -> f64 {
        let touch = |thread: &mut Touched| memory.touch(thread, 0) + memory.touch(thread, 1);
        threads.iter_mut().map(touch).sum()
    }

    #[test]
    fn what_fits_is_there() {
        let mut memory = memory();
        let mut threads: Vec<_> = (0..10).map(|_| memory.begin()).collect();
        assert_eq!(touch_all(&mut memory, &mut threads), 0.0);
    }

    #[test]
    fn what_does_not_fit_faults_as_random_replacement_of_what_is_used_in_turn_does() {
        let mut memory = memory();
        let mut threads: Vec<_> = (0..15).map(|_| memory.begin()).collect();
        let rounds: Vec<_> = (0..50).map(|_| touch_all(&mut memory, &mut threads) / 150.0).collect();
        // Of 100 pages and those that just came in 150 f are evicted between two touches of a page. With single pages that is
        // f = 1 - exp(-1.5 f) = 0.583; parts of 5 come in at once here, and make it a little less.
        assert!((rounds[49] - 0.56).abs() < 0.03, "{rounds:?}");
    }

    #[test]
    fn a_suspended_thread_gives_way_first_and_comes_back_with_what_is_left() {
        let mut memory = memory();
        let mut threads: Vec<_> = (0..10).map(|_| memory.begin()).collect();
        let mut idle = threads.pop().unwrap();
        memory.suspend(&mut idle);
        memory.resume(&mut idle);
        assert!(touch_all(&mut memory, &mut [idle.clone()]) < 1e-6, "nothing was taken meanwhile");
        memory.suspend(&mut idle);
        threads.push(memory.begin());
        assert!(touch_all(&mut memory, &mut threads) < 1e-6, "it was taken from who does not use it");
        threads.pop().into_iter().for_each(|mut gone| memory.suspend(&mut gone));
        memory.resume(&mut idle);
        assert!((touch_all(&mut memory, &mut [idle]) - 10.0).abs() < 1e-6, "all of it has to be read");
    }
}
