//! Policies as the command line names them.

use crate::config;
use serde_json::{Value, json};
use std::{fmt, str::FromStr, time::Duration};
use vibra_daemon::Named;
use vibra_model::Resource;
use vibra_policy::Composition;

/// Over which time VMs measure their working set, where memory is divided by it: as the agent's VMs do.
const WORKING_SET: Duration = Duration::from_secs(60);

/// A policy for each of some resources: `proportional` (for bandwidth), or `bandwidth=proportional+memory=static`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PolicySet {
    name: String,
    parts: Vec<(Resource, String, Value)>,
}

impl PolicySet {
    /// Those of a configuration.
    pub(crate) fn configured(allocator: Option<&config::Allocator>) -> PolicySet {
        let recipe = allocator.into_iter().flat_map(|allocator| &allocator.recipe.0);
        let part = |(&resource, named): (&Resource, &Named)| {
            (resource, named.policy.clone(), Value::Object(named.parameters.clone()))
        };
        let parts: Vec<_> = recipe.map(part).collect();
        let parts = if parts.is_empty() { vec![(Resource::Bandwidth, "static".into(), json!({}))] } else { parts };
        let name = match &parts[..] {
            [(Resource::Bandwidth, name, _)] => name.clone(),
            _ => parts.iter().map(|(resource, name, _)| format!("{resource}={name}")).collect::<Vec<_>>().join("+"),
        };
        PolicySet { name, parts }
    }

    /// The same, where what it does not name is as configured, and what it names has the parameters that the
    /// configuration has for it.
    pub(crate) fn over(mut self, configured: &PolicySet) -> PolicySet {
        for (resource, name, parameters) in &configured.parts {
            match self.parts.iter_mut().find(|(own, ..)| own == resource) {
                Some(own) if own.1 == *name => own.2 = parameters.clone(),
                Some(_) => {}
                None => self.parts.push((*resource, name.clone(), parameters.clone())),
            }
        }
        self
    }

    /// New instances of the policies.
    ///
    /// # Errors
    /// If one is unknown, or its parameters are not right.
    pub(crate) fn build(&self) -> anyhow::Result<Composition> {
        let shipped = vibra_daemon::policies();
        let built =
            self.parts.iter().map(|(resource, name, parameters)| shipped.build(name, *resource, parameters.clone()));
        Ok(Composition::new(built.collect::<Result<_, _>>()?)?)
    }

    /// Over which time VMs must measure their working set for it.
    pub(crate) fn working_set_window(&self) -> Option<Duration> {
        let divides = self.parts.iter().any(|(resource, name, _)| *resource == Resource::Memory && name != "static");
        divides.then_some(WORKING_SET)
    }
}

impl FromStr for PolicySet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| match part.split_once('=') {
            None => Ok((Resource::Bandwidth, part.to_owned(), json!({}))),
            Some((resource, name)) => Ok((resource.parse()?, name.to_owned(), json!({}))),
        };
        let set = PolicySet { name: text.to_owned(), parts: text.split('+').map(part).collect::<Result<_, String>>()? };
        // What has parameters that must be given is for a configuration: here everything has a default.
        set.build().map_err(|error| format!("{error:#}"))?;
        Ok(set)
    }
}

impl fmt::Display for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_alone_is_for_bandwidth_and_others_are_named_with_their_resource() {
        let set: PolicySet = "proportional+memory=static".parse().expect("policies");
        assert_eq!(set.build().expect("built").resources(), [Resource::Bandwidth, Resource::Memory]);
        assert_eq!(set.working_set_window(), None);
        let memory: PolicySet = "memory=proportional".parse().expect("a policy");
        assert_eq!(memory.working_set_window(), Some(WORKING_SET));
        for wrong in ["fair", "disk=static", "static+bandwidth=proportional"] {
            assert!(wrong.parse::<PolicySet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn parameters_come_from_the_configuration() {
        let configured = PolicySet {
            name: "configured".into(),
            parts: vec![
                (Resource::Bandwidth, "proportional".into(), json!({ "alpha": 0.5 })),
                (Resource::Memory, "static".into(), json!({})),
            ],
        };
        let over = |text: &str| text.parse::<PolicySet>().expect("a policy").over(&configured).parts;
        assert_eq!(over("proportional")[0].2, json!({ "alpha": 0.5 }));
        assert_eq!(over("static")[0].2, json!({}));
        assert_eq!(over("static")[1].0, Resource::Memory);
    }
}
