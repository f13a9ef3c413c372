//! Who has what of whom: the arithmetic of takeover.

use super::{TakeoverParameters, heirs};
use crate::{View, room::Rooms};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use vibra_model::{Plan, Reason, Resource, Timestamp, Vm, VmId, VmState};

/// What must be remembered from one decision to the next. All amounts are in the resource's base unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    /// The VMs that failed and have not got everything back.
    away: BTreeMap<VmId, Away>,
    /// What each VM had when it was last seen not down.
    seen: BTreeMap<VmId, u64>,
    /// How much of that it has for others that are away; none if it is not named.
    received: BTreeMap<VmId, u64>,
    /// The last plan, of which is not known yet whether it was carried out.
    planned: Planned,
}

/// A VM that failed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Away {
    /// What it had of its own.
    own: u64,
    /// When its failure was seen.
    failed: Timestamp,
    /// Since when it has been seen to serve again.
    back: Option<Timestamp>,
}

/// What a plan makes of the ledger once it is carried out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    /// What each VM shall have that it changes.
    to: BTreeMap<VmId, u64>,
    /// As [`Ledger::received`].
    received: BTreeMap<VmId, u64>,
}

/// A change of one VM's share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ShareChange {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) reason: Reason,
}

/// What is to be handed over now.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    pub(super) changes: BTreeMap<VmId, ShareChange>,
    pub(super) refusals: BTreeMap<VmId, Reason>,
    /// What the policy must leave VMs for now, each with the least that it is to have.
    pub(super) kept: BTreeMap<VmId, u64>,
    /// The VMs that warm up, which the policy leaves alone.
    pub(super) warming: BTreeSet<VmId>,
    received: BTreeMap<VmId, u64>,
}

impl Transfer {
    /// Whether there is nothing about it that the policy would have to know.
    pub(super) fn is_idle(&self) -> bool {
        self.changes.is_empty() && self.kept.is_empty() && self.warming.is_empty()
    }
}

impl Away {
    /// How much of the way back it has gone: 0 while it does not serve, 1 once it is warm.
    fn warmth(&self, warm_up: Duration, now: Timestamp) -> f64 {
        match self.back {
            None => 0.0,
            Some(_) if warm_up.is_zero() => 1.0,
            Some(back) => (now.since(back).as_secs_f64() / warm_up.as_secs_f64()).min(1.0),
        }
    }

    /// What it shall have itself at that point; the others have the rest of its own.
    fn due(&self, floor: u64, warmth: f64) -> u64 {
        let beyond = self.own.saturating_sub(floor);
        // At most `beyond`, as the warmth is at most 1.
        floor.min(self.own) + ((beyond as f64 * warmth) as u64).min(beyond)
    }
}

impl Ledger {
    /// Takes in what has become of the last plan and of the VMs.
    pub(super) fn observe(&mut self, view: &View<'_>, resource: Resource, now: Timestamp) {
        // What was last seen of a VM goes with what it had received then.
        let before = self.received.clone();
        if self.was_carried_out(view, resource) {
            self.received = std::mem::take(&mut self.planned.received);
        }
        let planned = std::mem::take(&mut self.planned.to);
        self.planned.received = self.received.clone();
        let mut seen = BTreeMap::new();
        for (vm, has) in view.vms().filter_map(|vm| Some((vm, vm.desired(resource)?))) {
            let (down, had) = (vm.state == VmState::Down, self.seen.get(&vm.id).copied());
            // The directory took all but its floor from it, so it was down in between.
            let was_down = || {
                let lost = had.is_some_and(|had| has < had) && has == vm.floor.get(resource).unwrap_or(0);
                lost && planned.get(&vm.id) != Some(&has)
            };
            if down || was_down() {
                self.received.remove(&vm.id);
                if let Some(away) = self.away.get_mut(&vm.id) {
                    away.back = None;
                } else {
                    // What it had before it began to be away is what it gets back, however often it fails until then.
                    let received = before.get(&vm.id).copied().unwrap_or(0);
                    let own = had.map_or_else(|| presumed(view, resource, has), |had| had.saturating_sub(received));
                    let own = own.max(has);
                    self.away.insert(vm.id.clone(), Away { own, failed: now, back: None });
                }
            }
            if !down {
                seen.insert(vm.id.clone(), has);
                if let Some(away) = self.away.get_mut(&vm.id) {
                    away.back = if vm.state.serves() { away.back.or(Some(now)) } else { None };
                }
            }
        }
        let own = |vm: &VmId| view.snapshot().vm(vm).is_some_and(|vm| vm.customer == *view.customer());
        let were_away = !self.away.is_empty();
        self.away.retain(|vm, _| own(vm));
        self.received.retain(|vm, _| own(vm));
        if were_away && self.away.is_empty() {
            // Who could claim it was removed: whoever has it keeps it.
            self.received.clear();
        }
        self.seen = seen;
    }

