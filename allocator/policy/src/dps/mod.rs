//! DPS: shares that VMs of one customer do not use go to those that lack them (chapter 5).
//!
//! | symbol | here | unit |
//! | --- | --- | --- |
//! | W | the customer's bound | the resource's base unit |
//! | w_i | what VM_i shall have | the same |
//! | u_i | what VM_i used since the last decision: the mean of its samples, rounded up | the same |
//! | e_i | its excess, max(w_i − u_i, 0), but never what its floor needs | the same |
//! | f_i | its shortage, min(u_i − w_i, r_j) | the same |
//! | r_j | what host j has left | the same |
//! | P, wh_i | the number of VM_i's upstream VMs; the part of the excess that VM_i withholds | |
//! | E, F | the bank's balance; the sum of the shortages | the base unit on a host of rate 1 |
//! | T, B | the time between exchanges, and between the bank's: both are the allocator's interval | |
//!
//! - [`Distributed`] (`dps-distributed`, section 5.3.3): each VM sends a part of its excess to each of the VMs that it
//!   waits for, s_i = e_i · (1 − wh_i) / P (equation 5.1).
//! - [`Bank`] (`dps-bank`, section 5.3.4): every excess goes to a bank, and a [`Banker`] pays shortages from it,
//!   s_i = min(f_i, f_i · E / F) (equation 5.2; the text prints "max", and its example, 0.17 · 0.3 / 0.6 = 0.085, is the
//!   minimum). What is left goes to all VMs in proportion to what they had.
//!
//! A host takes no more than it has left; what it refuses stays with the sender, or in the bank. A host that had to
//! refuse is a bottleneck: with `migrate` its least used VM goes to the least used host.
//!
//! What the directory adds to the text: floors; VMs that are down or were not measured since the last decision take no
//! part; amounts are whole numbers. The bank's account is what the directory has not allocated of the bound, so that
//! nothing is lost when an allocator fails, and a failed VM's share comes to the others.

mod bank;
mod banker;
mod distributed;
mod meter;
mod migrate;
mod peers;
mod rates;
mod upstream;

#[cfg(test)]
mod tests;

pub use bank::{Bank, BankParameters};
pub use banker::{Account, Banker, Bankers, Member};
pub use distributed::{Distributed, DistributedParameters};
pub use rates::ExchangeRates;
pub use upstream::{EXPIRY, Upstream};
