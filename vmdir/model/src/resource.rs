//! The kinds of resource that move between VMs, and amounts of them.

use crate::{Bytes, BytesPerSec, MilliCpu};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A kind of resource that is bought by a customer and divided among his VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Egress to outside the data centre, in bytes per second.
    Bandwidth,
    /// Main memory, in bytes.
    Memory,
    /// CPU time, in thousandths of a core.
    Cpu,
}

impl Resource {
    /// Every kind.
    pub const ALL: [Resource; 3] = [Resource::Bandwidth, Resource::Memory, Resource::Cpu];

    /// Its name in configuration, API and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Bandwidth => "bandwidth",
            Resource::Memory => "memory",
            Resource::Cpu => "cpu",
        }
    }

    /// `raw` base units (bytes/s, bytes, thousandths of a core) of it.
    pub fn amount(self, raw: u64) -> Amount {
        match self {
            Resource::Bandwidth => Amount::Bandwidth(BytesPerSec(raw)),
            Resource::Memory => Amount::Memory(Bytes(raw)),
            Resource::Cpu => Amount::Cpu(MilliCpu(raw)),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Resource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Resource::ALL.into_iter().find(|r| r.name() == text);
        found.ok_or_else(|| format!("{text:?} is no resource: use bandwidth, memory or cpu"))
    }
}

/// So much of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Amount {
    /// Egress bandwidth.
    Bandwidth(BytesPerSec),
    /// Memory.
    Memory(Bytes),
    /// CPU.
    Cpu(MilliCpu),
}

impl Amount {
    /// What it is an amount of.
    pub fn resource(self) -> Resource {
        match self {
            Amount::Bandwidth(_) => Resource::Bandwidth,
            Amount::Memory(_) => Resource::Memory,
            Amount::Cpu(_) => Resource::Cpu,
        }
    }

    /// The number in the resource's base unit: bytes/s, bytes, thousandths of a core.
    pub fn raw(self) -> u64 {
        match self {
            Amount::Bandwidth(x) => x.0,
            Amount::Memory(x) => x.0,
            Amount::Cpu(x) => x.0,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Bandwidth(x) => x.fmt(f),
            Amount::Memory(x) => x.fmt(f),
            Amount::Cpu(x) => x.fmt(f),
        }
    }
}

/// An amount of each resource; `None` where it is not managed (bought, limited, measured: the field's owner says).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Egress bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BytesPerSec>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<MilliCpu>,
}

impl Resources {
    /// No resource is managed.
    pub const NONE: Resources = Resources { bandwidth: None, memory: None, cpu: None };

    /// The amount of one resource, in its base unit.
    pub fn get(&self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Bandwidth => self.bandwidth.map(|x| x.0),
            Resource::Memory => self.memory.map(|x| x.0),
            Resource::Cpu => self.cpu.map(|x| x.0),
        }
    }

    /// Sets the amount of one resource.
    pub fn set(&mut self, amount: Amount) {
        match amount {
            Amount::Bandwidth(x) => self.bandwidth = Some(x),
            Amount::Memory(x) => self.memory = Some(x),
            Amount::Cpu(x) => self.cpu = Some(x),
        }
    }

    /// The managed amounts.
    pub fn amounts(&self) -> impl Iterator<Item = Amount> + '_ {
        Resource::ALL.into_iter().filter_map(|r| Some(r.amount(self.get(r)?)))
    }

    /// The larger of the two, resource by resource; what only one of them manages is taken from it.
    #[must_use]
    pub fn max(mut self, other: &Resources) -> Resources {
        for amount in other.amounts() {
            if self.get(amount.resource()).is_none_or(|mine| mine < amount.raw()) {
                self.set(amount);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_two_is_taken_resource_by_resource() {
        let a = Resources { bandwidth: Some(BytesPerSec(5)), memory: None, cpu: Some(MilliCpu(1)) };
        let b = Resources { bandwidth: Some(BytesPerSec(3)), memory: Some(Bytes(7)), cpu: Some(MilliCpu(2)) };
        let both = Resources { bandwidth: Some(BytesPerSec(5)), memory: Some(Bytes(7)), cpu: Some(MilliCpu(2)) };
        assert_eq!(a.max(&b), both);
        assert_eq!(b.max(&a), both);
    }

    #[test]
    fn an_amount_names_its_resource_in_json() {
        let json = serde_json::to_string(&Amount::Bandwidth(BytesPerSec(9))).unwrap();
        assert_eq!(json, r#"{"bandwidth":9}"#);
        for resource in Resource::ALL {
            assert_eq!(resource.amount(4).resource(), resource);
            assert_eq!(resource.name().parse(), Ok(resource));
        }
    }
}
