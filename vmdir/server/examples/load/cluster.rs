//! The cluster: 5,000 hosts with four VMs each, which belong to 1,000 customers with twenty VMs each.

use crate::{Result, asker::Connection};
use futures_util::future::try_join_all;
use serde::Serialize;
use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use vibra_model::{api::Accepted, *};
use vibra_server::Tokens;

pub(crate) const HOSTS: usize = 5_000;
pub(crate) const CUSTOMERS: usize = 1_000;
const VMS_PER_HOST: usize = 4;
pub(crate) const VMS: usize = HOSTS * VMS_PER_HOST;
const VMS_PER_CUSTOMER: usize = VMS / CUSTOMERS;

/// What each VM has at first, in bytes/s.
const INITIAL: u64 = 1_000_000;
/// How much a proposal moves from one VM to another, in bytes/s.
const MOVED: u64 = 10_000;
/// How many connections the cluster is registered over.
const REGISTRARS: usize = 64;

const OPERATOR: &str = "operator";

/// What is known of the cluster: what each VM was last granted, and when each customer's allocations last changed.
pub(crate) struct Cluster {
    customers: Vec<Mutex<Holdings>>,
}

#[derive(Debug, Clone)]
struct Holdings {
    changed: Revision,
    granted: Vec<Allocation>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let allocation = Allocation { resources: bandwidth(INITIAL), generation: Generation(1) };
        let holdings = Holdings { changed: Revision(0), granted: vec![allocation; VMS_PER_CUSTOMER] };
        Cluster { customers: (0..CUSTOMERS).map(|_| holdings.clone().into()).collect() }
    }

    /// One token for each.
    pub(crate) fn tokens() -> Result<Tokens> {
        let mut tokens = Tokens::new();
        tokens.insert(OPERATOR, Role::Operator)?;
        for host in 0..HOSTS {
            tokens.insert(&host_name(host), Role::Host(host_name(host).parse()?))?;
        }
        for customer in 0..CUSTOMERS {
            tokens.insert(&customer_name(customer), Role::Customer(customer_name(customer).parse()?))?;
        }
        Ok(tokens)
    }

    /// Registers everything.
    pub(crate) async fn register(&self, address: SocketAddr) -> Result<()> {
        let customers = (0..CUSTOMERS).map(customer_record).collect::<Result<Vec<_>>>()?;
        put(address, "/v1/customers", &customers).await?;
        let hosts = (0..HOSTS).map(host_record).collect::<Result<Vec<_>>>()?;
        put(address, "/v1/hosts", &hosts).await?;
        let vms = (0..VMS).map(vm_record).collect::<Result<Vec<_>>>()?;
        let last = put(address, "/v1/vms", &vms).await?;
        (0..CUSTOMERS).for_each(|customer| self.holdings(customer, |holdings| holdings.changed = last));
        Ok(())
    }

    /// What a host says in this second: its VMs are up, have what they were last granted, and use some of it.
    pub(crate) fn report(&self, host: usize) -> Result<UsageReport> {
        let vms = (host * VMS_PER_HOST..(host + 1) * VMS_PER_HOST).map(|vm| {
            let applied = self.holdings(owner(vm), |holdings| holdings.granted[place(vm)]);
            Ok(VmReport {
                vm: vm_name(vm).parse()?,
                usage: Some(sample(vm as u64)),
                applied: Some(Applied { resources: applied.resources, generation: applied.generation }),
                state: Some(VmState::Up),
                level: None,
            })
        });
        Ok(UsageReport { host: host_name(host).parse()?, vms: vms.collect::<Result<_>>()? })
    }

    /// A customer's next proposal: one of his VMs gives to the one that is half-way round the cluster.
    pub(crate) fn proposal(&self, customer: usize, turn: usize) -> Result<Proposal> {
        let (base, granted) = self.holdings(customer, |holdings| (holdings.changed, holdings.granted.clone()));
        let from = turn % VMS_PER_CUSTOMER;
        let to = (from + VMS_PER_CUSTOMER / 2) % VMS_PER_CUSTOMER;
        let rate = |place: usize| granted[place].resources.get(Resource::Bandwidth).unwrap_or(0);
        let change = |place: usize, rate| {
            let vm = vm_name(customer + place * CUSTOMERS).parse()?;
            Ok(AllocationChange { vm, to: Resource::Bandwidth.amount(rate) })
        };
        let changes = vec![change(from, rate(from) - MOVED), change(to, rate(to) + MOVED)];
        Ok(Proposal { base, changes: changes.into_iter().collect::<Result<_>>()? })
    }

    /// The directory accepted a proposal.
    pub(crate) fn accepted(&self, customer: usize, proposal: &Proposal, revision: Revision) {
        self.holdings(customer, |holdings| {
            holdings.changed = revision;
            for change in &proposal.changes {
                let vm: Option<usize> = change.vm.as_str().strip_prefix("vm-").and_then(|number| number.parse().ok());
                if let Some(allocation) = vm.and_then(|vm| holdings.granted.get_mut(place(vm))) {
                    allocation.resources.set(change.to);
                    allocation.generation = allocation.generation.next();
                }
            }
        });
    }

    /// The directory says that the customer's allocations changed later than was known.
    pub(crate) fn outdated(&self, customer: usize, changed: Revision) {
        self.holdings(customer, |holdings| holdings.changed = changed);
    }

    fn holdings<T>(&self, customer: usize, work: impl FnOnce(&mut Holdings) -> T) -> T {
        work(&mut self.customers[customer].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whose VM it is, and which of his. The VMs of a customer are on different hosts.
fn owner(vm: usize) -> usize {
    vm % CUSTOMERS
}

fn place(vm: usize) -> usize {
    vm / CUSTOMERS
}

pub(crate) fn host_name(host: usize) -> String {
    format!("host-{host}")
}

pub(crate) fn customer_name(customer: usize) -> String {
    format!("customer-{customer}")
}

fn vm_name(vm: usize) -> String {
    format!("vm-{vm}")
}

fn bandwidth(rate: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(rate)), ..Resources::NONE }
}

