//! Equation 5.1.

use super::*;
use vibra_model::UsageSample;

#[test]
fn the_texts_example_gives_a_tenth_to_each_of_three_and_keeps_as_much() {
    // "If the VM having 0.4 excess CPU share has 3 upstream VMs and withholds 1/(P+1) of excess shares, it will
    // initiate a share transfer of 0.1 share to the 3 VMs and … retain 0.2 CPU share."
    let mut directory = shares(&[500, 100, 100, 100]);
    assert_eq!(after(&mut distributed(json!({})), &mut directory, 1, &[100, 150, 100, 200]), [200, 200, 200, 200]);
}

#[test]
fn two_busy_vms_have_no_excess() {
    // "When two CPU-intensive VMs having 0.5 and 0.25 CPU share, the actual CPU utilization will be 0.67 and 0.33."
    let mut directory = shares(&[500, 250]);
    assert_eq!(after(&mut distributed(json!({})), &mut directory, 1, &[667, 333]), [500, 250]);
}

#[test]
fn what_is_withheld_can_be_chosen() {
    for (withhold, kept) in [(0.0, 100), (0.25, 200), (1.0, 500)] {
        let mut directory = shares(&[500, 100]);
        let mut policy = distributed(json!({ "withhold": withhold }));
        assert_eq!(after(&mut policy, &mut directory, 1, &[100, 150]), [kept, 600 - kept]);
    }
}

#[test]
fn odd_units_are_not_lost() {
    let mut directory = shares(&[50, 0, 0, 0]);
    let mut policy = distributed(json!({ "withhold": 0 }));
    assert_eq!(after(&mut policy, &mut directory, 1, &[0, 9, 9, 9]), [0, 17, 17, 16]);
}

#[test]
fn no_vm_gives_what_its_floor_needs() {
    let mut directory = cluster_of(Resource::Cpu, 600, &[None], &[Seed::up(300, 500), Seed::up(0, 100)]);
    assert_eq!(after(&mut distributed(json!({ "withhold": 0 })), &mut directory, 1, &[10, 150]), [300, 300]);
}

#[test]
fn a_full_host_refuses_and_the_sender_keeps_the_share() {
    let seeds = [Seed::up(0, 500), Seed { host: 1, ..Seed::up(0, 100) }, Seed { host: 2, ..Seed::up(0, 100) }];
    let mut directory = cluster_of(Resource::Cpu, 700, &[CPU, Some(100), Some(150)], &seeds);
    let plan = decide(&mut distributed(json!({})), &directory, &cpu(1, &[200, 150, 150]));
    assert_eq!(refused(&plan), [("vm1", "its host is full"), ("vm2", "its host is full")]);
    carry_out(&mut directory, &plan);
    // 100 were offered to each; the first host takes nothing, the second half of it.
    let now: Vec<_> = directory.vms().filter_map(|vm| vm.desired(Resource::Cpu)).collect();
    assert_eq!(now, [450, 100, 150]);
}

#[test]
fn a_full_host_can_take_from_itself() {
    let mut directory = cluster_of(Resource::Cpu, 1000, &[CPU], &[Seed::up(0, 500), Seed::up(0, 500)]);
    assert_eq!(after(&mut distributed(json!({})), &mut directory, 1, &[300, 600]), [400, 600]);
}

#[test]
fn shares_go_to_whom_a_vm_waits_for() {
    // vm2 has no excess, but vm0 does not wait for it.
    let mut directory = shares(&[500, 300, 100]);
    let mut policy = distributed(json!({ "upstream": { "vm0": ["vm1", "vm0", "vm9"] } }));
    assert_eq!(after(&mut policy, &mut directory, 1, &[100, 200, 150]), [300, 500, 100], "it may have excess itself");
}

/// `usage` in which the first VM waited for the one at this place.
fn waiting_for(mut usage: UsageWindow, order: Option<u32>) -> UsageWindow {
    let samples = usage.0.get_mut(&id("vm0")).unwrap();
    samples[0] = UsageSample { upstream: order, ..samples[0] };
    usage
}

