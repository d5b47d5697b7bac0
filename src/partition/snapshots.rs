//! Snapshots of what a partition knows of its producers, so that opening need not read all frames, and so that frames
//! can be removed without their sequences being forgotten.
//!
//! A snapshot is a file beside the segments, named by an offset: it knows every frame below, and may know some behind,
//! since it is taken piece by piece while appends go on. What it knows is durable before the manifest names it. So a
//! crash at any moment leaves a snapshot and the frames behind it, and taking those in again, but for what it knows
//! already, gives what the frames that survived say. The one before it is kept too, for when it is damaged; and where
//! no frame has been removed, the frames alone will do.

use std::path::{Path, PathBuf};

use crate::error::At;
use crate::format::{Ident, KNOWN_LEN, Known, Manifest, SnapshotReader, begin_snapshot, end_snapshot};
use crate::partition::producers::Producers;
use crate::partition::{Env, PartitionCore};
use crate::segment::{FIRST_FRAME, FrameReader, Segment};
use crate::storage::{Mode, Storage, replace};
use crate::types::{Millis, Pos};
use crate::{Error, RecoveryMode, Result};

/// So many producers are copied under the append lock at a time.
const COPIED: usize = 512;

/// So much of a snapshot is read at a time.
const PIECE: usize = 256 << 10;

/// For so many producers there is room at once, if a file is as long as theirs: a file that is not ours takes no more.
const RESERVED: usize = 1 << 20;

/// So many snapshots are kept.
const KEPT: usize = 2;

/// The name of the snapshot at an offset.
pub(super) fn snapshot_name(offset: u64) -> String {
    format!("{offset:020}.producers")
}

/// The offset in the name of a snapshot, if it is one.
pub(super) fn parse_snapshot_name(name: &str) -> Option<u64> {
    let offset = name.strip_suffix(".producers")?.parse().ok()?;
    (snapshot_name(offset) == name).then_some(offset)
}

/// What the manifest's snapshots and the frames below its recovery point say. Snapshots that do not read back are
/// struck from the manifest.
pub(super) fn load(env: &Env, ident: Ident, dir: &Path, manifest: &mut Manifest) -> Result<Producers> {
    let storage = env.storage.as_ref();
    let (mut from, floor) = (manifest.producers.covers, manifest.producers.floor);
    let mut producers = Producers::default();
    let mut damaged: Option<(PathBuf, String)> = None;
    while let Some(offset) = manifest.producers.snapshots.first().copied() {
        let path = dir.join(snapshot_name(offset));
        match read(storage, ident, &path, offset) {
            Ok(loaded) => {
                producers = loaded;
                break;
            }
            Err(Unread::Disk(error)) => return Err(error),
            Err(Unread::Damaged(reason)) => {
                // Without the newest, all frames since the one before it are looked at.
                manifest.producers.snapshots.remove(0);
                from = manifest.producers.snapshots.first().copied().unwrap_or(0);
                damaged.get_or_insert((path, reason));
            }
        }
    }
    if let Some((path, reason)) = &damaged
        && from < floor
    {
        if env.recovery_mode == RecoveryMode::Strict {
            let reason = format!("{reason}, and the frames that it speaks of are gone");
            return Err(Error::corrupt(path, 0, reason));
        }
        env.report.damaged(path, 0, 0, 0..0);
    }
    for entry in manifest.sealed.iter().filter(|entry| entry.end > from) {
        let segment = Segment::sealed(dir, ident, entry);
        take_in(env, &segment, Pos(entry.len), &mut producers)?;
    }
    if manifest.recovery.next > from {
        let segment = Segment::new(dir, ident, manifest.active, 0, Millis::default());
        take_in(env, &segment, manifest.recovery.pos, &mut producers)?;
    }
    producers.dirty |= damaged.is_some();
    Ok(producers)
}

/// Takes in the frames of a segment up to `last`, all of which are durable.
fn take_in(env: &Env, segment: &Segment, last: Pos, producers: &mut Producers) -> Result<()> {
    let strict = env.recovery_mode == RecoveryMode::Strict;
    let path = &segment.path;
    let file = match env.storage.open(path, Mode::Read) {
        // Listed already, by whoever found it missing.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !strict => return Ok(()),
        opened => opened.at(path)?,
    };
    let mut reader = FrameReader::new(file.as_ref(), path)?;
    let mut pos = FIRST_FRAME;
    while pos < last {
        let intact = reader.frame_at(segment.seed, pos)?.is_some_and(|frame| frame.is_intact(segment.seed));
        if !intact && strict {
            return Err(Error::corrupt(path, u64::from(pos.0), "the frame's checksum does not match"));
        }
        let frame = if intact { reader.frame_at(segment.seed, pos)? } else { reader.find_frame(segment.seed, pos)? };
        let Some(frame) = frame else { return Ok(()) };
        if let Some(stamp) = frame.header.producer(frame.bytes) {
            producers.found(&stamp, frame.base(segment.base), frame.header.span);
        }
        pos = frame.next();
    }
    Ok(())
}

/// Why there is no snapshot.
enum Unread {
    /// The disk does not say.
    Disk(Error),
    /// It is missing, or is not what was written.
    Damaged(String),
}

