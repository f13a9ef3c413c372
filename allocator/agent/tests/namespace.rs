//! Namespace VMs on the real kernel, where it lets us.

mod common;

use common::{Download, client, client_from, fetch, get, resources};
use http::{StatusCode, header};
use std::{path::Path, sync::Arc, time::Duration};
use vibra_agent::{
    Catalogue, DiskLimit, MachineError, MachineSpec, NamespaceHost, NamespaceSettings, cleanup_stale, probe,
};
use vibra_model::{Amount, Bytes, BytesPerSec, MilliCpu, VmState};

const MEMORY: u64 = 64 << 20;

/// A host with these VMs, of 2 MB/s each, and a directory that goes with it; `None`, and a word why, where this
/// machine cannot.
async fn host(names: &[&str], disk: Option<DiskLimit>) -> Option<(NamespaceHost, tempfile::TempDir)> {
    let found = tokio::task::spawn_blocking(probe).await.unwrap();
    if let Err(reason) = found.namespaces() {
        eprintln!("skipped: {reason}");
        return None;
    }
    // The files must be on a disk: the target directory is, a temporary one may not be.
    let docroots = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sizes = [("/large", 20_000_000), ("/small", 3_000), ("/a", 1_000), ("/a/b", 500), ("/x%20y", 7)];
    let catalogue = Catalogue::new(sizes.map(|(path, size)| (path, Bytes(size)))).unwrap();
    let settings = NamespaceSettings { docroots: docroots.path().to_owned(), disk, ..NamespaceSettings::default() };
    let spec = |name: &&str| MachineSpec { id: name.parse().unwrap(), initial: resources(2_000_000, MEMORY) };
    let specs = names.iter().map(spec).collect();
    let host = NamespaceHost::start(settings, Arc::new(catalogue), specs).await.unwrap();
    Some((host, docroots))
}

/// What a run leaves behind, if it leaves anything.
fn leftovers(host: &NamespaceHost) -> Vec<String> {
    let run = host.outside().octets()[2];
    let link = format!("/sys/class/net/vibra-r{run}");
    let group = format!("/sys/fs/cgroup/memory/vibra-r{run}");
    let names = [format!("/run/netns/vibra-r{run}-host"), format!("/run/netns/vibra-r{run}-vm0"), link, group];
    names.into_iter().filter(|path| Path::new(path).exists()).collect()
}

#[tokio::test]
async fn egress_is_held_and_internal_traffic_left_alone() {
    let Some((host, _files)) = host(&["vm1", "vm2"], None).await else { return };
    let vm = &host.machines()[0];
    fetch(&client_from(host.inside().into()), get(&**vm, "/large")).await;
    let download = Download::start(&**vm, "/large", 8);
    for allocation in [2_000_000, 6_000_000, 1_000_000] {
        let got = vm.set(Amount::Bandwidth(BytesPerSec(allocation))).await.unwrap();
        assert_eq!(got, Amount::Bandwidth(BytesPerSec(allocation)));
        let before = vm.read().await.unwrap().egress.unwrap().0;
        let rate = download.rate(Duration::from_secs(3)).await;
        // Heads and frames take 5 % of what the shaper lets through.
        let share = rate / allocation as f64;
        assert!((0.90..1.0).contains(&share), "{rate} of {allocation}");
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

#[tokio::test]
async fn nginx_answers_as_the_traces_ask() {
    let Some((host, _files)) = host(&["vm1"], None).await else { return };
    let (vm, client) = (&host.machines()[0], client());
    let whole = fetch(&client, get(&**vm, "/small?session=1")).await;
    assert_eq!((whole.status(), whole.body().len()), (StatusCode::OK, 3_000));
    let catalogue = Catalogue::new([("/small", Bytes(3_000))]).unwrap();
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
    let reading = vm.read().await.unwrap();
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
    let cpu = vm.set(Amount::Cpu(MilliCpu(500))).await;
    assert!(matches!(cpu, Err(MachineError::NotManaged { .. })), "{cpu:?}");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_disk_of_its_time_can_be_had() {
    let slow = DiskLimit { reads_per_s: 50, read: BytesPerSec(5_000_000) };
    let Some((host, _files)) = host(&["vm1"], Some(slow)).await else { return };
    let (vm, client) = (&host.machines()[0], client_from(host.inside().into()));
    let start = std::time::Instant::now();
    fetch(&client, get(&**vm, "/large")).await;
    let cold = start.elapsed();
    assert!((3.0..8.0).contains(&cold.as_secs_f64()), "20 MB at 5 MB/s: {cold:?}");
    let start = std::time::Instant::now();
    fetch(&client, get(&**vm, "/large")).await;
    assert!(start.elapsed() < cold / 4, "from memory: {:?}", start.elapsed());
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
