//! Fully-distributed share exchange (section 5.3.3).

use super::{
    meter::Meter,
    migrate,
    peers::{Peers, Terms},
    rates::{ExchangeRates, exchanged, price},
    upstream::{EXPIRY, Inferred, Upstream},
};
use crate::{
    BuildError, Policy, RestoreError, View,
    policy::{restored, saved},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use vibra_model::{Plan, Resource, Timestamp, UsageSample, Vm, text};

/// How [`Distributed`] decides.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistributedParameters {
    /// wh: the part of its excess that a VM withholds, from 0 to 1. By default 1/(P + 1): as much as each of its P
    /// upstream VMs gets.
    pub withhold: Option<f64>,
    /// Whom a VM gives to where its samples do not tell whom it waits for.
    pub upstream: Upstream,
    /// How long a VM that was waited for stays on the list of upstream VMs.
    #[serde(deserialize_with = "text::duration")]
    pub expiry: Duration,
    /// What a share is worth on hosts that are not like the others.
    pub rates: ExchangeRates,
    /// Whether a VM may be moved off a host that refused a share.
    pub migrate: bool,
}

impl Default for DistributedParameters {
    fn default() -> Self {
        DistributedParameters {
            withhold: None,
            upstream: Upstream::default(),
            expiry: EXPIRY,
            rates: ExchangeRates::default(),
            migrate: false,
        }
    }
}

impl DistributedParameters {
    fn check(&self) -> Result<(), String> {
        if let Some(withhold) = self.withhold.filter(|withhold| !(0.0..=1.0).contains(withhold)) {
            return Err(format!("withhold = {withhold} is out of range: use 0 to 1"));
        }
        self.rates.check()
    }
}

/// Each VM sends a part of its excess to each of the VMs that it waits for: s_i = e_i·(1 − wh_i)/P (equation 5.1).
///
/// - Upstream VMs are those that [samples](vibra_model::UsageSample::upstream) told of; all P of them get a part,
///   whether they have excess or not, so that shares travel one hop a decision (section 5.3.3). Where samples do not
///   tell, [`Upstream`] says who they are.
/// - A receiver whose host is full refuses, and the sender keeps what was refused. A host takes as much as it has left.
/// - Between hosts of different [rates](ExchangeRates) the worth of a share stays: a receiver gets s_i times the
///   sender's rate over its own.
/// - What no VM owns (the share of one that failed, or what was never given out) goes to those that have no excess, in
///   equal parts: no VM could send it.
/// - Transfers happen one after another, in the order of the senders' ids.
#[derive(Debug, Clone)]
pub struct Distributed {
    resource: Resource,
    parameters: DistributedParameters,
    state: State,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    newest: Meter,
    upstream: Inferred,
}

impl Distributed {
    /// Its name in configuration.
    pub const NAME: &'static str = "dps-distributed";

    /// The policy for `resource`.
    ///
    /// # Errors
    /// [`BuildError::Parameters`] if a parameter is out of range.
    pub fn new(resource: Resource, parameters: DistributedParameters) -> Result<Self, BuildError> {
        parameters.check().map_err(|why| BuildError::Parameters { policy: Self::NAME, resource, why })?;
        Ok(Distributed { resource, parameters, state: State::default() })
    }

    /// The policy for `resource`, with parameters from configuration.
    ///
    /// # Errors
    /// As [`new`](Self::new); also if the parameters are not [`DistributedParameters`].
    pub fn build(resource: Resource, parameters: Value) -> Result<Self, BuildError> {
        let refuse = |why| BuildError::Parameters { policy: Self::NAME, resource, why };
        Self::new(resource, serde_json::from_value(parameters).map_err(|error| refuse(error.to_string()))?)
    }

    /// Whom each peer sends to, by their numbers.
    fn upstreams(&self, all: &Peers<'_>) -> Upstreams {
        let peers = &all.peers;
        let by_id = |id| all.number(id);
        let by_order: BTreeMap<u32, usize> = (0..).zip(peers).map(|(i, peer)| (peer.vm.order, i)).collect();
        let known = |i: usize| -> Option<Vec<usize>> {
            let id = &peers[i].vm.id;
            let mut list: Vec<_> = match (self.state.upstream.of(id), &self.parameters.upstream) {
                (Some(told), _) => told.filter_map(|order| by_order.get(&order).copied()).collect(),
                (None, Upstream::Peers) => return None,
                (None, Upstream::Named(named)) => named.get(id).into_iter().flatten().filter_map(by_id).collect(),
            };
            list.retain(|&j| j != i);
            list.sort_unstable();
            list.dedup();
            Some(list)
        };
        let short = (0..peers.len()).filter(|&i| peers[i].excess() == 0).collect();
        Upstreams { known: (0..peers.len()).map(known).collect(), short }
    }

