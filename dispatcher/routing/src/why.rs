//! The reasons of each algorithm.

use crate::{
    candidates::{Candidates, Loads, Request},
    digest::state_name,
    explain::{Explanation, Judged},
    lard::Step,
    method::{Hashed, Method, indexes},
    settings::Remap,
    state::{Memory, PickState},
    table::Table,
    turn::InTurn,
    url_hash,
    warmth::Warmth,
};
use vibra_model::{Reason, Timestamp};

/// What is said of the serving servers of a ranking.
struct Words {
    /// Of the first.
    chosen: &'static str,
    /// Of those that follow it, but for members of a subset.
    next: &'static str,
    /// Of those that are no candidates.
    passed: &'static str,
}

/// What a pick came to.
struct Outcome {
    candidates: Candidates,
    /// The R servers that share the object, before loads rank them.
    subset: Candidates,
    /// The servers that are to serve it once they are warm.
    spared: Candidates,
    how: Reason,
    words: Words,
}

impl Table {
    /// What [`pick`](Table::pick) would do now, and why. It changes nothing.
    pub fn explain(&self, state: &PickState, name: &str, loads: &(impl Loads + ?Sized), now: Timestamp) -> Explanation {
        let outcome = self.outcome(state, &Request { name, loads, now });
        let judged = |index: usize| Judged {
            server: self.names[index].clone(),
            index,
            active: loads.active(index),
            reason: self.reason(index, &outcome, loads),
        };
        let hash = self.settings.algorithm.uses_hash().then_some(self.settings.hash);
        let others = (0..self.names.len()).filter(|index| !outcome.candidates.contains(index));
        Explanation {
            name: name.to_owned(),
            algorithm: self.settings.algorithm,
            revision: self.cluster.revision,
            digest: self.digest().to_owned(),
            hash,
            hash_value: hash.map(|hash| hash.of(name)),
            how: outcome.how.clone(),
            subset: outcome.subset.iter().map(|&index| self.names[index].clone()).collect(),
            candidates: outcome.candidates.iter().map(|&index| judged(index)).collect(),
            passed_over: others.map(judged).collect(),
        }
    }

    fn outcome(&self, state: &PickState, request: &Request<'_, impl Loads + ?Sized>) -> Outcome {
        let state = state.adapted(self);
        if let (Method::Lard(lard), Memory::History(history)) = (&self.method, &state.memory) {
            // Only looked at: a history may be too large to be copied.
            let decision = history.look(lard, &self.circle, request);
            let (how, words) = lard_reasons(decision.as_ref().map(|decision| decision.step));
            let candidates = self.decided(decision);
            return Outcome { candidates, subset: Candidates::new(), spared: Candidates::new(), how, words };
        }
        let mut copy = state.into_owned();
        let candidates = self.pick(&mut copy, request.name, request.loads, request.now);
        let hash = self.hash(request.name);
        Outcome {
            candidates,
            subset: self.subset(request.name, hash, &copy.memory),
            spared: self.warming.spared(request.name),
            how: self.how(hash, &copy),
            words: self.words(),
        }
    }

    fn subset(&self, name: &str, hash: u64, memory: &Memory) -> Candidates {
        let preferred = |count| match (&self.method, memory) {
            (Method::Hashed(hashed), _) => hashed.preferred(hash, count, &self.circle),
            (Method::Slots, Memory::Slots(map)) => indexes(map.preferred(map.slot(hash), &self.circle, count)),
            _ => Candidates::new(),
        };
        let (mut subset, ready) = self.ready(name, self.settings.replicas, preferred);
        subset.truncate(ready);
        subset
    }

    fn reason(&self, index: usize, outcome: &Outcome, loads: &(impl Loads + ?Sized)) -> Reason {
        let state = self.cluster.servers[index].state;
        if !state.serves() {
            return Reason::new(format!("{}: takes no new requests", state_name(state)));
        }
        let warmth = self.warming.of(index);
        let share = f64::from(warmth.get()) / f64::from(Warmth::FULL.get());
        if outcome.spared.contains(&index) {
            return Reason::new("warming: this object is not of its share yet").with("warmth", share);
        }
        let mut reason = Reason::new(match outcome.candidates.iter().position(|&candidate| candidate == index) {
            Some(0) => outcome.words.chosen,
            Some(_) if outcome.subset.contains(&index) => "in the subset; more to do, or as much and later in order",
            Some(_) => outcome.words.next,
            None => outcome.words.passed,
        });
        if warmth < Warmth::FULL {
            reason = reason.with("warmth", share);
        }
        match &self.method {
            Method::Bounded(bounded) => reason.with("bound", bounded.bound_now(index, &self.circle, loads)),
            Method::InTurn(InTurn::LeastWeighted(weights)) | Method::Owed(weights) => {
                reason.with("weight", f64::from(weights[index]))
            }
            _ => reason,
        }
    }

