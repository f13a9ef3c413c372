//! What a shaper is to be, and the commands that bring the kernel there. Pure.
//!
//! To build, to adopt and to mend are one: the difference between what is expected and what is in force.

use super::in_force::InForce;
use crate::host::{command::Step, network::enter};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use vibra_model::BytesPerSec;

/// The major number of all classes. By it a root queue is told from one that somebody else made.
pub(super) const MAJOR: u16 = 0x7b1b;
/// The root queue.
pub(super) const HANDLE: u32 = (MAJOR as u32) << 16;
/// The class for what is not limited: internal traffic, and who is no VM.
const UNLIMITED: u16 = 1;
/// The first class of a VM.
pub(crate) const FIRST_CLASS: u16 = 0x10;
/// A VM's filters have the priority this + its class for IPv4, and one more range above for IPv6: a priority is for one
/// protocol, and all of its filters go at once.
const FILTERS: u16 = 0x1000;
const FILTERS_V6: u16 = 0x2000;
/// The most classes, so that the ranges do not meet.
pub(super) const MOST_CLASSES: usize = 0xf00;
/// The filters of internal traffic, which are looked at first.
const INTERNAL: u16 = 1;
const INTERNAL_V6: u16 = 2;
/// How many rules count: outward and inward, for both versions of IP.
const RULES: usize = 4;
/// A class may send this much at once beside what flows in 10 ms, which covers the coarseness of timers.
const BURST: u64 = 16 * 1024;
/// The largest segment that a VM should hand to its shaper at once: several connections are to take turns.
pub(crate) const SEGMENT: u64 = 16 * 1024;
/// The shortest queue, in bytes: a few segments.
const SHORTEST_QUEUE: u64 = 4 * SEGMENT;

/// Where demand is counted: before the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// In the device's own way out: whatever leaves by it, bridged, routed or from this machine. Kernels from 5.16 on.
    Egress,
    /// Where a bridge forwards to the device, which is a port of it.
    Bridge,
}

impl Hook {
    /// The family of the tables that have it, as the kernel numbers them.
    pub(super) fn family_number(self) -> u8 {
        match self {
            Hook::Egress => 5,
            Hook::Bridge => 7,
        }
    }

    fn family(self) -> &'static str {
        match self {
            Hook::Egress => "netdev",
            Hook::Bridge => "bridge",
        }
    }
}

/// Where traffic leaves, and how it is told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uplink {
    /// The namespace of the device; `None`: this process's own.
    pub(crate) namespace: Option<String>,
    /// The device whose egress is shaped.
    pub(crate) device: String,
    /// Where demand is counted.
    pub(crate) hook: Hook,
    /// The destinations within the data centre, which are counted apart and not limited (section 3.4.4).
    pub(crate) internal: Vec<IpNet>,
    /// How long the queue of each class is, at its rate.
    pub(crate) queue: Duration,
}

/// What a VM is known by, and what it may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shaped {
    /// The source addresses of its traffic.
    pub(crate) addresses: Vec<IpAddr>,
    /// `None`: as much as it likes; it is counted only.
    pub(crate) rate: Option<BytesPerSec>,
}

/// The VMs by their classes.
pub(super) type Tree = BTreeMap<u16, Shaped>;

/// A filter: what it matches goes into the class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Filter {
    pub(super) class: u16,
    pub(super) keys: Vec<Key>,
}

/// Four bytes of a packet that must be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(super) mask: u32,
    pub(super) value: u32,
    /// Where they are, in bytes from the IP header.
    pub(super) offset: u16,
}

/// The changes that bring what is in force to what is expected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// What is not as expected, in words.
    pub(super) found: Vec<String>,
    pub(super) steps: Vec<Step>,
}

/// The table of a device's counters.
pub(super) fn table_of(device: &str) -> String {
    format!("vibra-{device}")
}

/// The counter of what a class sends to outside.
pub(crate) fn outward(class: u16) -> String {
    format!("out-{class:x}")
}

/// The counter of what a class sends within the data centre.
pub(crate) fn inward(class: u16) -> String {
    format!("in-{class:x}")
}

impl Uplink {
    /// A check whether what leaves by the device can be counted there, which changes nothing.
    pub(crate) fn hook_check(&self) -> Step {
        let chain = format!(
            "add chain {} demand {{ type filter hook egress device \"{}\" priority 0; }}",
            self.table(),
            self.device
        );
        self.nft_step(format!("add table {}\n{chain}", self.table())).with_word("-c")
    }

