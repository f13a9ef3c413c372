//! The directory service: HTTP/JSON API, watch, heartbeats, telemetry in memory.
//!
//! The directory holds what dispatcher, allocator and agents agree on. Its rules are those of
//! [`vibra_model::Snapshot`]; this crate puts them behind the endpoints of [`vibra_model::api`], makes what it
//! acknowledges durable in a [`Store`](vibra_store::Store), and marks hosts that fall silent as down. One task writes (`writer`), readers
//! work on a replica (`published`), watches read a bounded history at their own pace (`watch`).
//!
//! Usage samples are kept in memory alone, the newest of each VM; their times are those of the hosts that report them,
//! and are compared with nothing but each other.
//!
//! ```
//! use std::sync::Arc;
//! use vibra_model::Role;
//! use vibra_server::*;
//! use vibra_store::MemoryStore;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let mut tokens = Tokens::new();
//! tokens.insert("a-long-random-secret", Role::Operator)?;
//! let config = Config::new("127.0.0.1:0".parse()?, Arc::new(MemoryStore::new()), tokens);
//! let server = Server::start(config).await?;
//! println!("the directory listens on {}", server.address());
//! server.stop().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
//! ```

mod api;
mod body;
mod error;
mod published;
mod records;
mod serve;
mod server;
mod silence;
mod telemetry;
mod tokens;
mod watch;
mod writer;

pub use server::{Config, Handle, Server, ServerError, StartError};
pub use tokens::{TokenError, Tokens};
