//! Hosts that fall silent, restarts, failing and stalling stores.

mod support;

use async_trait::async_trait;
use hyper::StatusCode;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use support::*;
use tokio::{sync::Semaphore, time::timeout};
use vibra_model::{api::WatchLine, *};
use vibra_server::{Config, Server, StartError, Tokens};
use vibra_store::*;

/// The next commit that changes the host `name`, and the host's state after it.
async fn host_change(watch: &mut Lines, name: &str) -> (Event, HostState) {
    loop {
        let event = watch.event().await;
        let state = event.changes.iter().find_map(|change| match change {
            Change::Host(host) if host.id.as_str() == name => Some(host.state),
            _ => None,
        });
        if let Some(state) = state {
            return (event, state);
        }
    }
}

#[tokio::test]
async fn a_silent_host_is_down_with_its_vms_until_it_reports_again() {
    const SILENCE: Duration = Duration::from_millis(400);
    let config = Config { silence: SILENCE, ..config(Arc::new(MemoryStore::new())) };
    let server = Server::start(config).await.unwrap();
    let mut operator = Client::new(server.address(), "operator").await;
    operator.put("/v1/customers", &customer("shop", 40)).await.revision();
    operator.put("/v1/hosts", &host("h1")).await.revision();
    operator.put("/v1/vms", &vm("a", "shop", "h1", 1)).await.revision();
    let spoke = Instant::now();
    let up = operator.post("/v1/usage", &alive("h1", &["a"])).await.revision();
    let mut watch = Client::new(server.address(), "reader").await.watch(up).await;

    let (event, state) = host_change(&mut watch, "h1").await;
    assert_eq!(state, HostState::Down);
    assert!(spoke.elapsed() >= SILENCE, "too early: {:?}", spoke.elapsed());
    assert_eq!(event.changes.len(), 2, "host and VM in one commit: {event:?}");
    let vm = operator.snapshot().await.vm(&id("a")).unwrap().clone();
    assert_eq!((vm.state, vm.desired(Resource::Bandwidth)), (VmState::Down, Some(1)));

    operator.post("/v1/usage", &alive("h1", &["a"])).await.revision();
    assert_eq!(host_change(&mut watch, "h1").await.1, HostState::Up);
    assert_eq!(operator.snapshot().await.vm(&id("a")).unwrap().state, VmState::Up);
}

