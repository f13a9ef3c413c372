//! The YouTube-like workload of the Vibra dissertation (section 3.5.4).
//!
//! 2,000 video files of 12 GB together; 4,000 requests that transfer 25 GB; popularity by Zipf's law with an exponent of
//! 0.56 (Gill et al., 2007), independent of size. Size is bit rate times length. Lengths are a mixture of four normal
//! distributions, cut off at zero and at ten minutes and a little, with peaks within the first minute, between three and
//! four minutes and at the limit of ten; bit rates are mostly about 330 kbit/s, some about 285 and 200 (Cheng, Dale and
//! Liu, 2008). The weights of the bit rates are an assumption, as the source names only their order. The sizes are then
//! scaled to the total that is wanted, by default the dissertation's.
//!
//! An id of eleven random characters stands in the path (`/v/ID.flv`): dispatchers do not hash the query, where the real
//! site had it.
//!
//! Nothing is known of arrivals: they are evenly spaced, at the rate at which their bytes take the 80 MB/s that the
//! dissertation gives its cluster. Replay such a trace as fast as possible (closed loop), as the dissertation does.

use crate::{Error, LoggedBytes, Method, ObjectId, Objects, Origin, Request, Trace};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use std::time::Duration;

/// Parts of the mixture of lengths: mean and standard deviation in seconds, and weight.
const LENGTHS: [(f64, f64, f64); 4] =
    [(16.0, 62.0, 0.486), (208.0, 58.0, 0.262), (295.0, 172.0, 0.227), (611.0, 16.0, 0.025)];

/// Shortest and longest video, in seconds. Ordinary users could not upload more than ten minutes.
const LENGTH: std::ops::RangeInclusive<f64> = 1.0..=660.0;

/// Parts of the mixture of bit rates: mean and standard deviation in bits a second, and weight.
const BIT_RATES: [(f64, f64, f64); 3] = [(330e3, 10e3, 0.7), (285e3, 10e3, 0.2), (200e3, 10e3, 0.1)];

/// Characters of an id.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Bytes a request, divided by bytes a file, in the dissertation: (25 GB / 4,000) / (12 GB / 2,000).
const TRANSFER: f64 = (25.0 / 4_000.0) / (12.0 / 2_000.0);

/// How far the bytes of all requests may be from that, as a part of them: the 25 GB are rounded.
const TRANSFER_TOLERANCE: f64 = 0.02;

/// Bytes a second that the evenly spaced requests ask for.
const RATE: f64 = 80e6;

/// Most exchanges of two files' popularity to come near the bytes of all requests.
const MAX_EXCHANGES: usize = 10_000;

/// Makes the workload. See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YouTube {
    /// Of the random numbers.
    pub seed: u64,
    /// How many files.
    pub files: u32,
    /// Bytes of all files together.
    pub bytes: u64,
    /// How many requests.
    pub requests: u32,
    /// Exponent β of Zipf's law: the file of rank r is asked for in proportion to r^-β.
    pub zipf: f64,
}

impl YouTube {
    /// The dissertation's: 2,000 files of 12 GB, 4,000 requests, 0.56.
    pub fn of_dissertation(seed: u64) -> YouTube {
        YouTube { seed, files: 2_000, bytes: 12_000_000_000, requests: 4_000, zipf: 0.56 }
    }

