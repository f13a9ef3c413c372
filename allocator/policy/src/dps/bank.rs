//! Bank-assisted share exchange (section 5.3.4).

use super::{
    banker::{Account, Banker, Bankers, Member},
    meter::Meter,
    migrate,
    peers::{Peers, Terms},
    rates::{ExchangeRates, exchanged},
};
use crate::{
    BuildError, Policy, RestoreError, View,
    policy::{restored, saved},
    room::Rooms,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vibra_model::{Plan, Resource, Timestamp};

/// How [`Bank`] decides.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BankParameters {
    /// Who pays shares out: `proportional` (equation 5.2), `max-min`, or one that was added to [`Bankers`].
    pub banker: String,
    /// B in decisions: the banker pays in each n-th one; in those between, VMs only deposit. At least 1. Where hosts
    /// are full and shared by several customers, 2 gives each the room that the others' deposits leave.
    pub pay_every: u32,
    /// What a share is worth on hosts that are not like the others.
    pub rates: ExchangeRates,
    /// Whether a VM may be moved off a full host on which a VM lacks something.
    pub migrate: bool,
}

impl Default for BankParameters {
    fn default() -> Self {
        BankParameters {
            banker: "proportional".to_owned(),
            pay_every: 1,
            rates: ExchangeRates::default(),
            migrate: false,
        }
    }
}

/// Every VM deposits its excess with a bank, and a [`Banker`] pays shortages from it.
///
/// - Deposits: e_i = max(w_i − u_i, 0), but no VM goes below its floor. The balance E is what the directory has not
///   allocated of the customer's bound, deposits included, at the [worth](ExchangeRates) of where they come from.
/// - A VM that used more than it had lacks f_i = min(u_i − w_i, r_j), where r_j is what its host has left after the
///   deposits. It gets s_i = min(f_i, f_i·E/F) (equation 5.2), unless another banker is configured.
/// - If more was deposited than is lacking, the rest goes to all VMs in proportion to what they had before. So shares
///   come to be in proportion to loads, and all of the bound is given out unless every host is full.
/// - Where usage is held to the share (a shaper or a quota) it tells of no shortage; who uses all it has still gets its
///   part of the rest, and so more and more.
#[derive(Debug, Clone)]
pub struct Bank {
    resource: Resource,
    banker: Banker,
    pay_every: u32,
    rates: ExchangeRates,
    migrate: bool,
    state: State,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    newest: Meter,
    /// Decisions since the banker paid last.
    unpaid: u32,
}

impl Bank {
    /// Its name in configuration.
    pub const NAME: &'static str = "dps-bank";

    /// The policy for `resource`, with a banker out of `bankers`.
    ///
    /// # Errors
    /// [`BuildError::Parameters`] if there is no such banker, or another parameter is out of range.
    pub fn new(bankers: &Bankers, resource: Resource, parameters: BankParameters) -> Result<Self, BuildError> {
        let refuse = |why| BuildError::Parameters { policy: Self::NAME, resource, why };
        let BankParameters { banker, pay_every, rates, migrate } = parameters;
        rates.check().map_err(refuse)?;
        if pay_every == 0 {
            return Err(refuse("pay_every = 0 would never pay: use at least 1".to_owned()));
        }
        let banker = bankers.named(&banker).map_err(refuse)?;
        Ok(Bank { resource, banker, pay_every, rates, migrate, state: State::default() })
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
    let members: Vec<_> = peers.peers.iter().map(|peer| Member::new(peer, &peers.rooms)).collect();
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
        let mut peers = Peers::survey(view, terms, &mut self.state.newest, now, |_, _| {});
        let balance = deposit(&mut peers);
        note_refusals(&mut peers);
        if self.migrate {
            migrate::relieve(view, &mut peers, self.resource);
        }
        self.state.unpaid = self.state.unpaid.saturating_add(1);
        if self.state.unpaid >= self.pay_every {
            self.state.unpaid = 0;
            pay_out(self.banker, balance, &mut peers);
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
