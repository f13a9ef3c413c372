//! Xen's credit scheduler on one CPU.
//!
//! Every 30 ms each VM that ran lately is credited its part of these 30 ms, by weight; what it runs is debited. Those who
//! have not overdrawn (`Under`) run before those who have (`Over`), each class in turn for at most 30 ms, so that no
//! time is left idle while anyone can run. A VM that wakes up and has not overdrawn runs at once (`Boost`) until the next
//! tick. Who is debited for what is a matter of [`Debits`].

use std::collections::{BTreeMap, VecDeque};

/// The time between ticks, in microseconds.
pub(super) const TICK: u64 = 10_000;
/// The time between accountings, the longest turn, and the most credit and debt that a VM may have.
const PERIOD: u64 = 30_000;
/// Work without end.
pub(super) const ENDLESS: u64 = u64::MAX;

/// What a VM's credit is debited with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Debits {
    /// What it ran.
    #[default]
    Exact,
    /// As Xen 3 has it: whoever runs at a tick pays for the whole 10 ms since the last one, and nobody else anything.
    Sampled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Priority {
    Boost,
    Under,
    Over,
}

/// A VM as the scheduler sees it. Times are in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Vcpu {
    weight: u64,
    credit: i64,
    priority: Priority,
    /// Whether it earns credit: it ran, and has not saved up more than it may.
    active: bool,
    /// What it has to do before it blocks.
    work: u64,
    /// What it did so far.
    used: u64,
}

/// The CPU of one host.
#[derive(Debug, Clone, Default)]
pub(super) struct Credit {
    debits: Debits,
    vcpus: BTreeMap<usize, Vcpu>,
    /// Who could run, by priority and then by turn.
    queue: VecDeque<usize>,
    running: Option<usize>,
    /// Up to when what the one that runs did is counted.
    since: u64,
    turn_ends: u64,
}

impl Vcpu {
    pub(super) fn new(weight: u64) -> Self {
        Vcpu { weight, credit: 0, priority: Priority::Under, active: false, work: 0, used: 0 }
    }

    fn debit(&mut self, time: u64) {
        self.credit -= time as i64;
        self.active = true;
    }
}

impl Credit {
    pub(super) fn new(debits: Debits) -> Self {
        Credit { debits, ..Credit::default() }
    }

    /// Places a VM here; it goes on with the work that it has.
    pub(super) fn insert(&mut self, vm: usize, vcpu: Vcpu, now: u64) {
        let runnable = vcpu.work > 0;
        self.vcpus.insert(vm, vcpu);
        if runnable {
            self.enqueue(vm);
            self.run_next_if_idle(now);
        }
    }

    /// Takes a VM away.
    pub(super) fn remove(&mut self, vm: usize, now: u64) -> Option<Vcpu> {
        self.charge(now);
        self.queue.retain(|&queued| queued != vm);
        if self.running == Some(vm) {
            self.running = None;
            self.run_next_if_idle(now);
        }
        self.vcpus.remove(&vm)
    }

    /// Changes the weight of a VM; at least 1, as in Xen.
    pub(super) fn set_weight(&mut self, vm: usize, weight: u64) {
        if let Some(vcpu) = self.vcpus.get_mut(&vm) {
            vcpu.weight = weight.max(1);
        }
    }

    /// The CPU time that a VM has used until `now`.
    pub(super) fn used(&mut self, vm: usize, now: u64) -> u64 {
        self.charge(now);
        self.vcpus.get(&vm).map_or(0, |vcpu| vcpu.used)
    }

    /// When the one that runs has done its work, or its turn ends.
    pub(super) fn next_change(&self) -> Option<u64> {
        let vcpu = &self.vcpus[&self.running?];
        Some(self.turn_ends.min(self.since.saturating_add(vcpu.work)))
    }

