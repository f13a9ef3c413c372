//! The embedded store: one redb file.

use crate::{
    Contents, Entry, Feed, LeaseId, Outcome, Store, StoreError, StoreEvent, Transaction, Watch, events,
    rules::{self, Events, Lease, Records},
};
use async_trait::async_trait;
use bytes::Bytes;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, Table,
    TableDefinition, TableError, WriteTransaction,
};
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use vibra_model::{Revision, Timestamp};

/// Key to revision, lease (0: none) and value.
const ENTRIES: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("entries");
/// Lease to length and end, in microseconds.
const LEASES: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("leases");
/// The keys of each lease.
const LEASED: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("leased");
/// The store's counters, and the version of this layout.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

const REVISION: &str = "revision";
const LAST_LEASE: &str = "last-lease";
const FORMAT: &str = "format";
/// The version of the layout of the tables above.
const THIS_FORMAT: u64 = 1;

/// A store in one file of this machine, open in one process at a time. What it acknowledged was synced to the disk.
///
/// It must be used within a tokio runtime: the disk is waited for on blocking threads.
pub struct RedbStore {
    shared: Arc<Shared>,
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

struct Shared {
    database: Database,
    place: String,
    /// Held from the beginning of a change until the watches were told of it, so that they are told in order.
    writing: Mutex<()>,
    feed: Feed<Arc<StoreEvent>>,
}

impl RedbStore {
    /// Opens the store in the file at `path`, or makes one there. It waits for the disk: after a crash it repairs the
    /// file first, and it always checks every page, in a time that grows with the file (about 1 s for a million records).
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Damaged`], [`StoreError::Failed`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let place = path.as_ref().display().to_string();
        // redb asserts some of what it reads; in a damaged file that must not take the process down.
        let opened = catch_unwind(AssertUnwindSafe(|| open(path.as_ref(), &place)));
        let damaged = |_| Err(StoreError::Damaged { place: place.clone(), what: "it cannot be read".into() });
        let (database, revision) = opened.unwrap_or_else(damaged)?;
        let shared = Shared { database, place, writing: Mutex::new(()), feed: events::history(revision) };
        Ok(RedbStore { shared: Arc::new(shared) })
    }

    /// Runs `work` on a blocking thread.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        match done {
            Ok(result) => result.map_err(|error| failed(&self.shared.place, error)),
            Err(error) => Err(StoreError::Failed { place: self.shared.place.clone(), source: error.into() }),
        }
    }

    /// Runs `change` in one transaction with one sync at its end.
    async fn update<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Tables<'_>, &mut Events) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.blocking(move |shared| shared.update(change)).await
    }
}

impl Shared {
    fn update<T>(
        &self,
        change: impl FnOnce(&mut Tables<'_>, &mut Events) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let mut happened = Events::new();
        let done = change(&mut Tables::open(&transaction)?, &mut happened)?;
        transaction.commit()?;
        events::tell(&self.feed, happened);
        Ok(done)
    }
}

fn open(path: &Path, place: &str) -> Result<(Database, Revision), StoreError> {
    let refused = |error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { place: place.to_owned() },
        other => failed(place, other.into()),
    };
    let mut database = Database::create(path).map_err(refused)?;
    // Opening alone does not look at pages. A file that fails here could be repaired only by giving up acknowledged
    // commits, and that is for an operator to decide.
    if !database.check_integrity().map_err(refused)? {
        let what = "its checksums do not hold; restore it from a copy".to_owned();
        return Err(StoreError::Damaged { place: place.to_owned(), what });
    }
    let (format, revision) = prepare(&database).map_err(|error| failed(place, error))?;
    if format != THIS_FORMAT {
        let what = format!("its layout has version {format}, this program knows {THIS_FORMAT}");
        return Err(StoreError::Damaged { place: place.to_owned(), what });
    }
    Ok((database, revision))
}

/// Makes the tables where they are missing, and reads the version of the layout and the revision.
fn prepare(database: &Database) -> Result<(u64, Revision), redb::Error> {
    let transaction = database.begin_write()?;
    let (format, revision) = {
        let mut tables = Tables::open(&transaction)?;
        let known = tables.number(FORMAT)?;
        if known == 0 {
            tables.numbers.insert(FORMAT, THIS_FORMAT)?;
        }
        (if known == 0 { THIS_FORMAT } else { known }, tables.revision()?)
    };
    transaction.commit()?;
    Ok((format, revision))
}

fn failed(place: &str, error: redb::Error) -> StoreError {
    let place = place.to_owned();
    match error {
        redb::Error::Corrupted(what) => StoreError::Damaged { place, what },
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::Damaged { place, what: error.to_string() }
        }
        error @ (redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }) => StoreError::Damaged { place, what: error.to_string() },
        error => StoreError::Failed { place, source: error.into() },
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn contents(&self) -> Result<Contents, StoreError> {
        self.blocking(|shared| contents(&shared.database.begin_read()?)).await
    }

    async fn commit(&self, group: Vec<Transaction>) -> Result<Vec<Outcome>, StoreError> {
        self.update(move |tables, events| rules::commit(tables, &group, events)).await
    }

    async fn watch(&self, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(self.shared.feed.follow(from)?))
    }

    async fn grant(&self, length: Duration, now: Timestamp) -> Result<LeaseId, StoreError> {
        self.update(move |tables, _| rules::grant(tables, length, now)).await
    }

    async fn keep_alive(&self, lease: LeaseId, now: Timestamp) -> Result<(), StoreError> {
        let kept = self.update(move |tables, _| rules::keep_alive(tables, lease, now)).await?;
        kept.ok_or(StoreError::NoLease { lease })
    }

    async fn revoke(&self, lease: LeaseId) -> Result<Revision, StoreError> {
        let revision = self.update(move |tables, events| rules::revoke(tables, lease, events)).await?;
        revision.ok_or(StoreError::NoLease { lease })
    }

    async fn expire(&self, now: Timestamp) -> Result<Vec<LeaseId>, StoreError> {
        self.update(move |tables, events| rules::expire(tables, now, events)).await
    }
}

fn contents(transaction: &ReadTransaction) -> Result<Contents, redb::Error> {
    let numbers = transaction.open_table(NUMBERS)?;
    let revision = numbers.get(REVISION)?.map_or(0, |number| number.value());
    let mut contents = Contents { revision: Revision(revision), ..Contents::default() };
    for row in transaction.open_table(ENTRIES)?.iter()? {
        let (key, stored) = row?;
        contents.entries.insert(key.value().to_owned(), entry(stored.value()));
    }
    Ok(contents)
}

fn entry((modified, lease, value): (u64, u64, &[u8])) -> Entry {
    let lease = (lease != 0).then_some(LeaseId(lease));
    Entry { value: Bytes::copy_from_slice(value), modified: Revision(modified), lease }
}

/// The tables, open in a write transaction.
struct Tables<'a> {
    entries: Table<'a, &'static str, (u64, u64, &'static [u8])>,
    leases: Table<'a, u64, (u64, u64)>,
    leased: Table<'a, (u64, &'static str), ()>,
    numbers: Table<'a, &'static str, u64>,
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, TableError> {
        Ok(Tables {
            entries: transaction.open_table(ENTRIES)?,
            leases: transaction.open_table(LEASES)?,
            leased: transaction.open_table(LEASED)?,
            numbers: transaction.open_table(NUMBERS)?,
        })
    }

    /// One of the counters; 0 if it was never set.
    fn number(&self, name: &str) -> Result<u64, StorageError> {
        Ok(self.numbers.get(name)?.map_or(0, |number| number.value()))
    }
}

impl Records for Tables<'_> {
    type Error = redb::Error;

    fn revision(&self) -> Result<Revision, redb::Error> {
        Ok(Revision(self.number(REVISION)?))
    }

    fn set_revision(&mut self, revision: Revision) -> Result<(), redb::Error> {
        self.numbers.insert(REVISION, revision.0)?;
        Ok(())
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, redb::Error> {
        Ok(self.entries.get(key)?.map(|stored| entry(stored.value())))
    }

    fn set_entry(&mut self, key: &str, new: Option<&Entry>) -> Result<(), redb::Error> {
        let lease = |entry: &Entry| entry.lease.map_or(0, |lease| lease.0);
        let replaced = match new {
            Some(new) => self.entries.insert(key, (new.modified.0, lease(new), &*new.value))?,
            None => self.entries.remove(key)?,
        };
        let old = replaced.map_or(0, |old| old.value().1);
        let new = new.map_or(0, lease);
        if old != new && old != 0 {
            self.leased.remove((old, key))?;
        }
        if old != new && new != 0 {
            self.leased.insert((new, key), ())?;
        }
        Ok(())
    }

    fn keys_of(&self, lease: LeaseId) -> Result<Vec<String>, redb::Error> {
        let rows = self.leased.range((lease.0, "")..(lease.0 + 1, ""))?;
        rows.map(|row| Ok(row?.0.value().1.to_owned())).collect()
    }

    fn lease(&self, id: LeaseId) -> Result<Option<Lease>, redb::Error> {
        Ok(self.leases.get(id.0)?.map(|stored| lease(stored.value())))
    }

    fn leases(&self) -> Result<Vec<(LeaseId, Lease)>, redb::Error> {
        let rows = self.leases.iter()?;
        rows.map(|row| row.map(|(id, stored)| (LeaseId(id.value()), lease(stored.value()))).map_err(Into::into))
            .collect()
    }

    fn set_lease(&mut self, id: LeaseId, new: Option<Lease>) -> Result<(), redb::Error> {
        match new {
            Some(new) => {
                let length = u64::try_from(new.length.as_micros()).unwrap_or(u64::MAX);
                self.leases.insert(id.0, (length, new.end.0))?;
            }
            None => {
                self.leases.remove(id.0)?;
            }
        }
        Ok(())
    }

    fn new_lease_id(&mut self) -> Result<LeaseId, redb::Error> {
        let id = self.number(LAST_LEASE)? + 1;
        self.numbers.insert(LAST_LEASE, id)?;
        Ok(LeaseId(id))
    }
}

fn lease((length, end): (u64, u64)) -> Lease {
    Lease { length: Duration::from_micros(length), end: Timestamp(end) }
}