    /// A batch is carried out as a whole or not at all; but since then VMs may have failed, which then have their floors,
    /// and operators may have changed others.
    fn was_carried_out(&self, view: &View<'_>, resource: Resource) -> bool {
        let told = self.planned.to.iter().filter_map(|(vm, &to)| {
            let vm = view.snapshot().vm(vm).filter(|vm| vm.state != VmState::Down)?;
            let has = vm.desired(resource)?;
            (has == to || has != vm.floor.get(resource).unwrap_or(0)).then_some(has == to)
        });
        let (so, otherwise): (Vec<_>, Vec<_>) = told.partition(|&so| so);
        so.len() >= otherwise.len()
    }

    /// Remembers what `plan`, with the `transfer` in it, will have done once it is carried out.
    pub(super) fn plan(&mut self, plan: &Plan, transfer: Transfer, resource: Resource) {
        let own = plan.actions.iter().filter(|action| action.change.to.resource() == resource);
        let to = own.map(|action| (action.change.vm.clone(), action.change.to.raw())).collect();
        self.planned = Planned { to, received: transfer.received };
    }

    /// What is to be handed over now. VMs to which everything has come back are no longer away afterwards.
    pub(super) fn transfer(
        &mut self,
        view: &View<'_>,
        resource: Resource,
        parameters: &TakeoverParameters,
        now: Timestamp,
    ) -> Transfer {
        if self.away.is_empty() && self.received.is_empty() {
            return Transfer::default();
        }
        let mut cluster = Cluster::new(view, resource);
        self.share_out(&mut cluster, parameters, now);
        cluster.keep_to_rooms(view, resource);
        cluster.keep_to_bound(view.bound(resource).unwrap_or(0));
        let transfer = self.transfer_of(&cluster, parameters.warm_up, now);
        let whole =
            |vm: &VmId, away: &Away| away.warmth(parameters.warm_up, now) >= 1.0 && !transfer.changes.contains_key(vm);
        self.away.retain(|vm, away| !whole(vm, away));
        transfer
    }

    /// Says what each VM shall have: its own, and what it has for those that are away.
    fn share_out(&self, cluster: &mut Cluster<'_>, parameters: &TakeoverParameters, now: Timestamp) {
        let present =
            cluster.present(|vm| self.away.get(vm).is_none_or(|away| away.warmth(parameters.warm_up, now) >= 1.0));
        let heirs = heirs(&present, parameters.replicas);
        let places: BTreeMap<&VmId, usize> =
            (0..).zip(&cluster.members).map(|(i, member)| (&member.vm.id, i)).collect();
        let mut received = vec![0u64; cluster.members.len()];
        let mut due = vec![None; cluster.members.len()];
        for (id, away) in &self.away {
            let Some(&place) = places.get(id) else { continue };
            let member = &cluster.members[place];
            // Where nobody is left who could stand in for it, it has all of its own.
            let warmth = if present[place] { 1.0 } else { away.warmth(parameters.warm_up, now) };
            // What has come back to it stays.
            let own = away.due(member.floor, warmth).max(member.has.saturating_sub(self.received_by(id)));
            due[place] = Some(own);
            for (heir, part) in parts(away.own.saturating_sub(own), &heirs[place]) {
                received[heir] += part;
            }
        }
        for ((member, received), due) in cluster.members.iter_mut().zip(received).zip(due) {
            member.aim(due, received, self.received_by(&member.vm.id));
        }
    }

    fn received_by(&self, vm: &VmId) -> u64 {
        self.received.get(vm).copied().unwrap_or(0)
    }

