//! `vibra replay-decisions`: what other policies would have done where a live allocator decided.

use super::decision_log::{Place, amount, time};
use crate::{
    cli,
    exit::{Failure, Outcome},
};
use anyhow::{Context, anyhow};
use serde::Serialize;
use std::collections::BTreeMap;
use vibra_daemon::{Difference, Named, Recipe, Recorded, Replayer, Tally, Verdict, differences};
use vibra_model::{Resource, Timestamp};
use vibra_report::{Column, Table};

/// The whole result, as JSON has it.
#[derive(Default, Serialize)]
struct Report {
    /// Decisions that were made again.
    decisions: u64,
    /// Decisions whose inputs the log does not have any more.
    without_inputs: u64,
    recorded: Tally,
    other: Tally,
    /// Plans of the other policies that break rules.
    faulty: u64,
    differing: Vec<Differing>,
}

/// A decision on which both do not agree.
#[derive(Serialize)]
struct Differing {
    id: u64,
    at: Timestamp,
    differences: Vec<Difference>,
}

/// Replays the log and lists the differences.
pub(crate) fn run(args: &cli::ReplayDecisions) -> Outcome {
    let place = Place { log: args.log.as_deref(), config: &args.config, customer: args.customer.as_ref() };
    let mut lines = place.lines()?.peekable();
    let recorded = match lines.peek() {
        Some(Ok(line)) => match &line.recorded {
            Some(Recorded::Whole(whole)) => whole.recipe.clone(),
            _ => Recipe::default(),
        },
        _ => Recipe::default(),
    };
    let others = others(&args.policy, &recorded).map_err(Failure::Usage)?;
    // Bad names and parameters are found before anything is replayed.
    others.check().map_err(Failure::usage)?;
    let mut replayer = Replayer::new(others);
    let mut report = Report::default();
    for line in lines {
        let line = line?;
        let Some(decision) = replayer.play(&line)? else {
            report.without_inputs += u64::from(line.recorded.is_some());
            continue;
        };
        report.decisions += 1;
        report.recorded.count(&line.entry.plan);
        report.other.count(&decision.plan);
        report.faulty += u64::from(matches!(decision.verdict, Verdict::Faulty(_)));
        let differences = differences(&line.entry.plan, &decision.plan, &replayer.known().snapshot);
        if !differences.is_empty() {
            report.differing.push(Differing { id: line.entry.id, at: line.entry.at, differences });
        }
    }
    if report.decisions == 0 {
        return Err(anyhow!("no decision in the log has its inputs recorded").into());
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report, args.most);
    }
    Ok(())
}

/// What `--policy` means: a name for all that the log's policies divide, `RESOURCE=NAME`, or as in a configuration.
fn others(policies: &[String], recorded: &Recipe) -> anyhow::Result<Recipe> {
    let mut others = Recipe::default();
    let named = |name: &str| Named { policy: name.trim().to_owned(), parameters: serde_json::Map::new() };
    for text in policies {
        match text.split_once('=') {
            None => others.0.extend(recorded.0.keys().map(|&resource| (resource, named(text)))),
            Some((_, table)) if table.trim_start().starts_with('{') => {
                let read: Recipe = toml::from_str(text)
                    .with_context(|| format!("--policy {text:?}: write 'bandwidth = {{ policy = \"NAME\" }}'"))?;
                others.0.extend(read.0);
            }
            Some((resource, name)) => {
                let resource: Resource = resource.trim().parse().map_err(|why: String| anyhow!("--policy: {why}"))?;
                others.0.insert(resource, named(name));
            }
        }
    }
    Ok(others)
}

fn print(report: &Report, most: usize) {
    let mut table = Table::new([
        Column::right("decision"),
        Column::left("time"),
        Column::left("VM"),
        Column::left("what"),
        Column::right("had"),
        Column::right("recorded"),
        Column::right("other"),
    ]);
    let all: Vec<_> = report.differing.iter().flat_map(|one| one.differences.iter().map(move |d| (one, d))).collect();
    for (one, difference) in all.iter().take(most) {
        let (id, at) = (one.id.to_string(), time(one.at));
        table.push(match difference {
            Difference::Amount { vm, resource, has, recorded, other } => {
                let amount = |raw| amount(*resource, raw);
                [id, at, vm.to_string(), resource.to_string(), amount(*has), amount(*recorded), amount(*other)]
            }
            Difference::Place { vm, recorded, other } => {
                let place = |host: &Option<_>| host.as_ref().map_or("stays".to_owned(), ToString::to_string);
                [id, at, vm.to_string(), "host".to_owned(), String::new(), place(recorded), place(other)]
            }
        });
    }
    if !all.is_empty() {
        print!("{table}");
    }
    if all.len() > most {
        println!("… and {} more: --most N shows more of them, --json all", all.len() - most);
    }
    let Report { decisions, without_inputs, recorded, other, faulty, differing } = report;
    println!("{decisions} decisions, {} of them different", differing.len());
    println!("recorded: {}", tally(recorded));
    println!("other:    {}", tally(other));
    if *faulty > 0 {
        println!("{faulty} plans of the other policies break rules and would have been refused");
    }
    if *without_inputs > 0 {
        println!("{without_inputs} decisions could not be made again: the log does not have their inputs any more");
    }
}

fn tally(tally: &Tally) -> String {
    let moved: BTreeMap<_, _> = tally.moved.iter().filter(|(_, sum)| **sum > 0).collect();
    let moved: Vec<_> = moved.into_iter().map(|(&r, &sum)| format!("{} of {r} moved", amount(r, sum))).collect();
    let moved = if moved.is_empty() { "nothing moved".to_owned() } else { moved.join(", ") };
    let Tally { plans, changes, reversals, moves, .. } = tally;
    format!("{plans} plans with {changes} changes, {reversals} of them reversals, and {moves} migrations; {moved}")
}
