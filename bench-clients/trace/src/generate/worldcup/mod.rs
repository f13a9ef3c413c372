//! A reconstruction of the World Cup log of 1998-06-30, 18:10-18:20 (GMT+2), the trace that the Vibra dissertation
//! replays.
//!
//! The raw records of that window are not to be had. What is known of it are requests and bytes by minute, and, from
//! section 3.5.1 and Table 3.1, how requests, bytes and objects fall on four sub-namespaces under Charsum and which files
//! are hot. [`WorldCup`] makes requests that agree with all of this and, where it leaves a choice, with real samples of
//! the same log:
//!
//! - **Objects** are real URLs of the site. Those delivered in the sample of the evening of 1998-06-14 are all there; the
//!   others, which no sample of that time shows, are drawn. Sizes are real where a sample has them, else drawn from those
//!   of the same kind. The draw is corrected until the sizes of each sub-namespace add up as in Table 3.1.
//! - **Sub-namespaces.** Sub-namespace i of the dissertation (and so its VM i) is that of the names whose Charsum modulo 4
//!   is i - 1. The splash screens and the pages of the afternoon's game (8878) are then in sub-namespace 2 and those of the
//!   evening's game (8877) in sub-namespace 1, as Figure 3.5 has it.
//! - **Hot files.** The eight have 90% of the bytes of sub-namespace 2, the English splash screen 24% of all. The two
//!   images are those of sub-namespace 2 with most bytes in the evening sample. How the seven divide the rest is taken from
//!   the rows of Table 3.1 for MD5 and SHA-1. That these are the right eight shows in section 3.5.1: SHA-1 puts four of
//!   them on one server, and MD5 three.
//! - **Popularity** of the others is that of the evening sample; objects that it lacks share the probability that a
//!   request is for one not seen before (Good and Turing: the part of requests whose object was requested once). It is
//!   then tilted by size, exp(-λ size), with the one λ by sub-namespace that gives the known bytes: of all distributions
//!   with that mean the one nearest to the sample's, by relative entropy. Each object is delivered at least once.
//! - **Responses** are 200 with the whole object, or 304 without a body in the proportion that the evening sample has for
//!   pages, images and others. Some are then exchanged for the other until the bytes of the minute are almost met; one or
//!   two requests for a part (206) make them exact. A 206 of n bytes is the object's first n.
//! - **Times** are whole seconds. The requests of a minute fall on its seconds by lot, with the additional spread that
//!   the counts by second of the three days before show.
//! - **Clients** are drawn evenly from as many as the evening sample's requests a client suggest. Nothing is known of
//!   them.
//!
//! Not modelled: errors (0.6% of the sample), methods other than GET (0.1%), and requests with a query.

mod catalogue;
mod facts;
mod history;
mod hot;
mod minute;
mod popularity;

pub use history::{Minute, history};

use crate::{ObjectId, Objects, Origin, Trace};
use catalogue::Entry;
use minute::{Response, Site, Target};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::time::Duration;
use vibra_model::Timestamp;

/// The notice under which the log's objects and counts stand. It goes wherever they go, unmodified.
pub const NOTICE: &str = include_str!("../../../data/worldcup98/COPYRIGHT");

/// Sub-namespaces of Table 3.1.
const COLUMNS: usize = 4;

/// Index of sub-namespace 2, the hot one.
const HOT_COLUMN: usize = 1;

/// The eight hot files of section 3.5.1: splash screens, program and statistics of the game Romania-Croatia in English
/// and French, and two images.
pub const HOT: [&str; 8] = [
    "/english/splash_inet.html",
    "/french/splash_inet.html",
    "/english/competition/matchprog8878.htm",
    "/english/competition/matchstat8878.htm",
    "/french/competition/matchprog8878.htm",
    "/french/competition/matchstat8878.htm",
    "/english/images/hm_caption_f98.gif",
    "/english/images/hm_ligne4_col4.gif",
];