#[tokio::test]
async fn a_restart_keeps_directory_and_revision_and_gives_hosts_a_full_deadline() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("directory.redb");
    let server = Server::start(config(Arc::new(RedbStore::open(&path).unwrap()))).await.unwrap();
    let mut operator = Client::new(server.address(), "operator").await;
    operator.register_shop().await;
    let before = operator.snapshot().await;
    drop(operator);
    server.stop().await.unwrap();

    const SILENCE: Duration = Duration::from_millis(400);
    let started = Instant::now();
    let config = Config { silence: SILENCE, ..config(Arc::new(RedbStore::open(&path).unwrap())) };
    let server = Server::start(config).await.unwrap();
    let mut operator = Client::new(server.address(), "operator").await;
    let mut watch = Client::new(server.address(), "reader").await.watch(before.revision()).await;
    let after = operator.snapshot().await;
    if after.revision() == before.revision() {
        assert_eq!(after, before);
    } else {
        assert!(started.elapsed() >= SILENCE, "changed by nobody: {after:?}");
    }
    host_change(&mut watch, "h1").await;
    assert!(started.elapsed() >= SILENCE, "too early: {:?}", started.elapsed());
    drop((operator, watch));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn of_two_servers_on_one_store_the_displaced_one_cannot_write() {
    let store = Arc::new(MemoryStore::new());
    let mut first = Server::start(config(store.clone())).await.unwrap();
    let mut to_first = Client::new(first.address(), "operator").await;
    to_first.put("/v1/customers", &customer("one", 1)).await.revision();
    let second = Server::start(config(store.clone())).await.unwrap();
    let mut to_second = Client::new(second.address(), "operator").await;
    to_second.put("/v1/customers", &customer("two", 1)).await.revision();

    let answer = to_first.put("/v1/customers", &customer("three", 1)).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    let why = timeout(PATIENCE, first.failed()).await.unwrap().to_string();
    assert!(why.contains("taken over"), "{why}");
    assert_eq!(to_first.get("/v1/health").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(to_first.put("/v1/customers", &customer("four", 1)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let known: Vec<_> = to_second.snapshot().await.customers().map(|customer| customer.id.to_string()).collect();
    assert_eq!(known, ["one", "two"]);
    drop(to_first);
    assert!(first.stop().await.is_err());
}

/// A store that commits only when it is let, and fails when it is told.
#[derive(Debug, Default)]
struct Moody {
    inner: MemoryStore,
    /// One permit for each group.
    leave: Option<Semaphore>,
    failing: AtomicBool,
}

#[async_trait]
impl Store for Moody {
    async fn contents(&self) -> Result<Contents, StoreError> {
        self.inner.contents().await
    }

    async fn commit(&self, group: Vec<Transaction>) -> Result<Vec<Outcome>, StoreError> {
        if let Some(leave) = &self.leave {
            leave.acquire().await.unwrap().forget();
        }
        if self.failing.load(Ordering::SeqCst) {
            return Err(StoreError::Failed { place: "the disk".into(), source: "it is full".into() });
        }
        self.inner.commit(group).await
    }

    async fn watch(&self, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(from).await
    }

    async fn grant(&self, length: Duration, now: Timestamp) -> Result<LeaseId, StoreError> {
        self.inner.grant(length, now).await
    }

    async fn keep_alive(&self, lease: LeaseId, now: Timestamp) -> Result<(), StoreError> {
        self.inner.keep_alive(lease, now).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<Revision, StoreError> {
        self.inner.revoke(lease).await
    }

    async fn expire(&self, now: Timestamp) -> Result<Vec<LeaseId>, StoreError> {
        self.inner.expire(now).await
    }
}

#[tokio::test]
async fn what_is_not_durable_is_neither_answered_nor_shown_and_a_full_queue_says_so() {
    let store = Arc::new(Moody { leave: Some(Semaphore::new(0)), ..Moody::default() });
    let server = Server::start(Config { queue: 2, ..config(store.clone()) }).await.unwrap();
    let address = server.address();
    let put = |n: u64| async move {
        let mut operator = Client::new(address, "operator").await;
        operator.put("/v1/customers", &customer(&format!("c{n}"), 1)).await
    };
    // The writer takes one and waits for the disk; two find room in the queue, one does not.
    let mut all: Vec<_> = (0..4).map(|n| tokio::spawn(put(n))).collect();
    let refused = timeout(PATIENCE, async {
        loop {
            if let Some(at) = all.iter().position(|task| task.is_finished()) {
                break all.remove(at).await.unwrap();
            }
            // One may be taken between the others, so that all four find room: one more then finds none.
            if all.len() < 6 {
                all.push(tokio::spawn(put(all.len() as u64 + 4)));
            }
            tokio::task::yield_now().await;
        }
    });
    let refused = refused.await.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    assert_eq!(refused.headers["retry-after"], "1");
    let mut reader = Client::new(address, "reader").await;
    assert_eq!(reader.snapshot().await.revision(), Revision(0));
    store.leave.as_ref().unwrap().add_permits(100);
    let mut revisions = Vec::new();
    for task in all {
        let answer = task.await.unwrap();
        if answer.status == StatusCode::OK {
            revisions.push(answer.revision());
        }
    }
    revisions.sort();
    assert_eq!(revisions, (1..=revisions.len() as u64).map(Revision).collect::<Vec<_>>());
    assert!(!revisions.is_empty());
    assert_eq!(reader.snapshot().await.revision(), *revisions.last().unwrap());
}

#[tokio::test]
async fn a_failed_store_ends_the_writing_but_not_the_reading() {
    let store = Arc::new(Moody::default());
    let mut server = Server::start(config(store.clone())).await.unwrap();
    let mut operator = Client::new(server.address(), "operator").await;
    operator.put("/v1/customers", &customer("one", 1)).await.revision();
    store.failing.store(true, Ordering::SeqCst);
    let answer = operator.put("/v1/customers", &customer("two", 1)).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.message().contains("it is full") && answer.message().contains("not known"), "{answer:?}");
    let why = timeout(PATIENCE, server.failed()).await.unwrap().to_string();
    assert!(why.contains("it is full"), "{why}");
    assert_eq!(operator.snapshot().await.customers().len(), 1);
    let mut watch = Client::new(server.address(), "reader").await.watch(Revision(1)).await;
    assert_eq!(watch.next().await, Some(WatchLine::Alive(Revision(1))));
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let store = || Arc::new(MemoryStore::new());
    let running = start().await;
    let taken = Server::start(Config { listen: running.address(), ..config(store()) }).await.unwrap_err();
    assert!(matches!(taken, StartError::Listen { .. }), "{taken}");
    let nobody = Server::start(Config { tokens: Tokens::new(), ..config(store()) }).await.unwrap_err();
    assert!(nobody.to_string().contains("tokens"), "{nobody}");
    let hasty = Server::start(Config { silence: Duration::ZERO, ..config(store()) }).await.unwrap_err();
    assert!(hasty.to_string().contains("silence"), "{hasty}");
    let foreign = store();
    let write = Write::Put { key: "vm/a".into(), value: "{}".into(), lease: None };
    foreign.commit(vec![Transaction { compare: vec![], writes: vec![write] }]).await.unwrap();
    let unreadable = Server::start(config(foreign)).await.unwrap_err();
    assert!(unreadable.to_string().contains("\"vm/a\""), "{unreadable}");
}
