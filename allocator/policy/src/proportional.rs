//! Equal utilisation: each VM gets in proportion to its demand (section 3.3.2).

use crate::{
    BuildError, Policy, RestoreError, View,
    demand::{FUTURE, demand, matching},
    divide::{Claim, divide},
    policy::restored,
    room::Rooms,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use vibra_model::{
    Action, AllocationChange, Amount, Plan, Reason, Refusal, Resource, Timestamp, UsageSample, Vm, VmId, VmState,
};

/// α of equation 3.1 unless it is configured: how much of the old estimate a new sample leaves.
pub const ALPHA: f64 = 0.9;
/// The dead band unless it is configured, as a share of the bound: a plan that would move less moves nothing. Each
/// change costs the guests something (TCP's window adapts, pages are scanned), and demand is never measured so finely.
pub const DEAD_BAND: f64 = 0.01;

/// How [`Proportional`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProportionalParameters {
    /// α of equation 3.1, from 0 (the newest sample alone counts) up to but not including 1.
    pub alpha: f64,
    /// A plan that would move less than this share of the bound moves nothing; from 0 up to but not including 1.
    pub dead_band: f64,
    /// The most that one decision changes a VM's share, as a share of the bound; above 0, up to 1.
    pub max_step: f64,
}

impl Default for ProportionalParameters {
    fn default() -> Self {
        ProportionalParameters { alpha: ALPHA, dead_band: DEAD_BAND, max_step: 1.0 }
    }
}

impl ProportionalParameters {
    fn check(&self) -> Result<(), String> {
        let wrong = |name, value, range| Err(format!("{name} = {value} is out of range: use {range}"));
        if !(0.0..1.0).contains(&self.alpha) {
            return wrong("alpha", self.alpha, "at least 0 and less than 1");
        }
        if !(0.0..1.0).contains(&self.dead_band) {
            return wrong("dead_band", self.dead_band, "at least 0 and less than 1");
        }
        if !(self.max_step > 0.0 && self.max_step <= 1.0) {
            return wrong("max_step", self.max_step, "more than 0 and at most 1");
        }
        Ok(())
    }
}

/// Gives each VM its share of the bound in proportion to its demand, so that all are utilised alike.
///
/// - The demand d_i of a VM is the moving average of what it used (equation 3.1), beginning with the first sample.
///   Bandwidth demand is the egress measured before the shaper, memory demand the working set or, where that is not
///   known, the memory in use, CPU demand the CPU used over the sample's interval. Each sample counts once, in time order; where samples are missing, d_i stays.
/// - Its share is BW·d_i / Σd (equation 3.2), but never less than its floor and, together with the others on its host,
///   never more than the host has. The shares sum to the bound exactly unless every host is full.
/// - A VM that is down keeps its floor and takes no part; its demand is remembered for its return. A VM that was never
///   measured keeps what it has. Where no one has any demand nothing is changed: there is no evidence for any other
///   division than the present one.
/// - A plan that would move less than the dead band is not made. A larger step than allowed is shortened for all VMs
///   in the same proportion.
#[derive(Debug, Clone)]
pub struct Proportional {
    resource: Resource,
    parameters: ProportionalParameters,
    /// By VM id, like everything it is joined with.
    estimates: Vec<(VmId, Estimate)>,
}

/// What is known of one VM's demand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Estimate {
    /// d_i of equation 3.1, in the resource's base unit.
    demand: f64,
    /// The newest sample that went into it.
    at: Timestamp,
}

/// A VM that takes part.
struct Party {
    /// Its id, not its record: records are large, and of many VMs most have left the caches before the actions are made.
    id: VmId,
    has: u64,
}

/// Who takes part in a division, and what is there to divide.
struct Survey {
    parties: Vec<Party>,
    /// What each of the parties is due.
    claims: Vec<Claim>,
    /// What all others leave on the hosts.
    rooms: Rooms,
    /// What those have together who take no part.
    kept: u64,
    /// Why they take none.
    refusals: Vec<Refusal>,
}

impl Proportional {
    /// Its name in configuration.
    pub const NAME: &'static str = "proportional";

