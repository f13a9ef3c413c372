//! The requests that all simulations share: read or generated once a batch, as a stream.

use crate::{cli::Spread as SpreadChoice, commands::trace, exit::Failure};
use anyhow::anyhow;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use vibra_replay::Spread;
use vibra_sim::cluster::{Arrival, Catalogue, late_by};
use vibra_trace::{Options, Reader, Schedule, Trace, generate};

/// What is asked for, and when.
pub(crate) struct Workload {
    source: Source,
    pub(crate) name: String,
    pub(crate) origin: String,
    pub(crate) catalogue: Arc<Catalogue>,
    /// Requests of the trace, those that are not replayed too.
    pub(crate) requests: u64,
    resolution: Duration,
    spread: Spread,
}

enum Source {
    /// A generated trace, which is in memory anyway.
    Memory(Trace),
    /// Requests as they come.
    Ready(Vec<Arrival>),
    /// A file, which is read anew each time: it may be larger than memory.
    File { path: PathBuf, options: Options, until: Duration },
}

/// Which part of which trace.
pub(crate) struct Choice<'a> {
    /// A file, or a generator's name.
    pub(crate) trace: &'a str,
    /// The World Cup log's names.
    pub(crate) objects: Option<PathBuf>,
    /// So much from its beginning.
    pub(crate) seconds: Option<u64>,
    pub(crate) spread: SpreadChoice,
    pub(crate) seed: u64,
}

impl Workload {
    /// Opens the trace and, where it is a file, reads it once to learn its objects.
    ///
    /// # Errors
    /// If it cannot be read, or holds no request.
    pub(crate) fn open(choice: &Choice<'_>) -> Result<Workload, Failure> {
        let spread = match choice.spread {
            SpreadChoice::Burst => Spread::Burst,
            SpreadChoice::Uniform => Spread::Uniform,
            SpreadChoice::Poisson => Spread::Poisson { seed: choice.seed },
        };
        let until = choice.seconds.map_or(Duration::MAX, Duration::from_secs);
        if generate::NAMES.contains(&choice.trace) {
            let trace = trace::load(choice.trace, None, choice.seed)?;
            return Ok(Self::of(trace.window(Duration::ZERO, until).trimmed(), spread));
        }
        let options = Options { object_map: choice.objects.clone(), ..Options::default() };
        let path = Path::new(choice.trace);
        let mut reader = Reader::open(path, &options).map_err(Failure::usage)?;
        let requests = reader.by_ref().flatten().take_while(|request| request.at < until).count() as u64;
        if reader.defects().total() > 0 {
            eprintln!("warning: {}", reader.defects());
        }
        if requests == 0 {
            return Err(Failure::usage(anyhow!("{} holds no usable request", choice.trace)));
        }
        Ok(Workload {
            name: reader.name().to_owned(),
            origin: reader.origin().to_string(),
            catalogue: Arc::new(Catalogue::new(reader.objects())),
            requests,
            resolution: reader.resolution(),
            source: Source::File { path: path.to_owned(), options, until },
            spread,
        })
    }

    /// A trace that is in memory.
    pub(crate) fn of(trace: Trace, spread: Spread) -> Workload {
        Workload {
            name: trace.name.clone(),
            origin: trace.origin.to_string(),
            catalogue: Arc::new(Catalogue::new(&trace.objects)),
            requests: trace.requests.len() as u64,
            resolution: trace.resolution,
            source: Source::Memory(trace),
            spread,
        }
    }

    /// The same with each request later by an exponentially distributed time of mean `late`, drawn from the seed `run`; 0
    /// is as it was. All of it is held in memory.
    ///
    /// # Errors
    /// If the file can no longer be read.
    pub(crate) fn late(&self, late: Duration, run: u64) -> anyhow::Result<Workload> {
        let late = if run == 0 { Duration::ZERO } else { late };
        let arrivals = late_by(self.arrivals()?, late, run);
        Ok(Workload {
            source: Source::Ready(arrivals),
            name: self.name.clone(),
            origin: self.origin.clone(),
            catalogue: self.catalogue.clone(),
            requests: self.requests,
            resolution: self.resolution,
            spread: self.spread,
        })
    }

    /// The requests in the order of their times, played as fast as recorded.
    ///
    /// # Errors
    /// If the file can no longer be read.
    pub(crate) fn arrivals(&self) -> anyhow::Result<Box<dyn Iterator<Item = Arrival> + Send + '_>> {
        let requests: Box<dyn Iterator<Item = vibra_trace::Request> + Send> = match &self.source {
            Source::Memory(trace) => Box::new(trace.requests.iter().copied()),
            Source::Ready(arrivals) => return Ok(Box::new(arrivals.iter().copied())),
            Source::File { path, options, until } => {
                let reader = Reader::open(path, options)?;
                Box::new(reader.flatten().take_while(move |request| request.at < *until))
            }
        };
        let schedule = Schedule::new(requests, self.resolution, 1.0, self.spread);
        Ok(Box::new(schedule.filter_map(|(request, due)| Arrival::new(&request, due, &self.catalogue))))
    }
}
