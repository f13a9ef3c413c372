//! The shaper on the kernel, in namespaces of the tests' own, and what it would run.

use super::*;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};
use tree::{inward, table_of};

/// A namespace with a device "up" whose other end is "down"; both go with it.
struct Place {
    name: String,
}

impl Place {
    /// `None`, and a word why, where this machine cannot.
    fn make() -> Option<Place> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vibra-t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let links = "link add name up type veth peer name down\nlink set dev up up\nlink set dev down up";
        let made = Step::new(&format!("ip netns add {name}")).run().map(|_| Place { name: name.clone() });
        let made =
            made.and_then(|place| Step::new(&format!("ip -n {name} -batch -")).with_input(links).run().map(|_| place));
        made.inspect_err(|reason| eprintln!("skipped: {reason}")).ok()
    }

    fn uplink(&self) -> Uplink {
        Uplink {
            namespace: Some(self.name.clone()),
            device: "up".to_owned(),
            hook: Hook::Egress,
            internal: ["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"].map(|net| net.parse().unwrap()).into(),
            queue: Duration::from_millis(500),
        }
    }

    fn tc(&self, words: &str) -> String {
        Step::new(&format!("tc -n {} {words}", self.name)).run().unwrap()
    }

    fn nft(&self, words: &str) -> String {
        Step::new(&format!("nsenter --net=/run/netns/{} nft {words}", self.name)).run().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = Step::new(&format!("ip netns delete {}", self.name)).run();
        if !thread::panicking() {
            removed.unwrap();
        }
    }
}

/// VM `index`, with an address of each version.
fn vm(index: u16, rate: u64) -> (u16, Shaped) {
    let addresses = vec![format!("192.0.2.{index}").parse().unwrap(), format!("2001:db8::{index:x}").parse().unwrap()];
    (FIRST_CLASS + index, Shaped { addresses, rate: Some(BytesPerSec(rate)) })
}

fn rate_of(shaper: &Shaper, index: u16) -> Option<u64> {
    shaper.look().unwrap().class(FIRST_CLASS + index).map(|class| class.rate.0)
}

#[test]
fn what_is_made_is_what_is_read_back() {
    let Some(place) = Place::make() else { return };
    for hook in [Hook::Egress, Hook::Bridge] {
        let shaper = Shaper::new(Uplink { hook, ..place.uplink() });
        // Exact to the byte, also beyond 32 bits.
        let rates = [(1, 1), (2, 2_700_001), (3, 5_000_000_001)];
        shaper.put(rates.map(|(index, rate)| vm(index, rate))).unwrap();
        for (index, rate) in rates {
            assert_eq!(rate_of(&shaper, index), Some(rate), "{hook:?}");
        }
        let in_force = shaper.look().unwrap();
        assert_eq!(in_force.counter(&outward(FIRST_CLASS + 1)), Some(vibra_model::Bytes(0)));
        assert_eq!(in_force.counter(&inward(FIRST_CLASS + 3)), Some(vibra_model::Bytes(0)));
        assert_eq!(in_force.classes.len(), 4, "and one that is not limited");
        shaper.remove().unwrap();
        assert!(place.tc("qdisc show dev up").contains("noqueue"), "the default is back");
        assert_eq!(place.nft("list tables"), "");
        shaper.remove().unwrap();
    }
}

#[test]
fn what_somebody_changes_is_mended() {
    let Some(place) = Place::make() else { return };
    let shaper = Shaper::new(place.uplink());
    shaper.put([vm(1, 1_000_000), vm(2, 2_000_000)]).unwrap();
    let made = shaper.look().unwrap();
    let harms = [
        "class change dev up parent 7b1b: classid 7b1b:11 htb rate 9000000bps",
        "class change dev up parent 7b1b: classid 7b1b:12 htb rate 2000000bps ceil 9000000bps",
        "filter del dev up parent 7b1b: prio 4113",
        "filter del dev up parent 7b1b: prio 1",
        "filter del dev up parent 7b1b:",
        "qdisc replace dev up parent 7b1b:11 handle 77: pfifo",
        "qdisc del dev up root",
        "class add dev up parent 7b1b: classid 7b1b:99 htb rate 1000bps",
        "filter add dev up parent 7b1b: protocol ip prio 9 u32 match ip src 192.0.2.1/32 flowid 7b1b:1",
        "filter add dev up parent 7b1b: protocol ip prio 4113 u32 match ip src 192.0.2.9/32 flowid 7b1b:11",
    ];
    for harm in harms {
        place.tc(harm);
        assert_eq!(shaper.look().unwrap(), made, "after {harm}");
    }
    // A class that filters lead to cannot be deleted, until they are.
    place.tc("filter del dev up parent 7b1b:");
    place.tc("class del dev up classid 7b1b:12");
    assert_eq!(shaper.look().unwrap(), made);
    let table = format!("netdev {}", table_of("up"));
    for harm in ["flush ruleset".to_owned(), format!("flush chain {table} demand"), format!("delete table {table}")] {
        place.nft(&harm);
        assert_eq!(shaper.look().unwrap(), made, "after {harm}");
    }
}

