//! The text's experiments (sections 5.5.4 to 5.5.6).

use super::{Debits, Exchange, Program, Setup, Topology};
use crate::stream;
use rand_chacha::rand_core::Rng;
use std::time::Duration;
use vibra_model::MilliCpu;

/// T in the text's testbed.
pub const CYCLE: Duration = Duration::from_secs(5);
/// How long the text's live migration took, unless nobody else ran on the host.
pub const MIGRATION: Duration = Duration::from_secs(24);
/// The CPU time of an element on node 1. The text does not tell it; but two programs whose first nodes shared one CPU took
/// 430 s for 100 iterations of 100 elements (section 5.5.5), which is 21.5 ms an element.
const ELEMENT: Duration = Duration::from_micros(21_500);
/// Elements of a run of the scheduling experiment: 10 iterations of 100.
const ELEMENTS: u32 = 1000;
/// Hosts, and VMs of a program, in the text's large-scale simulation.
pub const LARGE: usize = 16;
/// A whole CPU.
const CPU: MilliCpu = MilliCpu(1000);

/// `patterns` on hosts 0, 1, …, one node each, in so many iterations of so many elements: node i (from 1) computes 1/i of
/// what node 1 does (section 5.5.1).
pub fn patterns(topology: Topology, share: MilliCpu, (iterations, elements): (u32, u32)) -> Program {
    let nodes = topology.nodes();
    Program {
        work: (1..=nodes as u32).map(|i| ELEMENT * elements / i).collect(),
        iterations,
        shares: vec![share; nodes],
        hosts: (0..nodes).collect(),
        topology,
    }
}

/// Figures 5.7 and 5.8: `patterns`, each VM with this share at first, on hosts half of which a program has that never
/// rests. The text has 10 iterations; with more, each has fewer elements.
pub fn half_booked<'a>(
    topology: Topology,
    share: MilliCpu,
    iterations: u32,
    exchange: Option<Exchange<'a>>,
) -> Setup<'a> {
    let program = patterns(topology, share, (iterations, ELEMENTS / iterations));
    Setup {
        hosts: program.hosts.len(),
        capacity: CPU,
        background: MilliCpu(500),
        programs: vec![program],
        exchange,
        migration: MIGRATION,
        concurrent: 1,
        debits: Debits::default(),
    }
}

/// Section 5.5.5: two copies of `patterns` on a line of four, so placed that equal nodes share a host. Each VM has half
/// of its host, all of which is so given away.
pub fn two_copies(exchange: Option<Exchange<'_>>) -> Setup<'_> {
    let program = patterns(Topology::line(4), MilliCpu(500), (100, 100));
    Setup {
        hosts: 4,
        capacity: CPU,
        background: MilliCpu(0),
        programs: vec![program; 2],
        exchange,
        migration: MIGRATION,
        concurrent: 1,
        debits: Debits::default(),
    }
}

/// Figures 5.9 and 5.10: so many programs of 16 VMs on 16 hosts, one VM of each on each. A VM computes between 10 and 100 ms
/// an iteration, uniformly distributed, different for each VM of each instance. Nobody goes on before all have done an
/// iteration. Each VM has this share at first; where that is more than there is, hosts are overbooked by as much.
pub fn large<'a>(
    instances: usize,
    share: MilliCpu,
    iterations: u32,
    seed: u64,
    exchange: Option<Exchange<'a>>,
) -> Setup<'a> {
    let program = |instance: usize| {
        let mut random = stream(seed, instance as u64);
        let mut work = || Duration::from_micros(10_000 + random.next_u64() % 90_001);
        Program {
            topology: Topology::AllToAll(LARGE),
            work: (0..LARGE).map(|_| work()).collect(),
            iterations,
            shares: vec![share; LARGE],
            hosts: (0..LARGE).collect(),
        }
    };
    Setup {
        hosts: LARGE,
        capacity: MilliCpu(CPU.0.max(share.0 * instances as u64)),
        background: MilliCpu(0),
        programs: (0..instances).map(program).collect(),
        exchange,
        migration: MIGRATION,
        concurrent: 1,
        debits: Debits::default(),
    }
}