    fn transfer_of(&self, cluster: &Cluster<'_>, warm_up: Duration, now: Timestamp) -> Transfer {
        let mut transfer = Transfer::default();
        let warm = |away: &Away| away.warmth(warm_up, now);
        let recent = self.away.values().any(|away| away.back.is_none() && now.since(away.failed) < warm_up);
        for member in cluster.members.iter().filter(|member| member.managed) {
            let id = &member.vm.id;
            if member.received > 0 {
                transfer.received.insert(id.clone(), member.received);
                if recent && member.vm.state != VmState::Down {
                    transfer.kept.insert(id.clone(), member.to);
                }
            }
            let away = self.away.get(id);
            if away.is_some_and(|away| away.back.is_some() && warm(away) < 1.0) {
                transfer.warming.insert(id.clone());
            }
            if member.cut > 0 {
                let reason = Reason::new("not all that is due to it while VMs are away or come back fits");
                transfer.refusals.insert(id.clone(), reason.with("lacking", member.cut as f64));
            }
            if member.to != member.has {
                let reason = member.reason(away.map(warm));
                transfer.changes.insert(id.clone(), ShareChange { from: member.has, to: member.to, reason });
            }
        }
        transfer
    }
}

/// What a VM that has `has` may have had before, if it was never seen in service, such as before this allocator began:
/// an equal share, as far as nobody has it now.
fn presumed(view: &View<'_>, resource: Resource, has: u64) -> u64 {
    let managed = || view.vms().filter_map(|vm| Some((vm.state, vm.desired(resource)?)));
    let bound = view.bound(resource).unwrap_or(0);
    let free = bound.saturating_sub(managed().fold(0, |sum, (_, has)| sum.saturating_add(has)));
    let (all, down) = (managed().count() as u64, managed().filter(|(state, _)| *state == VmState::Down).count() as u64);
    has.max(bound / all.max(1)).min(has.saturating_add(free / down.max(1)))
}

/// `amount` in as equal parts as whole units allow, each with whom it goes to.
fn parts(amount: u64, to: &[usize]) -> impl Iterator<Item = (usize, u64)> + '_ {
    let count = to.len().max(1) as u64;
    let (each, rest) = (amount / count, amount % count);
    (0..).zip(to).map(move |(number, &heir)| (heir, each + u64::from(number < rest)))
}

/// The VMs of a customer in cluster order, with what each shall have.
struct Cluster<'a> {
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    vm: &'a Vm,
    host: Option<usize>,
    /// Whether the resource is managed for it, and may be changed now.
    managed: bool,
    has: u64,
    floor: u64,
    to: u64,
    /// How much of `to` it has for others.
    received: u64,
    /// By how much `to` falls short of what was due, for want of room.
    cut: u64,
}

