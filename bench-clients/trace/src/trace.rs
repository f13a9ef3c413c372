//! A trace in memory.

use crate::{Defects, Error, ObjectId, Objects, Options, Reader, Request, Schedule, Spread};
use std::fmt;
use std::path::Path;
use std::time::Duration;
use vibra_model::Timestamp;

/// Where a trace comes from. Whoever shows a result shows this with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Logged by a server.
    Recorded,
    /// Made to agree with what is known of a recording that is not at hand.
    Reconstruction {
        /// Of its random numbers.
        seed: u64,
    },
    /// Drawn from a model.
    Synthetic {
        /// Of its random numbers.
        seed: u64,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Recorded => f.write_str("recorded"),
            Origin::Reconstruction { seed } => write!(f, "reconstruction, seed {seed}"),
            Origin::Synthetic { seed } => write!(f, "synthetic, seed {seed}"),
        }
    }
}

/// Requests in the order of their times, and the objects that they ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// What it is called.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The first second, from which [`Request::at`] counts; `None` if the trace has no place in time.
    pub start: Option<Timestamp>,
    /// The step of the clock that the times were taken with: one second for most logs. How requests lie within a step
    /// is not known; whoever replays them says how he spreads them.
    pub resolution: Duration,
    /// What is asked for.
    pub objects: Objects,
    /// The requests; their times never decrease.
    pub requests: Vec<Request>,
}

impl Trace {
    /// From the first second to the end of the clock step of the last request; zero without requests.
    pub fn duration(&self) -> Duration {
        self.requests.last().map_or(Duration::ZERO, |last| last.at.saturating_add(self.resolution))
    }

    /// The requests with the times at which they are due if they are played `speed` times as fast as recorded.
    pub fn schedule(&self, speed: f64, spread: Spread) -> Schedule<impl Iterator<Item = Request> + Clone + '_> {
        Schedule::new(self.requests.iter().copied(), self.resolution, speed, spread)
    }

    /// Opens a trace and reads the whole of it; its defects are counted, and all else is used.
    ///
    /// # Errors
    ///
    /// If the file or the object map cannot be read, or the format is unknown.
    pub fn open(path: &Path, options: &Options) -> Result<(Trace, Defects), Error> {
        Ok(Reader::open(path, options)?.read_all())
    }

    /// The requests from `from` on, for `length`; the window's own times begin at zero. The table of objects stays as it
    /// is (see [`Trace::trimmed`]).
    #[must_use]
    pub fn window(&self, from: Duration, length: Duration) -> Trace {
        let first = self.requests.partition_point(|request| request.at < from);
        let end = self.requests.partition_point(|request| request.at < from.saturating_add(length));
        let inside = self.requests[first..end.max(first)].iter();
        Trace {
            name: self.name.clone(),
            origin: self.origin,
            start: self.start.map(|start| start.after(from)),
            resolution: self.resolution,
            objects: self.objects.clone(),
            requests: inside.map(|request| Request { at: request.at - from, ..*request }).collect(),
        }
    }

    /// The same trace without the objects that nobody asks for; the others keep their order and get new ids.
    #[must_use]
    pub fn trimmed(mut self) -> Trace {
        let mut asked = vec![false; self.objects.len()];
        for request in &self.requests {
            asked[request.object.0 as usize] = true;
        }
        let mut objects = Objects::new();
        let ids: Vec<ObjectId> = (self.objects.iter().zip(asked))
            .map(|((id, object), asked)| {
                if !asked {
                    return id;
                }
                let id = objects.intern(&object.url);
                objects.set_size(id, object.size);
                id
            })
            .collect();
        for request in &mut self.requests {
            request.object = ids[request.object.0 as usize];
        }
        Trace { objects, ..self }
    }
}
