//! `vibra explain --decision`: what an allocator knew, planned and achieved, and what other policies would have done.

use super::decision_log::{Place, amount, time};
use crate::{
    cli,
    exit::{Failure, Outcome},
};
use anyhow::anyhow;
use serde::Serialize;
use std::collections::BTreeMap;
use vibra_daemon::{
    Difference, Entry, Line, Named, Player, Program, Recipe, Recorded, Replayer, Shadowed, Stage, Verdict, differences,
    policies,
};
use vibra_model::{CustomerId, Plan, Reason, Resource, UsageSample, Vm};
use vibra_report::{Column, Table};

/// All that is told of a decision, as JSON has it.
#[derive(Serialize)]
struct Explanation {
    decision: Entry,
    policies: Recipe,
    /// The customer's VMs, each with its newest sample; none where the inputs were not recorded.
    inputs: Vec<Input>,
    others: Vec<Other>,
}

#[derive(Serialize)]
struct Input {
    vm: Vm,
    newest: Option<UsageSample>,
}

/// What another policy would have planned.
#[derive(Serialize)]
struct Other {
    policies: String,
    /// `None` where it cannot divide that resource, or failed: then `why` tells.
    plan: Option<Plan>,
    faults: Vec<String>,
    /// Where it differs from what was planned.
    differences: Vec<Difference>,
    why: Option<String>,
}

/// Explains one decision from the log.
pub(crate) fn run(args: &cli::Explain, id: u64) -> Outcome {
    let place = Place { log: args.log.as_deref(), config: &args.config, customer: args.customer.as_ref() };
    let explanation = explain(place.lines()?, id)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&explanation)?);
    } else {
        print(&explanation);
    }
    Ok(())
}

fn explain(lines: impl Iterator<Item = anyhow::Result<Line>>, id: u64) -> Result<Explanation, Failure> {
    // Policies that keep averages need to see what came before: each is played from where the log begins.
    let (mut recorded, mut others) = (Recorder::default(), Vec::new());
    for line in lines {
        let line = line?;
        recorded.play(&line);
        if let (true, Some(Recorded::Whole(_))) = (others.is_empty(), &line.recorded) {
            others = rivals(&recorded.recipe);
        }
        let last = line.entry.id == id;
        let planned: Vec<_> = others.iter_mut().map(|rival| rival.play(&line, last)).collect();
        if last {
            let inputs = recorded.inputs();
            let others = planned.into_iter().flatten().collect();
            return Ok(Explanation { decision: line.entry, policies: recorded.recipe, inputs, others });
        }
    }
    Err(anyhow!("there is no decision {id} in the log, or not any more: `vibra replay-decisions` shows numbers").into())
}

/// What was known, as the log is read.
#[derive(Default)]
struct Recorder {
    player: Player,
    known: bool,
    recipe: Recipe,
    customer: Option<CustomerId>,
}

impl Recorder {
    fn play(&mut self, line: &Line) {
        self.known = line.recorded.as_ref().is_some_and(|recorded| self.player.play(line.entry.id, recorded));
        if let Some(Recorded::Whole(whole)) = &line.recorded {
            self.recipe = whole.recipe.clone();
            self.customer = Some(whole.customer.clone());
        }
    }

    fn inputs(&self) -> Vec<Input> {
        let Some(customer) = self.customer.as_ref().filter(|_| self.known) else { return Vec::new() };
        let vms = self.player.snapshot.vms_of(customer).cloned();
        vms.map(|vm| Input { newest: self.player.usage.samples(&vm.id).last().copied(), vm }).collect()
    }
}

/// Other policies for one resource; those of the others are as recorded.
struct Rival {
    policies: String,
    replayer: Result<Replayer, String>,
}

/// Each shipped policy, with its defaults, in the place of each recorded one.
fn rivals(recorded: &Recipe) -> Vec<Rival> {
    let names = policies().names();
    let others = recorded.0.iter().flat_map(|(&resource, named)| {
        let others = names.iter().filter(move |&&name| name != named.policy && name != Program::NAME);
        others.map(move |name| (resource, name))
    });
    others.map(|(resource, name)| Rival::new(resource, name)).collect()
}

impl Rival {
    fn new(resource: Resource, name: &str) -> Rival {
        let named = Named { policy: name.to_owned(), parameters: serde_json::Map::new() };
        let recipe = Recipe(BTreeMap::from([(resource, named)]));
        let right = recipe.check().map_err(|error| error.to_string());
        Rival { policies: recipe.names(), replayer: right.map(|()| Replayer::new(recipe)) }
    }