impl<'a> Cluster<'a> {
    fn new(view: &View<'a>, resource: Resource) -> Self {
        let member = |vm: &'a Vm| {
            let has = vm.desired(resource).unwrap_or(0);
            let (host, managed) = (view.host_of(vm), vm.desired(resource).is_some());
            let floor = vm.floor.get(resource).unwrap_or(0);
            Member { vm, host, managed, has, floor, to: has, received: 0, cut: 0 }
        };
        Cluster { members: view.snapshot().vms_of(view.customer()).map(member).collect() }
    }

    /// Who can stand in for others: those that serve and are `warm`; all that serve where there are no such.
    fn present(&self, warm: impl Fn(&VmId) -> bool) -> Vec<bool> {
        let serves = |member: &Member<'_>| member.vm.state.serves();
        let whole: Vec<bool> = self.members.iter().map(|member| serves(member) && warm(&member.vm.id)).collect();
        if whole.contains(&true) { whole } else { self.members.iter().map(serves).collect() }
    }

    /// Shrinks what VMs are to get to what their hosts have room for.
    fn keep_to_rooms(&mut self, view: &View<'_>, resource: Resource) {
        let mut rooms = Rooms::of(view, resource);
        let mut wanted = vec![0u64; rooms.0.len()];
        for member in &self.members {
            rooms.take(member.host, member.has.min(member.to));
            if let Some(host) = member.host {
                wanted[host] = wanted[host].saturating_add(member.raise());
            }
        }
        for member in &mut self.members {
            let Some(host) = member.host else { continue };
            if let Some(room) = rooms.left(Some(host)) {
                member.shrink(room, wanted[host]);
            }
        }
    }

    /// Makes it fit into the bound. It does already, unless somebody else gave away what failed VMs had: then first those
    /// that take over get less; then all that are whole make room for those that come back, in proportion to what they
    /// have beyond their floors; then these get less.
    fn keep_to_bound(&mut self, bound: u64) {
        let whole = |member: &Member<'_>| member.received > 0 || member.raise() == 0;
        self.shrink_raises(bound, whole);
        self.collect(self.total().saturating_sub(bound));
        self.shrink_raises(bound, |_| true);
    }

    /// Has all who may pay give up `amount` together, as far as they have so much beyond their floors.
    fn collect(&mut self, amount: u64) {
        let all: u64 = self.members.iter().map(Member::spare).fold(0, u64::saturating_add);
        let mut left = amount.min(all);
        let (due, all) = (u128::from(left), u128::from(all.max(1)));
        for member in &mut self.members {
            // At most what it has to spare, as no more than what all have is due.
            let part = (u128::from(member.spare()) * due / all) as u64;
            member.to -= part;
            left -= part;
        }
        // Fewer units than members are left over.
        for member in self.members.iter_mut().filter(|member| member.spare() > 0) {
            let unit = left.min(1);
            member.to -= unit;
            left -= unit;
        }
    }

    fn total(&self) -> u64 {
        self.members.iter().filter(|member| member.managed).fold(0, |sum, member| sum.saturating_add(member.to))
    }

    /// Shrinks the raises of `which` so that the total is within the bound, as far as they are enough for that.
    fn shrink_raises(&mut self, bound: u64, which: impl Fn(&Member<'_>) -> bool) {
        let over = self.total().saturating_sub(bound);
        let of = |member: &Member<'_>| if which(member) { member.raise() } else { 0 };
        let wanted: u64 = self.members.iter().map(of).fold(0, u64::saturating_add);
        if over == 0 || wanted == 0 {
            return;
        }
        let room = wanted.saturating_sub(over);
        for member in &mut self.members {
            if of(member) > 0 {
                member.shrink(room, wanted);
            }
        }
    }
}

impl Member<'_> {
    /// Sets what it shall have: `due` where it is away, else its own with `received` for others, of which it has
    /// `before` already.
    fn aim(&mut self, due: Option<u64>, received: u64, before: u64) {
        // What it has for others stays so until it can be changed.
        self.received = before;
        if !self.managed || self.vm.moving.is_some() || self.vm.state == VmState::Down {
            return;
        }
        self.received = received;
        let own = due.unwrap_or_else(|| self.has.saturating_sub(before));
        self.to = own.saturating_add(received).max(self.floor);
    }

    fn raise(&self) -> u64 {
        self.to.saturating_sub(self.has)
    }

    /// What it can give up for others: nothing where it is not there, or is itself to get more.
    fn spare(&self) -> u64 {
        let pays = self.managed && self.vm.moving.is_none() && self.vm.state != VmState::Down && self.raise() == 0;
        if pays { self.to.saturating_sub(self.floor) } else { 0 }
    }

    /// Its part of `room` where `wanted` of it is asked for. Rounding down keeps the sum within it.
    fn shrink(&mut self, room: u64, wanted: u64) {
        let raise = self.raise();
        if raise == 0 || wanted <= room {
            return;
        }
        // The quotient is at most `raise`, which is a u64.
        let left = (u128::from(raise) * u128::from(room) / u128::from(wanted)) as u64;
        self.to = self.has + left;
        self.cut += raise - left;
        self.received = self.received.saturating_sub(raise - left);
    }

    /// Why it gets `to`, where `warmth` tells how far it is on its way back, if it was away.
    fn reason(&self, warmth: Option<f64>) -> Reason {
        match warmth {
            Some(warmth) if warmth < 1.0 => Reason::new("back from a failure, warming up").with("warmth", warmth),
            Some(_) => Reason::new("back from a failure"),
            None if self.to > self.has => {
                Reason::new("takes over from VMs that failed").with("received", self.received as f64)
            }
            None => Reason::new("gives back what it took over").with("received", self.received as f64),
        }
    }
}
