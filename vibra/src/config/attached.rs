//! Uplinks, and the VMs behind them that somebody else runs.

use super::{
    Attached, ConfigError, Uplink,
    error::Source,
    raw,
    resolve::{Fault, check_address},
};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Component, Path},
};
use toml::Spanned;
use vibra_model::{HostId, Resource, Resources};

/// The longest name of a network device.
const LONGEST_DEVICE: usize = 15;

/// The uplinks of the hosts that have one.
pub(super) fn uplinks(source: &Source<'_>, hosts: &[Spanned<raw::Host>]) -> Fault<BTreeMap<HostId, Uplink>> {
    let mut uplinks = BTreeMap::new();
    for host in hosts.iter().map(Spanned::get_ref) {
        match (&host.uplink, host.internal.first()) {
            (Some(device), _) => {
                let internal = host.internal.iter().map(|network| internal(source, network)).collect::<Fault<_>>()?;
                let uplink = Uplink { device: self::device(source, device)?, internal };
                uplinks.insert(host.name.get_ref().clone(), uplink);
            }
            (None, Some(first)) => {
                let hint = Some("add uplink = \"eth0\"".to_owned());
                return Err(source.fault(first.span(), "internal traffic of no uplink", hint));
            }
            (None, None) => {}
        }
    }
    Ok(uplinks)
}

fn device(source: &Source<'_>, name: &Spanned<String>) -> Fault<String> {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let text = name.get_ref();
    if (1..=LONGEST_DEVICE).contains(&text.len()) && text.chars().all(known) {
        return Ok(text.clone());
    }
    let hint = "use a name that `ip link` lists: at most 15 letters, digits, \".\", \"_\" and \"-\"";
    Err(source.fault(name.span(), format!("{text:?} is no network device"), Some(hint.to_owned())))
}

fn internal(source: &Source<'_>, network: &Spanned<String>) -> Fault<IpNet> {
    let text = network.get_ref();
    let fault = |message: String, hint: &str| Err(source.fault(network.span(), message, Some(hint.to_owned())));
    match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
        Ok(parsed) if parsed.prefix_len() == 0 => fault(format!("{text} is everybody"), "nothing would be limited"),
        Ok(parsed) if parsed != parsed.trunc() => {
            fault(format!("{text} is no network"), &format!("write {} for all of it, or one address", parsed.trunc()))
        }
        Ok(parsed) => Ok(parsed),
        Err(_) => fault(format!("{text:?} is no network"), "write \"10.0.0.0/8\""),
    }
}

/// What an attached VM says of itself; `None` for VMs of other kinds.
pub(super) fn attached(source: &Source<'_>, raw: &raw::Vm, initial: &Resources) -> Fault<Option<Attached>> {
    let fault = |span, message: &str, hint: &str| Err(source.fault(span, message, Some(hint.to_owned())));
    if raw.kind != raw::VmKind::Attached {
        let foreign = [raw.address.as_ref().map(Spanned::span), raw.sources.as_ref().map(Spanned::span)];
        return match foreign.into_iter().chain([raw.cgroup.as_ref().map(Spanned::span)]).flatten().next() {
            Some(span) => fault(span, "only VMs of kind \"attached\" have this", "take it out"),
            None => Ok(None),
        };
    }
    if let Some(content) = &raw.content {
        return fault(content.span(), "an attached VM serves what it likes", "take content out");
    }
    let Some(address) = &raw.address else {
        return fault(raw.name.span(), "an attached VM without an address", "add address = \"10.0.0.7:80\"");
    };
    if let Err(hint) = check_address(address.get_ref()) {
        return fault(address.span(), "no address of a server", &hint);
    }
    if let (None, Some(unmanaged)) =
        (&raw.cgroup, [Resource::Memory, Resource::Cpu].iter().find(|r| initial.get(**r).is_some()))
    {
        let message = format!("{unmanaged} of an attached VM without a control group");
        return fault(
            raw.name.span(),
            &message,
            "add cgroup = \"machine.slice/NAME.scope\", or leave that resource out",
        );
    }
    Ok(Some(Attached {
        address: address.get_ref().clone(),
        sources: sources(source, raw, address)?,
        cgroup: raw.cgroup.as_ref().map(|group| cgroup(source, group)).transpose()?,
    }))
}

/// Where an attached VM's traffic comes from: by default where it serves.
fn sources(source: &Source<'_>, raw: &raw::Vm, address: &Spanned<String>) -> Fault<Vec<IpAddr>> {
    if let Some(sources) = &raw.sources {
        let parse = |text: &String| {
            let hint = || Some("write addresses, such as \"10.0.0.7\"".to_owned());
            text.parse().map_err(|_| source.fault(sources.span(), format!("{text:?} is no address"), hint()))
        };
        let parsed = sources.get_ref().iter().map(parse).collect::<Fault<Vec<_>>>()?;
        if parsed.is_empty() {
            let hint = Some("leave it out: the VM's address".to_owned());
            return Err(source.fault(sources.span(), "traffic from nowhere", hint));
        }
        return Ok(parsed);
    }
    let host = address.get_ref().rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
    let own: Result<IpAddr, _> = host.parse();
    own.map(|own| vec![own]).map_err(|_| {
        let hint = "add sources = [\"10.0.0.7\"]: the addresses that its traffic comes from";
        source.fault(address.span(), "a name does not tell where traffic comes from", Some(hint.to_owned()))
    })
}

/// A control group, relative to where they are mounted.
fn cgroup(source: &Source<'_>, group: &Spanned<std::path::PathBuf>) -> Fault<std::path::PathBuf> {
    let relative = group.get_ref().strip_prefix("/").unwrap_or(group.get_ref());
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && relative != Path::new("") {
        return Ok(relative.to_owned());
    }
    let hint = "write it as /proc/PID/cgroup does, such as \"machine.slice/web1.scope\"".to_owned();
    Err(source.fault(group.span(), "no control group of a VM", Some(hint)))
}

/// Refuses attached VMs on hosts without an uplink, and two with the same address.
pub(super) fn check(source: &Source<'_>, file: &raw::File, vms: &[super::Vm]) -> Result<(), ConfigError> {
    let mut owners = BTreeMap::new();
    for (raw, vm) in file.vm.iter().map(Spanned::get_ref).zip(vms) {
        let Some(attached) = &vm.attached else { continue };
        let on = |host: &&Spanned<raw::Host>| host.get_ref().name.get_ref() == &vm.spec.host;
        if file.host.iter().find(on).is_some_and(|host| host.get_ref().uplink.is_none()) {
            let hint = Some("add uplink = \"eth0\" to its [[host]]".to_owned());
            return Err(source.fault(raw.host.span(), "an attached VM on a host without an uplink", hint));
        }
        for address in &attached.sources {
            if let Some(owner) = owners.insert((&vm.spec.host, *address), &vm.spec.id) {
                let message = format!("{address} is VM {owner}'s already");
                let hint = Some("every address is of one VM: see sources".to_owned());
                return Err(source.fault(raw.name.span(), message, hint));
            }
        }
    }
    Ok(())
}
