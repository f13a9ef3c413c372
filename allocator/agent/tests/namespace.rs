//! Namespace VMs on the real kernel, where it lets us.

mod common;

use common::{Download, client, client_from, fetch, get, resources};
use http::{StatusCode, header};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vibra_agent::{
    Catalogue, DiskLimit, Machine, MachineError, MachineSpec, NamespaceHost, NamespaceSettings, Reading,
    WorkingSetMethod, WorkingSetSampling, cleanup_stale, probe,
};
use vibra_model::{Amount, Bytes, BytesPerSec, MilliCpu, VmState};

const MEMORY: u64 = 64 << 20;
/// The shaper counts whole Ethernet frames, of which this many bytes are the connection's own.
const FRAME: f64 = 1514.0;
const PAYLOAD: f64 = 1448.0;
/// How many objects there are below "/small/".
const SMALL: usize = 100;
/// Set for the process that is to crash.
const CRASHES: &str = "VIBRA_TEST_CRASHES";

/// A directory for files that are served. It must be on a disk: the target directory is, others may not be.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A host with these VMs, of 2 MB/s each, and the directory of their files; `None`, and a word why, where this
/// machine cannot.
async fn host(names: &[&str], disk: Option<DiskLimit>) -> Option<(NamespaceHost, tempfile::TempDir)> {
    let files = directory();
    Some((host_in(files.path(), names, disk).await?, files))
}

async fn host_in(files: &Path, names: &[&str], disk: Option<DiskLimit>) -> Option<NamespaceHost> {
    let settings = NamespaceSettings { docroots: files.to_owned(), disk, ..NamespaceSettings::default() };
    host_with(settings, names).await
}

async fn host_with(settings: NamespaceSettings, names: &[&str]) -> Option<NamespaceHost> {
    let found = tokio::task::spawn_blocking(probe).await.unwrap();
    if let Err(reason) = found.namespaces() {
        eprintln!("skipped: {reason}");
        return None;
    }
    let spec = |name: &&str| MachineSpec { id: name.parse().unwrap(), initial: resources(2_000_000, MEMORY) };
    let specs = names.iter().map(spec).collect();
    Some(NamespaceHost::start(settings, Arc::new(catalogue()), specs).await.unwrap())
}

fn catalogue() -> Catalogue {
    let sizes = [("/large", 20_000_000), ("/small", 3_000), ("/a", 1_000), ("/a/b", 500), ("/x%20y", 7)];
    let small = (0..SMALL).map(|number| (format!("/small/{number}"), Bytes(10_000)));
    let sizes = sizes.map(|(path, size)| (path.to_owned(), Bytes(size)));
    Catalogue::new(sizes.into_iter().chain(small)).unwrap()
}

/// The rate in bytes/s at which the uplink carries payload to outside, as the kernel counts it.
async fn uplink_rate(host: &NamespaceHost, time: Duration) -> f64 {
    let counter = format!("/sys/class/net/vibra-r{}/statistics/rx_bytes", host.outside().octets()[2]);
    let read = || std::fs::read_to_string(&counter).unwrap().trim().parse::<u64>().unwrap();
    let (before, start) = (read(), std::time::Instant::now());
    tokio::time::sleep(time).await;
    (read() - before) as f64 / start.elapsed().as_secs_f64()
}

/// What a run leaves behind, if it leaves anything.
fn leftovers(host: &NamespaceHost) -> Vec<String> {
    let run = host.outside().octets()[2];
    let places = ["/run/netns/vibra-rN-host", "/run/netns/vibra-rN-vm0", "/sys/class/net/vibra-rN"];
    // In version 1 of control groups, or in version 2.
    let groups = ["/sys/fs/cgroup/memory/vibra-rN", "/sys/fs/cgroup/vibra-rN"];
    let names = places.into_iter().chain(groups).map(|name| name.replace('N', &run.to_string()));
    names.filter(|path| Path::new(path).exists()).collect()
}

