//! The egress of a VM: a token bucket that responses take turns at, as in the in-process VMs of the agent.

use super::{Nanos, hardware::Shaper, tournament::NEVER};
use std::collections::VecDeque;
use vibra_model::{Bytes, BytesPerSec};

/// A response, by its number in the table of requests.
pub(super) type Slot = u32;

/// Lets bytes pass at a rate. Responses take turns of one piece each; those who wait are served in the order of their
/// coming. Unused time fills the bucket up to its depth.
#[derive(Debug, Clone)]
pub(super) struct Egress {
    shaper: Shaper,
    /// Bytes a nanosecond; `None`: not limited.
    rate: Option<f64>,
    /// Bytes that may pass at once, at `at`. Negative after a standstill.
    tokens: f64,
    at: Nanos,
    waiting: VecDeque<Turn>,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    slot: Slot,
    /// Of this piece, and behind it.
    piece: u64,
    rest: u64,
}

impl Egress {
    /// With an empty bucket.
    pub(super) fn new(rate: Option<BytesPerSec>, shaper: Shaper, now: Nanos) -> Self {
        Egress { shaper, rate: rate.map(per_nanosecond), tokens: 0.0, at: now, waiting: VecDeque::new() }
    }

    /// Changes the rate, also for those who wait. The bucket starts empty, so that a change gives nothing away.
    pub(super) fn set_rate(&mut self, rate: Option<BytesPerSec>, now: Nanos) {
        self.fill(now);
        self.rate = rate.map(per_nanosecond);
        self.tokens = self.tokens.min(0.0);
    }

    /// Nothing passes for so long.
    pub(super) fn stand_still(&mut self, time: Nanos, now: Nanos) {
        self.fill(now);
        self.tokens -= self.rate.unwrap_or_default() * time as f64;
    }

    /// A response of `bytes` wants to pass; whether all of it does at once.
    #[inline]
    pub(super) fn enter(&mut self, slot: Slot, bytes: u64, now: Nanos) -> bool {
        if self.rate.is_none() {
            return true;
        }
        let mut turn = turn(slot, bytes, self.shaper.first);
        if self.waiting.is_empty() {
            self.fill(now);
            while self.tokens >= turn.piece as f64 {
                self.tokens -= turn.piece as f64;
                if turn.rest == 0 {
                    return true;
                }
                turn = self::turn(slot, turn.rest, self.shaper.piece);
            }
        }
        self.waiting.push_back(turn);
        false
    }

    /// When the next piece passes; [`NEVER`] if none waits.
    #[inline]
    pub(super) fn next(&self) -> Nanos {
        let (Some(turn), Some(rate)) = (self.waiting.front(), self.rate) else { return NEVER };
        let short = turn.piece as f64 - self.tokens;
        // A rate of nothing passes nothing; the conversion saturates.
        if short <= 0.0 { self.at } else { self.at.saturating_add((short / rate).ceil() as u64) }
    }

    /// Lets the next piece pass, which is due; the response if that was its last. `gone` tells of whom nobody waits for
    /// any more: what is left of such a response does not pass.
    #[inline]
    pub(super) fn pass(&mut self, now: Nanos, gone: impl Fn(Slot) -> bool) -> Option<Slot> {
        self.fill(now);
        let turn = self.waiting.pop_front()?;
        self.tokens -= turn.piece as f64;
        if turn.rest == 0 || gone(turn.slot) {
            return Some(turn.slot);
        }
        let next = self::turn(turn.slot, turn.rest, self.shaper.piece);
        self.waiting.push_back(next);
        None
    }

    /// Counts what has flown since it was last counted.
    #[inline]
    fn fill(&mut self, now: Nanos) {
        if let Some(rate) = self.rate {
            let depth = (self.shaper.depth.0 as f64 + rate * self.shaper.slack.as_nanos() as f64)
                // A piece that waits must find room for itself.
                .max(self.waiting.front().map_or(0.0, |turn| turn.piece as f64));
            self.tokens = (self.tokens + rate * now.saturating_sub(self.at) as f64).min(depth);
        }
        self.at = now.max(self.at);
    }
}

/// The next turn of a response of which there are so many bytes still.
#[inline]
fn turn(slot: Slot, bytes: u64, most: Bytes) -> Turn {
    let piece = bytes.min(most.0.max(1));
    Turn { slot, piece, rest: bytes - piece }
}

fn per_nanosecond(rate: BytesPerSec) -> f64 {
    rate.0 as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Nanos = 1_000_000_000;

    fn egress(rate: u64, depth: u64) -> Egress {
        let shaper = Shaper {
            piece: Bytes(1_000),
            first: Bytes(1_000),
            depth: Bytes(depth),
            slack: Duration::ZERO,
            ..Shaper::default()
        };
        Egress::new(Some(BytesPerSec(rate)), shaper, 0)
    }

    /// The responses in the order of their ends, with the times of these in milliseconds.
    fn run(egress: &mut Egress) -> Vec<(Slot, u64)> {
        let mut ends = Vec::new();
        while egress.next() != NEVER {
            let now = egress.next();
            ends.extend(egress.pass(now, |_| false).map(|slot| (slot, now / 1_000_000)));
        }
        ends
    }

    #[test]
    fn responses_take_turns_and_the_rate_is_held() {
        let mut egress = egress(10_000, 0);
        for (slot, bytes) in [(0, 3_000), (1, 1_000), (2, 2_000)] {
            assert!(!egress.enter(slot, bytes, 0));
        }
        assert_eq!(run(&mut egress), [(1, 200), (2, 500), (0, 600)]);
    }

    #[test]
    fn a_head_has_a_turn_of_its_own() {
        let mut egress = egress(10_000, 0);
        egress.shaper.first = Bytes(100);
        for (slot, bytes) in [(0, 1_100), (1, 1_100)] {
            assert!(!egress.enter(slot, bytes, 0));
        }
        assert_eq!(run(&mut egress), [(0, 120), (1, 220)]);
    }

    #[test]
    fn a_full_bucket_lets_pass_at_once_what_it_holds() {
        let mut egress = egress(10_000, 2_500);
        assert!(egress.enter(0, 2_500, SECOND));
        assert!(!egress.enter(1, 1_000, SECOND));
        assert_eq!(run(&mut egress), [(1, 1_100)]);
    }

    #[test]
    fn a_change_of_rate_reaches_who_waits_and_gives_nothing_away() {
        let mut egress = egress(1_000, 10_000);
        assert!(!egress.enter(0, 20_000, SECOND));
        egress.set_rate(Some(BytesPerSec(10_000)), SECOND);
        // The bucket had filled with 1,000 bytes, which were the first piece.
        assert_eq!(run(&mut egress), [(0, 2_900)]);
    }

    #[test]
    fn what_nobody_waits_for_stops() {
        let mut egress = egress(1_000, 0);
        egress.enter(0, 5_000, 0);
        egress.enter(1, 1_000, 0);
        assert_eq!(egress.pass(SECOND, |slot| slot == 0), Some(0));
        assert_eq!(run(&mut egress), [(1, 2_000)]);
    }

    #[test]
    fn a_standstill_delays_by_its_length() {
        let mut egress = egress(1_000, 0);
        egress.enter(0, 1_000, 0);
        egress.stand_still(SECOND / 2, 0);
        assert_eq!(run(&mut egress), [(0, 1_500)]);
    }
}