#[test]
fn another_shaper_takes_over_what_one_left() {
    let Some(place) = Place::make() else { return };
    Shaper::new(place.uplink()).put([vm(1, 1_000_000), vm(2, 2_000_000), vm(3, 3_000_000)]).unwrap();
    place.nft("add table inet mine");
    let next = Shaper::new(place.uplink());
    // VM 2 is gone, and VM 4 is new.
    next.put([vm(1, 1_000_000), vm(3, 3_500_000), vm(4, 4_000_000)]).unwrap();
    let rates: Vec<_> = (1..=4).map(|index| rate_of(&next, index)).collect();
    assert_eq!(rates, [Some(1_000_000), None, Some(3_500_000), Some(4_000_000)]);
    assert_eq!(next.look().unwrap().counters.len(), 6);
    next.remove().unwrap();
    assert_eq!(place.nft("list tables").trim(), "table inet mine", "what is somebody else's stays");
}

#[test]
fn an_address_that_goes_to_another_vm_leaves_nobody_with_two_classes() {
    let Some(place) = Place::make() else { return };
    let both = |rate| Shaped { rate: Some(BytesPerSec(rate)), ..vm(1, 0).1 };
    assert_eq!(Shaper::new(place.uplink()).adopt(vec![both(1_000_000)]).unwrap(), [FIRST_CLASS]);
    let each =
        both(2_000_000).addresses.into_iter().map(|address| Shaped { addresses: vec![address], ..both(2_000_000) });
    let next = Shaper::new(place.uplink());
    assert_eq!(next.adopt(each.collect()).unwrap(), [FIRST_CLASS, FIRST_CLASS + 1]);
    let rates = [FIRST_CLASS, FIRST_CLASS + 1].map(|class| next.rate(class).unwrap().map(|rate| rate.0));
    assert_eq!(rates, [Some(1_000_000), Some(2_000_000)]);
}

#[test]
fn somebody_elses_queue_is_left_alone() {
    let Some(place) = Place::make() else { return };
    place.tc("qdisc add dev up root handle 5: tbf rate 1mbit burst 10k latency 50ms");
    let shaper = Shaper::new(place.uplink());
    let before = place.tc("qdisc show dev up");
    let error = shaper.put([vm(1, 1_000_000)]).unwrap_err();
    assert!(matches!(error, ShaperError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("(tbf, handle 5:)") && error.to_string().contains("tc qdisc del dev up root"));
    assert!(shaper.remove().is_err());
    assert_eq!(place.tc("qdisc show dev up"), before);
    // Also where it comes later.
    place.tc("qdisc del dev up root");
    shaper.look().unwrap();
    place.tc("qdisc del dev up root");
    place.tc("qdisc add dev up root handle 5: tbf rate 1mbit burst 10k latency 50ms");
    assert!(matches!(shaper.look(), Err(ShaperError::Foreign { .. })));
    assert_eq!(place.tc("qdisc show dev up"), before);
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let Some(place) = Place::make() else { return };
    let shaper = Shaper::new(Uplink { device: "eth7".to_owned(), ..place.uplink() });
    let error = shaper.put([vm(1, 1_000_000)]).unwrap_err().to_string();
    assert!(error.contains("no network device eth7"), "{error}");
}

#[test]
fn the_sum_never_exceeds_the_bound_while_many_change_at_once() {
    const VMS: u16 = 50;
    const BOUND: u64 = 100_000_000;
    let Some(place) = Place::make() else { return };
    let shaper = Shaper::new(place.uplink());
    let share = BOUND / u64::from(VMS);
    shaper.put((0..VMS).map(|index| vm(index + 1, share))).unwrap();
    let set_all = |rates: &[(u16, u64)]| {
        thread::scope(|scope| {
            for &(index, rate) in rates {
                let shaper = &shaper;
                scope.spawn(move || {
                    let got = shaper.set(FIRST_CLASS + index, BytesPerSec(rate)).unwrap();
                    assert_eq!(got, BytesPerSec(rate));
                });
            }
        });
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            // A list that changes while it is read is read anew, so each sum is of one moment.
            let (mut kernel, mut samples) = (Kernel::open(Some(&place.name)).unwrap(), 0);
            while !done.load(Ordering::Relaxed) {
                let in_force = kernel.read("up", Hook::Egress).unwrap().unwrap();
                let rates = in_force.classes.iter().filter(|(class, _)| **class >= FIRST_CLASS);
                let sum: u64 = rates.map(|(_, class)| class.rate.0).sum();
                assert!(sum <= BOUND, "{sum} after {samples} samples");
                samples += 1;
            }
            samples
        });
        for round in 0..10 {
            // Every other VM gives half of what it has to the one behind it.
            let gives = |index: u16| (index + round).is_multiple_of(2);
            let (low, high): (Vec<u16>, Vec<u16>) = (1..=VMS).partition(|index| gives(*index));
            set_all(&low.iter().map(|index| (*index, share / 2)).collect::<Vec<_>>());
            set_all(&high.iter().map(|index| (*index, share + share / 2)).collect::<Vec<_>>());
            // Back to equal shares, the decreases first.
            set_all(&high.iter().map(|index| (*index, share)).collect::<Vec<_>>());
            set_all(&low.iter().map(|index| (*index, share)).collect::<Vec<_>>());
        }
        done.store(true, Ordering::Relaxed);
        let samples = sampler.join().unwrap();
        assert!(samples > 10, "{samples} samples");
    });
    assert!((1..=VMS).all(|index| rate_of(&shaper, index) == Some(share)));
}

