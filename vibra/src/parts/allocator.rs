//! The allocator: one for each customer.

use crate::{config, parts::stop};
use anyhow::Context;
use std::sync::Arc;
use tokio::{sync::watch, task::JoinHandle};
use vibra_client::Directory;
use vibra_daemon::{Allocator, Core, Mode, Recipe, Settings, Shadow};
use vibra_model::CustomerId;

/// Starts an allocator for each of `customers`; they work until `stopped` says so.
///
/// # Errors
/// If a policy cannot be made.
pub(crate) fn start(
    config: &config::Allocator,
    directory: &Arc<dyn Directory>,
    customers: &[CustomerId],
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<JoinHandle<Core>>> {
    let start = |customer| {
        let allocator = allocator(config, directory.clone(), customer, customers.len())?;
        Ok(tokio::spawn(allocator.run(stop::told(stopped.clone()))))
    };
    customers.iter().map(start).collect()
}

/// The allocator of one of so many customers.
fn allocator(
    config: &config::Allocator,
    directory: Arc<dyn Directory>,
    customer: &CustomerId,
    customers: usize,
) -> anyhow::Result<Allocator> {
    let core = |recipe: &Recipe| {
        let policies = recipe.build(config.time_limit).context("the allocator's policies")?;
        anyhow::Ok(Core::new(customer.clone(), policies))
    };
    let own = |path: &_| config::Allocator::file_of(path, customer, customers);
    let settings = Settings {
        interval: config.interval,
        log_file: config.log.as_deref().map(own),
        log_size: config.log_size,
        recipe: config.recipe.clone(),
        state_file: config.state.as_deref().map(own),
        mode: config.mode,
        ..Settings::default()
    };
    let shadow = |recipe: &Recipe| anyhow::Ok(Shadow { policies: recipe.names(), core: core(recipe)? });
    let shadows = config.shadows.iter().map(shadow).collect::<anyhow::Result<Vec<_>>>()?;
    let mode = if config.mode == Mode::DryRun { ", dry run: nothing is changed" } else { "" };
    eprintln!("allocator: customer {customer}, every {:?}: {}{mode}", config.interval, config.recipe.names());
    for shadow in &shadows {
        eprintln!("allocator: customer {customer}, in the shadow: {}", shadow.policies);
    }
    Ok(Allocator::new(directory, core(&config.recipe)?, settings).with_shadows(shadows))
}
