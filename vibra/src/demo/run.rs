//! One variant, measured: the whole loop of directory, agent, allocator and dispatcher, and the trace through it.

use super::{initial, variants::Variant};
use crate::live::{Cluster, System, Way};
use anyhow::Context;
use indicatif::ProgressBar;
use std::{net::SocketAddr, time::Duration};
use vibra_replay::{Mode, Options, Spread, Summary, replay};
use vibra_report::DemoRow;
use vibra_routing::{HashKind, Settings};
use vibra_trace::Trace;

/// What every variant has to serve.
pub(super) struct Workload<'a> {
    pub(super) trace: &'a Trace,
    /// How long it runs before it is measured.
    pub(super) warm_up: Duration,
    /// Of the arrival times within each second.
    pub(super) seed: u64,
}

/// Runs `variant` on `cluster`, which starts cold, and measures it.
///
/// # Errors
/// If a part does not start. What goes wrong with single requests is counted in the row.
pub(super) async fn measure(
    cluster: &Cluster,
    variant: Variant,
    workload: &Workload<'_>,
    bar: &ProgressBar,
) -> anyhow::Result<DemoRow> {
    let way = way(variant);
    cluster.reset(way.each).await.context("starting the VMs cold")?;
    let system = System::start(cluster, &way).await.with_context(|| format!("starting {}", variant.name()))?;
    let before = cluster.disk_blocks().await;
    let target = system.address().context("the dispatcher listens nowhere")?;
    let summary = replayed(target, workload, bar).await?;
    let after = cluster.disk_blocks().await;
    let disk_blocks = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    let moved = system.stop().await?;
    Ok(row(variant, &summary, disk_blocks, moved))
}

fn way(variant: Variant) -> Way {
    let routing = Settings {
        algorithm: variant.algorithm,
        hash: HashKind::Charsum,
        replicas: variant.replicas.unwrap_or(1),
        ..Settings::default()
    };
    let (parameters, interval) = (serde_json::json!({}), vibra_daemon::Settings::default().interval);
    Way { routing, policy: variant.policy, parameters, interval, each: initial(variant.bandwidth) }
}

/// The trace through the dispatcher: open loop at the recorded times, a seeded Poisson process within each second.
async fn replayed(target: SocketAddr, workload: &Workload<'_>, bar: &ProgressBar) -> anyhow::Result<Summary> {
    let mode = Mode::Open { speed: 1.0, spread: Spread::Poisson { seed: workload.seed } };
    let options = Options { warm_up: workload.warm_up, timeout: Duration::from_secs(10), ..Options::new(target, mode) };
    let (trace, bar) = (workload.trace.clone(), bar.clone());
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
