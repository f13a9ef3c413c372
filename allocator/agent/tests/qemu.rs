//! Virtual machines on real QEMU, where it is installed and there is a VM image.

mod common;

use common::{Download, client, client_from, fetch, get, resources};
use http::{StatusCode, header};
use http_body_util::BodyExt;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::OnceCell;
use vibra_agent::{
    Catalogue, Machine, MachineSpec, Moved, QemuCapabilities, QemuHost, QemuSettings, cleanup_stale, probe_qemu,
};
use vibra_model::{Amount, Bytes, BytesPerSec, HostId, MilliCpu, Resources, VmState};

const MIB: u64 = 1 << 20;
/// What VMs boot with, and what they have then.
const BOOT: u64 = 160 * MIB;
const MEMORY: u64 = 128 * MIB;
/// Set for the process that is to crash.
const CRASHES: &str = "VIBRA_TEST_CRASHES";

async fn found() -> &'static QemuCapabilities {
    static FOUND: OnceCell<QemuCapabilities> = OnceCell::const_new();
    FOUND.get_or_init(async || tokio::task::spawn_blocking(|| probe_qemu(None)).await.unwrap()).await
}

fn settings() -> QemuSettings {
    QemuSettings { boot_memory: Bytes(BOOT), disk: None, ..QemuSettings::default() }
}

fn spec(name: &str) -> MachineSpec {
    let initial = Resources { cpu: Some(MilliCpu(2_000)), ..resources(2_000_000, MEMORY) };
    MachineSpec { id: name.parse().unwrap(), initial }
}

/// A host with these VMs; `None`, and a word why, where this machine cannot.
async fn host(settings: QemuSettings, names: &[&str]) -> Option<QemuHost> {
    if let Err(reason) = found().await.machines() {
        eprintln!("skipped: {reason}");
        return None;
    }
    let specs = names.iter().map(|name| spec(name)).collect();
    Some(QemuHost::start(settings, Arc::new(catalogue()), specs).await.unwrap())
}

fn catalogue() -> Catalogue {
    let sizes = [("/large", 20_000_000), ("/small", 3_000), ("/a", 1_000), ("/a/b", 500), ("/x%20y", 7)];
    Catalogue::new(sizes.map(|(path, size)| (path, Bytes(size)))).unwrap()
}

