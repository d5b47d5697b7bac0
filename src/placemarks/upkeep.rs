//! Keeps the side log as small as what it says: when to compact, and how no placemark is lost by it.

use crate::Result;
use crate::partition::lock;
use crate::placemarks::SideLog;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Over what the last compaction left, so much may be added before the background compacts again.
const SOFT: u64 = 1 << 20;

/// From here on a committing thread compacts before it goes on, so that the size is bounded however fast they commit.
const HARD: u64 = 3 << 20;

/// A closed side log is under this, if what it says is.
const CLOSED: u64 = 512 << 10;

/// What a record takes on disk beside its key and value: frame, lengths, padding.
const AROUND: u64 = 28 + 8 + 4 + 7;

/// How large the side log is, and who compacts it.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// Held over a compaction. Taken before every other lock of the side log, or not at all.
    pub(super) running: Mutex<()>,
    /// Estimate of the bytes on disk.
    size: AtomicU64,
    /// What of that the last compaction left.
    left: AtomicU64,
    /// Whether a compaction is on its way in the background.
    queued: AtomicBool,
}

impl Upkeep {
    pub(super) fn added(&self, key: usize, value: usize) {
        self.size.fetch_add((key + value) as u64 + AROUND, Ordering::Relaxed);
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn is_over_soft(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        self.size() > left + left.max(SOFT)
    }

    fn is_over_hard(&self) -> bool {
        self.size() > self.left.load(Ordering::Relaxed).saturating_mul(3).max(HARD)
    }

    fn is_over_closed(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        self.size() > left.saturating_mul(2).max(CLOSED)
    }

    /// `left` is what compaction kept, `size` what there is with what was added since.
    fn compacted(&self, left: u64, size: u64) {
        self.size.store(size, Ordering::Relaxed);
        self.left.store(left, Ordering::Relaxed);
    }
}

impl SideLog {
    /// After a commit, without any lock held. Two loads, when there is nothing to do.
    pub(super) fn keep_small(&self) {
        if !self.upkeep.is_over_soft() {
            return;
        }
        if self.upkeep.is_over_hard() {
            // Someone else may have done it by the time it is this thread's turn. A failure is kept by the partition's
            // latch, where the next commit finds it.
            let _running = lock(&self.upkeep.running);
            if self.upkeep.is_over_hard() {
                let _ = self.compact_all();
            }
        } else if !self.upkeep.queued.swap(true, Ordering::AcqRel) {
            let side = self.me.clone();
            self.partition.env().background.submit(move || {
                if let Some(side) = side.upgrade() {
                    side.upkeep.queued.store(false, Ordering::Release);
                    // Not waited for: where there is no background thread, this may be the one that holds it. Later
                    // commits ask again.
                    if let Ok(_running) = side.upkeep.running.try_lock()
                        && side.upkeep.is_over_soft()
                    {
                        let _ = side.compact_all();
                    }
                }
            });
        }
    }

    /// Rewrites everything written so far with only the newest record of every key. With `running` held.
    ///
    /// What is below the bound is sealed, and so durable, before anything older is dropped for its sake. Rolling right
    /// behind the bound keeps what is committed meanwhile out of the segments that are rewritten, where it would have to
    /// stay.
    fn compact_all(&self) -> Result<()> {
        lock(&self.table).set_bound(self.partition.written_end());
        self.partition.roll()?;
        let left = self.partition.compact(&|key, offset| lock(&self.table).keeps(key, offset))?;
        let backlog = self.partition.backlog(0..u64::MAX)?;
        self.upkeep.compacted(left, backlog.bytes);
        Ok(())
    }

    /// Compacts where that pays, and leaves a side log that opens without a walk.
    pub(crate) fn close(&self) -> Result<()> {
        let running = lock(&self.upkeep.running);
        let compacted =
            if self.upkeep.is_over_closed() && !self.partition.is_closed() { self.compact_all() } else { Ok(()) };
        drop(running);
        compacted.and(self.partition.close())
    }
}
