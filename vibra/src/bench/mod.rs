//! Benchmarks that need whole processes. What fits in one process stands in the crates' own `benches`.
//!
//! `vibra bench proxy` is made of a few parts: [`proxy`] runs the rounds, a file in [`cells`] is a kind of thing to measure,
//! [`contender`] says what the proxies are and can do, [`tools`] drives the load generators of others, [`open_loop`] is
//! our own, [`compare`] holds what was measured against what is promised, and [`record`] keeps it.
//!
//! `vibra bench policies` draws the figures of the policies' papers: see [`policies`].

pub(crate) mod cells;
mod compare;
mod contender;
mod http1;
mod open_loop;
mod origin;
pub(crate) mod policies;
mod process;
pub(crate) mod proxy;
mod record;
mod stage;
mod tools;
