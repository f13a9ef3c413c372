//! The HTTP client against a server that says what the test wants, byte by byte.

use super::*;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use vibra_model::{Change, Customer, Proposal, Rejection, Resources, Violation, VmState};

const QUICK: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    answer: Duration::from_millis(200),
    silence: Duration::from_millis(200),
};

/// What the server does with one request.
enum Reply {
    /// Sends this and keeps the connection for the next request.
    Answer(String),
    /// Sends these pieces one by one and closes the connection.
    Pieces(Vec<Vec<u8>>),
    /// Sends this, and then nothing until the client closes the connection.
    Stall(String),
}

/// A server that answers requests in turn with `script`; its task returns the requests as it received them.
async fn serve(script: Vec<Reply>) -> (HttpDirectory, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut requests = Vec::new();
        let mut kept: Option<BufReader<TcpStream>> = None;
        for reply in script {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => BufReader::new(listener.accept().await.unwrap().0),
            };
            requests.push(request(&mut stream).await);
            match reply {
                Reply::Answer(text) => {
                    stream.write_all(text.as_bytes()).await.unwrap();
                    kept = Some(stream);
                }
                Reply::Pieces(pieces) => {
                    for piece in pieces {
                        stream.write_all(&piece).await.unwrap();
                        stream.flush().await.unwrap();
                        tokio::task::yield_now().await;
                    }
                }
                Reply::Stall(text) => {
                    stream.write_all(text.as_bytes()).await.unwrap();
                    let _ = stream.read(&mut [0]).await;
                }
            }
        }
        requests
    });
    (HttpDirectory::new(&address, "s3cret").unwrap(), task)
}

async fn request(stream: &mut BufReader<TcpStream>) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut text).await.unwrap(), 0, "the request ends early: {text:?}");
    }
    let length = text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.unwrap();
    text + &String::from_utf8(body).unwrap()
}

