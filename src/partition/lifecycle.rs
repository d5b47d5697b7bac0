//! A partition is created, opened, woken by its first append, and closed.

use std::path::Path;
use std::sync::Arc;

use crate::broken::broken;
use crate::error::At;
use crate::format::{Ident, Manifest, Part, ProducersMark, RecoveryPoint, State};
use crate::partition::leader::Leader;
use crate::partition::roll::{MANIFEST, point};
use crate::partition::{Appender, Env, Latch, PartitionCore, Settings, extent_of, lock};
use crate::segment::{FIRST_FRAME, Segment, Writer, WriterShape};
use crate::storage::{Signal, replace};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, RwLock};
use crate::types::Millis;
use crate::{Durability, Result};

/// Offsets are handed out below a durable ceiling, which moves in steps of so many.
pub(super) const CEILING_STEP: u64 = 1 << 20;

/// What opening a partition must respect besides its own files.
#[derive(Debug, Default)]
pub(crate) struct Floor {
    /// What decided transactions put here, in the order of their offsets. What is there already is skipped.
    pub(crate) parts: Vec<Part>,
    /// No offset below is given out: a placemark points here.
    pub(crate) least_end: u64,
}

impl PartitionCore {
    /// Makes the directory of a partition with one empty segment. All of it is durable but the directory's own name in
    /// its parent.
    pub(crate) fn create(env: &Env, ident: Ident, dir: &Path) -> Result<()> {
        let storage = env.storage.as_ref();
        storage.create_dir(dir).at(dir)?;
        let shape = WriterShape { storage, dir, ident, capacity: FIRST_FRAME.0, mapped: false, synced: true };
        let created = Millis(storage.now());
        let writer = Writer::create(&shape, 0, created, false)?;
        writer.file.sync().at(&writer.segment.path)?;
        let manifest = Manifest {
            ident,
            sealed: Vec::new(),
            active: 0,
            active_created: created,
            recovery: RecoveryPoint { segment: 0, pos: FIRST_FRAME, next: 0, records: 0, newest: Millis::default() },
            ceiling: None,
            state: State::Clean,
            producers: ProducersMark::nothing_up_to(0),
        };
        replace(storage, &dir.join(MANIFEST), &manifest.encode())?;
        storage.sync_dir(dir).at(dir)
    }

    /// Opens a partition: a clean one without reading its records, another one by recovery.
    pub(crate) fn open(
        env: &Arc<Env>,
        ident: Ident,
        dir: &Path,
        settings: Settings,
        signal: Arc<Signal>,
        floor: &Floor,
    ) -> Result<Arc<Self>> {
        let (manifest, producers) = super::recovery::recover(env, ident, dir, floor, &settings)?;
        let mut segments: Vec<Arc<Segment>> =
            manifest.sealed.iter().map(|entry| Arc::new(Segment::sealed(dir, ident, entry))).collect();
        let active = Segment::new(dir, ident, manifest.active, 0, manifest.active_created);
        let extent = extent_of(&manifest);
        active.set_extent(&extent);
        active.set_durable(extent.pos);
        active.set_readable(extent.pos);
        segments.push(Arc::new(active));
        Ok(Arc::new(Self {
            env: Arc::clone(env),
            ident,
            dir: dir.to_path_buf(),
            signal,
            latch: Latch::default(),
            closed: AtomicBool::new(false),
            readable: AtomicU64::new(extent.end),
            durable: AtomicU64::new(extent.end),
            start: AtomicU64::new(segments.first().map_or(0, |segment| segment.base)),
            segments: RwLock::new(Arc::new(segments)),
            appender: Mutex::new(Appender {
                writer: None,
                rolled: Vec::new(),
                next: extent.end,
                ceiling: 0,
                settings,
                producers,
                names_unsynced: false,
            }),
            manifest: Mutex::new(manifest),
            leader: Leader::default(),
            interval_armed: AtomicBool::new(false),
            raising: AtomicBool::new(false),
            sealing: AtomicBool::new(false),
        }))
    }

