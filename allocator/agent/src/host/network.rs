//! The network of one host: names, addresses, and the commands that build it. Pure.
//!
//! The host is a network namespace of its own with a bridge. Each VM is a namespace on that bridge. One uplink leads
//! to the machine's own namespace, where the clients are; its inner end carries an HTB queue with a class a VM. Traffic
//! to outside is told from internal traffic by its destination (section 3.4.4).

use super::command::Step;
use std::{net::Ipv4Addr, time::Duration};
use vibra_model::{Bytes, BytesPerSec};

/// The most VMs on one host: their addresses fill the upper half of a /24.
pub const MOST_VMS: usize = 120;

/// The uplink's inner end.
const UPLINK: &str = "uplink";
/// The class for what is not limited.
const INTERNAL_CLASS: &str = "1:1";
/// VM i has class 1:(this + i).
const FIRST_CLASS: usize = 0x10;
/// A class may send this much at once beside what flows in 10 ms, which covers the coarseness of timers.
const BURST: u64 = 16 * 1024;
/// The largest segment that a VM hands to its shaper at once: several connections are to take turns.
const SEGMENT: u64 = 16 * 1024;
/// The shortest queue, in bytes: a few segments.
const SHORTEST_QUEUE: u64 = 4 * SEGMENT;

/// The network of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    /// The run's number: the third octet of all addresses, and in all names.
    pub(crate) run: u8,
    /// The first two octets of all addresses.
    pub(crate) prefix: [u8; 2],
    /// How long the queue of each class is, at its rate.
    pub(crate) queue: Duration,
}

