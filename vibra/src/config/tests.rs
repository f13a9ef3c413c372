//! What is refused, where, and with which hint; and what the examples mean.

use super::*;
use vibra_model::Resource;
use vibra_proxy::{
    Authorities, CertificateFiles, ClientAuth, Forwarding, Manner, Protocol, ProxyVersion, TlsVersion, Trust,
};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("vibra.toml"), text)
}

/// The text is refused at `place` ("line:column") with a message that holds `message`, and a hint that holds `hint`.
#[track_caller]
fn refused(text: &str, place: &str, message: &str, hint: &str) {
    let error = parse(text).expect_err("must be refused");
    assert_eq!(error.place, format!("vibra.toml:{place}"), "{error}");
    assert!(error.message.contains(message), "{error}");
    assert!(error.hint.clone().unwrap_or_default().contains(hint), "{error}");
}

const SERVERS: &str = r#"
[[server]]
name = "a"
address = "127.0.0.1:8081"
[[server]]
name = "b"
address = "127.0.0.1:8082"
"#;

#[test]
fn the_examples_are_accepted() {
    for name in ["cluster.toml", "qemu.toml", "static.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name);
        let config = Config::load(&path).unwrap_or_else(|e| panic!("{e:#}"));
        assert_eq!(config.dispatcher.unwrap().settings.replicas, 2);
    }
}

