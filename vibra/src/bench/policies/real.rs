//! Real VMs: every policy over what VMs of data centres were measured to use.

use crate::figure::{Cell, Check, Figure, Heading, Line, Measured, Panel, Run, Unable, Wanted};
use anyhow::{Context, bail, ensure};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use vibra_model::{Customer, CustomerId, HostSpec, Resource, Resources, VmSpec};
use vibra_policy::{Composition, Policies};
use vibra_report::Axis;
use vibra_sim::hosts::{Demand, Guest, Outcome, Settings, World, best_fixed, best_of_all};
use vibra_trace::vms::{VmPoint, VmTrace, bitbrains, planetlab};

pub(super) const FIGURES: &[Figure] = &[
    Figure {
        id: "real-bitbrains",
        title: "Fifty business VMs for a month, under every policy",
        paper: "None: the traces of GWA-T-12 (rnd, July 2013).",
        make: business,
    },
    Figure {
        id: "real-planetlab",
        title: "A thousand PlanetLab VMs for a day, under every policy",
        paper: "None: the PlanetLab workload traces, their first day.",
        make: day,
    },
];

/// Both have a point every five minutes.
const INTERVAL: Duration = Duration::from_secs(300);
/// The policies, each with its defaults. FVM adapts what a VM asks for, which a recording cannot.
const POLICIES: [&str; 6] = ["static", "proportional", "dps-distributed", "dps-bank", "sandpiper", "sandpiper-gray"];
/// How much the customer has bought: so many times what his VMs use together on average.
const BOUGHT: f64 = 2.0;
/// How much the hosts have together, over what was bought: so that there is room to raise someone.
const SPARE: f64 = 1.25;

fn business(run: &Run) -> anyhow::Result<Measured> {
    let folder = folder(run)?.join("bitbrains-rnd");
    let vms = read(&folder, "csv", bitbrains)?;
    let resources = [Resource::Cpu, Resource::Memory, Resource::Bandwidth];
    compared(run, &vms, 5, &resources)
}

fn day(run: &Run) -> anyhow::Result<Measured> {
    let folder = folder(run)?.join("planetlab");
    let mut days = listed(&folder)?;
    days.retain(|path| path.is_dir());
    let day = days.first().with_context(|| format!("there is no day in {}", folder.display()))?;
    let mut vms = read(day, "", planetlab)?;
    if run.quick {
        vms.truncate(200);
    }
    let hosts = vms.len().div_ceil(10);
    compared(run, &vms, hosts, &[Resource::Cpu])
}

fn folder(run: &Run) -> anyhow::Result<&PathBuf> {
    let folder = run.traces.as_ref();
    Ok(folder
        .ok_or_else(|| Unable("the traces are not part of the project: name their folder with --traces".to_owned()))?)
}