impl Network {
    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.prefix[0], self.prefix[1], self.run, last)
    }

    /// Where clients outside the data centre are: this machine's own namespace, by default.
    pub(crate) fn outside(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// Where management is: this machine's own namespace, for who binds to this address.
    pub(crate) fn inside(&self) -> Ipv4Addr {
        self.address(129)
    }

    /// The destinations within the data centre.
    fn internal(&self) -> String {
        format!("{}/25", self.address(128))
    }

    /// The address of VM `index`, from 0.
    pub(crate) fn vm(&self, index: usize) -> Ipv4Addr {
        self.address(130 + u8::try_from(index).expect("at most MOST_VMS"))
    }

    /// What the names of all its namespaces begin with.
    pub(crate) fn namespace_prefix(run: u8) -> String {
        format!("vibra-r{run}-")
    }

    /// The host's namespace.
    pub(crate) fn host_namespace(&self) -> String {
        format!("{}host", Self::namespace_prefix(self.run))
    }

    /// The bridge's port for VM `index`, in the host's namespace.
    pub(crate) fn port(index: usize) -> String {
        format!("vm{index}")
    }

    /// The namespace of VM `index`.
    pub(crate) fn vm_namespace(&self, index: usize) -> String {
        format!("{}vm{index}", Self::namespace_prefix(self.run))
    }

    /// The uplink's end in this machine's own namespace.
    pub(crate) fn outer_link(run: u8) -> String {
        format!("vibra-r{run}")
    }

    /// Builds the host, without VMs.
    pub(crate) fn host_steps(&self) -> Vec<Step> {
        let (host, outer) = (self.host_namespace(), Self::outer_link(self.run));
        let outside = format!(
            "netns add {host}\n\
             link add {outer} type veth peer name {UPLINK} netns {host}\n\
             address add {}/24 dev {outer}\naddress add {}/24 dev {outer}\nlink set dev {outer} up",
            self.outside(),
            self.inside(),
        );
        let bridge = format!(
            "link add name bridge type bridge\nlink set dev bridge up\n\
             link set dev {UPLINK} master bridge\nlink set dev {UPLINK} up",
        );
        let queues = format!(
            "qdisc add dev {UPLINK} root handle 1: htb default 1\n\
             class add dev {UPLINK} parent 1: classid {INTERNAL_CLASS} htb rate 32gbit quantum 60000\n\
             filter add dev {UPLINK} parent 1: protocol ip prio 1 u32 match ip dst {} flowid {INTERNAL_CLASS}",
            self.internal(),
        );
        let counters = "add table bridge vibra\n\
             add chain bridge vibra demand { type filter hook forward priority 0; policy accept; }";
        vec![
            Step::new("ip -batch -").with_input(outside),
            Step::new(&format!("ip -n {host} -batch -")).with_input(bridge),
            Step::new(&format!("tc -n {host} -batch -")).with_input(queues),
            Step::new(&format!("{} nft -f -", enter(&host))).with_input(counters),
        ]
    }

    /// Builds VM `index` as a namespace; without a `rate` its egress is not limited.
    pub(crate) fn vm_steps(&self, index: usize, rate: Option<BytesPerSec>) -> Vec<Step> {
        let (host, vm, port) = (self.host_namespace(), self.vm_namespace(index), Self::port(index));
        let links = format!("link add name {port} type veth peer name eth0 netns {vm}\n{}", Self::join(&port));
        let guest = format!(
            "link set dev lo up\nlink set dev eth0 gso_max_size {SEGMENT}\n\
             address add {}/24 dev eth0\nlink set dev eth0 up",
            self.vm(index),
        );
        let mut steps = vec![
            Step::new(&format!("ip netns add {vm}")),
            Step::new(&format!("ip -n {host} -batch -")).with_input(links),
            Step::new(&format!("ip -n {vm} -batch -")).with_input(guest),
        ];
        steps.extend(self.egress_steps(index, rate));
        steps
    }

    /// Builds the port of VM `index` as a tap device, for a virtual machine that is run in the host's namespace with
    /// `ifname` = [`port`](Self::port) and takes the address [`vm`](Self::vm), a /24. It is persistent: it is there
    /// before the machine starts and stays while it is restarted. Without a `rate` its egress is not limited.
    #[cfg_attr(not(test), expect(dead_code, reason = "virtual machines are the next kind of VM"))]
    pub(crate) fn tap_steps(&self, index: usize, rate: Option<BytesPerSec>) -> Vec<Step> {
        let port = Self::port(index);
        let links = format!("tuntap add dev {port} mode tap\n{}", Self::join(&port));
        let mut steps = vec![Step::new(&format!("ip -n {} -batch -", self.host_namespace())).with_input(links)];
        steps.extend(self.egress_steps(index, rate));
        steps
    }

    /// Makes a port one of the bridge.
    fn join(port: &str) -> String {
        format!("link set dev {port} master bridge\nlink set dev {port} up")
    }

    /// The counter of what VM `index` sends to outside and, with a `rate`, the class that holds it to that.
    fn egress_steps(&self, index: usize, rate: Option<BytesPerSec>) -> Vec<Step> {
        let (host, address) = (self.host_namespace(), self.vm(index));
        let counter = format!(
            "add counter bridge vibra vm{index}\n\
             add rule bridge vibra demand oifname \"{UPLINK}\" ip saddr {address} ip daddr != {} counter name vm{index}",
            self.internal(),
        );
        let mut steps = vec![Step::new(&format!("{} nft -f -", enter(&host))).with_input(counter)];
        if let Some(rate) = rate {
            let filter = format!(
                "filter add dev {UPLINK} parent 1: protocol ip prio 2 u32 match ip src {address}/32 flowid {}",
                class_of(index),
            );
            let shaper = format!("{}\n{filter}", self.shaper(index, rate, "add"));
            steps.push(Step::new(&format!("tc -n {host} -batch -")).with_input(shaper));
        }
        steps
    }

    /// The class of VM `index` and its queue; `verb` is "add" or "change".
    fn shaper(&self, index: usize, rate: BytesPerSec, verb: &str) -> String {
        let rate = rate.0.max(1);
        let (class, leaf, burst) = (class_of(index), leaf_of(index), BURST + rate / 100);
        let queue = ((rate as f64 * self.queue.as_secs_f64()) as u64).clamp(SHORTEST_QUEUE, u32::MAX.into());
        // In tc's language "bps" is bytes per second, and a bare "b" behind a size bytes.
        format!(
            "class {verb} dev {UPLINK} parent 1: classid {class} htb rate {rate}bps burst {burst}b cburst {burst}b \
             quantum {SEGMENT}\n\
             qdisc {verb} dev {UPLINK} parent {class} handle {leaf} bfifo limit {queue}b"
        )
    }

    /// Changes the rate of VM `index`.
    pub(crate) fn rate_step(&self, index: usize, rate: BytesPerSec) -> Step {
        Step::new(&format!("tc -n {} -batch -", self.host_namespace())).with_input(self.shaper(index, rate, "change"))
    }

    /// Prints the class of VM `index`: see [`parse_rate`].
    pub(crate) fn show_rate_step(&self, index: usize) -> Step {
        Step::new(&format!("tc -n {} class show dev {UPLINK} classid {}", self.host_namespace(), class_of(index)))
    }

    /// Prints the demand counters of all VMs: see [`parse_demand`].
    pub(crate) fn show_demand_step(&self) -> Step {
        Step::new(&format!("{} nft -j list counters", enter(&self.host_namespace())))
    }

    /// Prints the queues of all VMs: see [`parse_drops`].
    pub(crate) fn show_queues_step(&self) -> Step {
        Step::new(&format!("tc -n {} -j -s qdisc show dev {UPLINK}", self.host_namespace()))
    }
}

/// What a command begins with that runs in a namespace; `ip netns exec` would mount things besides.
pub(crate) fn enter(namespace: &str) -> String {
    format!("nsenter --net=/run/netns/{namespace}")
}

fn class_of(index: usize) -> String {
    format!("1:{:x}", FIRST_CLASS + index)
}

fn leaf_of(index: usize) -> String {
    format!("{:x}:", FIRST_CLASS + index)
}

