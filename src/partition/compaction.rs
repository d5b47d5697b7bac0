//! Key compaction: full segments are rewritten with only the records that still count.
//!
//! Offsets and order stay. The new files carry a higher generation in their name, so that they stand beside the old
//! ones until the manifest, replaced in one step, names them instead. A crash before that finds the new files unlisted
//! and removes them; after it, the old ones.
//!
//! Full segments that are not sealed yet need not be: what is kept of them is synced in the new files, and the rest never
//! has to reach the disk. So what is dropped is dropped for the sake of what is durable, as soon as the manifest names it.
//! A segment of which nothing is kept is not even read.

use std::ops::Range;
use std::sync::Arc;

use crate::Result;
use crate::broken::broken;
use crate::error::At;
use crate::format::{
    FrameStamp, IndexEntry, Manifest, SealedSegment, SegmentHeader, decode_record, frame_len, seal_frame,
};
use crate::partition::durability::{Written, written_of};
use crate::partition::{PartitionCore, lock, roll};
use crate::segment::{Extent, FIRST_FRAME, Frame, FrameReader, Index, Segment, index_path};
use crate::storage::{File, Mode};
use crate::types::{Millis, Pos};

/// The records that still count.
#[derive(Debug)]
pub(crate) struct Kept {
    /// In order.
    offsets: Vec<u64>,
    /// From here on all do.
    from: u64,
}

impl Kept {
    pub(crate) fn new(mut offsets: Vec<u64>, from: u64) -> Self {
        offsets.sort_unstable();
        Self { offsets, from }
    }

    pub(crate) fn has(&self, offset: u64) -> bool {
        offset >= self.from || self.offsets.binary_search(&offset).is_ok()
    }

    fn has_any(&self, range: &Range<u64>) -> bool {
        let next = self.offsets.get(self.offsets.partition_point(|offset| *offset < range.start));
        range.end > self.from || next.is_some_and(|next| *next < range.end)
    }
}

/// A segment that is being written anew.
struct Rewrite {
    segment: Segment,
    file: Arc<dyn File>,
    index: Index,
    index_due: Pos,
    extent: Extent,
    /// Frames not yet written.
    buffer: Vec<u8>,
}

/// So much is buffered before it is written.
const PIECE: usize = 1 << 20;

impl PartitionCore {
    /// Rewrites all full segments into as few as hold what is kept, sealed. Returns the bytes of the sealed segments that
    /// are left.
    pub(crate) fn compact(self: &Arc<Self>, kept: &Kept) -> Result<u64> {
        let mut manifest = lock(&self.manifest);
        self.check_usable()?;
        let written = written_of(&self.lock_appender());
        let full = written.rolled.iter().map(|full| full.segment.entry(full.last));
        let old: Vec<SealedSegment> = manifest.sealed.iter().copied().chain(full).collect();
        let Some(last) = old.last() else { return Ok(0) };
        let snapshots = manifest.producers.snapshots.clone();
        // The new segments have no stamps.
        let copy = self.copy_producers(last.end);
        if copy.is_some() {
            // What it knows is durable before it is named.
            self.sync_written()?;
        }
        self.latch.guard(&self.dir, || {
            let done = self.rewrite(&old, kept)?;
            begin_tail(&mut manifest, &written)?;
            self.env.storage.sync_dir(&self.dir).at(&self.dir)?;
            if !written.rolled.is_empty() {
                self.keep_snapshot(&mut manifest, last.end, copy)?;
            }
            manifest.sealed = done;
            self.cover(&mut manifest, last.end)?;
            self.write_manifest(&manifest)
        })?;
        self.drop_snapshots(&snapshots, &manifest);
        self.mark_rewritten(&written);
        self.swap(&manifest.sealed, old.len());
        self.remove(&old)?;
        Ok(manifest.sealed.iter().map(|segment| u64::from(segment.len)).sum())
    }

