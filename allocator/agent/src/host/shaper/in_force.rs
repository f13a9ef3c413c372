//! What the kernel has of a shaper, read over netlink.

use super::tree::{Filter, HANDLE, Hook, Key, MAJOR, table_of};
use crate::host::netlink::{Message, Socket, array_at, attribute, push_attribute, text, u16_at, u32_at, u64_at};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};
use vibra_model::{Bytes, BytesPerSec};

const GET_QDISC: u16 = 38;
const GET_CLASS: u16 = 42;
const GET_FILTER: u16 = 46;
/// Messages of nftables have the subsystem's number in the upper byte.
const GET_RULE: u16 = 10 << 8 | 7;
const GET_OBJECT: u16 = 10 << 8 | 19;
/// The parent of a device's root queue.
const ROOT: u32 = u32::MAX;
/// Family, padding, device, handle, parent, info.
const TC_HEAD: usize = 20;
const NFT_HEAD: usize = 4;

const TC_KIND: u16 = 1;
const TC_OPTIONS: u16 = 2;
const TC_STATISTICS: u16 = 7;
const STATISTICS_QUEUE: u16 = 3;
const HTB_PARAMETERS: u16 = 1;
const HTB_RATE_64: u16 = 6;
const U32_CLASS: u16 = 1;
const U32_SELECTOR: u16 = 5;
/// What stands before a selector's keys, and how long each is.
const SELECTOR_HEAD: usize = 16;
const KEY: usize = 16;
const RULE_TABLE: u16 = 1;
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_DATA: u16 = 4;
const COUNTER_BYTES: u16 = 1;

/// The queue at a device's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(super) kind: String,
    /// 0 where the kernel put it there by itself.
    pub(super) handle: u32,
}

/// One class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) rate: BytesPerSec,
    /// The most that it may borrow to.
    pub(super) ceil: BytesPerSec,
    /// The handle of its queue.
    pub(super) leaf: u32,
    /// Packets dropped before it.
    pub(crate) drops: u64,
}

/// What there is of a shaper on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(super) root: Option<Root>,
    /// By minor number.
    pub(super) classes: BTreeMap<u16, Class>,
    /// By priority.
    pub(super) filters: BTreeMap<u16, BTreeSet<Filter>>,
    /// Bytes by name.
    pub(super) counters: BTreeMap<String, Bytes>,
    /// How many rules count.
    pub(super) rules: usize,
}

/// The kernel, asked in one namespace.
#[derive(Debug)]
pub(super) struct Kernel {
    route: Socket,
    netfilter: Socket,
}

impl Kernel {
    pub(super) fn open(namespace: Option<&str>) -> io::Result<Kernel> {
        Ok(Kernel { route: Socket::route(namespace)?, netfilter: Socket::netfilter(namespace)? })
    }

    /// What is in force on `device`; `None` where there is no such device.
    pub(super) fn read(&mut self, device: &str, hook: Hook) -> io::Result<Option<InForce>> {
        let Some(index) = self.route.device(device)? else { return Ok(None) };
        let mut found = InForce { root: self.root(index)?, ..InForce::default() };
        if found.root.as_ref().is_some_and(Root::is_ours) {
            let classes = self.route.list(GET_CLASS, &about(index, 0))?;
            found.classes = classes.iter().filter_map(class).collect();
            for message in self.route.list(GET_FILTER, &about(index, HANDLE))? {
                if let Some((priority, filter)) = filter(&message) {
                    found.filters.entry(priority).or_default().insert(filter);
                }
            }
        }
        let (request, table) = (in_table(hook, device), table_of(device));
        // Not every kernel heeds the table that is asked for.
        let of_table = |message: &Message, kind| named(message, kind) == Some(&table);
        let objects = self.netfilter.list(GET_OBJECT, &request)?;
        found.counters = objects.iter().filter(|object| of_table(object, OBJECT_TABLE)).filter_map(counter).collect();
        let rules = self.netfilter.list(GET_RULE, &request)?;
        found.rules = rules.iter().filter(|rule| of_table(rule, RULE_TABLE)).count();
        Ok(Some(found))
    }

