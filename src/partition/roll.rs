//! From a full segment to a sealed one, and the manifest that tells them apart.

use std::sync::{Arc, Weak};

use crate::broken::broken;
use crate::error::At;
use crate::format::{Manifest, RecoveryPoint};
use crate::partition::{Appender, PartitionCore, lock};
use crate::segment::{Extent, FIRST_FRAME, Rolled, Segment, Writer, WriterShape, index_path};
use crate::storage::replace;
use crate::sync::atomic::Ordering;
use crate::types::Millis;
use crate::{Durability, Result};

/// So many full segments may wait to be sealed; then the appender that fills the next one seals them itself, so that
/// what power loss can take stays bounded.
const MOST_UNSEALED: usize = 4;

/// What is expected of the segment that a roll begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// To fill as the one before it did: it begins with a large piece of the disk.
    Filled,
    /// To lie idle for all that is known: it begins as that of an empty log.
    Idle,
}

/// Name of the manifest in a partition's directory.
pub(super) const MANIFEST: &str = "MANIFEST";

impl PartitionCore {
    /// Ends the active segment and begins the next, under the append lock. Waits for no sync.
    ///
    /// A crash before the new file's name is durable leaves the old segment alone, and nothing in the new one has been
    /// promised: the first sync that covers a frame in it syncs the old segment and the directory first.
    pub(super) fn roll_locked(self: &Arc<Self>, appender: &mut Appender, next: Next) -> Result<()> {
        let Some(writer) = &appender.writer else { return Ok(()) };
        if writer.is_empty() {
            return self.widen(appender);
        }
        let shape = self.shape(appender);
        let created = self.now();
        let filled = next == Next::Filled;
        let mut next = Writer::create(&shape, appender.next, created, filled)?;
        if filled && next.follows(&writer.segment) {
            let chore: Weak<Self> = Arc::downgrade(self);
            self.env.background.ask(chore);
        }
        let segment = Arc::clone(&next.segment);
        if let Some(full) = appender.writer.replace(next) {
            appender.rolled.push(full.finish());
        }
        appender.names_unsynced = !broken("segment name unsynced");
        // Readers go on from a segment to the next one once its last position is set, which it is by now.
        self.replace_segments(|list| list.push(segment));
        Ok(())
    }

    /// An empty segment is not rolled; its size may have been changed since it was made.
    fn widen(&self, appender: &mut Appender) -> Result<()> {
        let shape = self.shape(appender);
        let Some(writer) = appender.writer.take() else { return Ok(()) };
        let extent = writer.extent();
        let (segment, index) = (Arc::clone(&writer.segment), Arc::clone(writer.index()));
        drop(writer);
        appender.writer = Some(Writer::resume(&shape, segment, index, &extent)?);
        Ok(())
    }

