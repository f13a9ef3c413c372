//! Servers for tests.

use crate::Server;
use vibra_model::VmState;

/// Servers `s1`, `s2`, … of weight 1, up or down.
pub(crate) fn servers(up: &[bool]) -> Vec<Server> {
    let state = |up: bool| if up { VmState::Up } else { VmState::Down };
    let server = |(i, up)| Server::new(format!("s{}", i + 1).parse().expect("an id"), 1, state(up));
    up.iter().copied().enumerate().map(server).collect()
}
