//! `vibra check`: what a configuration means.

use crate::{
    config::{Config, Dispatcher, Source},
    exit::{Failure, Outcome},
};
use std::path::Path;
use vibra_daemon::{Mode, Named};
use vibra_proxy::{Authorities, ClientAuth};

/// Prints what the configuration means, defaults included; fails with the place of the first fault.
pub(crate) fn run(path: &Path) -> Outcome {
    let config = Config::load(path).map_err(Failure::Usage)?;
    if let Some(d) = &config.dispatcher {
        let servers = match &d.source {
            Source::Static(servers) => format!("{} servers of the file", servers.len()),
            Source::Directory(customer) => format!("the VMs of customer {customer} in the directory"),
        };
        let s = &d.settings;
        println!("dispatcher  {} on {} threads, {servers}", d.listen, d.threads);
        println!("            {}, hash {}, R = {}, remap {}", s.algorithm, s.hash, s.replicas, s.remap);
        println!("            trusts {}; in Via it is {}", d.peers.trusted, d.peers.via);
        print_proxy_protocol(d);
        print_tls(d).map_err(Failure::Usage)?;
        match d.admin {
            Some(admin) if admin.ip().is_loopback() => println!("            admin at {admin}"),
            Some(admin) => println!("            admin at {admin}: open to other machines, which can then stop it"),
            None => println!("            no admin address: no metrics, no explanations"),
        }
        match &d.access_log {
            Some(log) => println!("            each request is logged to {}", log.target),
            None => println!("            no access log"),
        }
    }
    if let Some(d) = &config.directory {
        let store = d.path.as_ref().map_or("in memory".to_owned(), |path| path.display().to_string());
        match d.listen {
            Some(listen) => {
                println!("directory   serves at {listen}, store {store}, {} tokens of the file", d.tokens.len())
            }
            None => println!("directory   elsewhere, at {}", d.authority),
        }
    }
    if let Some(a) = &config.allocator {
        println!("allocator   every {:?}", a.interval);
        if a.mode == Mode::DryRun {
            println!("            dry run: decides, logs, and changes nothing");
        }
        for (resource, Named { policy, parameters }) in &a.recipe.0 {
            println!("            {resource}: {policy} {}", serde_json::json!(parameters));
        }
        for shadow in &a.shadows {
            println!("            in the shadow: {}", shadow.names());
        }
        if let Some(level) = &a.level {
            let parameters = serde_json::to_string(level).map_err(anyhow::Error::from)?;
            println!("            level: fvm {parameters}, in each agent");
        }
    }
    for customer in &config.customers {
        let vms: Vec<_> = config.vms.iter().filter(|vm| vm.spec.customer == customer.id).collect();
        println!("customer    {}: {} VMs, {}", customer.id, vms.len(), amounts(&customer.bounds));
        for vm in vms {
            println!(
                "            {} on {}: {}, floor {}",
                vm.spec.id,
                vm.spec.host,
                amounts(&vm.spec.initial),
                amounts(&vm.spec.floor)
            );
        }
    }
    for (host, uplink) in &config.uplinks {
        let internal: Vec<_> = uplink.internal.iter().map(ToString::to_string).collect();
        let internal = if internal.is_empty() { "none".to_owned() } else { internal.join(", ") };
        println!("uplink      {} of host {host}; internal traffic: {internal}", uplink.device);
    }
    println!("{} makes sense", path.display());
    Ok(())
}

/// Says where connections begin with a PROXY header, if they do anywhere.
fn print_proxy_protocol(d: &Dispatcher) {
    let at_tls = d.tls.iter().filter(|tls| tls.demand_header).flat_map(|tls| &tls.listen);
    let demanding: Vec<_> = d.peers.demand_header.then_some(&d.listen).into_iter().chain(at_tls).collect();
    if !demanding.is_empty() {
        let demanding: Vec<_> = demanding.iter().map(ToString::to_string).collect();
        println!("            connections to {} begin with a PROXY header", demanding.join(" and "));
    }
}

/// Reads what TLS needs, and says what it means.
fn print_tls(d: &Dispatcher) -> anyhow::Result<()> {
    let mut warnings = Vec::new();
    if let Some(tls) = &d.tls {
        warnings.extend(tls.check()?);
        let place = tls.listen.first().unwrap_or(&d.listen);
        let clients = match &tls.client_auth {
            None => "clients show no certificates",
            Some(ClientAuth { required: true, .. }) => "clients must show certificates",
            Some(ClientAuth { required: false, .. }) => "clients may show certificates",
        };
        println!("            TLS at {place}, {} certificates, {clients}", tls.certificates.len());
    }
    if let Some(tls) = &d.server_tls {
        warnings.extend(tls.check()?);
        let who = match &tls.authorities {
            Authorities::System => "those whom this system trusts".to_owned(),
            Authorities::File(path) => path.display().to_string(),
        };
        println!("            TLS to servers at https://; their certificates come from {who}");
    }
    for warning in warnings {
        println!("            warning: {warning}");
    }
    Ok(())
}

/// Managed amounts in words.
pub(crate) fn amounts(resources: &vibra_model::Resources) -> String {
    let each: Vec<_> = resources.amounts().map(|amount| format!("{} {amount}", amount.resource())).collect();
    if each.is_empty() { "nothing managed".to_owned() } else { each.join(", ") }
}