    /// How the algorithm finds servers for a hash.
    fn how(&self, hash: u64, state: &PickState) -> Reason {
        let n = self.names.len();
        let reason = match (&self.method, &state.memory) {
            (Method::Hashed(Hashed::UrlHash(Remap::Naive)), _) if !self.circle.serving().is_empty() => {
                Reason::new("sub-namespace of the names divided among the available servers")
                    .with("sub_namespace", url_hash::naive_sub_namespace(hash, &self.circle) as f64)
                    .with("available", self.circle.serving().len() as f64)
            }
            (Method::Hashed(Hashed::UrlHash(_)), _) => {
                Reason::new("sub-namespace = hash mod N").with("sub_namespace", url_hash::sub_namespace(hash, n) as f64)
            }
            (Method::Hashed(Hashed::Ring(_)), _) => Reason::new("the servers that come first on the ring"),
            (Method::Hashed(Hashed::Rendezvous(_)), _) => Reason::new("the servers with the highest random weights"),
            (Method::Hashed(Hashed::Maglev(_)), _) => Reason::new("the first servers from the hash's table entry on"),
            (Method::Bounded(_), _) => {
                Reason::new("the first server with room on the ring").with("c", self.settings.balance)
            }
            (Method::InTurn(InTurn::Any), _) => Reason::new("each server in turn"),
            (Method::InTurn(InTurn::Least), _) => Reason::new("the fewest active requests"),
            (Method::InTurn(InTurn::LeastWeighted(_)), _) => Reason::new("the fewest active requests for the weight"),
            (Method::Owed(_), _) => Reason::new("in turn, as often as the weights say"),
            (Method::Slots, Memory::Slots(map)) => Reason::new("slot = hash mod M, mapped to a server by load")
                .with("slot", map.slot(hash) as f64)
                .with("M", map.slots() as f64),
            (Method::Slots | Method::Lard(_), _) => Reason::new("the object's own server"),
        };
        let reason = reason.with("N", n as f64);
        if self.settings.algorithm.uses_replicas() { reason.with("R", self.settings.replicas as f64) } else { reason }
    }

    fn words(&self) -> Words {
        let words = |chosen, next, passed| Words { chosen, next, passed };
        let least_of_subset = "the least active requests in the subset";
        match &self.method {
            Method::Hashed(Hashed::UrlHash(_)) | Method::Slots => {
                words(least_of_subset, "after the subset in cluster order", "further on in cluster order")
            }
            Method::Hashed(Hashed::Ring(_)) => {
                words(least_of_subset, "after the subset on the ring", "further along the ring")
            }
            Method::Hashed(Hashed::Rendezvous(_)) => {
                words(least_of_subset, "next in random weight", "lower random weight")
            }
            Method::Hashed(Hashed::Maglev(_)) => {
                words(least_of_subset, "after the subset in the table", "further along the table")
            }
            Method::Bounded(_) => words(
                "the first with room on the ring",
                "the next on the ring, those with room first",
                "at its bound, or further along the ring",
            ),
            Method::InTurn(InTurn::Any) => words("its turn", "its turn is soon", "its turn is later"),
            Method::InTurn(_) => words(
                "the least to do, and among equals its turn",
                "the next least to do",
                "more to do, or as much and its turn is later",
            ),
            Method::Owed(_) => words("owed most turns", "owed fewer turns", "owed fewer turns still"),
            Method::Lard(_) => lard_reasons(None).1,
        }
    }
}

fn lard_reasons(step: Option<Step>) -> (Reason, Words) {
    let (how, chosen) = match step {
        Some(Step::Assigned) => ("no server is known for the object", "the least loaded"),
        Some(Step::Kept) => ("the object has a server", "has served it before, and is not overloaded"),
        Some(Step::Relieved) => ("the object's server is overloaded", "the least loaded"),
        None => ("no server is available", ""),
    };
    (Reason::new(how), Words { chosen, next: "the next in cluster order", passed: "the object is not assigned to it" })
}