    /// The segments that take the place of `old`, each durable but for its name.
    fn rewrite(&self, old: &[SealedSegment], kept: &Kept) -> Result<Vec<SealedSegment>> {
        let (Some(first), Some(last)) = (old.first(), old.last()) else { return Ok(Vec::new()) };
        let generation = old.iter().map(|entry| entry.generation).max().unwrap_or(0) + 1;
        let capacity = self.lock_appender().settings.capacity();
        let mut done: Vec<SealedSegment> = Vec::new();
        let mut rewrite = self.begin(first.base, generation, first.created)?;
        for entry in old.iter().filter(|entry| kept.has_any(&(entry.base..entry.end))) {
            self.copy_segment(entry, kept, capacity, &mut rewrite, &mut done)?;
        }
        done.push(self.finish(rewrite, last.end)?);
        Ok(done)
    }

    /// The manifest says where all that was written then is, on the disk.
    fn mark_rewritten(&self, written: &Written) {
        if written.rolled.is_empty() {
            return;
        }
        let mut appender = self.lock_appender();
        self.mark_durable(&mut appender, written);
        appender.rolled.drain(..written.rolled.len());
        drop(appender);
        self.leader.wake_all();
    }

    /// Shows readers the new segments; those who hold an old one finish it.
    fn swap(&self, sealed: &[SealedSegment], replaced: usize) {
        self.replace_segments(|list| {
            let fresh = sealed.iter().map(|entry| Arc::new(Segment::sealed(&self.dir, self.ident, entry)));
            let old: Vec<Arc<Segment>> = list.splice(..replaced, fresh).collect();
            for segment in old {
                self.env.forget(&segment);
            }
        });
    }

    fn begin(&self, base: u64, generation: u32, created: Millis) -> Result<Rewrite> {
        let segment = Segment::new(&self.dir, self.ident, base, generation, created);
        let file = self.env.storage.open(&segment.path, Mode::Create).at(&segment.path)?;
        let buffer = SegmentHeader { ident: self.ident, base, created }.encode().to_vec();
        let extent = Extent { pos: FIRST_FRAME, end: base, records: 0, newest: Millis::default() };
        Ok(Rewrite { segment, file, index: Index::new(), index_due: Pos(0), extent, buffer })
    }

    fn copy_segment(
        &self,
        entry: &SealedSegment,
        kept: &Kept,
        capacity: u32,
        rewrite: &mut Rewrite,
        done: &mut Vec<SealedSegment>,
    ) -> Result<()> {
        let segment = Segment::sealed(&self.dir, self.ident, entry);
        let file = self.env.storage.open(&segment.path, Mode::Read).at(&segment.path)?;
        segment.check_header(file.as_ref())?;
        let mut reader = FrameReader::new(file.as_ref(), &segment.path)?;
        let mut pos = FIRST_FRAME;
        while pos.0 < entry.len {
            let frame = reader.frame_at(segment.seed, pos)?.filter(|frame| frame.is_intact(segment.seed));
            let Some(frame) = frame else {
                let reason = "the frame's checksum does not match";
                return Err(crate::Error::corrupt(&segment.path, u64::from(pos.0), reason));
            };
            pos = frame.next();
            let base = frame.base(segment.base);
            let Some(records) = surviving(&frame, base, kept) else { continue };
            let needed = frame_len(records.bytes.len(), false) + 24;
            let full = rewrite.extent.pos.index() + needed > capacity as usize
                || frame.end(segment.base) - rewrite.segment.base > u64::from(u32::MAX);
            if full && rewrite.extent.records > 0 {
                let next = self.begin(base, rewrite.segment.generation, segment.created)?;
                let end = rewrite.extent.end;
                done.push(self.finish(std::mem::replace(rewrite, next), end)?);
            }
            rewrite.push(base, &frame, &records)?;
        }
        Ok(())
    }