#[test]
fn a_batch_that_fails_half_way_leaves_nothing_over_the_bound() {
    let Some(place) = Place::make() else { return };
    let shaper = Shaper::new(place.uplink());
    shaper.put([vm(1, 1_000_000), vm(2, 2_000_000), vm(3, 3_000_000)]).unwrap();
    // The queue of a class cannot be changed where somebody put in one of another kind.
    let orders = |rates: [u64; 3]| (1u16..).zip(rates).map(|(index, rate)| (FIRST_CLASS + index, BytesPerSec(rate)));
    let mut work = shaper.lock();
    place.tc("qdisc del dev up parent 7b1b:12");
    place.tc("qdisc add dev up parent 7b1b:12 handle 12: pfifo");
    let outcomes = shaper.carry_out(&mut work, orders([1_500_000, 1_000_000, 2_500_000]).collect());
    drop(work);
    // The class itself was lowered before its queue failed: it is told as failed, and so nobody is raised.
    assert!(matches!(outcomes[&(FIRST_CLASS + 2)].as_ref().unwrap_err().as_ref(), ShaperError::Command(_)));
    assert!(matches!(outcomes[&(FIRST_CLASS + 1)].as_ref().unwrap_err().as_ref(), ShaperError::Waits));
    assert_eq!(*outcomes[&(FIRST_CLASS + 3)].as_ref().unwrap(), BytesPerSec(2_500_000));
    place.tc("qdisc del dev up parent 7b1b:12");
    let rates: Vec<_> = (1..=3).map(|index| rate_of(&shaper, index).unwrap()).collect();
    assert!(rates.iter().sum::<u64>() <= 6_000_000, "{rates:?}");
    // What failed is mended to what it had, and can then be set.
    assert_eq!(rates, [1_000_000, 2_000_000, 2_500_000]);
    assert_eq!(shaper.set(FIRST_CLASS + 2, BytesPerSec(1_000_000)).unwrap(), BytesPerSec(1_000_000));
    let unknown = shaper.set(0x99, BytesPerSec(1)).unwrap_err().to_string();
    assert!(unknown.contains("no class 99"), "{unknown}");
}

#[test]
fn a_dry_run_says_all_of_it() {
    let uplink = Uplink {
        namespace: None,
        device: "eth0".to_owned(),
        hook: Hook::Egress,
        internal: vec!["10.0.0.0/8".parse().unwrap()],
        queue: Duration::from_millis(500),
    };
    let steps = Shaper::dry_run(&uplink, [vm(1, 2_700_000)]);
    let text: Vec<_> = steps.iter().map(Step::to_string).collect();
    let text = text.join("\n");
    for line in [
        "nft -f -",
        "hook egress device \"eth0\"",
        "add element netdev vibra-eth0 ip-inside { 10.0.0.0/8 }",
        "add element netdev vibra-eth0 ip-outward { 192.0.2.1 : \"out-11\" }",
        "tc -batch -",
        "qdisc add dev eth0 root handle 7b1b: htb default 1",
        "u32 match ip dst 10.0.0.0/8 flowid 7b1b:1",
        "class replace dev eth0 parent 7b1b: classid 7b1b:11 htb rate 2700000bps burst 43384b",
        "bfifo limit 1350000b",
        "protocol ip prio 4113 u32 match ip src 192.0.2.1/32 flowid 7b1b:11",
        "protocol ipv6 prio 8209 u32 match ip6 src 2001:db8::1/128 flowid 7b1b:11",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
