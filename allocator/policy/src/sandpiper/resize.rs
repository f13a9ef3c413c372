//! Resizing: more of one resource for the VMs that outgrow their shares, where they are (section 5.6.1).

use super::{
    Kind,
    provision::{sustained, used},
    survey::Survey,
};
use std::{cmp::Reverse, collections::BTreeMap};
use vibra_model::{Action, AllocationChange, Plan, Reason, Refusal, Resource};

/// A change of less than this part of a share is not worth its cost, and not made.
const DEAD_BAND: f64 = 0.01;

/// Who should have more.
struct Demand {
    unit: usize,
    /// The share that it should have.
    target: u64,
    rule: &'static str,
    /// Whether it has been so for a sustained time, so that the VM should rather go elsewhere than have less.
    lasts: bool,
}

/// Plans the shares of one resource, and notes in the survey what VMs have after it, and what they want in vain.
pub(super) struct Resizing<'s, 'a> {
    survey: &'s mut Survey<'a>,
    resource: Resource,
    /// What the customer has bought and not given away.
    free: u64,
    /// Which VMs completed a measurement since the last decision, by their place in the survey: memory goes by steps, one
    /// a measurement.
    fresh: &'s [bool],
    /// Why the share of each VM changes, by its place in the survey.
    reasons: Vec<Option<Reason>>,
    /// Who asks for more, and so gives nothing.
    asks: Vec<bool>,
    /// What each VM keeps for itself at least, where that was asked for: its peak is not computed twice.
    keeps: BTreeMap<usize, u64>,
}

impl<'s, 'a> Resizing<'s, 'a> {
    pub(super) fn new(survey: &'s mut Survey<'a>, resource: Resource, bound: u64, fresh: &'s [bool]) -> Self {
        let given = survey.units.iter().filter_map(|unit| unit.share[resource as usize]);
        let free = given.fold(bound, u64::saturating_sub);
        let (reasons, asks) = (vec![None; survey.units.len()], vec![false; survey.units.len()]);
        Resizing { survey, resource, free, fresh, reasons, asks, keeps: BTreeMap::new() }
    }

    /// Gives to those who need more: what is free, then what others have and do not need.
    pub(super) fn plan(mut self, plan: &mut Plan) {
        let before: Vec<_> = self.survey.units.iter().map(|unit| unit.share[self.resource as usize]).collect();
        if self.resource == Resource::Memory && self.survey.kind == Kind::Gray {
            self.release_memory();
        }
        // The one who lacks most, relative to what he has, is served first.
        let mut demands = self.demands();
        let lack = |demand: &Demand| demand.target as f64 / self.share(demand.unit).max(1) as f64;
        demands.sort_by(|a, b| lack(b).total_cmp(&lack(a)));
        demands.iter().for_each(|demand| self.asks[demand.unit] = true);
        for demand in &demands {
            plan.refusals.extend(self.serve(demand));
        }
        for (number, from) in before.into_iter().enumerate() {
            let (unit, Some(from)) = (&self.survey.units[number], from) else { continue };
            let to = self.share(number);
            if to != from {
                let reason = self.reasons[number].take().unwrap_or_else(|| Reason::new("has more than its peak needs"));
                let change = AllocationChange { vm: unit.vm.id.clone(), to: self.resource.amount(to) };
                plan.actions.push(Action { change, from, reason });
            }
        }
    }

    fn share(&self, unit: usize) -> u64 {
        self.survey.units[unit].share[self.resource as usize].unwrap_or(0)
    }

    fn set(&mut self, unit: usize, to: u64) {
        self.free = self.free.saturating_add(self.share(unit)).saturating_sub(to);
        self.survey.units[unit].share[self.resource as usize] = Some(to);
        self.survey.set_wants(unit, self.resource as usize, to);
    }

    fn demands(&self) -> Vec<Demand> {
        let demands = (0..self.survey.units.len()).filter_map(|number| match self.resource {
            Resource::Memory => memory_demand(self.survey, number, self.fresh[number]),
            Resource::Bandwidth | Resource::Cpu => flow_demand(self.survey, number, self.resource),
        });
        demands.collect()
    }

    /// Gives a VM as much as can be had of what it lacks; says why it is not all.
    fn serve(&mut self, demand: &Demand) -> Option<Refusal> {
        let (has, site) = (self.share(demand.unit), self.survey.units[demand.unit].site);
        let lacking = demand.target - has;
        let room = |this: &Self| site.and_then(|site| this.survey.sites[site].free(this.resource));
        if let (Some(site), Some(room)) = (site, room(self).filter(|room| *room < lacking)) {
            self.collect(lacking - room, self.survey.sites[site].units.clone());
        }
        if self.free < lacking {
            self.collect(lacking - self.free, (0..self.survey.units.len()).collect());
        }
        let granted = lacking.min(self.free).min(room(self).unwrap_or(lacking));
        let reason = |rule| Reason::new(rule).with("target", demand.target as f64);
        if granted as f64 > DEAD_BAND * has as f64 {
            self.set(demand.unit, has + granted);
            self.reasons[demand.unit] = Some(reason(demand.rule));
        }
        if granted == lacking {
            return None;
        }
        // What the customer has not bought he gets on no other host either.
        let on_host = room(self).is_some_and(|room| room < self.free);
        if on_host && demand.lasts {
            let wants = demand.target.min(self.share(demand.unit).saturating_add(self.free));
            self.survey.set_wants(demand.unit, self.resource as usize, wants);
        }
        let rule = if on_host { "its host has no more" } else { "the customer has bought no more" };
        let vm = self.survey.units[demand.unit].vm.id.clone();
        Some(Refusal { vm, resource: self.resource, reason: reason(rule) })
    }