/// The dissertation's Charsum of a name: the sum of its bytes (section 3.4.3). The sub-namespace is this modulo their
/// number.
pub fn charsum(name: &str) -> usize {
    name.bytes().map(usize::from).sum()
}

/// Makes the reconstruction. See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorldCup {
    /// Of the random numbers.
    pub seed: u64,
}

/// Streams of random numbers, so that a change in one part leaves the others as they are.
#[derive(Clone, Copy)]
enum Stream {
    Sizes,
    Choice,
    Responses,
    Order,
    Times,
}

impl WorldCup {
    /// The whole window: 1,483,126 requests.
    pub fn generate(&self) -> Trace {
        let mut entries = catalogue::entries();
        catalogue::complete(&mut entries, &mut self.rng(Stream::Sizes));
        let columns = catalogue::choose(&entries, &mut self.rng(Stream::Choice));
        let site = Site::new(&entries, columns.concat());
        let minutes = self.minutes(&site, &columns);
        let mut requests = Vec::with_capacity(facts::MINUTES.iter().map(|minute| minute.0 as usize).sum());
        let (mut order, mut times) = (self.rng(Stream::Order), self.rng(Stream::Times));
        for (minute, mut responses) in minutes.into_iter().enumerate() {
            responses.shuffle(&mut order);
            minute::schedule(minute as u64, &responses, &mut times, &mut requests);
        }
        Trace {
            name: "World Cup 1998-06-30 18:10-18:20 (GMT+2), reconstruction".into(),
            origin: Origin::Reconstruction { seed: self.seed },
            start: Some(Timestamp(facts::START * 1_000_000)),
            resolution: Duration::from_secs(1),
            objects: objects(&site.entries),
            requests,
        }
    }

    fn rng(&self, stream: Stream) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream as u64);
        rng
    }

    /// The responses of each minute.
    fn minutes(&self, site: &Site, columns: &[Vec<Entry>; COLUMNS]) -> Vec<Vec<Response>> {
        let mut rng = self.rng(Stream::Responses);
        let mut minutes = vec![Vec::new(); facts::MINUTES.len()];
        let mut ids = (0..).map(ObjectId);
        for (index, column) in columns.iter().enumerate() {
            let mut targets = facts::MINUTES.map(|(requests, bytes)| Target {
                requests: share(requests, &facts::REQUESTS, index),
                bytes: share(bytes, &facts::BYTES, index),
            });
            if index == HOT_COLUMN {
                for (minute, target) in targets.iter_mut().enumerate() {
                    let hot = hot::responses(site, facts::MINUTES[minute].1);
                    *target = target.without(&hot);
                    minutes[minute].extend(hot);
                }
            }
            let ids: Vec<ObjectId> = ids.by_ref().take(column.len()).collect();
            let cold: Vec<ObjectId> = ids.into_iter().filter(|&id| !HOT.contains(&site.entry(id).url)).collect();
            let mut drawn = popularity::draw(site, &cold, Target::sum(&targets), &mut rng);
            let mut whole = vec![0; site.entries.len()];
            for response in drawn.iter().filter(|response| response.status == 200) {
                whole[response.object.0 as usize] += 1;
            }
            let mut rest = drawn.as_mut_slice();
            for (minute, target) in minutes.iter_mut().zip(targets) {
                let (cell, later) = rest.split_at_mut(target.requests as usize);
                minute::settle(site, cell, target.bytes, &mut whole);
                minute.extend_from_slice(cell);
                rest = later;
            }
        }
        minutes
    }
}

/// Part `index` of `total`, which is divided by these percents into whole numbers that add up.
fn share(total: u64, percents: &[u64; COLUMNS], index: usize) -> u64 {
    let until = |end: usize| total * percents[..end].iter().sum::<u64>() / 100;
    until(index + 1) - until(index)
}

fn objects(entries: &[Entry]) -> Objects {
    let mut objects = Objects::new();
    for entry in entries {
        let id = objects.intern(entry.url);
        objects.set_size(id, entry.size);
    }
    objects
}