    /// Whose work is done at `now`; it still holds the CPU, until it [blocks](Self::block) or gets [more](Self::give).
    /// Otherwise another one's turn begins, if this one's has ended.
    pub(super) fn advance(&mut self, now: u64) -> Option<usize> {
        self.charge(now);
        let vm = self.running?;
        if self.vcpus[&vm].work == 0 {
            return Some(vm);
        }
        if now >= self.turn_ends {
            self.running = None;
            self.enqueue(vm);
            self.run_next_if_idle(now);
        }
        None
    }

    /// Who had nothing more to do gives the CPU to the next.
    pub(super) fn block(&mut self, vm: usize, now: u64) {
        if self.running == Some(vm) {
            self.running = None;
            self.run_next_if_idle(now);
        }
    }

    /// Gives a VM work. One that was blocked wakes up by that.
    pub(super) fn give(&mut self, vm: usize, work: u64, now: u64) {
        self.charge(now);
        let Some(vcpu) = self.vcpus.get_mut(&vm) else { return };
        vcpu.work = work;
        if self.running == Some(vm) {
            return;
        }
        if vcpu.priority == Priority::Under {
            vcpu.priority = Priority::Boost;
        }
        let priority = vcpu.priority;
        self.enqueue(vm);
        if let Some(other) = self.running.filter(|other| priority < self.vcpus[other].priority) {
            self.running = None;
            self.enqueue(other);
        }
        self.run_next_if_idle(now);
    }

    /// Every [`TICK`]: who runs on loses its boost.
    pub(super) fn tick(&mut self, now: u64) {
        self.charge(now);
        if let Some(vcpu) = self.running.and_then(|vm| self.vcpus.get_mut(&vm)) {
            if vcpu.priority == Priority::Boost {
                vcpu.priority = Priority::Under;
            }
            if self.debits == Debits::Sampled {
                vcpu.debit(TICK);
            }
        }
        if now.is_multiple_of(PERIOD) {
            self.account();
        }
    }

    /// Credits who is active with its part of the period.
    fn account(&mut self) {
        let weights: u64 = self.vcpus.values().filter(|vcpu| vcpu.active).map(|vcpu| vcpu.weight).sum();
        for vcpu in self.vcpus.values_mut().filter(|vcpu| vcpu.active) {
            vcpu.credit += (PERIOD * vcpu.weight).div_ceil(weights) as i64;
            vcpu.priority = if vcpu.credit < 0 { Priority::Over } else { Priority::Under };
            vcpu.credit = vcpu.credit.max(-(PERIOD as i64));
            if vcpu.credit > PERIOD as i64 {
                (vcpu.active, vcpu.credit) = (false, 0);
            }
        }
        self.queue.make_contiguous().sort_by_key(|vm| self.vcpus[vm].priority);
    }

    /// Counts what the one that runs has done.
    fn charge(&mut self, now: u64) {
        let ran = now.saturating_sub(self.since);
        self.since = now;
        let Some(vcpu) = self.running.and_then(|vm| self.vcpus.get_mut(&vm)) else { return };
        if ran == 0 {
            return;
        }
        vcpu.used += ran;
        if self.debits == Debits::Exact {
            vcpu.debit(ran);
        }
        if vcpu.work != ENDLESS {
            vcpu.work = vcpu.work.saturating_sub(ran);
        }
    }

    /// Queues a VM behind all of its priority.
    fn enqueue(&mut self, vm: usize) {
        let priority = self.vcpus[&vm].priority;
        let behind = self.queue.iter().position(|queued| self.vcpus[queued].priority > priority);
        self.queue.insert(behind.unwrap_or(self.queue.len()), vm);
    }

