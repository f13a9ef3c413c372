//! Logs of live allocators on paused time, decided again.

use super::*;
use crate::{Allocator, Clock, Mode, Outcome, Settings, Shadow, read_log, testing::*};
use serde_json::json;
use std::{path::Path, sync::Arc};
use tokio::{sync::oneshot, time::Instant};
use vibra_client::FakeDirectory;
use vibra_model::{Command, Timestamp};

fn recipe(policies: serde_json::Value) -> Recipe {
    serde_json::from_value(policies).unwrap()
}

fn proportional_recipe() -> Recipe {
    recipe(json!({ "bandwidth": { "policy": "proportional", "alpha": 0.5, "safety": { "hold": "4s" } } }))
}

/// Runs an allocator over demands that swing, and returns what it logged. `settings` names the log.
async fn run(directory: &FakeDirectory, settings: Settings, shadows: Vec<(&str, Recipe)>, intervals: u64) -> Vec<Line> {
    let began = Instant::now();
    let clock: Clock = Arc::new(move || Timestamp(1_000_000_000).after(began.elapsed()));
    let core = Core::new(id("shop"), settings.recipe.build(TIME_LIMIT).unwrap());
    let log = settings.log_file.clone().unwrap();
    let interval = settings.interval;
    let shadow = |(name, recipe): (&str, Recipe)| Shadow {
        policies: name.to_owned(),
        core: Core::new(id("shop"), recipe.build(TIME_LIMIT).unwrap()),
    };
    let settings = Settings { clock: clock.clone(), ..settings };
    let shadows = shadows.into_iter().map(shadow).collect();
    let allocator = Allocator::new(Arc::new(directory.clone()), core, settings).with_shadows(shadows);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(allocator.run(async { drop(stopped.await) }));
    for round in 0..intervals {
        let hot = if round % 5 < 3 { 900 } else { 200 };
        directory.run(Command::Report(report(clock(), &[("hot", hot), ("cold", 1000 - hot)]))).unwrap();
        tokio::time::sleep(interval).await;
    }
    stop.send(()).unwrap();
    running.await.unwrap();
    read_log(&log).unwrap().map(Result::unwrap).collect()
}

fn settings(log: &Path) -> Settings {
    Settings { log_file: Some(log.to_owned()), recipe: proportional_recipe(), ..Settings::default() }
}

#[tokio::test(start_paused = true)]
async fn the_same_policies_decide_the_same_from_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let lines = run(&directory(), settings(&folder.path().join("log")), vec![], 30).await;
    let mut replayer = Replayer::new(Recipe::default());
    let mut changed = 0;
    for line in &lines {
        let decision = replayer.play(line).unwrap();
        assert_eq!(decision.map(|decision| decision.plan).unwrap_or_default(), line.entry.plan, "{line:?}");
        changed += u32::from(!line.entry.plan.actions.is_empty());
    }
    assert!(changed > 5, "{changed} plans of {}", lines.len());
    assert!(lines.iter().any(|line| line.entry.plan.refusals.iter().any(|r| r.reason.rule.contains("not long ago"))));
}

#[tokio::test(start_paused = true)]
async fn another_policys_differences_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let lines = run(&directory(), settings(&folder.path().join("log")), vec![], 10).await;
    let others = recipe(json!({ "bandwidth": { "policy": "proportional", "alpha": 0.0 } }));
    let (mut replayer, mut other, mut real) = (Replayer::new(others), Tally::default(), Tally::default());
    let mut differing = 0;
    for line in &lines {
        let Some(decision) = replayer.play(line).unwrap() else { continue };
        let found = differences(&line.entry.plan, &decision.plan, &replayer.known().snapshot);
        differing += usize::from(!found.is_empty());
        other.count(&decision.plan);
        real.count(&line.entry.plan);
        if let Some(Difference::Amount { vm, resource, has, recorded, other }) = found.first() {
            assert_eq!((vm.as_str(), *resource), ("cold", Resource::Bandwidth));
            let planned = |plan: &Plan| amounts(plan).get(&(vm, *resource)).copied().unwrap_or(*has);
            assert_eq!((*recorded, *other), (planned(&line.entry.plan), planned(&decision.plan)));
        }
    }
    assert!(differing >= 2, "{lines:#?}");
    assert!(other.changes > real.changes && real.changes > 0, "{other:?} {real:?}");
    let mut same = Replayer::new(recipe(json!({ "bandwidth": { "policy": "static" } })));
    assert!(lines.iter().all(|line| same.play(line).unwrap().is_none_or(|decision| decision.plan.actions.is_empty())));
}

#[tokio::test(start_paused = true)]
async fn there_is_a_dry_run_that_decides_and_logs_and_changes_nothing() {
    let (folder, directory) = (tempfile::tempdir().unwrap(), directory());
    let settings = Settings { mode: Mode::DryRun, ..settings(&folder.path().join("log")) };
    let lines = run(&directory, settings, vec![], 5).await;
    assert!(lines.iter().any(|line| line.entry.outcome == Outcome::DryRun && line.entry.plan.actions.len() == 2));
    assert!(lines.iter().all(|line| !matches!(line.entry.outcome, Outcome::Accepted { .. })));
    assert!(directory.commands().is_empty(), "{:?}", directory.commands());
}

#[tokio::test(start_paused = true)]
async fn policies_in_the_shadow_decide_are_logged_and_change_nothing() {
    let (folder, directory) = (tempfile::tempdir().unwrap(), directory());
    let settings = Settings {
        recipe: recipe(json!({ "bandwidth": { "policy": "static" } })),
        ..settings(&folder.path().join("log"))
    };
    let shadows = vec![("proportional for bandwidth", proportional_recipe())];
    let lines = run(&directory, settings, shadows, 5).await;
    let shadowed: Vec<_> = lines.iter().flat_map(|line| &line.entry.shadows).collect();
    assert!(shadowed.len() >= 4 && shadowed.iter().all(|shadow| shadow.policies == "proportional for bandwidth"));
    assert!(shadowed.iter().any(|shadow| shadow.plan.actions.len() == 2), "{shadowed:#?}");
    assert!(directory.commands().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_allocator_that_starts_again_takes_over_its_state_and_its_numbers() {
    let (folder, directory) = (tempfile::tempdir().unwrap(), directory());
    let state_file = folder.path().join("state.json");
    let settings = Settings { state_file: Some(state_file.clone()), ..settings(&folder.path().join("log")) };
    let first = run(&directory, settings.clone(), vec![], 4).await;
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(&state_file).unwrap()).unwrap();
    assert!(state["bandwidth:proportional"]["policy"]["hot"]["demand"].as_f64().is_some_and(|d| d > 0.0), "{state}");
    let both = run(&directory, settings.clone(), vec![], 2).await;
    let again = &both[first.len()];
    assert_eq!(again.entry.id, first.last().unwrap().entry.id + 1);
    let Some(Recorded::Whole(whole)) = &both[first.len()..].iter().find_map(|line| line.recorded.as_ref()) else {
        panic!("{again:?}")
    };
    assert_eq!(whole.state.as_ref(), Some(&state));
    // What is no state does not keep it from working.
    std::fs::write(&state_file, "{").unwrap();
    let all = run(&directory, settings, vec![], 2).await;
    assert!(all.len() > both.len());
}
