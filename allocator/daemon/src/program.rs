//! Policies that are programs of their own, in any language.

mod process;

use process::Process;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use vibra_model::{
    Action, AllocationChange, CustomerId, Host, HostId, Move, Plan, Reason, Refusal, Resource, Revision, Timestamp,
    UsageSample, Vm, VmId, text,
};
use vibra_policy::{BuildError, Failure, Policy, RestoreError, View};

/// A program that failed so often in a row is not started again.
const FAILURES: u32 = 5;
/// The pause after a first failure; it doubles with each that follows.
const PAUSE: Duration = Duration::from_secs(1);

/// The table of a policy that is a program.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramParameters {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may take for one answer. Default: 1 s.
    #[serde(default = "second", deserialize_with = "text::duration")]
    pub timeout: Duration,
    /// The folder that it runs in. Default: the allocator's own, or the configuration's where there is one.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// Whether it may move VMs. Default: no.
    #[serde(default)]
    pub moves: bool,
}

fn second() -> Duration {
    Duration::from_secs(1)
}

/// A policy that is a program: it reads a [`Question`] from each line of its standard input and answers it with an
/// [`Answer`] on one line of its standard output. It ends when its input does.
///
/// One that dies, answers too late, too much or what is no answer has no plan this time and is started again after a
/// pause that doubles; after five failures in a row it has none any more.
pub struct Program {
    resource: Resource,
    parameters: ProgramParameters,
    process: Option<Process>,
    /// Failures in a row.
    failures: u32,
    /// Not before this is it started again.
    again: Timestamp,
    /// What it last asked to be told again.
    state: Value,
}

/// What a program is asked: the same that any policy sees, as one line of JSON. Amounts are in the resource's base unit
/// (bytes/s, bytes, thousandths of a core), times in microseconds since 1970.
#[derive(Debug, Serialize)]
pub struct Question<'a> {
    /// What it divides.
    pub resource: Resource,
    /// The time.
    pub now: Timestamp,
    /// The directory's revision; the answer repeats it.
    pub base: Revision,
    /// Whose VMs.
    pub customer: &'a CustomerId,
    /// How much the customer bought of the resource; null if none.
    pub bound: Option<u64>,
    /// The hosts, each with what other customers leave there.
    pub hosts: Vec<Place<'a>>,
    /// The customer's VMs.
    pub vms: Vec<&'a Vm>,
    /// What these VMs used, oldest sample first. Samples may be repeated.
    pub usage: BTreeMap<&'a VmId, &'a [UsageSample]>,
    /// What other policies have planned already, where it moves VMs and so decides last.
    pub planned: Vec<&'a AllocationChange>,
    /// The `state` of its last answer; null at first.
    pub state: &'a Value,
}

/// A host as a program sees it.
#[derive(Debug, Serialize)]
pub struct Place<'a> {
    /// The host.
    #[serde(flatten)]
    pub host: &'a Host,
    /// What other customers leave of the resource; null where it has no limit.
    pub room: Option<u64>,
}

/// What a program answers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The question's `base`.
    pub base: Revision,
    /// What shall change.
    #[serde(default)]
    pub actions: Vec<Wish>,
    /// What shall not, although one might expect it.
    #[serde(default)]
    pub refusals: Vec<Decline>,
    /// Which VMs shall go elsewhere, one after another.
    #[serde(default)]
    pub moves: Vec<Going>,
    /// What it wants to be told with the next question, by another allocator too.
    #[serde(default)]
    pub state: Value,
}

/// A VM shall have so much.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// Which VM.
    pub vm: VmId,
    /// How much of the resource, in its base unit.
    pub to: u64,
    /// Why.
    pub reason: String,
}

/// A VM keeps what it has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decline {
    /// Which VM.
    pub vm: VmId,
    /// Why.
    pub reason: String,
}

/// A VM shall go to another host.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Going {
    /// Which VM.
    pub vm: VmId,
    /// Where it is.
    pub from: HostId,
    /// Where to.
    pub to: HostId,
    /// Why.
    pub reason: String,
}

impl Program {
    /// Its name in configuration.
    pub const NAME: &'static str = "program";