#[tokio::test]
async fn egress_is_held_and_internal_traffic_left_alone() {
    let Some((host, _files)) = host(&["vm1", "vm2"], None).await else { return };
    let vm = &host.machines()[0];
    fetch(&client_from(host.inside().into()), get(&**vm, "/large")).await;
    let download = Download::start(&**vm, "/large", 8);
    download.first_byte().await;
    for allocation in [2_000_000, 6_000_000, 1_000_000] {
        let got = vm.set(Amount::Bandwidth(BytesPerSec(allocation))).await.unwrap();
        assert_eq!(got, Amount::Bandwidth(BytesPerSec(allocation)));
        let before = vm.read().await.unwrap().egress.unwrap().0;
        let rate = uplink_rate(&host, Duration::from_secs(3)).await;
        let shaped = rate * FRAME / PAYLOAD;
        assert!((shaped / allocation as f64 - 1.0).abs() < 0.05, "{shaped} of {allocation}");
        let demand = vm.read().await.unwrap().egress.unwrap().0 - before;
        assert!(demand as f64 >= rate * 3.0 * 0.95, "{demand} at {rate}");
    }
    drop(download);
    let other = &host.machines()[1];
    let start = std::time::Instant::now();
    let before = other.read().await.unwrap().egress;
    let whole = fetch(&client_from(host.inside().into()), get(&**other, "/large")).await;
    assert_eq!(whole.body().len(), 20_000_000);
    assert!(start.elapsed() < Duration::from_secs(5), "20 MB at 2 MB/s would take 10 s: {:?}", start.elapsed());
    assert_eq!(other.read().await.unwrap().egress, before, "internal traffic is not counted");
    host.stop().await.unwrap();
}

