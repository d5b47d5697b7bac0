//! All or nothing, across logs, partitions and placemarks.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::consumer::checked_metadata;
use crate::format::record_len;
use crate::journal::{Gathered, GatheredMark, Move, Work};
use crate::partition::PartitionCore;
use crate::record::Record;
use crate::store::{Handle, LogCore};
use crate::types::{LogId, Millis};
use crate::{Batch, Error, ExactlyOnce, Log, Result, Store};

/// The most that a transaction may hold, in bytes of its records as they will stand on disk: 32 MiB.
pub(crate) const MOST_BYTES: usize = 32 << 20;

/// Records for any number of logs and partitions that become readable together, or not at all.
///
/// It buffers in memory and writes nothing until it is committed; dropping it aborts it and leaves no trace. A commit
/// waits for the disk whatever the durability of the logs, and costs one `fdatasync`, shared with the transactions that
/// commit at the same time. Within a partition its records become readable together, and all of them before the commit
/// returns; two partitions may show theirs moments apart. No reader ever waits for an open transaction.
///
/// ```
/// # fn main() -> placemark::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use placemark::{StartAt, Store};
///
/// let store = Store::open(dir.path())?;
/// let (debits, credits) = (store.log("debits")?, store.log("credits")?);
/// let mut txn = store.transaction();
/// txn.append(&debits, "alice -5")?;
/// txn.append(&credits, "bob +5")?;
/// txn.commit()?;
/// assert_eq!(credits.read(StartAt::Earliest)?.count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a transaction that is dropped is aborted"]
pub struct Transaction {
    store: Handle,
    parts: BTreeMap<(LogId, u32), (Arc<PartitionCore>, Gathered)>,
    logs: BTreeMap<LogId, Concerned>,
    bytes: usize,
    /// Whether a record was refused because it was too much.
    over: bool,
}

/// A log that a transaction has a record for, or had.
#[derive(Debug)]
struct Concerned {
    core: Arc<LogCore>,
    /// The partition of its records without a key: they stay together, as those of a batch do.
    unkeyed: Option<u32>,
}

/// What a transaction held at some time.
#[derive(Debug)]
pub(crate) struct Savepoint {
    parts: BTreeMap<(LogId, u32), GatheredMark>,
    bytes: usize,
}

impl Transaction {
    pub(crate) fn new(store: Handle) -> Self {
        Self { store, parts: BTreeMap::new(), logs: BTreeMap::new(), bytes: 0, over: false }
    }

    pub(crate) fn savepoint(&self) -> Savepoint {
        let parts = self.parts.iter().map(|(place, (_, gathered))| (*place, gathered.mark())).collect();
        Savepoint { parts, bytes: self.bytes }
    }

    /// Takes out again what was added since.
    pub(crate) fn roll_back(&mut self, to: &Savepoint) {
        self.parts.retain(|place, (_, gathered)| to.parts.get(place).is_some_and(|mark| gathered.roll_back(*mark)));
        self.bytes = to.bytes;
        self.over = false;
    }

    /// Whether a record was refused since because all together would have been too much.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Adds a record for `log`, which must be of the same store. The partition is chosen as an append would.
    ///
    /// # Errors
    ///
    /// [`Error::RecordTooLarge`], [`Error::TransactionTooLarge`] (over 32 MiB) and [`Error::NoSuchLog`], upon which the
    /// transaction holds what it held before.
    pub fn append<'r>(&mut self, log: &Log, record: impl Into<Record<'r>>) -> Result<()> {
        let record = record.into();
        if !self.store.is_same_store(log.handle()) {
            return Err(Error::option("log", "belongs to another store: a transaction is of one store"));
        }
        let size = self.bytes + record_len(&record)?;
        if size > MOST_BYTES {
            self.over = true;
            return Err(Error::TransactionTooLarge { size: size as u64, max: MOST_BYTES as u64 });
        }
        log.core().check_exists()?;
        let concerned = self.logs.entry(log.core().id());
        let concerned = concerned.or_insert_with(|| Concerned { core: Arc::clone(log.core()), unkeyed: None });
        let core = log.core().choose(&record, concerned.unkeyed)?;
        core.check_record(&record)?;
        let ident = core.ident();
        if record.key_bytes().is_none() {
            concerned.unkeyed = Some(ident.partition);
        }
        let (_, gathered) =
            self.parts.entry((ident.log, ident.partition)).or_insert_with(|| (Arc::clone(core), Gathered::default()));
        gathered.push(&record)?;
        self.bytes = size;
        Ok(())
    }

    /// Commits it. On return its records are durable, whatever the durability of their logs, and readable.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchLog`] when a log of it was deleted. When it cannot be decided nothing of it appears, unless the
    /// failure is one of the disk's: then the store is [`Error::Failed`], and the next opening either finishes it whole or
    /// leaves no trace.
    pub fn commit(self) -> Result<()> {
        self.finish(Vec::new())
    }

    /// The same, and settles a batch: its results and its placemark move together, or neither does.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when the batch was taken back, its partition sought, or its log deleted: nothing of the
    /// transaction appears, and the batch's records are delivered again, where there still are any. Otherwise those of [`commit`](Self::commit), upon which the batch counts
    /// as dropped.
    pub fn commit_with(self, batch: Batch<ExactlyOnce>) -> Result<()> {
        if !batch.is_of(&self.store) {
            return Err(Error::option("batch", "belongs to another store: a transaction is of one store"));
        }
        batch.commit_in(self, None)
    }

    /// The same, with up to 4096 bytes of the application's own that stand with the placemark, as those of a batch that
    /// is [delivered at least once](Batch::<crate::AtLeastOnce>::commit_with_metadata).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when they are too many: nothing of the transaction appears, and the batch counts as
    /// dropped. Otherwise those of [`commit_with`](Self::commit_with).
    pub fn commit_with_metadata(self, batch: Batch<ExactlyOnce>, metadata: impl AsRef<[u8]>) -> Result<()> {
        if !batch.is_of(&self.store) {
            return Err(Error::option("batch", "belongs to another store: a transaction is of one store"));
        }
        let metadata = checked_metadata(metadata.as_ref())?;
        batch.commit_in(self, Some(metadata))
    }

    pub(crate) fn finish(self, placemarks: Vec<Move>) -> Result<()> {
        let Self { store, parts, logs, .. } = self;
        let core = store.core()?;
        if parts.is_empty() && placemarks.is_empty() {
            return Ok(());
        }
        let now = Millis(core.env().storage.now());
        let parts = parts.into_values().map(|(partition, gathered)| (partition, gathered.finish(now))).collect();
        let committed = core.journal().commit(Work { parts, placemarks, durable: true, producer: None });
        core.env().background.lend_a_hand();
        committed.map(|_| ()).map_err(|error| logs.values().fold(error, |error, log| log.core.explain(error)))
    }
}

impl Store {
    /// Begins a transaction over any of the store's logs. It holds nothing and blocks no one until it is committed.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.handle().clone())
    }
}
