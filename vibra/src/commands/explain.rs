//! `vibra explain`: which server gets a URL, which others could, and why; or why an allocator decided as it did.

use super::explain_decision;
use crate::{
    cli,
    config::{Config, Source},
    exit::{Failure, Outcome},
};
use anyhow::{anyhow, bail};
use vibra_model::{Revision, Timestamp, VmId, VmState};
use vibra_routing::{Cluster, Idle, Server, Table, object_name};

/// Explains a URL or a decision.
pub(crate) fn run(args: &cli::Explain) -> Outcome {
    match (&args.url, args.decision) {
        (_, Some(id)) => explain_decision::run(args, id),
        (Some(url), None) => explain_url(args, url),
        (None, None) => Err(Failure::Usage(anyhow!("say what to explain: a URL, or --decision ID"))),
    }
}

/// Builds the table that the configuration means, with every server idle and up but those named down, and explains.
fn explain_url(args: &cli::Explain, url: &str) -> Outcome {
    let config = Config::load(&args.config).map_err(Failure::Usage)?;
    let dispatcher = config.dispatcher.as_ref();
    let dispatcher =
        dispatcher.ok_or_else(|| Failure::Usage(anyhow!("{} has no [dispatcher]", args.config.display())))?;
    let cluster = cluster(&config, &dispatcher.source, &args.down).map_err(Failure::Usage)?;
    let table = Table::build(&cluster, &dispatcher.settings).map_err(Failure::usage)?;
    let explanation = table.explain(&Default::default(), object_name(url), &Idle, Timestamp::ZERO);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&explanation)?);
    } else {
        print!("{explanation}");
    }
    Ok(())
}

/// The servers that the configuration names; those in `down` have failed.
fn cluster(config: &Config, source: &Source, down: &[String]) -> anyhow::Result<Cluster> {
    let named: Vec<(VmId, u32)> = match source {
        Source::Static(servers) => servers.iter().map(|s| (s.name.clone(), s.weight)).collect(),
        Source::Directory(customer) => {
            let own = config.vms.iter().filter(|vm| vm.spec.customer == *customer);
            own.map(|vm| (vm.spec.id.clone(), vm.spec.weight)).collect()
        }
    };
    if named.is_empty() {
        bail!("the configuration names no VMs: ask the running dispatcher, at its admin address, /explain?url=");
    }
    if let Some(unknown) = down.iter().find(|name| named.iter().all(|(id, _)| id.as_str() != *name)) {
        bail!("--down {unknown}: there is no such server");
    }
    let state = |id: &VmId| if down.iter().any(|name| name == id.as_str()) { VmState::Down } else { VmState::Up };
    let servers = named.into_iter().map(|(name, weight)| Server::new(name.clone(), weight, state(&name)));
    Ok(Cluster { revision: Revision(0), servers: servers.collect() })
}
