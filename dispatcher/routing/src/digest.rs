//! The digest by which two dispatchers see that they have the same table.

use crate::{
    cluster::Server,
    settings::{LardSettings, Settings, SlotSettings},
};
use std::fmt::Write as _;
use vibra_model::VmState;
use xxhash_rust::xxh3::xxh3_128;

/// XXH3_128bits over everything that a pick depends on, written out: the settings, and the servers in order with their
/// weights, states and warmths. The directory's revision is not part of it: tables of two revisions may well be the same.
pub(crate) fn digest(settings: &Settings, servers: &[Server]) -> u128 {
    // Whole, so that a new setting cannot be forgotten here.
    let Settings { algorithm, hash, replicas, remap, fallbacks, lard, slots, balance } = settings;
    let LardSettings { t_low, t_high, k_s, objects } = lard;
    let SlotSettings { per_server, interval_ms } = slots;
    let mut text = format!(
        "table 2\n{algorithm} {hash} {replicas} {remap} {fallbacks}\n\
         lard {t_low} {t_high} {k_s} {objects}\nslots {per_server} {interval_ms}\nbalance {:x}\n",
        balance.to_bits()
    );
    for Server { name, weight, state, warmth } in servers {
        // A name has no blank or line break, so no two clusters are written alike. Writing to a string cannot fail.
        let _ = writeln!(text, "{name} {weight} {} {}", state_name(*state), warmth.get());
    }
    xxh3_128(text.as_bytes())
}

/// A state's name, as the directory writes it.
pub(crate) fn state_name(state: VmState) -> &'static str {
    match state {
        VmState::Starting => "starting",
        VmState::Up => "up",
        VmState::Draining => "draining",
        VmState::Warming => "warming",
        VmState::Down => "down",
    }
}
