//! Policies by name.

use crate::{Bank, Distributed, Fixed, Guard, Policy, Proportional, Safety, Sandpiper, Takeover, TakeoverParameters};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};
use vibra_model::Resource;

/// Makes a policy for a resource out of its parameters (a JSON object; what it does not name has its default).
pub type Constructor = fn(Resource, Value) -> Result<Box<dyn Policy>, BuildError>;

/// Why a policy cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No policy has this name.
    #[error("there is no policy {name:?}: use one of {}", known.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },
    /// A parameter is unknown, missing, of the wrong kind or out of range.
    #[error("policy {policy} for {resource}: {why}")]
    Parameters {
        /// Which policy.
        policy: &'static str,
        /// For what.
        resource: Resource,
        /// What is wrong, and what would be right.
        why: String,
    },
}

/// The policies that can be named in configuration.
#[derive(Clone)]
pub struct Policies {
    constructors: BTreeMap<&'static str, Constructor>,
}

impl Policies {
    /// Those of this crate.
    pub fn shipped() -> Self {
        Policies { constructors: BTreeMap::new() }
            .with(Fixed::NAME, |resource, parameters| Ok(Box::new(Fixed::build(resource, parameters)?)))
            .with(Proportional::NAME, |resource, parameters| Ok(Box::new(Proportional::build(resource, parameters)?)))
            .with(Distributed::NAME, |resource, parameters| Ok(Box::new(Distributed::build(resource, parameters)?)))
            .with(Bank::NAME, |resource, parameters| Ok(Box::new(Bank::build(resource, parameters)?)))
            .with(Sandpiper::BLACK_BOX, |resource, parameters| {
                Ok(Box::new(Sandpiper::build_black_box(resource, parameters)?))
            })
            .with(Sandpiper::GRAY_BOX, |resource, parameters| {
                Ok(Box::new(Sandpiper::build_gray_box(resource, parameters)?))
            })
    }

    /// Adds a policy, or replaces the one of this name.
    #[must_use]
    pub fn with(mut self, name: &'static str, constructor: Constructor) -> Self {
        self.constructors.insert(name, constructor);
        self
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<&'static str> {
        self.constructors.keys().copied().collect()
    }

    /// The policy `name` for `resource`, with `parameters` (a JSON object), of which `safety` says how its [`Guard`]
    /// trims its plans, and `takeover` what becomes of failed VMs' resources ([`Takeover`]): what that moves is not trimmed.
    ///
    /// # Errors
    /// [`BuildError`] if there is no such policy, or its parameters are not right.
    pub fn build(&self, name: &str, resource: Resource, mut parameters: Value) -> Result<Box<dyn Policy>, BuildError> {
        let Some((&policy, constructor)) = self.constructors.get_key_value(name) else {
            return Err(BuildError::Unknown { name: name.to_owned(), known: self.names() });
        };
        let refuse = |why| BuildError::Parameters { policy, resource, why };
        let mut table = |name| parameters.as_object_mut().and_then(|table| table.remove(name));
        let safety = table("safety").map(Safety::read).transpose().map_err(refuse)?.unwrap_or_default();
        let takeover = table("takeover").map(TakeoverParameters::read).transpose().map_err(refuse)?;
        let guarded = Box::new(Guard::new(constructor(resource, parameters)?, safety));
        Ok(match takeover {
            Some(parameters) => Box::new(Takeover::new(guarded, parameters)),
            None => guarded,
        })
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.constructors.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_are_made_by_name() {
        for name in Policies::shipped().names() {
            let policy = Policies::shipped().build(name, Resource::Memory, json!({})).unwrap();
            assert_eq!((policy.name(), policy.resource()), (name, Resource::Memory));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let build = |name, resource, parameters| {
            Policies::shipped().build(name, resource, parameters).map(|_| ()).unwrap_err().to_string()
        };
        let message = build("proportionate", Resource::Bandwidth, json!({}));
        assert!(message.contains("use one of") && message.contains("proportional, "), "{message}");
        let message = build("proportional", Resource::Bandwidth, json!({ "alfa": 0.5 }));
        assert!(message.contains("alfa") && message.contains("alpha"), "{message}");
        let message = build("static", Resource::Bandwidth, json!({ "share": "fair" }));
        assert!(message.contains("equal"), "{message}");
    }
}