    /// Takes up to `amount` from those of `units` that have more than their peak needs, the richest first.
    fn collect(&mut self, mut amount: u64, units: Vec<usize>) {
        let surplus = |this: &mut Self, unit| Some((this.share(unit).checked_sub(this.keeps(unit)?)?, unit));
        let mut donors: Vec<_> = units.into_iter().filter_map(|unit| surplus(self, unit)).collect();
        donors.sort_by_key(|&(surplus, unit)| (Reverse(surplus), unit));
        for (surplus, unit) in donors {
            let taken = surplus.min(amount);
            if taken == 0 {
                return;
            }
            self.set(unit, self.share(unit) - taken);
            amount -= taken;
        }
    }

    /// The least that a VM keeps for itself: what its peak needs, and its floor. `None` if it gives nothing. Black-box,
    /// no one knows what a VM needs of memory.
    fn keeps(&mut self, number: usize) -> Option<u64> {
        let unit = &self.survey.units[number];
        if self.asks[number] || !unit.takes_part() || unit.profile.len() < self.survey.parameters.n {
            return None;
        }
        if let Some(keeps) = self.keeps.get(&number) {
            return Some(*keeps);
        }
        let needs = match self.resource {
            Resource::Memory => self.survey.memory(unit)? + self.survey.parameters.memory_step.0 as f64,
            resource => self.survey.peak(unit, resource)? / self.survey.parameters.threshold,
        };
        let keeps = (needs.ceil() as u64).max(unit.vm.floor.get(self.resource).unwrap_or(0));
        self.keeps.insert(number, keeps);
        Some(keeps)
    }

    /// Gray-box, memory that is not needed is given back in steps (section 5.5.2): never so much that the next
    /// measurement would ask for it again.
    fn release_memory(&mut self) {
        let step = self.survey.parameters.memory_step.0;
        for number in 0..self.survey.units.len() {
            let unit = &self.survey.units[number];
            let enough = unit.profile.len() >= self.survey.parameters.n && self.fresh[number];
            let (Some(used), true) = (self.survey.memory(unit), enough && unit.takes_part()) else { continue };
            let (has, floor) = (self.share(number), unit.vm.floor.get(self.resource).unwrap_or(0));
            let to = has.saturating_sub(step);
            if to >= floor && to as f64 > used + 2.0 * step as f64 {
                self.set(number, to);
                self.reasons[number] = Some(Reason::new("gives free memory back").with("used", used));
            }
        }
    }
}

/// Notes what VMs want in vain of a resource that another policy divides, as far as their hosts are the reason.
pub(super) fn note_wants(survey: &mut Survey<'_>, resource: Resource, bound: u64) {
    let given = survey.units.iter().filter_map(|unit| unit.share[resource as usize]);
    let free = given.fold(bound, u64::saturating_sub);
    for number in 0..survey.units.len() {
        let demand = match resource {
            Resource::Memory => memory_demand(survey, number, true),
            Resource::Bandwidth | Resource::Cpu => flow_demand(survey, number, resource),
        };
        let Some(Demand { unit, target, .. }) = demand.filter(|demand| demand.lasts) else { continue };
        let lacking = target - survey.units[unit].wants[resource as usize];
        let room = survey.units[unit].site.and_then(|site| survey.sites[site].free(resource));
        if lacking <= free && room.is_some_and(|room| room < lacking) {
            survey.set_wants(unit, resource as usize, target);
        }
    }
}

/// The share of CPU or bandwidth that a VM should have, if it outgrows the one it has: one of which its peak is the
/// threshold.
fn flow_demand(survey: &Survey<'_>, unit: usize, resource: Resource) -> Option<Demand> {
    let vm = &survey.units[unit];
    let has = vm.share[resource as usize]?;
    if !vm.takes_part() || !survey.outgrows_share(vm, resource) {
        return None;
    }
    let target = (survey.peak(vm, resource)? / survey.parameters.threshold).ceil() as u64;
    let demand = Demand { unit, target, rule: "its peak needs more", lasts: true };
    (target as f64 > has as f64 * (1.0 + DEAD_BAND)).then_some(demand)
}

/// The memory that a VM should have: a step more if it swaps or, gray-box, has less than a step free.
fn memory_demand(survey: &Survey<'_>, unit: usize, fresh: bool) -> Option<Demand> {
    let vm = &survey.units[unit];
    let has = vm.share[Resource::Memory as usize].filter(|_| fresh && vm.takes_part())?;
    let (parameters, step) = (survey.parameters, survey.parameters.memory_step.0);
    let target = has.saturating_add(step);
    let least = has.saturating_sub(step) as f64;
    if survey.memory(vm).is_some_and(|used| used > least) {
        let lasts = sustained(vm.profile, least, parameters, used(Resource::Memory));
        return Some(Demand { unit, target, rule: "little memory is free", lasts });
    }
    survey.swaps(vm).then(|| Demand { unit, target, rule: "it swaps", lasts: survey.keeps_swapping(vm) })
}
