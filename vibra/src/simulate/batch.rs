//! Many simulations of one stream of requests, on all cores.

use super::workload::Workload;
use indicatif::ProgressBar;
use std::{
    panic,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};
use vibra_policy::Composition;
use vibra_sim::cluster::{Arrival, Outcome, Scenario, SetupError, Simulation};

/// A simulation to be run.
pub(crate) struct Job {
    pub(crate) scenario: Scenario,
    pub(crate) policies: Composition,
    /// The trace is played this much faster than recorded.
    pub(crate) speed: f64,
}

/// Requests are handed on in pieces of so many, ...
const PIECE: usize = 4096;
/// ... of which so many may wait for a simulation that is slower than the others.
const AHEAD: usize = 8;

/// Runs all jobs, as many at a time as there are cores; the outcomes are in the order of the jobs. The trace is read once
/// for all that run at a time, so that memory is needed for none of it.
///
/// # Errors
/// If a scenario makes no sense, or the trace can no longer be read.
pub(crate) fn run(workload: &Workload, jobs: Vec<Job>, bar: &ProgressBar) -> anyhow::Result<Vec<Outcome>> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes = Vec::with_capacity(jobs.len());
    let mut jobs = jobs.into_iter().peekable();
    while jobs.peek().is_some() {
        let batch: Vec<Job> = jobs.by_ref().take(cores).collect();
        outcomes.extend(side_by_side(workload, batch, bar)?);
    }
    Ok(outcomes)
}

fn side_by_side(workload: &Workload, batch: Vec<Job>, bar: &ProgressBar) -> anyhow::Result<Vec<Outcome>> {
    let mut arrivals = workload.arrivals()?;
    let outcomes = thread::scope(|scope| {
        let (senders, workers): (Vec<SyncSender<Arc<[Arrival]>>>, Vec<_>) = (batch.into_iter())
            .map(|job| {
                let (sender, receiver) = sync_channel(AHEAD);
                (sender, scope.spawn(|| simulate(job, workload, receiver, bar)))
            })
            .unzip();
        loop {
            let piece: Arc<[Arrival]> = arrivals.by_ref().take(PIECE).collect();
            // Who no longer takes anything has failed, which its result tells.
            let taken = senders.iter().filter(|sender| sender.send(piece.clone()).is_ok()).count();
            if piece.is_empty() || taken == 0 {
                break;
            }
        }
        drop(senders);
        let results = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|why| panic::resume_unwind(why)));
        results.collect::<Result<Vec<_>, SetupError>>()
    });
    Ok(outcomes?)
}

fn simulate(
    job: Job,
    workload: &Workload,
    pieces: Receiver<Arc<[Arrival]>>,
    bar: &ProgressBar,
) -> Result<Outcome, SetupError> {
    let Job { scenario, policies, speed } = job;
    let mut simulation = Simulation::new(&scenario, policies, workload.catalogue.clone())?;
    let arrivals = pieces.into_iter().flat_map(|piece| {
        bar.inc(piece.len() as u64);
        (0..piece.len()).map(move |place| piece[place])
    });
    let at = |arrival: Arrival| Arrival { at: (arrival.at as f64 / speed) as u64, ..arrival };
    Ok(simulation.run(arrivals.map(at)))
}
