//! `vibra demo`: a four-VM cluster on this machine, one trace, seven ways to serve it, one table.

mod run;
mod variants;
mod verdict;

use crate::{
    cli,
    commands::trace,
    exit::{Failure, Outcome},
    live::{Cluster, Equipment},
    parts::stop,
    progress,
};
use anyhow::bail;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use vibra_model::{Bytes, BytesPerSec, Resources};
use vibra_report::{DemoRow, DemoSetup, Document, Provenance, demo_table};
use vibra_trace::Trace;

/// How many VMs: as in section 3.5.
const VMS: usize = 4;
/// The memory of each, as in section 3.5.3.
const MEMORY: Bytes = Bytes(48 << 20);

/// What each VM has at first.
fn initial(bandwidth: BytesPerSec) -> Resources {
    Resources { bandwidth: Some(bandwidth), memory: Some(MEMORY), cpu: None }
}

/// How long each variant runs before it is measured, unless it is measured for less: caches fill for the first time, and
/// the allocator decides for the first time after one interval, 3 s, whereupon what queued until then has to drain.
const WARM_UP: u64 = 5;

/// The warm-up of these arguments.
fn warm_up(args: &cli::Demo) -> Duration {
    Duration::from_secs(args.seconds.min(WARM_UP))
}

/// What the JSON says beside the rows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    #[serde(flatten)]
    pub(crate) common: DemoSetup,
    /// VMs, and what each has at first.
    pub(crate) vms: usize,
    pub(crate) bandwidth_per_vm_bytes_per_s: u64,
    pub(crate) memory_per_vm_bytes: u64,
    /// How long each row was measured, and ran before that.
    pub(crate) seconds: u64,
    pub(crate) warm_up_seconds: u64,
    /// The last row's variant again, with less bandwidth than all the rows have.
    pub(crate) less_bandwidth: LessBandwidth,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LessBandwidth {
    pub(crate) bandwidth_per_vm_bytes_per_s: u64,
    #[serde(flatten)]
    pub(crate) row: DemoRow,
}

/// Runs every variant, prints the table and what to see in it.
pub(crate) fn run(args: &cli::Demo) -> Outcome {
    let provenance = Provenance::now(crate::COMMIT.map(str::to_owned), Some(args.seed));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let length = warm_up(args) + Duration::from_secs(args.seconds);
    let trace = trace::load("worldcup", None, args.seed)?.window(Duration::ZERO, length).trimmed();
    let measured = runtime.block_on(async {
        tokio::select! {
            measured = all(args, &trace) => measured,
            // The cluster is dropped with the work, and takes along all that was made for it.
            asked = stop::requested() => asked.map_err(Into::into).and_then(|()| bail!("stopped as asked for")),
        }
    });
    // A replay that was interrupted would go on to its end: there is nothing in it to wait for.
    runtime.shutdown_background();
    let (rows, less, kind) = measured?;
    print!("\n{}", demo_table(&rows));
    println!();
    for sentence in verdict::sentences(&rows, &less) {
        println!("{sentence}");
    }
    let void = rows.iter().chain([&less]).find_map(|row| row.void.clone());
    if let Some(path) = &args.json {
        let setup = setup(args, &trace, kind, less);
        Document { provenance, setup, rows }.write(path)?;
    }
    match void {
        Some(why) => Err(Failure::Void(why)),
        None => Ok(()),
    }
}

/// Measures every variant on one cluster; with the rows comes what the cluster's VMs are.
async fn all(args: &cli::Demo, trace: &Trace) -> anyhow::Result<(Vec<DemoRow>, DemoRow, &'static str)> {
    let each = initial(variants::BANDWIDTH);
    let equipment = Equipment { vms: VMS, each, in_process: args.in_process, docroots: None };
    let cluster = Cluster::start(&equipment, &trace.objects).await?;
    eprintln!("cluster: {}", cluster.description());
    eprintln!("trace:   {} ({}), {} requests a variant", trace.name, trace.origin, trace.requests.len());
    let variants: Vec<_> = variants::rows().into_iter().chain([variants::with_less()]).collect();
    let bar = progress::steps(variants.len() as u64 * trace.requests.len() as u64);
    let workload = run::Workload { trace, warm_up: warm_up(args), seed: args.seed };
    let mut rows = Vec::new();
    for variant in &variants {
        bar.set_message(variant.name());
        rows.push(run::measure(&cluster, *variant, &workload, &bar).await?);
    }
    bar.finish_and_clear();
    let kind = cluster.kind();
    cluster.stop().await?;
    let less = rows.pop().ok_or_else(|| anyhow::anyhow!("no variant was measured"))?;
    Ok((rows, less, kind))
}

fn setup(args: &cli::Demo, trace: &Trace, kind: &'static str, less: DemoRow) -> Setup {
    Setup {
        common: DemoSetup { cluster: kind.to_owned(), trace: format!("{} ({})", trace.name, trace.origin) },
        vms: VMS,
        bandwidth_per_vm_bytes_per_s: variants::BANDWIDTH.0,
        memory_per_vm_bytes: MEMORY.0,
        seconds: args.seconds,
        warm_up_seconds: warm_up(args).as_secs(),
        less_bandwidth: LessBandwidth { bandwidth_per_vm_bytes_per_s: variants::with_less().bandwidth.0, row: less },
    }
}
