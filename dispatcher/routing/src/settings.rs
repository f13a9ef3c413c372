//! What an operator chooses.

use crate::error::BuildError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A text that names none of a list of choices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: use one of {choices}")]
pub struct ChoiceError {
    text: String,
    what: &'static str,
    choices: String,
}

/// Choices with one name each, the same in configuration, on the command line and in output.
macro_rules! choices {
    ($(#[$doc:meta])* $type:ident, $what:literal { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$variant_doc])* #[serde(rename = $name)] $variant,)*
        }

        impl $type {
            /// Every choice.
            pub const ALL: &[$type] = &[$($type::$variant),*];

            /// Its name in configuration.
            pub const fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)*
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $type {
            type Err = ChoiceError;
            fn from_str(text: &str) -> Result<Self, ChoiceError> {
                Self::ALL.iter().copied().find(|choice| choice.name() == text).ok_or_else(|| ChoiceError {
                    text: text.to_owned(),
                    what: $what,
                    choices: Self::ALL.iter().map(|choice| choice.name()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}

choices! {
    /// How a server is found for a request.
    Algorithm, "algorithm" {
        /// Each server in turn.
        RoundRobin = "round-robin",
        /// In turn, as often as the weights say.
        WeightedRoundRobin = "weighted-round-robin",
        /// The server with the fewest active requests.
        LeastConnection = "least-connection",
        /// The server with the fewest active requests for its weight.
        WeightedLeastConnection = "weighted-least-connection",
        /// Locality-aware request distribution (Pai et al. 1998).
        Lard = "lard",
        /// LARD with a set of servers for each object.
        LardR = "lard-r",
        /// The dissertation's: as many sub-namespaces as servers (section 3.3.1).
        UrlHash = "url-hash",
        /// Many more sub-namespaces than servers, mapped by load (section 3.6.1).
        Slots = "slots",
        /// Consistent hashing with virtual nodes, after ketama.
        Ring = "ring",
        /// Highest random weight.
        Rendezvous = "rendezvous",
        /// Maglev's look-up table (Eisenbud et al. 2016).
        Maglev = "maglev",
        /// Consistent hashing with bounded loads (Mirrokni et al. 2018).
        BoundedLoads = "bounded-loads",
    }
}

impl Algorithm {
    /// Whether it serves each object from a subset of R servers.
    pub fn uses_replicas(self) -> bool {
        use Algorithm::{Maglev, Rendezvous, Ring, Slots, UrlHash};
        matches!(self, UrlHash | Slots | Ring | Rendezvous | Maglev)
    }

    /// Whether it hashes the object name.
    pub fn uses_hash(self) -> bool {
        self.uses_replicas() || self == Algorithm::BoundedLoads
    }
}

choices! {
    /// A hash over the object name.
    HashKind, "hash" {
        /// The sum of the character codes.
        Charsum = "charsum",
        /// MD5.
        Md5 = "md5",
        /// SHA-1.
        Sha1 = "sha1",
        /// XXH3, 64 bits.
        Xxh3 = "xxh3",
    }
}

choices! {
    /// What becomes of the sub-namespaces of `url-hash` when servers are unavailable (section 4.3.3).
    Remap, "remap" {
        /// Subset i is the next R available servers from VM i: what others hold stays theirs.
        Skip = "skip",
        /// The names are divided anew among the available servers; for comparison.
        Naive = "naive",
    }
}

/// LARD's parameters, with the values of its paper as defaults (Pai et al. 1998, section 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LardSettings {
    /// T_low, in active requests: a server below it has idle resources.
    pub t_low: u32,
    /// T_high, in active requests: a server above it makes clients wait.
    pub t_high: u32,
    /// K, in seconds: how long a server set of LARD/R stays before it shrinks.
    pub k_s: u64,
    /// The most objects remembered; the least recently requested is forgotten first. About 100 bytes each.
    pub objects: usize,
}

impl Default for LardSettings {
    fn default() -> Self {
        LardSettings { t_low: 25, t_high: 65, k_s: 20, objects: 1 << 20 }
    }
}

/// Parameters of `slots`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlotSettings {
    /// M/N: sub-namespaces a server. Dynamo has up to 30 (section 3.6.2).
    pub per_server: usize,
    /// The time between two looks at the balance, in milliseconds.
    pub interval_ms: u64,
}

impl SlotSettings {
    /// The most slots there may be: M = `per_server` × N.
    pub const MOST: usize = 1 << 20;
}

impl Default for SlotSettings {
    fn default() -> Self {
        SlotSettings { per_server: 32, interval_ms: 3000 }
    }
}

/// What a table is built by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How a server is found.
    pub algorithm: Algorithm,
    /// Which hash, for the algorithms that hash.
    pub hash: HashKind,
    /// R: how many servers share each object, for the algorithms that have subsets.
    pub replicas: usize,
    /// What a failure does to `url-hash`.
    pub remap: Remap,
    /// How many candidates follow the subset (or the one chosen server), for retries.
    pub fallbacks: usize,
    /// Parameters of `lard` and `lard-r`.
    pub lard: LardSettings,
    /// Parameters of `slots`.
    pub slots: SlotSettings,
    /// c of `bounded-loads`: the most a server may have, relative to its share of all active requests.
    pub balance: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            algorithm: Algorithm::UrlHash,
            hash: HashKind::Xxh3,
            replicas: 2,
            remap: Remap::Skip,
            fallbacks: 2,
            lard: LardSettings::default(),
            slots: SlotSettings::default(),
            balance: 1.25,
        }
    }
}

impl Settings {
    /// Whether the settings make sense for some cluster.
    ///
    /// # Errors
    /// What does not, with the values that would.
    pub fn check(&self) -> Result<(), BuildError> {
        let refuse = |setting, value: &dyn fmt::Display, hint| {
            Err(BuildError::Setting { setting, value: value.to_string(), hint })
        };
        if self.replicas == 0 {
            return Err(BuildError::NoReplicas);
        }
        if self.lard.t_low == 0 || self.lard.t_low >= self.lard.t_high {
            return refuse("lard.t_low", &self.lard.t_low, "use 1 or more, and less than lard.t_high");
        }
        if self.lard.objects == 0 {
            return refuse("lard.objects", &0, "LARD must remember at least one object");
        }
        if self.slots.per_server == 0 || self.slots.per_server > SlotSettings::MOST {
            return refuse("slots.per_server", &self.slots.per_server, "use 1 to 1048576");
        }
        if self.slots.interval_ms == 0 {
            return refuse("slots.interval_ms", &0, "use 1 or more");
        }
        if !(1.0..=1000.0).contains(&self.balance) {
            return refuse("balance", &self.balance, "use 1 (even) to 1000, such as 1.25");
        }
        Ok(())
    }
}
