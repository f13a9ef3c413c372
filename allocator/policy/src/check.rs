//! Judges plans by rules that no policy wrote.

use std::collections::BTreeMap;
use vibra_model::{
    Action, CustomerId, HostId, HostState, Move, Plan, Proposal, Resource, Resources, Revision, Snapshot, Violation,
    Vm, VmId,
};

/// What a plan may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Whose VMs it may change.
    pub customer: CustomerId,
    /// What of them it may change.
    pub resources: Vec<Resource>,
    /// The most that it may change one VM's amount of a resource, as a share of the customer's bound for it.
    pub max_step: f64,
    /// Whether it may move VMs.
    pub moves: bool,
}

impl Limits {
    /// Changes of any size, of these resources, of this customer's VMs. None may be moved.
    pub fn of(customer: &CustomerId, resources: &[Resource]) -> Self {
        Limits { customer: customer.clone(), resources: resources.to_vec(), max_step: 1.0, moves: false }
    }

    /// The same, with moves allowed or not.
    #[must_use]
    pub fn with_moves(self, moves: bool) -> Self {
        Limits { moves, ..self }
    }
}

/// Something that a plan must not do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// It was made from another snapshot.
    #[error("the plan was made from revision {plan}, not from revision {snapshot}")]
    OtherBase {
        /// The plan's base.
        plan: Revision,
        /// The snapshot's revision.
        snapshot: Revision,
    },
    /// It changes a VM that is not the customer's.
    #[error("VM {vm} does not belong to the customer that the plan is for")]
    ForeignVm {
        /// Which VM.
        vm: VmId,
    },
    /// It changes a resource that is not its policies'.
    #[error("the {resource} of VM {vm} is not what the policy divides")]
    OtherResource {
        /// Which VM.
        vm: VmId,
        /// Which resource.
        resource: Resource,
    },
    /// It is mistaken in what a VM has.
    #[error("VM {vm} has {has}, not {said}, of {resource}")]
    WrongFrom {
        /// Which VM.
        vm: VmId,
        /// Of which resource.
        resource: Resource,
        /// What the plan says, in the resource's base unit.
        said: u64,
        /// What is so.
        has: u64,
    },
    /// A number in a reason is none.
    #[error("the fact {fact:?} about VM {vm} is no finite number")]
    NotFinite {
        /// Which VM.
        vm: VmId,
        /// Which fact.
        fact: String,
    },
    /// It changes too much at once.
    #[error("the {resource} of VM {vm} changes by {step}, more than {limit} at once")]
    LargeStep {
        /// Which VM.
        vm: VmId,
        /// Of which resource.
        resource: Resource,
        /// By how much, in the resource's base unit.
        step: u64,
        /// The most allowed.
        limit: u64,
    },
    /// It moves a VM, which no policy of this customer may.
    #[error("the plan moves VM {vm}, which its policies may not")]
    Moves {
        /// Which VM.
        vm: VmId,
    },
    /// It moves a VM from where that is not, to where it is already, or to a host that is unknown or down.
    #[error("VM {vm} cannot move from host {from} to host {to}: {why}")]
    Misplaced {
        /// Which VM.
        vm: VmId,
        /// Where the plan takes it from.
        from: HostId,
        /// Where the plan takes it to.
        to: HostId,
        /// What is wrong.
        why: &'static str,
    },
    /// It breaks one of the directory's rules: bounds, capacities, floors.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// A plan that was found free of faults. Only [`check`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked(Plan);

impl Checked {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.0
    }

    /// The batch that the directory is asked for.
    pub fn proposal(&self) -> Proposal {
        self.0.proposal()
    }
}

/// Judges `plan`, which was made from `snapshot`.
///
/// # Errors
/// Every [`Fault`] of the plan.
pub fn check(plan: &Plan, snapshot: &Snapshot, limits: &Limits) -> Result<Checked, Vec<Fault>> {
    let mut faults = Vec::new();
    if plan.base != snapshot.revision() {
        faults.push(Fault::OtherBase { plan: plan.base, snapshot: snapshot.revision() });
    }
    let changes: Vec<_> = plan.actions.iter().map(|action| action.change.clone()).collect();
    for action in &plan.actions {
        let known = snapshot.vm(&action.change.vm);
        faults.extend(target_faults(action, known, limits));
        faults.extend(known.into_iter().flat_map(|vm| size_faults(action, vm, snapshot, limits)));
    }
    if let Some(first) = plan.moves.first().filter(|_| !limits.moves) {
        faults.push(Fault::Moves { vm: first.vm.clone() });
    }
    faults.extend(move_faults(plan, snapshot, limits));
    let action_facts = plan.actions.iter().map(|action| (&action.change.vm, &action.reason));
    let refusal_facts = plan.refusals.iter().map(|refusal| (&refusal.vm, &refusal.reason));
    let move_facts = plan.moves.iter().map(|step| (&step.vm, &step.reason));
    for (vm, reason) in action_facts.chain(refusal_facts).chain(move_facts) {
        let unreal = reason.facts.iter().filter(|(_, value)| !value.is_finite());
        faults.extend(unreal.map(|(fact, _)| Fault::NotFinite { vm: vm.clone(), fact: fact.to_string() }));
    }
    faults.extend(snapshot.violations(&changes).into_iter().map(Fault::Violation));
    if faults.is_empty() { Ok(Checked(plan.clone())) } else { Err(faults) }
}

