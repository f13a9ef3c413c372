//! `vibra up`, `directory`, `allocator` and `agent`: the parts that a configuration names, together or alone.

use crate::{
    cli,
    config::{self, Config, Runs},
    exit::{Failure, Outcome},
    parts::{
        self,
        dispatcher::{Again, Upgrades},
        host::Host,
        signals::Signals,
        stop,
    },
};
use anyhow::anyhow;
use std::{path::Path, sync::Arc};
use tokio::sync::watch;
use vibra_client::Directory;
use vibra_model::{CustomerId, HostSpec};

/// Everything in one process.
pub(crate) fn up(args: &cli::Up) -> Outcome {
    let path = args.config.as_path();
    let config = Arc::new(Config::load(path).map_err(Failure::Usage)?);
    if config.directory.is_none() && config.dispatcher.is_none() {
        return Err(Failure::Usage(anyhow!("{} names neither [dispatcher] nor [directory]", path.display())));
    }
    if args.dry_run {
        config.hosts.iter().for_each(|host| parts::host::dry_run(host, &config));
        return Ok(());
    }
    run(async {
        let server = match &config.directory {
            Some(directory) if directory.listen.is_some() => Some(parts::directory::start(directory).await?),
            _ => None,
        };
        let directory = match (&config.directory, &server) {
            // The port may have been found when it started.
            (Some(section), Some(server)) => Some(parts::directory::client_at(section, &server.address().to_string())?),
            (Some(section), None) => Some(parts::directory::client(section)?),
            (None, _) => None,
        };
        let (told, stopped) = watch::channel(false);
        let mut hosts = Vec::new();
        let mut allocators = Vec::new();
        if let Some(directory) = &directory {
            parts::directory::register(&**directory, &config.customers).await?;
            hosts = Host::start_all(&config, directory.clone(), &stopped).await?;
            allocators = start_allocators(&config, directory, &stopped)?;
        }
        let mut signals = Signals::listen()?;
        let alone = server.is_none() && hosts.is_empty() && allocators.is_empty();
        let upgrades = if alone { Upgrades::Possible } else { Upgrades::Impossible };
        match &config.dispatcher {
            Some(dispatcher) => {
                let (path, running) = (path.to_owned(), config.clone());
                let again: Again = Box::new(move || running.dispatcher_again(&path, Runs::Everything));
                let handle = parts::dispatcher::start(dispatcher, directory, Some(again))?;
                parts::dispatcher::keep(handle, &mut signals, upgrades).await?;
            }
            None => signals.stop().await,
        }
        eprintln!("stopping");
        told.send_replace(true);
        for allocator in allocators {
            allocator.await?;
        }
        for host in hosts {
            host.stop().await?;
        }
        if let Some(server) = server {
            server.stop().await?;
        }
        Ok(())
    })
}

/// The directory alone, with the customers of the configuration.
pub(crate) fn directory(path: &Path) -> Outcome {
    let config = Config::load(path).map_err(Failure::Usage)?;
    let section = section(path, "directory", config.directory.as_ref())?;
    run(async {
        let server = parts::directory::start(section).await?;
        // With tokens by role the operator registers customers himself; this process need not have his.
        if section.token_file.exists() {
            let client = parts::directory::client_at(section, &server.address().to_string())?;
            parts::directory::register(&*client, &config.customers).await?;
        }
        stop::requested().await?;
        server.stop().await?;
        Ok(())
    })
}

/// The allocators of all customers that the configuration names, else of all that the directory knows.
pub(crate) fn allocator(path: &Path) -> Outcome {
    let config = Config::load(path).map_err(Failure::Usage)?;
    section(path, "allocator", config.allocator.as_ref())?;
    let directory = parts::directory::client(section(path, "directory", config.directory.as_ref())?)?;
    run(async {
        let (told, stopped) = watch::channel(false);
        let mut running = start_allocators(&config, &directory, &stopped)?;
        if let (true, Some(allocator)) = (running.is_empty(), &config.allocator) {
            let known: Vec<_> = directory.snapshot().await?.customers().map(|customer| customer.id.clone()).collect();
            running = parts::allocator::start(allocator, &directory, &known, &stopped)?;
        }
        if running.is_empty() {
            return Err(anyhow!("neither the configuration nor the directory knows a customer").into());
        }
        stop::requested().await?;
        told.send_replace(true);
        for allocator in running {
            allocator.await?;
        }
        Ok(())
    })
}

/// The agent of one host, with its VMs.
pub(crate) fn agent(args: &cli::Agent) -> Outcome {
    let config = Config::load(&args.config).map_err(Failure::Usage)?;
    let section = section(&args.config, "directory", config.directory.as_ref())?;
    let host = chosen_host(&config, args.host.as_deref()).map_err(Failure::Usage)?;
    if args.remove_limits {
        return Ok(parts::attached::remove_limits(&config, &host.id, args.dry_run)?);
    }
    if args.dry_run {
        parts::host::dry_run(host, &config);
        return Ok(());
    }
    let directory = parts::directory::client(section)?;
    run(async {
        let (told, stopped) = watch::channel(false);
        let host = Host::start(host, &config, directory, stopped).await?;
        stop::requested().await?;
        told.send_replace(true);
        host.stop().await?;
        Ok(())
    })
}

fn section<'a, T>(path: &Path, name: &str, section: Option<&'a T>) -> Result<&'a T, Failure> {
    section.ok_or_else(|| Failure::Usage(anyhow!("{} has no [{name}]", path.display())))
}

fn chosen_host<'a>(config: &'a Config, name: Option<&str>) -> anyhow::Result<&'a HostSpec> {
    match (name, &config.hosts[..]) {
        (Some(name), hosts) => {
            let found = hosts.iter().find(|host| host.id.as_str() == name);
            found.ok_or_else(|| anyhow!("--host {name}: the configuration has no [[host]] of that name"))
        }
        (None, [only]) => Ok(only),
        (None, []) => Err(anyhow!("the configuration has no [[host]]")),
        (None, _) => Err(anyhow!("the configuration has several hosts: say which one this is with --host")),
    }
}

type Running = tokio::task::JoinHandle<vibra_daemon::Core>;

fn start_allocators(
    config: &Config,
    directory: &Arc<dyn Directory>,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<Running>> {
    let Some(allocator) = &config.allocator else { return Ok(Vec::new()) };
    let customers: Vec<CustomerId> = config.customers.iter().map(|customer| customer.id.clone()).collect();
    parts::allocator::start(allocator, directory, &customers, stopped)
}

/// Runs `work` to its end on a runtime for everything but the dispatcher, which has threads of its own.
fn run(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config::default_threads())
        .enable_all()
        .build()?
        .block_on(work)
}
