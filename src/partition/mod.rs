//! One partition: append, durability, read, roll, recovery.
//!
//! Three locks, taken in this order and never backwards:
//!
//! 1. `manifest`: what stands in the MANIFEST file. Held over its I/O, and by whoever seals, checkpoints, activates,
//!    compacts or closes; never by an append that has room.
//! 2. `appender`: where the next frame goes. Held while a frame is stored, while a new segment is made at a roll, and
//!    over a sync only by a transaction that is being decided.
//! 3. that of `leader`: who leads the sync, and what it covers. Held for moments.
//!
//! Readers take none of them: they load what was published.

mod append;
mod background;
mod compaction;
mod durability;
mod env;
mod gathering;
mod hold;
mod latch;
mod leader;
mod lifecycle;
mod producers;
mod read;
mod recovery;
mod report;
mod retention;
mod roll;
mod snapshots;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(crate) use append::Appended;
pub(crate) use compaction::Kept;
pub(crate) use env::Env;
pub(crate) use hold::{Encoded, Held};
pub(crate) use latch::{Latch, lock};
pub(crate) use lifecycle::Floor;
pub(crate) use producers::{Author, Fence};
pub(crate) use read::Cursor;
pub(crate) use recovery::{is_left_open, read_small};
pub use report::{Cut, Damage, RecoveryReport};

use crate::format::{Ident, Manifest};
use crate::partition::leader::Leader;
use crate::partition::producers::Producers;
use crate::segment::{Extent, Rolled, Segment, Writer};
use crate::storage::Signal;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, RwLock};
use crate::types::Millis;
use crate::{Durability, Error, LogOptions, Result};

/// What can be changed of a partition while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_age: Option<Duration>,
    pub(crate) record_limit: u64,
    /// So many full segments are left unsealed: to a compaction, which syncs only what it keeps of them.
    pub(crate) unsealed: usize,
}

impl Settings {
    /// Those of a log with these options, in a store with this durability.
    pub(crate) fn of(options: &LogOptions, store: Durability) -> Self {
        Self {
            durability: options.durability.unwrap_or(store),
            segment_bytes: options.segment_size(),
            segment_age: options.segment_age,
            record_limit: options.record_limit(),
            unsealed: 0,
        }
    }

    fn capacity(&self) -> u32 {
        // Bounded by `LogOptions::MAX_SEGMENT_BYTES`, so that positions fit.
        u32::try_from(self.segment_bytes.min(LogOptions::MAX_SEGMENT_BYTES)).unwrap_or(1 << 31) & !7
    }
}

/// The segments, oldest first; the last is the one appended to. The list is replaced whole.
pub(crate) type Segments = Arc<Vec<Arc<Segment>>>;

/// One partition, shared by all who append to it and read it.
#[derive(Debug)]
pub(crate) struct PartitionCore {
    env: Arc<Env>,
    ident: Ident,
    dir: PathBuf,
    /// Wakes who waits for records of the log.
    signal: Arc<Signal>,
    latch: Latch,
    closed: AtomicBool,
    /// The offset up to which records are readable.
    readable: AtomicU64,
    /// The offset up to which records are durable.
    durable: AtomicU64,
    /// Protects the list's pointer only.
    segments: RwLock<Segments>,
    /// The first offset of the list, for who wants no more than that.
    start: AtomicU64,
    manifest: Mutex<Manifest>,
    appender: Mutex<Appender>,
    leader: Leader,
    /// Whether a sync within the interval is on its way.
    interval_armed: AtomicBool,
    /// Whether the offset ceiling is being raised.
    raising: AtomicBool,
    /// Whether full segments are about to be sealed in the background.
    sealing: AtomicBool,
}

