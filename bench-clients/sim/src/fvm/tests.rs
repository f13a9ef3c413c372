//! What the paper says of its testbed.

use super::*;

fn short() -> Testbed {
    Testbed { warm_up: Duration::from_secs(200), length: Duration::from_secs(200), ..Testbed::default() }
}

fn plain(testbed: &Testbed) -> Testbed {
    Testbed { unfriendly: testbed.vms, ..testbed.clone() }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let testbed = Testbed { length: Duration::from_secs(20), ..short() };
    assert_eq!(testbed.run(7), testbed.run(7));
    assert_ne!(testbed.run(7), testbed.run(8));
}

#[test]
fn up_to_three_vms_fit_and_adaptation_costs_nothing() {
    for vms in 1..=3 {
        let testbed = Testbed { vms, ..short() };
        let (friendly, plain) = (testbed.run(1), plain(&testbed).run(1));
        let ratio = friendly.throughput() / plain.throughput();
        assert!((0.97..=1.03).contains(&ratio), "{vms} VMs: {ratio}");
        assert!(plain.fairness(testbed.optimum()).unwrap() > 0.95);
    }
}

#[test]
fn with_more_the_host_thrashes_unless_they_adapt() {
    let mut before = f64::INFINITY;
    for vms in 4..=6 {
        let testbed = Testbed { vms, ..short() };
        let (friendly, plain) = (testbed.run(1), plain(&testbed).run(1));
        assert!(plain.throughput() < before, "it gets worse with each");
        before = plain.throughput();
        assert!(friendly.throughput() > 2.0 * plain.throughput(), "{vms} VMs");
        assert!(friendly.vms.iter().all(|vm| vm.level < 50.0));
    }
}

#[test]
fn one_that_does_not_adapt_is_found_and_the_others_are_not() {
    for seed in 1..=2 {
        let found = Testbed { vms: 6, unfriendly: 1, ..Testbed::default() }.run(seed).findings;
        assert_eq!(found.iter().map(|finding| finding.vm.as_str()).collect::<Vec<_>>(), ["vm1"], "seed {seed}");
        let found = Testbed { vms: 6, ..Testbed::default() }.run(seed).findings;
        assert_eq!(found, [], "seed {seed}: all are friendly");
    }
}
