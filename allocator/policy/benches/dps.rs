//! What a decision of DPS costs: 10,000 VMs on 2,000 hosts with limits, three new samples each, half of the VMs short.
//!
//! Each times one decision from view to plan. `cargo bench -p vibra-policy --bench dps`

mod cluster;

use cluster::id;
use divan::{Bencher, black_box};
use serde_json::json;
use std::time::Duration;
use vibra_model::*;
use vibra_policy::{Policies, View};

const VMS: u64 = 10_000;
const HOSTS: u64 = 2_000;
const SHARE: u64 = 200;

fn main() {
    divan::main();
}

fn cpu(amount: u64) -> Resources {
    Resources { cpu: Some(MilliCpu(amount)), ..Resources::NONE }
}

fn directory() -> Snapshot {
    let capacity = |number| cpu(SHARE * (VMS / HOSTS) + number % 3 * SHARE);
    let vms = (0..VMS).map(|_| (cpu(SHARE), cpu(SHARE / 10))).collect();
    cluster::directory(cpu(VMS * SHARE), (0..HOSTS).map(capacity).collect(), vms)
}

/// Every second VM uses more than it has.
fn usage() -> UsageWindow {
    let sample = |number: u64, at: u64| UsageSample {
        at: Timestamp(at),
        cpu_time: Some(Duration::from_millis(if number.is_multiple_of(2) {
            SHARE + number % 90
        } else {
            number % SHARE
        })),
        interval: Some(Duration::from_secs(1)),
        ..UsageSample::default()
    };
    let samples = |number: u64| (id(format!("vm{number}")), (1..=3).map(|at| sample(number, at)).collect());
    UsageWindow((0..VMS).map(samples).collect())
}

#[divan::bench(args = ["dps-bank", "dps-distributed"], sample_count = 30, sample_size = 1)]
fn decide_10k(bencher: Bencher<'_, '_>, name: &str) {
    let (directory, shop, usage) = (directory(), id("shop".into()), usage());
    let parameters = json!({ "migrate": true });
    let fresh = || Policies::shipped().build(name, Resource::Cpu, parameters.clone()).expect("good parameters");
    bencher.with_inputs(fresh).bench_local_values(|mut policy| {
        let plan = policy.decide(&View::new(&directory, &shop, black_box(&usage)), Timestamp(10));
        // Both are dropped after the measurement.
        (policy, plan)
    });
}
