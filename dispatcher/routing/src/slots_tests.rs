//! How the map of slots follows load and failures.

use super::*;
use crate::testing::servers;
use proptest::prelude::*;
use vibra_model::VmState;

const INTERVAL: Duration = Duration::from_secs(3);

struct Scene {
    servers: Vec<Server>,
    circle: Circle,
    map: SlotMap,
    now: Timestamp,
}

impl Scene {
    fn new(up: &[bool], per_server: usize) -> Self {
        let servers = servers(up);
        let circle = Circle::new(&servers);
        let map = SlotMap::new(&SlotSettings { per_server, interval_ms: 3000 }, &servers, &circle);
        let mut scene = Scene { servers, circle, map, now: Timestamp(0) };
        scene.tick();
        scene
    }

    fn tick(&mut self) {
        self.map.tick(INTERVAL, self.now, &self.servers, &self.circle);
    }

    /// One interval in which each slot has so many requests.
    fn interval(&mut self, requests: &[u32]) {
        for (slot, &count) in requests.iter().enumerate() {
            (0..count).for_each(|_| self.map.count(slot));
        }
        self.now = self.now.after(INTERVAL);
        self.tick();
    }

    fn state(&mut self, server: usize, state: VmState) {
        self.servers[server].state = state;
        self.circle = Circle::new(&self.servers);
        self.map.carry(Some, &self.servers, &self.circle);
    }

    /// The requests of one interval by server.
    fn totals(&self, requests: &[u32]) -> Vec<u32> {
        let mut totals = vec![0; self.servers.len()];
        self.map.owners.iter().zip(requests).for_each(|(&owner, count)| totals[owner as usize] += count);
        totals
    }

    fn held(&self) -> Vec<u32> {
        self.totals(&vec![1; self.map.slots()])
    }
}

#[test]
fn it_begins_as_url_hashing_does() {
    let scene = Scene::new(&[true; 4], 8);
    assert!((0..32).all(|slot| scene.map.owners[slot] as usize == slot % 4));
    assert_eq!(scene.map.slot(37), 5);
}

#[test]
fn the_heaviest_slot_that_fits_moves_to_the_least_loaded() {
    let mut scene = Scene::new(&[true; 3], 3);
    // Server 0 has slots 0, 3 and 6 with 100, 40 and 30 requests; server 2 has least.
    let requests = [100, 20, 5, 40, 20, 5, 30, 20, 5];
    assert_eq!(scene.totals(&requests), [170, 60, 15]);
    scene.interval(&requests);
    // 100 would turn 170 and 15 around; 40 does not.
    assert_eq!(scene.totals(&requests), [130, 60, 55]);
    assert_eq!(scene.map.owners[3], 2);
}

#[test]
fn one_hot_slot_is_left_alone() {
    let mut scene = Scene::new(&[true; 2], 2);
    let requests = [1000, 0, 0, 0];
    let before = scene.map.owners.clone();
    for _ in 0..10 {
        scene.interval(&requests);
    }
    assert_eq!(scene.map.owners, before, "moving it would only move the hot spot");
}

#[test]
fn small_differences_are_left_alone() {
    let mut scene = Scene::new(&[true; 2], 2);
    let before = scene.map.owners.clone();
    scene.interval(&[53, 50, 53, 50]);
    assert_eq!(scene.map.owners, before);
}

#[test]
fn nothing_moves_within_an_interval() {
    let mut scene = Scene::new(&[true; 2], 4);
    (0..100).for_each(|i| scene.map.count(i % 2 * 2));
    scene.now = Timestamp(2_999_999);
    let before = scene.map.owners.clone();
    scene.tick();
    assert_eq!(scene.map.owners, before);
    scene.now = Timestamp(3_000_000);
    scene.tick();
    assert_ne!(scene.map.owners, before);
}

#[test]
fn load_fades() {
    let mut scene = Scene::new(&[true; 2], 1);
    scene.interval(&[1024, 0]);
    assert_eq!(scene.map.loads[0], 1024 * REQUEST);
    // Ten intervals without a request: the load is halved by each.
    scene.now = scene.now.after(INTERVAL * 10);
    scene.tick();
    assert_eq!(scene.map.loads[0], REQUEST);
    scene.now = scene.now.after(INTERVAL * 1000);
    scene.tick();
    assert_eq!(scene.map.loads[0], 0);
}

#[test]
fn a_failed_servers_slots_are_spread() {
    let mut scene = Scene::new(&[true; 4], 12);
    scene.state(1, VmState::Down);
    assert_eq!(scene.held(), [16, 0, 16, 16]);
    scene.state(1, VmState::Warming);
    assert_eq!(scene.held(), [16, 0, 16, 16], "slots come back with load only");
    for _ in 0..20 {
        scene.interval(&[10; 48]);
    }
    assert!(scene.held()[1] >= 10, "{:?}", scene.held());
}

#[test]
fn with_nobody_left_the_map_is_kept() {
    let mut scene = Scene::new(&[true, false], 4);
    assert_eq!(scene.held(), [8, 0]);
    scene.state(0, VmState::Down);
    assert!(scene.map.preferred(0, &scene.circle, 2).is_empty());
    scene.state(0, VmState::Up);
    assert_eq!(scene.held(), [8, 0]);
}

#[test]
fn weights_count() {
    let mut scene = Scene::new(&[true; 2], 16);
    scene.servers[0].weight = 3;
    let requests = [10; 32];
    for _ in 0..40 {
        scene.interval(&requests);
    }
    let totals = scene.totals(&requests);
    let share = f64::from(totals[0]) / 320.0;
    assert!((0.70..0.80).contains(&share), "{share}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With a steady load the largest total never grows, and the map comes to rest.
    #[test]
    fn steady_load_comes_to_rest(requests in prop::collection::vec(0u32..50, 24)) {
        let mut scene = Scene::new(&[true; 3], 8);
        let mut most = u32::MAX;
        let mut still = 0;
        for _ in 0..200 {
            let before = scene.map.owners.clone();
            scene.interval(&requests);
            let now = scene.totals(&requests).into_iter().max().unwrap();
            prop_assert!(now <= most, "{} after {}", now, most);
            most = now;
            still = if scene.map.owners == before { still + 1 } else { 0 };
        }
        prop_assert!(still >= 100, "it moved {} intervals ago", still);
    }
}
