//! Least-connection and its weighted form.

use crate::{
    candidates::{Candidates, Loads, best},
    circle::Circle,
    turn::Turn,
};

/// The servers with the fewest active requests; among equals, the one whose turn it is, so that an idle cluster is
/// used evenly.
pub(crate) fn least_connection(
    turn: &Turn,
    circle: &Circle,
    count: usize,
    loads: &(impl Loads + ?Sized),
) -> Candidates {
    let servers = turn.order(circle, circle.servers()).iter().map(|&server| server as usize);
    best(servers, count, |server| loads.active(server))
}
