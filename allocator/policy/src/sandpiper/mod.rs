//! Sandpiper: hot spots are found, and resolved by resizing VMs or by moving them to other hosts
//! (virtual data centers dissertation, chapter 5).

mod mitigate;
mod order;

mod parameters;
mod profile;
mod provision;
mod resize;
mod survey;

pub use parameters::{SandpiperParameters, Sla};

use crate::{BuildError, Policy, RestoreError, View, demand::matching, policy::restored};
use mitigate::Mitigation;
use profile::{Grid, Profile};
use resize::{Resizing, note_wants};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use survey::Survey;
use vibra_model::{HostId, Move, Plan, Resource, Timestamp, VmId};

/// A sample from further in the future than this is not believed: it would make its VM deaf to all later ones.
const FUTURE: Duration = Duration::from_secs(60);

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What can be seen from outside of a VM: CPU, network, swapping.
    Black,
    /// Also its memory in use, and its requests.
    Gray,
}

/// Finds hot spots and resolves them: the policies `sandpiper` (black-box) and `sandpiper-gray`.
///
/// **Profiles** (section 5.3). What a VM used in each of the last W = 200 measurement intervals of I = 10 s: CPU in
/// thousandths of a core, bandwidth in bytes/s, swapping in bytes/s; gray-box also memory, requests, drops, service and
/// response times. A host's profile is the sum of those of the VMs that are on it now, so that a move shows at once.
///
/// **Hot spots** (section 5.4). A utilisation is above the threshold of 75 % in k = 3 of the last n = 5 measurements, and
/// the next one will be, as the first-order auto-regressive predictor says (equation 5.1): û = µ + φ(u − µ). That is
/// asked of each host for CPU and bandwidth, and of each VM's share where it has one. Gray-box, a VM also is hot
/// whose application breaks its promised response time or loses requests (k of n).
///
/// **Provisioning** (section 5.5). A VM needs the 95th percentile of its profile, and Δ = 10 % more of what is saturated:
/// of its share if it uses all of that, of the host otherwise. Its share shall be such that this peak is the threshold of
/// it. Memory grows by Δm = 32 MiB with each measurement in which the VM swaps. Gray-box, CPU scales by λpeak/λcap with
/// λcap = 1/(s + (σa² + σb²)/(2(d − s))) (equation 5.2), bandwidth is λpeak·b, and memory follows what is in use: a step
/// more where less than a step is free, a step less where more than three are.
///
/// **Resizing** (section 5.6.1) comes first: from what the host and the customer's bound leave, then from VMs that have
/// more than their own peak needs. One instance resizes the VMs' shares of its own resource alone.
///
/// **Migration** (section 5.6.2) comes where the host is the reason that resizing does not help. Hosts are taken by
/// decreasing volume 1/(1−cpu) · 1/(1−net) · 1/(1−mem) (equation 5.3), their VMs by decreasing ratio of volume to memory
/// footprint; each goes to the host of the least volume where its peak and its share fit, also by that host's trend, until
/// the hot spot is gone. Failing that, VMs are **swapped** with as few as possible of the lowest ratio elsewhere, the
/// smaller side by way of a scratch host. A plan is complete before its first move; hot spots that no moves can dissipate are
/// left alone, with a refusal. While a plan's moves are under way, and until k measurements after them, no other is made.
///
/// All three resources count in volume and room, whichever one the instance resizes. Where a resource is not managed for a
/// VM (its share is `None`) there is nothing to resize, and the VM may use what its host has, as under a work-conserving
/// scheduler. Hosts without any limit are never hot and receive no VMs. It sees its own customer's VMs only; what others'
/// shares leave of a host is all that the host has ([`View::rooms`]).
#[derive(Debug, Clone)]
pub struct Sandpiper {
    kind: Kind,
    resource: Resource,
    parameters: SandpiperParameters,
    state: State,
}

/// What it remembers.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    /// By VM id, like everything it is joined with.
    profiles: Vec<(VmId, Profile)>,
    courses: Courses,
}

/// The moves that were planned, and when the next may be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Courses {
    /// Moves that have not happened yet, in their order.
    pending: Vec<Course>,
    /// When they are given up.
    until: Timestamp,
    /// How many decisions had a new measurement.
    measurements: u64,
    /// No moves are planned before there were so many.
    quiet: u64,
}

/// A move that was planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Course {
    vm: VmId,
    to: HostId,
}

/// A saved state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    profiles: BTreeMap<VmId, Profile>,
    courses: Courses,
}

impl Sandpiper {
    /// Its name in configuration, black-box.
    pub const BLACK_BOX: &'static str = "sandpiper";
    /// Its name in configuration, gray-box.
    pub const GRAY_BOX: &'static str = "sandpiper-gray";

    /// The black-box policy, which resizes shares of `resource`.
    ///
    /// # Errors
    /// [`BuildError::Parameters`] if a parameter is out of range, or `sla` is given, which a black box knows nothing of.
    pub fn black_box(resource: Resource, parameters: SandpiperParameters) -> Result<Self, BuildError> {
        Self::new(Kind::Black, resource, parameters)
    }

    /// The gray-box policy, which resizes shares of `resource`.
    ///
    /// # Errors
    /// [`BuildError::Parameters`] if a parameter is out of range.
    pub fn gray_box(resource: Resource, parameters: SandpiperParameters) -> Result<Self, BuildError> {
        Self::new(Kind::Gray, resource, parameters)
    }

