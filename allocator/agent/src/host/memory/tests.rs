//! The rule under scripted VMs, and its laws under arbitrary ones.

use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// A VM that follows at once and has nothing to complain of, until told otherwise.
fn seen(ms: u64, actual: u64, in_use: u64) -> Seen {
    let signs = Signs { stalled: Some(Duration::ZERO), refaults: Some(0), ..Signs::default() };
    let mib = |amount: u64| Bytes(amount * MIB);
    Seen { at: Duration::from_millis(ms), actual: mib(actual), in_use: mib(in_use), floor: mib(8), signs }
}

fn mib(next: Next) -> Option<u64> {
    match next {
        Next::Ask(amount) | Next::Revert(amount, _) => Some(amount.0 / MIB),
        _ => None,
    }
}

#[test]
fn memory_that_holds_nothing_goes_at_once() {
    let mut shrink = Shrink::new(Bytes(48 * MIB));
    assert_eq!(mib(shrink.next(seen(0, 256, 40))), Some(48));
    assert_eq!(shrink.next(seen(100, 48, 40)), Next::Watch);
    assert_eq!(shrink.next(seen(200, 48, 40)), Next::Done);
}

#[test]
fn what_is_used_goes_in_steps_after_a_look_at_what_is_usual() {
    let mut shrink = Shrink::new(Bytes(60 * MIB));
    assert_eq!(shrink.next(seen(0, 128, 100)), Next::Watch);
    assert_eq!(mib(shrink.next(seen(200, 128, 100))), Some(84));
    assert_eq!(mib(shrink.next(seen(400, 84, 84))), Some(68));
    assert_eq!(mib(shrink.next(seen(600, 68, 68))), Some(60));
    assert_eq!(shrink.next(seen(800, 60, 60)), Next::Done);
    let mut large = Shrink::new(Bytes(60 * MIB));
    large.next(seen(0, 4096, 3200));
    assert_eq!(mib(large.next(seen(200, 4096, 3200))), Some(3000), "a sixteenth");
}

#[test]
fn pressure_takes_the_last_step_back_and_gives_a_rest() {
    let mut shrink = Shrink::new(Bytes(60 * MIB));
    shrink.next(seen(0, 128, 100));
    shrink.next(seen(200, 128, 100));
    assert_eq!(mib(shrink.next(seen(400, 84, 84))), Some(68));
    let mut strained = seen(600, 68, 68);
    strained.signs.stalled = Some(Duration::from_millis(50));
    let next = shrink.next(strained);
    let Next::Revert(to, pain) = next else { panic!("{next:?}") };
    assert_eq!(to, Bytes(84 * MIB));
    assert_eq!(pain.to_string(), "25 % of the time waiting for memory, and 0 before");
    assert_eq!(shrink.next(seen(5_000, 84, 84)), Next::Rest(Duration::from_millis(10_600)));
    assert_eq!(shrink.next(seen(10_600, 84, 84)), Next::Watch, "it tries again");
    assert_eq!(mib(shrink.next(seen(10_800, 84, 84))), Some(68));
}

#[test]
fn what_was_there_before_is_no_reason_to_stop() {
    let mut shrink = Shrink::new(Bytes(60 * MIB));
    let busy = |ms: u64, actual, refaults| {
        let seen = seen(ms, actual, actual);
        Seen { signs: Signs { refaults: Some(refaults), ..seen.signs }, ..seen }
    };
    shrink.next(busy(0, 80, 0));
    // 10,000 a second, as always, and 100 a second more.
    assert_eq!(mib(shrink.next(busy(200, 80, 2_000))), Some(64));
    assert_eq!(mib(shrink.next(busy(400, 64, 4_020))), Some(60));
    assert!(matches!(shrink.next(busy(600, 60, 6_500)), Next::Revert(..)));
}

#[test]
fn an_actuator_that_does_not_follow_is_stuck() {
    let mut shrink = Shrink::new(Bytes(60 * MIB));
    shrink.next(seen(0, 80, 80));
    assert_eq!(mib(shrink.next(seen(200, 80, 80))), Some(64));
    // It begins to follow, and stands still.
    assert_eq!(shrink.next(seen(400, 76, 76)), Next::Watch);
    assert_eq!(shrink.next(seen(2_300, 76, 76)), Next::Watch);
    assert_eq!(shrink.next(seen(2_500, 76, 76)), Next::Stuck(Bytes(64 * MIB)));
    assert_eq!(shrink.next(seen(2_700, 76, 76)), Next::Rest(Duration::from_millis(12_500)));
    assert_eq!(shrink.next(seen(12_500, 64, 64)), Next::Watch);
    assert_eq!(mib(shrink.next(seen(12_700, 64, 64))), Some(60), "it moved after all");
}

#[test]
fn the_floor_is_never_crossed() {
    let mut shrink = Shrink::new(Bytes(4 * MIB));
    shrink.next(seen(0, 16, 16));
    assert_eq!(mib(shrink.next(seen(200, 16, 16))), Some(8));
    assert_eq!(shrink.next(seen(400, 8, 8)), Next::Done);
}

proptest! {
    /// Whatever a VM does and says: nothing is asked for below target and floor, no step is larger than is allowed, and
    /// what is reverted to is no less than what is in force.
    #[test]
    fn laws_of_shrinking(
        target in 0..300u64,
        moments in prop::collection::vec((1..3_000u64, 0..300u64, 0..300u64, 0..50u64, 0..500u64), 1..60),
    ) {
        let mut shrink = Shrink::new(Bytes(target * MIB));
        let (mut ms, mut stalled) = (0, 0);
        for (later, actual, in_use, floor, stall) in moments {
            ms += later;
            stalled += stall;
            let mut now = seen(ms, actual, in_use);
            now.floor = Bytes(floor * MIB);
            now.signs.stalled = Some(Duration::from_millis(stalled));
            match shrink.next(now) {
                Next::Ask(amount) => {
                    prop_assert!(amount.0 >= target * MIB && amount.0 >= floor * MIB);
                    let step = actual.min(in_use) * MIB - amount.0.min(actual.min(in_use) * MIB);
                    prop_assert!(step <= STEP.0.max(in_use * MIB / PART), "{step}");
                }
                Next::Revert(amount, _) => prop_assert!(amount >= now.actual),
                Next::Rest(until) => prop_assert!(until > now.at && until <= now.at + REST),
                Next::Watch | Next::Done | Next::Stuck(_) => {}
            }
        }
    }

    /// A VM that follows and does not complain gets there.
    #[test]
    fn a_willing_vm_gets_there(start in 1..2_000u64, target in 0..2_000u64, in_use in 0..2_000u64, floor in 0..100u64) {
        let mut shrink = Shrink::new(Bytes(target * MIB));
        let (mut actual, mut steps) = (Bytes(start * MIB), 0);
        loop {
            let mut now = seen(steps * 200, 0, 0);
            (now.actual, now.floor) = (actual, Bytes(floor * MIB));
            now.in_use = actual.min(Bytes(in_use * MIB));
            match shrink.next(now) {
                Next::Ask(amount) => actual = amount,
                Next::Watch => {}
                Next::Done => break,
                other => prop_assert!(false, "{:?}", other),
            }
            steps += 1;
            prop_assert!(steps < 200);
        }
        prop_assert!(actual <= Bytes(target.max(floor) * MIB) || actual == Bytes(start * MIB));
        prop_assert!(actual >= Bytes(start.min(target.max(floor)) * MIB));
    }
}