    /// Makes the file durable; its name is once the directory is synced.
    fn finish(&self, mut rewrite: Rewrite, end: u64) -> Result<SealedSegment> {
        rewrite.flush()?;
        rewrite.extent.end = end.max(rewrite.extent.end);
        rewrite.segment.set_extent(&rewrite.extent);
        if !broken("compacted unsynced") {
            rewrite.file.sync().at(&rewrite.segment.path)?;
        }
        let bytes = rewrite.index.encode(&rewrite.segment, rewrite.extent.pos);
        // Not durable, and none of that name was there: one that does not read back is made again, as is one that could
        // not be written.
        let path = index_path(&rewrite.segment.path);
        let _ = self.env.storage.open(&path, Mode::Create).and_then(|file| file.write_at(&bytes, 0));
        Ok(rewrite.segment.entry(rewrite.extent.pos))
    }
}

/// Has the tail begin behind the full segments, with what was the active one: its header is durable on return.
fn begin_tail(manifest: &mut Manifest, written: &Written) -> Result<()> {
    let (Some((file, segment, _)), false) = (&written.active, written.rolled.is_empty()) else { return Ok(()) };
    file.sync().at(&segment.path)?;
    manifest.active = segment.base;
    manifest.active_created = segment.created;
    manifest.recovery = roll::beginning(segment.base);
    Ok(())
}

/// Records of a frame that stay, as they stood there.
struct Surviving {
    bytes: Vec<u8>,
    count: u32,
}

/// What of a frame stays; `None` when nothing does.
fn surviving(frame: &Frame<'_>, base: u64, kept: &Kept) -> Option<Surviving> {
    if !kept.has_any(&(base..base.saturating_add(u64::from(frame.header.span)))) {
        return None;
    }
    let mut at = frame.header.records_at();
    let mut surviving = Surviving { bytes: Vec::new(), count: 0 };
    for _ in 0..frame.header.count {
        let record = decode_record(frame.bytes, at)?;
        let end = record.next as usize;
        if kept.has(base + u64::from(record.delta)) {
            surviving.bytes.extend_from_slice(frame.bytes.get(at..end)?);
            surviving.count += 1;
        }
        at = end;
    }
    (surviving.count > 0).then_some(surviving)
}

impl Rewrite {
    /// Adds what is left of a frame at its offset. It was durable whole, and so is said to be.
    fn push(&mut self, base: u64, old: &Frame<'_>, records: &Surviving) -> Result<()> {
        let pos = self.extent.pos;
        let span = old.header.span;
        let sparse = records.count != span;
        let len = crate::format::frame_len_of(records.bytes.len(), None, sparse);
        let start = self.buffer.len();
        self.buffer.resize(start + len.next_multiple_of(8), 0);
        let frame = self.buffer.get_mut(start..start + len).unwrap_or_default();
        if let Some(space) = frame.get_mut(len - records.bytes.len()..) {
            space.copy_from_slice(&records.bytes);
        }
        let stamp = FrameStamp {
            offset_delta: u32::try_from(base - self.segment.base).unwrap_or(u32::MAX),
            durable: pos.0,
            timestamp: old.header.timestamp,
            count: records.count,
            span,
            producer: None,
        };
        let length = seal_frame(frame, self.segment.seed, pos, &stamp);
        if let Some(field) = frame.first_chunk_mut::<4>() {
            *field = length.to_le_bytes();
        }
        if pos >= self.index_due {
            let newest_before = self.extent.newest;
            self.index_due = self.index.push(IndexEntry { offset: base, pos, newest_before });
        }
        self.extent = Extent {
            pos: Pos(pos.0 + u32::try_from(len.next_multiple_of(8)).unwrap_or(u32::MAX)),
            end: base + u64::from(span),
            records: self.extent.records + u64::from(records.count),
            newest: self.extent.newest.max(old.header.timestamp),
        };
        if self.buffer.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let at = u64::from(self.extent.pos.0) - self.buffer.len() as u64;
        self.file.write_at(&self.buffer, at).at(&self.segment.path)?;
        self.buffer.clear();
        Ok(())
    }
}