#[test]
fn a_static_list_needs_no_more_than_addresses() {
    let config = parse(&format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\n{SERVERS}")).unwrap();
    let dispatcher = config.dispatcher.unwrap();
    let Source::Static(servers) = dispatcher.source else { panic!("not static") };
    assert_eq!(servers.len(), 2);
    assert_eq!(dispatcher.settings.replicas, 2);
}

#[test]
fn operators_are_served_on_this_machine_unless_another_address_is_written_out() {
    let admin = |value: &str| {
        let text = format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\nadmin = {value}\n{SERVERS}");
        parse(&text).unwrap().dispatcher.unwrap().admin.unwrap().to_string()
    };
    for own in ["9090", "\"9090\"", "\":9090\"", "\"127.0.0.1:9090\""] {
        assert_eq!(admin(own), "127.0.0.1:9090", "{own}");
    }
    assert_eq!(admin("\"[::]:9090\""), "[::]:9090");
    let with = |value: &str| format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\nadmin = {value}\n{SERVERS}");
    refused(&with("\"here\""), "3:9", "\"here\" is no address: write a port", "");
    refused(&with("70000"), "3:9", "a port such as 9090", "");
    refused(&with("true"), "3:9", "a port such as 9090", "");
}

#[test]
fn the_access_log_lies_beside_the_configuration() {
    let with = |log: &str| {
        let text = format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\naccess_log = {log}\n{SERVERS}");
        Config::parse(Path::new("/etc/vibra/vibra.toml"), &text).unwrap().dispatcher.unwrap().access_log.unwrap()
    };
    let log = with(r#"{ path = "access.log" }"#);
    assert_eq!((log.target, log.format), (log::Target::File("/etc/vibra/access.log".into()), log::Format::Combined));
    let log = with(r#"{ path = "-", format = "json" }"#);
    assert_eq!((log.target, log.format), (log::Target::Stdout, log::Format::Json));
    let wrong =
        format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\naccess_log = {{ path = \"a\", format = \"jsn\" }}\n{SERVERS}");
    refused(&wrong, "3:37", "unknown variant `jsn`", "did you mean `json`?");
}

#[test]
fn traces_are_joined_where_the_file_says_so() {
    let with = |trace: &str| format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\ntrace = {trace}\n{SERVERS}");
    let trace = |text: &str| parse(&with(text)).unwrap().dispatcher.unwrap().trace.unwrap();
    assert_eq!((trace("{}").sample, trace("{ sample = 0.5 }").sample), (0.0, 0.5));
    refused(&with("{ sample = 1.5 }"), "3:20", "1.5 is no share", "0");
    refused(&with(r#"{ collector = "https://127.0.0.1:4318" }"#), "3:23", "no URL of a collector", "http://HOST:PORT");
    let local = r#"{ collector = "http://127.0.0.1:4318" }"#;
    if cfg!(feature = "otel") {
        assert_eq!(trace(local).collector.unwrap().host(), Some("127.0.0.1"));
    } else {
        refused(&with(local), "3:23", "without span export", "--features otel");
    }
}

#[test]
fn http_2_is_on_unless_told_otherwise() {
    let with = |keys: &str| format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\n{keys}{SERVERS}");
    let read = |keys: &str| parse(&with(keys)).unwrap().dispatcher.unwrap();
    assert!(read("").http2);
    assert!(!read("http2 = false\n").http2);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    refused("[dispatcher]\nlistn = \"127.0.0.1:80\"\n", "2:1", "unknown field `listn`", "did you mean `listen`?");
    refused("[dispacher]\n", "1:2", "unknown field `dispacher`", "did you mean `dispatcher`?");
    let algorithm = format!("[dispatcher]\nlisten = \"127.0.0.1:80\"\nalgorithm = \"urlhash\"\n{SERVERS}");
    refused(&algorithm, "3:13", "unknown variant `urlhash`", "did you mean `url-hash`?");
}

#[test]
fn wrong_units_are_refused_at_their_place() {
    refused(
        "[[customer]]\nname = \"shop\"\nbound = { bandwidth = \"10MB\" }\n",
        "3:23",
        "\"10MB\" is no data rate",
        "",
    );
    refused("[[customer]]\nname = \"shop\"\nbound = { memory = \"10MB/s\" }\n", "3:20", "is no amount of memory", "");
    let interval = "[directory]\nlisten = \"127.0.0.1:0\"\n[allocator]\ninterval = \"3 apples\"\n";
    refused(interval, "4:12", "is no length of time", "");
}

#[test]
fn peers_are_what_the_file_says() {
    let with = |keys: &str| format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\n{keys}\n{SERVERS}");
    let peers = |keys: &str| parse(&with(keys)).unwrap().dispatcher.unwrap().peers;
    let given = peers("trusted = [\"10.0.0.0/8\", \"::1\"]\nforwarded = \"rfc7239\"\nvia = \"edge\"");
    assert!(given.trusted.covers("10.1.2.3".parse().unwrap()) && given.trusted.covers("::1".parse().unwrap()));
    assert_eq!((given.forwarding, given.via.as_str()), (Forwarding::Rfc7239, "edge"));
    let default = peers("");
    assert_eq!((default.forwarding, default.trusted), (Forwarding::XForwarded, Trust::default()));
    assert_ne!(default.via, peers("").via, "two dispatchers of one file may stand in a chain");
    refused(&with("trusted = [\"::1\", \"10.0.0.1/8\"]"), "3:19", "\"10.0.0.1/8\"", "");
    refused(&with("via = \"a b\""), "3:7", "\"a b\" is no name", "");
    refused(&with("forwarded = \"rfc-7239\""), "3:13", "unknown variant", "did you mean `rfc7239`?");
}

#[test]
fn the_proxy_protocol_goes_with_trust() {
    let with = |keys: &str| format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\n{keys}\n{SERVERS}send_proxy = \"v2\"\n");
    let dispatcher = |keys: &str| parse(&with(keys)).unwrap().dispatcher.unwrap();
    assert!(dispatcher("trusted = [\"::1\"]\nproxy_protocol = \"accept\"").peers.demand_header);
    assert!(!dispatcher("proxy_protocol = \"off\"").peers.demand_header);
    let Source::Static(servers) = dispatcher("").source else { panic!("not static") };
    assert_eq!([servers[0].manner.send_proxy, servers[1].manner.send_proxy], [None, Some(ProxyVersion::V2)]);
    refused(&with("proxy_protocol = \"accept\""), "3:18", "nobody is trusted", "trusted =");
    refused(&with("proxy_protocol = \"v1\""), "3:18", "unknown variant `v1`", "");
}

#[test]
fn each_listener_has_the_proxy_protocol_or_has_not() {
    let with = |keys: &str, tls: &str| {
        let certificate = "[[dispatcher.tls.certificate]]\nchain = \"site.pem\"";
        format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\n{keys}\n[dispatcher.tls]\n{tls}\n{certificate}\n{SERVERS}")
    };
    let demands = |keys: &str, tls: &str| {
        let dispatcher = parse(&with(keys, tls)).unwrap().dispatcher.unwrap();
        (dispatcher.peers.demand_header, dispatcher.tls.unwrap().demand_header)
    };
    let (trusted, accept, listen) = ("trusted = [\"::1\"]", "proxy_protocol = \"accept\"", "listen = \"127.0.0.1:1\"");
    let both = format!("{trusted}\n{accept}");
    assert_eq!(demands(&both, listen), (true, true), "as the other does");
    assert_eq!(demands(&both, &format!("{listen}\nproxy_protocol = \"off\"")), (true, false));
    assert_eq!(demands(trusted, &format!("{listen}\n{accept}")), (false, true));
    assert_eq!(demands(trusted, listen), (false, false));
    refused(&with("", &format!("{listen}\n{accept}")), "6:18", "nobody is trusted", "trusted =");
    refused(&with(trusted, accept), "5:18", "an address that is not there", "add listen");
}

#[test]
fn servers_are_spoken_to_as_they_say_or_as_all_are() {
    let with = |keys: &str, server: &str| {
        let file = format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\n{keys}\n{SERVERS}{server}\n");
        let dispatcher = parse(&file).unwrap().dispatcher.unwrap();
        let Source::Static(servers) = dispatcher.source else { panic!("not static") };
        (dispatcher.manner, servers[0].manner, servers[1].manner)
    };
    let (http1, http2) = (Manner::default(), Manner { protocol: Protocol::Http2, send_proxy: None });
    assert_eq!(with("", "protocol = \"h2\""), (http1, http1, http2));
    assert_eq!(with("server_protocol = \"h2\"", "protocol = \"http/1.1\""), (http2, http2, http1));
    let told = |version| Manner { send_proxy: Some(version), ..http1 };
    let (v1, v2) = (told(ProxyVersion::V1), told(ProxyVersion::V2));
    assert_eq!(with("server_send_proxy = \"v1\"", "send_proxy = \"v2\""), (v1, v1, v2));
    let wrong = format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\nserver_protocol = \"http2\"\n{SERVERS}");
    refused(&wrong, "3:19", "unknown variant `http2`", "");
}

#[test]
fn a_fault_far_to_the_right_is_shown_too() {
    refused(&format!("x = \"{}\" [", "y".repeat(70_000)), "1:70008", "", "");
}

#[test]
fn contradictions_are_refused() {
    let both = format!(
        "[directory]\nlisten = \"127.0.0.1:0\"\n[dispatcher]\nlisten = \"127.0.0.1:0\"\ncustomer = \"shop\"\n{SERVERS}"
    );
    refused(&both, "5:12", "both [[server]] and a customer", "keep one");
    let store = "[directory]\nlisten = \"127.0.0.1:0\"\nstore = \"memory\"\npath = \"x\"\n";
    refused(store, "3:9", "has no path", "redb");
    refused("[directory]\nstore = \"memory\"\n", "1:1", "neither listen nor url", "");
    refused("[[token]]\nrole = \"operator\"\nfile = \"t\"\n", "1:1", "without a [directory]", "");
    refused("[allocator]\n", "1:1", "without a [directory]", "");
}

#[test]
fn limits_and_timeouts_have_defaults_and_are_read_with_their_units() {
    let text = format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\n{SERVERS}");
    let defaults = parse(&text).unwrap().dispatcher.unwrap();
    assert_eq!((defaults.limits, defaults.timeouts), Default::default());
    let tables = "[dispatcher.limits]\nbuffer = \"32KiB\"\nupload_rate = \"2kB/s\"\nconnections = 7\nbody = \"1MB\"\n\
                  rate = { per_second = 5, burst = 9, header = \"x-api-key\" }\n\
                  [dispatcher.timeouts]\nqueue = \"250ms\"\n";
    let set = parse(&format!("{text}{tables}")).unwrap().dispatcher.unwrap();
    assert_eq!((set.limits.buffer, set.limits.upload_rate, set.limits.connections), (32 << 10, 2000, 7));
    assert_eq!((set.limits.body, set.limits.headers), (Some(1_000_000), 100));
    let rate = set.limits.rate.unwrap();
    assert_eq!((rate.per_second.get(), rate.burst.get(), rate.clients.get()), (5, 9, 100_000));
    assert_eq!((set.timeouts.queue, set.timeouts.connect), (Duration::from_millis(250), Duration::from_secs(1)));
}

#[test]
fn limits_and_timeouts_that_make_no_sense_are_refused_at_their_place() {
    let with = |tables: &str| format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\n{tables}{SERVERS}");
    let refused = |tables: &str, place: &str, message: &str, hint: &str| refused(&with(tables), place, message, hint);
    refused("[dispatcher.limits]\nbuffer = \"1KiB\"\n", "4:10", "limits.buffer is out of range", "8 KiB or more");
    refused("limits = { headers = 300 }\n", "3:22", "limits.headers is out of range", "1 to 256");
    // The key that contradicts the default is pointed to where it can be changed.
    refused("[dispatcher.limits]\nbuffer = \"1GiB\"\n", "3:1", "limits.memory is out of range", "twice");
    refused("[dispatcher.timeouts]\nqueue = \"0s\"\n", "4:9", "timeouts.queue is out of range", "more than 0");
    refused("[dispatcher.timeouts]\nqueue = 3\n", "4:9", "expected a string", "");
    refused("[dispatcher.timeouts]\nque = \"3s\"\n", "4:1", "unknown field `que`", "did you mean `queue`?");
    refused("[dispatcher.limits]\nmemory = \"1MB/s\"\n", "4:10", "no amount of memory", "");
    refused("[dispatcher.limits]\nrate = { per_second = 0, burst = 1 }\n", "4:23", "nonzero", "");
    let header = "[dispatcher.limits]\nrate = { per_second = 1, burst = 1, header = \"x y\" }\n";
    refused(header, "4:46", "limits.rate.header is out of range", "name of a header");
}

#[test]
fn server_lists_that_make_no_sense_are_refused() {
    refused("[dispatcher]\nlisten = \"127.0.0.1:0\"\n", "1:1", "without servers", "[[server]]");
    let twice =
        format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\n{SERVERS}[[server]]\nname = \"a\"\naddress = \"x:1\"\n");
    refused(&twice, "11:8", "second server named \"a\"", "");
    for r in [0, 3] {
        let replicas = format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\nreplicas = {r}\n{SERVERS}");
        refused(&replicas, "3:12", &format!("replicas = {r}"), "at most the number of servers, 2");
    }
    refused(
        "[dispatcher]\nlisten = \"127.0.0.1:0\"\n[[server]]\nname = \"a\"\naddress = \"x\"\n",
        "5:11",
        "is no address",
        "host:port",
    );
    refused(SERVERS, "2:1", "without a [dispatcher]", "");
}

#[test]
fn the_directorys_rules_hold_for_what_the_file_registers() {
    let cluster = |floor: &str, host: &str| {
        format!(
            "[[customer]]\nname = \"shop\"\nbound = {{ bandwidth = \"10MB/s\" }}\n[[host]]\nname = \"h1\"\n\
             [[vm]]\nname = \"a\"\ncustomer = \"shop\"\nhost = \"{host}\"\nkind = \"in-process\"\n\
             content = \"worldcup\"\nfloor = {{ bandwidth = \"{floor}\" }}\n"
        )
    };
    assert_eq!(parse(&cluster("1MB/s", "h1")).unwrap().vms.len(), 1);
    refused(&cluster("11MB/s", "h1"), "7:8", "above the bound", "lower the floors");
    refused(&cluster("1MB/s", "h2"), "7:8", "host h2 is not registered", "[[host]]");
}

#[test]
fn virtual_machines_boot_with_the_most_that_they_may_have() {
    let cluster = |rest: &str| {
        format!(
            "[[customer]]\nname = \"shop\"\nbound = {{ memory = \"512MiB\" }}\n[[host]]\nname = \"h1\"\n\
             [[vm]]\nname = \"a\"\ncustomer = \"shop\"\nhost = \"h1\"\ncontent = \"worldcup\"\n{rest}\n"
        )
    };
    let boots = |rest: &str| parse(&cluster(rest)).unwrap().vms[0].boot_memory.map(|memory| memory.0 >> 20);
    assert_eq!(boots("kind = \"qemu\""), Some(512));
    assert_eq!(boots("kind = \"qemu\"\ninitial = { memory = \"96MiB\" }\nboot_memory = \"160MiB\""), Some(160));
    assert_eq!(boots("kind = \"namespace\""), None);
    let small = "kind = \"qemu\"\ninitial = { memory = \"48MiB\" }\nboot_memory = \"64MiB\"";
    refused(&cluster(small), "7:8", "too little to boot", "128MiB");
    refused(&cluster("kind = \"qemu\"\nboot_memory = \"256MiB\""), "7:8", "shall have more", "raise boot_memory");
    refused(&cluster("kind = \"namespace\"\nboot_memory = \"256MiB\""), "7:8", "for VMs of kind", "take it out");
}

#[test]
fn policies_are_judged_before_anything_starts() {
    let with = |policy: &str| format!("[directory]\nlisten = \"127.0.0.1:0\"\n[allocator]\nbandwidth = {policy}\n");
    assert!(parse(&with(r#"{ policy = "proportional", alpha = 0.9 }"#)).is_ok());
    refused(&with(r#"{ policy = "fair" }"#), "4:13", "fair", "");
    refused(&with(r#"{ policy = "proportional", alpha = 1.5 }"#), "4:13", "alpha", "");
    refused(&with(r#"{ policy = "proportional", beta = 1 }"#), "4:13", "beta", "");
    refused(&with("{ alpha = 0.9 }"), "4:13", "names no policy", "proportional");
    let level = |policy: &str| format!("[directory]\nlisten = \"127.0.0.1:0\"\n[allocator]\nlevel = {policy}\n");
    let parsed = parse(&level(r#"{ policy = "fvm", initial = 20, period = "2s" }"#)).unwrap();
    let level_of = parsed.allocator.unwrap().level.unwrap();
    assert_eq!((level_of.initial.get(), level_of.period, level_of.threshold), (20, Duration::from_secs(2), 2.5));
    refused(&level(r#"{ policy = "dps" }"#), "4:9", "no policy \"dps\" for the level", "fvm");
    refused(&level("{ initial = 20 }"), "4:9", "names no policy", "fvm");
    refused(&level(r#"{ policy = "fvm", threshold = 0.5 }"#), "4:9", "threshold = 0.5", "docs/configuration.md");
    refused(&level(r#"{ policy = "fvm", rule = "mimd" }"#), "4:9", "aimd, sqrt, iiad", "");
    refused(&with(r#"{ policy = "static", safety = { hold = "x" } }"#), "4:13", "is no length of time", "");
    refused(&with(r#"{ policy = "program" }"#), "4:13", "command", "");
    let movers = "{ policy = \"sandpiper\" }\nmemory = { policy = \"sandpiper\" }";
    refused(&with(movers), "4:13", "would both move VMs", "");
}

#[test]
fn takeover_has_the_dispatchers_r() {
    let with = |dispatcher: &str, takeover: &str| {
        format!(
            "[directory]\nlisten = \"127.0.0.1:0\"\n{dispatcher}[allocator]\n\
             bandwidth = {{ policy = \"static\", takeover = {{ {takeover} }} }}\n"
        )
    };
    let dispatcher = "[dispatcher]\nlisten = \"127.0.0.1:80\"\nreplicas = 3\ncustomer = \"shop\"\n";
    let replicas = |text: &str| {
        let recipe = parse(text).unwrap().allocator.unwrap().recipe;
        recipe.0[&Resource::Bandwidth].parameters["takeover"].get("replicas").cloned()
    };
    assert_eq!(replicas(&with(dispatcher, "")), Some(3.into()));
    assert_eq!(replicas(&with(dispatcher, "replicas = 3")), Some(3.into()));
    assert_eq!(replicas(&with("", "warm_up = \"5s\"")), None, "the policy's default");
    refused(&with(dispatcher, "replicas = 2"), "8:13", "takeover.replicas of bandwidth is 2", "leave it out");
    refused(&with("", "replicas = 0"), "4:13", "use 1 or more", "");
}

#[test]
fn tokens_fit_their_role() {
    let with = |token: &str| format!("[directory]\nlisten = \"127.0.0.1:0\"\n[[token]]\n{token}\nfile = \"t\"\n");
    let tokens = |text: &str| parse(&with(text)).unwrap().directory.unwrap().tokens.len();
    assert_eq!(tokens("role = \"host\"\nhost = \"h1\""), 1);
    refused(&with("role = \"host\""), "3:1", "role does not fit", "host = \"NAME\"");
    refused(&with("role = \"reader\"\nhost = \"h1\""), "3:1", "role does not fit", "neither");
}

const TLS: &str = r#"
[dispatcher]
listen = "127.0.0.1:80"
[dispatcher.tls]
listen = "127.0.0.1:443"
min_version = "1.3"
client_ca = "clients.pem"
client_auth = "optional"
[[dispatcher.tls.certificate]]
chain = "site.pem"
key = "site.key"
[[dispatcher.tls.certificate]]
chain = "/etc/both.pem"
[dispatcher.server_tls]
ca = "internal.pem"
name = "web.internal"
certificate = { chain = "me.pem", key = "me.key" }
[[server]]
name = "a"
address = "https://127.0.0.1:8443"
"#;

#[test]
fn tls_is_what_the_file_says() {
    let files = |chain: &str, key: &str| CertificateFiles { chain: chain.into(), key: key.into() };
    let dispatcher = Config::parse(Path::new("/etc/vibra/vibra.toml"), TLS).unwrap().dispatcher.unwrap();
    let tls = FrontTls {
        demand_header: false,
        listen: vec!["127.0.0.1:443".parse().unwrap()],
        certificates: vec![
            files("/etc/vibra/site.pem", "/etc/vibra/site.key"),
            files("/etc/both.pem", "/etc/both.pem"),
        ],
        client_auth: Some(ClientAuth { ca: "/etc/vibra/clients.pem".into(), required: false }),
        min_version: TlsVersion::Tls13,
    };
    assert_eq!(dispatcher.tls, Some(tls));
    let server_tls = BackTls {
        authorities: Authorities::File("/etc/vibra/internal.pem".into()),
        server_name: Some("web.internal".into()),
        certificate: Some(files("/etc/vibra/me.pem", "/etc/vibra/me.key")),
    };
    assert_eq!(dispatcher.server_tls, Some(server_tls));
}

#[test]
fn tls_has_defaults() {
    let text = "[dispatcher]\nlisten = \"127.0.0.1:443\"\n[[dispatcher.tls.certificate]]\nchain = \"site.pem\"\n";
    let dispatcher = |server: &str| {
        let text = format!("{text}[[server]]\nname = \"a\"\naddress = \"{server}\"\n");
        parse(&text).unwrap().dispatcher.unwrap()
    };
    let plain = dispatcher("web:80");
    let tls = plain.tls.unwrap();
    assert_eq!((tls.listen, tls.client_auth, tls.min_version), (vec![], None, TlsVersion::Tls12));
    assert_eq!(plain.server_tls, None);
    assert_eq!(dispatcher("https://web:443").server_tls, Some(BackTls::default()));
}

#[test]
fn tls_that_makes_no_sense_is_refused() {
    let with = |tls: &str| format!("[dispatcher]\nlisten = \"127.0.0.1:80\"\n[dispatcher.tls]\n{tls}\n{SERVERS}");
    refused(&with(""), "3:1", "without a certificate", "[[dispatcher.tls.certificate]]");
    let certificate = "certificate = [{ chain = \"c\" }]\n";
    refused(&with(&format!("{certificate}client_auth = \"required\"")), "5:15", "nobody issues", "client_ca");
    refused(&with(&format!("{certificate}min_version = \"1.1\"")), "5:15", "unknown variant `1.1`", "");
}

#[test]
fn an_allocator_is_what_the_file_says() {
    let with = |keys: &str| format!("[directory]\nlisten = \"127.0.0.1:0\"\n[allocator]\n{keys}");
    let allocator = |keys: &str| Config::parse(Path::new("/etc/vibra.toml"), &with(keys)).unwrap().allocator.unwrap();
    let given = allocator(
        "bandwidth = { policy = \"program\", command = [\"./mine\"], folder = \"policies\" }\ndry_run = true\n\
         time_limit = \"5s\"\nlog = \"log.jsonl\"\nlog_size = \"1MiB\"\nstate = \"state\"\n\
         shadow = [{ memory = { policy = \"static\" } }]\n",
    );
    assert_eq!((given.mode, given.time_limit, given.log_size), (Mode::DryRun, Duration::from_secs(5), 1 << 20));
    assert_eq!((given.log, given.state), (Some("/etc/log.jsonl".into()), Some("/etc/state".into())));
    assert_eq!(given.recipe.0[&Resource::Bandwidth].parameters["folder"], "/etc/policies");
    assert_eq!(given.shadows[0].names(), "static for memory");
    let default = allocator("");
    assert_eq!((default.mode, default.time_limit, default.log_size), (Mode::Real, Duration::from_secs(2), 64 << 20));
    refused(&with("shadow = [{}]\n"), "4:11", "a shadow without a policy", "");
    refused(&with("time_limit = \"0s\"\n"), "3:1", "a time limit of 0", "");
}

#[test]
fn each_of_several_customers_has_his_own_files() {
    let file = |customers| Allocator::file_of(Path::new("/var/decisions.jsonl"), &"shop".parse().unwrap(), customers);
    assert_eq!(file(1), Path::new("/var/decisions.jsonl"));
    assert_eq!(file(2), Path::new("/var/decisions.shop.jsonl"));
}

/// A host with an uplink, and one attached VM that says `vm`.
fn attached(host: &str, vm: &str) -> String {
    format!(
        "[[customer]]\nname = \"shop\"\nbound = {{ bandwidth = \"10MB/s\", memory = \"1GiB\" }}\n\
         [[host]]\nname = \"h1\"\n{host}\n[[vm]]\nname = \"a\"\ncustomer = \"shop\"\nhost = \"h1\"\nkind = \"attached\"\n{vm}\n"
    )
}

#[test]
fn attached_vms_are_known_by_their_addresses() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/attached.toml");
    let config = Config::load(&path).unwrap_or_else(|e| panic!("{e:#}"));
    let uplink = &config.uplinks[&config.hosts[0].id];
    assert_eq!((uplink.device.as_str(), uplink.internal[0].to_string()), ("eth0", "10.0.0.0/8".to_owned()));
    let sources: Vec<_> = config.vms.iter().map(|vm| vm.attached.as_ref().unwrap().sources.len()).collect();
    assert_eq!(sources, [1, 2]);

    // An equal share of what can be managed: without a control group that is bandwidth.
    let vm = |text: &str| parse(&attached("uplink = \"eth0\"", text)).unwrap().vms.remove(0);
    let initial = vm("address = \"10.0.0.7:80\"").spec.initial;
    assert!(initial.bandwidth.is_some() && initial.memory.is_none());
    let with_group = vm("address = \"[2001:db8::7]:80\"\ncgroup = \"/machine.slice/a.scope\"");
    assert!(with_group.spec.initial.memory.is_some());
    let attached = with_group.attached.unwrap();
    assert_eq!(attached.cgroup, Some("machine.slice/a.scope".into()));
    assert_eq!(attached.sources, ["2001:db8::7".parse::<IpAddr>().unwrap()]);
}

#[test]
fn what_makes_no_sense_of_attached_vms_is_refused_at_its_place() {
    let ok = "address = \"10.0.0.7:80\"";
    refused(&attached("", ok), "10:8", "without an uplink", "uplink = \"eth0\"");
    refused(&attached("internal = [\"10.0.0.0/8\"]", ok), "6:13", "of no uplink", "add uplink");
    let up = "uplink = \"eth0\"";
    let inside = |networks: &str| attached(&format!("{up}\ninternal = [{networks}]"), ok);
    refused(&inside("\"0.0.0.0/0\""), "7:13", "everybody", "nothing would be limited");
    refused(&inside("\"10.1.0.0/8\""), "7:13", "no network", "10.0.0.0/8");
    refused(&inside("\"ten\""), "7:13", "\"ten\" is no network", "10.0.0.0/8");
    refused(&attached("uplink = \"eth0; reboot\"", ok), "6:10", "no network device", "ip link");
    refused(&attached(up, ""), "8:8", "without an address", "address = ");
    refused(&attached(up, "address = \"10.0.0.7\""), "12:11", "no address", "host:port");
    refused(&attached(up, "address = \"web:80\""), "12:11", "a name does not tell", "sources = ");
    refused(&attached(up, &format!("{ok}\nsources = [\"web\"]")), "13:11", "\"web\" is no address", "addresses");
    refused(&attached(up, &format!("{ok}\nsources = []")), "13:11", "from nowhere", "leave it out");
    refused(
        &attached(up, &format!("{ok}\ncontent = \"worldcup\"")),
        "13:11",
        "serves what it likes",
        "take content out",
    );
    refused(&attached(up, &format!("{ok}\ncgroup = \"../a\"")), "13:10", "no control group", "/proc/PID/cgroup");
    let memory = format!("{ok}\ninitial = {{ bandwidth = \"1MB/s\", memory = \"1GiB\" }}");
    refused(&attached(up, &memory), "8:8", "memory of an attached VM", "cgroup = ");
    let second =
        "[[vm]]\nname = \"b\"\ncustomer = \"shop\"\nhost = \"h1\"\nkind = \"attached\"\naddress = \"10.0.0.7:81\"";
    refused(&attached(up, &format!("{ok}\n{second}")), "14:8", "10.0.0.7 is VM a's already", "sources");
    let foreign = attached(up, ok).replace("kind = \"attached\"", "kind = \"in-process\"\ncontent = \"worldcup\"");
    refused(&foreign, "13:11", "only VMs of kind \"attached\"", "take it out");
    let nothing = attached(up, "").replace("attached", "in-process");
    refused(&nothing, "8:8", "serves nothing", "content");
}
