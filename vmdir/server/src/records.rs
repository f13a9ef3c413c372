//! How the directory's records lie in the store: one key for each, with JSON as its value.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use vibra_model::{Change, Snapshot};
use vibra_store::{Contents, Write};

/// Last put by the server that holds the store: see [`crate::writer`].
pub(crate) const HOLDER: &str = "holder";

const CUSTOMER: &str = "customer/";
const HOST: &str = "host/";
const VM: &str = "vm/";

/// A key of the store whose value cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{key:?} in the store cannot be understood: {what}")]
pub(crate) struct Unreadable {
    pub(crate) key: String,
    pub(crate) what: String,
}

/// The directory that is in the store.
pub(crate) fn load(contents: &Contents) -> Result<Snapshot, Unreadable> {
    let records = contents.entries.iter().filter(|(key, _)| *key != HOLDER);
    let changes: Vec<_> = records.map(|(key, entry)| read(key, &entry.value)).collect::<Result<_, _>>()?;
    let mut snapshot = Snapshot::default();
    snapshot.apply(contents.revision, &changes);
    Ok(snapshot)
}

fn read(key: &str, value: &[u8]) -> Result<Change, Unreadable> {
    if key.starts_with(CUSTOMER) {
        parse(key, value).map(Change::Customer)
    } else if key.starts_with(HOST) {
        parse(key, value).map(Change::Host)
    } else if key.starts_with(VM) {
        parse(key, value).map(Change::Vm)
    } else {
        Err(Unreadable { key: key.to_owned(), what: "no record of this program has such a key".into() })
    }
}

fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(value).map_err(|error| Unreadable { key: key.to_owned(), what: error.to_string() })
}

/// The write that makes `change` durable.
pub(crate) fn write(change: &Change) -> Write {
    match change {
        Change::Customer(customer) => put(format!("{CUSTOMER}{}", customer.id), customer),
        Change::Host(host) => put(format!("{HOST}{}", host.id), host),
        Change::Vm(vm) => put(format!("{VM}{}", vm.id), vm),
        Change::CustomerRemoved(id) => Write::Delete { key: format!("{CUSTOMER}{id}") },
        Change::HostRemoved(id) => Write::Delete { key: format!("{HOST}{id}") },
        Change::VmRemoved(id) => Write::Delete { key: format!("{VM}{id}") },
    }
}

fn put(key: String, record: &impl Serialize) -> Write {
    Write::Put { key, value: json(record), lease: None }
}

/// A value of the model as JSON.
pub(crate) fn json(value: &impl Serialize) -> Bytes {
    // Every map of the model has texts as keys, and no value refuses to be written.
    Bytes::from(serde_json::to_vec(value).expect("the model's types are all JSON"))
}
