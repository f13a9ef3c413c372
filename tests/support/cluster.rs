//! A small cluster of four in-process VMs, and the directory's view of it.

use super::{Folder, bearer, eventually, fixed_address, get, request};
use serde_json::Value;
use std::{fmt::Write, net::SocketAddr, path::PathBuf};

/// What the customer has bought, in bytes/s; divided evenly at first.
pub(crate) const BOUND: u64 = 2_000_000;
/// Memory that the customer has bought, in bytes.
pub(crate) const MEMORY_BOUND: u64 = 192 << 20;
/// The least bandwidth that a VM ever has, in bytes/s.
pub(crate) const FLOOR: u64 = 50_000;
/// How many VMs.
pub(crate) const VMS: usize = 4;

/// The URL that takes most bytes in [`trace`], and its size.
pub(crate) const HOT: (&str, u64) = ("/hot", 20_000);
/// The others, `/0`, `/1`, …, and their size.
const COLD: (u32, u64) = (40, 1_000);

/// A trace, as CSV, in which [`HOT`] takes nine tenths of the bytes: so many seconds of about 250 kB/s.
pub(crate) fn trace(seconds: u32) -> String {
    let mut text = "offset,client,method,url,status,bytes\n".to_owned();
    for second in 0..seconds {
        for i in 0..12 {
            writeln!(text, "{second},hot{i},GET,{},200,{}", HOT.0, HOT.1).unwrap();
            let cold = (second * 24 + i * 2) % COLD.0;
            writeln!(
                text,
                "{second},cold{i},GET,/{cold},200,{}\n{second},cold{i},GET,/{},200,{}",
                COLD.1,
                cold + 1,
                COLD.1
            )
            .unwrap();
        }
    }
    text
}

/// A folder with `vibra.toml`, the configuration of the cluster, and `trace.csv`, which is its content.
pub(crate) struct Cluster {
    pub(crate) folder: Folder,
    pub(crate) directory: SocketAddr,
    token: PathBuf,
}

impl Cluster {
    pub(crate) fn new() -> Cluster {
        Cluster::with(|configuration| configuration)
    }

    /// One whose configuration is changed.
    pub(crate) fn with(change: impl FnOnce(String) -> String) -> Cluster {
        let folder = Folder::new();
        let directory = fixed_address();
        folder.write("trace.csv", trace(30));
        folder.write("vibra.toml", change(configuration(directory, fixed_address())));
        let token = folder.file("directory.redb.token");
        Cluster { folder, directory, token }
    }

    /// The directory as it is now.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, String> {
        self.ask("/v1/snapshot").map(Snapshot)
    }

    /// The usage that was reported to the directory since it started, as far as it keeps it.
    pub(crate) fn usage(&self) -> Result<Value, String> {
        self.ask("/v1/usage")
    }

    fn ask(&self, path: &str) -> Result<Value, String> {
        let answered = request(self.directory, "GET", path, &bearer(&self.token), b"");
        let response = answered.map_err(|error| format!("the directory: {error}"))?;
        if response.status == 200 { Ok(response.json()) } else { Err(response.text()) }
    }

    /// Waits until the directory is as `like` says.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, like: impl Fn(&Snapshot) -> bool) -> Snapshot {
        eventually(what, || {
            let snapshot = self.snapshot()?;
            if like(&snapshot) { Ok(snapshot) } else { Err(snapshot.0.to_string()) }
        })
    }
}

/// Based on `docs/examples/cluster.toml`.
fn configuration(directory: SocketAddr, admin: SocketAddr) -> String {
    let mut text = format!(
        r#"
        [dispatcher]
        listen = "127.0.0.1:0"
        admin = "{admin}"
        hash = "charsum"
        replicas = 2
        customer = "shop"
        [directory]
        listen = "{directory}"
        store = "redb"
        path = "directory.redb"
        [allocator]
        interval = "500ms"
        bandwidth = {{ policy = "proportional", alpha = 0.5 }}
        memory = {{ policy = "static" }}
        [[customer]]
        name = "shop"
        bound = {{ bandwidth = "{}kB/s", memory = "{}MiB" }}
        [[host]]
        name = "h1"
        capacity = {{ bandwidth = "100MB/s", memory = "1GiB" }}
        "#,
        BOUND / 1000,
        MEMORY_BOUND >> 20,
    );
    for i in 1..=VMS {
        write!(
            text,
            r#"
            [[vm]]
            name = "vm{i}"
            customer = "shop"
            host = "h1"
            kind = "in-process"
            content = "trace.csv"
            floor = {{ bandwidth = "{}kB/s", memory = "16MiB" }}
            "#,
            FLOOR / 1000
        )
        .unwrap();
    }
    text
}

/// What the directory says at one revision.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot(pub(crate) Value);

impl Snapshot {
    pub(crate) fn revision(&self) -> u64 {
        self.0["revision"].as_u64().expect("a revision")
    }

    pub(crate) fn vms(&self) -> &[Value] {
        self.0["vms"].as_array().expect("a list of VMs")
    }

    pub(crate) fn host_state(&self) -> &str {
        self.0["hosts"][0]["state"].as_str().unwrap_or("unknown")
    }

    /// Whether every VM is registered and in this state.
    pub(crate) fn all_are(&self, state: &str) -> bool {
        self.vms().len() == VMS && self.vms().iter().all(|vm| vm["state"] == state)
    }

    /// Whether every VM has what it shall have.
    pub(crate) fn is_settled(&self) -> bool {
        self.vms().len() == VMS && self.vms().iter().all(|vm| vm["applied"] == vm["desired"])
    }

    /// What all VMs together have in force, as their host read it back.
    pub(crate) fn applied(&self, resource: &str) -> u64 {
        self.vms().iter().filter_map(|vm| vm["applied"]["resources"][resource].as_u64()).sum()
    }

    /// The bandwidth that a VM shall have.
    pub(crate) fn desired_bandwidth(&self, vm: &str) -> u64 {
        let found = self.vms().iter().find(|known| known["id"] == vm);
        let found = found.unwrap_or_else(|| panic!("no {vm} in {}", self.0));
        found["desired"]["resources"]["bandwidth"].as_u64().expect("bandwidth is managed")
    }
}

/// The names of the servers that share a URL, as a running dispatcher explains it at its admin address.
#[track_caller]
pub(crate) fn subset(admin: SocketAddr, url: &str) -> Vec<String> {
    let explanation = get(admin, &format!("/explain?url={url}")).expect("the dispatcher answers").json();
    let names = explanation["subset"].as_array().expect("a subset");
    names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

/// Waits until a dispatcher's own account of itself is as `like` says.
#[track_caller]
pub(crate) fn wait_for_status(admin: SocketAddr, what: &str, like: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || {
        let status = get(admin, "/snapshot").map_err(|error| error.to_string())?.json();
        if like(&status) { Ok(status) } else { Err(status.to_string()) }
    })
}

/// How many servers a dispatcher uses, by its own account.
pub(crate) fn used(status: &Value) -> usize {
    let servers = status["servers"].as_array().expect("a list of servers");
    servers.iter().filter(|server| server["used"] == true).count()
}