    pub(super) fn shape(&self, appender: &Appender) -> WriterShape<'_> {
        WriterShape {
            storage: self.env.storage.as_ref(),
            dir: &self.dir,
            ident: self.ident,
            capacity: appender.settings.capacity(),
            mapped: self.env.mapped,
            synced: appender.settings.durability == Durability::Sync,
        }
    }

    /// Begins a new segment now, unless the active one is empty.
    pub(crate) fn roll(self: &Arc<Self>) -> Result<()> {
        self.roll_when(Next::Filled, |_| true)
    }

    /// The same, if the next offset then is this one: so that all before it is in full segments.
    pub(super) fn roll_at(self: &Arc<Self>, offset: u64) -> Result<()> {
        self.roll_when(Next::Idle, |next| next == offset)
    }

    fn roll_when(self: &Arc<Self>, next: Next, wanted: impl Fn(u64) -> bool) -> Result<()> {
        self.begin_segment(next, wanted)?;
        self.seal()
    }

    /// Begins a new segment, unless the active one is empty, and leaves the full one unsealed. Returns the next offset.
    pub(crate) fn leave_segment(self: &Arc<Self>) -> Result<u64> {
        self.begin_segment(Next::Filled, |_| true)
    }

    fn begin_segment(self: &Arc<Self>, next: Next, wanted: impl Fn(u64) -> bool) -> Result<u64> {
        self.check_usable()?;
        let mut appender = self.lock_appender();
        if appender.writer.is_none() {
            drop(appender);
            self.activate()?;
            appender = self.lock_appender();
        }
        let filled = appender.writer.as_ref().is_some_and(|writer| !writer.is_empty());
        let rolled = if filled && wanted(appender.next) { self.roll_locked(&mut appender, next) } else { Ok(()) };
        let end = appender.next;
        drop(appender);
        rolled.map_err(|error| self.fail(&self.dir, error)).map(|()| end)
    }

    /// Has full segments sealed in the background; by the caller when too many wait.
    pub(super) fn seal_soon(self: &Arc<Self>, waiting: usize) -> Result<()> {
        if waiting > MOST_UNSEALED {
            return self.seal();
        }
        // Asked by every append until it is done, and queued once.
        if self.sealing.load(Ordering::Relaxed) || self.sealing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let partition = Arc::downgrade(self);
        self.env.background.submit(move || {
            if let Some(partition) = partition.upgrade() {
                // Cleared first: what is rolled from here on is asked for again.
                partition.sealing.store(false, Ordering::Release);
                if !partition.is_closed() {
                    // A failure is kept by the latch, where the next append finds it.
                    let _ = partition.seal();
                }
            }
        });
        Ok(())
    }

    /// Seals every full segment: synced, trimmed, indexed, and listed in the manifest as durable whole.
    pub(crate) fn seal(&self) -> Result<()> {
        let mut manifest = lock(&self.manifest);
        self.seal_locked(&mut manifest)
    }

    /// A crash before the manifest is replaced finds the segment in the tail, and walks it; after, it is durable whole.
    pub(super) fn seal_locked(&self, manifest: &mut Manifest) -> Result<()> {
        let (rolled, active) = {
            let appender = self.lock_appender();
            let active = appender.writer.as_ref().map(|writer| (writer.segment.base, writer.segment.created));
            (appender.rolled.clone(), active)
        };
        let (Some((active, created)), false) = (active, rolled.is_empty()) else { return Ok(()) };
        let before = manifest.producers.snapshots.clone();
        // Taken before the sync, which then makes durable all that it knows of.
        let copy = self.copy_producers(active);
        self.latch.guard(&self.dir, || {
            if !broken("sealed unsynced") {
                self.sync_written()?;
            }
            // A segment may have been rolled in the meantime: only those noted above are sealed now, and the one that
            // was active then is the first of the tail.
            for full in &rolled {
                self.finish_file(full)?;
                manifest.sealed.push(full.segment.entry(full.last));
            }
            manifest.active = active;
            manifest.active_created = created;
            manifest.recovery = beginning(active);
            // One that cannot be written need not stop the log: the one before it and the frames say the same.
            let _ = self.keep_snapshot(manifest, active, copy);
            self.write_manifest(manifest)
        })?;
        self.drop_snapshots(&before, manifest);
        self.lock_appender().rolled.drain(..rolled.len());
        Ok(())
    }

    /// Gives back the blocks behind the last frame, and writes the index. Neither need be durable: a longer file is
    /// read up to its sealed length, and an index that is missing is made again.
    fn finish_file(&self, full: &Rolled) -> Result<()> {
        full.file.set_len(u64::from(full.last.0)).at(&full.segment.path)?;
        self.write_index(&full.segment, &full.view.index.encode(&full.segment, full.last));
        Ok(())
    }

    pub(super) fn write_index(&self, segment: &Segment, bytes: &[u8]) {
        // An index that could not be written is made again by whoever needs it; it must not stop the log.
        let path = index_path(&segment.path);
        let _ = replace(self.env.storage.as_ref(), &path, bytes);
    }

    /// Everything appended so far is durable, and the manifest vouches for it: damage below is corruption from now on.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_usable()?;
        let mut manifest = lock(&self.manifest);
        self.checkpoint_locked(&mut manifest)
    }

    pub(super) fn checkpoint_locked(&self, manifest: &mut Manifest) -> Result<()> {
        loop {
            self.seal_locked(manifest)?;
            let noted = self.latch.guard(&self.dir, || self.sync_and_note())?;
            let Some(Noted { segment, extent, covered }) = noted else { return Ok(()) };
            if manifest.active != segment.base {
                // Rolled since it was sealed above.
                continue;
            }
            let recovery = point(&segment, &extent);
            if manifest.recovery == recovery {
                return Ok(());
            }
            manifest.recovery = recovery;
            if covered {
                manifest.producers.covers = extent.end;
            }
            return self.latch.guard(&self.dir, || self.write_manifest(manifest));
        }
    }

    /// Syncs, and says how far the active segment was written before.
    fn sync_and_note(&self) -> Result<Option<Noted>> {
        let noted = {
            let appender = self.lock_appender();
            let covered = !appender.producers.dirty;
            let noted =
                |writer: &Writer| Noted { segment: Arc::clone(&writer.segment), extent: writer.extent(), covered };
            appender.writer.as_ref().map(noted)
        };
        if let Some(Noted { segment, extent, .. }) = &noted
            && segment.durable() < extent.pos
            && !broken("recovery point early")
        {
            self.sync_written()?;
        }
        Ok(noted)
    }

    /// Replaces the manifest: after a crash it is the old one or the new one, whole.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let path = self.dir.join(MANIFEST);
        replace(self.env.storage.as_ref(), &path, &manifest.encode())?;
        if broken("manifest name unsynced") {
            return Ok(());
        }
        self.env.storage.sync_dir(&self.dir).at(&self.dir)
    }
}

/// How far the active segment was written at some moment.
struct Noted {
    segment: Arc<Segment>,
    extent: Extent,
    /// Whether the last snapshot of the producers knew all of it.
    covered: bool,
}

/// The recovery point at the front of the segment with this base.
pub(super) fn beginning(base: u64) -> RecoveryPoint {
    RecoveryPoint { segment: base, pos: FIRST_FRAME, next: base, records: 0, newest: Millis::default() }
}

/// The recovery point at the end of `extent`.
pub(super) fn point(segment: &Segment, extent: &Extent) -> RecoveryPoint {
    RecoveryPoint {
        segment: segment.base,
        pos: extent.pos,
        next: extent.end,
        records: extent.records,
        newest: extent.newest,
    }
}
