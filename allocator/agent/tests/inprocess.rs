//! In-process VMs over real sockets.

mod common;

use common::{Download, client, fetch, get, resources};
use http::{StatusCode, header};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;
use vibra_agent::{Catalogue, InProcessHost, Machine, MachineError, MachineSpec, OriginSettings};
use vibra_model::{Amount, Bytes, BytesPerSec, MilliCpu, VmState};

const MEMORY: u64 = 64 << 20;

async fn start(bandwidth: u64) -> Arc<dyn Machine> {
    let catalogue = Catalogue::new([("/large", Bytes(20_000_000)), ("/small", Bytes(3_000))]).unwrap();
    let spec = MachineSpec { id: "vm1".parse().unwrap(), initial: resources(bandwidth, MEMORY) };
    let host = InProcessHost::start(OriginSettings::default(), Arc::new(catalogue), vec![spec]).await.unwrap();
    host.machines()[0].clone()
}

#[tokio::test]
async fn egress_keeps_to_its_rate_and_to_a_new_one() {
    let vm = start(100_000_000).await;
    // Once it is in memory, the disk does not hold it up.
    fetch(&client(), get(&*vm, "/large")).await;
    let download = Download::start(&*vm, "/large", 8);
    for allocation in [2_000_000, 800_000, 3_000_000] {
        vm.set(Amount::Bandwidth(BytesPerSec(allocation))).await.unwrap();
        let rate = download.rate(Duration::from_millis(1_500)).await;
        assert!((rate / allocation as f64 - 1.0).abs() < 0.05, "{rate} of {allocation}");
    }
}

#[tokio::test]
async fn a_restart_is_cold_and_keeps_address_and_allocation() {
    let vm = start(50_000_000).await;
    vm.set(Amount::Bandwidth(BytesPerSec(60_000_000))).await.unwrap();
    let address = vm.address().to_owned();
    let before = fetch(&client(), get(&*vm, "/small")).await;
    fetch(&client(), get(&*vm, "/small")).await;
    assert_eq!(vm.read().await.unwrap().disk_blocks, Some(6));
    vm.stop().await.unwrap();
    assert_eq!(vm.state().await, VmState::Down);
    assert!(TcpStream::connect(&address).await.is_err());
    assert!(matches!(vm.read().await, Err(MachineError::Failed { .. })));
    vm.start().await.unwrap();
    assert_eq!(vm.state().await, VmState::Up);
    assert_eq!(vm.address(), address);
    assert_eq!(vm.allocation().await.unwrap(), resources(60_000_000, MEMORY));
    assert_eq!(vm.read().await.unwrap().requests, Some(0));
    let after = fetch(&client(), get(&*vm, "/small")).await;
    assert_eq!(before.body(), after.body());
    let reading = vm.read().await.unwrap();
    assert_eq!((reading.life, reading.disk_blocks), (2, Some(6)));
}

#[tokio::test]
async fn answers_are_reproducible() {
    let vm = start(50_000_000).await;
    let client = client();
    let whole = fetch(&client, get(&*vm, "/small?session=1")).await;
    assert_eq!((whole.status(), whole.body().len()), (StatusCode::OK, 3_000));
    let mut part = get(&*vm, "/small");
    part.headers_mut().insert(header::RANGE, "bytes=1000-1999".parse().unwrap());
    let part = fetch(&client, part).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 1000-1999/3000");
    assert_eq!(part.body(), &whole.body().slice(1_000..2_000));
    let mut again = get(&*vm, "/small");
    again.headers_mut().insert(header::IF_NONE_MATCH, whole.headers()[header::ETAG].clone());
    assert_eq!(fetch(&client, again).await.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(fetch(&client, get(&*vm, "/none")).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_not_managed_is_refused() {
    let vm = start(50_000_000).await;
    let refused = vm.set(Amount::Cpu(MilliCpu(500))).await;
    assert!(matches!(refused, Err(MachineError::NotManaged { .. })), "{refused:?}");
    assert_eq!(vm.allocation().await.unwrap(), resources(50_000_000, MEMORY));
}
