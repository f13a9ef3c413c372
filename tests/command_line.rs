//! The command line: exit codes that scripts rely on, faults told with their place and a hint, and commands that need
//! nothing that runs.

mod support;

use std::net::TcpListener;
use support::*;

/// The exit codes of the help text.
const FINE: i32 = 0;
const FAILED: i32 = 1;
const WRONG: i32 = 2;
const MISSED: i32 = 3;
const VOID: i32 = 4;

const SERVERS: &str = r#"
[dispatcher]
listen = "127.0.0.1:0"
[[server]]
name = "a"
address = "127.0.0.1:8081"
[[server]]
name = "b"
address = "127.0.0.1:8082"
"#;

/// `vibra check` refuses this configuration, says where, and says what to do.
#[track_caller]
fn refused(configuration: &str, place: &str, fault: &str, hint: &str) {
    let folder = Folder::new();
    folder.write("vibra.toml", configuration);
    let place = format!("vibra.toml:{place}: ");
    vibra(&folder, &["check"]).ended_with(WRONG).with_stderr(&[&place, fault, "hint: ", hint]);
}

#[test]
fn help_says_how_to_begin_and_what_exit_codes_mean() {
    let folder = Folder::new();
    // Lines are broken to fit the terminal.
    let help = |arguments: &[&str]| {
        let said = vibra(&folder, arguments).ended_with(FINE);
        said.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let codes = "0 fine, 1 failed at run time, 2 wrong usage or configuration, 3 a stated threshold missed, 4 a run that is void";
    contains_all("the help", &help(&["--help"]), &["Begin with `vibra demo`.", codes]);
    for command in
        ["demo", "up", "dispatcher", "directory", "allocator", "agent", "check", "explain", "status", "replay"]
    {
        contains_all("the help", &help(&["--help"]), &[&format!(" {command} ")]);
        contains_all("the help", &help(&[command, "--help"]), &[&format!("Usage: vibra {command} "), "Options:"]);
    }
    let without_file = "vibra dispatcher --listen 127.0.0.1:8080 --server 127.0.0.1:8081 --server 127.0.0.1:8082";
    contains_all("the help", &help(&["dispatcher", "--help"]), &[without_file]);
}

#[test]
fn wrong_arguments_are_wrong_usage() {
    let folder = Folder::new();
    let dispatcher = ["dispatcher", "--listen", "127.0.0.1:0"];
    let two = ["--server", "x=127.0.0.1:1", "--server", "y=127.0.0.1:2"];
    let wrong = |arguments: &[&str], says: &str| {
        vibra(&folder, arguments).ended_with(WRONG).with_stderr(&[says]);
    };
    wrong(&[], "Usage");
    wrong(&["dance"], "unrecognized subcommand");
    wrong(&dispatcher, "--server");
    wrong(
        &[&dispatcher[..], &["--server", "x=127.0.0.1:1", "--server", "x=127.0.0.1:2"]].concat(),
        "second server named x",
    );
    wrong(&[&dispatcher[..], &two, &["--replicas", "0"]].concat(), "at least 1");
    wrong(&[&dispatcher[..], &two, &["--replicas", "3"]].concat(), "at most the number of servers, 2");
    wrong(&["replay", "worldcup", "--target", "127.0.0.1:80"], "write http://host:port");
    wrong(&["trace", "generate", "worldcup", "out.txt"], ".vtr");
    wrong(&["trace", "stat", "absent.csv"], "absent.csv");
    wrong(&["demo", "--seconds", "1"], "--seconds");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "wrong usage leaves nothing behind");
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_with_its_place_and_a_hint() {
    refused("[dispatcher]\nlistn = \"127.0.0.1:80\"\n", "2:1", "unknown field `listn`", "did you mean `listen`?");
    refused("[dispatcher]\nlisten = \"127.0.0.1:80\"\n", "1:1", "without servers", "add [[server]]");
    refused(
        &format!("{SERVERS}[[server]]\nname = \"a\"\naddress = \"127.0.0.1:8083\"\n"),
        "11:8",
        "a second server",
        "once",
    );
    let replicas =
        |r| SERVERS.replace("[[server]]\nname = \"a\"", &format!("replicas = {r}\n[[server]]\nname = \"a\""));
    refused(&replicas(0), "4:12", "replicas = 0", "at least 1");
    refused(&replicas(3), "4:12", "replicas = 3", "the number of servers, 2");
    let floors = "[[customer]]\nname = \"shop\"\nbound = { bandwidth = \"10MB/s\" }\n[[host]]\nname = \"h1\"\n[[vm]]\n\
                  name = \"a\"\ncustomer = \"shop\"\nhost = \"h1\"\nkind = \"in-process\"\ncontent = \"worldcup\"\n\
                  floor = { bandwidth = \"11MB/s\" }\n";
    refused(floors, "7:8", "above the bound", "lower the floors or raise the bound");
}

#[test]
fn nothing_starts_on_a_configuration_that_is_refused() {
    let folder = Folder::new();
    folder.write("vibra.toml", format!("{SERVERS}\n[directory]\nlisten = \"127.0.0.1:0\"\nstor = \"memory\"\n"));
    for command in ["up", "dispatcher", "directory", "allocator", "agent", "status"] {
        let config = ["-c", "vibra.toml"];
        let said = vibra(&folder, &[&[command][..], &config].concat()).ended_with(WRONG);
        said.with_stderr(&["vibra.toml:13:1: unknown field `stor`", "hint: did you mean `store`?"]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no store, no token");
}

#[test]
fn a_configuration_that_is_not_there_or_lacks_a_section_is_wrong_usage() {
    let folder = Folder::new();
    vibra(&folder, &["check", "-c", "absent.toml"]).ended_with(WRONG).with_stderr(&["absent.toml"]);
    folder.write("vibra.toml", SERVERS);
    for (command, section) in [("directory", "[directory]"), ("allocator", "[allocator]"), ("agent", "[directory]")] {
        vibra(&folder, &[command]).ended_with(WRONG).with_stderr(&["vibra.toml has no", section]);
    }
}

#[test]
fn a_port_that_is_taken_is_a_failure_at_run_time() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = vibra(&folder, &["dispatcher", "--listen", &address, "--server", "127.0.0.1:1"]).ended_with(FAILED);
    said.with_stderr(&["error: ", &address]);
    folder.write("vibra.toml", format!("[directory]\nlisten = \"{address}\"\nstore = \"memory\"\n"));
    vibra(&folder, &["directory"]).ended_with(FAILED).with_stderr(&["error: ", &address]);
    vibra(&folder, &["up"]).ended_with(FAILED).with_stderr(&["error: ", &address]);
}

#[test]
fn the_examples_of_the_documentation_make_sense() {
    let folder = Folder::new();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");
    let mut checked = 0;
    for entry in std::fs::read_dir(examples).expect("the examples") {
        let path = entry.expect("an example").path();
        // Whoever tried one out may have left a token beside it.
        if path.extension() != Some("toml".as_ref()) {
            continue;
        }
        let said = vibra(&folder, &["check", "-c", path.to_str().unwrap()]).ended_with(FINE);
        let said = said.with_stdout(&["makes sense"]);
        let text = std::fs::read_to_string(&path).expect("the example");
        for (part, is_told) in [("[dispatcher]", "url-hash"), ("uplink =", "uplink")] {
            assert!(!text.contains(part) || said.stdout.contains(is_told), "{path:?}: {said:?}");
        }
        checked += 1;
    }
    assert!(checked >= 2, "{checked} examples in {examples}");
}

#[test]
fn explain_says_who_serves_a_url_and_who_when_that_one_fails() {
    let folder = Folder::new();
    folder.write(
        "vibra.toml",
        SERVERS.replace("replicas", "").replace("[dispatcher]", "[dispatcher]\nreplicas = 1\nhash = \"charsum\""),
    );
    // The sum of the characters of "/a" is 47 + 97 = 144: sub-namespace 0, and that is the first server's.
    vibra(&folder, &["explain", "/a?x=1"]).ended_with(FINE).with_stdout(&["/a by url-hash", "144", "1. a (0 active)"]);
    let json = |arguments: &[&str]| {
        let said = vibra(&folder, &[&["explain", "--json"][..], arguments].concat()).ended_with(FINE);
        serde_json::from_str::<serde_json::Value>(&said.stdout).expect("JSON on standard output")
    };
    let (up, down) = (json(&["/a"]), json(&["http://shop.example/a", "--down", "a"]));
    assert_eq!((&up["name"], &up["hash_value"], &up["subset"]), (&"/a".into(), &144.into(), &["a"][..].into()), "{up}");
    assert_eq!((&down["name"], &down["subset"]), (&"/a".into(), &["b"][..].into()), "{down}");
    assert_eq!(down["candidates"][0]["server"], "b");
    assert!(down["passed_over"][0]["reason"]["rule"].as_str().is_some_and(|rule| rule.contains("down")), "{down}");
    vibra(&folder, &["explain", "/a", "--down", "c"])
        .ended_with(WRONG)
        .with_stderr(&["--down c: there is no such server"]);
}

#[test]
fn a_trace_survives_its_way_from_one_format_to_another_and_back() {
    let folder = Folder::new();
    let worldcup = concat!(env!("CARGO_MANIFEST_DIR"), "/../traces/worldcup98/");
    let (input, objects) = (format!("{worldcup}wc_day50_4.head.bin"), format!("{worldcup}object_mappings.head.txt"));
    let converted = vibra(&folder, &["trace", "convert", &input, "a.vtr", "--objects", &objects]);
    converted.ended_with(FINE).with_stdout(&["a.vtr: 10000 requests"]);
    for (from, to) in [("a.vtr", "b.csv"), ("b.csv", "c.vtr"), ("c.vtr", "d.csv")] {
        vibra(&folder, &["trace", "convert", from, to]).ended_with(FINE).with_stdout(&["10000 requests"]);
    }
    // Clients are numbered anew: the same one is the same client, whatever its number.
    let records = |name: &str| {
        let text = folder.read(name);
        let (head, records) = text.split_once('\n').expect("a header");
        assert_eq!(head, "time,client,method,url,status,bytes");
        let without_client =
            |line: &str| line.splitn(3, ',').enumerate().filter(|(i, _)| *i != 1).map(|(_, f)| f.to_owned()).collect();
        records.lines().map(without_client).collect::<Vec<Vec<String>>>()
    };
    assert_eq!(records("b.csv").len(), 10_000);
    assert!(records("b.csv") == records("d.csv"), "two more conversions changed something");
    // All but the title is the same for every format.
    let stat = |arguments: &[&str]| {
        let said = vibra(&folder, &[&["trace", "stat"][..], arguments].concat()).ended_with(FINE);
        said.stdout.split_once('\n').expect("a title").1.to_owned()
    };
    let binary = stat(&[&input, "--objects", &objects]);
    contains_all("the statistics", &binary, &["requests          10000", "clients           1026", "charsum"]);
    assert_eq!([stat(&["a.vtr"]), stat(&["b.csv"]), stat(&["c.vtr"])], [(); 3].map(|()| binary.clone()));
}

#[test]
fn a_generated_trace_follows_from_its_seed() {
    let folder = Folder::new();
    for (name, seed) in [("a.csv", "7"), ("b.csv", "7"), ("c.csv", "8")] {
        let generated = vibra(&folder, &["trace", "generate", "youtube", name, "--seed", seed, "--scale", "0.1"]);
        generated.ended_with(FINE).with_stdout(&["400 requests"]);
    }
    assert_eq!(folder.read("a.csv"), folder.read("b.csv"));
    assert_ne!(folder.read("a.csv"), folder.read("c.csv"));
    vibra(&folder, &["trace", "stat", "a.csv"]).ended_with(FINE).with_stdout(&["requests          400"]);
}

#[test]
fn broken_records_are_counted_with_their_offsets_and_the_rest_is_used() {
    let folder = Folder::new();
    let (header, good) = ("time,url,status,bytes\n", "10,/a,200,700\n");
    // The second good record is earlier than the first; the last line is cut off.
    let text = format!("{header}{good}x,/b,200,1\n9,/c,200,300\n11,\"/d,200,1\n12,/e,304,0\n13,/f");
    folder.write("broken.csv", &text);
    let said = vibra(&folder, &["trace", "stat", "broken.csv"]).ended_with(FINE);
    let said = said.with_stdout(&["requests          3", "bytes             1000"]);
    let at = |record: &str| format!("byte {}: ", text.find(record).expect("it is there"));
    let offsets = [at("x,/b"), at("9,/c"), at("11,"), at("13,")];
    let said = said.with_stderr(&["warning: ", "broken: 2", "truncated: 1", "out of order: 1"]);
    said.with_stderr(&offsets.each_ref().map(String::as_str));
    vibra(&folder, &["trace", "convert", "broken.csv", "mended.csv"]).ended_with(FINE).with_stderr(&["broken: 2"]);
    let mended = vibra(&folder, &["trace", "stat", "mended.csv"]).ended_with(FINE);
    assert!(!mended.stderr.contains("broken"), "{}", mended.stderr);
}

/// A trace of so many requests for the same small object in its first second.
fn burst(requests: usize) -> String {
    let mut text = "offset,url,status,bytes\n".to_owned();
    for _ in 0..requests {
        text.push_str("0,/a,200,5\n");
    }
    text
}

#[test]
fn a_replay_reports_what_it_measured() {
    let folder = Folder::new();
    let origin = Origin::named("hello");
    folder.write("trace.csv", burst(20));
    let target = format!("http://{}", origin.address);
    let replayed = ["replay", "trace.csv", "--target", &target, "--concurrency", "2", "--json", "out.json"];
    vibra(&folder, &replayed).ended_with(FINE).with_stdout(&["right answers     20", "errors            0"]);
    let result: serde_json::Value = serde_json::from_str(&folder.read("out.json")).expect("JSON");
    assert_eq!(
        (&result["requests"], &result["bytes"], &result["void"]),
        (&20.into(), &100.into(), &().into()),
        "{result}"
    );
    assert_eq!(origin.served(), vec!["/a"; 20]);
}

#[test]
fn errors_are_counted_by_class_and_are_no_failure_of_the_replay() {
    let folder = Folder::new();
    let origin = Origin::start(|path, stream| match path {
        "/short" => answer(stream, "tiny"),
        _ => stream_error(stream),
    });
    folder.write("trace.csv", "offset,url,status,bytes\n0,/short,200,5\n0,/fail,200,5\n");
    let target = format!("http://{}", origin.address);
    let said = vibra(&folder, &["replay", "trace.csv", "--target", &target, "--concurrency", "1"]).ended_with(FINE);
    said.with_stdout(&["errors            2", "wrong length    1", "5xx             1"]);
}

fn stream_error(stream: &mut std::net::TcpStream) -> std::io::Result<()> {
    use std::io::Write;
    stream.write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
}

#[test]
fn a_missed_threshold_has_its_exit_code() {
    let folder = Folder::new();
    let origin = Origin::named("hello");
    folder.write("trace.csv", burst(5));
    let target = format!("http://{}", origin.address);
    let with = |limit: &str| {
        let replayed = ["replay", "trace.csv", "--target", &target, "--concurrency", "1", "--max-mean-ms", limit];
        vibra(&folder, &replayed)
    };
    with("0.000001").ended_with(MISSED).with_stderr(&["threshold missed: the mean response time"]);
    with("60000").ended_with(FINE);
    drop(origin);
    with("60000").ended_with(MISSED).with_stderr(&["there was no right answer"]);
}

#[test]
fn a_replay_that_measured_nothing_or_could_not_send_is_void() {
    let folder = Folder::new();
    let origin = Origin::named("hello");
    folder.write("few.csv", burst(5));
    let target = format!("http://{}", origin.address);
    let said = vibra(&folder, &["replay", "few.csv", "--target", &target, "--spread", "burst", "--warm-up", "60"]);
    said.ended_with(VOID).with_stderr(&["the run is void: no request was measured"]);
    // More at once than connections may be open, against a server that accepts none.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}", silent.local_addr().unwrap());
    folder.write("many.csv", burst(4_200));
    let said = vibra(&folder, &["replay", "many.csv", "--target", &target, "--spread", "burst", "--timeout", "1"]);
    said.ended_with(VOID).with_stderr(&["the run is void: ", "requests were not sent"]);
}

#[test]
fn a_dry_run_prints_every_command_and_needs_nothing() {
    let folder = Folder::new();
    for name in ["attached.toml", "cluster.toml"] {
        let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name);
        folder.write(name, std::fs::read_to_string(example).unwrap());
    }
    let check = vibra(&folder, &["check", "-c", "attached.toml"]).ended_with(FINE);
    contains_all("the check", &check.stdout, &["uplink      eth0 of host h1; internal traffic: 10.0.0.0/8"]);
    for command in ["agent", "up"] {
        let told = vibra(&folder, &[command, "--dry-run", "-c", "attached.toml"]).ended_with(FINE);
        let lines = [
            "# host h1",
            "hook egress device \"eth0\"",
            "tc -batch -",
            "qdisc add dev eth0 root handle 7b1b: htb",
            "rate 5000000bps",
            "u32 match ip dst 10.0.0.0/8 flowid 7b1b:1",
            "u32 match ip src 10.0.1.7/32 flowid 7b1b:10",
            "u32 match ip6 src 2001:db8::8/128 flowid 7b1b:11",
        ];
        contains_all("the dry run", &told.stdout, &lines);
    }
    let cluster = std::fs::read_to_string(folder.path().join("cluster.toml")).unwrap();
    let told = vibra(&folder, &["up", "--dry-run", "-c", "cluster.toml"]).ended_with(FINE);
    contains_all("the dry run", &told.stdout, &["# 4 VMs in this process need no command"]);
    folder.write("cluster.toml", cluster.replace("in-process", "namespace"));
    let told = vibra(&folder, &["up", "--dry-run", "-c", "cluster.toml"]).ended_with(FINE);
    contains_all("the dry run", &told.stdout, &["ip netns add vibra-r0-vm3", "tc -n vibra-r0-host -batch -"]);
    let nothing = vibra(&folder, &["agent", "--remove-limits", "-c", "cluster.toml"]).ended_with(FAILED);
    contains_all("the error", &nothing.stderr, &["host h1 has no uplink"]);
}