    /// Readies the partition for its first append since it was opened: consumes the clean marker, durably, and maps the
    /// active segment.
    ///
    /// A process that died may have left names unsynced by which this one found its way here: the STORE file beside the
    /// side log, the LOG file that counts the partitions. They are made durable before anything is promised.
    ///
    /// A crash after it finds the manifest open, with the recovery point at the end of what was there: the tail is
    /// walked from there.
    pub(super) fn activate(&self) -> Result<()> {
        let mut manifest = lock(&self.manifest);
        let (shape, awake, next) = {
            let appender = self.lock_appender();
            self.check_usable()?;
            (self.shape(&appender), appender.writer.is_some(), appender.next)
        };
        if awake {
            return Ok(());
        }
        self.env.background.ready();
        let durability = self.lock_appender().settings.durability;
        let writer = self.latch.guard(&self.dir, || {
            let Some(segment) = self.segments().last().map(Arc::clone) else { return Err(crate::Error::Closed) };
            let extent = extent_of(&manifest);
            // Its index is needed complete before frames are added to it.
            let view = segment.view(self.env.storage.as_ref(), self.env.recovery_mode, |_| ())?;
            let writer = Writer::resume(&shape, segment, Arc::clone(&view.index), &extent)?;
            if let Some(parent) = self.dir.parent() {
                self.env.storage.sync_dir(parent).at(parent)?;
            }
            manifest.state = State::Open(self.env.identity);
            manifest.ceiling = ceiling_for(durability, next);
            if !broken("marker kept") {
                self.write_manifest(&manifest)?;
            }
            Ok(writer)
        })?;
        let mut appender = self.lock_appender();
        appender.ceiling = manifest.ceiling.unwrap_or(u64::MAX);
        appender.writer = Some(writer);
        Ok(())
    }

    /// Moves the ceiling ahead of what has been handed out.
    pub(super) fn raise_ceiling(&self) -> Result<()> {
        let mut manifest = lock(&self.manifest);
        self.check_usable()?;
        let (next, durability, awake) = {
            let appender = self.lock_appender();
            (appender.next, appender.settings.durability, appender.writer.is_some())
        };
        let known = manifest.ceiling.unwrap_or(0);
        if !awake || (durability != Durability::Sync && next.saturating_add(CEILING_STEP / 2) < known) {
            return Ok(());
        }
        let ceiling = ceiling_for(durability, next);
        if ceiling.is_some() {
            manifest.ceiling = ceiling;
            self.latch.guard(&self.dir, || self.write_manifest(&manifest))?;
        }
        // Without a ceiling in force the one in the manifest does no harm: it only makes a gap.
        self.lock_appender().ceiling = ceiling.unwrap_or(u64::MAX);
        Ok(())
    }

    /// Seals, syncs, trims, and leaves the marker that lets the next opening read nothing. Later calls answer `Closed`.
    pub(crate) fn close(&self) -> Result<()> {
        let mut manifest = lock(&self.manifest);
        {
            let mut appender = self.lock_appender();
            if self.closed.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
            // Offsets end here: an append that waits for the lock finds the partition closed.
            appender.ceiling = 0;
        }
        let closed = self.leave_clean(&mut manifest);
        let mut appender = self.lock_appender();
        appender.writer = None;
        appender.rolled.clear();
        drop(appender);
        self.leader.wake_all();
        self.signal.notify();
        closed
    }

    /// A close that fails leaves no marker, and the next opening recovers.
    fn leave_clean(&self, manifest: &mut Manifest) -> Result<()> {
        let awake = self.lock_appender().writer.is_some();
        if !awake {
            return self.latch.check();
        }
        if broken("marker early") {
            manifest.state = State::Clean;
            self.write_manifest(manifest)?;
        }
        self.checkpoint_locked(manifest)?;
        self.latch.guard(&self.dir, || {
            let appender = self.lock_appender();
            let Some(writer) = &appender.writer else { return Ok(()) };
            let (segment, extent) = (Arc::clone(&writer.segment), writer.extent());
            let (file, index) = (Arc::clone(&writer.file), Arc::clone(writer.index()));
            drop(appender);
            file.set_len(u64::from(extent.pos.0)).at(&segment.path)?;
            file.sync().at(&segment.path)?;
            self.write_index(&segment, &index.encode(&segment, extent.pos));
            manifest.recovery = point(&segment, &extent);
            manifest.ceiling = None;
            manifest.state = State::Clean;
            let before = manifest.producers.snapshots.clone();
            // Without it the next opening reads the frames.
            let _ = self.keep_snapshot(manifest, extent.end, self.copy_producers(extent.end));
            self.write_manifest(manifest)?;
            self.drop_snapshots(&before, manifest);
            Ok(())
        })
    }
}

/// Offsets from here on may not be given out before the ceiling has been raised, durably.
fn ceiling_for(durability: Durability, next: u64) -> Option<u64> {
    match durability {
        Durability::Sync => None,
        Durability::Interval(_) | Durability::Os => Some(next.saturating_add(CEILING_STEP)),
    }
}