/// The rate in `tc class show`, which knows no JSON. It prints four digits or more and cuts the rest off: what is read
/// is at most a thousandth below what is in force.
pub(crate) fn parse_rate(text: &str) -> Option<BytesPerSec> {
    let mut words = text.split_whitespace().skip_while(|word| *word != "rate");
    let rate = words.nth(1)?;
    let digits = rate.find(|c: char| !c.is_ascii_digit())?;
    let scale = match &rate[digits..] {
        "bit" => 1,
        "Kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        "Tbit" => 1_000_000_000_000,
        _ => return None,
    };
    let bits = rate[..digits].parse::<u64>().ok()?.checked_mul(scale)?;
    Some(BytesPerSec(bits / 8))
}

/// The demand of VM `index` in `nft -j list counters`.
pub(crate) fn parse_demand(json: &str, index: usize) -> Option<Bytes> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let name = format!("vm{index}");
    let mut counters = value.get("nftables")?.as_array()?.iter().filter_map(|entry| entry.get("counter"));
    let counter = counters.find(|counter| counter.get("name").and_then(|name| name.as_str()) == Some(&name))?;
    counter.get("bytes")?.as_u64().map(Bytes)
}

/// The packets dropped before the class of VM `index`, in `tc -j -s qdisc show`.
pub(crate) fn parse_drops(json: &str, index: usize) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let leaf = leaf_of(index);
    let mut queues = value.as_array()?.iter();
    queues.find(|queue| queue.get("handle").and_then(|handle| handle.as_str()) == Some(&leaf))?.get("drops")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{command::run_all, run::Run};

    fn network() -> Network {
        Network { run: 7, prefix: [10, 177], queue: Duration::from_millis(500) }
    }

    #[test]
    fn addresses_and_names_follow_from_the_run() {
        let network = network();
        assert_eq!(network.outside().to_string(), "10.177.7.1");
        assert_eq!(network.inside().to_string(), "10.177.7.129");
        assert_eq!(network.vm(MOST_VMS - 1).to_string(), "10.177.7.249");
        assert_eq!(network.vm_namespace(2), "vibra-r7-vm2");
        // An interface name has at most 15 characters.
        assert!(Network::outer_link(u8::MAX).len() <= 15);
    }

    #[test]
    fn every_vm_has_a_class_and_internal_traffic_none() {
        let text: String = network().vm_steps(1, Some(BytesPerSec(2_700_000))).iter().map(Step::to_string).collect();
        assert!(text.contains("classid 1:11 htb rate 2700000bps burst 43384b"), "{text}");
        assert!(text.contains("bfifo limit 1350000b"), "{text}");
        assert!(text.contains("match ip src 10.177.7.131/32 flowid 1:11"), "{text}");
        assert!(text.contains("ip daddr != 10.177.7.128/25"), "{text}");
        let unlimited: String = network().vm_steps(1, None).iter().map(Step::to_string).collect();
        assert!(!unlimited.contains("htb"), "{unlimited}");
    }

    #[test]
    fn a_tap_is_a_port_with_a_counter_and_a_class() {
        let mut run = match Run::begin() {
            Ok(run) => run,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let network = Network { run: run.number, ..network() };
        let rate = BytesPerSec(2_000_000);
        let made = run_all(&network.host_steps()).and_then(|()| run_all(&network.tap_steps(3, Some(rate))));
        let link = Step::new(&format!("ip -n {} link show {}", network.host_namespace(), Network::port(3))).run();
        let (class, demand) = (network.show_rate_step(3).run(), network.show_demand_step().run());
        run.remove().unwrap();
        match made {
            Ok(()) => {}
            Err(error) => return eprintln!("skipped: {error}"),
        }
        assert!(link.unwrap().contains("master bridge"));
        assert_eq!(parse_rate(&class.unwrap()), Some(rate));
        assert_eq!(parse_demand(&demand.unwrap(), 3), Some(Bytes(0)));
    }

    #[test]
    fn what_the_tools_print_is_understood() {
        let class = "class htb 1:10 root leaf 10: prio 0 rate 21600Kbit ceil 21600Kbit burst 16Kb cburst 16Kb";
        assert_eq!(parse_rate(class), Some(BytesPerSec(2_700_000)));
        assert_eq!(parse_rate("class htb 1:10 rate 800bit"), Some(BytesPerSec(100)));
        assert_eq!(parse_rate("class htb 1:10"), None);
        assert_eq!(parse_rate("class htb 1:10 rate fast"), None);
        let counter = r#"{"nftables": [{"metainfo": {}}, {"counter": {"name": "vm1", "packets": 3, "bytes": 420}}]}"#;
        assert_eq!(parse_demand(counter, 1), Some(Bytes(420)));
        assert_eq!(parse_demand(counter, 0), None);
        assert_eq!(parse_demand("{}", 1), None);
        let queues = r#"[{"kind":"htb","handle":"1:","drops":5},{"kind":"bfifo","handle":"11:","drops":4}]"#;
        assert_eq!(parse_drops(queues, 1), Some(4));
        assert_eq!(parse_drops(queues, 0), None);
    }
}
