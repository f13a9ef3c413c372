//! The VMs that exchange shares, and what each has while they do.

use super::{meter::Meter, rates::ExchangeRates};
use crate::{View, room::Rooms};
use vibra_model::{
    Action, AllocationChange, Move, Plan, Reason, Refusal, Resource, Timestamp, UsageSample, Vm, VmId, VmState,
};

/// A VM that takes part.
#[derive(Debug)]
pub(super) struct Peer<'a> {
    pub vm: &'a Vm,
    /// The number of its host, if that has a limit.
    pub host: Option<usize>,
    /// What one unit is worth on its host.
    pub rate: f64,
    pub floor: u64,
    /// w_i before the exchange.
    pub had: u64,
    /// w_i now.
    pub share: u64,
    /// u_i, rounded up.
    pub used: u64,
    /// What its host refused it.
    pub refused: u64,
}

impl Peer<'_> {
    /// e_i: what it has beyond both its use and its floor.
    pub(super) fn excess(&self) -> u64 {
        self.had.saturating_sub(self.used.max(self.floor))
    }

    /// What it used beyond what it had: f_i, if its host has room for it.
    pub(super) fn lacking(&self) -> u64 {
        self.used.saturating_sub(self.had)
    }
}

/// What is exchanged, and on what terms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub resource: Resource,
    /// W.
    pub bound: u64,
    pub rates: &'a ExchangeRates,
}

/// All that take part, and what is left.
#[derive(Debug)]
pub(super) struct Peers<'a> {
    /// By id.
    pub peers: Vec<Peer<'a>>,
    /// What hosts have left now.
    pub rooms: Rooms,
    /// What is not allocated of the bound now.
    pub free: u64,
    /// Who shall go to another host, where its share is counted as taken already.
    pub moving: Option<(usize, Move)>,
    /// Who takes no part, and why.
    refusals: Vec<Refusal>,
}

impl<'a> Peers<'a> {
    /// Those of the view; `seen` gets the new samples of each.
    pub(super) fn survey(
        view: &View<'a>,
        terms: Terms<'_>,
        meter: &mut Meter,
        now: Timestamp,
        mut seen: impl FnMut(&'a Vm, &[&UsageSample]),
    ) -> Self {
        let Terms { resource, bound, rates } = terms;
        let rooms = Rooms::of(view, resource);
        let mut all = Peers { peers: Vec::new(), rooms, free: bound, moving: None, refusals: Vec::new() };
        meter.read(resource, view, now, |vm, samples, used| {
            seen(vm, samples);
            let Some(had) = vm.desired(resource) else { return };
            let host = view.host_of(vm);
            all.free = all.free.saturating_sub(had);
            all.rooms.take(host, had);
            let why = match (vm.state, used) {
                (VmState::Down, _) => "down: keeps its floor",
                (_, None) => "not measured since the last decision: keeps what it has",
                (_, Some(used)) => {
                    let (floor, rate) = (vm.floor.get(resource).unwrap_or(0), rates.of(&vm.host));
                    let used = used.ceil() as u64;
                    all.peers.push(Peer { vm, host, rate, floor, had, share: had, used, refused: 0 });
                    return;
                }
            };
            all.refusals.push(Refusal { vm: vm.id.clone(), resource, reason: Reason::new(why) });
        });
        all
    }

    /// The number of the peer of this id.
    pub(super) fn number(&self, id: &VmId) -> Option<usize> {
        self.peers.binary_search_by(|peer| peer.vm.id.cmp(id)).ok()
    }

    /// Takes `amount` from a VM: its host has it again, and no one owns it.
    pub(super) fn release(&mut self, from: usize, amount: u64) {
        let peer = &mut self.peers[from];
        peer.share -= amount;
        self.rooms.give(peer.host, amount);
        self.free += amount;
    }

    /// Has a VM move: a host that is numbered keeps room for its share. It gets no more until it is there.
    pub(super) fn send_away(&mut self, number: usize, step: Move, to: Option<usize>) {
        self.rooms.take(to, self.peers[number].share);
        self.moving = Some((number, step));
    }

    /// Gives a VM of what no one owns as much of `amount` as there is and its host can take; returns how much that was.
    pub(super) fn grant(&mut self, to: usize, amount: u64) -> u64 {
        if self.moving.as_ref().is_some_and(|(number, _)| *number == to) {
            return 0;
        }
        let peer = &mut self.peers[to];
        let taken = amount.min(self.rooms.left(peer.host).unwrap_or(amount)).min(self.free);
        peer.share += taken;
        self.rooms.take(peer.host, taken);
        self.free -= taken;
        taken
    }

    /// Writes down what changed, who moves, what was refused, and why.
    pub(super) fn record(self, resource: Resource, plan: &mut Plan) {
        plan.moves.extend(self.moving.map(|(_, step)| step));
        plan.refusals.extend(self.refusals);
        for peer in self.peers {
            let vm = || peer.vm.id.clone();
            if peer.refused > 0 {
                let reason = Reason::new("its host is full").with("refused", peer.refused as f64);
                plan.refusals.push(Refusal { vm: vm(), resource, reason });
            }
            if peer.share == peer.had {
                continue;
            }
            let rule =
                if peer.share > peer.had { "uses all it has: gets excess of others" } else { "gives its excess" };
            plan.actions.push(Action {
                change: AllocationChange { vm: vm(), to: resource.amount(peer.share) },
                from: peer.had,
                reason: Reason::new(rule).with("used", peer.used as f64),
            });
        }
    }
}
