//! Programs that do as they should, and programs that do not.

use super::*;
use crate::testing::*;
use vibra_model::Snapshot;

/// A program that runs this shell script.
fn shell(script: &str, timeout: &str) -> Program {
    Program::build(Resource::Bandwidth, json!({ "command": ["sh", "-c", script], "timeout": timeout })).unwrap()
}

fn attempt(program: &mut Program, snapshot: &Snapshot, second: u64) -> Result<Plan, Failure> {
    let (shop, usage) = (id("shop"), usage(second, &[("hot", 900), ("cold", 100)]));
    program.attempt(&View::new(snapshot, &shop, &usage), Timestamp(second * 1_000_000))
}

fn passing(attempted: Result<Plan, Failure>) -> String {
    match attempted {
        Err(Failure::Passing(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_sees_the_view_and_its_answer_is_a_plan() {
    let snapshot = directory().now();
    let base = snapshot.revision();
    // It answers what it was asked in a refusal's reason.
    let script = r#"read ask; text=$(echo "$ask" | tr '"' "'")
        echo "{\"base\": 4, \"actions\": [{\"vm\": \"cold\", \"to\": 100, \"reason\": \"idle\"}, {\"vm\": \"hot\", \"to\": 500, \"reason\": \"as it is\"}], \"refusals\": [{\"vm\": \"hot\", \"reason\": \"$text\"}], \"state\": 7}"
        read ask; echo "{\"base\": 4, \"refusals\": [{\"vm\": \"hot\", \"reason\": \"$(echo "$ask" | tr '"' "'")\"}]}""#;
    let mut program = shell(script, "60s");
    let plan = attempt(&mut program, &snapshot, 3).unwrap();
    assert_eq!(plan.base, base);
    let action = &plan.actions[0];
    assert_eq!((plan.actions.len(), action.from, action.change.to.raw()), (1, 500, 100));
    let asked: Value = serde_json::from_str(&plan.refusals[0].reason.rule.replace('\'', "\"")).unwrap();
    assert_eq!(
        (&asked["resource"], &asked["now"], &asked["bound"]),
        (&json!("bandwidth"), &json!(3_000_000), &json!(1000))
    );
    assert_eq!((&asked["hosts"][0]["id"], &asked["hosts"][0]["room"]), (&json!("h"), &Value::Null));
    assert_eq!(
        (&asked["vms"][0]["id"], &asked["vms"][0]["desired"]["resources"]["bandwidth"]),
        (&json!("cold"), &json!(500))
    );
    assert_eq!(asked["usage"]["hot"][0]["egress"], 900);
    assert_eq!(asked["state"], Value::Null);
    assert_eq!(program.save(), json!(7));
    let plan = attempt(&mut program, &snapshot, 6).unwrap();
    assert!(plan.refusals[0].reason.rule.contains("'state':7"), "{plan:?}");
}

#[test]
fn a_program_that_fails_is_started_again_after_a_pause_that_doubles_and_at_last_never() {
    let snapshot = directory().now();
    let mut program = shell("exit 3", "60s");
    for (second, pause) in [(10, 1), (11, 2), (13, 4), (17, 8)] {
        let why = passing(attempt(&mut program, &snapshot, second));
        assert!(why.contains(&format!("started again in {pause} s")), "{why}");
        let waits = passing(attempt(&mut program, &snapshot, second));
        assert!(waits.contains("started again soon"), "{waits}");
    }
    let last = attempt(&mut program, &snapshot, 25).unwrap_err();
    assert!(matches!(&last, Failure::Lasting(why) if why.contains("5 failures in a row")), "{last:?}");
}

#[test]
fn a_program_that_is_late_dies_or_talks_nonsense_has_no_plan() {
    let snapshot = directory().now();
    for (script, timeout, says) in [
        ("read ask; read never", "50ms", "no answer within 50 ms"),
        ("read ask; printf '{'", "60s", "in the middle of an answer"),
        ("read ask; echo '{\"base\": 1, \"action\": []}'", "60s", "unknown field `action`"),
        ("read ask; echo 5", "60s", "is no answer"),
    ] {
        let why = passing(attempt(&mut shell(script, timeout), &snapshot, 1));
        assert!(why.contains(says), "{script}: {why}");
    }
    let mut missing = Program::build(Resource::Bandwidth, json!({ "command": ["/no/such/program"] })).unwrap();
    let why = passing(attempt(&mut missing, &snapshot, 1));
    assert!(why.contains("cannot start \"/no/such/program\""), "{why}");
}

#[test]
fn after_a_success_failures_are_counted_anew() {
    let snapshot = directory().now();
    // Each run answers once and ends.
    let mut program = shell("read ask; echo '{\"base\": 4}'", "60s");
    for round in 0..2 * u64::from(FAILURES) {
        assert!(attempt(&mut program, &snapshot, 100 * round).is_ok());
        assert!(passing(attempt(&mut program, &snapshot, 100 * round + 1)).contains("in 1 s"));
    }
}

#[test]
fn a_table_without_a_command_is_refused() {
    for table in
        [json!({}), json!({ "command": [] }), json!({ "command": ["sh"], "timeout": "0s" }), json!({ "cmd": [] })]
    {
        assert!(Program::build(Resource::Bandwidth, table.clone()).is_err(), "{table}");
    }
}
