//! What `vibra whatif` says.

use super::{HEADROOM, HITS, LONGEST_S, Row, Setup, log::Log};
use std::fmt::Write;
use vibra_report::{Column, Table, number};

/// A way's name.
pub(super) fn name(row: &Row) -> String {
    match row.replicas {
        Some(r) => format!("{} R={r} with {}", row.algorithm, row.policy),
        None => format!("{} with {}", row.algorithm, row.policy),
    }
}

fn mega(bytes: f64) -> String {
    if bytes >= 1e5 {
        format!("{} MB", number(Some(bytes / 1e6), 1))
    } else {
        format!("{} kB", number(Some(bytes / 1e3), 1))
    }
}

fn percent(share: f64) -> String {
    number(Some(100.0 * share), 1)
}

/// The whole report; the way at `best` is advised.
pub(super) fn report(setup: &Setup, log: &Log, rows: &[Row], best: usize) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(out, "{}\n{}\n{}\n{}", load(setup, log), cluster(setup), table(rows), advice(setup, rows, best));
    out
}

fn load(setup: &Setup, log: &Log) -> String {
    let seconds = setup.seconds.max(1.0);
    let reuse = &log.reuse;
    let first = reuse.first_accesses() as f64 / setup.requests as f64;
    format!(
        "The log: {}\n  {} requests for {} objects in {} s: {} a second, {}/s.\n  \
         The busiest {} s begin at {} s; their peak of ten seconds is {}/s.\n  \
         All objects together are {}. An LRU cache of {} has {:.0} % of all possible hits; {} % of the requests ask for \
         something for the first time.\n",
        setup.log,
        number(Some(setup.requests as f64), 0),
        number(Some(setup.objects as f64), 0),
        number(Some(setup.seconds), 0),
        number(Some(setup.requests as f64 / seconds), 1),
        mega(setup.bytes as f64 / seconds),
        setup.stretch.seconds,
        setup.stretch.from_s,
        mega(setup.size.peak_bytes_per_s),
        mega(reuse.distinct_bytes() as f64),
        mega(setup.size.working_set_bytes as f64),
        100.0 * HITS,
        percent(first),
    )
}

fn cluster(setup: &Setup) -> String {
    let size = &setup.size;
    format!(
        "The cluster: {} VMs with {}/s together (usually {HEADROOM} times the peak, and the longest answer in {LONGEST_S} s from each) and {} each (the working set twice, and \
         16 MiB for the system).\n  Simulated: the busiest {} s after a lead of {} s, {} times with other arrivals within \
         the log's seconds.\n",
        size.vms,
        mega(size.bandwidth_bytes_per_s as f64),
        mega(size.memory_per_vm_bytes as f64),
        setup.stretch.seconds,
        setup.stretch.lead_s,
        setup.seeds,
    )
}

fn table(rows: &[Row]) -> Table<10> {
    let mut table = Table::new([
        Column::left("algorithm"),
        Column::right("R"),
        Column::left("policy"),
        Column::right("mean ms"),
        Column::right("cost ms"),
        Column::right("p99 ms"),
        Column::right("unanswered %"),
        Column::right("hits %"),
        Column::right("cost against the first %"),
        Column::left("95 % interval"),
    ]);
    for row in rows {
        table.push([
            row.algorithm.clone(),
            row.replicas.map_or("-".into(), |replicas| replicas.to_string()),
            row.policy.to_owned(),
            number(row.mean_ms, 2),
            number(row.cost_ms, 2),
            number(row.p99_ms, 1),
            number(Some(100.0 * row.unanswered_share), 2),
            percent(row.hit_share),
            number(row.change.map(|change| 100.0 * change.value), 0),
            row.change.map_or("-".into(), |change| format!("{:.0} to {:.0}", 100.0 * change.low, 100.0 * change.high)),
        ]);
    }
    table
}

fn advice(setup: &Setup, rows: &[Row], best: usize) -> String {
    let mut out = format!(
        "The cost is the mean with 10 s for each request that was not answered, after which its client gave up.\nUse {}",
        setup.advice
    );
    let _ = match rows[best].change {
        None => writeln!(out, ": no other way is better by 2 % or more."),
        Some(change) => {
            let word = if change.value < 0.0 { "below" } else { "above" };
            let sure =
                if change.high < 0.0 { "That it is better is sure within the model" } else { "That may be chance" };
            writeln!(
                out,
                ": its cost is {:.0} % {word} that of {}. {sure}: the interval holds what other arrivals and other \
                 moments of the stretch make of it.",
                100.0 * change.value.abs(),
                setup.baseline
            )
        }
    };
    let _ = match setup.enough_bandwidth {
        Some(share) if share < 0.999 => writeln!(
            out,
            "With {:.0} % of the bandwidth it is still no slower than {} with all of it.",
            100.0 * share,
            setup.baseline
        ),
        Some(_) => writeln!(out, "With less bandwidth it would be slower than {} with all of it.", setup.baseline),
        None => writeln!(out, "It is no faster than {} with the same bandwidth.", setup.baseline),
    };
    out.push_str(
        "\nA replayed log is an open loop: its requests come when they came, however long answers take. Users would wait, \
         ask less, or leave; so where answers are slow the simulation is worse than what they would see, and it cannot say \
         how many more would come to a faster site. Requests that never reached the log, and bytes that it does not tell, \
         are not in it. Network, CPU and TCP are not modelled: what counts here is waiting for disks and bandwidth. Try \
         the advice live: `vibra replay` plays the same log against a cluster.\n",
    );
    out
}
