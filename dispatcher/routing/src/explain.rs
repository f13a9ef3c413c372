//! Why a request goes where it goes.

use crate::settings::{Algorithm, HashKind};
use serde::{Deserialize, Serialize};
use std::fmt;
use vibra_model::{Reason, Revision, VmId};

/// One server, judged for one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The server.
    pub server: VmId,
    /// Its index in the cluster, from 0: it is VM_{index+1}.
    pub index: usize,
    /// Its active requests at that moment.
    pub active: u32,
    /// Why it has this rank, or none.
    pub reason: Reason,
}

/// A pick with its reasons. It serialises, and its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The object name.
    pub name: String,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The directory's revision that the table was built from.
    pub revision: Revision,
    /// The table's digest.
    pub digest: String,
    /// The hash; `None` for algorithms that do not hash.
    pub hash: Option<HashKind>,
    /// The object name's hash; `None` for algorithms that do not hash.
    pub hash_value: Option<u64>,
    /// How the algorithm came to its choice, with the numbers.
    pub how: Reason,
    /// The servers that share the object, in the algorithm's order before loads rank them; empty for algorithms
    /// without subsets.
    pub subset: Vec<VmId>,
    /// Who may serve it, the best first. Empty if no server is available.
    pub candidates: Vec<Judged>,
    /// All others, in cluster order.
    pub passed_over: Vec<Judged>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} by {} (revision {}, table {})", self.name, self.algorithm, self.revision, self.digest)?;
        if let (Some(kind), Some(value)) = (self.hash, self.hash_value) {
            writeln!(f, "  {kind} hash: {value}")?;
        }
        writeln!(f, "  {}", Rule(&self.how))?;
        if !self.subset.is_empty() {
            let names: Vec<_> = self.subset.iter().map(VmId::as_str).collect();
            writeln!(f, "  subset: {}", names.join(", "))?;
        }
        if self.candidates.is_empty() {
            writeln!(f, "  no server is available")?;
        }
        for (rank, judged) in self.candidates.iter().enumerate() {
            writeln!(f, "  {}. {}", rank + 1, Line(judged))?;
        }
        self.passed_over.iter().try_for_each(|judged| writeln!(f, "  -  {}", Line(judged)))
    }
}

struct Line<'a>(&'a Judged);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Judged { server, active, reason, .. } = self.0;
        write!(f, "{server} ({active} active): {}", Rule(reason))
    }
}

struct Rule<'a>(&'a Reason);

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.rule)?;
        let facts: Vec<_> = self.0.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
        if facts.is_empty() { Ok(()) } else { write!(f, " [{}]", facts.join(", ")) }
    }
}
