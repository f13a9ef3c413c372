//! What keeps any policy from doing harm: dead band, hold, cool-down, warm-up, step limit, stale inputs, memory in use.

mod fit;
mod history;
mod need;

use crate::{Failure, Freshness, Policy, RestoreError, View, policy::restored};
use fit::fit;
use history::History;
use need::Need;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use vibra_model::{Action, Move, Plan, Reason, Refusal, Resource, Timestamp, Vm, VmId, text};

/// How far a [`Guard`] lets a policy go: the table `safety` of a policy in configuration.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Safety {
    /// A change by less than this share of what the VM has is left out. Default: 0, every change is made.
    pub dead_band: f64,
    /// For so long after a change the VM is not changed the other way, nor moved back. Default: 0.
    #[serde(deserialize_with = "text::duration")]
    pub hold: Duration,
    /// The cool-down: each reversal that follows soon (within twice the hold) doubles the VM's next hold, up to this.
    /// Default: 5 minutes.
    #[serde(deserialize_with = "text::duration")]
    pub max_hold: Duration,
    /// For so long after its first decision the policy observes and changes nothing. Default: 0.
    #[serde(deserialize_with = "text::duration")]
    pub warm_up: Duration,
    /// A VM is not changed before so many samples of it were seen. Default: 0.
    pub warm_up_samples: u64,
    /// The most that one decision changes a VM, as a share of the customer's bound; a larger change is shortened.
    /// Default: 1.
    pub max_step: f64,
    /// A VM that was measured before, and of which no new sample has come for longer, is not changed. Default: 10 s.
    #[serde(deserialize_with = "text::duration")]
    pub stale: Duration,
    /// Memory is not shrunk below what the VM needs and this share of it. What it needs is its working set or, where
    /// that is not known, its memory in use. Default: 0.1.
    pub margin: f64,
}

impl Default for Safety {
    fn default() -> Self {
        Safety {
            dead_band: 0.0,
            hold: Duration::ZERO,
            max_hold: Duration::from_secs(300),
            warm_up: Duration::ZERO,
            warm_up_samples: 0,
            max_step: 1.0,
            stale: Duration::from_secs(10),
            margin: 0.1,
        }
    }
}

impl Safety {
    /// Reads the table.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn read(table: Value) -> Result<Self, String> {
        let safety: Safety = serde_json::from_value(table).map_err(|error| format!("safety: {error}"))?;
        let wrong = |name, value, range| Err(format!("safety.{name} = {value} is out of range: use {range}"));
        if !(0.0..1.0).contains(&safety.dead_band) {
            return wrong("dead_band", safety.dead_band, "at least 0 and less than 1");
        }
        if !(safety.max_step > 0.0 && safety.max_step <= 1.0) {
            return wrong("max_step", safety.max_step, "more than 0 and at most 1");
        }
        if !(0.0..=10.0).contains(&safety.margin) {
            return wrong("margin", safety.margin, "0 to 10");
        }
        if safety.max_hold < safety.hold {
            return Err("safety.max_hold is shorter than safety.hold: raise it, or lower that".to_owned());
        }
        Ok(safety)
    }
}

/// A policy whose plans are trimmed to what is safe.
///
/// What is left out stands in the plan as a refusal with its reason, what is shortened says so in its own reason. To
/// leave an increase out is always safe. Where a decrease is left out or shortened the increases that it would have
/// made room for shrink too, all in the same proportion, so that a plan which kept bound, floors and capacities still
/// does; and moves, which may have counted on it, are left out.
pub struct Guard {
    policy: Box<dyn Policy>,
    safety: Safety,
    freshness: Freshness,
    history: History,
    need: Need,
    /// When it first decided.
    began: Option<Timestamp>,
}

/// What becomes of an action.
enum Ruling {
    AsPlanned,
    /// It is shortened to this amount, because of that.
    To(u64, &'static str),
    LeftOut(Reason),
}

impl Guard {
    /// `policy`, held to `safety`.
    pub fn new(policy: Box<dyn Policy>, safety: Safety) -> Self {
        Guard {
            policy,
            safety,
            freshness: Freshness::default(),
            history: History::default(),
            need: Need::default(),
            began: None,
        }
    }

    /// Takes in what the view tells of the VMs.
    fn observe(&mut self, view: &View<'_>, now: Timestamp) {
        self.began.get_or_insert(now);
        self.freshness.take_in(view, now);
        if !self.safety.hold.is_zero() {
            self.history.observe(view, self.resource(), &self.safety, now);
        }
        if self.resource() == Resource::Memory {
            self.need.take_in(view);
        }
    }

    fn trim(&self, mut plan: Plan, view: &View<'_>, now: Timestamp) -> Plan {
        let resource = self.resource();
        let mut decreases_kept = true;
        let planned = std::mem::take(&mut plan.actions);
        for mut action in planned {
            let (to, lowers) = (action.change.to.raw(), action.change.to.raw() < action.from);
            let known = view.snapshot().vm(&action.change.vm);
            // What is not this policy's to change is for the checker to refuse.
            let known = known.filter(|vm| action.change.to.resource() == resource && vm.customer == *view.customer());
            match known.map_or(Ruling::AsPlanned, |vm| self.ruling(&action, vm, view, now)) {
                Ruling::AsPlanned => plan.actions.push(action),
                Ruling::To(amount, why) => {
                    decreases_kept &= !lowers;
                    action.change.to = resource.amount(amount);
                    let rule = format!("{}, shortened: {why}", action.reason.rule);
                    action.reason.rule = rule.into();
                    action.reason = action.reason.with("planned", to as f64);
                    plan.actions.push(action);
                }
                Ruling::LeftOut(reason) => {
                    decreases_kept &= !lowers;
                    plan.refusals.push(refusal(&action.change.vm, resource, reason.with("planned", to as f64)));
                }
            }
        }
        if !decreases_kept {
            fit(&mut plan, view, resource);
        }
        self.trim_moves(&mut plan, decreases_kept, now);
        plan
    }