/// Whether it may touch the VM and the resource at all. A VM that does not exist is the directory's rules' concern.
fn target_faults(action: &Action, known: Option<&Vm>, limits: &Limits) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (vm, resource) = (&action.change.vm, action.change.to.resource());
    if known.is_some_and(|known| known.customer != limits.customer) {
        faults.push(Fault::ForeignVm { vm: vm.clone() });
    }
    if !limits.resources.contains(&resource) {
        faults.push(Fault::OtherResource { vm: vm.clone(), resource });
    }
    faults
}

/// Whether it knows what the VM has, and changes it in a step that is small enough.
fn size_faults(action: &Action, known: &Vm, snapshot: &Snapshot, limits: &Limits) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (resource, said) = (action.change.to.resource(), action.from);
    let Some(has) = known.desired(resource) else { return faults };
    if has != said {
        faults.push(Fault::WrongFrom { vm: known.id.clone(), resource, said, has });
    }
    let bound = snapshot.customer(&limits.customer).and_then(|customer| customer.bounds.get(resource));
    let limit = (bound.unwrap_or(0) as f64 * limits.max_step) as u64;
    let step = has.abs_diff(action.change.to.raw());
    if step > limit {
        faults.push(Fault::LargeStep { vm: known.id.clone(), resource, step, limit });
    }
    faults
}

/// Carries the moves out one after another, with the amounts that the plan's actions give, and finds where one starts
/// from the wrong place or overfills a host. While a VM moves both hosts hold its share.
fn move_faults(plan: &Plan, snapshot: &Snapshot, limits: &Limits) -> Vec<Fault> {
    if plan.moves.is_empty() {
        return Vec::new();
    }
    let mut changed: BTreeMap<&VmId, Resources> = BTreeMap::new();
    for action in &plan.actions {
        let Some(vm) = snapshot.vm(&action.change.vm) else { continue };
        changed.entry(&vm.id).or_insert(vm.desired.resources).set(action.change.to);
    }
    let share = |vm: &Vm| changed.get(&vm.id).copied().unwrap_or(vm.desired.resources);
    let mut hosts = Hosts { snapshot, used: BTreeMap::new(), share: &share };
    let mut places: BTreeMap<&VmId, &HostId> = BTreeMap::new();
    let mut faults = Vec::new();
    for step in &plan.moves {
        let Some(vm) = snapshot.vm(&step.vm) else {
            faults.push(Fault::Violation(Violation::UnknownVm { vm: step.vm.clone() }));
            continue;
        };
        if vm.customer != limits.customer {
            faults.push(Fault::ForeignVm { vm: vm.id.clone() });
        }
        let place = places.get(&step.vm).copied().unwrap_or(&vm.host);
        if let Some(why) = misplaced(step, place, snapshot) {
            let (vm, from, to) = (vm.id.clone(), step.from.clone(), step.to.clone());
            faults.push(Fault::Misplaced { vm, from, to, why });
            continue;
        }
        faults.extend(hosts.add(&step.to, &share(vm)).into_iter().map(Fault::Violation));
        hosts.remove(place, &share(vm));
        places.insert(&step.vm, &step.to);
    }
    faults
}

fn misplaced(step: &Move, place: &HostId, snapshot: &Snapshot) -> Option<&'static str> {
    if step.from != *place {
        return Some("it is not there");
    }
    if step.to == *place {
        return Some("it is there already");
    }
    match snapshot.host(&step.to) {
        None => Some("the host it shall go to is not registered"),
        Some(host) if host.state == HostState::Down => Some("the host it shall go to is down"),
        Some(_) => None,
    }
}

/// What hosts have given away while VMs move.
struct Hosts<'a> {
    snapshot: &'a Snapshot,
    /// What the VMs on each host that was asked for have of each resource, in its base unit.
    used: BTreeMap<(HostId, Resource), u64>,
    share: &'a dyn Fn(&Vm) -> Resources,
}

impl Hosts<'_> {
    fn used(&mut self, host: &HostId, resource: Resource) -> &mut u64 {
        let (snapshot, share) = (self.snapshot, self.share);
        self.used.entry((host.clone(), resource)).or_insert_with(|| {
            let amounts = snapshot.vms_on(host).filter_map(|vm| share(vm).get(resource));
            amounts.fold(0, u64::saturating_add)
        })
    }

    /// Counts a VM's share in, and says where that is more than the host has.
    fn add(&mut self, host: &HostId, share: &Resources) -> Vec<Violation> {
        let capacities = self.snapshot.host(host).map_or(Resources::NONE, |host| host.capacity);
        let mut violations = Vec::new();
        for amount in share.amounts() {
            let resource = amount.resource();
            let used = self.used(host, resource);
            *used = used.saturating_add(amount.raw());
            if let Some(capacity) = capacities.get(resource).filter(|capacity| *used > *capacity) {
                violations.push(Violation::CapacityExceeded {
                    host: host.clone(),
                    capacity: resource.amount(capacity),
                    total: resource.amount(*used),
                });
            }
        }
        violations
    }

    fn remove(&mut self, host: &HostId, share: &Resources) {
        for amount in share.amounts() {
            let used = self.used(host, amount.resource());
            *used = used.saturating_sub(amount.raw());
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