    /// What is to change where `in_force` is in force and `tree` is expected.
    pub(super) fn changes(&self, tree: &Tree, in_force: &InForce) -> Changes {
        let mut found = Vec::new();
        let mut lines = self.base_lines(in_force, &mut found);
        self.surplus_lines(tree, in_force, &mut lines, &mut found);
        self.class_lines(tree, in_force, &mut lines, &mut found);
        let mut steps = Vec::new();
        // What counts is made before what limits: nobody is limited and not counted.
        steps.extend(self.counters_step(tree, in_force, &mut found));
        if !lines.is_empty() {
            steps.push(self.tc_step(&lines));
        }
        Changes { found, steps }
    }

    /// One run of `tc` for many changes.
    fn tc_step(&self, lines: &[String]) -> Step {
        let namespace = self.namespace.as_ref().map_or(String::new(), |name| format!("-n {name} "));
        Step::new(&format!("tc {namespace}-batch -")).with_input(lines.join("\n"))
    }

    fn nft_step(&self, script: String) -> Step {
        let entered = self.namespace.as_ref().map_or(String::new(), |name| format!("{} ", enter(name)));
        Step::new(&format!("{entered}nft -f -")).with_input(script)
    }

    /// Sets the rates of classes that are there.
    pub(super) fn rates_step(&self, rates: &[(u16, BytesPerSec)]) -> Step {
        let lines: Vec<_> = rates.iter().flat_map(|(class, rate)| self.class_line(*class, *rate)).collect();
        self.tc_step(&lines)
    }

    /// Takes away what is in force: the kernel puts back the queue that a device has by default.
    pub(super) fn removal_steps(&self, in_force: &InForce) -> Vec<Step> {
        let mut steps = Vec::new();
        if in_force.root.as_ref().is_some_and(super::in_force::Root::is_ours) {
            steps.push(self.tc_step(&[format!("qdisc del dev {} root", self.device)]));
        }
        if in_force.rules > 0 || !in_force.counters.is_empty() {
            steps.push(self.nft_step(format!("delete table {}", self.table())));
        }
        steps
    }

    fn table(&self) -> String {
        format!("{} {}", self.hook.family(), table_of(&self.device))
    }

    /// The root, the unlimited class, and the filters of internal traffic.
    fn base_lines(&self, in_force: &InForce, found: &mut Vec<String>) -> Vec<String> {
        let device = &self.device;
        let mut lines = Vec::new();
        if !in_force.root.as_ref().is_some_and(super::in_force::Root::is_ours) {
            found.push("no shaper".to_owned());
            lines.push(format!("qdisc add dev {device} root handle {MAJOR:x}: htb default {UNLIMITED:x}"));
        }
        if !in_force.classes.contains_key(&UNLIMITED) {
            found.push("no class for internal traffic".to_owned());
            lines.push(format!(
                "class add dev {device} parent {MAJOR:x}: classid {MAJOR:x}:{UNLIMITED:x} htb rate 32gbit quantum 60000"
            ));
        }
        for (priority, version) in [(INTERNAL, "ip"), (INTERNAL_V6, "ip6")] {
            let networks: Vec<_> = self.internal.iter().filter(|net| version_of(net.addr()) == version).collect();
            let expected: BTreeSet<_> = networks.iter().map(|net| Filter::to(**net)).collect();
            let matches = networks.iter().map(|net| format!("match {version} dst {net}")).collect();
            let group = Group { priority, version, class: UNLIMITED, matches, expected };
            self.filter_lines(&group, in_force, &mut lines, found);
        }
        lines
    }

    /// Takes away what belongs to nobody.
    fn surplus_lines(&self, tree: &Tree, in_force: &InForce, lines: &mut Vec<String>, found: &mut Vec<String>) {
        let device = &self.device;
        let expected = |priority: &u16| {
            let classes = tree.iter().filter(|(_, vm)| vm.rate.is_some()).map(|(class, _)| class);
            [INTERNAL, INTERNAL_V6].contains(priority)
                || classes.into_iter().any(|class| [FILTERS + class, FILTERS_V6 + class].contains(priority))
        };
        for priority in in_force.filters.keys().filter(|priority| !expected(priority)) {
            found.push(format!("filters that nobody knows (priority {priority})"));
            lines.push(format!("filter del dev {device} parent {MAJOR:x}: prio {priority}"));
        }
        let limited = |class: &u16| tree.get(class).is_some_and(|vm| vm.rate.is_some());
        for class in in_force.classes.keys().filter(|class| **class != UNLIMITED && !limited(class)) {
            found.push(format!("class {class:x}, which nobody has"));
            lines.push(format!("class del dev {device} classid {MAJOR:x}:{class:x}"));
        }
    }