fn read(storage: &dyn Storage, ident: Ident, path: &Path, offset: u64) -> Result<Producers, Unread> {
    let file = match storage.open(path, Mode::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Unread::Damaged("the snapshot of its producers is missing".to_owned()));
        }
        opened => opened.at(path).map_err(Unread::Disk)?,
    };
    let len = file.len().at(path).map_err(Unread::Disk)?;
    let mut producers = Producers::with_capacity(usize::try_from(len / KNOWN_LEN as u64).unwrap_or(0).min(RESERVED));
    let mut reader = SnapshotReader::new(ident, offset);
    let mut buffer = vec![0; PIECE];
    let (mut at, mut held) = (0, 0);
    loop {
        let space = buffer.get_mut(held..).unwrap_or_default();
        let read = file.read_at(space, at).at(path).map_err(Unread::Disk)?;
        (at, held) = (at + read as u64, held + read);
        let taken = reader.take(buffer.get(..held).unwrap_or_default(), read == 0, |known| producers.add(known));
        let taken = taken.map_err(|error| Unread::Damaged(error.at(path).to_string()))?;
        if read == 0 {
            return Ok(producers);
        }
        buffer.copy_within(taken..held, 0);
        held -= taken;
    }
}

/// Ends opening: all that is known is in a snapshot, so that the next opening reads no frame for it. What was found in
/// frames is durable by now. Says whether the manifest has changed.
pub(super) fn settle(env: &Env, ident: Ident, dir: &Path, manifest: &mut Manifest, producers: &mut Producers) -> bool {
    let at = manifest.recovery.next;
    if producers.dirty {
        let mut bytes = begin_snapshot(&ident, at, producers.len() * KNOWN_LEN);
        encode(producers.some(0, usize::MAX), &mut bytes);
        if write(env.storage.as_ref(), dir, at, &end_snapshot(bytes)).is_err() {
            // The next opening does this work again; nothing is lost by it.
            return false;
        }
        producers.dirty = false;
        list(manifest, at);
        return true;
    }
    std::mem::replace(&mut manifest.producers.covers, at) != at
}

fn encode(some: &[Known], out: &mut Vec<u8>) {
    for known in some {
        known.encode(out);
    }
}

/// A crash before the new name is durable leaves the old snapshots, which the manifest still names.
fn write(storage: &dyn Storage, dir: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
    replace(storage, &dir.join(snapshot_name(offset)), bytes)
}

/// Names a snapshot that was written.
fn list(manifest: &mut Manifest, at: u64) {
    let mark = &mut manifest.producers;
    mark.snapshots.retain(|known| *known != at && *known >= mark.floor);
    mark.snapshots.insert(0, at);
    mark.snapshots.truncate(KEPT);
    mark.covers = at;
}

impl PartitionCore {
    /// A copy of what is known now, to become the snapshot at `at`, below which every frame has been appended; `None`
    /// when the last one will do. It must not be named before all that was appended until now is durable.
    pub(super) fn copy_producers(&self, at: u64) -> Option<Vec<u8>> {
        let count = {
            let mut appender = self.lock_appender();
            if !std::mem::replace(&mut appender.producers.dirty, false) {
                return None;
            }
            appender.producers.len()
        };
        let mut bytes = begin_snapshot(&self.ident, at, count.saturating_add(COPIED) * KNOWN_LEN);
        let mut from = 0;
        loop {
            let appender = self.lock_appender();
            let some = appender.producers.some(from, COPIED);
            if some.is_empty() {
                break;
            }
            encode(some, &mut bytes);
            from += some.len();
        }
        Some(end_snapshot(bytes))
    }

    /// Writes a copy, whose frames are durable by now, and names it in the manifest, which is the caller's to write; then
    /// [`drop_snapshots`](Self::drop_snapshots) is due. Without a copy the last snapshot covers all up to `at`.
    pub(super) fn keep_snapshot(&self, manifest: &mut Manifest, at: u64, copy: Option<Vec<u8>>) -> Result<()> {
        let Some(bytes) = copy else {
            manifest.producers.covers = at;
            return Ok(());
        };
        match write(self.env.storage.as_ref(), &self.dir, at, &bytes) {
            Ok(()) => {
                list(manifest, at);
                Ok(())
            }
            Err(error) => {
                self.lock_appender().producers.dirty = true;
                Err(error)
            }
        }
    }

    /// Sees to it that frames below `floor`, which are sealed, can go without their sequences being forgotten.
    pub(super) fn cover(&self, manifest: &mut Manifest, floor: u64) -> Result<()> {
        if manifest.producers.covers < floor {
            // An earlier snapshot could not be written.
            let at = manifest.active;
            let copy = self.copy_producers(at);
            self.sync_written()?;
            self.keep_snapshot(manifest, at, copy)?;
        }
        let mark = &mut manifest.producers;
        if mark.snapshots.is_empty() {
            // Below it no frame has a stamp, and none is missed.
            return Ok(());
        }
        mark.floor = mark.floor.max(floor);
        let (floor, newest) = (mark.floor, mark.snapshots.first().copied());
        mark.snapshots.retain(|known| *known >= floor || Some(*known) == newest);
        Ok(())
    }

    /// Removes the snapshots that the manifest, which is durable by now, names no more. What stays behind is removed by
    /// the next opening.
    pub(super) fn drop_snapshots(&self, before: &[u64], manifest: &Manifest) {
        drop_unnamed(self.env.storage.as_ref(), &self.dir, before, manifest);
    }
}

/// Removes what was named before, and is not any more.
pub(super) fn drop_unnamed(storage: &dyn Storage, dir: &Path, before: &[u64], manifest: &Manifest) {
    for offset in before.iter().filter(|offset| !manifest.producers.snapshots.contains(offset)) {
        let _ = storage.remove_file(&dir.join(snapshot_name(*offset)));
    }
}