fn answer(status: &str, body: &str) -> Reply {
    Reply::Answer(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn event(revision: u64) -> Event {
    let customer = Customer { id: "shop".parse().unwrap(), bounds: Resources::NONE };
    Event { revision: Revision(revision), changes: vec![Change::Customer(customer)] }
}

fn line(line: &WatchLine) -> String {
    serde_json::to_string(line).unwrap() + "\n"
}

#[tokio::test]
async fn every_command_has_its_endpoint_and_one_connection_serves_them_all() {
    let id = "shop";
    let commands = [
        (Command::PutCustomer(Customer { id: id.parse().unwrap(), bounds: Resources::NONE }), "PUT /v1/customers "),
        (Command::RemoveCustomer(id.parse().unwrap()), "DELETE /v1/customers/shop "),
        (Command::RemoveHost(id.parse().unwrap()), "DELETE /v1/hosts/shop "),
        (Command::RemoveVm(id.parse().unwrap()), "DELETE /v1/vms/shop "),
        (Command::SetVmState { vm: id.parse().unwrap(), state: VmState::Draining }, "PUT /v1/vms/shop/state "),
        (
            Command::MoveVm { base: Revision(4), vm: id.parse().unwrap(), to: "h2".parse().unwrap() },
            "POST /v1/vms/shop/move ",
        ),
        (Command::JoinPool { host: id.parse().unwrap(), pool: "here".parse().unwrap() }, "PUT /v1/hosts/shop/pool "),
        (Command::Propose(Proposal { base: Revision(4), changes: Vec::new() }), "POST /v1/proposals "),
    ];
    let script = commands.iter().map(|_| answer("200 OK", r#"{"revision":7}"#)).collect();
    let (directory, server) = serve(script).await;
    for (command, _) in &commands {
        let accepted = directory.command(command.clone()).await.unwrap();
        assert_eq!(accepted.revision, Revision(7));
    }
    let requests = server.await.unwrap();
    for (request, (_, start)) in requests.iter().zip(&commands) {
        assert!(request.starts_with(start), "{request:?} instead of {start:?}");
        assert!(request.contains("authorization: Bearer s3cret\r\n"), "{request:?}");
    }
    assert!(requests[4].ends_with("\r\n\r\n\"draining\""), "{:?}", requests[4]);
    assert!(requests[5].ends_with("\r\n\r\n{\"base\":4,\"to\":\"h2\"}"), "{:?}", requests[5]);
    assert!(requests[6].ends_with("\r\n\r\n\"here\""), "{:?}", requests[6]);
}

#[tokio::test]
async fn only_the_directory_itself_declares_a_host_silent() {
    let (directory, _server) = serve(Vec::new()).await;
    let error = directory.command(Command::HostSilent("h1".parse().unwrap())).await.unwrap_err();
    assert!(matches!(error, ClientError::Invalid { .. }), "{error:?}");
}

#[tokio::test]
async fn snapshot_and_usage_are_read() {
    let mut snapshot = Snapshot::default();
    snapshot.apply(Revision(3), &event(3).changes);
    let script = vec![
        answer("200 OK", &serde_json::to_string(&snapshot).unwrap()),
        answer("200 OK", r#"{"vm1":[{"at":9,"egress":5}]}"#),
    ];
    let (directory, server) = serve(script).await;
    assert_eq!(directory.snapshot().await.unwrap(), snapshot);
    let usage = directory.usage(Timestamp(8)).await.unwrap();
    assert_eq!(usage.samples(&"vm1".parse().unwrap())[0].at, Timestamp(9));
    assert!(server.await.unwrap()[1].starts_with("GET /v1/usage?since=8 "));
}

#[tokio::test]
async fn refusals_keep_their_meaning() {
    let violation = Violation::UnknownVm { vm: "z".parse().unwrap() };
    let rejection = Rejection::Refused { violations: vec![violation] };
    let body = ErrorBody { message: "no".into(), rejection: Some(rejection.clone()) };
    let script = vec![
        answer("422 Unprocessable Content", &serde_json::to_string(&body).unwrap()),
        answer("401 Unauthorized", r#"{"message":"who?"}"#),
        answer("403 Forbidden", r#"{"message":"not you"}"#),
        answer("503 Service Unavailable", "busy"),
        answer("404 Not Found", "nothing here"),
        answer("410 Gone", "{}"),
        answer("304 Not Modified", ""),
        answer("200 OK", r#"{"revision":-1}"#),
    ];
    let (directory, _server) = serve(script).await;
    let remove = Command::RemoveVm("z".parse().unwrap());
    let mut errors = Vec::new();
    for _ in 0..8 {
        errors.push(directory.command(remove.clone()).await.unwrap_err());
    }
    assert!(
        matches!(
            &errors[..],
            [
                ClientError::Rejected(told),
                ClientError::Unauthorised { message },
                ClientError::Forbidden { .. },
                ClientError::Failed { status: 503, .. },
                ClientError::Invalid { .. },
                ClientError::Resync,
                ClientError::Protocol { .. },
                ClientError::Protocol { .. },
            ] if *told == rejection && message == "who?"
        ),
        "{errors:?}"
    );
}

#[tokio::test]
async fn a_watch_is_the_same_however_it_is_cut_into_chunks() {
    let lines = [WatchLine::Event(event(1)), WatchLine::Alive(Revision(1)), WatchLine::Event(event(2))];
    let text: String = lines.iter().map(line).collect();
    for size in [1, 7, 64, text.len()] {
        let mut pieces = vec![STREAM.as_bytes().to_vec()];
        let bytes = text.as_bytes().chunks(size);
        pieces.extend(bytes.map(|piece| chunk(std::str::from_utf8(piece).unwrap()).into_bytes()));
        let (directory, _server) = serve(vec![Reply::Pieces(pieces)]).await;
        let mut watch = directory.watch(Revision(0)).await.unwrap();
        assert_eq!(watch.next().await.unwrap(), event(1));
        assert_eq!(watch.next().await.unwrap(), event(2));
        assert!(matches!(watch.next().await, Err(ClientError::Unreachable { .. })));
    }
}

#[tokio::test]
async fn a_watch_that_lost_commits_says_so() {
    let alive = line(&WatchLine::Alive(Revision(5)));
    let scripts = [line(&WatchLine::Resync(Revision(9))), line(&WatchLine::Event(event(2))), alive.clone() + &alive];
    for text in scripts {
        let (directory, _server) = serve(vec![Reply::Pieces(vec![(STREAM.to_owned() + &chunk(&text)).into()])]).await;
        let mut watch = directory.watch(Revision(0)).await.unwrap();
        let end = watch.next().await;
        assert!(matches!(end, Err(ClientError::Resync)), "{text:?}: {end:?}");
    }
}

#[tokio::test]
async fn a_sign_of_life_may_overtake_one_commit() {
    let text = line(&WatchLine::Alive(Revision(1))) + &line(&WatchLine::Event(event(1)));
    let (directory, _server) = serve(vec![Reply::Pieces(vec![(STREAM.to_owned() + &chunk(&text)).into()])]).await;
    let mut watch = directory.watch(Revision(0)).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), event(1));
}

#[tokio::test]
async fn silence_ends_requests_and_watches() {
    let (directory, _server) = serve(vec![Reply::Stall(String::new()), Reply::Stall(STREAM.into())]).await;
    let directory = HttpDirectory { timeouts: QUICK, ..directory };
    assert!(matches!(directory.snapshot().await, Err(ClientError::Silent { .. })));
    let mut watch = directory.watch(Revision(0)).await.unwrap();
    // A future that is dropped again and again does not put the deadline off.
    let began = Instant::now();
    let end = loop {
        tokio::select! {
            end = watch.next() => break end,
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                assert!(began.elapsed() < Duration::from_secs(5), "the silence goes unnoticed");
            }
        }
    };
    assert!(matches!(end, Err(ClientError::Silent { .. })), "{end:?}");
}

#[tokio::test]
async fn garbage_on_a_watch_is_no_commit() {
    let (directory, _server) =
        serve(vec![Reply::Pieces(vec![(STREAM.to_owned() + &chunk("{\"event\":5}\n")).into()])]).await;
    let mut watch = directory.watch(Revision(0)).await.unwrap();
    assert!(matches!(watch.next().await, Err(ClientError::Protocol { .. })));
}

#[tokio::test]
async fn nobody_there_is_worth_a_retry() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let directory = HttpDirectory::new(&free.to_string(), "t").unwrap();
    let error = directory.snapshot().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
}

#[test]
fn addresses_are_checked_and_tokens_never_shown() {
    for good in ["127.0.0.1:80", "http://dir.example:8080", "http://[::1]:9/"] {
        assert!(HttpDirectory::new(good, "t").is_ok(), "{good:?}");
    }
    for bad in ["", "host", "https://host:1", "http://host:1/v1", "user@host:1"] {
        assert!(matches!(HttpDirectory::new(bad, "t"), Err(ClientError::Invalid { .. })), "{bad:?}");
    }
    let directory = HttpDirectory::new("127.0.0.1:80", "s3cret").unwrap();
    assert!(!format!("{directory:?}").contains("s3cret"));
    let message = HttpDirectory::new("127.0.0.1:80", "s3cret\n").unwrap_err().to_string();
    assert!(!message.contains("s3cret"), "{message}");
}