    /// Goes on to a line; what it would have planned there, if that is asked for.
    fn play(&mut self, line: &Line, asked: bool) -> Option<Other> {
        let decided = match &mut self.replayer {
            Ok(replayer) => replayer.play(line).map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        if let Err(why) = &decided {
            self.replayer = Err(why.clone());
        }
        let nothing = Other {
            policies: self.policies.clone(),
            plan: None,
            faults: Vec::new(),
            differences: Vec::new(),
            why: decided.as_ref().err().cloned(),
        };
        let known = self.replayer.as_ref().map(|replayer| &replayer.known().snapshot);
        asked.then(|| match (decided, known) {
            (Ok(Some(decision)), Ok(snapshot)) => Other {
                differences: differences(&line.entry.plan, &decision.plan, snapshot),
                faults: match decision.verdict {
                    Verdict::Faulty(faults) => faults.iter().map(ToString::to_string).collect(),
                    _ => Vec::new(),
                },
                plan: Some(decision.plan),
                ..nothing
            },
            _ => nothing,
        })
    }
}

fn print(explanation: &Explanation) {
    let Explanation { decision, policies, inputs, others } = explanation;
    let Entry { id, at, inputs: counts, plan, outcome, alarms, shadows } = decision;
    println!("decision {id} at {}: {}", time(*at), policies.names());
    println!(
        "made from revision {}: {} VMs, {} of them measured, {} samples",
        counts.revision, counts.vms, counts.measured, counts.samples
    );
    print_inputs(inputs);
    println!("\nplan");
    print_plan(plan, "  ");
    println!("\noutcome: {}", in_words(outcome));
    alarms.iter().for_each(|alarm| println!("alarm: {alarm}"));
    for Shadowed { policies, plan, faults } in shadows {
        println!("\nin the shadow, {policies}");
        print_plan(plan, "  ");
        faults.iter().for_each(|fault| println!("  would be refused: {fault}"));
    }
    for other in others {
        print_other(other);
    }
}

fn print_inputs(inputs: &[Input]) {
    if inputs.is_empty() {
        println!("what it was made from is not in the log");
        return;
    }
    let columns = ["VM", "host", "state"].map(Column::left).into_iter();
    let numbers = ["has", "uses bandwidth", "working set", "memory in use", "CPU"].map(Column::right);
    let columns: Vec<_> = columns.chain(numbers).collect();
    let mut table = Table::new(<[Column; 8]>::try_from(columns).expect("eight columns"));
    for Input { vm, newest } in inputs {
        let measured = |read: fn(&UsageSample) -> Option<String>| newest.as_ref().and_then(read).unwrap_or_default();
        table.push([
            vm.id.to_string(),
            vm.host.to_string(),
            format!("{:?}", vm.state).to_lowercase(),
            super::check::amounts(&vm.desired.resources),
            measured(|sample| Some(sample.egress?.to_string())),
            measured(|sample| Some(sample.working_set?.to_string())),
            measured(|sample| Some(sample.memory_in_use?.to_string())),
            measured(|sample| Some(format!("{:.0}m", sample.cpu()?))),
        ]);
    }
    print!("{table}");
}

fn print_plan(plan: &Plan, indent: &str) {
    if plan.actions.is_empty() && plan.moves.is_empty() {
        println!("{indent}nothing to change");
    }
    for action in &plan.actions {
        let (vm, resource) = (&action.change.vm, action.change.to.resource());
        let from = amount(resource, action.from);
        println!("{indent}{vm}: {resource} {from} -> {}: {}", action.change.to, reason(&action.reason));
    }
    for step in &plan.moves {
        println!("{indent}{}: host {} -> {}: {}", step.vm, step.from, step.to, reason(&step.reason));
    }
    for refusal in &plan.refusals {
        println!("{indent}{}: {} stays: {}", refusal.vm, refusal.resource, reason(&refusal.reason));
    }
}

fn print_other(other: &Other) {
    let Other { policies, plan, faults, differences, why } = other;
    let Some(plan) = plan else {
        let why = why.as_deref().unwrap_or("what it would decide from is not in the log");
        return println!("\n{policies}: {why}");
    };
    if differences.is_empty() {
        return println!("\n{policies} would have done the same");
    }
    println!("\n{policies} would have planned");
    // Of what it leaves as it is the reasons matter little here: --json has them.
    print_plan(&Plan { refusals: Vec::new(), ..plan.clone() }, "  ");
    faults.iter().for_each(|fault| println!("  which would be refused: {fault}"));
}

fn in_words(outcome: &vibra_daemon::Outcome) -> String {
    use vibra_daemon::Outcome;
    match outcome {
        Outcome::Move { decision, vm, from, to, stage } => {
            format!("VM {vm} moves from host {from} to host {to} by decision {decision}: {}", stage_in_words(stage))
        }
        Outcome::Accepted { revision } => format!("accepted, at revision {revision}"),
        Outcome::Nothing => "there was nothing to change".to_owned(),
        Outcome::DryRun => "a dry run: nothing was changed".to_owned(),
        Outcome::Held { why } => format!("no decision: {why}"),
        Outcome::Stale { why } => format!("too late: {why}"),
        Outcome::Faulty { faults } => format!("refused by the plan checker: {}", faults.join("; ")),
        Outcome::Refused { why } => format!("refused by the directory: {why}"),
        Outcome::Failed { why } => format!("failed: {why}"),
    }
}

fn stage_in_words(stage: &Stage) -> String {
    match stage {
        Stage::Begun => "it begins".to_owned(),
        Stage::Done { took_ms } => format!("done after {took_ms} ms"),
        Stage::Failed { why, left_out: 0 } => format!("failed: {why}"),
        Stage::Failed { why, left_out } => format!("failed: {why}; {left_out} more moves are left out"),
    }
}

/// A rule with its numbers.
fn reason(reason: &Reason) -> String {
    let facts: Vec<_> = reason.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
    if facts.is_empty() { reason.rule.to_string() } else { format!("{} ({})", reason.rule, facts.join(", ")) }
}
