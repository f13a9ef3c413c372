//! How often each object of a sub-namespace is asked for, the hot ones aside.

use super::minute::{Response, Site, Target};
use crate::ObjectId;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Requests for these objects, in random order: each once with its whole body, the rest by popularity, so that about the
/// bytes of `target` are expected.
pub(super) fn draw(site: &Site, ids: &[ObjectId], target: Target, rng: &mut ChaCha8Rng) -> Vec<Response> {
    let once: u64 = ids.iter().map(|&id| site.entry(id).size).sum();
    let more = target.requests - ids.len() as u64;
    let mean = target.bytes.saturating_sub(once) as f64 / more as f64;
    let weights = weights(site, ids);
    let bytes: Vec<f64> = ids.iter().map(|&id| site.expected_bytes(id)).collect();
    let probabilities = tilt(&weights, &bytes, mean);
    let mut responses = Vec::with_capacity(target.requests as usize);
    let (mut sum, mut drawn) = (0.0, 0);
    for (&id, probability) in ids.iter().zip(probabilities) {
        let entry = site.entry(id);
        responses.push(Response::whole(id, entry));
        // Rounding the running sum makes the counts add up; the last one is all that is left.
        sum += probability;
        let until = if Some(&id) == ids.last() { more } else { ((sum * more as f64).round() as u64).min(more) };
        let not_modified = site.not_modified(entry);
        responses.extend((drawn..until).map(|_| match rng.random_bool(not_modified) {
            true => Response::not_modified(id),
            false => Response::whole(id, entry),
        }));
        drawn = until.max(drawn);
    }
    responses.shuffle(rng);
    responses
}

/// The evening sample's requests for each object. Those that it lacks share what Good and Turing estimate for objects not
/// seen before.
fn weights(site: &Site, ids: &[ObjectId]) -> Vec<f64> {
    let requests = |id: ObjectId| site.entry(id).requests;
    let sampled: u64 = ids.iter().map(|&id| requests(id)).sum();
    let singles = ids.iter().filter(|&&id| requests(id) == 1).count() as f64;
    let unseen = ids.iter().filter(|&&id| requests(id) == 0).count() as f64;
    let seen_part = 1.0 - singles / sampled as f64;
    let weight = |id: ObjectId| match requests(id) {
        0 => singles / unseen,
        count => count as f64 * seen_part,
    };
    ids.iter().map(|&id| weight(id)).collect()
}

/// The distribution nearest to `weights` (by relative entropy) under which the mean of `values` is `mean`: weights times
/// exp(-λ value), with the λ that fits, found by bisection.
fn tilt(weights: &[f64], values: &[f64], mean: f64) -> Vec<f64> {
    let tilted = |lambda: f64| {
        let logs: Vec<f64> = weights.iter().zip(values).map(|(weight, value)| weight.ln() - lambda * value).collect();
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let scaled: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
        let sum: f64 = scaled.iter().sum();
        scaled.into_iter().map(|weight| weight / sum).collect::<Vec<f64>>()
    };
    // The mean falls as λ grows. Values are bytes: beyond these λ only the largest or smallest object would be left.
    let (mut low, mut high) = (-1.0, 1.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        let probabilities = tilted(middle);
        let reached: f64 = probabilities.iter().zip(values).map(|(probability, value)| probability * value).sum();
        if reached > mean { low = middle } else { high = middle }
    }
    tilted((low + high) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilt_reaches_its_mean_and_changes_nothing_without_need() {
        let (weights, values) = ([1.0, 2.0, 1.0], [100.0, 1000.0, 50_000.0]);
        for mean in [150.0, 900.0, 5_000.0, 30_000.0] {
            let reached: f64 = tilt(&weights, &values, mean).iter().zip(values).map(|(p, value)| p * value).sum();
            assert!((reached - mean).abs() < 1e-6 * mean, "{reached} instead of {mean}");
        }
        let untilted = tilt(&weights, &values, (100.0 + 2000.0 + 50_000.0) / 4.0);
        assert!((untilted[1] - 0.5).abs() < 1e-9, "{untilted:?}");
    }
}