    /// The whole workload.
    ///
    /// # Errors
    ///
    /// Without files or requests, with less than a byte a file, or if the exponent is no number from 0 to 10.
    pub fn generate(&self) -> Result<Trace, Error> {
        self.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let sizes = self.sizes(&mut rng);
        let mut objects = Objects::new();
        while objects.len() < sizes.len() {
            // An id that is there already is drawn again.
            let id: String = (0..11).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect();
            let size = sizes[objects.len()];
            let object = objects.intern(&format!("/v/{id}.flv"));
            objects.set_size(object, size);
        }
        let order = self.order(&sizes, &mut rng);
        let total: u64 = order.iter().map(|&file| sizes[file]).sum();
        let gap = Duration::from_secs_f64(total as f64 / RATE / order.len() as f64);
        let request = |(index, &file): (usize, &usize)| Request {
            // Multiplied as whole nanoseconds: repeated addition would drift.
            at: Duration::from_nanos(gap.as_nanos() as u64 * index as u64),
            client: index as u32,
            object: ObjectId(file as u32),
            bytes: LoggedBytes::from(sizes[file]),
            method: Method::Get,
            status: 200,
        };
        Ok(Trace {
            name: format!("YouTube-like, {} files, {} requests", self.files, self.requests),
            origin: Origin::Synthetic { seed: self.seed },
            start: None,
            resolution: Duration::from_nanos(1),
            requests: order.iter().enumerate().map(request).collect(),
            objects,
        })
    }

    fn check(&self) -> Result<(), Error> {
        let fault = |detail: String| Err(Error::Parameter { generator: "youtube", detail });
        if self.files == 0 || self.requests == 0 {
            return fault("it needs at least one file and one request".into());
        }
        if self.bytes < self.files.into() {
            return fault(format!("{} bytes are too few for {} files", self.bytes, self.files));
        }
        if !(0.0..=10.0).contains(&self.zipf) {
            return fault(format!("the exponent is {}; it must be from 0 to 10", self.zipf));
        }
        Ok(())
    }

    /// Sizes of the files; they add up to the bytes wanted.
    fn sizes(&self, rng: &mut ChaCha8Rng) -> Vec<u64> {
        let mut draw = || {
            let length = loop {
                let length = mixture(&LENGTHS, rng);
                if LENGTH.contains(&length) {
                    break length;
                }
            };
            length * mixture(&BIT_RATES, rng) / 8.0
        };
        let raw: Vec<f64> = (0..self.files).map(|_| draw()).collect();
        // Each file has one byte, and what is left is divided in proportion, rounded down and up so that it adds up.
        let (sum, spare) = (raw.iter().sum::<f64>(), self.bytes - u64::from(self.files));
        let (mut until, mut given) = (0.0, 0);
        let last = raw.len() - 1;
        let size = |(index, raw): (usize, &f64)| {
            until += raw;
            let end = if index == last { spare } else { ((until / sum * spare as f64) as u64).clamp(given, spare) };
            1 + end - std::mem::replace(&mut given, end)
        };
        raw.iter().enumerate().map(size).collect()
    }

    /// The files that are asked for, in order.
    fn order(&self, sizes: &[u64], rng: &mut ChaCha8Rng) -> Vec<usize> {
        let mut until = 0.0;
        let cumulative: Vec<f64> = (1..=self.files)
            .map(|rank| {
                until += f64::from(rank).powf(-self.zipf);
                until
            })
            .collect();
        let mut counts = vec![0u64; sizes.len()];
        let mut ranks = Vec::with_capacity(self.requests as usize);
        for _ in 0..self.requests {
            let lot = rng.random_range(0.0..until);
            let rank = cumulative.partition_point(|&end| end <= lot).min(sizes.len() - 1);
            counts[rank] += 1;
            ranks.push(rank);
        }
        let mut files: Vec<usize> = (0..sizes.len()).collect();
        files.shuffle(rng);
        let wanted = self.bytes as f64 / f64::from(self.files) * f64::from(self.requests) * TRANSFER;
        exchange(&mut files, (sizes, &counts), wanted, rng);
        ranks.into_iter().map(|rank| files[rank]).collect()
    }
}

/// Exchanges the files of two ranks, by lot, where that brings the bytes of all requests nearer to `wanted`. Beyond what
/// that total needs, popularity and size stay independent.
fn exchange(files: &mut [usize], (sizes, counts): (&[u64], &[u64]), wanted: f64, rng: &mut ChaCha8Rng) {
    let mut total: f64 = files.iter().zip(counts).map(|(&file, &count)| (sizes[file] * count) as f64).sum();
    for _ in 0..MAX_EXCHANGES {
        if (total - wanted).abs() <= wanted * TRANSFER_TOLERANCE {
            return;
        }
        let (a, b) = (rng.random_range(0..files.len()), rng.random_range(0..files.len()));
        let by_size = sizes[files[b]] as f64 - sizes[files[a]] as f64;
        let exchanged = total + by_size * (counts[a] as f64 - counts[b] as f64);
        if (exchanged - wanted).abs() < (total - wanted).abs() {
            files.swap(a, b);
            total = exchanged;
        }
    }
}