    /// Sends a part of a peer's excess to each of its upstream VMs.
    fn send(&self, peers: &mut Peers<'_>, from: usize, upstream: &[usize]) {
        let count = upstream.len() as u64;
        if count == 0 {
            return;
        }
        let withhold = self.parameters.withhold.unwrap_or(1.0 / (count as f64 + 1.0));
        let sent = (peers.peers[from].excess() as f64 * (1.0 - withhold)).round() as u64;
        // Whole units: the first ones get those that are left over.
        for (number, &to) in (0..count).zip(upstream) {
            transfer(peers, from, to, sent / count + u64::from(number < sent % count));
        }
    }
}

/// Whom each peer sends to.
struct Upstreams {
    /// The upstream VMs, where they are known.
    known: Vec<Option<Vec<usize>>>,
    /// All that have no excess: for those of whom they are not.
    short: Vec<usize>,
}

/// Sends `amount` to another VM; what its host refuses stays where it is.
fn transfer(peers: &mut Peers<'_>, from: usize, to: usize, amount: u64) {
    let (here, there, spare) = (peers.peers[from].rate, peers.peers[to].rate, peers.free);
    peers.release(from, amount);
    let taken = offer(peers, to, exchanged(amount, here, there));
    // Where a unit is worth less, more of them come in than go out. The bound counts units: where it has none to spare
    // for the difference the sender pays that too.
    let paid = price(taken, there, here).max(taken.saturating_sub(spare)).min(amount);
    let kept = peers.grant(from, amount - paid);
    debug_assert_eq!(kept, amount - paid, "the sender's host had it before");
}

/// Has a host take as much of `amount` as the bound allows and it has left; remembers what it refuses.
fn offer(peers: &mut Peers<'_>, to: usize, amount: u64) -> u64 {
    let amount = amount.min(peers.free);
    let taken = peers.grant(to, amount);
    peers.peers[to].refused += amount - taken;
    taken
}

/// What no VM owns goes to those without excess, in equal parts.
fn give_out(peers: &mut Peers<'_>, short: &[usize]) {
    let (free, count) = (peers.free, short.len() as u64);
    for (number, &to) in (0..count).zip(short) {
        let part = free / count + u64::from(number < free % count);
        let rate = peers.peers[to].rate;
        offer(peers, to, part.min(exchanged(part, 1.0, rate)));
    }
}

impl Policy for Distributed {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn resource(&self) -> Resource {
        self.resource
    }

    fn moves(&self) -> bool {
        self.parameters.migrate
    }

    fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Plan {
        let mut plan = Plan { base: view.snapshot().revision(), ..Plan::default() };
        let Some(bound) = view.bound(self.resource) else { return plan };
        let State { newest, upstream } = &mut self.state;
        let DistributedParameters { expiry, rates, .. } = &self.parameters;
        upstream.retain(|id| view.snapshot().vm(id).is_some_and(|vm| vm.customer == *view.customer()));
        let terms = Terms { resource: self.resource, bound, rates };
        let seen = |vm: &Vm, samples: &[&UsageSample]| upstream.learn(&vm.id, samples, *expiry);
        let mut peers = Peers::survey(view, terms, newest, now, seen);

        let Upstreams { known, short } = self.upstreams(&peers);
        give_out(&mut peers, &short);
        for (from, upstream) in known.iter().enumerate() {
            self.send(&mut peers, from, upstream.as_ref().unwrap_or(&short));
        }
        if self.parameters.migrate {
            migrate::relieve(view, &mut peers, self.resource);
        }
        peers.record(self.resource, &mut plan);
        plan
    }

    fn save(&self) -> Value {
        saved(&self.state)
    }

    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        self.state = restored(Self::NAME, state)?;
        Ok(())
    }
}
