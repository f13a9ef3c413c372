//! What a share is worth on each host.

use serde::Deserialize;
use std::collections::BTreeMap;
use vibra_model::HostId;

/// What one unit of the resource is worth on each host that is not like the others: 2 on a host whose cores do twice
/// the work of a common one. A host that is not named has rate 1 (section 5.3.1: rates are established a priori).
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct ExchangeRates(pub BTreeMap<HostId, f64>);

impl ExchangeRates {
    /// The rate of a host.
    pub fn of(&self, host: &HostId) -> f64 {
        self.0.get(host).copied().unwrap_or(1.0)
    }

    /// Why they are no rates, if they are none.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.0.iter().find(|(_, rate)| !(rate.is_finite() && **rate > 0.0)) {
            None => Ok(()),
            Some((host, rate)) => Err(format!("the rate of host {host} is {rate}: use a number above 0")),
        }
    }
}

/// What `amount` on a host of rate `from` is on one of rate `to`, rounded down.
pub(super) fn exchanged(amount: u64, from: f64, to: f64) -> u64 {
    if from == to { amount } else { (amount as f64 * from / to) as u64 }
}

/// The least amount on a host of rate `to` that makes `amount` on one of rate `from`.
pub(super) fn price(amount: u64, from: f64, to: f64) -> u64 {
    if from == to { amount } else { (amount as f64 * from / to).ceil() as u64 }
}
