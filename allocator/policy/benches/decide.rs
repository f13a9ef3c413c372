//! What a decision of `proportional` costs: 100,000 VMs on 5,000 hosts, three new samples each, every share changed.
//!
//! `proportional_100k` times one decision: [`View::new`] and [`Policy::decide`], from the directory's snapshot and the
//! window of usage, which are given, to the plan with its reasons. Neither making the usage nor dropping it and the
//! plan is in it. `check_100k` times the judgement of such a plan.
//!
//! `cargo bench -p vibra-policy`

mod cluster;

use cluster::id;
use divan::{Bencher, black_box};
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
use vibra_model::*;
use vibra_policy::{Limits, Policy, Proportional, ProportionalParameters, View, check};

const VMS: u64 = 100_000;
const VMS_PER_HOST: u64 = 20;
const SHARE: u64 = 1_000_000;

fn main() {
    divan::main();
}

fn rate(amount: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(amount)), ..Resources::NONE }
}

/// Every host has a limit, which is large enough.
fn directory() -> Snapshot {
    let capacities = (0..VMS / VMS_PER_HOST).map(|_| rate(100 * VMS_PER_HOST * SHARE)).collect();
    let vms = (0..VMS).map(|_| (rate(SHARE), rate(SHARE / 10))).collect();
    cluster::directory(rate(VMS * SHARE), capacities, vms)
}

/// Three samples a VM after `start`; demands differ widely, and the floor binds for some.
fn usage(start: u64) -> UsageWindow {
    let sample = |number: u64, at: u64| {
        let egress = (number + at).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (44 + number % 8);
        UsageSample { at: Timestamp(start + at), egress: Some(BytesPerSec(egress)), ..UsageSample::default() }
    };
    let samples = |number: u64| (id(format!("vm{number}")), (1..=3).map(|at| sample(number, at)).collect());
    UsageWindow((0..VMS).map(samples).collect())
}

fn policy() -> Proportional {
    let parameters = ProportionalParameters { dead_band: 0.0, ..ProportionalParameters::default() };
    Proportional::new(Resource::Bandwidth, parameters).expect("good parameters")
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn proportional_100k(bencher: Bencher<'_, '_>) {
    let (directory, shop) = (directory(), id("shop".into()));
    let policy = Mutex::new(policy());
    let round = AtomicU64::new(0);
    bencher.with_inputs(|| usage(10 * round.fetch_add(1, Ordering::Relaxed))).bench_local_values(|now| {
        let mut policy = policy.lock().expect("no panic");
        let plan = policy.decide(&View::new(&directory, &shop, black_box(&now)), Timestamp(1_000_000));
        // Both are dropped after the measurement.
        (plan, now)
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn check_100k(bencher: Bencher<'_, '_>) {
    let (directory, shop, now) = (directory(), id("shop".into()), usage(0));
    let plan = policy().decide(&View::new(&directory, &shop, &now), Timestamp(10));
    assert!(plan.actions.len() as u64 > VMS * 9 / 10);
    let limits = Limits::of(&shop, &[Resource::Bandwidth]);
    bencher.bench_local(|| check(black_box(&plan), &directory, &limits).expect("a good plan"));
}
