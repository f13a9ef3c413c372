//! What there is: the customer's VMs with their profiles, and the hosts they are on.

use super::{
    Kind,
    parameters::SandpiperParameters,
    profile::{Profile, exceeds, predicted, trend},
    provision::{Limits, breaks_promise, observed_peak, requested_peak, sustained, used},
};
use crate::View;
use vibra_model::{Host, HostId, HostState, Resource, Vm, VmId, VmState};

/// A number for each resource, by the resource's place in [`Resource::ALL`].
pub(super) type Each<T> = [T; 3];

/// What `value` gives for each resource.
pub(super) fn each<T>(value: impl Fn(Resource) -> T) -> Each<T> {
    Resource::ALL.map(value)
}

/// A VM of the customer.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    pub(super) vm: &'a Vm,
    pub(super) profile: &'a Profile,
    /// Its host, if that has limits.
    pub(super) site: Option<usize>,
    /// Its share, after what is planned so far; `None` where the resource is not managed for it.
    pub(super) share: Each<Option<u64>>,
    /// The share it should have, where it is managed: `share`, or more if it could not get all that it needs here.
    pub(super) wants: Each<u64>,
    /// The most that it may come to have by this plan, whichever part of it is carried out.
    pub(super) most: Each<u64>,
    /// What it uses now: the newest measurement or, where its application breaks its promise, what its requests need.
    pub(super) load: Each<f64>,
    /// Whether its application breaks its promise; only looked at gray-box.
    pub(super) broken: bool,
}

impl Unit<'_> {
    /// Whether it takes part: it serves, and its share is decided by no one else.
    pub(super) fn takes_part(&self) -> bool {
        self.vm.state.serves() || self.vm.state == VmState::Starting
    }
}

/// A host that has limits.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) host: &'a Host,
    /// What it has for this customer; `None` where it has no limit.
    pub(super) room: Each<Option<u64>>,
    /// What its VMs want together, where they have shares.
    pub(super) wants: Each<u64>,
    /// The most that its VMs may come to have by this plan together.
    pub(super) most: Each<u64>,
    /// What its VMs use together.
    pub(super) load: Each<f64>,
    /// Its VMs.
    pub(super) units: Vec<usize>,
}

impl Site<'_> {
    /// What is left of `resource` for shares; `None`: as much as one likes.
    pub(super) fn free(&self, resource: Resource) -> Option<u64> {
        self.room[resource as usize].map(|room| room.saturating_sub(self.wants[resource as usize]))
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Survey<'a> {
    pub(super) kind: Kind,
    pub(super) parameters: &'a SandpiperParameters,
    pub(super) units: Vec<Unit<'a>>,
    pub(super) sites: Vec<Site<'a>>,
}

impl<'a> Survey<'a> {
    /// Of the VMs in `view`, which `profiles` tells of in the same order.
    pub(super) fn new(
        view: &View<'a>,
        profiles: impl Iterator<Item = &'a Profile>,
        kind: Kind,
        parameters: &'a SandpiperParameters,
    ) -> Self {
        let rooms = Resource::ALL.map(|resource| view.rooms(resource));
        let site = |(number, host)| Site {
            host,
            room: each(|r| rooms[r as usize][number]),
            wants: [0; 3],
            most: [0; 3],
            load: [0.0; 3],
            units: Vec::new(),
        };
        let mut survey =
            Survey { kind, parameters, units: Vec::new(), sites: view.hosts().enumerate().map(site).collect() };
        for (vm, profile) in view.vms().zip(profiles) {
            survey.add(view, vm, profile);
        }
        if kind == Kind::Gray {
            survey.count_requests();
        }
        survey
    }

    fn add(&mut self, view: &View<'a>, vm: &'a Vm, profile: &'a Profile) {
        let share = each(|r| view.share(vm, r));
        let newest = |r| profile.newest().and_then(|m| m.used(r)).unwrap_or(0.0);
        // Black-box, memory is an allocation that is never looked into; and so is a share of it.
        let seen = |r| r != Resource::Memory || (self.kind == Kind::Gray && share[r as usize].is_none());
        let load = each(|r| if seen(r) { newest(r) } else { 0.0 });
        let (site, wants) = (view.host_of(vm), share.map(|share| share.unwrap_or(0)));
        let most = each(|r| wants[r as usize].max(vm.desired(r).unwrap_or(0)));
        let unit = Unit { vm, profile, site, share, wants, most, load, broken: false };
        if let Some(site) = site {
            let site = &mut self.sites[site];
            site.units.push(self.units.len());
            for r in 0..3 {
                site.wants[r] = site.wants[r].saturating_add(wants[r]);
                site.most[r] = site.most[r].saturating_add(most[r]);
                site.load[r] += load[r];
            }
        }
        self.units.push(unit);
    }

    /// Counts what requests need, where that is more than what is used and a promise is broken.
    fn count_requests(&mut self) {
        let sla = self.parameters.sla.unwrap_or_default();
        for number in 0..self.units.len() {
            if !breaks_promise(self.units[number].profile, &sla, self.parameters) {
                continue;
            }
            self.units[number].broken = true;
            for resource in [Resource::Cpu, Resource::Bandwidth] {
                let (unit, r) = (&self.units[number], resource as usize);
                let peak = requested_peak(unit.profile, resource, &self.limits(unit, resource), self.parameters);
                let more = peak.map_or(0.0, |peak| peak - unit.load[r]).max(0.0);
                self.units[number].load[r] += more;
                if let Some(site) = self.units[number].site {
                    self.sites[site].load[r] += more;
                }
            }
        }
    }

