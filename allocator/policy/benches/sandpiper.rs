//! What a decision of `sandpiper` costs: 10,000 VMs on 2,000 hosts, full profiles of 200 measurements, a new one of each
//! VM.
//!
//! Each times one decision: [`View::new`] and [`Policy::decide`], from the directory's snapshot and the window of usage,
//! which are given, to the plan with its reasons. Hosts are at 45 % of their CPU and network, hot ones at 85 % of their
//! CPU; the number is how many of a thousand hosts are hot. With 700 not all hot spots can be dissipated, and swaps are
//! looked for in vain.
//!
//! `cargo bench -p vibra-policy --bench sandpiper`

mod cluster;

use cluster::id;
use divan::{Bencher, black_box};
use std::time::Duration;
use vibra_model::*;
use vibra_policy::{Policy, Sandpiper, SandpiperParameters, View};

const HOSTS: u64 = 2000;
const VMS_PER_HOST: u64 = 5;
const CPU: u64 = 4000;
const NETWORK: u64 = 125_000_000;
const INTERVAL: u64 = 10_000_000;
const WINDOW: u64 = 200;

fn main() {
    divan::main();
}

fn memory(mib: u64) -> Resources {
    Resources { memory: Some(Bytes(mib << 20)), ..Resources::NONE }
}

fn directory() -> Snapshot {
    let capacity = Resources { cpu: Some(MilliCpu(CPU)), bandwidth: Some(BytesPerSec(NETWORK)), ..memory(4096) };
    let vm = |number: u64| (memory(256 + number % 7 * 32), Resources::NONE);
    let vms = (0..HOSTS * VMS_PER_HOST).map(vm).collect();
    cluster::directory(memory(1 << 24), vec![capacity; HOSTS as usize], vms)
}

/// The measurements `from` up to `to` of each VM, with `hot` of a thousand hosts hot.
fn usage(hot: u64, (from, to): (u64, u64)) -> UsageWindow {
    let sample = |vm: u64, number: u64| {
        let noise = (vm + number).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 57;
        let level = if vm % HOSTS % 1000 < hot { 85 } else { 45 };
        // VMs of a host differ by up to a half of their mean.
        let part = (50 + vm / HOSTS % VMS_PER_HOST * 25) * level + noise;
        let cpu_time = Some(Duration::from_micros(part * CPU * INTERVAL / (10_000 * VMS_PER_HOST * 1000)));
        let egress = Some(BytesPerSec(NETWORK * 45 / 100 / VMS_PER_HOST + noise));
        let (at, interval) = (Timestamp(number * INTERVAL), Some(Duration::from_micros(INTERVAL)));
        UsageSample { at, cpu_time, egress, interval, ..UsageSample::default() }
    };
    let samples = |vm: u64| (id(format!("vm{vm}")), (from..to).map(|number| sample(vm, number)).collect());
    UsageWindow((0..HOSTS * VMS_PER_HOST).map(samples).collect())
}

#[divan::bench(args = [0, 100, 400, 700], sample_count = 20, sample_size = 1)]
fn sandpiper_10k(bencher: Bencher<'_, '_>, hot: u64) {
    let (directory, shop) = (directory(), id("shop".into()));
    let mut policy = Sandpiper::black_box(Resource::Memory, SandpiperParameters::default()).expect("good parameters");
    // What came before was calm everywhere, so that nothing is planned yet; then comes what makes it hot, but for the
    // last measurement.
    let decide = |policy: &mut Sandpiper, usage: &UsageWindow, until: u64| {
        policy.decide(&View::new(&directory, &shop, black_box(usage)), Timestamp(until * INTERVAL))
    };
    decide(&mut policy, &usage(0, (1, WINDOW + 1)), WINDOW);
    let last = WINDOW + 3;
    let begins = decide(&mut policy, &usage(hot, (WINDOW + 1, last)), last - 1);
    assert!(begins.moves.is_empty(), "two of five");
    let now = usage(hot, (last, last + 1));
    let plan = decide(&mut policy.clone(), &now, last);
    println!("{hot} of 1000 hosts hot: {} moves, {} refusals", plan.moves.len(), plan.refusals.len());
    assert_eq!(plan.moves.is_empty(), hot == 0);
    bencher.with_inputs(|| policy.clone()).bench_local_values(|mut policy| {
        let plan = decide(&mut policy, &now, last);
        // Both are dropped after the measurement.
        (policy, plan)
    });
}
