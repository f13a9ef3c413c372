//! A new process takes over from one that runs.

mod support;

use std::{
    io::Write,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};
use support::*;

/// Has a second process take over and then a third, each amid requests; returns the third.
fn replace_twice(dispatcher: &Dispatcher, served: &AtomicUsize) -> Successor {
    let more = |what: &str| {
        let before = served.load(SeqCst);
        eventually(what, || if served.load(SeqCst) > before + 50 { Ok(()) } else { Err("too few".to_owned()) });
    };
    more("requests at the first process");
    dispatcher.process.upgrade();
    let second = Successor::of(dispatcher.process.number(), dispatcher.admin);
    more("requests at the second process");
    second.upgrade();
    let third = Successor::of(second.number(), dispatcher.admin);
    more("requests at the third process");
    third
}

#[test]
fn a_new_process_takes_over_and_no_client_notices() {
    let origin = Origin::named("a");
    // Two threads, and so two sockets: a connection that waited at a closed one would be reset.
    let dispatcher = Dispatcher::start_with(&[("a", origin.address)], "threads = 2");
    let (over, served, address) = (&AtomicBool::new(false), &AtomicUsize::new(0), dispatcher.address);
    thread::scope(|scope| {
        let load = move || {
            let mut failed = Vec::new();
            while !over.load(SeqCst) {
                match get(address, "/x") {
                    Ok(response) if response.status == 200 && response.end == End::Whole => {
                        served.fetch_add(1, SeqCst);
                    }
                    other => failed.push(format!("{other:?}")),
                }
            }
            failed
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(load)).collect();
        let third = replace_twice(&dispatcher, served);
        over.store(true, SeqCst);
        let failed: Vec<String> = clients.into_iter().flat_map(|client| client.join().expect("it ends")).collect();
        assert!(failed.is_empty(), "{} served, {} failed: {failed:#?}", served.load(SeqCst), failed.len());
        let status =
            wait_for_status(dispatcher.admin, "the third process alone", |status| number(status) == third.number());
        assert!(status["servers"][0]["picks"].as_u64().unwrap() >= 50, "{status}");
        assert_eq!(dispatcher.post("/drain", "").status, 202);
        // The output ends with the last of the processes.
        dispatcher.process.end().ended_with(0);
    });
}

#[test]
fn a_new_process_that_cannot_serve_takes_nothing_over() {
    let origin = Origin::named("a");
    let dispatcher = Dispatcher::start(&[("a", origin.address)]);
    dispatcher.folder.write("vibra.toml", "what is this?");
    dispatcher.process.upgrade();
    dispatcher.process.says("that it goes on", |line| line.contains("this one goes on").then_some(()));
    assert_eq!(dispatcher.answering(), ["a"]);
    // Another try, with another outcome.
    dispatcher.folder.write("vibra.toml", configuration(&[("a", origin.address)], "threads = 3"));
    dispatcher.process.upgrade();
    let _second = Successor::of(dispatcher.process.number(), dispatcher.admin);
    assert_eq!(dispatcher.answering(), ["a"]);
    assert_eq!(dispatcher.post("/drain", "").status, 202);
    dispatcher.process.end().ended_with(0);
}

/// The part of a file that has TLS spoken with a certificate of `authority`.
fn under_tls(authority: &Authority) -> String {
    let files = authority.issue("site", &["shop.example"]);
    format!(
        "threads = 2\ndrain_timeout = \"30s\"\n[dispatcher.tls]\n\
         [[dispatcher.tls.certificate]]\nchain = {:?}\nkey = {:?}",
        files.chain, files.key
    )
}