/// Where the next frame goes.
#[derive(Debug)]
struct Appender {
    /// `None` until the first append after opening.
    writer: Option<Writer>,
    /// Full segments, oldest first, that are not sealed yet.
    rolled: Vec<Rolled>,
    /// The next offset; from here on, not the writer's: opening may leave a gap behind the last frame.
    next: u64,
    /// Offsets from here on must not be given out: readers could see a record, and power loss take it and the
    /// knowledge of its offset. `u64::MAX` where nothing is readable before it is durable.
    ceiling: u64,
    settings: Settings,
    /// What is known of the producers of all that was appended.
    producers: Producers,
    /// Names of segments that `sync_dir` has not yet made durable.
    names_unsynced: bool,
}

impl Appender {
    /// How many full segments are to be sealed now.
    #[inline]
    fn to_seal(&self) -> usize {
        self.rolled.len().saturating_sub(self.settings.unsealed)
    }
}

impl PartitionCore {
    pub(crate) fn ident(&self) -> Ident {
        self.ident
    }

    pub(crate) fn env(&self) -> &Arc<Env> {
        &self.env
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first offset that is kept.
    #[inline]
    pub(crate) fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    /// The next offset to be assigned, of those that are readable.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.readable.load(Ordering::SeqCst)
    }

    /// Changes how it is kept, from the next append on.
    pub(crate) fn configure(&self, settings: Settings) -> Result<()> {
        let lowers = {
            let mut appender = lock(&self.appender);
            appender.settings = settings;
            appender.ceiling == u64::MAX && settings.durability != Durability::Sync && appender.writer.is_some()
        };
        // Records become readable before they are durable from now on: offsets need a durable ceiling first.
        if lowers { self.raise_ceiling() } else { Ok(()) }
    }

    /// Stops all that would change the partition, because of a failure elsewhere that it cannot go on from.
    pub(crate) fn fail(&self, path: &Path, error: Error) -> Error {
        let error = self.latch.fail(path, error);
        self.leader.wake_all();
        self.signal.notify();
        error
    }

    /// The next offset to be assigned, whether what is before it is readable or not.
    pub(crate) fn written_end(&self) -> u64 {
        self.lock_appender().next
    }

    /// Refuses every further change, because of a failure elsewhere.
    pub(crate) fn close_latch(&self, error: &Error) {
        self.latch.close(error);
        self.leader.wake_all();
    }

    /// Whether any segment is full.
    pub(crate) fn has_rolled(&self) -> bool {
        self.segments().len() > 1
    }

    /// Refuses a record that the log does not take.
    pub(crate) fn check_record(&self, record: &crate::Record<'_>) -> Result<()> {
        let size = crate::format::record_len(record)? as u64;
        let max = self.lock_appender().settings.record_limit;
        if size > max.saturating_add(append::RECORD_OVERHEAD) {
            return Err(Error::RecordTooLarge { size, max });
        }
        Ok(())
    }

    pub(crate) fn check_usable(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        self.latch.check()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn segments(&self) -> Segments {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace_segments(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        let mut slot = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let mut list = slot.as_ref().clone();
        change(&mut list);
        let start = list.first().map_or(0, |segment| segment.base);
        *slot = Arc::new(list);
        self.start.store(start, Ordering::Release);
    }

    fn now(&self) -> Millis {
        Millis(self.env.storage.now())
    }

    #[inline]
    fn lock_appender(&self) -> MutexGuard<'_, Appender> {
        lock(&self.appender)
    }

    /// Lets readers see what the writer has stored, and wakes those who wait. Under the append lock.
    #[inline]
    fn publish(&self, appender: &Appender) {
        if let Some(writer) = &appender.writer {
            writer.segment.set_readable(writer.pos());
        }
        // Sequentially consistent, as is the count of those who wait: either they see the new end, or we see them.
        self.readable.swap(appender.next, Ordering::SeqCst);
        self.signal.notify();
    }
}

/// The extent of what the manifest's recovery point stands for.
fn extent_of(manifest: &Manifest) -> Extent {
    Extent {
        pos: manifest.recovery.pos,
        end: manifest.recovery.next,
        records: manifest.recovery.records,
        newest: manifest.recovery.newest,
    }
}
