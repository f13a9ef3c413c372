//! What a log says of its load.

use crate::{commands::trace, exit::Failure};
use anyhow::anyhow;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use vibra_sim::Reuse;
use vibra_trace::{Method, Objects, Options, Reader, Request, Trace, generate};

/// The load is looked at in steps of so many seconds.
const STEP: u64 = 10;

/// A log, read once.
pub(super) struct Log {
    source: Source,
    pub(super) name: String,
    pub(super) origin: String,
    pub(super) requests: u64,
    /// Bytes of bodies.
    pub(super) bytes: u64,
    /// Bytes of the longest body.
    pub(super) longest: u64,
    pub(super) length: Duration,
    pub(super) objects: usize,
    /// How much memory the requests need.
    pub(super) reuse: Reuse,
    /// Requests and bytes by step.
    steps: BTreeMap<u64, (u64, u64)>,
}

enum Source {
    Memory(Trace),
    File(PathBuf, Options),
}

impl Source {
    /// Hands over every request, with what is known of the objects by then.
    fn each(&self, mut each: impl FnMut(&Request, &Objects)) -> anyhow::Result<Option<Reader>> {
        match self {
            Source::Memory(trace) => {
                trace.requests.iter().for_each(|request| each(request, &trace.objects));
                Ok(None)
            }
            Source::File(path, options) => {
                let mut reader = Reader::open(path, options)?;
                while let Some(next) = reader.next() {
                    if let Ok(request) = next {
                        each(&request, reader.objects());
                    }
                }
                Ok(Some(reader))
            }
        }
    }
}

/// Bytes of the body that answered a request: as logged, or else those of its object.
fn body(request: &Request, objects: &Objects) -> u64 {
    match (request.method, request.status) {
        (Method::Head, _) | (_, 304) => 0,
        _ => request.bytes.get().unwrap_or_else(|| objects[request.object].size),
    }
}

impl Log {
    /// Reads a log, or a generator's trace. What answers whose length is not logged have is in `options`.
    ///
    /// # Errors
    /// If it cannot be read, holds no request, or says of none how long its answer was.
    pub(super) fn open(name: &str, options: Options, seed: u64) -> Result<Log, Failure> {
        let source = if generate::NAMES.contains(&name) {
            Source::Memory(trace::load(name, None, seed)?)
        } else {
            Source::File(Path::new(name).to_owned(), options)
        };
        let (mut requests, mut bytes, mut longest, mut length) = (0, 0, 0, Duration::ZERO);
        let (mut reuse, mut steps) = (Reuse::default(), BTreeMap::<u64, (u64, u64)>::new());
        let read = source.each(|request, objects| {
            let body = body(request, objects);
            requests += 1;
            bytes += body;
            longest = longest.max(body);
            length = length.max(request.at);
            let step = steps.entry(request.at.as_secs() / STEP).or_default();
            (step.0, step.1) = (step.0 + 1, step.1 + body);
            if body > 0 {
                reuse.access(request.object.0, objects[request.object].size.max(body));
            }
        });
        let reader = read.map_err(Failure::Usage)?;
        if let Some(defects) = reader.as_ref().map(Reader::defects).filter(|defects| defects.total() > 0) {
            eprintln!("warning: {defects}");
        }
        if requests == 0 {
            return Err(Failure::usage(anyhow!("{name} holds no usable request")));
        }
        if bytes == 0 {
            return Err(Failure::usage(anyhow!(
                "{name} does not say how many bytes were sent: nothing can be sized by it. Say what an answer has with \
                 --object-size, such as 8MB"
            )));
        }
        let (name, origin, objects) = match (&source, &reader) {
            (Source::Memory(trace), _) => (trace.name.clone(), trace.origin.to_string(), trace.objects.len()),
            (_, Some(reader)) => (reader.name().to_owned(), reader.origin().to_string(), reader.objects().len()),
            (Source::File(..), None) => unreachable!("a file has a reader"),
        };
        Ok(Log { source, name, origin, requests, bytes, longest, length, objects, reuse, steps })
    }

    /// The beginning of the busiest stretch of this length, by bytes, in seconds.
    pub(super) fn busiest(&self, seconds: u64) -> u64 {
        let steps = seconds.div_ceil(STEP);
        let load = |from: u64| self.steps.range(from..from + steps).map(|(_, (_, bytes))| bytes).sum::<u64>();
        let first = self.steps.keys().copied().max_by_key(|&from| (load(from), std::cmp::Reverse(from)));
        STEP * first.unwrap_or_default()
    }

    /// The most bytes a second over one step of a stretch.
    pub(super) fn peak(&self, from: u64, seconds: u64) -> f64 {
        let steps = self.steps.range(from / STEP..(from + seconds).div_ceil(STEP));
        // A log that is shorter than a step has that much time alone.
        let step = (STEP as f64).min(self.length.as_secs_f64() + 1.0);
        steps.map(|(_, (_, bytes))| *bytes as f64 / step).fold(0.0, f64::max)
    }

    /// The requests from `from` on, for `length`, in memory; their own times begin at zero.
    pub(super) fn stretch(&self, from: Duration, length: Duration) -> anyhow::Result<Trace> {
        let until = from.saturating_add(length);
        let mut requests = Vec::new();
        let reader = self.source.each(|request, _| {
            if (from..until).contains(&request.at) {
                requests.push(Request { at: request.at - from, ..*request });
            }
        })?;
        requests.sort_by_key(|request| request.at);
        Ok(match (&self.source, reader) {
            (Source::Memory(trace), _) => trace.window(from, length).trimmed(),
            (Source::File(..), reader) => {
                let reader = reader.ok_or_else(|| anyhow!("the log was not read"))?;
                Trace {
                    name: self.name.clone(),
                    origin: reader.origin(),
                    start: None,
                    resolution: reader.resolution(),
                    objects: reader.objects().clone(),
                    requests,
                }
                .trimmed()
            }
        })
    }
}
