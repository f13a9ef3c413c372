//! LARD and LARD/R, step by step against their published pseudo code.

use super::*;
use crate::testing::servers;
use vibra_model::VmState;

/// A cluster with a history, and the loads that a test sets.
struct Scene {
    lard: Lard,
    servers: Vec<Server>,
    circle: Circle,
    history: History,
    loads: Vec<u32>,
    now: Timestamp,
}

impl Scene {
    fn new(variant: Variant, count: usize) -> Self {
        Self::remembering(variant, count, 100)
    }

    fn remembering(variant: Variant, count: usize, objects: usize) -> Self {
        let servers = servers(&vec![true; count]);
        let objects = NonZeroUsize::new(objects).unwrap();
        Scene {
            lard: Lard { variant, settings: LardSettings::default() },
            circle: Circle::new(&servers),
            history: History::new(objects, &servers),
            servers,
            loads: vec![0; count],
            now: Timestamp(0),
        }
    }

    /// Requests `name`: the server's index and how it was found.
    fn pick(&mut self, name: &str) -> (usize, Step) {
        let request = Request { name, loads: &self.loads, now: self.now };
        let looked = self.history.look(&self.lard, &self.circle, &request).unwrap();
        let picked = self.history.pick(&self.lard, &self.circle, &request).unwrap();
        assert_eq!((looked.server, looked.step), (picked.server, picked.step));
        (picked.server, picked.step)
    }

    fn set_of(&self, name: &str) -> Vec<usize> {
        let set = self.history.sets.peek(&xxh3_64(name.as_bytes())).unwrap();
        set.members.iter().filter_map(|&member| self.history.roster.index(member)).collect()
    }

    fn state(&mut self, server: usize, state: VmState) {
        self.servers[server].state = state;
        self.circle = Circle::new(&self.servers);
        let stay: Vec<_> = (0..self.servers.len()).map(Some).collect();
        self.history.carry(self.history.sets.cap(), &stay, &self.servers);
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }
}

#[test]
fn a_new_object_goes_to_the_least_loaded_and_stays() {
    let mut scene = Scene::new(Variant::Single, 3);
    scene.loads = vec![9, 4, 7];
    assert_eq!(scene.pick("/a"), (1, Step::Assigned));
    scene.loads = vec![0, 65, 0];
    assert_eq!(scene.pick("/a"), (1, Step::Kept));
}

