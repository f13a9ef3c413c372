//! Single decisions, on passed time.

use super::*;
use crate::testing::*;
use vibra_model::Resource;

fn later(duration: Duration) -> Timestamp {
    Timestamp(1_000_000).after(duration)
}

#[test]
fn a_decision_names_what_it_was_made_from() {
    let snapshot = directory().now();
    let usage = usage(7, &[("hot", 900), ("cold", 100), ("stranger", 5)]);
    let decision = Core::new(id("shop"), proportional()).step(&snapshot, &usage, later(SECOND));
    let expected =
        Inputs { revision: snapshot.revision(), vms: 2, measured: 2, samples: 2, newest: Some(Timestamp(7)) };
    assert_eq!(decision.inputs, expected);
    let Verdict::Propose(checked) = decision.verdict else { panic!("{decision:?}") };
    let goals: Vec<_> = checked.proposal().changes.iter().map(|change| change.to.raw()).collect();
    assert_eq!(goals, [100, 900]);
}

#[test]
fn without_news_nothing_is_decided() {
    let snapshot = directory().now();
    let mut core = Core::new(id("shop"), proportional());
    assert_eq!(core.step(&snapshot, &UsageWindow::default(), later(SECOND)).verdict, Verdict::TooOld);
    let usage = usage(7, &[("hot", 900), ("cold", 100)]);
    for (wait, decides) in [(Duration::ZERO, true), (SILENCE, true), (SILENCE + SECOND, false)] {
        // The window repeats the samples; they are no news.
        let verdict = core.step(&snapshot, &usage, later(wait)).verdict;
        assert_eq!(verdict != Verdict::TooOld, decides, "after {wait:?}");
    }
}

/// The host of "hot" has a clock that is far ahead, and then is heard of no more.
#[test]
fn one_clock_that_is_ahead_does_not_make_the_others_old() {
    let snapshot = directory().now();
    let mut core = Core::new(id("shop"), proportional());
    core.step(&snapshot, &usage(1_000_000_000, &[("hot", 900)]), later(Duration::ZERO));
    for second in 1..30 {
        let news = usage(1_000 + second, &[("cold", 100)]);
        let verdict = core.step(&snapshot, &news, later(SECOND * second as u32)).verdict;
        assert_ne!(verdict, Verdict::TooOld, "after {second} s");
    }
}

#[test]
fn a_policy_that_panics_is_replaced() {
    let snapshot = directory().now();
    let mut core = Core::new(id("shop"), scripted(|_| panic!("division by zero")));
    let decision = core.step(&snapshot, &usage(7, &[("hot", 9)]), later(SECOND));
    assert_eq!((decision.alarms.len(), &decision.verdict), (1, &Verdict::Nothing));
    assert!(decision.alarms[0].contains("scripted") && decision.alarms[0].contains("division by zero"));
    let decision = core.step(&snapshot, &usage(8, &[("hot", 9)]), later(SECOND));
    assert_eq!((decision.alarms.len(), &decision.verdict), (0, &Verdict::Nothing));
    assert!(core.save().as_object().unwrap().contains_key("bandwidth:static"));
}

#[test]
fn a_plan_that_breaks_rules_is_not_proposed() {
    let snapshot = directory().now();
    let mut core = Core::new(id("shop"), scripted(|view| single(view.snapshot().revision(), "hot", 501)));
    let decision = core.step(&snapshot, &usage(7, &[("hot", 9)]), later(SECOND));
    assert!(matches!(&decision.verdict, Verdict::Faulty(faults) if faults.len() == 1), "{decision:?}");
    let mut core = Core::new(id("shop"), scripted(|view| single(view.snapshot().revision(), "hot", 399)));
    core = core.with_max_step(0.1);
    let decision = core.step(&snapshot, &usage(7, &[("hot", 9)]), later(SECOND));
    assert!(matches!(&decision.verdict, Verdict::Faulty(faults) if matches!(faults[..], [Fault::LargeStep { .. }])));
}

#[test]
fn another_allocator_takes_over_where_the_first_stopped() {
    let snapshot = directory().now();
    let mut first = Core::new(id("shop"), proportional());
    first.step(&snapshot, &usage(7, &[("hot", 900), ("cold", 100)]), later(SECOND));
    let mut second = Core::new(id("shop"), proportional());
    second.restore(&first.save()).unwrap();
    let next = usage(8, &[("hot", 100), ("cold", 100)]);
    let (one, other) = (first.step(&snapshot, &next, later(SECOND)), second.step(&snapshot, &next, later(SECOND)));
    assert_eq!(one, other);
    assert_eq!(one.plan.actions[1].change.to, Resource::Bandwidth.amount(891), "820 of 920");
}