    fn run_next_if_idle(&mut self, now: u64) {
        if self.running.is_none() {
            self.running = self.queue.pop_front();
            (self.since, self.turn_ends) = (now, now + PERIOD);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs VMs that work for so long and then sleep for so long, and tells what part of a CPU each got.
    fn shares(vms: &[(u64, u64, u64)], seconds: u64) -> Vec<f64> {
        shares_with(Debits::Exact, vms, seconds)
    }

    fn shares_with(debits: Debits, vms: &[(u64, u64, u64)], seconds: u64) -> Vec<f64> {
        let mut cpu = Credit::new(debits);
        let mut wakes: Vec<Option<u64>> = vec![None; vms.len()];
        for (vm, &(weight, work, _)) in vms.iter().enumerate() {
            cpu.insert(vm, Vcpu::new(weight), 0);
            cpu.give(vm, work, 0);
        }
        let (mut now, end) = (0, seconds * 1_000_000);
        while now < end {
            let tick = (now / TICK + 1) * TICK;
            let wake = wakes.iter().flatten().min().copied();
            now = [Some(tick), wake, cpu.next_change()].into_iter().flatten().min().unwrap();
            while let Some(vm) = cpu.advance(now) {
                cpu.block(vm, now);
                wakes[vm] = Some(now + vms[vm].2);
            }
            for vm in 0..vms.len() {
                if wakes[vm].is_some_and(|at| at <= now) {
                    wakes[vm] = None;
                    cpu.give(vm, vms[vm].1, now);
                }
            }
            if now == tick {
                cpu.tick(now);
            }
        }
        (0..vms.len()).map(|vm| cpu.used(vm, end) as f64 / end as f64).collect()
    }

    fn close(measured: &[f64], wanted: &[f64]) {
        let far = measured.iter().zip(wanted).any(|(m, w)| (m - w).abs() > 0.02);
        assert!(!far && measured.len() == wanted.len(), "{measured:?} instead of {wanted:?}");
    }

    #[test]
    fn who_never_rests_gets_by_weight() {
        // The text's example: shares of 0.5 and 0.25 give 0.67 and 0.33.
        close(&shares(&[(500, ENDLESS, 0), (250, ENDLESS, 0)], 30), &[0.667, 0.333]);
        close(&shares(&[(1, ENDLESS, 0)], 3), &[1.0]);
        // Debts beyond 30 ms are forgiven, from which small weights gain.
        let three = shares(&[(100, ENDLESS, 0), (200, ENDLESS, 0), (700, ENDLESS, 0)], 30);
        assert!(three[0] < 0.15 && three[1] < 0.25 && three[2] > 0.6, "{three:?}");
    }

    #[test]
    fn who_rests_at_every_tick_pays_nothing_where_debits_are_sampled() {
        let vms = [(100, 4_000, 6_000), (900, ENDLESS, 0)];
        close(&shares_with(Debits::Exact, &vms, 30), &[0.1, 0.9]);
        close(&shares_with(Debits::Sampled, &vms, 30), &[0.4, 0.6]);
        close(&shares_with(Debits::Sampled, &[(500, ENDLESS, 0), (250, ENDLESS, 0)], 30), &[0.667, 0.333]);
    }

    #[test]
    fn what_a_vm_does_not_use_others_do() {
        // The first one works 10 ms of 100; the rest is divided 1 to 2.
        close(&shares(&[(500, 10_000, 90_000), (100, ENDLESS, 0), (200, ENDLESS, 0)], 60), &[0.1, 0.3, 0.6]);
    }

    #[test]
    fn a_vm_that_wants_less_than_its_share_gets_what_it_wants() {
        let measured = shares(&[(500, 2_000_000, 6_000_000), (500, ENDLESS, 0)], 200);
        // It works 2 s, for which it needs 4 s, of 10 s.
        close(&measured, &[0.2, 0.8]);
    }

    #[test]
    fn a_vm_takes_its_work_along() {
        let (mut here, mut there) = (Credit::default(), Credit::default());
        here.insert(7, Vcpu::new(100), 0);
        here.give(7, 5_000, 0);
        let vcpu = here.remove(7, 2_000).unwrap();
        assert_eq!(here.next_change(), None);
        there.insert(7, vcpu, 2_000);
        assert_eq!(there.next_change(), Some(5_000));
        assert_eq!((there.advance(5_000), there.used(7, 5_000)), (Some(7), 5_000));
    }
}
