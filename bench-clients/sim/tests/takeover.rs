//! Resources follow objects: those that a policy gives a failed VM's resources to are those that the dispatcher sends its
//! objects to. Policies and routing do not know each other; this holds them to it.

use proptest::prelude::*;
use std::collections::BTreeSet;
use vibra_model::{Revision, Timestamp, VmState};
use vibra_policy::takeover::heirs;
use vibra_routing::{Cluster, HashKind, Idle, PickState, Server, Settings, Table};

/// Enough names that each of a few sub-namespaces has some.
const NAMES: usize = 400;

fn table(present: &[bool], replicas: usize) -> Table {
    let server = |(number, &present): (usize, &bool)| {
        let state = if present { VmState::Up } else { VmState::Down };
        Server::new(format!("vm{number}").parse().unwrap(), 1, state)
    };
    let servers = present.iter().enumerate().map(server).collect();
    let settings = Settings { replicas, hash: HashKind::Charsum, fallbacks: 0, ..Settings::default() };
    Table::build(&Cluster { revision: Revision(1), servers }, &settings).unwrap()
}

/// The servers of an object: its subset of R.
fn subset(table: &Table, name: &str) -> BTreeSet<usize> {
    table.pick(&mut PickState::default(), name, &Idle, Timestamp(0)).iter().copied().collect()
}

/// Who serves objects with `left` that he did not serve with `all`; those of `absent`, if one is named.
fn newcomers(all: &Table, left: &Table, absent: Option<usize>) -> BTreeSet<usize> {
    let names = (0..NAMES).map(|number| format!("/{number}"));
    let subsets = names.map(|name| (subset(all, &name), subset(left, &name)));
    let concerned = subsets.filter(|(before, _)| absent.is_none_or(|absent| before.contains(&absent)));
    concerned.flat_map(|(before, after)| after.difference(&before).copied().collect::<Vec<_>>()).collect()
}

proptest! {
    #[test]
    fn heirs_are_whom_the_dispatcher_sends_the_objects_to(
        present in prop::collection::vec(prop::bool::weighted(0.7), 2..9),
        replicas in 1usize..5,
    ) {
        let available = present.iter().filter(|&&present| present).count();
        // With fewer than R, all that are left serve everything.
        let replicas = replicas.min(available);
        prop_assume!(available > 0);
        let all = table(&vec![true; present.len()], replicas);
        let left = table(&present, replicas);
        let heirs = heirs(&present, replicas);
        let together: BTreeSet<usize> = heirs.concat().into_iter().collect();
        prop_assert_eq!(together, newcomers(&all, &left, None));
        for (absent, heirs) in heirs.iter().enumerate().filter(|(vm, _)| !present[*vm]) {
            prop_assert_eq!(heirs.len(), replicas, "1/R each");
            let own: BTreeSet<usize> = heirs.iter().copied().collect();
            prop_assert!(own.is_subset(&newcomers(&all, &left, Some(absent))), "VM {}: {:?}", absent, own);
        }
    }
}