    /// Keeps room on the host `to` for a VM that is on its way there.
    pub(super) fn reserve(&mut self, vm: &VmId, to: &HostId) {
        let Some(unit) = self.units.iter().find(|unit| unit.vm.id == *vm && unit.vm.host != *to) else { return };
        if let Some(site) = self.sites.iter_mut().find(|site| site.host.id == *to) {
            for r in 0..3 {
                site.wants[r] = site.wants[r].saturating_add(unit.wants[r]);
                site.most[r] = site.most[r].saturating_add(unit.most[r]);
            }
        }
    }

    /// Notes what a VM shall have, or wants, and that on its host.
    pub(super) fn set_wants(&mut self, unit: usize, r: usize, wants: u64) {
        let unit = &mut self.units[unit];
        let (had, most) = (unit.wants[r], unit.most[r]);
        unit.wants[r] = wants;
        unit.most[r] = most.max(wants);
        if let Some(site) = unit.site {
            let site = &mut self.sites[site];
            site.wants[r] = site.wants[r].saturating_sub(had).saturating_add(wants);
            site.most[r] = site.most[r].saturating_add(unit.most[r] - most);
        }
    }

    /// What `unit` can be given of `resource` where it is.
    pub(super) fn limits(&self, unit: &Unit<'_>, resource: Resource) -> Limits {
        let (site, r) = (unit.site.map(|site| &self.sites[site]), resource as usize);
        Limits {
            share: unit.share[r].map(|share| share as f64),
            room: site.and_then(|site| site.room[r]).map(|room| room as f64),
            load: site.map_or(unit.load[r], |site| site.load[r]),
        }
    }

    /// What a VM needs of CPU or bandwidth at its peak, in the resource's base unit. `None` if it was never measured.
    pub(super) fn peak(&self, unit: &Unit<'_>, resource: Resource) -> Option<f64> {
        let limits = self.limits(unit, resource);
        let observed = observed_peak(unit.profile, resource, &limits, self.parameters);
        let requested = match self.kind {
            Kind::Gray => requested_peak(unit.profile, resource, &limits, self.parameters),
            Kind::Black => None,
        };
        requested.or(observed)
    }

    /// The most memory that a VM used in the newest n measurements; `None` if that is not measured, or not looked at.
    pub(super) fn memory(&self, unit: &Unit<'_>) -> Option<f64> {
        if self.kind == Kind::Black {
            return None;
        }
        let recent = unit.profile.newest_first().take(self.parameters.n).filter_map(|m| m.used(Resource::Memory));
        recent.reduce(f64::max)
    }

    /// Whether a VM swaps now.
    pub(super) fn swaps(&self, unit: &Unit<'_>) -> bool {
        let swapped = unit.profile.newest().and_then(|m| m.swapped());
        swapped.is_some_and(|swapped| swapped > self.parameters.swap_rate.0 as f64)
    }

    /// Whether a VM has swapped for a sustained time.
    pub(super) fn keeps_swapping(&self, unit: &Unit<'_>) -> bool {
        sustained(unit.profile, self.parameters.swap_rate.0 as f64, self.parameters, |m| m.swapped())
    }

    /// Whether a VM has used more than the threshold of its share for a sustained time, or needs more to keep its
    /// application's promise.
    pub(super) fn outgrows_share(&self, unit: &Unit<'_>, resource: Resource) -> bool {
        let Some(share) = unit.share[resource as usize] else { return false };
        let limit = self.parameters.threshold * share as f64;
        sustained(unit.profile, limit, self.parameters, used(resource))
            || (unit.broken && unit.load[resource as usize] > limit)
    }

    /// What the VMs that are on a site now used together, newest first. VMs that were not measured so often count where
    /// they were.
    fn together(&self, site: &Site<'_>, resource: Resource, newest: usize) -> Vec<f64> {
        let mut sums = Vec::new();
        for &unit in &site.units {
            let series = self.units[unit].profile.newest_first().take(newest);
            for (age, measurement) in series.enumerate() {
                if age == sums.len() {
                    sums.push(0.0);
                }
                sums[age] += measurement.used(resource).unwrap_or(0.0);
            }
        }
        sums
    }

    /// What a site that has been too full of `resource` for a sustained time will carry next (section 5.4); `None` if
    /// it has not.
    pub(super) fn overload(&self, site: &Site<'_>, resource: Resource) -> Option<f64> {
        let limit = self.parameters.threshold * site.room[resource as usize]? as f64;
        let counts = (self.parameters.k, self.parameters.n);
        if !exceeds(self.together(site, resource, self.parameters.n).into_iter(), counts, limit) {
            return None;
        }
        predicted(&self.together(site, resource, self.parameters.window)).filter(|next| *next > limit)
    }

    /// By how much the load of a site is foreseen to be above what it is now: by prediction, and by its trend.
    pub(super) fn rise(&self, site: &Site<'_>, resource: Resource) -> f64 {
        let series = self.together(site, resource, self.parameters.horizon);
        let now = series.first().copied().unwrap_or(0.0);
        trend(&series, self.parameters.horizon).map_or(0.0, |then| then - now).max(0.0)
    }

    /// Whether VMs may be brought to a site for good.
    pub(super) fn receives(&self, site: &Site<'_>) -> bool {
        site.host.state == HostState::Up && !self.is_scratch(site)
    }

    /// Whether a site is kept free for swaps.
    pub(super) fn is_scratch(&self, site: &Site<'_>) -> bool {
        self.parameters.scratch.contains(&site.host.id)
    }
}