/// By HTTP/1, each request on a connection of its own, and by HTTP/2 on connections that are left when they are to be.
#[test]
fn a_new_process_takes_over_and_no_client_notices_under_tls() {
    let authority = &Authority::new();
    let origin = Origin::named("a");
    let dispatcher = Dispatcher::start_with(&[("a", origin.address)], &under_tls(authority));
    let (over, served, address) = (&AtomicBool::new(false), &AtomicUsize::new(0), dispatcher.address);
    let ask_anew = || match get_securely(address, authority, "/x") {
        Ok(response) if response.end == End::Whole && response.text() == "a" => Ok(()),
        other => Err(format!("{other:?}")),
    };
    thread::scope(|scope| {
        let by_http1 = move || {
            let mut failed = Vec::new();
            while !over.load(SeqCst) {
                match ask_anew() {
                    Ok(()) => drop(served.fetch_add(1, SeqCst)),
                    Err(what) => failed.push(what),
                }
            }
            failed
        };
        let by_http2 = move || {
            let (mut failed, mut connections) = (Vec::new(), 0);
            while !over.load(SeqCst) {
                connections += 1;
                let mut streams = Streams::connect(address, authority).expect("somebody listens");
                while !over.load(SeqCst) && !streams.leaves() {
                    match streams.send("/x").and_then(|stream| streams.receive(stream)) {
                        Ok(Some(body)) if body == b"a" => drop(served.fetch_add(1, SeqCst)),
                        Ok(None) => {}
                        other => failed.push(format!("{other:?}")),
                    }
                }
            }
            if connections > 3 {
                failed.push(format!("{connections} connections were made, for three processes"));
            }
            failed
        };
        let clients = [scope.spawn(by_http1), scope.spawn(by_http1), scope.spawn(by_http2), scope.spawn(by_http2)];
        let _third = replace_twice(&dispatcher, served);
        over.store(true, SeqCst);
        let failed: Vec<String> = clients.into_iter().flat_map(|client| client.join().expect("it ends")).collect();
        assert!(failed.is_empty(), "{} served, {} failed: {failed:#?}", served.load(SeqCst), failed.len());
        assert_eq!(dispatcher.post("/drain", "").status, 202);
        dispatcher.process.end().ended_with(0);
    });
}

/// What is under way when a new process takes over is ended by the old one, which then goes.
#[test]
fn requests_under_way_are_drained_under_tls() {
    let (authority, gate) = (Authority::new(), Gate::default());
    let passes = gate.clone();
    let origin = Origin::start(move |path, stream| {
        if path != "/slow" {
            return answer(stream, "a");
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")?;
        passes.pass()?;
        stream.write_all(b" last")
    });
    let mut dispatcher = Dispatcher::start_with(&[("a", origin.address)], &under_tls(&authority));
    let address = dispatcher.address;
    let mut client = Client::over(connect_securely(address, &authority, &[]).unwrap(), address);
    client.send("GET", "/slow", "", b"").unwrap();
    let mut response = client.receive_head().unwrap();
    let mut streams = Streams::connect(address, &authority).unwrap();
    let stream = streams.send("/slow").unwrap();
    eventually("both are under way", || match origin.served().len() {
        2 => Ok(()),
        served => Err(format!("{served} requests")),
    });
    dispatcher.process.upgrade();
    let _second = Successor::of(dispatcher.process.number(), dispatcher.admin);
    assert_eq!(get_securely(address, &authority, "/x").unwrap().text(), "a", "the new one serves");
    assert!(dispatcher.process.runs(), "the old one has something to end");
    gate.open();
    client.receive_body(&mut response).unwrap();
    assert_eq!((response.text().as_str(), response.end), ("first last", End::Whole));
    assert_eq!(streams.receive(stream).unwrap().as_deref(), Some(&b"first last"[..]));
    assert!(streams.leaves(), "it was told to go elsewhere");
    eventually("the old one ends", || if dispatcher.process.runs() { Err("it runs".to_owned()) } else { Ok(()) });
    assert_eq!(get_securely(address, &authority, "/x").unwrap().text(), "a");
}

fn set(dispatcher: &Dispatcher, server: &str, state: &str) -> u16 {
    dispatcher.post(&format!("/servers/{server}/state"), &format!("{{\"state\": \"{state}\"}}")).status
}

#[test]
fn orders_about_servers_are_handed_over() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let servers: Vec<_> = ["a", "b", "c"].into_iter().zip(origins.iter().map(|origin| origin.address)).collect();
    let dispatcher = Dispatcher::start(&servers);
    assert_eq!((set(&dispatcher, "a", "drain"), set(&dispatcher, "b", "maintenance")), (200, 200));
    // One that is not in the list just now.
    dispatcher.folder.write("vibra.toml", configuration(&servers[1..], ""));
    assert_eq!(dispatcher.post("/reload", "").status, 200);
    dispatcher.process.upgrade();
    let second = Successor::of(dispatcher.process.number(), dispatcher.admin);
    assert_eq!(dispatcher.answering(), ["c"]);
    dispatcher.folder.write("vibra.toml", configuration(&servers, ""));
    // Until the old one has ended, which the new one sees to, either may answer.
    eventually("a reload by the second", || match dispatcher.post("/reload", "").status {
        200 if second.number() == number(&get(dispatcher.admin, "/snapshot").unwrap().json()) => Ok(()),
        status => Err(format!("{status}")),
    });
    let status = wait_for_status(dispatcher.admin, "all three", |status| {
        status["servers"].as_array().is_some_and(|servers| servers.len() == 3)
    });
    let orders: Vec<_> = status["servers"].as_array().unwrap().iter().map(|server| &server["order"]).collect();
    assert_eq!(
        orders,
        ["drain", "maintenance"]
            .map(serde_json::Value::from)
            .iter()
            .chain([&serde_json::Value::Null])
            .collect::<Vec<_>>()
    );
    eventually("orders are taken", || match set(&dispatcher, "a", "ready") {
        200 => Ok(()),
        status => Err(format!("{status}")),
    });
    assert_eq!(dispatcher.answering(), ["a", "c"]);
    // With all of them out, there is nothing to wait for.
    assert_eq!((set(&dispatcher, "a", "drain"), set(&dispatcher, "c", "drain")), (200, 200));
    second.upgrade();
    let _third = Successor::of(second.number(), dispatcher.admin);
    eventually("orders are taken again", || match set(&dispatcher, "c", "ready") {
        200 => Ok(()),
        status => Err(format!("{status}")),
    });
    assert_eq!(dispatcher.answering(), ["c"]);
}