/// What the VM's sensors say once it has told the times of so many requests.
async fn timed(vm: &dyn Machine, requests: u64) -> Reading {
    let told = async {
        loop {
            let reading = vm.read().await.unwrap();
            if reading.timed >= Some(requests) {
                return reading;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("nginx tells the time of each request")
}

#[tokio::test]
async fn nginx_answers_as_the_traces_ask() {
    let Some((host, _files)) = host(&["vm1"], None).await else { return };
    let (vm, client) = (&host.machines()[0], client());
    let whole = fetch(&client, get(&**vm, "/small?session=1")).await;
    assert_eq!((whole.status(), whole.body().len()), (StatusCode::OK, 3_000));
    let catalogue = catalogue();
    let (_, object) = catalogue.find("/small").unwrap();
    assert_eq!(whole.body(), &object.chunk(0..3_000));
    assert_eq!(whole.headers()[header::ETAG], object.etag());
    for (path, size) in [("/a", 1_000), ("/a/b", 500), ("/x%20y", 7)] {
        assert_eq!(fetch(&client, get(&**vm, path)).await.body().len(), size, "{path}");
    }
    let mut part = get(&**vm, "/small");
    part.headers_mut().insert(header::RANGE, "bytes=1000-1999".parse().unwrap());
    assert_eq!(fetch(&client, part).await.body(), &whole.body().slice(1_000..2_000));
    let mut again = get(&**vm, "/small");
    again.headers_mut().insert(header::IF_MODIFIED_SINCE, "Tue, 30 Jun 1998 18:10:00 GMT".parse().unwrap());
    assert_eq!(fetch(&client, again).await.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(fetch(&client, get(&**vm, "/none")).await.status(), StatusCode::NOT_FOUND);
    let reading = timed(&**vm, 7).await;
    assert!(reading.requests.unwrap() >= 7, "{reading:?}");
    assert_eq!(reading.in_flight, Some(0));
    host.stop().await.unwrap();
}

#[tokio::test]
async fn memory_is_limited_and_a_restart_is_cold() {
    let Some((host, _files)) = host(&["vm1"], None).await else { return };
    let (vm, client) = (&host.machines()[0], client_from(host.inside().into()));
    let blocks = async || vm.read().await.unwrap().disk_blocks.unwrap();
    fetch(&client, get(&**vm, "/large")).await;
    let cold = blocks().await;
    assert!(cold >= 20_000_000 / 512, "{cold} blocks for 20 MB");
    fetch(&client, get(&**vm, "/large")).await;
    assert_eq!(blocks().await, cold, "the second time it is in memory");
    assert!(vm.read().await.unwrap().memory_in_use.unwrap().0 > 20_000_000);

    // Too little memory for it: shrinking acts at once, and the file has to be read again.
    let got = vm.set(Amount::Memory(Bytes(16_000_000))).await.unwrap();
    assert!((15_900_000..=16_000_000).contains(&got.raw()), "{got}");
    assert!(vm.read().await.unwrap().memory_in_use.unwrap().0 <= 16_000_000);
    fetch(&client, get(&**vm, "/large")).await;
    assert!(blocks().await > cold);

    vm.stop().await.unwrap();
    assert_eq!(vm.state().await, VmState::Down);
    assert!(vm.read().await.is_err());
    vm.start().await.unwrap();
    assert_eq!(vm.state().await, VmState::Up);
    let reading = vm.read().await.unwrap();
    assert_eq!((reading.life, reading.egress, reading.drops), (2, Some(Bytes::ZERO), Some(0)));
    assert!(reading.disk_blocks.unwrap() < 1_000, "{reading:?}");
    assert_eq!(vm.allocation().await.unwrap().memory, Some(Bytes(got.raw())));
    vm.set(Amount::Memory(Bytes(MEMORY))).await.unwrap();
    let before = blocks().await;
    fetch(&client, get(&**vm, "/large")).await;
    let again = blocks().await - before;
    assert!(again >= 20_000_000 / 512, "{again} blocks: the page cache had some of it");
    let cpu = vm.set(Amount::Cpu(MilliCpu(500))).await;
    assert!(matches!(cpu, Err(MachineError::NotManaged { .. })), "{cpu:?}");
    host.stop().await.unwrap();
}

/// The working set follows what is asked for, although all of it stays in memory (section 3.4.6).
#[tokio::test]
async fn the_working_set_is_what_is_asked_for() {
    if vibra_guest::lru_gen::is_on() {
        return eprintln!("skipped: the kernel's multi-generation LRU is on, and does not tell which pages are read");
    }
    let files = directory();
    let working_set = Some(WorkingSetSampling { method: WorkingSetMethod::Deactivation, period_ms: 3_000 });
    let settings =
        NamespaceSettings { docroots: files.path().to_owned(), disk: None, working_set, ..Default::default() };
    let Some(host) = host_with(settings, &["vm1"]).await else { return };
    let (vm, client) = (&host.machines()[0], client_from(host.inside().into()));
    let fresh = vm.read().await.unwrap();
    assert_eq!(fresh.working_set, None, "no period has passed");
    let own = fresh.memory_in_use.unwrap().0;
    // Whole periods of asking for nothing but this, until the estimate lies in between.
    let settles = async |path: &str, between: std::ops::Range<u64>| {
        let mut seen = Vec::new();
        let settled = async {
            loop {
                fetch(&client, get(&**vm, path)).await;
                let Reading { working_set, memory_in_use, .. } = vm.read().await.unwrap();
                seen.push(working_set.map_or(0, |bytes| bytes.0));
                if working_set.is_some_and(|bytes| between.contains(&bytes.0)) {
                    return memory_in_use.unwrap().0;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let settled = tokio::time::timeout(Duration::from_secs(40), settled).await;
        settled.unwrap_or_else(|_| panic!("{path} not in {between:?}: {seen:?}"))
    };
    // 20 MB of it, and what nginx itself needs, within 15 %.
    settles("/large", own + 17_000_000..own + 23_000_000).await;
    let in_use = settles("/small", 0..own + 3_000_000).await;
    assert!(in_use > 20_000_000, "all that was read is in memory still: {in_use}");
    settles("/large", own + 17_000_000..own + 23_000_000).await;
    vm.stop().await.unwrap();
    vm.start().await.unwrap();
    assert_eq!(vm.read().await.unwrap().working_set, None, "that was another life");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_vm_that_is_stopped_while_it_sends_starts_cold() {
    let Some((host, _files)) = host(&["vm1"], None).await else { return };
    let (vm, client) = (&host.machines()[0], client_from(host.inside().into()));
    let blocks = async || vm.read().await.unwrap().disk_blocks.unwrap();
    fetch(&client, get(&**vm, "/large")).await;
    // This reader takes so little that the server's socket stays full until its end, and beyond.
    let mut reader = tokio::net::TcpStream::connect(vm.address()).await.unwrap();
    reader.write_all(b"GET /large HTTP/1.1\r\nHost: vm1\r\n\r\n").await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), reader.read_u8()).await.expect("something arrives").unwrap();
    vm.stop().await.unwrap();
    vm.start().await.unwrap();
    let before = blocks().await;
    fetch(&client, get(&**vm, "/large")).await;
    let again = blocks().await - before;
    assert!(again >= 20_000_000 / 512, "{again} blocks: the page cache had some of it");
    drop(reader);
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_disk_of_its_time_can_be_had() {
    let slow = DiskLimit { reads_per_s: 50, read: BytesPerSec(5_000_000) };
    let Some((host, _files)) = host(&["vm1"], Some(slow)).await else { return };
    let (vm, client) = (&host.machines()[0], client_from(host.inside().into()));
    let began = std::time::Instant::now();
    let start = began;
    fetch(&client, get(&**vm, "/large")).await;
    let cold = start.elapsed();
    assert!((3.0..8.0).contains(&cold.as_secs_f64()), "20 MB at 5 MB/s: {cold:?}");
    let start = std::time::Instant::now();
    fetch(&client, get(&**vm, "/large")).await;
    assert!(start.elapsed() < cold / 4, "from memory: {:?}", start.elapsed());
    let start = std::time::Instant::now();
    for number in 0..SMALL {
        fetch(&client, get(&**vm, &format!("/small/{number}"))).await;
    }
    let took = start.elapsed();
    assert!((1.0..6.0).contains(&took.as_secs_f64()), "{SMALL} reads at 50 a second: {took:?}");
    // They came one after another: the server tells what the disk took at least, and no more than its client waited.
    let told = timed(&**vm, 2 + SMALL as u64).await.service_time.unwrap();
    let waited = began.elapsed();
    assert!(told <= waited && told.as_secs_f64() > 4.0, "{told:?} of {waited:?}");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn without_a_disk_to_throttle_vms_run_unthrottled_and_say_so() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        return eprintln!("skipped: there is no {}", shm.display());
    }
    let files = tempfile::tempdir_in(shm).unwrap();
    let Some(host) = host_in(files.path(), &["vm1"], Some(DiskLimit::default())).await else { return };
    let vm = &host.machines()[0];
    let reason = host.unthrottled().expect("nothing in memory can be throttled").to_string();
    assert!(reason.contains("no disk"), "{reason}");
    assert_eq!(fetch(&client(), get(&**vm, "/small")).await.body().len(), 3_000);
    assert_eq!(vm.read().await.unwrap().disk_blocks, None, "not measured is not 0");
    vm.stop().await.unwrap();
    vm.start().await.unwrap();
    host.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_killed_master_leaves_serves_no_more_after_a_stop() {
    let Some((host, _files)) = host(&["vm1"], None).await else { return };
    let vm = &host.machines()[0];
    assert_eq!(host.unthrottled(), None);
    let master = std::fs::read_to_string(format!("/run/vibra/r{}/vm0/pid", host.outside().octets()[2])).unwrap();
    let master = rustix::process::Pid::from_raw(master.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(master, rustix::process::Signal::KILL).unwrap();
    let down = async {
        while vm.state().await != VmState::Down {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), down).await.expect("it is seen to be down");
    vm.stop().await.unwrap();
    let refused = tokio::net::TcpStream::connect(vm.address()).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    vm.start().await.unwrap();
    assert_eq!(fetch(&client(), get(&**vm, "/small")).await.body().len(), 3_000);
    host.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_is_left() {
    let Some((first, _files)) = host(&["vm1"], None).await else { return };
    let Some((second, _more_files)) = host(&["vm1"], None).await else { return };
    assert_ne!(first.outside(), second.outside(), "two runs do not meet");
    assert_eq!(leftovers(&first).len(), 4, "{:?}", leftovers(&first));
    let living = first.outside().octets()[2];
    assert!(!cleanup_stale().unwrap().contains(&living), "what lives is left alone");
    assert_eq!(leftovers(&first).len(), 4, "{:?}", leftovers(&first));
    let machine = second.machines()[0].clone();
    let run = second.outside();
    drop(second);
    drop(machine);
    let left = format!("/run/netns/vibra-r{}-host", run.octets()[2]);
    assert!(!Path::new(&left).exists(), "{left} after the drop");
    first.machines()[0].stop().await.unwrap();
    first.stop().await.unwrap();
}

/// Not a test of its own: the process that [`what_a_crash_leaves_is_removed`] kills.
#[tokio::test]
async fn crashing() {
    let Ok(note) = std::env::var(CRASHES) else { return };
    let files = Path::new(&note).parent().unwrap();
    let Some(host) = host_in(files, &["vm1"], None).await else { return };
    std::fs::write(&note, host.outside().octets()[2].to_string()).unwrap();
    std::future::pending().await
}

#[tokio::test]
async fn what_a_crash_leaves_is_removed() {
    if let Err(reason) = tokio::task::spawn_blocking(probe).await.unwrap().namespaces() {
        return eprintln!("skipped: {reason}");
    }
    let directory = directory();
    let note = directory.path().join("run");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashing"])
        .env(CRASHES, &note)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let made = async {
        loop {
            match std::fs::read_to_string(&note).ok().and_then(|run| run.parse::<u8>().ok()) {
                Some(run) => return run,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let run = tokio::time::timeout(Duration::from_secs(30), made).await.expect("the host is made");
    child.kill().unwrap();
    child.wait().unwrap();
    let namespace = format!("/run/netns/vibra-r{run}-vm0");
    assert!(Path::new(&namespace).exists());
    let master = std::fs::read_to_string(format!("/run/vibra/r{run}/vm0/pid")).unwrap();
    let master = format!("/proc/{}/cmdline", master.trim());
    assert!(std::fs::read_to_string(&master).unwrap().starts_with("nginx"));
    // Another test may have found it first.
    cleanup_stale().unwrap();
    let gone = async {
        while [namespace.as_str(), &format!("/sys/class/net/vibra-r{run}")].iter().any(|path| Path::new(path).exists())
            || std::fs::read_to_string(&master).is_ok_and(|line| line.starts_with("nginx"))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("all of it is removed");
}
