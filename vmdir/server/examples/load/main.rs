//! Measures the directory server under the load of a cluster of 5,000 hosts: 5,000 usage reports and 1,000 proposals
//! a second, each host and each customer on a connection of his own.
//!
//! ```text
//! cargo run --release -p vibra-server --example load [SECONDS [FOLDER]]
//! ```
//!
//! The server is a process of its own (this program, run again) with its store in a new directory in FOLDER (by
//! default that for temporary files: give another if that is not on a disk). The load is open: requests have their
//! times whether or not earlier ones were answered, and what counts as latency begins at these times. The first two
//! seconds, in which all hosts come up, are not counted. Prints a JSON document to standard output, a table to
//! standard error, and ends with status 3 if the target was missed.

mod asker;
mod cluster;
mod disk;
mod process;
mod result;

use cluster::Cluster;
use result::{Counted, Outcome};
use std::{env, error::Error, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use vibra_report::Provenance;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Each host reports, and each customer proposes, once in this time.
const PERIOD: Duration = Duration::from_secs(1);
/// How long the load runs before it counts.
const WARM_UP: Duration = Duration::from_secs(2);

/// What a run is asked to be.
struct Run {
    seconds: u32,
    folder: PathBuf,
}

impl Run {
    fn from_arguments() -> Result<Self> {
        let mut arguments = env::args_os().skip(1);
        let seconds = arguments.next().map(|text| text.to_string_lossy().parse()).transpose();
        let seconds = seconds.map_err(|error| format!("the first argument is a number of seconds: {error}"))?;
        let seconds = seconds.unwrap_or(10);
        if !(1..=3600).contains(&seconds) {
            return Err("it runs for 1 to 3600 seconds".into());
        }
        Ok(Run { seconds, folder: arguments.next().map_or_else(env::temp_dir, PathBuf::from) })
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    if let Some(store) = process::store_to_serve() {
        process::serve(store).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let run = Run::from_arguments()?;
    let provenance = Provenance::now(result::commit(), None);
    let outcome = measure(&run).await?;
    let document = outcome.document(provenance, run.seconds);
    println!("{}", serde_json::to_string_pretty(&document)?);
    eprintln!("{}", result::summary(&document));
    Ok(if document.setup.target_met { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

async fn measure(run: &Run) -> Result<Outcome> {
    let cluster = Arc::new(Cluster::new());
    let folder = tempfile::TempDir::new_in(&run.folder)?;
    let server = process::Server::start(folder.path())?;
    cluster.register(server.address()).await?;
    eprintln!("the cluster is registered; {} s of load follow", run.seconds);

    let begin = Instant::now() + PERIOD;
    let counted = begin + WARM_UP;
    let end = counted + Duration::from_secs(run.seconds.into());
    let schedule = Schedule { begin, counted, end };
    let mut reporting = JoinSet::new();
    for host in 0..cluster::HOSTS {
        reporting.spawn(asker::report(cluster.clone(), server.address(), host, schedule));
    }
    let mut proposing = JoinSet::new();
    for customer in 0..cluster::CUSTOMERS {
        proposing.spawn(asker::propose(cluster.clone(), server.address(), customer, schedule));
    }
    sleep_until(counted).await;
    let disk = disk::Probe::start(folder.path())?;
    let (server_before, own_before) = (server.cpu()?, process::own_cpu()?);
    sleep_until(end).await;
    let (server_after, own_after) = (server.cpu()?, process::own_cpu()?);
    let outcome = Outcome {
        reports: sum(reporting).await?,
        proposals: sum(proposing).await?,
        server_cpu: server_after - server_before,
        driver_cpu: own_after - own_before,
        syncs: disk.stop()?,
    };
    server.stop()?;
    Ok(outcome)
}

/// When the load begins, when it begins to count, and when it ends.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    begin: Instant,
    counted: Instant,
    end: Instant,
}

impl Schedule {
    /// The times of number `which` of `all`, who take turns evenly within each [`PERIOD`].
    fn of(self, which: usize, all: usize) -> impl Iterator<Item = Instant> {
        let first = self.begin + PERIOD.mul_f64(which as f64 / all as f64);
        (0u32..).map(move |turn| first + turn * PERIOD).take_while(move |at| *at < self.end)
    }
}

async fn sum(mut tasks: JoinSet<Result<Counted>>) -> Result<Counted> {
    let mut sum = Counted::default();
    while let Some(done) = tasks.join_next().await {
        sum.add(done??);
    }
    Ok(sum)
}