    /// The VMs' classes, decreases before increases, and their filters.
    fn class_lines(&self, tree: &Tree, in_force: &InForce, lines: &mut Vec<String>, found: &mut Vec<String>) {
        let limited = tree.iter().filter_map(|(class, vm)| Some((*class, vm, at_least_one(vm.rate?))));
        let mut off: Vec<_> = limited.clone().filter(|(class, _, rate)| !in_force.holds(*class, *rate)).collect();
        off.sort_by_key(|(class, _, rate)| in_force.class(*class).map_or(0, |is| rate.0.saturating_sub(is.rate.0)));
        for (class, _, rate) in off {
            let now = in_force.class(class).map_or("nothing".to_owned(), |is| is.rate.to_string());
            found.push(format!("class {class:x} has {now} instead of {rate}"));
            lines.extend(self.class_line(class, rate));
        }
        for (class, vm, _) in limited {
            for (base, version) in [(FILTERS, "ip"), (FILTERS_V6, "ip6")] {
                let own: Vec<_> = vm.addresses.iter().filter(|address| version_of(**address) == version).collect();
                let expected: BTreeSet<_> = own.iter().map(|address| Filter::from(class, **address)).collect();
                let matches =
                    own.iter().map(|address| format!("match {version} src {}", IpNet::from(**address))).collect();
                let group = Group { priority: base + class, version, class, matches, expected };
                self.filter_lines(&group, in_force, lines, found);
            }
        }
    }

    /// The class and its queue: made, or changed.
    fn class_line(&self, class: u16, rate: BytesPerSec) -> [String; 2] {
        let (device, rate) = (&self.device, at_least_one(rate).0);
        let burst = BURST + rate / 100;
        let queue = ((rate as f64 * self.queue.as_secs_f64()) as u64).clamp(SHORTEST_QUEUE, u32::MAX.into());
        // In tc's language "bps" is bytes per second, and a bare "b" behind a size bytes.
        [
            format!(
                "class replace dev {device} parent {MAJOR:x}: classid {MAJOR:x}:{class:x} htb rate {rate}bps \
                 burst {burst}b cburst {burst}b quantum {SEGMENT}"
            ),
            format!("qdisc replace dev {device} parent {MAJOR:x}:{class:x} handle {class:x}: bfifo limit {queue}b"),
        ]
    }

    fn filter_lines(&self, group: &Group, in_force: &InForce, lines: &mut Vec<String>, found: &mut Vec<String>) {
        let (device, Group { priority, version, class, matches, expected }) = (&self.device, group);
        let there = in_force.filters.get(priority);
        if there.map_or(expected.is_empty(), |there| there == expected) {
            return;
        }
        found.push(format!("the {version} filters of class {class:x} are not as they were made"));
        if there.is_some() {
            lines.push(format!("filter del dev {device} parent {MAJOR:x}: prio {priority}"));
        }
        let protocol = if *version == "ip" { "ip" } else { "ipv6" };
        lines.extend(matches.iter().map(|matched| {
            format!(
                "filter add dev {device} parent {MAJOR:x}: protocol {protocol} prio {priority} u32 {matched} \
                 flowid {MAJOR:x}:{class:x}"
            )
        }));
    }

    /// The counters, in one transaction: those that stay keep what they have counted, and at no time nothing counts.
    fn counters_step(&self, tree: &Tree, in_force: &InForce, found: &mut Vec<String>) -> Option<Step> {
        let expected: BTreeSet<_> = tree.keys().flat_map(|class| [outward(*class), inward(*class)]).collect();
        let missing = expected.iter().filter(|name| !in_force.counters.contains_key(*name)).count();
        let surplus: Vec<_> = in_force.counters.keys().filter(|name| !expected.contains(*name)).collect();
        if missing == 0 && surplus.is_empty() && in_force.rules == RULES {
            return None;
        }
        let there = in_force.counters.len() - surplus.len();
        found.push(format!("{there} of {} counters and {} of {RULES} rules", expected.len(), in_force.rules));
        let table = self.table();
        let mut lines = vec![format!("add table {table}")];
        lines.extend(expected.iter().map(|name| format!("add counter {table} {name}")));
        lines.push(match self.hook {
            Hook::Egress => {
                let device = &self.device;
                format!("add chain {table} demand {{ type filter hook egress device \"{device}\" priority 0; policy accept; }}")
            }
            Hook::Bridge => format!("add chain {table} demand {{ type filter hook forward priority 0; policy accept; }}"),
        });
        lines.push(format!("flush chain {table} demand"));
        for version in ["ip", "ip6"] {
            self.counting_lines(tree, version, &mut lines);
        }
        lines.extend(surplus.iter().map(|name| format!("delete counter {table} {name}")));
        Some(self.nft_step(lines.join("\n")))
    }

