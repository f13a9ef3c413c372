//! Policies by name, as configuration has them, and what is made of them.

use crate::{Program, Watched};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};
use vibra_model::Resource;
use vibra_policy::{BuildError, Composition, Policies, Policy, TwoPolicies};

/// How long a policy may take for a decision unless it is configured.
pub const TIME_LIMIT: Duration = Duration::from_secs(2);

/// A policy's name and its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub policy: String,
    /// What is not its default.
    #[serde(flatten)]
    pub parameters: Map<String, Value>,
}

/// At most one policy a resource, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recipe(pub BTreeMap<Resource, Named>);

/// Why no policies can be made of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// One of them cannot be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// They do not go together.
    #[error(transparent)]
    Together(#[from] TwoPolicies),
}

/// The policies that an allocator can run: those shipped, and programs.
pub fn policies() -> Policies {
    Policies::shipped().with(Program::NAME, |resource, parameters| Ok(Box::new(Program::build(resource, parameters)?)))
}

impl Recipe {
    /// The policies, each of which may take so long for a decision.
    ///
    /// # Errors
    /// [`RecipeError`] if one cannot be made, or they do not go together.
    pub fn build(&self, time_limit: Duration) -> Result<Composition, RecipeError> {
        self.compose(|policy| match policy.name() {
            // A program has a limit of its own.
            Program::NAME => policy,
            _ => Box::new(Watched::new(policy, time_limit)),
        })
    }

    /// Whether the policies can be made and go together.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn check(&self) -> Result<(), RecipeError> {
        self.compose(|policy| policy).map(drop)
    }

    fn compose(&self, run: impl Fn(Box<dyn Policy>) -> Box<dyn Policy>) -> Result<Composition, RecipeError> {
        let known = policies();
        let build = |(&resource, named): (&Resource, &Named)| {
            known.build(&named.policy, resource, Value::Object(named.parameters.clone())).map(&run)
        };
        Ok(Composition::new(self.0.iter().map(build).collect::<Result<_, _>>()?)?)
    }

    /// Their names, each with its resource, such as "proportional for bandwidth".
    pub fn names(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|(resource, named)| format!("{} for {resource}", named.policy)).collect();
        names.join(", ")
    }
}