    /// The program as a policy for `resource`, with parameters from configuration. It is started at its first decision.
    ///
    /// # Errors
    /// [`BuildError::Parameters`] if the parameters are no [`ProgramParameters`], or name no command.
    pub fn build(resource: Resource, parameters: Value) -> Result<Self, BuildError> {
        let refuse = |why| BuildError::Parameters { policy: Self::NAME, resource, why };
        let parameters: ProgramParameters =
            serde_json::from_value(parameters).map_err(|error| refuse(error.to_string()))?;
        if parameters.command.is_empty() || parameters.timeout.is_zero() {
            return Err(refuse("write command = [\"PROGRAM\", \"ARGUMENT\"] and a timeout above zero".to_owned()));
        }
        Ok(Program { resource, parameters, process: None, failures: 0, again: Timestamp::ZERO, state: Value::Null })
    }

    fn question<'a>(&'a self, view: &View<'a>, now: Timestamp) -> Question<'a> {
        let (snapshot, resource) = (view.snapshot(), self.resource);
        let places = snapshot.hosts().map(|host| Place { host, room: view.room(&host.id, resource) });
        Question {
            resource,
            now,
            base: snapshot.revision(),
            customer: view.customer(),
            bound: view.bound(resource),
            hosts: places.collect(),
            vms: view.vms().collect(),
            usage: view.vms().map(|vm| (&vm.id, view.usage().samples(&vm.id))).collect(),
            planned: view.planned().iter().map(|action| &action.change).collect(),
            state: &self.state,
        }
    }

    fn ask(&mut self, view: &View<'_>, now: Timestamp) -> Result<Answer, String> {
        let question = json!(self.question(view, now)).to_string();
        if self.process.is_none() {
            self.process = Some(Process::start(&self.parameters)?);
        }
        let process = self.process.as_mut().expect("it was just started");
        let line = process.exchange(question, self.parameters.timeout)?;
        serde_json::from_slice(&line).map_err(|error| format!("what it answers is no answer: {error}"))
    }

    /// It failed: it is ended, and started again later or never.
    fn failed(&mut self, why: String, now: Timestamp) -> Failure {
        self.process = None;
        self.failures += 1;
        if self.failures >= FAILURES {
            return Failure::Lasting(format!("{FAILURES} failures in a row, the last: {why}"));
        }
        let pause = PAUSE * 2u32.pow(self.failures - 1);
        self.again = now.after(pause);
        Failure::Passing(format!("{why}; it is started again in {} s", pause.as_secs()))
    }

    fn plan(&self, answer: Answer, view: &View<'_>) -> Plan {
        let resource = self.resource;
        let has = |vm: &VmId| view.snapshot().vm(vm).and_then(|vm| vm.desired(resource)).unwrap_or(0);
        Plan {
            base: answer.base,
            actions: (answer.actions.into_iter())
                .map(|Wish { vm, to, reason }| {
                    let from = has(&vm);
                    Action {
                        change: AllocationChange { vm, to: resource.amount(to) },
                        from,
                        reason: Reason::new(reason),
                    }
                })
                .filter(|action| action.change.to.raw() != action.from)
                .collect(),
            refusals: (answer.refusals.into_iter())
                .map(|Decline { vm, reason }| Refusal { vm, resource, reason: Reason::new(reason) })
                .collect(),
            moves: (answer.moves.into_iter())
                .map(|Going { vm, from, to, reason }| Move { vm, from, to, reason: Reason::new(reason) })
                .collect(),
        }
    }
}

impl Policy for Program {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn resource(&self) -> Resource {
        self.resource
    }

    fn moves(&self) -> bool {
        self.parameters.moves
    }

    fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Plan {
        let nothing = || Plan { base: view.snapshot().revision(), ..Plan::default() };
        self.attempt(view, now).unwrap_or_else(|_| nothing())
    }

    fn attempt(&mut self, view: &View<'_>, now: Timestamp) -> Result<Plan, Failure> {
        if self.failures > 0 && self.process.is_none() && now < self.again {
            return Err(Failure::Passing("it failed, and is started again soon".to_owned()));
        }
        let mut answer = self.ask(view, now).map_err(|why| self.failed(why, now))?;
        self.failures = 0;
        self.state = std::mem::take(&mut answer.state);
        Ok(self.plan(answer, view))
    }

    fn save(&self) -> Value {
        self.state.clone()
    }

    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        self.state = state.clone();
        Ok(())
    }
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