/// A value of a mixture of normal distributions: mean, standard deviation and weight of each.
fn mixture(parts: &[(f64, f64, f64)], rng: &mut ChaCha8Rng) -> f64 {
    let mut lot = rng.random_range(0.0..parts.iter().map(|part| part.2).sum());
    let part = parts.iter().find(|part| {
        lot -= part.2;
        lot < 0.0
    });
    let &(mean, deviation, _) = part.unwrap_or(&parts[parts.len() - 1]);
    // The deviations are constants that a normal distribution allows.
    Normal::new(mean, deviation).expect("finite deviations").sample(rng)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat;

    #[test]
    fn the_dissertations_workload() {
        for seed in 0..5 {
            let trace = YouTube::of_dissertation(seed).generate().unwrap();
            let stat = stat(&trace);
            assert_eq!((trace.objects.len(), stat.requests), (2_000, 4_000));
            assert_eq!(trace.objects.total_bytes(), 12_000_000_000);
            assert!((24.5e9..25.5e9).contains(&(stat.bytes as f64)), "seed {seed}: {}", stat.bytes);
            assert!((stat.bytes_per_s.unwrap() - 80e6).abs() < 1e6);
        }
    }

    #[test]
    fn popularity_follows_zipfs_law() {
        let trace = YouTube { requests: 400_000, ..YouTube::of_dissertation(1) }.generate().unwrap();
        let mut counts = vec![0.0; trace.objects.len()];
        for request in &trace.requests {
            counts[request.object.0 as usize] += 1.0;
        }
        counts.sort_by(|a: &f64, b| b.total_cmp(a));
        // The slope of the logarithms between ranks 10 and 1000, both averaged over their neighbours.
        let mean = |ranks: std::ops::Range<usize>| {
            ranks.clone().map(|rank| counts[rank - 1]).sum::<f64>() / ranks.len() as f64
        };
        let slope = (mean(8..13) / mean(900..1101)).log10() / 2.0;
        assert!((slope - 0.56).abs() < 0.02, "slope {slope}");
    }

    #[test]
    fn sizes_vary_as_the_model_says() {
        let trace = YouTube::of_dissertation(9).generate().unwrap();
        let mut sizes: Vec<u64> = trace.objects.iter().map(|(_, object)| object.size).collect();
        sizes.sort_unstable();
        assert!(
            sizes[0] > 0 && sizes[1000] > 3_000_000 && sizes[1999] < 30_000_000,
            "{:?}",
            (sizes[0], sizes[1000], sizes[1999])
        );
        let url = &trace.objects[ObjectId(0)].url;
        assert!(url.len() == 18 && url.starts_with("/v/") && url.ends_with(".flv"), "{url}");
    }

    #[test]
    fn a_seed_makes_one_trace() {
        let [a, b, c] = [1, 1, 2].map(|seed| YouTube::of_dissertation(seed).generate().unwrap());
        assert!(a == b && a.requests != c.requests);
    }

    #[test]
    fn small_and_odd_ones_work_or_are_refused() {
        let usual = YouTube::of_dissertation(0);
        let one = YouTube { files: 1, bytes: 1, requests: 1, ..usual }.generate().unwrap();
        assert_eq!((one.objects.total_bytes(), one.requests.len()), (1, 1));
        for wrong in [
            YouTube { files: 0, ..usual },
            YouTube { requests: 0, ..usual },
            YouTube { bytes: 1999, ..usual },
            YouTube { zipf: f64::NAN, ..usual },
            YouTube { zipf: -1.0, ..usual },
        ] {
            assert!(wrong.generate().is_err(), "{wrong:?}");
        }
    }
}