fn customer_record(customer: usize) -> Result<Customer> {
    Ok(Customer { id: customer_name(customer).parse()?, bounds: bandwidth(INITIAL * VMS_PER_CUSTOMER as u64) })
}

fn host_record(host: usize) -> Result<HostSpec> {
    Ok(HostSpec { id: host_name(host).parse()?, capacity: bandwidth(2 * INITIAL * VMS_PER_HOST as u64) })
}

fn vm_record(vm: usize) -> Result<VmSpec> {
    let host = vm / VMS_PER_HOST;
    Ok(VmSpec {
        id: vm_name(vm).parse()?,
        customer: customer_name(owner(vm)).parse()?,
        host: host_name(host).parse()?,
        address: format!("10.0.{}.{}:{}", host / 250, host % 250 + 1, 8000 + vm % VMS_PER_HOST),
        order: u32::try_from(place(vm))? + 1,
        weight: 1,
        floor: bandwidth(INITIAL / 10),
        initial: bandwidth(INITIAL),
    })
}

/// A sample with everything that a host measures.
fn sample(vm: u64) -> UsageSample {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UsageSample {
        at: Timestamp(0).after(now),
        egress: Some(BytesPerSec(700_000 + vm)),
        cpu_time: Some(Duration::from_micros(123_456 + vm)),
        memory_in_use: Some(Bytes((200 << 20) + vm)),
        working_set: Some(Bytes((150 << 20) + vm)),
        requests: Some(321),
        in_flight: Some(3),
        service_time: Some(Duration::from_micros(4_321)),
        drops: Some(0),
        disk_blocks: Some(2_048),
        swapped: Some(Bytes(0)),
        interval: Some(Duration::from_secs(1)),
        upstream: None,
    }
}

/// Puts all records over some connections at once; the revision after the last.
async fn put<T: Serialize>(address: SocketAddr, path: &str, records: &[T]) -> Result<Revision> {
    let lots = records.chunks(records.len().div_ceil(REGISTRARS)).map(|lot| async move {
        let mut connection = Connection::open(address, OPERATOR).await?;
        let mut last = Revision(0);
        for record in lot {
            let answer = connection.put(path, record).await?;
            if !answer.status.is_success() {
                return Err(format!("{path}: {}", String::from_utf8_lossy(&answer.body)).into());
            }
            last = serde_json::from_slice::<Accepted>(&answer.body)?.revision;
        }
        Result::Ok(last)
    });
    Ok(try_join_all(lots).await?.into_iter().max().unwrap_or_default())
}