    fn ruling(&self, action: &Action, vm: &Vm, view: &View<'_>, now: Timestamp) -> Ruling {
        let (from, to) = (action.from, action.change.to.raw());
        if vm.moving.is_some() {
            return Ruling::LeftOut(Reason::new("it is on its way to another host"));
        }
        if let Some(reason) = self.unready(&vm.id, now) {
            return Ruling::LeftOut(reason);
        }
        if (from.abs_diff(to) as f64) < self.safety.dead_band * from as f64 {
            return Ruling::LeftOut(Reason::new("within the dead band"));
        }
        if let Some(reason) = self.history.held(&vm.id, to > from, &self.safety, now) {
            return Ruling::LeftOut(reason);
        }
        let (mut allowed, mut why) = (to, "");
        if self.resource() == Resource::Memory && to < from {
            match self.need.least(&vm.id, view, self.safety.margin) {
                Err(reason) => return Ruling::LeftOut(Reason::new(reason)),
                Ok(least) if least >= from => {
                    return Ruling::LeftOut(Reason::new("it needs its memory").with("needs", least as f64));
                }
                Ok(least) if least > to => (allowed, why) = (least, "it needs the rest of its memory"),
                Ok(_) => {}
            }
        }
        let step = self.step(view);
        if from.abs_diff(allowed) > step {
            allowed = if allowed > from { from + step } else { from - step };
            why = "the largest step";
        }
        match allowed {
            _ if allowed == to => Ruling::AsPlanned,
            _ if allowed == from => Ruling::LeftOut(Reason::new("the largest step is less than one unit")),
            _ => Ruling::To(allowed, why),
        }
    }

    /// The largest change of a VM, in the resource's base unit.
    fn step(&self, view: &View<'_>) -> u64 {
        if self.safety.max_step >= 1.0 {
            return u64::MAX;
        }
        (view.bound(self.resource()).unwrap_or(0) as f64 * self.safety.max_step) as u64
    }

    /// Why too little is known of `vm` to act on.
    fn unready(&self, vm: &VmId, now: Timestamp) -> Option<Reason> {
        let safety = &self.safety;
        let runs = self.began.map_or(Duration::ZERO, |began| now.since(began));
        if runs < safety.warm_up {
            return Some(Reason::new("warming up: nothing is changed yet").with("runs_s", runs.as_secs_f64()));
        }
        let samples = self.freshness.samples_of(vm);
        if samples < safety.warm_up_samples {
            return Some(Reason::new("warming up: too few samples").with("samples", samples as f64));
        }
        let age = now.since(self.freshness.heard_of(vm)?);
        (age > safety.stale).then(|| Reason::new("no new sample for too long").with("age_s", age.as_secs_f64()))
    }

    /// Moves build upon one another: where one cannot be made none is.
    fn trim_moves(&self, plan: &mut Plan, decreases_kept: bool, now: Timestamp) {
        let why = |step: &Move| {
            self.unready(&step.vm, now).or_else(|| self.history.moved_back(step, &self.safety, now)).or_else(|| {
                (!decreases_kept).then(|| Reason::new("a decrease that it may have counted on was left out"))
            })
        };
        let Some(reason) = plan.moves.iter().find_map(why) else { return };
        let resource = self.resource();
        let left_out = std::mem::take(&mut plan.moves).into_iter().map(|step| {
            let reason = Reason { rule: format!("no moves: {}", reason.rule).into(), ..reason.clone() };
            refusal(&step.vm, resource, reason)
        });
        plan.refusals.extend(left_out);
    }
}

fn refusal(vm: &VmId, resource: Resource, reason: Reason) -> Refusal {
    Refusal { vm: vm.clone(), resource, reason }
}

impl Policy for Guard {
    fn name(&self) -> &'static str {
        self.policy.name()
    }

    fn resource(&self) -> Resource {
        self.policy.resource()
    }

    fn moves(&self) -> bool {
        self.policy.moves()
    }

    fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Plan {
        let nothing = || Plan { base: view.snapshot().revision(), ..Plan::default() };
        self.attempt(view, now).unwrap_or_else(|_| nothing())
    }

    fn attempt(&mut self, view: &View<'_>, now: Timestamp) -> Result<Plan, Failure> {
        self.observe(view, now);
        let plan = self.policy.attempt(view, now)?;
        Ok(self.trim(plan, view, now))
    }

    /// Its policy's state, and what was changed when. A warm-up begins anew with another allocator.
    fn save(&self) -> Value {
        json!({ "policy": self.policy.save(), "history": self.history })
    }

    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        let history = restored(self.policy.name(), &state["history"])?;
        self.policy.restore(&state["policy"])?;
        self.history = history;
        Ok(())
    }
}

#[cfg(test)]
#[path = "safety_tests.rs"]
mod tests;
