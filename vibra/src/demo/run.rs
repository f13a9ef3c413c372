//! One variant, measured: the whole loop of directory, agent, allocator and dispatcher, and the trace through it.

use super::{WARM_UP, cluster::Cluster, variants::Variant};
use anyhow::{Context, bail};
use indicatif::ProgressBar;
use std::{sync::Arc, time::Duration};
use vibra_client::{Directory, follow};
use vibra_model::{CustomerId, VmState};
use vibra_proxy::{Dispatcher, Handle};
use vibra_replay::{Mode, Options, Spread, Summary, replay};
use vibra_report::DemoRow;
use vibra_routing::{HashKind, Settings};
use vibra_trace::Trace;

/// How long the parts may take to find each other.
const START_LIMIT: Duration = Duration::from_secs(15);

/// Runs `variant` on `cluster`, which starts cold, and measures it.
///
/// # Errors
/// If a part does not start. What goes wrong with single requests is counted in the row.
pub(super) async fn measure(
    cluster: &Cluster,
    variant: Variant,
    trace: &Trace,
    seed: u64,
    bar: &ProgressBar,
) -> anyhow::Result<DemoRow> {
    cluster.reset(variant.bandwidth).await.context("starting the VMs cold")?;
    let system = System::start(cluster, variant).await.with_context(|| format!("starting {}", variant.name()))?;
    let before = cluster.disk_blocks().await;
    let summary = replayed(&system.dispatcher, trace, seed, bar).await?;
    let after = cluster.disk_blocks().await;
    let disk_blocks = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    let moved = system.stop().await;
    Ok(row(variant, &summary, disk_blocks, moved))
}

/// The trace through the dispatcher: open loop at the recorded times, a seeded Poisson process within each second.
async fn replayed(dispatcher: &Handle, trace: &Trace, seed: u64, bar: &ProgressBar) -> anyhow::Result<Summary> {
    let target = *dispatcher.addresses().first().context("the dispatcher listens nowhere")?;
    let mode = Mode::Open { speed: 1.0, spread: Spread::Poisson { seed } };
    let options = Options { warm_up: WARM_UP, timeout: Duration::from_secs(10), ..Options::new(target, mode) };
    let (trace, bar) = (trace.clone(), bar.clone());
    let before = bar.position();
    let run = move || replay(&trace, &options, |now| bar.set_position(before + now.finished));
    Ok(tokio::task::spawn_blocking(run).await??)
}

fn row(variant: Variant, summary: &Summary, disk_blocks: Option<u64>, moved: u64) -> DemoRow {
    let times = summary.response_time.as_ref();
    DemoRow {
        algorithm: variant.algorithm.to_string(),
        replicas: variant.replicas,
        policy: variant.policy.to_owned(),
        requests: summary.requests,
        errors: summary.errors.total(),
        mean_ms: times.map(|t| t.mean_ms),
        p50_ms: times.map(|t| t.p50_ms),
        p99_ms: times.map(|t| t.p99_ms),
        bytes_per_s: summary.bytes_per_s,
        disk_blocks,
        bandwidth_moved_bytes_per_s: Some(moved as f64),
        void: summary.void.clone(),
    }
}
