//! What every policy does.

use crate::View;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vibra_model::{Plan, Resource, Timestamp};

/// Decides how one resource is divided among the VMs of one customer.
///
/// It is deterministic: the same state, view and time give the same plan. It may keep state between decisions; then
/// [`save`](Self::save) and [`restore`](Self::restore) carry it over to another allocator. One instance serves one
/// customer.
///
/// A plan must stand by itself: it may change only VMs of the view's customer and this policy's resource, and must
/// keep bounds, capacities and floors; after each of its moves too, if it may move VMs at all. [`check`](crate::check) refuses it as a whole otherwise.
pub trait Policy: Send {
    /// Its name in configuration and decision log.
    fn name(&self) -> &'static str;

    /// What it divides.
    fn resource(&self) -> Resource;

    /// Whether its plans may have [moves](Plan::moves). By default they may not.
    fn moves(&self) -> bool {
        false
    }

    /// What shall change at `now`.
    fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Plan;

    /// As [`decide`](Self::decide), for a policy that may have no plan, such as a program that died. By default it has
    /// one always.
    ///
    /// # Errors
    /// [`Failure`], with what happened.
    fn attempt(&mut self, view: &View<'_>, now: Timestamp) -> Result<Plan, Failure> {
        Ok(self.decide(view, now))
    }

    /// Its state, for [`restore`](Self::restore). By default there is none.
    fn save(&self) -> Value {
        Value::Null
    }

    /// Takes over a saved state; from then on it decides as the policy that saved it would. By default there is none
    /// to take over.
    ///
    /// # Errors
    /// [`RestoreError`] if `state` was not saved by a policy of this kind; the own state is then as before.
    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        if state.is_null() {
            return Ok(());
        }
        Err(RestoreError { policy: self.name(), why: "it keeps no state".to_owned() })
    }
}

/// Why a policy has no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// This time; it may be asked again.
    #[error("{0}")]
    Passing(String),
    /// It will not have one any more.
    #[error("{0}")]
    Lasting(String),
}

/// A state that a policy cannot take over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {policy} cannot take over the saved state: {why}")]
pub struct RestoreError {
    /// Which policy.
    pub policy: &'static str,
    /// What is wrong.
    pub why: String,
}

/// A policy's state as it is saved. It must be such that JSON can say it: no key but text, no number but finite ones.
pub(crate) fn saved(state: &impl Serialize) -> Value {
    serde_json::to_value(state).expect("a policy's state can be said in JSON")
}

/// The state that `policy` saved.
///
/// # Errors
/// [`RestoreError`] if it is none of this policy's.
pub(crate) fn restored<'de, T: Deserialize<'de>>(policy: &'static str, state: &'de Value) -> Result<T, RestoreError> {
    T::deserialize(state).map_err(|error| RestoreError { policy, why: error.to_string() })
}