    /// The sets, maps and rules that count one version of IP.
    fn counting_lines(&self, tree: &Tree, version: &str, lines: &mut Vec<String>) {
        let (table, kind) = (self.table(), if version == "ip" { "ipv4_addr" } else { "ipv6_addr" });
        let set = format!("{version}-inside");
        lines.push(format!("add set {table} {set} {{ type {kind}; flags interval; auto-merge; }}"));
        lines.push(format!("flush set {table} {set}"));
        let inside: Vec<_> = self.internal.iter().filter(|net| version_of(net.addr()) == version).collect();
        lines.extend(inside.iter().map(|net| format!("add element {table} {set} {{ {net} }}")));
        let port = match self.hook {
            Hook::Egress => String::new(),
            Hook::Bridge => format!("oifname \"{}\" ", self.device),
        };
        for (direction, test, name) in [("inward", "", inward as fn(u16) -> String), ("outward", "!= ", outward)] {
            let map = format!("{version}-{direction}");
            lines.push(format!("add map {table} {map} {{ type {kind} : counter; }}"));
            lines.push(format!("flush map {table} {map}"));
            for (class, vm) in tree {
                let own = vm.addresses.iter().filter(|address| version_of(**address) == version);
                lines.extend(
                    own.map(|address| format!("add element {table} {map} {{ {address} : \"{}\" }}", name(*class))),
                );
            }
            lines.push(format!(
                "add rule {table} demand {port}{version} daddr {test}@{set} counter name {version} saddr map @{map}"
            ));
        }
    }
}

/// The filters of one priority.
struct Group {
    priority: u16,
    version: &'static str,
    class: u16,
    /// What they match, in tc's language.
    matches: Vec<String>,
    /// The same, as the kernel tells it.
    expected: BTreeSet<Filter>,
}

impl InForce {
    /// The class of a VM that has one of these addresses.
    pub(super) fn class_of(&self, addresses: &[IpAddr]) -> Option<u16> {
        let leads = |class: u16| {
            let filters = [FILTERS, FILTERS_V6].into_iter().filter_map(move |base| self.filters.get(&(base + class)));
            filters.flatten().any(|filter| addresses.iter().any(|address| *filter == Filter::from(class, *address)))
        };
        self.classes.keys().copied().filter(|class| *class >= FIRST_CLASS).find(|class| leads(*class))
    }

    /// Whether a class has just this rate, and a queue of its own.
    fn holds(&self, class: u16, rate: BytesPerSec) -> bool {
        self.class(class).is_some_and(|is| is.rate == rate && is.ceil == rate && is.leaf == u32::from(class) << 16)
    }
}

impl Filter {
    /// Into the class of what is not limited, by destination.
    fn to(network: IpNet) -> Filter {
        Filter { class: UNLIMITED, keys: keys(network, 16, 24) }
    }

    /// Into the class of a VM, by source.
    pub(super) fn from(class: u16, address: IpAddr) -> Filter {
        Filter { class, keys: keys(address.into(), 12, 8) }
    }
}

/// The keys of an address that begins so far into the header of IPv4 or of IPv6.
fn keys(network: IpNet, v4: u16, v6: u16) -> Vec<Key> {
    match network {
        IpNet::V4(network) => {
            vec![Key { mask: network.netmask().to_bits(), value: network.network().to_bits(), offset: v4 }]
        }
        IpNet::V6(network) => {
            let word = |bits: u128, at: u16| (bits >> (96 - 32 * u32::from(at))) as u32;
            let (mask, value) = (network.netmask().to_bits(), network.network().to_bits());
            let keys = (0..4).map(|at| Key { mask: word(mask, at), value: word(value, at), offset: v6 + 4 * at });
            keys.filter(|key| key.mask != 0).collect()
        }
    }
}

fn version_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

/// HTB knows no rate of 0.
pub(super) fn at_least_one(rate: BytesPerSec) -> BytesPerSec {
    BytesPerSec(rate.0.max(1))
}