#[test]
fn orders_wait_while_it_is_open_who_takes_them() {
    let origin = Origin::named("a");
    let dispatcher = Dispatcher::start(&[("a", origin.address)]);
    // The new process finds no server to be usable, and so does not take over.
    let unknown =
        configuration(&[("a", origin.address)], "").replace(&origin.address.to_string(), "nowhere.invalid:80");
    dispatcher.folder.write("vibra.toml", unknown);
    dispatcher.process.upgrade();
    let second = Successor::of(dispatcher.process.number(), dispatcher.admin);
    // Either process may answer, and neither takes the order.
    for _ in 0..8 {
        let refused = dispatcher.post("/servers/a/state", "{\"state\": \"drain\"}");
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains("about to take over"), "{}", refused.text());
    }
    second.kill();
    dispatcher.process.says("that it goes on", |line| line.contains("this one goes on").then_some(()));
    eventually("orders are taken again", || match set(&dispatcher, "a", "drain") {
        200 => Ok(()),
        status => Err(format!("{status}")),
    });
}

#[test]
fn everything_in_one_process_is_upgraded_only_if_that_is_a_dispatcher() {
    let origin = Origin::named("a");
    let folder = Folder::new();
    folder.write("vibra.toml", configuration(&[("a", origin.address)], ""));
    let process = Running::start(&folder, &["up", "-c", "vibra.toml"]);
    let admin = process.address("dispatcher: admin at http://");
    process.upgrade();
    let second = Successor::of(process.number(), admin);
    second.terminate();
    process.end().ended_with(0);

    let cluster = Cluster::new();
    let process = Running::start(&cluster.folder, &["up", "-c", "vibra.toml"]);
    let admin = process.address("dispatcher: admin at http://");
    process.upgrade();
    process.says("why not", |line| {
        (line.contains("no new process takes over") && line.contains("cannot be handed over")).then_some(())
    });
    let status = wait_for_status(admin, "every VM used", |status| used(status) == VMS);
    assert_eq!(number(&status), process.number());
    process.terminate();
    process.end().ended_with(0);
}
