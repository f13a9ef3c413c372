//! The follower on paused time, against a directory that fails on request.

use super::*;
use crate::{FakeDirectory, Operation};
use vibra_model::{Command, Customer, Resources};

fn broken() -> ClientError {
    ClientError::Unreachable { address: "fake".into(), source: "connection refused".into() }
}

fn add_customer(directory: &FakeDirectory, name: &str) {
    let customer = Customer { id: name.parse().unwrap(), bounds: Resources::NONE };
    directory.run(Command::PutCustomer(customer)).unwrap();
}

/// Waits until the follower's snapshot is the directory's.
async fn caught_up(follower: &Follower, directory: &FakeDirectory) {
    let now = directory.now();
    let mut snapshots = follower.snapshots();
    let same = snapshots.wait_for(|snapshot| **snapshot == now);
    tokio::time::timeout(Duration::from_secs(60), same).await.expect("it catches up").unwrap();
}

async fn lost(follower: &Follower, times: u32) {
    let mut link = follower.link();
    let lost = link.wait_for(|link| matches!(link, Link::Lost { failures, .. } if *failures == times));
    tokio::time::timeout(Duration::from_secs(60), lost).await.expect("it notices").unwrap();
}

#[tokio::test(start_paused = true)]
async fn every_commit_arrives() {
    let directory = FakeDirectory::new();
    let follower = follow(Arc::new(directory.clone()));
    assert_eq!(follower.current().await.revision().0, 0);
    for number in 0..1000 {
        add_customer(&directory, &format!("c{number}"));
    }
    caught_up(&follower, &directory).await;
    assert_eq!(*follower.link().borrow(), Link::Live);
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_after_every_kind_of_failure() {
    let directory = FakeDirectory::new();
    let follower = follow(Arc::new(directory.clone()));
    follower.current().await;
    for (number, cut) in [FakeDirectory::break_watches, FakeDirectory::outrun_watches].iter().enumerate() {
        directory.hold_watches();
        add_customer(&directory, &format!("lost{number}"));
        cut(&directory);
        directory.release_watches();
        caught_up(&follower, &directory).await;
    }
    for operation in [Operation::Snapshot, Operation::Watch] {
        directory.fail(operation, broken());
        directory.break_watches();
        add_customer(&directory, &format!("after-{operation:?}"));
        caught_up(&follower, &directory).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_gone_is_asked_ever_less_often() {
    let directory = FakeDirectory::new();
    for _ in 0..20 {
        directory.fail(Operation::Snapshot, broken());
    }
    let began = Instant::now();
    let follower = follow(Arc::new(directory.clone()));
    lost(&follower, 2).await;
    assert!(began.elapsed() < Duration::from_millis(20), "the first new attempt is at once: {:?}", began.elapsed());
    lost(&follower, 3).await;
    assert!((100..120).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert!(matches!(&*follower.link().borrow(), Link::Lost { why, .. } if why.contains("connection refused")));
    follower.current().await;
    // 0, then 0.1, 0.2, … 3.2 s, then 5 s for each of the remaining 13 failures.
    let expected = Duration::from_millis(6_300 + 13 * 5_000);
    assert!((expected..expected + Duration::from_millis(100)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn failures_after_a_good_while_are_counted_anew() {
    let directory = FakeDirectory::new();
    directory.fail(Operation::Snapshot, broken());
    directory.fail(Operation::Snapshot, broken());
    let follower = follow(Arc::new(directory.clone()));
    follower.current().await;
    tokio::time::sleep(LONGEST_BACK_OFF * 2).await;
    directory.fail(Operation::Snapshot, broken());
    directory.break_watches();
    lost(&follower, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_lagging_watch_leaves_the_snapshot_as_it_was() {
    let directory = FakeDirectory::new();
    let follower = follow(Arc::new(directory.clone()));
    follower.current().await;
    directory.hold_watches();
    add_customer(&directory, "late");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(follower.current().await.revision().0, 0);
    directory.release_watches();
    caught_up(&follower, &directory).await;
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_follower() {
    let follower = follow(Arc::new(FakeDirectory::new()));
    let mut snapshots = follower.snapshots();
    drop(follower);
    let closed = async { while snapshots.changed().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(1), closed).await.expect("the sender is gone");
}