/// Waits until `vm` is in `state`.
async fn wait_for(vm: &dyn Machine, state: VmState) {
    let reached = async {
        while vm.state().await != state {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("the state is reached");
}

/// Gives `vm` so much memory as an agent does: what is not done in time goes on with the next order.
async fn bring_to(vm: &dyn Machine, memory: u64) {
    let amount = Amount::Memory(Bytes(memory));
    let reached = async { while vm.set(amount).await.unwrap() != amount {} };
    tokio::time::timeout(Duration::from_secs(30), reached).await.expect("the balloon follows");
}

/// What a run leaves behind, if it leaves anything.
fn leftovers(run: u8) -> Vec<String> {
    let places = ["/run/netns/vibra-rN-host", "/sys/class/net/vibra-rN", "/run/vibra/rN"];
    let groups = ["/sys/fs/cgroup/memory/vibra-rN", "/sys/fs/cgroup/vibra-rN"];
    let names = places.into_iter().chain(groups).map(|name| name.replace('N', &run.to_string()));
    names.filter(|path| Path::new(path).exists()).collect()
}

#[tokio::test]
async fn a_vm_serves_and_has_what_it_is_given() {
    let Some(host) = host(settings(), &["vm1"]).await else { return };
    let (vm, client) = (&*host.machines()[0], client());
    assert_eq!(vm.state().await, VmState::Up);

    let whole = fetch(&client, get(vm, "/small?session=1")).await;
    let catalogue = catalogue();
    let (_, object) = catalogue.find("/small").unwrap();
    assert_eq!((whole.status(), whole.body()), (StatusCode::OK, &object.chunk(0..3_000)));
    assert_eq!(whole.headers()[header::ETAG], object.etag());
    for (path, size) in [("/a", 1_000), ("/a/b", 500), ("/x%20y", 7)] {
        assert_eq!(fetch(&client, get(vm, path)).await.body().len(), size, "{path}");
    }
    assert_eq!(fetch(&client, get(vm, "/none")).await.status(), StatusCode::NOT_FOUND);

    let had = vm.allocation().await.unwrap();
    assert_eq!(had, spec("vm1").initial);
    for memory in [88 * MIB, 150 * MIB] {
        bring_to(vm, memory).await;
        assert_eq!(vm.allocation().await.unwrap().memory, Some(Bytes(memory)));
    }
    // The balloon takes; it cannot give what the VM never had.
    let most = vm.set(Amount::Memory(Bytes(BOOT + 64 * MIB))).await.unwrap();
    assert_eq!(most, Amount::Memory(Bytes(BOOT)));

    let reading = vm.read().await.unwrap();
    assert_eq!(reading.life, 1);
    assert!(reading.egress.unwrap().0 > 4_500, "{reading:?}");
    assert!(reading.cpu_time.unwrap() > Duration::from_millis(100), "{reading:?}");
    let before = reading.disk_blocks.unwrap();
    let inside = client_from(host.inside().into());
    assert_eq!(fetch(&inside, get(vm, "/large")).await.body().len(), 20_000_000);
    let after = vm.read().await.unwrap();
    assert!(after.disk_blocks.unwrap() - before >= 20_000_000 / 512, "{after:?}");
    assert_eq!(after.egress, reading.egress, "internal traffic is not counted");
    let heard = async {
        loop {
            let reading = vm.read().await.unwrap();
            if let (Some(_), Some(requests)) = (reading.memory_in_use, reading.requests.filter(|&n| n >= 6)) {
                return requests;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let requests = tokio::time::timeout(Duration::from_secs(15), heard).await.expect("the guest tells of itself");
    assert!(requests < 20, "{requests} requests: its own are not counted");

    let download = Download::start(vm, "/large", 4);
    download.first_byte().await;
    for allocation in [2_000_000, 500_000] {
        let got = vm.set(Amount::Bandwidth(BytesPerSec(allocation))).await.unwrap();
        assert_eq!(got, Amount::Bandwidth(BytesPerSec(allocation)));
    }
    // What had queued at the old rate passes first.
    let slow = async { while download.rate(Duration::from_secs(1)).await > 1.05 * 500_000.0 {} };
    tokio::time::timeout(Duration::from_secs(15), slow).await.expect("the class holds it");
    drop(download);
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_vm_is_down_and_starts_anew() {
    let Some(host) = host(settings(), &["vm1", "vm2"]).await else { return };
    let (vm, run) = (&*host.machines()[0], host.outside().octets()[2]);
    bring_to(vm, 100 * MIB).await;
    let lower = Amount::Cpu(MilliCpu(1_500));
    assert_eq!(vm.set(lower).await.unwrap(), lower);
    kill(run, 0);
    wait_for(vm, VmState::Down).await;
    assert!(vm.read().await.is_err());
    let kept = vm.set(Amount::Memory(Bytes(120 * MIB))).await.unwrap();
    assert_eq!(kept, Amount::Memory(Bytes(120 * MIB)), "what it has when it is started");
    assert_eq!(host.machines()[1].state().await, VmState::Up, "the other one runs on");

    let (started, during) = tokio::join!(vm.start(), async {
        wait_for(vm, VmState::Starting).await;
        vm.state().await
    });
    started.unwrap();
    assert_eq!((during, vm.state().await), (VmState::Starting, VmState::Up));
    let has = vm.allocation().await.unwrap();
    assert_eq!((has.memory, has.cpu), (Some(Bytes(120 * MIB)), Some(MilliCpu(1_500))));
    let reading = vm.read().await.unwrap();
    assert_eq!((reading.life, reading.egress), (2, Some(Bytes::ZERO)));
    assert_eq!(fetch(&client(), get(vm, "/small")).await.body().len(), 3_000);
    vm.stop().await.unwrap();
    assert_eq!(vm.state().await, VmState::Down);
    host.stop().await.unwrap();
    assert_eq!(leftovers(run), [] as [String; 0]);
}

/// The processes of a VM, in either version of control groups.
fn processes(run: u8, index: usize) -> Vec<i32> {
    let groups = ["memory/", ""].map(|place| format!("/sys/fs/cgroup/{place}vibra-r{run}/vm{index}/cgroup.procs"));
    let texts = groups.iter().map(|group| std::fs::read_to_string(group).unwrap_or_default());
    texts.flat_map(|text| text.lines().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

fn kill(run: u8, index: usize) {
    for pid in processes(run, index) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

/// Not a test of its own: the process that [`what_a_crash_leaves_is_removed`] kills.
#[tokio::test]
async fn crashing() {
    let Ok(note) = std::env::var(CRASHES) else { return };
    let Some(host) = host(settings(), &["vm1"]).await else { return };
    std::fs::write(&note, host.outside().octets()[2].to_string()).unwrap();
    std::future::pending().await
}

#[tokio::test]
async fn what_a_crash_leaves_is_removed() {
    if let Err(reason) = found().await.machines() {
        return eprintln!("skipped: {reason}");
    }
    let directory = tempfile::tempdir().unwrap();
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
    let run = tokio::time::timeout(Duration::from_secs(100), made).await.expect("the host is made");
    let machine = processes(run, 0).pop().expect("QEMU runs in the VM's control group");
    child.kill().unwrap();
    child.wait().unwrap();
    // Another test may have found it first.
    cleanup_stale().unwrap();
    let gone = async {
        while Path::new(&format!("/proc/{machine}")).exists() || !leftovers(run).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("all of it is removed");
}

#[tokio::test]
async fn a_vm_that_does_not_boot_is_ended_and_its_console_quoted() {
    let Ok(image) = found().await.image.clone() else { return eprintln!("skipped: {}", found().await) };
    let broken = tempfile::tempdir().unwrap();
    std::fs::copy(image.join("kernel"), broken.path().join("kernel")).unwrap();
    // No initramfs, no root: the kernel panics, and QEMU ends.
    std::fs::write(broken.path().join("initramfs"), "").unwrap();
    if let Err(reason) = found().await.machines() {
        return eprintln!("skipped: {reason}");
    }
    let settings = QemuSettings { image: Some(broken.path().to_owned()), ..settings() };
    let started = QemuHost::start(settings, Arc::new(catalogue()), vec![spec("vm1")]).await;
    let Err(error) = started else { panic!("it boots") };
    let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let text: Vec<_> = text.map(ToString::to_string).collect();
    assert!(text.join(": ").contains("panic"), "{text:?}");
}

/// Two joined hosts, the first with a VM.
async fn two_hosts(settings: QemuSettings) -> Option<[QemuHost; 2]> {
    let first = host(settings.clone(), &["vm1"]).await?;
    let second = host(settings, &[]).await?;
    let [a, b]: [HostId; 2] = ["a", "b"].map(|name| name.parse().unwrap());
    QemuHost::join(&[(a, &first), (b, &second)]).await.unwrap();
    Some([first, second])
}

#[tokio::test]
async fn a_vm_moves_while_it_serves() {
    let fast = QemuSettings { moving_rate: BytesPerSec(40_000_000), ..settings() };
    let Some([first, second]) = two_hosts(fast).await else { return };
    let (vm, runs) = (first.machines()[0].clone(), [&first, &second].map(|host| host.outside().octets()[2]));
    let (address, had) = (vm.address().to_owned(), vm.allocation().await.unwrap());
    // An answer of some fifteen seconds, which begins on one host and ends on the other.
    let catalogue = catalogue();
    let (_, object) = catalogue.find("/large").unwrap();
    vm.set(Amount::Bandwidth(BytesPerSec(1_300_000))).await.unwrap();
    let download = {
        let request = get(&*vm, "/large");
        tokio::spawn(async move { client().request(request).await.unwrap().into_body().collect().await })
    };
    let begun = async {
        while vm.read().await.unwrap().egress.unwrap() < Bytes(500_000) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), begun).await.expect("the answer begins");

    let moved = vm.move_to(&"b".parse().unwrap()).await.unwrap();
    let Moved::Live(migration) = moved else { panic!("{moved:?}") };
    eprintln!("moved in {:?}, halted for {:?}, {} copied", migration.duration, migration.downtime, migration.bytes);
    assert!(migration.bytes > Bytes(MIB) && migration.downtime.is_some(), "{migration:?}");
    assert_eq!((vm.state().await, vm.address()), (VmState::Up, &*address));
    assert_eq!((processes(runs[0], 0), processes(runs[1], 0).len()), (vec![], 1));
    let has = vm.allocation().await.unwrap();
    assert_eq!(has, Resources { bandwidth: Some(BytesPerSec(1_300_000)), ..had });
    assert_eq!(fetch(&client(), get(&*vm, "/small")).await.body().len(), 3_000);
    let whole = tokio::time::timeout(Duration::from_secs(60), download).await.expect("the answer ends");
    assert!(whole.unwrap().unwrap().to_bytes() == whole_body(object), "all of it, and nothing twice");

    let reading = vm.read().await.unwrap();
    assert_eq!(reading.life, 2);
    assert!(reading.egress.unwrap().0 > 0, "what it sends now is counted where it is: {reading:?}");
    bring_to(&*vm, 100 * MIB).await;
    vm.stop().await.unwrap();
    vm.start().await.unwrap();
    assert_eq!((processes(runs[0], 0), processes(runs[1], 0).len()), (vec![], 1), "it starts where it is");
    assert_eq!(fetch(&client(), get(&*vm, "/small")).await.body().len(), 3_000);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    assert_eq!(runs.map(leftovers), [const { Vec::<String>::new() }; 2]);
}

fn whole_body(object: &vibra_agent::Object) -> Vec<u8> {
    let mut body = Vec::new();
    while (body.len() as u64) < object.size.0 {
        body.extend_from_slice(&object.chunk(body.len() as u64..object.size.0));
    }
    body
}

#[tokio::test]
async fn a_vm_that_cannot_move_in_time_is_stopped_and_starts_there() {
    let slow = QemuSettings { moving_rate: BytesPerSec(200_000), moving_time: Duration::from_secs(2), ..settings() };
    let Some([first, second]) = two_hosts(slow).await else { return };
    let (vm, runs) = (first.machines()[0].clone(), [&first, &second].map(|host| host.outside().octets()[2]));
    // Told to stay while it is on its way, it stays and serves.
    let b: HostId = "b".parse().unwrap();
    let told = async {
        while processes(runs[1], 0).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while vm.state().await == VmState::Up && !processes(runs[1], 0).is_empty() {
            vm.stay();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (stays, ()) = tokio::join!(vm.move_to(&b), told);
    let error = stays.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("to stay"), "{error}");
    assert_eq!(fetch(&client(), get(&*vm, "/small")).await.body().len(), 3_000);

    let Moved::Stopped { why: Some(why) } = vm.move_to(&b).await.unwrap() else { panic!("it went live") };
    assert!(why.contains("given up after 2s"), "{why}");
    assert_eq!(vm.state().await, VmState::Down);
    vm.start().await.unwrap();
    assert_eq!((processes(runs[0], 0), processes(runs[1], 0).len()), (vec![], 1));
    assert_eq!(fetch(&client(), get(&*vm, "/small")).await.body().len(), 3_000);
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}
