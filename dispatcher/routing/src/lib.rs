//! Which server gets a request.
//!
//! A [`Table`] is built from a [`Cluster`] and [`Settings`], once for every change of the cluster, and never changes.
//! [`Table::pick`] ranks servers for one request. The two are apart so that every dispatcher with the same snapshot
//! has the same table, and can prove it by its [`digest`](Table::digest). The crate is pure: no clock, no I/O and no
//! random choice. The time and the servers' loads are handed in; what an algorithm remembers lives in a [`PickState`]
//! that the caller owns.
//!
//! A pick takes the same time for any N under `url-hash`, `slots`, `maglev`, `round-robin`, `lard` and `lard-r` (these two
//! unless an object is new or its server overloaded), time in proportion to log N under `ring`, and to N under all
//! others. [`Table::explain`] says for each server why it was chosen or passed over.
//!
//! ```
//! use vibra_model::{Timestamp, VmState};
//! use vibra_routing::*;
//!
//! let server = |name: &str| Server::new(name.parse().unwrap(), 1, VmState::Up);
//! let servers = ["vm1", "vm2", "vm3", "vm4"].map(server).to_vec();
//! let settings = Settings { hash: HashKind::Charsum, replicas: 2, ..Settings::default() };
//! let table = Table::build(&Cluster { servers, ..Cluster::default() }, &settings)?;
//!
//! let name = object_name("/english/prog.html?lang=en");
//! let active = [3, 1, 0, 9];
//! let candidates = table.pick(&mut PickState::default(), name, &active, Timestamp(0));
//! // The bytes of the name sum up to 1763, which is 3 modulo 4: VM_4 and VM_1 share it, and VM_1 has less to do.
//! // VM_2 and VM_3 follow for retries.
//! assert_eq!(candidates[..], [0, 3, 1, 2]);
//! # Ok::<(), BuildError>(())
//! ```

mod candidates;
mod circle;
mod cluster;
mod digest;
mod error;
mod explain;
mod hash;
mod lard;
mod maglev;
mod method;
mod rendezvous;
mod ring;
mod roster;
mod settings;
mod slots;
mod state;
mod table;
mod turn;
mod url_hash;
mod warmth;
mod why;

#[cfg(test)]
mod testing;

pub use candidates::{Candidates, Idle, Loads};
pub use cluster::{Cluster, Server};
pub use error::BuildError;
pub use explain::{Explanation, Judged};
pub use hash::object_name;
pub use settings::{Algorithm, ChoiceError, HashKind, LardSettings, Remap, Settings, SlotSettings};
pub use state::PickState;
pub use table::Table;
pub use warmth::Warmth;
