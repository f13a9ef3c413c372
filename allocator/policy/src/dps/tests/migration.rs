//! The cluster manager's moves (section 5.2.2).

use super::*;
use vibra_model::{Action, AllocationChange, Bytes, Command, Customer, HostSpec, Reason, Resources, VmSpec};

/// Two VMs on host 0, which they fill; one on host 1 and one on host 2, which do little.
fn crowded() -> Snapshot {
    let seeds = [
        Seed::up(0, 600),
        Seed::up(0, 400),
        Seed { host: 1, ..Seed::up(0, 400) },
        Seed { host: 2, ..Seed::up(0, 400) },
    ];
    let mut directory = cluster_of(Resource::Cpu, 1800, &[CPU, CPU, CPU], &seeds);
    up(&mut directory, &["h0", "h1", "h2"]);
    directory
}

fn up(directory: &mut Snapshot, hosts: &[&str]) {
    for host in hosts {
        run(directory, Command::Report(vibra_model::UsageReport { host: id(host), vms: Vec::new() }));
    }
}

fn moves(plan: &Plan) -> Vec<(&str, &str, &str)> {
    plan.moves.iter().map(|step| (step.vm.as_str(), step.from.as_str(), step.to.as_str())).collect()
}

fn policies() -> [Box<dyn Policy>; 2] {
    let parameters = json!({ "migrate": true });
    [Box::new(distributed(parameters.clone())), Box::new(bank(parameters))]
}

#[test]
fn the_least_used_vm_of_a_full_host_goes_to_the_least_used_host() {
    for mut policy in policies() {
        assert!(policy.moves());
        let plan = decide(&mut *policy, &crowded(), &cpu(1, &[600, 400, 200, 100]));
        assert_eq!(moves(&plan), [("vm1", "h0", "h2")], "{}", policy.name());
        assert!(plan.moves[0].reason.facts.contains(&("used".into(), 400.0)));
    }
}

#[test]
fn a_move_leaves_the_room_that_another_policy_has_planned_to_use() {
    // h2 is used least, and has memory for vm1 as long as vm3 is not given more.
    let both = |cpu, memory| Resources { memory: Some(Bytes(memory)), ..only(Resource::Cpu, cpu) };
    let mut directory = Snapshot::default();
    run(&mut directory, Command::PutCustomer(Customer { id: id("shop"), bounds: both(1800, 900) }));
    for host in ["h0", "h1", "h2"] {
        run(&mut directory, Command::PutHost(HostSpec { id: id(host), capacity: both(1000, 300) }));
        up(&mut directory, &[host]);
    }
    for (order, (host, share)) in (0..).zip([("h0", 600), ("h0", 400), ("h1", 400), ("h2", 400)]) {
        let vm = VmSpec {
            id: id(&format!("vm{order}")),
            customer: id("shop"),
            host: id(host),
            address: "10.0.0.1:80".into(),
            order,
            weight: 1,
            floor: Resources::NONE,
            initial: both(share, 100),
        };
        run(&mut directory, Command::PutVm(vm));
        set_state(&mut directory, &format!("vm{order}"), VmState::Up);
    }
    let change = AllocationChange { vm: id("vm3"), to: Resource::Memory.amount(250) };
    let planned = [Action { change, from: 100, reason: Reason::new("test") }];
    let (shop, usage): (CustomerId, _) = (id("shop"), cpu(1, &[600, 400, 200, 100]));
    for mut policy in policies() {
        let view = View::new(&directory, &shop, &usage);
        let plan = policy.decide(&view.after(&planned), Timestamp(1_000_000));
        assert_eq!(moves(&plan), [("vm1", "h0", "h1")], "{}", policy.name());
    }
    for mut policy in policies() {
        assert_eq!(moves(&decide(&mut *policy, &directory, &usage)), [("vm1", "h0", "h2")], "{}", policy.name());
    }
}

#[test]
fn nobody_moves_unless_that_is_asked_for() {
    for policy in [&mut distributed(json!({})) as &mut dyn Policy, &mut bank(json!({}))] {
        assert!(!policy.moves());
        assert!(decide(policy, &crowded(), &cpu(1, &[600, 400, 200, 100])).moves.is_empty());
    }
}

#[test]
fn nobody_moves_where_the_other_host_would_be_as_full() {
    for mut policy in policies() {
        let plan = decide(&mut *policy, &crowded(), &cpu(1, &[500, 500, 450, 490]));
        // h1 would have 950 of 1000, h0 has 1000.
        assert_eq!(moves(&plan), [("vm0", "h0", "h1")], "{}", policy.name());
        let plan = decide(&mut *policy, &crowded(), &cpu(2, &[500, 500, 520, 510]));
        assert_eq!(moves(&plan), []);
    }
}

#[test]
fn nobody_moves_to_a_host_that_is_down_or_has_no_room() {
    let mut directory = crowded();
    run(&mut directory, Command::HostSilent(id("h2")));
    let capacity = Resources { memory: Some(Bytes(0)), ..only(Resource::Cpu, 1000) };
    run(&mut directory, Command::PutHost(HostSpec { id: id("h3"), capacity }));
    up(&mut directory, &["h3"]);
    for mut policy in policies() {
        let plan = decide(&mut *policy, &directory, &cpu(1, &[600, 400, 200, 0]));
        assert_eq!(moves(&plan), [("vm1", "h0", "h3")], "no memory is managed for it: it needs none");
    }
    let capacity = only(Resource::Cpu, 100);
    run(&mut directory, Command::PutHost(HostSpec { id: id("h3"), capacity }));
    for mut policy in policies() {
        let plan = decide(&mut *policy, &directory, &cpu(1, &[600, 400, 200, 0]));
        assert_eq!(moves(&plan), [("vm1", "h0", "h1")]);
    }
}
