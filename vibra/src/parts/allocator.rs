//! The allocator: one for each customer.

use crate::{config, parts::stop};
use anyhow::Context;
use std::sync::Arc;
use tokio::{sync::watch, task::JoinHandle};
use vibra_client::Directory;
use vibra_daemon::{Allocator, Core, Settings};
use vibra_model::CustomerId;
use vibra_policy::{Composition, Policies};

/// Starts an allocator for `customer` that works until `stopped` says so.
///
/// # Errors
/// If a policy cannot be made.
pub(crate) fn start(
    config: &config::Allocator,
    directory: Arc<dyn Directory>,
    customer: CustomerId,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<JoinHandle<Core>> {
    let shipped = Policies::shipped();
    let built =
        config.policies.iter().map(|(resource, name, parameters)| shipped.build(name, *resource, parameters.clone()));
    let policies = Composition::new(built.collect::<Result<_, _>>()?).context("the allocator's policies")?;
    let settings = Settings { interval: config.interval, log_file: config.log.clone(), ..Settings::default() };
    let names: Vec<_> = config.policies.iter().map(|(resource, name, _)| format!("{name} for {resource}")).collect();
    eprintln!("allocator: customer {customer}, every {:?}: {}", config.interval, names.join(", "));
    let allocator = Allocator::new(directory, Core::new(customer, policies), settings);
    Ok(tokio::spawn(allocator.run(stop::told(stopped))))
}