    fn new(kind: Kind, resource: Resource, parameters: SandpiperParameters) -> Result<Self, BuildError> {
        let refuse = |why| BuildError::Parameters { policy: kind.name(), resource, why };
        parameters.check().map_err(refuse)?;
        if kind == Kind::Black && parameters.sla.is_some() {
            return Err(refuse(format!("sla is for {}: a black box does not see requests", Self::GRAY_BOX)));
        }
        Ok(Sandpiper { kind, resource, parameters, state: State::default() })
    }

    /// The black-box policy for `resource`, with parameters from configuration.
    ///
    /// # Errors
    /// As [`black_box`](Self::black_box); also if the parameters are not [`SandpiperParameters`].
    pub fn build_black_box(resource: Resource, parameters: Value) -> Result<Self, BuildError> {
        Self::black_box(resource, parsed(Kind::Black, resource, parameters)?)
    }

    /// The gray-box policy for `resource`, with parameters from configuration.
    ///
    /// # Errors
    /// As [`gray_box`](Self::gray_box); also if the parameters are not [`SandpiperParameters`].
    pub fn build_gray_box(resource: Resource, parameters: Value) -> Result<Self, BuildError> {
        Self::gray_box(resource, parsed(Kind::Gray, resource, parameters)?)
    }

    /// Takes the samples in that are new and drops the profiles of VMs that are gone. Says which VMs completed a
    /// measurement, in the order of the view.
    fn take_in(&mut self, view: &View<'_>, now: Timestamp) -> Vec<bool> {
        let grid = Grid { interval: self.parameters.interval, window: self.parameters.window };
        let last = std::mem::take(&mut self.state.profiles);
        self.state.profiles.reserve(last.len());
        let mut known = last.into_iter().peekable();
        let mut usage = view.usage().0.iter().peekable();
        let mut fresh = Vec::new();
        for vm in view.vms() {
            let (id, mut profile) =
                matching(&mut known, &vm.id, |(id, _)| id).unwrap_or_else(|| (vm.id.clone(), Profile::default()));
            let samples = matching(&mut usage, &vm.id, |(id, _)| id).map_or(&[][..], |(_, samples)| samples);
            fresh.push(profile.take_in(samples, now.after(FUTURE), &grid));
            self.state.profiles.push((id, profile));
        }
        self.state.courses.measurements += u64::from(fresh.contains(&true));
        fresh
    }
}

impl Courses {
    /// Strikes the moves out that have happened, or never will.
    fn follow(&mut self, view: &View<'_>, now: Timestamp, k: usize) {
        if self.pending.is_empty() {
            return;
        }
        let vm = |course: &Course| view.snapshot().vm(&course.vm);
        if now > self.until || self.pending.iter().any(|course| vm(course).is_none()) {
            self.pending.clear();
        }
        // One after another: the later move of a VM that moves twice is not done when it arrives at the scratch host.
        let done = self.pending.iter().take_while(|course| vm(course).is_some_and(|vm| vm.host == course.to)).count();
        self.pending.drain(..done);
        if self.pending.is_empty() {
            self.quiet = self.measurements + k as u64;
        }
    }

    fn may_plan(&self) -> bool {
        self.pending.is_empty() && self.measurements >= self.quiet
    }

    fn planned(&mut self, moves: &[Move], now: Timestamp, patience: Duration) {
        if moves.is_empty() {
            return;
        }
        self.pending = moves.iter().map(|step| Course { vm: step.vm.clone(), to: step.to.clone() }).collect();
        self.until = now.after(patience * moves.len() as u32);
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Black => Sandpiper::BLACK_BOX,
            Kind::Gray => Sandpiper::GRAY_BOX,
        }
    }
}

fn parsed(kind: Kind, resource: Resource, parameters: Value) -> Result<SandpiperParameters, BuildError> {
    let refuse =
        |error: serde_json::Error| BuildError::Parameters { policy: kind.name(), resource, why: error.to_string() };
    serde_json::from_value(parameters).map_err(refuse)
}

impl Policy for Sandpiper {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn resource(&self) -> Resource {
        self.resource
    }

    fn moves(&self) -> bool {
        self.parameters.migrate
    }

    fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Plan {
        let fresh = self.take_in(view, now);
        let mut plan = Plan { base: view.snapshot().revision(), ..Plan::default() };
        let State { profiles, courses } = &mut self.state;
        courses.follow(view, now, self.parameters.k);
        let mut survey = Survey::new(view, profiles.iter().map(|(_, profile)| profile), self.kind, &self.parameters);
        courses.pending.iter().for_each(|course| survey.reserve(&course.vm, &course.to));
        if let Some(bound) = view.bound(self.resource) {
            Resizing::new(&mut survey, self.resource, bound, &fresh).plan(&mut plan);
        }
        if self.parameters.migrate && courses.may_plan() {
            for other in Resource::ALL.into_iter().filter(|other| *other != self.resource) {
                if let Some(bound) = view.bound(other) {
                    note_wants(&mut survey, other, bound);
                }
            }
            Mitigation::new(&mut survey).plan(&mut plan);
            courses.planned(&plan.moves, now, self.parameters.move_timeout);
        }
        plan
    }

    fn save(&self) -> Value {
        let profiles = self.state.profiles.iter().map(|(vm, profile)| (vm.to_string(), serde_json::json!(profile)));
        serde_json::json!({
            "profiles": Value::Object(profiles.collect()),
            "courses": serde_json::json!(self.state.courses),
        })
    }

    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        let policy = self.kind.name();
        let saved: Saved = restored(policy, state)?;
        if let Some((vm, _)) = saved.profiles.iter().find(|(_, profile)| !profile.is_sound(self.parameters.window)) {
            let why = format!("the profile of VM {vm} has a number that no sensor gives, or is too long");
            return Err(RestoreError { policy, why });
        }
        self.state = State { profiles: saved.profiles.into_iter().collect(), courses: saved.courses };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
