//! The network of one host: names, addresses, and the commands that build it. Pure.
//!
//! The host is a network namespace of its own with a bridge. Each VM is a namespace on that bridge. One uplink leads
//! to the machine's own namespace, where the clients are; its inner end carries an HTB queue with a class a VM. Traffic
//! to outside is told from internal traffic by its destination (section 3.4.4).

use super::{
    command::Step,
    shaper::{FIRST_CLASS, Hook, SEGMENT, Shaped, Uplink},
};
use ipnet::{IpNet, Ipv4Net};
use std::{net::Ipv4Addr, time::Duration};
use vibra_model::BytesPerSec;

/// The most VMs on one host: their addresses fill the upper half of a /24.
pub const MOST_VMS: usize = 120;

/// The uplink's inner end.
const UPLINK: &str = "uplink";
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

    /// Where the VMs' traffic leaves: the bridge's port to this machine's own namespace. The upper half of the network is
    /// the data centre.
    pub(crate) fn uplink(&self) -> Uplink {
        let internal = Ipv4Net::new(self.address(128), 25).expect("25 is a length");
        Uplink {
            namespace: Some(self.host_namespace()),
            device: UPLINK.to_owned(),
            hook: Hook::Bridge,
            internal: vec![IpNet::V4(internal)],
            queue: self.queue,
        }
    }

    /// The class of VM `index`.
    pub(crate) fn class(index: usize) -> u16 {
        FIRST_CLASS + u16::try_from(index).expect("at most MOST_VMS")
    }

    /// VM `index`, as the shaper is to know it.
    pub(crate) fn shaped(&self, index: usize, rate: Option<BytesPerSec>) -> (u16, Shaped) {
        (Self::class(index), Shaped { addresses: vec![self.vm(index).into()], rate })
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

    /// The bridge that joins the outer ends of several hosts' uplinks, where this is the first of them.
    pub(crate) fn joint(run: u8) -> String {
        format!("{}-lan", Self::outer_link(run))
    }

    /// Joins `networks`, of which this is the first, in this machine's own namespace.
    pub(crate) fn join_step(&self, networks: &[Network]) -> Step {
        let joint = Self::joint(self.run);
        let ports = networks.iter().map(|network| {
            let (outer, outside, inside) = (Self::outer_link(network.run), network.outside(), network.inside());
            // Connections from outside come from the first address.
            format!(
                "address flush dev {outer}\nlink set dev {outer} master {joint}\n\
                 address add {outside}/24 dev {joint}\naddress add {inside}/24 dev {joint}\n"
            )
        });
        let ports: String = ports.collect();
        Step::new("ip -batch -")
            .with_input(format!("link add name {joint} type bridge\nlink set dev {joint} up\n{ports}"))
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
        vec![
            Step::new("ip -batch -").with_input(outside),
            Step::new(&format!("ip -n {host} -batch -")).with_input(bridge),
        ]
    }

    /// Builds VM `index` as a namespace.
    pub(crate) fn vm_steps(&self, index: usize) -> Vec<Step> {
        let (host, vm, port) = (self.host_namespace(), self.vm_namespace(index), Self::port(index));
        let links = format!("link add name {port} type veth peer name eth0 netns {vm}\n{}", Self::join(&port));
        let guest = format!(
            "link set dev lo up\nlink set dev eth0 gso_max_size {SEGMENT}\n\
             address add {}/24 dev eth0\nlink set dev eth0 up",
            self.vm(index),
        );
        vec![
            Step::new(&format!("ip netns add {vm}")),
            Step::new(&format!("ip -n {host} -batch -")).with_input(links),
            Step::new(&format!("ip -n {vm} -batch -")).with_input(guest),
        ]
    }

    /// Builds the port of VM `index` as a tap device, for a virtual machine that is run in the host's namespace with
    /// `ifname` = [`port`](Self::port) and takes the address [`vm`](Self::vm), a /24. It is persistent: it is there
    /// before the machine starts and stays while it is restarted.
    pub(crate) fn tap_steps(&self, index: usize) -> Vec<Step> {
        let port = Self::port(index);
        let links = format!("tuntap add dev {port} mode tap\n{}", Self::join(&port));
        vec![Step::new(&format!("ip -n {} -batch -", self.host_namespace())).with_input(links)]
    }

    /// Makes a port one of the bridge.
    fn join(port: &str) -> String {
        format!("link set dev {port} master bridge\nlink set dev {port} up")
    }
}

/// What a command begins with that runs in a namespace; `ip netns exec` would mount things besides.
pub(crate) fn enter(namespace: &str) -> String {
    format!("nsenter --net=/run/netns/{namespace}")
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
        assert_eq!(network.uplink().internal[0].to_string(), "10.177.7.128/25");
        assert_eq!(network.vm(MOST_VMS - 1).to_string(), "10.177.7.249");
        assert_eq!(network.vm_namespace(2), "vibra-r7-vm2");
        // An interface name has at most 15 characters.
        assert!(Network::outer_link(u8::MAX).len() <= 15);
    }

    #[test]
    fn a_tap_is_a_port_of_the_bridge() {
        let mut run = match Run::begin() {
            Ok(run) => run,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let network = Network { run: run.number, ..network() };
        let made = run_all(&network.host_steps()).and_then(|()| run_all(&network.tap_steps(3)));
        let link = Step::new(&format!("ip -n {} link show {}", network.host_namespace(), Network::port(3))).run();
        run.remove().unwrap();
        match made {
            Ok(()) => assert!(link.unwrap().contains("master bridge")),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}
