//! Virtual machines on real QEMU, where it is installed and there is a VM image.

mod common;

use common::{Download, client, client_from, fetch, get, resources};
use http::{StatusCode, header};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::OnceCell;
use vibra_agent::{Catalogue, Machine, MachineSpec, QemuCapabilities, QemuHost, QemuSettings, probe_qemu};
use vibra_model::{Amount, Bytes, BytesPerSec, MilliCpu, Resources, VmState};

const MIB: u64 = 1 << 20;
/// What VMs boot with, and what they have then.
const BOOT: u64 = 160 * MIB;
const MEMORY: u64 = 128 * MIB;

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
        let got = vm.set(Amount::Memory(Bytes(memory))).await.unwrap();
        assert_eq!(got, Amount::Memory(Bytes(memory)));
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
        while vm.read().await.unwrap().memory_in_use.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), heard).await.expect("the guest tells of its memory");

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
    vm.set(Amount::Memory(Bytes(100 * MIB))).await.unwrap();
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

/// Kills the processes of a VM.
fn kill(run: u8, index: usize) {
    for place in ["memory/", ""] {
        let procs = format!("/sys/fs/cgroup/{place}vibra-r{run}/vm{index}/cgroup.procs");
        for pid in std::fs::read_to_string(procs).unwrap_or_default().lines() {
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }
}
