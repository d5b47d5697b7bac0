//! Keeps the side log as small as what it says: when to compact, and how no placemark is lost by it.

use crate::Result;
use crate::partition::{Kept, lock};
use crate::placemarks::SideLog;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Over what the last compaction left, so much may be added before the background compacts again.
const SOFT: u64 = 1 << 20;

/// From here on a committing thread compacts before it goes on, so that the size is bounded however fast they commit.
const HARD: u64 = 5 << 20;

/// A closed side log is under this, if what it says is.
const CLOSED: u64 = 512 << 10;

/// What a record takes on disk beside its key and value: frame, lengths, padding.
const AROUND: u64 = 28 + 8 + 4 + 7;

/// How large the side log is, and who compacts it.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// Held over a compaction. Taken before every other lock of the side log, or not at all.
    pub(super) running: Mutex<()>,
    /// Estimate of the bytes on disk. Changed under the lock of the table.
    size: AtomicU64,
    /// What of that the last compaction left.
    left: AtomicU64,
    /// Whether a compaction is on its way in the background.
    queued: AtomicBool,
}

impl Upkeep {
    /// Under the lock of the table, as every change of the size.
    pub(super) fn added(&self, key: usize, value: usize) {
        self.size.store(self.size() + (key + value) as u64 + AROUND, Ordering::Relaxed);
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

    /// Of what took `before` when a compaction began, `left` is left. More may have been added since.
    fn compacted(&self, before: u64, left: u64) {
        self.size.store(self.size().saturating_sub(before) + left, Ordering::Relaxed);
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

    /// Rewrites everything written so far with only the newest record of every key, which is durable on return, and before
    /// anything older is gone. With `running` held.
    ///
    /// A new segment begins right there, so that what is committed meanwhile stays out of those that are rewritten. It
    /// counts for the next compaction: it may not be durable before older records were dropped for its sake. A tombstone
    /// has done its work, since all older records of its key go with it.
    pub(super) fn compact_all(&self) -> Result<()> {
        let (kept, before) = {
            // All that was appended is in the table.
            let (_rare, table) = (lock(&self.rare), lock(&self.table));
            let bound = self.partition.leave_segment()?;
            (Kept::new(table.newest(), bound), self.upkeep.size())
        };
        let left = self.partition.compact(&kept)?;
        let _table = lock(&self.table);
        self.upkeep.compacted(before, left);
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
