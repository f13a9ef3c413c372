//! Bank-assisted share exchange (section 5.3.4).

use super::{
    banker::{Account, Banker, Bankers, Member},
    meter::Meter,
    migrate,
    peers::{Peer, Peers, Terms},
    rates::{ExchangeRates, exchanged},
};
use crate::{BuildError, Policy, RestoreError, View, room::Rooms};
use serde::Deserialize;
use serde_json::Value;
use vibra_model::{Plan, Resource, Timestamp};

/// How [`Bank`] decides.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BankParameters {
    /// Who pays shares out: `proportional` (equation 5.2), `max-min`, or one that was added to [`Bankers`].
    pub banker: String,
    /// What a share is worth on hosts that are not like the others.
    pub rates: ExchangeRates,
    /// Whether a VM may be moved off a full host on which a VM lacks something.
    pub migrate: bool,
}

impl Default for BankParameters {
    fn default() -> Self {
        BankParameters { banker: "proportional".to_owned(), rates: ExchangeRates::default(), migrate: false }
    }
}

/// Every VM deposits its excess with a bank, and a [`Banker`] pays shortages from it.
///
/// - Deposits: e_i = max(w_i − u_i, 0), but no VM goes below its floor. The balance E is what the directory has not
///   allocated of the customer's bound, deposits included, at the [worth](ExchangeRates) of where they come from.
/// - A VM that used more than it had lacks f_i = min(u_i − w_i, r_j), where r_j is what its host has left after the
///   deposits. It gets s_i = min(f_i, f_i·E/F) (equation 5.2), unless another banker is configured.
/// - If more was deposited than is lacking, the rest goes to all VMs in proportion to what they have then. So shares
///   come to be in proportion to loads, and all of the bound is given out unless every host is full.
/// - Where usage is held to the share (a shaper or a quota) it tells of no shortage; the rest, divided in proportion to
///   use, still goes to those that use most.
#[derive(Debug, Clone)]
pub struct Bank {
    resource: Resource,
    banker: Banker,
    rates: ExchangeRates,
    migrate: bool,
    newest: Meter,
}

impl Bank {
    /// Its name in configuration.
    pub const NAME: &'static str = "dps-bank";

    /// The policy for `resource`, with a banker out of `bankers`.
    ///
    /// # Errors
    /// [`BuildError::Parameters`] if there is no such banker, or a rate is not above 0.
    pub fn new(bankers: &Bankers, resource: Resource, parameters: BankParameters) -> Result<Self, BuildError> {
        let refuse = |why| BuildError::Parameters { policy: Self::NAME, resource, why };
        let BankParameters { banker, rates, migrate } = parameters;
        rates.check().map_err(refuse)?;
        let banker = bankers.named(&banker).map_err(refuse)?;
        Ok(Bank { resource, banker, rates, migrate, newest: Meter::default() })
    }

    /// The policy for `resource`, with parameters from configuration and the bankers of this crate.
    ///
    /// # Errors
    /// As [`build_with`](Self::build_with).
    pub fn build(resource: Resource, parameters: Value) -> Result<Self, BuildError> {
        Self::build_with(&Bankers::shipped(), resource, parameters)
    }

    /// The policy for `resource`, with parameters from configuration and a banker out of `bankers`.
    ///
    /// # Errors
    /// As [`new`](Self::new); also if the parameters are not [`BankParameters`].
    pub fn build_with(bankers: &Bankers, resource: Resource, parameters: Value) -> Result<Self, BuildError> {
        let refuse = |why| BuildError::Parameters { policy: Self::NAME, resource, why };
        Self::new(bankers, resource, serde_json::from_value(parameters).map_err(|error| refuse(error.to_string()))?)
    }
}

/// Deposits every excess; returns the balance, in units of a host of rate 1.
fn deposit(peers: &mut Peers<'_>) -> u64 {
    let mut balance = peers.free;
    for i in 0..peers.peers.len() {
        let (excess, rate) = (peers.peers[i].excess(), peers.peers[i].rate);
        peers.release(i, excess);
        balance = balance.saturating_add(exchanged(excess, rate, 1.0));
    }
    balance
}

/// What the banker knows of a VM.
fn member(peer: &Peer<'_>, rooms: &Rooms) -> Member {
    let worth = |amount| exchanged(amount, peer.rate, 1.0);
    let shortage = peer.lacking().min(rooms.left(peer.host).unwrap_or(u64::MAX));
    Member::new(worth(peer.share), worth(peer.used), worth(shortage), peer.host)
}

/// What hosts have left, in units of a host of rate 1.
fn worths(peers: &Peers<'_>) -> Rooms {
    let mut rooms = peers.rooms.clone();
    for peer in &peers.peers {
        if let Some(host) = peer.host {
            rooms.0[host] = peers.rooms.0[host].map(|left| exchanged(left, peer.rate, 1.0));
        }
    }
    rooms
}

/// Notes who lacks something that its host has no room for: that host is a bottleneck, whoever the banker is.
fn note_refusals(peers: &mut Peers<'_>) {
    for peer in &mut peers.peers {
        let left = peers.rooms.left(peer.host).unwrap_or(u64::MAX);
        peer.refused = peer.lacking().saturating_sub(left);
    }
}

/// Has the banker pay out what is there.
fn pay_out(banker: Banker, mut balance: u64, peers: &mut Peers<'_>) {
    let members: Vec<_> = peers.peers.iter().map(|peer| member(peer, &peers.rooms)).collect();
    let payments = banker(&Account { balance, members: &members, rooms: &worths(peers) });
    for (to, payment) in (0..peers.peers.len()).zip(payments) {
        let payment = payment.min(balance);
        balance -= payment;
        let rate = peers.peers[to].rate;
        peers.grant(to, exchanged(payment, 1.0, rate));
    }
}

impl Policy for Bank {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn resource(&self) -> Resource {
        self.resource
    }

    fn moves(&self) -> bool {
        self.migrate
    }

    fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Plan {
        let mut plan = Plan { base: view.snapshot().revision(), ..Plan::default() };
        let Some(bound) = view.bound(self.resource) else { return plan };
        let terms = Terms { resource: self.resource, bound, rates: &self.rates };
        let mut peers = Peers::survey(view, terms, &mut self.newest, now, |_, _| {});
        let balance = deposit(&mut peers);
        note_refusals(&mut peers);
        if self.migrate {
            migrate::relieve(view, &mut peers, self.resource);
        }
        pay_out(self.banker, balance, &mut peers);
        peers.record(self.resource, &mut plan);
        plan
    }

    fn save(&self) -> Value {
        serde_json::to_value(&self.newest).expect("ids and numbers are JSON")
    }

    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        let restored = Meter::deserialize(state);
        self.newest = restored.map_err(|error| RestoreError { policy: Self::NAME, why: error.to_string() })?;
        Ok(())
    }
}