#[test]
fn an_idle_cluster_is_used_evenly() {
    let mut scene = Scene::new(Variant::Single, 3);
    let assigned: Vec<usize> = (0..6).map(|i| scene.pick(&format!("/{i}")).0).collect();
    assert_eq!(assigned, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn over_t_high_an_object_moves_only_to_an_idle_server() {
    let mut scene = Scene::new(Variant::Single, 2);
    assert_eq!(scene.pick("/a"), (0, Step::Assigned));
    scene.loads = vec![66, 25];
    assert_eq!(scene.pick("/a"), (0, Step::Kept), "25 is not below T_low");
    scene.loads = vec![65, 24];
    assert_eq!(scene.pick("/a"), (0, Step::Kept), "65 is not over T_high");
    scene.loads = vec![66, 24];
    assert_eq!(scene.pick("/a"), (1, Step::Relieved));
    scene.loads = vec![0, 65];
    assert_eq!(scene.pick("/a"), (1, Step::Kept), "it has moved for good");
}

#[test]
fn at_twice_t_high_an_object_moves_in_any_case() {
    let mut scene = Scene::new(Variant::Single, 2);
    scene.pick("/a");
    scene.loads = vec![129, 128];
    assert_eq!(scene.pick("/a"), (0, Step::Kept));
    scene.loads = vec![130, 128];
    assert_eq!(scene.pick("/a"), (1, Step::Relieved));
    scene.loads = vec![500, 400];
    assert_eq!(scene.pick("/a"), (1, Step::Kept), "its own server is the least loaded");
}

#[test]
fn a_server_set_grows_under_load() {
    let mut scene = Scene::new(Variant::Replicated, 3);
    scene.pick("/hot");
    scene.loads = vec![66, 10, 5];
    assert_eq!(scene.pick("/hot"), (2, Step::Relieved));
    assert_eq!(scene.set_of("/hot"), [0, 2]);
    // The least loaded of the set serves.
    scene.loads = vec![40, 0, 50];
    assert_eq!(scene.pick("/hot"), (0, Step::Kept));
    scene.loads = vec![70, 0, 68];
    assert_eq!(scene.pick("/hot"), (1, Step::Relieved));
    assert_eq!(scene.set_of("/hot"), [0, 2, 1]);
}

#[test]
fn a_server_set_shrinks_after_k() {
    let mut scene = Scene::new(Variant::Replicated, 3);
    scene.pick("/hot");
    scene.loads = vec![66, 10, 5];
    scene.pick("/hot");
    scene.loads = vec![70, 0, 68];
    scene.wait(5);
    scene.pick("/hot");
    assert_eq!(scene.set_of("/hot"), [0, 2, 1]);
    scene.loads = vec![3, 2, 9];
    scene.wait(20);
    scene.pick("/hot");
    assert_eq!(scene.set_of("/hot"), [0, 2, 1], "K is not yet exceeded since the last change");
    scene.wait(1);
    assert_eq!(scene.pick("/hot"), (1, Step::Kept));
    assert_eq!(scene.set_of("/hot"), [0, 1], "the most loaded has left");
    scene.pick("/hot");
    assert_eq!(scene.set_of("/hot"), [0, 1], "one at a time: the set has just changed");
    scene.wait(21);
    scene.pick("/hot");
    scene.wait(21);
    scene.pick("/hot");
    assert_eq!(scene.set_of("/hot"), [1], "the last one stays");
}

#[test]
fn of_equally_loaded_members_another_leaves_than_the_one_that_serves() {
    let mut scene = Scene::new(Variant::Replicated, 2);
    scene.pick("/hot");
    scene.loads = vec![66, 0];
    scene.pick("/hot");
    scene.loads = vec![7, 7];
    scene.wait(21);
    assert_eq!(scene.pick("/hot").0, 0);
    assert_eq!(scene.set_of("/hot"), [0]);
}

#[test]
fn a_failed_servers_entries_are_invalid_ever_after() {
    for variant in [Variant::Single, Variant::Replicated] {
        let mut scene = Scene::new(variant, 2);
        assert_eq!(scene.pick("/a"), (0, Step::Assigned));
        scene.state(0, VmState::Down);
        assert_eq!(scene.pick("/a"), (1, Step::Assigned));
        let mut scene = Scene::new(variant, 2);
        scene.pick("/a");
        scene.state(0, VmState::Down);
        scene.state(0, VmState::Warming);
        assert_eq!(scene.pick("/a").1, Step::Assigned, "its replacement has a cold cache (section 4.3.2)");
    }
}

#[test]
fn a_set_loses_its_failed_members_only() {
    let mut scene = Scene::new(Variant::Replicated, 3);
    scene.pick("/hot");
    scene.loads = vec![66, 10, 5];
    scene.pick("/hot");
    scene.state(0, VmState::Down);
    scene.loads = vec![0, 1, 9];
    assert_eq!(scene.pick("/hot"), (2, Step::Kept));
}

#[test]
fn a_draining_server_gets_nothing_and_loses_nothing() {
    let mut scene = Scene::new(Variant::Single, 2);
    scene.pick("/a");
    scene.state(0, VmState::Draining);
    assert_eq!(scene.pick("/b"), (1, Step::Assigned));
    scene.state(0, VmState::Up);
    assert_eq!(scene.pick("/a"), (0, Step::Kept));
}

#[test]
fn the_least_recently_requested_object_is_forgotten() {
    let mut scene = Scene::remembering(Variant::Single, 2, 2);
    scene.pick("/a");
    scene.pick("/b");
    scene.pick("/a");
    scene.pick("/c");
    assert_eq!(scene.history.objects(), 2);
    assert_eq!(scene.pick("/a").1, Step::Kept);
    assert_eq!(scene.pick("/b").1, Step::Assigned);
}

#[test]
fn nobody_serves_nobody_is_chosen() {
    let mut scene = Scene::new(Variant::Replicated, 1);
    scene.pick("/a");
    scene.state(0, VmState::Down);
    let request = Request { name: "/a", loads: &scene.loads, now: scene.now };
    assert!(scene.history.pick(&scene.lard, &scene.circle, &request).is_none());
    assert_eq!(scene.lard.limit(0), None);
}

#[test]
fn the_limit_is_that_of_the_paper() {
    let lard = Lard { variant: Variant::Single, settings: LardSettings::default() };
    assert_eq!(lard.limit(4), Some(3 * 65 + 25 - 1));
    assert_eq!(lard.limit(1), Some(24));
}