    /// The policy for `resource`.
    ///
    /// # Errors
    /// [`BuildError::Parameters`] if a parameter is out of range.
    pub fn new(resource: Resource, parameters: ProportionalParameters) -> Result<Self, BuildError> {
        parameters.check().map_err(|why| BuildError::Parameters { policy: Self::NAME, resource, why })?;
        Ok(Proportional { resource, parameters, estimates: Vec::new() })
    }

    /// The policy for `resource`, with parameters from configuration.
    ///
    /// # Errors
    /// As [`new`](Self::new); also if the parameters are not a [`ProportionalParameters`].
    pub fn build(resource: Resource, parameters: Value) -> Result<Self, BuildError> {
        let parsed = serde_json::from_value(parameters).map_err(|error| BuildError::Parameters {
            policy: Self::NAME,
            resource,
            why: error.to_string(),
        });
        Self::new(resource, parsed?)
    }

    /// Takes the samples in that are new, drops the estimates of VMs that are gone, and parts the VMs that take part
    /// from those that keep what they have. All of it in one pass: for 100,000 VMs memory is what costs.
    fn survey(&mut self, view: &View<'_>, now: Timestamp) -> Survey {
        let last = std::mem::take(&mut self.estimates);
        // The cluster is most likely as large as the last time.
        let mut survey = Survey::new(Rooms::of(view, self.resource), last.len());
        self.estimates.reserve(last.len());
        let mut known = last.into_iter().peekable();
        let mut usage = view.usage().0.iter().peekable();
        for vm in view.vms() {
            let old = matching(&mut known, &vm.id, |(id, _)| id);
            let samples = matching(&mut usage, &vm.id, |(id, _)| id).map_or(&[][..], |(_, samples)| samples);
            let new = self.learnt(old.as_ref().map(|(_, estimate)| *estimate), samples, now.after(FUTURE));
            survey.sort_in(vm, view.host_of(vm), self.resource, new);
            if let Some(estimate) = new {
                let id = old.map_or_else(|| vm.id.clone(), |(id, _)| id);
                self.estimates.push((id, estimate));
            }
        }
        survey
    }

    /// The estimate after the samples that are new (equation 3.1).
    fn learnt(&self, mut estimate: Option<Estimate>, samples: &[UsageSample], newest: Timestamp) -> Option<Estimate> {
        let alpha = self.parameters.alpha;
        for sample in samples.iter().filter(|sample| sample.at <= newest) {
            let Some(used) = demand(self.resource, sample) else { continue };
            let at = sample.at;
            estimate = match estimate {
                None => Some(Estimate { demand: used, at }),
                Some(old) if at <= old.at => Some(old),
                Some(old) => Some(Estimate { demand: alpha * old.demand + (1.0 - alpha) * used, at }),
            };
        }
        estimate
    }

    /// The new shares of those who take part, or why there are none.
    fn shares(&self, bound: u64, survey: &Survey) -> Result<Vec<u64>, &'static str> {
        let Survey { parties, claims, rooms, kept, .. } = survey;
        if claims.iter().all(|claim| claim.weight == 0.0) {
            return Err("no one has any demand");
        }
        let shares = divide(bound.saturating_sub(*kept), claims, rooms);
        let mut shares = shares.ok_or("the floors do not fit into the bound, or into what a host has")?;
        shorten(parties, &mut shares, (self.parameters.max_step * bound as f64) as u64);
        let raised: u64 = moved(parties, &shares, |has, to| to.saturating_sub(has));
        let lowered: u64 = moved(parties, &shares, |has, to| has.saturating_sub(to));
        if (raised.max(lowered) as f64) < self.parameters.dead_band * bound as f64 {
            return Err("within the dead band");
        }
        Ok(shares)
    }
}

impl Survey {
    fn new(rooms: Rooms, vms: usize) -> Self {
        let (parties, claims) = (Vec::with_capacity(vms), Vec::with_capacity(vms));
        Survey { parties, claims, rooms, kept: 0, refusals: Vec::new() }
    }