#[test]
fn samples_tell_whom_a_vm_waits_for_and_that_is_forgotten_in_time() {
    let mut directory = shares(&[800, 0, 0]);
    let mut policy = distributed(json!({ "expiry": "400ms" }));
    let mut exchange = |at, order| {
        let plan = decide(&mut policy, &directory, &waiting_for(cpu(at, &[0, 50, 50]), order));
        carry_out(&mut directory, &plan);
        directory.vms().filter_map(|vm| vm.desired(Resource::Cpu)).collect::<Vec<_>>()
    };
    assert_eq!(exchange(100_000, Some(1)), [400, 400, 0]);
    // Now it waits for both: vm1, which has excess meanwhile, gives in its turn to those without.
    let both = exchange(200_000, Some(2));
    assert_eq!(both[0], 133, "a third of 400 to each, a third withheld: {both:?}");
    let one = exchange(550_000, None);
    assert_eq!(one[0], 66, "vm2 alone is left on the list: {one:?}");
    assert_eq!(exchange(900_000, None)[0], 66, "it waits for no one any more");
}

#[test]
fn on_the_line_excess_of_the_last_node_reaches_the_first_in_three_cycles() {
    let mut directory = half_free(&[200; 4]);
    let line = json!({ "upstream": { "vm1": ["vm0"], "vm2": ["vm1"], "vm3": ["vm2"] } });
    let mut policy = distributed(line);
    // With nodes 2 and 3 using all they have, only node 4 has excess, and it is passed on.
    let mut now = vec![200; 4];
    let mut reached = Vec::new();
    for at in 1..=3 {
        let used = [now[0], now[1].min(200), now[2].min(200), 40];
        now = after(&mut policy, &mut directory, at, &used);
        reached.push(now[0] > 200);
    }
    assert_eq!(reached, [false, false, true]);
}

#[test]
fn on_the_line_shares_come_to_match_the_load() {
    let mut directory = half_free(&[200; 4]);
    let mut policy = distributed(json!({ "upstream": { "vm1": ["vm0"], "vm2": ["vm1"], "vm3": ["vm2"] } }));
    let mut now = vec![200; 4];
    let mut first = Vec::new();
    for at in 1..=30 {
        now = after(&mut policy, &mut directory, at, &paced_by_the_first(&now));
        assert_eq!(now.iter().sum::<u64>(), 800);
        first.push(now[0]);
    }
    assert!(first.is_sorted(), "no oscillation: {first:?}");
    // It ends where no one has excess, so that w_1 + u_1·(1/2 + 1/3 + 1/4) ≥ 0.8 with u_1 = w_1/(w_1 + 0.5).
    assert!(now[0] >= 351, "{now:?}");
    let used = paced_by_the_first(&now);
    assert!(now.iter().zip(&used).all(|(has, used)| *has <= used + 1), "{now:?} for {used:?}");
}

#[test]
fn a_share_keeps_its_worth_between_unlike_hosts() {
    let seeds = [Seed::up(0, 500), Seed { host: 1, ..Seed::up(0, 100) }];
    let mut directory = cluster_of(Resource::Cpu, 1000, &[CPU, CPU], &seeds);
    // All that is not given out goes first to who lacks something: here nobody does.
    let rates =
        |h0: f64, h1: f64| json!({ "withhold": 0, "rates": { "h0": h0, "h1": h1 }, "upstream": { "vm0": ["vm1"] } });
    assert_eq!(after(&mut distributed(rates(1.0, 2.0)), &mut directory, 1, &[100, 90]), [100, 300]);
    // Back to the slower host: 200 there are 400 here.
    let mut back = distributed(json!({ "withhold": 0, "rates": { "h1": 2 }, "upstream": { "vm1": ["vm0"] } }));
    assert_eq!(after(&mut back, &mut directory, 2, &[90, 100]), [500, 100]);
    // Within the bound of 1000: of the 800 that 400 are worth, 400 and what nobody has can come in.
    let mut directory =
        cluster_of(Resource::Cpu, 1000, &[CPU, CPU], &[Seed::up(0, 500), Seed { host: 1, ..Seed::up(0, 400) }]);
    assert_eq!(after(&mut distributed(rates(2.0, 1.0)), &mut directory, 3, &[100, 390]), [100, 900]);
}

#[test]
fn a_saved_state_goes_on() {
    let mut policy = distributed(json!({}));
    let mut directory = shares(&[800, 0, 0]);
    let usage = waiting_for(cpu(5, &[0, 50, 50]), Some(1));
    let plan = decide(&mut policy, &directory, &usage);
    carry_out(&mut directory, &plan);
    let mut other = distributed(json!({}));
    other.restore(&serde_json::from_str(&policy.save().to_string()).unwrap()).unwrap();
    let usage = cpu(6, &[0, 50, 50]);
    assert_eq!(decide(&mut other, &directory, &usage), decide(&mut policy, &directory, &usage));
}
