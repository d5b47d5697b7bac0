//! One log: its options, and its partitions, which only ever become more.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::group::Registry;
use crate::partition::{Fence, PartitionCore, Settings, lock};
use crate::record::Record;
use crate::storage::Signal;
use crate::store::partitioner::partition_of;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::types::LogId;
use crate::{Compaction, Durability, Error, LogOptions, Result};

/// A log, shared by all its handles.
#[derive(Debug)]
pub(crate) struct LogCore {
    id: LogId,
    name: String,
    dir: PathBuf,
    /// The store's durability, for where the log has none of its own.
    durability: Durability,
    /// Whether every record must have a key. Fixed when the log is made.
    keyed: bool,
    /// Changed under the lock of the log's slot in the store only.
    options: Mutex<LogOptions>,
    partitions: Generation,
    /// Wakes who waits for records in any of the partitions, or for more partitions.
    signal: Arc<Signal>,
    /// Whose turn it is among the partitions, for records without a key.
    turn: AtomicU32,
    deleted: AtomicBool,
    /// The groups that have members now. Held over a join or a reset; locks of groups and of the side log are taken
    /// under it.
    groups: Mutex<Registry>,
    /// The fences of the producers that have handles now. Held for moments, nothing is locked under it.
    fences: Mutex<HashMap<u32, Arc<Fence>>>,
}

/// All partitions at some time, and those of the time after the log has grown. Found without a lock and without
/// counting a reference, since every append comes by here.
#[derive(Debug)]
struct Generation {
    partitions: Vec<Arc<PartitionCore>>,
    next: OnceLock<Box<Self>>,
}

impl LogCore {
    pub(super) fn new(
        id: LogId,
        name: &str,
        dir: PathBuf,
        options: LogOptions,
        durability: Durability,
        partitions: Vec<Arc<PartitionCore>>,
        signal: Arc<Signal>,
    ) -> Self {
        Self {
            id,
            name: name.to_owned(),
            dir,
            durability,
            keyed: options.compaction == Some(Compaction::KeepLatest),
            options: Mutex::new(options),
            partitions: Generation { partitions, next: OnceLock::new() },
            signal,
            turn: AtomicU32::new(0),
            deleted: AtomicBool::new(false),
            groups: Mutex::default(),
            fences: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The groups that have members now.
    pub(crate) fn groups(&self) -> &Mutex<Registry> {
        &self.groups
    }

    /// The fence that all handles of a producer share.
    pub(crate) fn fence(&self, producer: u32) -> Arc<Fence> {
        Arc::clone(lock(&self.fences).entry(producer).or_default())
    }

    /// A handle with this fence is being dropped: with the last one, the fence goes too.
    pub(crate) fn drop_fence(&self, producer: u32, fence: &Arc<Fence>) {
        // Clones are made under the lock only, so that two are this handle's and the one kept here.
        let mut fences = lock(&self.fences);
        if Arc::strong_count(fence) <= 2 {
            fences.remove(&producer);
        }
    }

    /// Notified when records become readable in any partition, when partitions are added, and when the log is closed.
    pub(crate) fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    /// The options as they are stored with the log.
    pub(crate) fn options(&self) -> LogOptions {
        *self.lock_options()
    }

    pub(super) fn lock_options(&self) -> MutexGuard<'_, LogOptions> {
        lock(&self.options)
    }

    /// What `Ok` of an append means.
    pub(crate) fn durability(&self) -> Durability {
        self.options().durability.unwrap_or(self.durability)
    }

    pub(super) fn settings(&self, options: &LogOptions) -> Settings {
        Settings::of(options, self.durability)
    }

    /// All partitions, by number. There may be more at the next call, never fewer.
    #[inline]
    pub(crate) fn partitions(&self) -> &[Arc<PartitionCore>] {
        let mut generation = &self.partitions;
        while let Some(next) = generation.next.get() {
            generation = next;
        }
        &generation.partitions
    }

    #[inline]
    pub(crate) fn partition_count(&self) -> u32 {
        // Bounded by `LogOptions::MAX_PARTITIONS`.
        u32::try_from(self.partitions().len()).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(crate) fn partition(&self, number: u32) -> Result<&Arc<PartitionCore>> {
        self.partitions().get(number as usize).ok_or_else(|| Error::NoSuchPartition {
            log: self.name.clone(),
            partition: number,
            partitions: self.partition_count(),
        })
    }

    /// Adds partitions to those that there are, and wakes who waits on the log.
    pub(super) fn grow(&self, more: Vec<Arc<PartitionCore>>) {
        let mut generation = &self.partitions;
        while let Some(next) = generation.next.get() {
            generation = next;
        }
        let partitions = generation.partitions.iter().cloned().chain(more).collect();
        // Logs grow under the lock of their slot, so that no one else has set it meanwhile.
        let _ = generation.next.set(Box::new(Self::generation(partitions)));
        self.signal.notify();
    }

    fn generation(partitions: Vec<Arc<PartitionCore>>) -> Generation {
        Generation { partitions, next: OnceLock::new() }
    }

    /// The partition for a record: that of its key. Without a key it is `unkeyed`, where records without a key stay
    /// together, or the next in turn. A log that is compacted by key takes no record without one.
    #[inline]
    pub(crate) fn choose(&self, record: &Record<'_>, unkeyed: Option<u32>) -> Result<&Arc<PartitionCore>> {
        let Some(key) = record.key_bytes() else {
            return match unkeyed {
                Some(number) => self.check_key(false, 0).and_then(|()| self.partition(number)),
                None => self.choose_unkeyed(),
            };
        };
        match self.partitions() {
            [only] => Ok(only),
            _ => self.partition(partition_of(key, self.partition_count())),
        }
    }

    /// The partition for a record without a key, in turn.
    #[inline]
    pub(crate) fn choose_unkeyed(&self) -> Result<&Arc<PartitionCore>> {
        self.check_key(false, 0)?;
        match self.partitions() {
            [only] => Ok(only),
            _ => self.partition(self.next_turn()),
        }
    }

    /// The partition for the next records without a key.
    pub(crate) fn next_turn(&self) -> u32 {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        turn.checked_rem(self.partition_count()).unwrap_or(0)
    }

    /// Refuses a record without a key in a log that is compacted by key.
    #[inline]
    pub(crate) fn check_key(&self, has_key: bool, place: usize) -> Result<()> {
        if self.keyed && !has_key { Err(self.no_key(place)) } else { Ok(()) }
    }

    #[cold]
    fn no_key(&self, place: usize) -> Error {
        let name = &self.name;
        Error::option(
            "key",
            format!("is missing in record {place} of the batch: log {name:?} keeps the latest record of every key"),
        )
    }

    pub(super) fn set_deleted(&self, deleted: bool) {
        self.deleted.store(deleted, Ordering::Release);
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Refuses what is asked of a log that was deleted.
    #[inline]
    pub(crate) fn check_exists(&self) -> Result<()> {
        if self.is_deleted() { Err(self.gone()) } else { Ok(()) }
    }

    /// Partitions of a deleted log answer `Closed`; this says why.
    #[cold]
    pub(crate) fn explain(&self, error: Error) -> Error {
        match error {
            Error::Closed if self.is_deleted() => self.gone(),
            other => other,
        }
    }

    /// What is said of a log that was deleted.
    #[cold]
    pub(crate) fn gone(&self) -> Error {
        Error::NoSuchLog { name: self.name.clone() }
    }
}
