//! Who may do what.

use crate::{Command, CustomerId, HostId, Snapshot, VmId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the bearer of a token may do. Every role may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Operator,
    /// Change the allocations of this customer's own VMs, and move them.
    Customer(CustomerId),
    /// Report for this host and the VMs on it.
    Host(HostId),
    /// Read.
    Reader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Operator => f.write_str("operator"),
            Role::Customer(id) => write!(f, "customer {id}"),
            Role::Host(id) => write!(f, "host {id}"),
            Role::Reader => f.write_str("reader"),
        }
    }
}

/// A command that its sender's role does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{role} may not {what}")]
pub struct Forbidden {
    role: Role,
    what: String,
}

impl Role {
    /// Whether the bearer may give `command`.
    ///
    /// # Errors
    /// [`Forbidden`], naming what is not allowed.
    pub fn may(&self, command: &Command, snapshot: &Snapshot) -> Result<(), Forbidden> {
        let forbid = |what: String| Err(Forbidden { role: self.clone(), what });
        let foreign = |vm: &VmId, own: &dyn Fn(&crate::Vm) -> bool| snapshot.vm(vm).is_some_and(|vm| !own(vm));
        match (self, command) {
            (Role::Operator, _) => Ok(()),
            (Role::Customer(me), Command::Propose(proposal)) => {
                let other = proposal.changes.iter().find(|c| foreign(&c.vm, &|vm| vm.customer == *me));
                other.map_or(Ok(()), |c| forbid(format!("change VM {}, which belongs to another customer", c.vm)))
            }
            (Role::Customer(me), Command::MoveVm { vm, .. }) => match foreign(vm, &|vm| vm.customer == *me) {
                true => forbid(format!("move VM {vm}, which belongs to another customer")),
                false => Ok(()),
            },
            (Role::Host(me), Command::Report(report)) => {
                if report.host != *me {
                    return forbid(format!("report for host {}", report.host));
                }
                let other = report.vms.iter().find(|r| foreign(&r.vm, &|vm| vm.host == *me));
                other.map_or(Ok(()), |r| forbid(format!("report on VM {}, which is on another host", r.vm)))
            }
            (_, command) => forbid(command.verb().to_owned()),
        }
    }
}
