//! Policies by name, as configuration has them, and what is made of them.

use crate::{Program, Watched};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};
use vibra_model::Resource;
use vibra_policy::{BuildError, Composition, Policies, Policy};

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

/// The policies that an allocator can run: those shipped, and programs.
pub fn policies() -> Policies {
    Policies::shipped().with(Program::NAME, |resource, parameters| Ok(Box::new(Program::build(resource, parameters)?)))
}

impl Recipe {
    /// The policies, each of which may take so long for a decision.
    ///
    /// # Errors
    /// [`BuildError`] of the first that cannot be made.
    pub fn build(&self, time_limit: Duration) -> Result<Composition, BuildError> {
        let known = policies();
        let build = |(&resource, named): (&Resource, &Named)| -> Result<Box<dyn Policy>, BuildError> {
            let policy = known.build(&named.policy, resource, Value::Object(named.parameters.clone()))?;
            // A program has a limit of its own.
            Ok(if named.policy == Program::NAME { policy } else { Box::new(Watched::new(policy, time_limit)) })
        };
        let parts = self.0.iter().map(build).collect::<Result<_, _>>()?;
        Ok(Composition::new(parts).expect("a map has one policy a resource"))
    }

    /// Their names, each with its resource, such as "proportional for bandwidth".
    pub fn names(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|(resource, named)| format!("{} for {resource}", named.policy)).collect();
        names.join(", ")
    }
}
