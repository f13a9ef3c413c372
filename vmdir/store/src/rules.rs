//! What the operations mean, written once over whatever keeps the records.

use crate::{Compare, Entry, LeaseId, Outcome, Refusal, StoreEvent, Transaction, Write};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use vibra_model::{Revision, Timestamp};

/// A granted lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) length: Duration,
    /// It has ended at this time.
    pub(crate) end: Timestamp,
}

/// Records that can be read and written; the changes become visible to others together.
pub(crate) trait Records {
    type Error;

    fn revision(&self) -> Result<Revision, Self::Error>;
    fn set_revision(&mut self, revision: Revision) -> Result<(), Self::Error>;
    fn entry(&self, key: &str) -> Result<Option<Entry>, Self::Error>;
    /// Puts or removes; [`keys_of`](Self::keys_of) follows.
    fn set_entry(&mut self, key: &str, entry: Option<&Entry>) -> Result<(), Self::Error>;
    fn keys_of(&self, lease: LeaseId) -> Result<Vec<String>, Self::Error>;
    fn lease(&self, id: LeaseId) -> Result<Option<Lease>, Self::Error>;
    fn leases(&self) -> Result<Vec<(LeaseId, Lease)>, Self::Error>;
    fn set_lease(&mut self, id: LeaseId, lease: Option<Lease>) -> Result<(), Self::Error>;
    /// A lease id that was never given before.
    fn new_lease_id(&mut self) -> Result<LeaseId, Self::Error>;
}

/// Events to be told once the records are durable.
pub(crate) type Events = Vec<Arc<StoreEvent>>;

pub(crate) fn commit<R: Records>(
    records: &mut R,
    group: &[Transaction],
    events: &mut Events,
) -> Result<Vec<Outcome>, R::Error> {
    let outcome = |transaction: &Transaction| match refusal(records, transaction)? {
        Some(refusal) => Ok(Err(refusal)),
        None => write(records, &transaction.writes, events).map(Ok),
    };
    group.iter().map(outcome).collect()
}

fn refusal<R: Records>(records: &R, transaction: &Transaction) -> Result<Option<Refusal>, R::Error> {
    for Compare { key, modified } in &transaction.compare {
        let found = records.entry(key)?.map(|entry| entry.modified);
        if found != *modified {
            return Ok(Some(Refusal::Conflict { key: key.clone(), wanted: *modified, found }));
        }
    }
    for write in &transaction.writes {
        if let Write::Put { lease: Some(lease), .. } = write
            && records.lease(*lease)?.is_none()
        {
            return Ok(Some(Refusal::NoLease { lease: *lease }));
        }
    }
    Ok(None)
}

/// Carries out the writes in a revision of their own, if they change anything.
fn write<R: Records>(records: &mut R, writes: &[Write], events: &mut Events) -> Result<Revision, R::Error> {
    let (before, revision) = (records.revision()?, records.revision()?.next());
    let mut changes = BTreeMap::new();
    for write in writes {
        let (key, entry) = match write {
            Write::Put { key, value, lease } => {
                (key, Some(Entry { value: value.clone(), modified: revision, lease: *lease }))
            }
            Write::Delete { key } if records.entry(key)?.is_none() => continue,
            Write::Delete { key } => (key, None),
        };
        records.set_entry(key, entry.as_ref())?;
        changes.insert(key.clone(), entry);
    }
    if changes.is_empty() {
        return Ok(before);
    }
    records.set_revision(revision)?;
    events.push(Arc::new(StoreEvent { revision, changes }));
    Ok(revision)
}

pub(crate) fn grant<R: Records>(records: &mut R, length: Duration, now: Timestamp) -> Result<LeaseId, R::Error> {
    let id = records.new_lease_id()?;
    records.set_lease(id, Some(Lease { length, end: now.after(length) }))?;
    Ok(id)
}

/// `None` if there is no such lease, or its time is over although nobody has ended it yet.
pub(crate) fn keep_alive<R: Records>(records: &mut R, id: LeaseId, now: Timestamp) -> Result<Option<()>, R::Error> {
    let Some(lease) = records.lease(id)?.filter(|lease| now < lease.end) else { return Ok(None) };
    records.set_lease(id, Some(Lease { end: now.after(lease.length), ..lease }))?;
    Ok(Some(()))
}

/// `None` if there is no such lease.
pub(crate) fn revoke<R: Records>(
    records: &mut R,
    id: LeaseId,
    events: &mut Events,
) -> Result<Option<Revision>, R::Error> {
    if records.lease(id)?.is_none() {
        return Ok(None);
    }
    let keys = records.keys_of(id)?;
    let deletions: Vec<_> = keys.into_iter().map(|key| Write::Delete { key }).collect();
    records.set_lease(id, None)?;
    write(records, &deletions, events).map(Some)
}

pub(crate) fn expire<R: Records>(
    records: &mut R,
    now: Timestamp,
    events: &mut Events,
) -> Result<Vec<LeaseId>, R::Error> {
    let over = records.leases()?.into_iter().filter(|(_, lease)| lease.end <= now);
    let over: Vec<_> = over.map(|(id, _)| id).collect();
    for id in &over {
        revoke(records, *id, events)?;
    }
    Ok(over)
}
