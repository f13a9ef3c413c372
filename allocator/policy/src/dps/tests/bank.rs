//! Equation 5.2 and other bankers.

use super::*;

#[test]
fn the_texts_example_pays_half_of_each_shortage() {
    // "If the banker process has a total of 0.3 excess share and a total share shortage of 0.6, the VM that needs 0.17
    // share will be given 0.085 CPU share."
    let mut directory = shares(&[400, 500, 100]);
    assert_eq!(after(&mut bank(json!({})), &mut directory, 1, &[100, 670, 530]), [100, 585, 315]);
}

#[test]
fn what_is_left_goes_to_all_in_proportion_to_what_they_had() {
    // E = 400 + 250, F = 150; after that VMs have 100, 650 and 50, and 500 are left to divide as 5 to 5 to 3.
    let mut directory = shares(&[500, 500, 300]);
    let now = after(&mut bank(json!({})), &mut directory, 1, &[100, 650, 50]);
    assert_eq!(now, [100 + 192, 650 + 192, 50 + 116]);
}

#[test]
fn a_shortage_is_no_more_than_its_host_has_left() {
    // "This amount is also limited by the remaining share of the host machine r_j."
    let seeds = [Seed::up(0, 500), Seed { host: 1, ..Seed::up(0, 500) }, Seed { host: 2, ..Seed::up(0, 0) }];
    let mut directory = cluster_of(Resource::Cpu, 1000, &[CPU, Some(550), Some(50)], &seeds);
    let plan = decide(&mut bank(json!({})), &directory, &cpu(1, &[300, 670, 60]));
    // f = 50 and 50 of E = 200; the other 100 can only go where there is room.
    carry_out(&mut directory, &plan);
    let now: Vec<_> = directory.vms().filter_map(|vm| vm.desired(Resource::Cpu)).collect();
    assert_eq!(now, [400, 550, 50]);
    assert_eq!(refused(&plan), [("vm1", "its host is full"), ("vm2", "its host is full")]);
}

#[test]
fn two_on_one_host_share_the_room_there() {
    let seeds = [Seed::up(0, 600), Seed { host: 1, ..Seed::up(0, 100) }, Seed { host: 1, ..Seed::up(0, 100) }];
    let mut directory = cluster_of(Resource::Cpu, 800, &[CPU, Some(300)], &seeds);
    assert_eq!(after(&mut bank(json!({})), &mut directory, 1, &[100, 900, 900]), [500, 150, 150]);
}

#[test]
fn on_the_line_shares_match_the_load_within_three_cycles() {
    for share in [100, 200, 300, 400] {
        let mut directory = half_free(&[share; 4]);
        let mut policy = bank(json!({}));
        // In proportion to 1, 1/2, 1/3, 1/4 (25/12 in all), as far as the first one's host can take it.
        let due = (4.0 * share as f64 * 12.0 / 25.0).min(500.0);
        let mut now = vec![share; 4];
        let mut first = vec![share];
        for at in 1..=3 {
            now = after(&mut policy, &mut directory, at, &paced_by_the_first(&now));
            assert_eq!(now.iter().sum::<u64>(), 4 * share);
            first.push(now[0]);
        }
        assert!(
            first.is_sorted() && (first[1] > share + share / 4 || first[1] == 500),
            "much of it comes in one hop: {first:?}"
        );
        assert!((now[0] as f64 - due).abs() <= 0.07 * due, "{now:?} and {due}");
    }
}

#[test]
fn where_hosts_are_full_deposits_wait_for_others_to_make_room() {
    // Two customers would be needed to use the room; one shows that deposits stay in the bank in between.
    let mut directory = shares(&[500, 500]);
    let mut policy = bank(json!({ "pay_every": 2 }));
    assert_eq!(after(&mut policy, &mut directory, 1, &[100, 700]), [100, 500]);
    let other = &mut bank(json!({ "pay_every": 2 }));
    other.restore(&serde_json::from_str(&policy.save().to_string()).unwrap()).unwrap();
    assert_eq!(after(other, &mut directory, 2, &[100, 700]), [133, 867], "200 for the shortage, 200 as 1 to 5");
}

#[test]
fn what_was_never_given_out_is_in_the_bank() {
    let mut directory = cluster_of(Resource::Cpu, 1000, &[None], &[Seed::up(0, 100), Seed::up(0, 100)]);
    assert_eq!(after(&mut bank(json!({})), &mut directory, 1, &[200, 150]), [525, 475]);
}

#[test]
fn where_all_are_idle_each_gets_its_own_back() {
    let mut directory = shares(&[900, 100, 200]);
    assert_eq!(after(&mut bank(json!({})), &mut directory, 1, &[0, 0, 0]), [900, 100, 200]);
}

#[test]
fn a_max_min_banker_pays_small_shortages_in_full() {
    // E = 300; shortages of 50, 170 and 430.
    let mut directory = shares(&[400, 500, 100, 100]);
    let mut policy = bank(json!({ "banker": "max-min" }));
    assert_eq!(after(&mut policy, &mut directory, 1, &[100, 670, 530, 150]), [100, 625, 225, 150]);
}

#[test]
fn any_banker_can_be_added_and_none_can_do_harm() {
    fn greedy(account: &Account<'_>) -> Vec<u64> {
        assert_eq!(account.room(&account.members()[1]), Some(400));
        vec![u64::MAX; account.members().len() + 1]
    }
    let bankers = Bankers::shipped().with("greedy", greedy);
    let mut policy = Bank::build_with(&bankers, Resource::Cpu, json!({ "banker": "greedy" })).unwrap();
    let seeds = [Seed::up(0, 600), Seed { host: 1, ..Seed::up(0, 200) }];
    let mut directory = cluster_of(Resource::Cpu, 900, &[Some(700), Some(600)], &seeds);
    assert_eq!(after(&mut policy, &mut directory, 1, &[100, 250]), [700, 200], "the first one takes what it can");
}

#[test]
fn deposits_and_payments_are_exchanged() {
    let rates = json!({ "rates": { "h0": 2 } });
    let seeds = [Seed::up(0, 500), Seed { host: 1, ..Seed::up(0, 200) }];
    let mut directory = cluster_of(Resource::Cpu, 2000, &[None, None], &seeds);
    let mut policy = bank(rates);
    let now = after(&mut policy, &mut directory, 1, &[100, 500]);
    // E is 2·400 and the 1300 that were never given out. 300 pay the shortage; 1800 are divided as 2·500 to 200, the worths
    // of what they had: 1500, which are 750 there, and 300.
    assert_eq!(now, [100 + 750, 200 + 300 + 300]);
}
