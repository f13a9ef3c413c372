//! Responses of a minute, and their times.

use super::catalogue::{Entry, Kind, not_modified_share};
use super::{HOT, facts};
use crate::{LoggedBytes, Method, ObjectId, Request};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use std::time::Duration;

/// The objects of the window, by id, and what the sample says of their kinds.
pub(super) struct Site {
    pub(super) entries: Vec<Entry>,
    kinds: Vec<(Kind, f64)>,
}

impl Site {
    /// With the objects `chosen` out of those that are known.
    pub(super) fn new(known: &[Entry], chosen: Vec<Entry>) -> Site {
        let kinds = [Kind::Page, Kind::Image, Kind::Other].map(|kind| (kind, not_modified_share(known, kind)));
        Site { entries: chosen, kinds: kinds.into() }
    }

    pub(super) fn entry(&self, id: ObjectId) -> &Entry {
        &self.entries[id.0 as usize]
    }

    pub(super) fn hot(&self) -> impl Iterator<Item = (ObjectId, &Entry)> {
        (0..).map(ObjectId).zip(&self.entries).filter(|(_, entry)| HOT.contains(&entry.url))
    }

    /// The part of the requests for this object that end with 304.
    pub(super) fn not_modified(&self, entry: &Entry) -> f64 {
        self.kinds.iter().find(|(kind, _)| *kind == entry.kind).map_or(0.0, |(_, share)| *share)
    }

    /// Bytes of a response for this object, on average.
    pub(super) fn expected_bytes(&self, id: ObjectId) -> f64 {
        let entry = self.entry(id);
        entry.size as f64 * (1.0 - self.not_modified(entry))
    }
}

/// How many requests and bytes something shall have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Target {
    pub(super) requests: u64,
    pub(super) bytes: u64,
}

impl Target {
    /// What is left of it beside these responses.
    pub(super) fn without(self, responses: &[Response]) -> Target {
        let bytes: u64 = responses.iter().map(|response| response.bytes).sum();
        Target { requests: self.requests - responses.len() as u64, bytes: self.bytes - bytes }
    }

    pub(super) fn sum(targets: &[Target]) -> Target {
        let add =
            |sum: Target, one: &Target| Target { requests: sum.requests + one.requests, bytes: sum.bytes + one.bytes };
        targets.iter().fold(Target::default(), add)
    }
}

/// A response without its time and client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Response {
    pub(super) object: ObjectId,
    pub(super) status: u16,
    pub(super) bytes: u64,
}

impl Response {
    pub(super) fn whole(object: ObjectId, entry: &Entry) -> Response {
        Response { object, status: 200, bytes: entry.size }
    }

    pub(super) fn not_modified(object: ObjectId) -> Response {
        Response { object, status: 304, bytes: 0 }
    }

    fn part(object: ObjectId, bytes: u64) -> Response {
        Response { object, status: 206, bytes }
    }
}

/// Exchanges whole bodies for 304s, or the reverse, from the first response on, until the responses have `target` bytes
/// together; the last one becomes a part of its object. `whole` counts the whole bodies of each object: one is left.
///
/// # Panics
///
/// If the target is out of reach. It never is: the sample's share of 304s leaves several times the room that a minute's
/// random deviation needs.
pub(super) fn settle(site: &Site, responses: &mut [Response], target: u64, whole: &mut [u32]) {
    let mut sum: u64 = responses.iter().map(|response| response.bytes).sum();
    for response in responses {
        let gap = sum.abs_diff(target);
        let (id, size) = (response.object, site.entry(response.object).size);
        let count = &mut whole[id.0 as usize];
        let after = match response.status {
            _ if gap == 0 => return,
            200 if sum > target && *count > 1 && size <= gap => Response::not_modified(id),
            200 if sum > target && *count > 1 => Response::part(id, size - gap),
            304 if sum < target && size <= gap => Response::whole(id, site.entry(id)),
            304 if sum < target => Response::part(id, gap),
            _ => continue,
        };
        *count = *count + u32::from(after.status == 200) - u32::from(response.status == 200);
        sum = sum - response.bytes + after.bytes;
        *response = after;
    }
    assert_eq!(sum, target, "the bytes of a minute are out of reach");
}

/// Appends the responses of the window's minute `minute` as requests, by second.
pub(super) fn schedule(minute: u64, responses: &[Response], rng: &mut ChaCha8Rng, requests: &mut Vec<Request>) {
    let total: u64 = facts::MINUTES.iter().map(|&(requests, _)| requests).sum();
    let clients = (total as f64 / facts::REQUESTS_A_CLIENT) as u32;
    let mut by_second: [Vec<&Response>; 60] = std::array::from_fn(|_| Vec::with_capacity(responses.len() / 50));
    let until = cumulative(rng);
    for response in responses {
        let lot = rng.random_range(0.0..until[59]);
        by_second[until.partition_point(|&end| end <= lot)].push(response);
    }
    for (second, responses) in (60 * minute..).zip(by_second) {
        requests.extend(responses.into_iter().map(|response| Request {
            at: Duration::from_secs(second),
            client: rng.random_range(0..clients),
            object: response.object,
            bytes: LoggedBytes::from(response.bytes),
            method: Method::Get,
            status: response.status,
        }));
    }
}

/// Running sums of the weights of a minute's seconds.
fn cumulative(rng: &mut ChaCha8Rng) -> [f64; 60] {
    // The spread is a constant that a normal distribution allows.
    let weight = Normal::new(1.0, facts::SECOND_SPREAD).expect("a finite spread");
    let mut sum = 0.0;
    std::array::from_fn(|_| {
        sum += weight.sample(rng).max(0.0);
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        let entry = |url, size| Entry { url, size, requests: 0, not_modified: 0, kind: Kind::Image };
        Site::new(&[], vec![entry("/a", 10), entry("/b", 100)])
    }

    fn settled(statuses: &[(u32, u16)], target: u64) -> Vec<(u16, u64)> {
        let site = site();
        let response = |&(id, status): &(u32, u16)| match status {
            200 => Response::whole(ObjectId(id), site.entry(ObjectId(id))),
            _ => Response::not_modified(ObjectId(id)),
        };
        let mut responses: Vec<Response> = statuses.iter().map(response).collect();
        let mut whole =
            [0, 1].map(|id| statuses.iter().filter(|&&(object, status)| object == id && status == 200).count() as u32);
        settle(&site, &mut responses, target, &mut whole);
        responses.iter().map(|response| (response.status, response.bytes)).collect()
    }

    #[test]
    fn bytes_are_met_exactly() {
        let responses = [(0, 200), (1, 200), (0, 304), (1, 304), (1, 200)];
        assert_eq!(settled(&responses, 210), [(200, 10), (200, 100), (304, 0), (304, 0), (200, 100)]);
        // The only whole body of /a stays.
        assert_eq!(settled(&responses, 205), [(200, 10), (206, 95), (304, 0), (304, 0), (200, 100)]);
        assert_eq!(settled(&responses, 110), [(200, 10), (304, 0), (304, 0), (304, 0), (200, 100)]);
        assert_eq!(settled(&responses, 320), [(200, 10), (200, 100), (200, 10), (200, 100), (200, 100)]);
        assert_eq!(settled(&responses, 221), [(200, 10), (200, 100), (200, 10), (206, 1), (200, 100)]);
    }
}