    fn root(&mut self, index: u32) -> io::Result<Option<Root>> {
        let queues = self.route.list(GET_QDISC, &about(index, 0))?;
        let root =
            queues.iter().find(|queue| u32_at(&queue.body, 4) == Some(index) && u32_at(&queue.body, 12) == Some(ROOT));
        Ok(root.and_then(|root| {
            let kind = text(attribute(root.body.get(TC_HEAD..)?, TC_KIND)?)?.to_owned();
            Some(Root { kind, handle: u32_at(&root.body, 8)? })
        }))
    }
}

impl Root {
    /// Whether it is where a shaper's root is, and of its kind.
    pub(super) fn is_ours(&self) -> bool {
        self.kind == "htb" && self.handle == HANDLE
    }
}

impl InForce {
    /// The class of this number; `None` where it is not there.
    pub(crate) fn class(&self, class: u16) -> Option<&Class> {
        self.classes.get(&class)
    }

    /// What a counter has counted; `None` where it is not there.
    pub(crate) fn counter(&self, name: &str) -> Option<Bytes> {
        self.counters.get(name).copied()
    }
}

/// A question about a device's queues, classes or filters.
fn about(device: u32, parent: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for word in [device, 0, parent, 0] {
        body.extend(word.to_ne_bytes());
    }
    body
}

/// A question about a table of nftables. Tables, rules and objects name it by the same attribute.
fn in_table(hook: Hook, device: &str) -> Vec<u8> {
    let mut body = vec![hook.family_number(), 0, 0, 0];
    push_attribute(&mut body, OBJECT_TABLE, format!("{}\0", table_of(device)).as_bytes());
    body
}

/// A class with its number, if it is one of a shaper's.
fn class(message: &Message) -> Option<(u16, Class)> {
    let handle = u32_at(&message.body, 8)?;
    let attributes = message.body.get(TC_HEAD..)?;
    if handle >> 16 != u32::from(MAJOR) || text(attribute(attributes, TC_KIND)?) != Some("htb") {
        return None;
    }
    let options = attribute(attributes, TC_OPTIONS)?;
    let parameters = attribute(options, HTB_PARAMETERS)?;
    // Two rates of twelve bytes each, in which the rate itself is last. Large ones stand apart.
    let rate = |at, large| {
        let large = attribute(options, large).and_then(|value| u64_at(value, 0));
        large.or_else(|| u32_at(parameters, at).map(u64::from)).map(BytesPerSec)
    };
    let statistics = attribute(attributes, TC_STATISTICS)?;
    let drops = attribute(statistics, STATISTICS_QUEUE).and_then(|queue| u32_at(queue, 8));
    let class = Class {
        rate: rate(8, HTB_RATE_64)?,
        ceil: rate(20, HTB_RATE_64 + 1)?,
        leaf: u32_at(&message.body, 16)?,
        drops: drops?.into(),
    };
    Some(((handle & 0xffff) as u16, class))
}

/// A filter with its priority, if it is of the kind that a shaper has.
fn filter(message: &Message) -> Option<(u16, Filter)> {
    let priority = (u32_at(&message.body, 16)? >> 16) as u16;
    let attributes = message.body.get(TC_HEAD..)?;
    let options = attribute(attributes, TC_OPTIONS)?;
    let selector = attribute(options, U32_SELECTOR)?;
    let keys = selector.get(SELECTOR_HEAD..)?.chunks_exact(KEY).take(usize::from(*selector.get(2)?));
    let key = |key: &[u8]| {
        Some(Key {
            mask: u32::from_be_bytes(array_at(key, 0)?),
            value: u32::from_be_bytes(array_at(key, 4)?),
            offset: u16_at(key, 8)?,
        })
    };
    let class = u32_at(attribute(options, U32_CLASS)?, 0)?;
    Some((priority, Filter { class: (class & 0xffff) as u16, keys: keys.map(key).collect::<Option<_>>()? }))
}

fn named(message: &Message, kind: u16) -> Option<&str> {
    text(attribute(message.body.get(NFT_HEAD..)?, kind)?)
}

fn counter(message: &Message) -> Option<(String, Bytes)> {
    let data = attribute(message.body.get(NFT_HEAD..)?, OBJECT_DATA)?;
    let bytes = attribute(data, COUNTER_BYTES).and_then(|value| array_at(value, 0)).map(u64::from_be_bytes)?;
    Some((named(message, OBJECT_NAME)?.to_owned(), Bytes(bytes)))
}
