//! Every endpoint over a real socket: what it does, who may, and what is wrong with a request.

mod support;

use hyper::{Method, StatusCode};
use std::sync::Arc;
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use vibra_client::{Directory, HttpDirectory};
use vibra_model::{api::ErrorBody, *};
use vibra_server::{Config, Server};
use vibra_store::MemoryStore;

#[tokio::test]
async fn every_command_is_carried_out() {
    let server = start().await;
    let mut operator = Client::new(server.address(), "operator").await;
    let revision = operator.register_shop().await;
    let snapshot = operator.snapshot().await;
    assert_eq!(snapshot.revision(), revision);
    assert_eq!((snapshot.customers().len(), snapshot.hosts().len(), snapshot.vms().len()), (2, 2, 3));
    assert_eq!(snapshot.vm(&id("a")).unwrap().state, VmState::Up);

    let proposed = operator.propose(revision, vec![change("a", 25), change("b", 15)]).await.revision();
    assert_eq!(proposed, revision.next());
    operator.put("/v1/vms/a/state", &VmState::Draining).await.revision();
    operator.delete("/v1/vms/c").await.revision();
    let last = operator.delete("/v1/customers/other").await.revision();
    let snapshot = operator.snapshot().await;
    assert_eq!(snapshot.revision(), last);
    assert_eq!(snapshot.vm(&id("a")).unwrap().desired(Resource::Bandwidth), Some(25));
    assert_eq!(snapshot.vm(&id("a")).unwrap().state, VmState::Draining);
    assert_eq!((snapshot.customers().len(), snapshot.vms().len()), (1, 2));
    // What is so already costs no revision.
    assert_eq!(operator.put("/v1/customers", &customer("shop", 40)).await.revision(), last);
    operator.delete("/v1/vms/b").await.revision();
    operator.delete("/v1/hosts/h2").await.revision();
    assert!(operator.snapshot().await.host(&id("h2")).is_none());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_client_of_this_program_understands_the_server() {
    let server = start().await;
    let directory = HttpDirectory::new(&server.address().to_string(), "operator").unwrap();
    directory.command(Command::PutCustomer(customer("shop", 40))).await.unwrap();
    let mut watch = directory.watch(Revision(1)).await.unwrap();
    let accepted = directory.command(Command::PutHost(host("h1"))).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, accepted.revision);
    assert_eq!(directory.snapshot().await.unwrap().revision(), accepted.revision);
    let rejected = directory.command(Command::RemoveVm(id("nobody"))).await.unwrap_err();
    assert!(matches!(rejected, vibra_client::ClientError::Rejected(Rejection::Refused { .. })), "{rejected}");
    drop((watch, directory));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn usage_is_kept_of_the_vms_on_the_reporting_host() {
    let server = start().await;
    let mut operator = Client::new(server.address(), "operator").await;
    let revision = operator.register_shop().await;
    let sample = |at, requests| UsageSample { at: Timestamp(at), requests: Some(requests), ..UsageSample::default() };
    let report = |at| {
        let told =
            |vm| VmReport { vm: id(vm), usage: Some(sample(at, at * 10)), applied: None, state: None, level: None };
        UsageReport { host: id("h1"), vms: vec![told("a"), told("b"), told("nobody")] }
    };
    for at in [1, 2, 3] {
        // It changes no record, so no revision either.
        assert_eq!(operator.post("/v1/usage", &report(at)).await.revision(), revision);
    }
    let window: UsageWindow = operator.get("/v1/usage?since=1").await.json();
    assert_eq!(window.samples(&id("a")), [sample(2, 20), sample(3, 30)]);
    assert_eq!(window.0.len(), 1, "only a is on h1: {window:?}");
    assert_eq!(operator.get("/v1/usage").await.json::<UsageWindow>().samples(&id("a")).len(), 3);
    operator.delete("/v1/vms/a").await.revision();
    assert!(operator.get("/v1/usage").await.json::<UsageWindow>().0.is_empty());
}

#[tokio::test]
async fn each_role_may_do_its_own_and_no_more() {
    let server = start().await;
    let mut operator = Client::new(server.address(), "operator").await;
    let base = operator.register_shop().await;
    let own = serde_json::to_vec(&Proposal { base, changes: vec![change("a", 10)] }).unwrap();
    let foreign = serde_json::to_vec(&Proposal { base, changes: vec![change("a", 10), change("c", 10)] }).unwrap();
    let mine = serde_json::to_vec(&alive("h1", &["a"])).unwrap();
    let other_host = serde_json::to_vec(&alive("h2", &["b"])).unwrap();
    let other_vm = serde_json::to_vec(&alive("h1", &["a", "b"])).unwrap();
    let state = serde_json::to_vec(&VmState::Up).unwrap();
    let shop = serde_json::to_vec(&customer("shop", 40)).unwrap();
    let h1 = serde_json::to_vec(&host("h1")).unwrap();
    let a = serde_json::to_vec(&vm("a", "shop", "h1", 1)).unwrap();
    let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
    // Method, path, body; then who may, besides the operator.
    let cases: Vec<(&Method, &str, Vec<u8>, &[&str])> = vec![
        (&get, "/v1/snapshot", vec![], &["shop", "h1", "reader"]),
        (&get, "/v1/usage", vec![], &["shop", "h1", "reader"]),
        (&post, "/v1/proposals", own, &["shop"]),
        (&post, "/v1/proposals", foreign, &[]),
        (&post, "/v1/usage", mine, &["h1"]),
        (&post, "/v1/usage", other_host, &[]),
        (&post, "/v1/usage", other_vm, &[]),
        (&put, "/v1/customers", shop, &[]),
        (&put, "/v1/hosts", h1, &[]),
        (&put, "/v1/vms", a, &[]),
        (&put, "/v1/vms/a/state", state, &[]),
        (&delete, "/v1/vms/nobody", vec![], &[]),
        (&delete, "/v1/hosts/nobody", vec![], &[]),
        (&delete, "/v1/customers/nobody", vec![], &[]),
    ];
    for bearer in ["operator", "shop", "h1", "reader"] {
        let mut client = Client::new(server.address(), bearer).await;
        for (method, path, body, may) in &cases {
            let status = client.send((*method).clone(), path, body.clone()).await.status;
            let expected = match bearer == "operator" || may.contains(&bearer) {
                true if path.ends_with("nobody") => StatusCode::UNPROCESSABLE_ENTITY,
                true => StatusCode::OK,
                false => StatusCode::FORBIDDEN,
            };
            assert_eq!(status, expected, "{bearer}: {method} {path} {}", String::from_utf8_lossy(body));
        }
    }
    assert_eq!(operator.snapshot().await.revision(), base, "nothing of this changes anything");
}

#[tokio::test]
async fn without_a_known_token_there_is_only_health() {
    let server = start().await;
    for token in ["", "stranger", "operator2", "OPERATOR"] {
        let mut client = Client::new(server.address(), token).await;
        for path in ["/v1/snapshot", "/v1/watch?from=0", "/v1/usage"] {
            let answer = client.get(path).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token:?} {path}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            assert!(token.is_empty() || !answer.message().contains(token), "{answer:?}");
        }
        assert_eq!(client.put("/v1/customers", &customer("x", 1)).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(client.get("/v1/health").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_refused_batch_changes_nothing_and_says_why() {
    let server = start().await;
    let mut operator = Client::new(server.address(), "operator").await;
    let base = operator.register_shop().await;
    let before = operator.snapshot().await;
    let answer = operator.propose(base, vec![change("a", 35), change("b", 10), change("nobody", 1)]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let Some(Rejection::Refused { violations }) = answer.json::<ErrorBody>().rejection else { panic!("{answer:?}") };
    assert!(violations.iter().any(|v| matches!(v, Violation::BoundExceeded { .. })), "{violations:?}");
    assert!(violations.iter().any(|v| matches!(v, Violation::UnknownVm { .. })), "{violations:?}");
    assert_eq!(operator.snapshot().await, before);

    operator.propose(base, vec![change("a", 20), change("b", 20)]).await.revision();
    let answer = operator.propose(base, vec![change("a", 5)]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let stale = answer.json::<ErrorBody>().rejection;
    assert_eq!(stale, Some(Rejection::Stale { base, changed: base.next() }));
}

#[tokio::test]
async fn malformed_requests_are_refused_with_what_is_wrong() {
    let server = start().await;
    let mut operator = Client::new(server.address(), "operator").await;
    let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
    let (bad, missing, method) = (StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED);
    let cases: &[(&Method, &str, &str, StatusCode, &str)] = &[
        (&put, "/v1/customers", "{\"id\":\"shop\",\n \"bounds\":{,}}", bad, "line 2 column"),
        (&put, "/v1/customers", "", bad, "line 1 column 0"),
        (&put, "/v1/customers", r#"{"id":"shop","bounds":{},"x":1}"#, bad, "unknown field `x`"),
        (&put, "/v1/customers", r#"{"id":"a/b","bounds":{}}"#, bad, "is no id"),
        (&put, "/v1/customers", r#"{"id":"a","bounds":{"bandwidth":-1}}"#, bad, "invalid value"),
        (&put, "/v1/customers", "{\"id\":\"\u{0}\"}", bad, "line 1"),
        (&post, "/v1/usage", "[[[[", bad, "line 1"),
        (&post, "/v1/proposals", r#"{"base":0,"changes":[]} trailing"#, bad, "trailing"),
        (&put, "/v1/vms/a/state", "\"flying\"", bad, "unknown variant"),
        (&delete, "/v1/vms/a%20b", "", bad, "is no id"),
        (&delete, "/v1/vms/%ff", "", bad, "UTF-8"),
        (&get, "/v1/watch", "", bad, "from"),
        (&get, "/v1/watch?from=x", "", bad, "from"),
        (&get, "/v1/usage?since=-1", "", bad, "since"),
        (&get, "/v1/usage?until=1", "", bad, "until"),
        (&get, "/v1/nothing", "", missing, "/v1/nothing"),
        (&get, "/v2/snapshot", "", missing, "/v2/snapshot"),
        (&get, "/", "", missing, "/v1"),
        (&post, "/v1/snapshot", "", method, "POST"),
        (&delete, "/v1/health", "", method, "DELETE"),
    ];
    for (method, path, body, status, word) in cases {
        let answer = operator.send((*method).clone(), path, body.to_string()).await;
        assert_eq!(answer.status, *status, "{method} {path} {body:?}: {answer:?}");
        assert!(answer.message().contains(word), "{method} {path} {body:?}: {answer:?}");
    }
    assert_eq!(operator.snapshot().await.revision(), Revision(0));
}

#[tokio::test]
async fn bodies_are_bounded_one_by_one_and_together() {
    let config = Config { largest_body: 1000, bodies: 1500, ..config(Arc::new(MemoryStore::new())) };
    let server = Server::start(config).await.unwrap();
    let mut operator = Client::new(server.address(), "operator").await;
    let answer = operator.send(Method::PUT, "/v1/customers", vec![b' '; 1001]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.message().contains("1000 bytes"), "{answer:?}");
    // Without a length told, and too long.
    let mut endless = raw(&server, "PUT /v1/hosts", "Transfer-Encoding: chunked\r\n").await;
    endless.write_all(format!("3e9\r\n{}\r\n", "x".repeat(1001)).as_bytes()).await.unwrap();
    let answer = head(&mut endless).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    // One that promises 900 bytes and sends none of them takes the room of the next; when it is gone there is room.
    let mut operator = Client::new(server.address(), "operator").await;
    let greedy = raw(&server, "PUT /v1/hosts", "Content-Length: 900\r\n").await;
    let refused = answered(&mut operator, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(refused.headers["retry-after"], "1");
    drop(greedy);
    answered(&mut operator, StatusCode::BAD_REQUEST).await;
}

/// Sends a body of 800 spaces until the answer has `status`.
async fn answered(client: &mut Client, status: StatusCode) -> Answer {
    let asking = async {
        loop {
            let answer = client.send(Method::PUT, "/v1/customers", vec![b' '; 800]).await;
            if answer.status == status {
                return answer;
            }
        }
    };
    timeout(PATIENCE, asking).await.unwrap()
}

/// A connection with the head of a request, as an operator.
async fn raw(server: &vibra_server::Handle, what: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = format!("{what} HTTP/1.1\r\nHost: d\r\nAuthorization: Bearer operator\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// What comes first from the server.
async fn head(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 1024];
    let read = timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test]
async fn garbage_and_broken_connections_do_no_harm() {
    let server = start().await;
    for text in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "PUT /v1/hosts HTTP/1.1\r\nContent-Length: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{text:?}: {answer}");
    }
    let mut stream = raw(&server, "PUT /v1/customers", "Content-Length: 100\r\n").await;
    stream.write_all(b"{\"id\":").await.unwrap();
    drop(stream);
    let mut operator = Client::new(server.address(), "operator").await;
    assert_eq!(operator.put("/v1/customers", &customer("shop", 1)).await.revision(), Revision(1));
}
