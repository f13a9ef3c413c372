//! Watches: nothing missing, nothing twice, and a clear end for who is too late.

mod support;

use hyper::StatusCode;
use std::{sync::Arc, time::Duration};
use support::*;
use tokio::time::timeout;
use vibra_model::{api::WatchLine, *};
use vibra_server::{Config, Server};
use vibra_store::MemoryStore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_every_commit_once_and_in_order() {
    const WRITERS: u64 = 4;
    const EACH: u64 = 40;
    let server = start().await;
    let address = server.address();
    let early = Client::new(address, "reader").await.watch(Revision(0)).await;
    let writers = (0..WRITERS).map(|writer| async move {
        let mut operator = Client::new(address, "operator").await;
        for n in 1..=EACH {
            operator.put("/v1/customers", &customer(&format!("c{writer}"), n)).await.revision();
        }
    });
    let late = async {
        let mut reader = Client::new(address, "reader").await;
        let snapshot = reader.snapshot().await;
        let watch = reader.watch(snapshot.revision()).await;
        follow(snapshot, watch, WRITERS * EACH).await
    };
    let writing = futures_util::future::join_all(writers);
    let (_, first, second) = tokio::join!(writing, follow(Snapshot::default(), early, WRITERS * EACH), late);
    let now = Client::new(address, "reader").await.snapshot().await;
    assert_eq!(now.revision(), Revision(WRITERS * EACH));
    // As records: when a customer's allocations last changed is known to who followed alone.
    let records = |snapshot: &Snapshot| serde_json::to_value(snapshot).unwrap();
    assert_eq!(records(&first), records(&now));
    assert_eq!(records(&second), records(&now));
}

/// What one knows who begins with `snapshot` and follows the watch to revision `last`.
async fn follow(mut snapshot: Snapshot, mut watch: Lines, last: u64) -> Snapshot {
    while snapshot.revision() < Revision(last) {
        let event = watch.event().await;
        assert_eq!(event.revision, snapshot.revision().next());
        snapshot.apply(event.revision, &event.changes);
    }
    snapshot
}

#[tokio::test]
async fn an_answered_command_is_seen_by_every_reader() {
    let server = start().await;
    let mut operator = Client::new(server.address(), "operator").await;
    let mut reader = Client::new(server.address(), "reader").await;
    for n in 1..=600 {
        let revision = operator.put("/v1/customers", &customer("c", n)).await.revision();
        if n % 7 == 0 {
            assert_eq!(reader.snapshot().await.revision(), revision);
        }
    }
}

#[tokio::test]
async fn a_quiet_watch_says_that_it_is_alive() {
    let server = start().await;
    let mut watch = Client::new(server.address(), "reader").await.watch(Revision(0)).await;
    assert_eq!(watch.next().await, Some(WatchLine::Alive(Revision(0))));
    let mut operator = Client::new(server.address(), "operator").await;
    operator.put("/v1/customers", &customer("c", 1)).await.revision();
    assert_eq!(watch.event().await.revision, Revision(1));
    assert_eq!(watch.next().await, Some(WatchLine::Alive(Revision(1))));
}

#[tokio::test]
async fn a_revision_that_is_forgotten_or_yet_to_come_is_gone() {
    let config = Config { history: 300, ..config(Arc::new(MemoryStore::new())) };
    let server = Server::start(config).await.unwrap();
    let mut operator = Client::new(server.address(), "operator").await;
    for n in 1..=20 {
        operator.put("/v1/customers", &customer("c", n)).await.revision();
    }
    for (from, word) in [(0, "forgotten"), (10, "forgotten"), (21, "does not exist yet"), (u64::MAX, "not exist")] {
        let answer = operator.get(&format!("/v1/watch?from={from}")).await;
        assert_eq!(answer.status, StatusCode::GONE, "{from}");
        assert!(answer.message().contains(word), "{answer:?}");
    }
    operator.watch(Revision(19)).await.event().await;
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_to_begin_anew() {
    // The sockets between hold at most some MB; the history far less.
    let config = Config { history: 100_000, ..config(Arc::new(MemoryStore::new())) };
    let server = Server::start(config).await.unwrap();
    let mut operator = Client::new(server.address(), "operator").await;
    operator.put("/v1/customers", &customer("shop", u64::MAX)).await.revision();
    operator.put("/v1/hosts", &host("h1")).await.revision();
    for n in 0..100 {
        operator.put("/v1/vms", &vm(&format!("vm-{n}"), "shop", "h1", n)).await.revision();
    }
    let names: Vec<_> = (0..100).map(|n| format!("vm-{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let start = operator.snapshot().await.revision();
    let mut watch = Client::narrow(server.address(), "reader").await.watch(start).await;
    // Each of these commits has some 40 kB; nobody reads.
    let mut newest = start;
    for n in 0..300 {
        let mut report = alive("h1", &names);
        if n % 2 == 1 {
            report.vms.iter_mut().for_each(|told| told.state = Some(VmState::Warming));
        }
        newest = operator.post("/v1/usage", &report).await.revision();
    }
    let mut last = start;
    let ended = loop {
        match watch.next().await {
            Some(WatchLine::Event(event)) => {
                assert_eq!(event.revision, last.next());
                last = event.revision;
            }
            Some(WatchLine::Alive(_)) => {}
            other => break other,
        }
    };
    assert_eq!(ended, Some(WatchLine::Resync(newest)));
    assert_eq!(watch.next().await, None, "the stream ends");
    assert!(last < newest);
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let server = start().await;
    let mut watch = Client::new(server.address(), "reader").await.watch(Revision(0)).await;
    let idle = Client::new(server.address(), "reader").await;
    timeout(Duration::from_secs(4), server.stop()).await.expect("it waits for nobody who idles").unwrap();
    assert_eq!(watch.next().await, None);
    drop(idle);
}