    /// Finds out whether a VM takes part.
    fn sort_in(&mut self, vm: &Vm, host: Option<usize>, resource: Resource, estimate: Option<Estimate>) {
        let Some(has) = vm.desired(resource) else { return };
        let why = match (vm.state, estimate) {
            (VmState::Down, _) => "down: keeps its floor",
            (_, None) => "never measured: keeps what it has",
            (_, Some(estimate)) => {
                let floor = vm.floor.get(resource).unwrap_or(0);
                self.parties.push(Party { id: vm.id.clone(), has });
                self.claims.push(Claim { weight: estimate.demand, floor, host });
                return;
            }
        };
        self.kept = self.kept.saturating_add(has);
        self.rooms.take(host, has);
        self.refusals.push(Refusal { vm: vm.id.clone(), resource, reason: Reason::new(why) });
    }

    /// The parties, each with its demand.
    fn into_demands(self) -> impl ExactSizeIterator<Item = (Party, f64)> {
        self.parties.into_iter().zip(self.claims.into_iter().map(|claim| claim.weight))
    }
}

impl Policy for Proportional {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn resource(&self) -> Resource {
        self.resource
    }

    fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Plan {
        let mut survey = self.survey(view, now);
        let mut plan = Plan { base: view.snapshot().revision(), ..Plan::default() };
        plan.refusals = std::mem::take(&mut survey.refusals);
        let resource = self.resource;
        let Some(bound) = view.bound(resource) else { return plan };
        match self.shares(bound, &survey) {
            Ok(shares) => {
                plan.actions.reserve(shares.len());
                let changed = survey.into_demands().zip(shares).filter(|((party, _), to)| party.has != *to);
                plan.actions.extend(changed.map(|((party, demand), to)| party.action(resource.amount(to), demand)));
            }
            Err(why) => plan.refusals.extend(survey.into_demands().map(|(party, demand)| {
                let reason = Reason::new(why).with("demand", demand);
                Refusal { vm: party.id, resource, reason }
            })),
        }
        plan
    }

    fn save(&self) -> Value {
        let estimates = self.estimates.iter().map(|(vm, estimate)| {
            let estimate = serde_json::json!({ "demand": estimate.demand, "at": estimate.at });
            (vm.to_string(), estimate)
        });
        Value::Object(estimates.collect())
    }

    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        let estimates: BTreeMap<VmId, Estimate> = restored(Self::NAME, state)?;
        if let Some((vm, bad)) = estimates.iter().find(|(_, e)| !(e.demand.is_finite() && e.demand >= 0.0)) {
            return Err(RestoreError { policy: Self::NAME, why: format!("VM {vm} has a demand of {}", bad.demand) });
        }
        self.estimates = estimates.into_iter().collect();
        Ok(())
    }
}

impl Party {
    fn action(self, to: Amount, demand: f64) -> Action {
        Action {
            change: AllocationChange { vm: self.id, to },
            from: self.has,
            reason: Reason::new("in proportion to demand").with("demand", demand),
        }
    }
}

/// Shortens all changes in the same proportion, so that none is larger than `step`. Between two divisions that keep
/// the rules every one in between does too; rounding favours the smaller share, so that sums stay within it.
fn shorten(parties: &[Party], shares: &mut [u64], step: u64) {
    let largest = parties.iter().zip(&*shares).map(|(party, &to)| party.has.abs_diff(to)).max().unwrap_or(0);
    if largest <= step {
        return;
    }
    let (step, largest) = (u128::from(step), u128::from(largest));
    for (party, to) in parties.iter().zip(shares) {
        // Both quotients are at most `step`, which is a u64.
        *to = match to.checked_sub(party.has) {
            Some(raise) => party.has + (u128::from(raise) * step / largest) as u64,
            None => party.has - (u128::from(party.has - *to) * step).div_ceil(largest) as u64,
        };
    }
}

fn moved(parties: &[Party], shares: &[u64], change: impl Fn(u64, u64) -> u64) -> u64 {
    parties.iter().zip(shares).fold(0, |sum, (party, &to)| sum.saturating_add(change(party.has, to)))
}

#[cfg(test)]
#[path = "proportional_tests.rs"]
mod tests;