fn listed(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("the folder {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Every trace in `folder` and the folders in it whose name has this ending, by path.
fn read<E: std::error::Error + Send + Sync + 'static>(
    folder: &Path,
    ending: &str,
    parse: impl Fn(&str, &str) -> Result<VmTrace, E> + Copy,
) -> anyhow::Result<Vec<VmTrace>> {
    let mut traces = Vec::new();
    for path in listed(folder)? {
        if path.is_dir() {
            traces.extend(read(&path, ending, parse)?);
        } else if path.extension().is_some_and(|extension| extension == ending) || ending.is_empty() {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            traces.push(parse(&name, &text).with_context(|| path.display().to_string())?);
        }
    }
    if traces.is_empty() {
        bail!("there are no traces in {}", folder.display());
    }
    Ok(traces)
}

/// What a point of a trace wants.
fn demand(point: &VmPoint) -> Demand {
    Demand {
        cpu: point.cpu.unwrap_or(0.0),
        memory: point.memory.unwrap_or(0.0),
        bandwidth: point.egress.unwrap_or(0.0),
        requests: None,
    }
}

/// The demands of a VM on a grid of `intervals` from `start`: the last point at or before each end; nothing before the first.
fn on_grid(vm: &VmTrace, start: Duration, intervals: usize) -> Vec<Demand> {
    let mut points = vm.points.iter().peekable();
    let mut now = Demand::default();
    let demands = (0..intervals).map(|interval| {
        let end = start + INTERVAL * (interval as u32 + 1);
        while let Some(point) = points.next_if(|point| point.at <= end) {
            now = demand(point);
        }
        now
    });
    demands.collect()
}

/// A world in which one resource of the VMs is managed.
struct Case {
    resource: Resource,
    customer: Customer,
    hosts: Vec<HostSpec>,
    guests: Vec<Guest>,
    bound: f64,
    intervals: usize,
}

fn only(resource: Resource, amount: f64) -> Resources {
    let mut only = Resources::NONE;
    only.set(resource.amount(amount as u64));
    only
}

impl Case {
    /// What was bought is divided at first in proportion to what the VMs were provisioned with, or equally where that is not
    /// known. The VM with the largest share is placed first, each on the host that has given away least.
    fn new(vms: &[VmTrace], resource: Resource, hosts: usize, quick: bool) -> anyhow::Result<Case> {
        let ends = vms.iter().flat_map(|vm| vm.points.iter().map(|point| point.at));
        let (first, last) = ends.fold((Duration::MAX, Duration::ZERO), |(a, b), at| (a.min(at), b.max(at)));
        let start = first.saturating_sub(INTERVAL);
        let all = ((last - start).as_secs() / INTERVAL.as_secs()) as usize;
        let intervals = if quick { all.min(600) } else { all };
        let demands: Vec<_> = vms.iter().map(|vm| on_grid(vm, start, intervals)).collect();
        let total: f64 = demands.iter().flatten().map(|demand| demand.of(resource)).sum();
        let bound = (BOUGHT * total / intervals as f64).floor();
        let provisioned = |vm: &VmTrace| match resource {
            Resource::Cpu => vm.points[0].provisioned_cpu,
            Resource::Memory => vm.points[0].provisioned_memory,
            Resource::Bandwidth => vm.points[0].provisioned_cpu,
        };
        let weights: Vec<f64> = vms.iter().map(|vm| provisioned(vm).filter(|p| *p > 0.0).unwrap_or(1.0)).collect();
        let sum: f64 = weights.iter().sum();
        let capacity = SPARE * bound / hosts as f64;
        let id: CustomerId = "customer".parse()?;
        let mut order: Vec<usize> = (0..vms.len()).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        let (mut given, mut guests) = (vec![0.0; hosts], Vec::new());
        for vm in order {
            let share = (bound * weights[vm] / sum).floor();
            let host = (0..hosts).min_by(|&a, &b| f64::total_cmp(&given[a], &given[b])).context("no hosts")?;
            given[host] += share;
            let spec = VmSpec {
                id: format!("vm{vm:04}").parse()?,
                customer: id.clone(),
                host: format!("host{host:03}").parse()?,
                address: "10.0.0.1:80".into(),
                order: vm as u32,
                weight: 1,
                floor: only(resource, (share / 100.0).floor()),
                initial: only(resource, share),
            };
            guests.push(Guest { spec, demand: demands[vm].clone() });
        }
        let largest = given.iter().copied().fold(capacity, f64::max);
        let host = |number| Ok(HostSpec { id: format!("host{number:03}").parse()?, capacity: only(resource, largest) });
        let hosts = (0..hosts).map(host).collect::<anyhow::Result<_>>()?;
        let customer = Customer { id, bounds: only(resource, bound) };
        Ok(Case { resource, customer, hosts, guests, bound, intervals })
    }

    fn run(&self, policy: &str) -> anyhow::Result<Outcome> {
        let policy = Policies::shipped().build(policy, self.resource, json!({}))?;
        let settings = Settings { interval: INTERVAL, ..Settings::default() };
        let world = World::new(self.customer.clone(), &self.hosts, &self.guests, settings);
        Ok(world.context("the VMs' shares")?.run(&mut Composition::new(vec![policy])?, self.intervals))
    }
}

fn compared(run: &Run, vms: &[VmTrace], hosts: usize, resources: &[Resource]) -> anyhow::Result<Measured> {
    let (mut rows, mut lines, mut violations, mut worst) = (Vec::new(), Vec::new(), 0, f64::NEG_INFINITY);
    let mut intervals = 0;
    for &resource in resources {
        let case = Case::new(vms, resource, hosts, run.quick)?;
        intervals = case.intervals;
        let possible = best_of_all(&case.guests, &case.hosts, resource, case.bound, intervals).unmet;
        let fixed = best_fixed(&case.guests, &case.hosts, resource, case.bound, intervals).unmet;
        let mut points = Vec::new();
        for (number, name) in POLICIES.into_iter().enumerate() {
            run.bar.set_message(format!("{resource}: {name}"));
            let outcome = case.run(name)?;
            let service = outcome.service.get(&resource).context("nothing was measured")?;
            let unmet = service.unmet().context("nothing was wanted")?;
            violations += outcome.violations.len();
            if let Some(first) = outcome.violations.first() {
                run.bar.println(format!("{resource}, {name}: {first}"));
            }
            // Moves can only add to what is possible, and no VM is served more than it wants.
            if outcome.moves.is_empty() {
                worst = worst.max(possible - unmet);
            }
            points.push((number as f64, 100.0 * unmet));
            rows.push(vec![
                resource.name().into(),
                name.into(),
                (100.0 * unmet).into(),
                service.fairness().into(),
                (service.changes as f64).into(),
                (service.reversals as f64).into(),
                (outcome.moves.len() as f64).into(),
                (outcome.violations.len() as f64).into(),
            ]);
        }
        for (name, unmet) in [("best fixed shares in hindsight", fixed), ("best possible in hindsight", possible)] {
            let none = || Cell::Number(None);
            rows.push(vec![
                resource.name().into(),
                name.into(),
                (100.0 * unmet).into(),
                none(),
                none(),
                none(),
                none(),
                none(),
            ]);
        }
        lines.push(Line { name: resource.name().to_owned(), points });
    }
    ensure!(intervals > 0, "the traces cover no interval of {} s", INTERVAL.as_secs());
    let numbers =
        [("unmet (%)", 2), ("fairness", 3), ("changes", 0), ("reversals", 0), ("moves", 0), ("violations", 0)];
    Ok(Measured {
        conditions: format!(
            "{} VMs on {hosts} hosts, {intervals} intervals of 300 s. Bought: {BOUGHT} times the mean use of all VMs together; the \
             hosts have {SPARE} times that. Shares at first in proportion to what the VMs were provisioned with. One resource is \
             managed at a time, by policies with their defaults. Best in hindsight: without moves.",
            vms.len(),
        ),
        columns: [Heading::words("resource"), Heading::words("policy")]
            .into_iter()
            .chain(numbers.map(|(name, decimals)| Heading::numbers(name, decimals)))
            .collect(),
        rows,
        panels: vec![Panel::Lines {
            title: format!("Unmet demand; policies from 0: {}", POLICIES.join(", ")),
            x: Axis::linear("policy"),
            y: Axis::linear("unmet (%)"),
            lines,
        }],
        checks: vec![
            Check::new(
                "violations of bounds, floors and capacities",
                "none",
                Some(violations as f64),
                Wanted::AtMost(0.0),
            )
            .with_decimals(0),
            Check::new("better than what is possible, without moves", "never", Some(worst), Wanted::AtMost(1e-9)),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_wants_what_its_last_point_says() {
        let point = |seconds, cpu| VmPoint { at: Duration::from_secs(seconds), cpu: Some(cpu), ..VmPoint::default() };
        let vm = VmTrace { name: "x".into(), points: vec![point(700, 1.0), point(1000, 2.0), point(1900, 3.0)] };
        let cpu: Vec<f64> = on_grid(&vm, Duration::from_secs(300), 6).iter().map(|demand| demand.cpu).collect();
        assert_eq!(cpu, [0.0, 1.0, 2.0, 2.0, 2.0, 3.0]);
    }

    #[test]
    fn shares_follow_what_was_provisioned_and_fit() {
        let vm = |name: &str, cores: f64| {
            let point = |i: u64| VmPoint {
                at: INTERVAL * i as u32,
                cpu: Some(100.0),
                provisioned_cpu: Some(cores),
                ..VmPoint::default()
            };
            VmTrace { name: name.into(), points: (1..=10).map(point).collect() }
        };
        let case = Case::new(&[vm("a", 1000.0), vm("b", 3000.0)], Resource::Cpu, 2, false).unwrap();
        assert_eq!((case.bound, case.intervals), (400.0, 10));
        let shares: Vec<_> = case.guests.iter().map(|guest| guest.spec.initial.get(Resource::Cpu)).collect();
        assert_eq!(shares, [Some(300), Some(100)], "the largest first");
        for policy in POLICIES {
            assert_eq!(case.run(policy).unwrap().violations, [""; 0]);
        }
    }
}
