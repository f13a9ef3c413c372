//! Bankers: how a bank's shares are paid out.

use super::{peers::Peer, rates::exchanged};
use crate::{
    divide::{Claim, divide},
    room::Rooms,
};
use std::{collections::BTreeMap, fmt};

/// Says what each member of an account gets, in the order of [`Account::members`].
///
/// What it says is a wish: a host never takes more than it has left, no more is paid than there is, and what remains
/// stays in the bank. It must be a pure function of the account.
pub type Banker = fn(&Account<'_>) -> Vec<u64>;

/// A VM that has an account with the bank. All amounts are in base units on a host of rate 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// w_i, after its excess was deposited.
    pub share: u64,
    /// e_i: what it deposited in this decision.
    pub deposit: u64,
    /// u_i: what it used since the last decision.
    pub used: u64,
    /// f_i: what it lacks, as far as its host has room for it.
    pub shortage: u64,
    /// The number of its host, if that has a limit.
    host: Option<usize>,
}

/// What there is to be paid out, and to whom.
#[derive(Debug)]
pub struct Account<'a> {
    pub(super) balance: u64,
    pub(super) members: &'a [Member],
    pub(super) rooms: &'a Rooms,
}

impl Member {
    pub(super) fn new(peer: &Peer<'_>, rooms: &Rooms) -> Self {
        let worth = |amount| exchanged(amount, peer.rate, 1.0);
        let (deposit, room) = (peer.had.saturating_sub(peer.share), rooms.left(peer.host).unwrap_or(u64::MAX));
        Member {
            share: worth(peer.share),
            deposit: worth(deposit),
            used: worth(peer.used),
            shortage: worth(peer.lacking().min(room)),
            host: peer.host,
        }
    }
}

impl Account<'_> {
    /// E: what there is, in base units on a host of rate 1.
    pub fn balance(&self) -> u64 {
        self.balance
    }

    /// The VMs, by id.
    pub fn members(&self) -> &[Member] {
        self.members
    }

    /// F: the sum of the shortages.
    pub fn shortage(&self) -> u64 {
        self.members.iter().fold(0, |sum, member| sum.saturating_add(member.shortage))
    }

    /// What the host of a member has left for all its VMs together; `None`: no limit.
    pub fn room(&self, member: &Member) -> Option<u64> {
        self.rooms.left(member.host)
    }

    /// Divides `total` in proportion to `weights` (finite, not negative, one a member), in whole units. What a full host
    /// cannot take goes to the others. Nobody gets anything if no one has a weight.
    pub fn divide(&self, total: u64, weights: &[f64]) -> Vec<u64> {
        self.divide_into(total, weights, self.rooms)
    }

    fn divide_into(&self, total: u64, weights: &[f64], rooms: &Rooms) -> Vec<u64> {
        let claim = |(member, &weight): (&Member, &f64)| Claim { weight, floor: 0, host: member.host };
        let claims: Vec<_> = self.members.iter().zip(weights).map(claim).collect();
        divide(total, &claims, rooms).unwrap_or_else(|| vec![0; self.members.len()])
    }

    /// Adds to `payments` what is left of the balance, in proportion to what each member had before its deposit; in equal
    /// parts if no one had anything. The text says "proportionally distributed to all VMs", and not to what. In proportion
    /// to what they have after it, a VM that waits for others throughout one cycle would lose all it had, and would hold
    /// them up in the next one; under a steady load both ways come to the same shares, in proportion to use.
    pub fn and_the_rest(&self, mut payments: Vec<u64>) -> Vec<u64> {
        let mut rooms = self.rooms.clone();
        for (member, &payment) in self.members.iter().zip(&payments) {
            rooms.take(member.host, payment);
        }
        let paid = payments.iter().fold(0, |sum: u64, &payment| sum.saturating_add(payment));
        let had = |member: &Member| member.share.saturating_add(member.deposit) as f64;
        let mut weights: Vec<_> = self.members.iter().map(had).collect();
        if weights.iter().all(|&weight| weight == 0.0) {
            weights.fill(1.0);
        }
        let rest = self.divide_into(self.balance.saturating_sub(paid), &weights, &rooms);
        for (payment, more) in payments.iter_mut().zip(rest) {
            *payment += more;
        }
        payments
    }
}

/// Equation 5.2: s_i = min(f_i, f_i · E / F), and the rest to all in proportion to what they had.
pub(super) fn proportional(account: &Account<'_>) -> Vec<u64> {
    let weights: Vec<_> = account.members().iter().map(|member| member.shortage as f64).collect();
    let paid = account.divide(account.balance().min(account.shortage()), &weights);
    account.and_the_rest(paid.iter().zip(account.members()).map(|(&s, member)| s.min(member.shortage)).collect())
}

/// The smallest shortages first, in full as long as there is enough: max-min fairness. Then the rest as
/// [`proportional`] does.
pub(super) fn max_min(account: &Account<'_>) -> Vec<u64> {
    let members = account.members();
    let mut by_shortage: Vec<_> = (0..members.len()).filter(|&i| members[i].shortage > 0).collect();
    by_shortage.sort_by_key(|&i| members[i].shortage);
    let (mut balance, mut paid) = (account.balance(), vec![0; members.len()]);
    let mut waiting = by_shortage.len() as u64;
    for i in by_shortage {
        paid[i] = members[i].shortage.min(balance / waiting);
        balance -= paid[i];
        waiting -= 1;
    }
    account.and_the_rest(paid)
}

/// The bankers that can be named in configuration.
///
/// Another one is added in code, where the policies are put together:
///
/// ```
/// use vibra_policy::{Account, Bank, Bankers, Policies};
///
/// /// Everything to all alike, whatever they lack.
/// fn equal(account: &Account<'_>) -> Vec<u64> {
///     account.divide(account.balance(), &vec![1.0; account.members().len()])
/// }
///
/// let policies = Policies::shipped().with(Bank::NAME, |resource, parameters| {
///     let bankers = Bankers::shipped().with("equal", equal);
///     Ok(Box::new(Bank::build_with(&bankers, resource, parameters)?))
/// });
/// let parameters = serde_json::json!({ "banker": "equal" });
/// assert!(policies.build("dps-bank", vibra_model::Resource::Cpu, parameters).is_ok());
/// ```
#[derive(Clone)]
pub struct Bankers(BTreeMap<&'static str, Banker>);

impl Bankers {
    /// Those of this crate: `proportional` (equation 5.2) and `max-min`.
    pub fn shipped() -> Self {
        Bankers(BTreeMap::new()).with("proportional", proportional).with("max-min", max_min)
    }

    /// Adds a banker, or replaces the one of this name.
    #[must_use]
    pub fn with(mut self, name: &'static str, banker: Banker) -> Self {
        self.0.insert(name, banker);
        self
    }

    /// The banker of this name, or what is wrong with it.
    pub(super) fn named(&self, name: &str) -> Result<Banker, String> {
        let names = || self.0.keys().copied().collect::<Vec<_>>().join(", ");
        self.0.get(name).copied().ok_or_else(|| format!("there is no banker {name:?}: use one of {}", names()))
    }
}

impl fmt::Debug for Bankers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}
