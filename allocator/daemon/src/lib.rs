//! The allocator: collect, decide, check, propose, audit.
//!
//! Every interval an [`Allocator`] takes the directory's newest snapshot and the usage since its last look, has its
//! policies decide, has the plan checked, and proposes it to the directory. What it saw, planned and achieved stands in
//! its [`Log`], as JSON lines if a file is named. The decision itself ([`Core::step`]) is a pure function of
//! snapshot, usage and time. Policies are made by a [`Recipe`]; each runs on a thread of its own ([`Watched`]) or as a
//! [`Program`]. A log holds what decisions were made from, so that a [`Replayer`] can make them again.
//!
//! ```
//! use std::sync::Arc;
//! use vibra_client::FakeDirectory;
//! use vibra_daemon::{Allocator, Core, Settings};
//! use vibra_model::Resource;
//! use vibra_policy::{Composition, Policies};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let policy = Policies::shipped().build("proportional", Resource::Bandwidth, serde_json::json!({})).unwrap();
//! let core = Core::new("shop".parse().unwrap(), Composition::new(vec![policy]).unwrap());
//! let allocator = Allocator::new(Arc::new(FakeDirectory::new()), core, Settings::default());
//! let log = allocator.log();
//! allocator.run(async { /* until it is told to stop */ }).await;
//! assert_eq!(log.summary().moved(Resource::Bandwidth), 0);
//! # });
//! ```

mod allocator;
mod audit;
mod core;
mod failures;
mod log_file;
mod moves;
mod program;
mod recipe;
mod record;
mod replay;
#[cfg(test)]
mod testing;
mod watched;

pub use self::core::{Core, Decision, Inputs, SILENCE, Verdict};
pub use allocator::{Allocator, Clock, INTERVAL, Mode, Settings, Shadow, system_clock};
pub use audit::{Entry, Log, Outcome, Shadowed, Stage, Summary};
pub use log_file::{LOG_SIZE, Line, OLDER, aged, read_log};
pub use program::{Answer, Decline, Going, Place, Program, ProgramParameters, Question, Wish};
pub use recipe::{Named, Recipe, RecipeError, TIME_LIMIT, policies};
pub use record::{Player, Recorded, Since, Whole};
pub use replay::{Difference, ReplayError, Replayer, Tally, differences};
pub use watched::Watched;
