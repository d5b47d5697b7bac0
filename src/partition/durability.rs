//! Group commit: one `fdatasync` for all who wait.
//!
//! Whoever needs durability and finds no one syncing leads: it takes note of all that is written by now, syncs, and
//! tells the others how far it came. Those who come meanwhile wait, and one of them leads the next sync for all of
//! them. *(The idea: `LevelDB`'s writer queue, where the front of the queue works for those behind it.)*
//!
//! What makes a frame durable: the sync of its file, after the sync of every earlier segment that is not sealed and of
//! the directory that names them. A crash before leaves any part of what was not synced, which recovery cuts or keeps
//! by its vouchers; a crash after leaves all of it.

use std::sync::Arc;
use std::time::Duration;

use crate::Result;
use crate::broken::broken;
use crate::error::At;
use crate::partition::{Appender, PartitionCore};
use crate::segment::{Rolled, Segment};
use crate::storage::File;
use crate::sync::atomic::Ordering;
use crate::types::Pos;

/// What a sync covers: taken under the append lock, synced without it.
pub(super) struct Written {
    pub(super) rolled: Vec<Rolled>,
    pub(super) active: Option<(Arc<dyn File>, Arc<Segment>, Pos)>,
    names_unsynced: bool,
    next: u64,
}

impl PartitionCore {
    /// Waits until every offset below `end` is durable. Leads a sync when no one does.
    pub(crate) fn wait_durable(&self, end: u64) -> Result<()> {
        loop {
            if self.durable.load(Ordering::Acquire) >= end || broken("acknowledged early") {
                return Ok(());
            }
            self.lead_or_wait(end)?;
        }
    }

    /// Makes everything written so far durable, also what readers may already see, or what a decided transaction has
    /// durable in the journal only.
    pub(crate) fn sync_written(&self) -> Result<u64> {
        self.become_leader(None)?;
        self.lead()
    }

    fn lead_or_wait(&self, end: u64) -> Result<()> {
        if self.become_leader(Some(end))? {
            self.lead()?;
        }
        Ok(())
    }

    /// Waits for the leader, if there is one; true when this thread leads now, false when `end` is durable meanwhile.
    fn become_leader(&self, end: Option<u64>) -> Result<bool> {
        self.leader.take_turn(end, || self.durable.load(Ordering::Acquire), || self.latch.check())
    }

    /// Syncs what is written, publishes it, and wakes the others. A failure closes the latch before anyone is woken.
    fn lead(&self) -> Result<u64> {
        let synced = self.sync_once();
        let synced = synced.map_err(|error| self.latch.fail(&self.dir, error));
        self.leader.finish();
        synced
    }

    fn sync_once(&self) -> Result<u64> {
        let written = written_of(&self.lock_appender());
        self.leader.covers(written.next);
        self.sync_files(&written)?;
        let mut appender = self.lock_appender();
        self.mark_durable(&mut appender, &written);
        Ok(written.next)
    }

    /// The same for a transaction that holds the append lock: it must not wait for a leader, who may be waiting for
    /// that lock to publish. Two syncs of one file at once do no harm.
    pub(super) fn sync_holding(&self, appender: &mut Appender) -> Result<()> {
        let written = written_of(appender);
        self.sync_files(&written).map_err(|error| self.latch.fail(&self.dir, error))?;
        self.mark_durable(appender, &written);
        self.leader.wake_all();
        Ok(())
    }

    fn sync_files(&self, written: &Written) -> Result<()> {
        for rolled in &written.rolled {
            if rolled.segment.durable() < rolled.last {
                rolled.file.sync().at(&rolled.segment.path)?;
            }
        }
        if written.names_unsynced {
            self.env.storage.sync_dir(&self.dir).at(&self.dir)?;
        }
        if let Some((file, segment, pos)) = &written.active
            && segment.durable() < *pos
        {
            file.sync()
                .or_else(|error| if broken("failed sync forgiven") { Ok(()) } else { Err(error) })
                .at(&segment.path)?;
        }
        Ok(())
    }

    /// Notes how far the disk has it, and publishes what was waiting for that.
    pub(super) fn mark_durable(&self, appender: &mut Appender, written: &Written) {
        for rolled in &written.rolled {
            rolled.segment.set_durable(rolled.last);
            rolled.segment.set_readable(rolled.last);
        }
        if written.names_unsynced && written.active.as_ref().is_some_and(|(_, segment, _)| is_active(appender, segment))
        {
            appender.names_unsynced = false;
        }
        if let Some((_, segment, pos)) = &written.active {
            segment.set_durable((*pos).max(segment.durable()));
            segment.set_readable((*pos).max(segment.readable()));
        }
        self.durable.fetch_max(written.next, Ordering::AcqRel);
        if self.readable.fetch_max(written.next, Ordering::SeqCst) < written.next {
            self.signal.notify();
        }
    }

    /// Sees that a sync follows within `interval`. Costs a load, once one is on its way.
    #[inline]
    pub(super) fn arm_interval(self: &Arc<Self>, interval: Duration) {
        if self.interval_armed.load(Ordering::Relaxed) || self.interval_armed.swap(true, Ordering::AcqRel) {
            return;
        }
        let partition = Arc::downgrade(self);
        self.env.background.submit_after(interval, move || {
            if let Some(partition) = partition.upgrade() {
                // Disarmed first: what is appended during the sync arms the next one.
                partition.interval_armed.store(false, Ordering::Release);
                if !partition.is_closed() {
                    // A failure is kept by the latch, where the next append finds it.
                    let _ = partition.sync_written();
                }
            }
        });
    }

    /// Sees to it that what a transaction has applied counts as durable: the journal has it.
    pub(super) fn mark_decided(&self, end: u64) {
        self.durable.fetch_max(end, Ordering::AcqRel);
    }
}

fn is_active(appender: &Appender, segment: &Arc<Segment>) -> bool {
    appender.writer.as_ref().is_some_and(|writer| Arc::ptr_eq(&writer.segment, segment))
}

pub(super) fn written_of(appender: &Appender) -> Written {
    Written {
        rolled: appender.rolled.clone(),
        active: appender
            .writer
            .as_ref()
            .map(|writer| (Arc::clone(&writer.file), Arc::clone(&writer.segment), writer.pos())),
        names_unsynced: appender.names_unsynced,
        next: appender.next,
    }
}
