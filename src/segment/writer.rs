//! The segment that is appended to: where the next frame goes, and the space allocated for it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::Result;
use crate::error::At;
use crate::format::{FrameStamp, Ident, IndexEntry, ProducerStamp, SegmentHeader, seal_frame};
use crate::segment::{Extent, FIRST_FRAME, Index, Segment, View};
use crate::storage::{File, Map, MapWriter, Mode, Storage};
use crate::types::{Millis, Pos};

/// What a new segment has allocated, so that an empty log is small; then the allocation doubles.
const FIRST_STEP: u32 = 16 << 10;
/// What a segment that follows a full one has allocated.
const ROLLED_STEP: u32 = 1 << 20;
/// The largest step in which a segment grows.
const LARGEST_STEP: u32 = 8 << 20;

/// Space is allocated ahead of the appender from this much on: smaller steps cost less than waking a thread.
const LEAST_AHEAD: u32 = 1 << 20;
/// Pages are made ready in pieces of this size, so that nobody waits long for the process's map.
const PIECE: u32 = 1 << 20;
/// Pages are made ready for an appender that fills half a step in this time, in milliseconds. A slower one meets few
/// page faults, and would have them written to disk twice: empty, and filled.
const EAGER: u64 = 250;

/// Appends frames to one segment. There is one at a time for a partition, kept under its append lock.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) segment: Arc<Segment>,
    /// Open since before the first store, so that its sync reports every write-back error since: by its descriptor, or
    /// kept by the mapping.
    pub(crate) file: Arc<dyn File>,
    /// Keeps the mapping and the index alive for readers, who reach them through the segment.
    view: Arc<View>,
    sink: Sink,
    pos: Pos,
    allocated: u32,
    /// Up to here an append needs to look at nothing else: all of it is allocated, and more need not be asked for.
    easy: u32,
    /// When more was asked for last.
    asked: Millis,
    /// Whether pages may be made ready ahead: not where a sync follows soon and writes what is dirty.
    populates: bool,
    /// Whether more space was asked for.
    short: bool,
    /// Whether those of what is allocated already are to be made ready, next.
    fresh: bool,
    capacity: u32,
    next: u64,
    records: u64,
    newest: Millis,
    index_due: Pos,
}

/// The way that bytes take to the file.
#[derive(Debug)]
enum Sink {
    /// Stored through a shared mapping of allocated blocks.
    Mapped(MapWriter),
    /// Written with `pwrite` from a buffer that is used again and again.
    Pwrite { map: Arc<Map>, frame: Vec<u8> },
}

/// Which segment to write, and how.
#[derive(Debug)]
pub(crate) struct WriterShape<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) dir: &'a Path,
    pub(crate) ident: Ident,
    pub(crate) capacity: u32,
    pub(crate) mapped: bool,
    /// Whether every frame is synced soon: then small pages cost less, since a sync writes dirty pages whole.
    pub(crate) synced: bool,
}

/// What is to be appended as one frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    /// Records in the frame.
    pub(crate) count: u32,
    /// Offsets it takes: the count, unless the records have gaps.
    pub(crate) span: u32,
    /// The newest timestamp.
    pub(crate) timestamp: Millis,
    pub(crate) producer: Option<ProducerStamp>,
}

/// A segment that is full, on its way to being sealed.
#[derive(Debug, Clone)]
pub(crate) struct Rolled {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn File>,
    /// Its mapping and index, kept until it is sealed.
    pub(crate) view: Arc<View>,
    pub(crate) last: Pos,
}

impl Writer {
    /// Makes the file of a new segment. Nothing of it is durable yet, its name neither.
    pub(crate) fn create(shape: &WriterShape<'_>, base: u64, created: Millis, after_full: bool) -> Result<Self> {
        let segment = Arc::new(Segment::new(shape.dir, shape.ident, base, 0, created));
        let file = shape.storage.open(&segment.path, Mode::Create).at(&segment.path)?;
        let header = SegmentHeader { ident: shape.ident, base, created };
        file.write_at(&header.encode(), 0).at(&segment.path)?;
        let extent = Extent { pos: FIRST_FRAME, end: base, records: 0, newest: Millis::default() };
        let step = if after_full { ROLLED_STEP } else { FIRST_STEP };
        Self::over(shape, segment, file, &extent, Arc::new(Index::new()), step)
    }

    /// Goes on with a segment whose frames end at `extent`. What lies behind is cut, so that it is zero.
    pub(crate) fn resume(
        shape: &WriterShape<'_>,
        segment: Arc<Segment>,
        index: Arc<Index>,
        extent: &Extent,
    ) -> Result<Self> {
        let file = shape.storage.open(&segment.path, Mode::Write).at(&segment.path)?;
        segment.check_header(file.as_ref())?;
        file.set_len(u64::from(extent.pos.0)).at(&segment.path)?;
        if shape.synced {
            file.forget(0);
        }
        Self::over(shape, segment, file, extent, index, FIRST_STEP)
    }

    fn over(
        shape: &WriterShape<'_>,
        segment: Arc<Segment>,
        file: Arc<dyn File>,
        extent: &Extent,
        index: Arc<Index>,
        step: u32,
    ) -> Result<Self> {
        let path = &segment.path;
        let capacity = shape.capacity.max(extent.pos.0);
        let allocated = extent.pos.0.saturating_add(step).next_multiple_of(4096).min(capacity);
        let mapped = allocate(file.as_ref(), shape.mapped, 0, allocated).at(path)?;
        let map = Arc::new(file.map(capacity as usize, mapped).at(path)?);
        map.fill(extent.pos.index());
        let sink = if mapped { map.writer(extent.pos.index(), allocated as usize) } else { None };
        if !shape.synced {
            map.prefer_large_pages();
        } else if mapped {
            map.prefer_small_pages(extent.pos.index());
        }
        let (sink, file) = match sink {
            // Stored through the mapping, which can keep the file open as well as a descriptor can. What was there when a
            // segment is resumed has been synced, by the close or by the recovery before; a new one is synced whole.
            Some(writer) => {
                let from = if extent.pos == FIRST_FRAME { 0 } else { extent.pos.index() };
                (Sink::Mapped(writer), file.kept_by(&map, path, from).unwrap_or(file))
            }
            None => (Sink::Pwrite { map: Arc::clone(&map), frame: Vec::new() }, file),
        };
        let view = Arc::new(View { map, index });
        segment.set_extent(extent);
        segment.show(&view);
        Ok(Self {
            segment,
            file,
            view,
            sink,
            pos: extent.pos,
            allocated,
            easy: easy(extent.pos, allocated, capacity),
            asked: Millis::default(),
            populates: mapped && !shape.synced,
            short: false,
            fresh: false,
            capacity,
            next: extent.end,
            records: extent.records,
            newest: extent.newest,
            index_due: extent.pos,
        })
    }

    /// Where the next frame goes.
    pub(crate) fn pos(&self) -> Pos {
        self.pos
    }

    pub(crate) fn extent(&self) -> Extent {
        Extent { pos: self.pos, end: self.next, records: self.records, newest: self.newest }
    }

    /// Whether it has no frame.
    pub(crate) fn is_empty(&self) -> bool {
        self.pos == FIRST_FRAME
    }

    pub(crate) fn index(&self) -> &Arc<Index> {
        &self.view.index
    }

    /// Whether `bytes` of frames whose last offset is below `end` still go into this segment: neither its size nor an
    /// offset's distance from its base may overflow.
    #[inline]
    pub(crate) fn fits(&self, bytes: usize, end: u64) -> bool {
        self.pos.index() + bytes <= self.capacity as usize && u32::try_from(end - self.segment.base).is_ok()
    }

    /// Whether `bytes` can be stored at the end, and no space need be asked for ahead.
    #[inline]
    pub(crate) fn has_ready(&self, bytes: usize) -> bool {
        self.pos.index() + bytes <= self.easy as usize
    }

    /// Whether the end of what is allocated comes near, which is said once for each time that it grows.
    pub(crate) fn runs_short(&mut self, bytes: usize) -> bool {
        let short = !self.has_ready(bytes) && self.easy < self.allocated;
        if short {
            self.easy = self.allocated;
            self.short = true;
        }
        short
    }

    /// The space to be made ready next, now that it is `now`; `None` when none was asked for in this segment.
    pub(crate) fn ahead(&mut self, now: Millis) -> Option<Ahead> {
        let fresh = std::mem::take(&mut self.fresh);
        let from = if fresh { self.pos.0 } else { self.allocated };
        // What was asked for may have been space in the segment before.
        let step = if std::mem::take(&mut self.short) { self.allocated.min(LARGEST_STEP) } else { 0 };
        let to = self.allocated.saturating_add(step).min(self.capacity);
        let eager = now.0.saturating_sub(self.asked.0) <= EAGER;
        self.asked = now;
        (to > from).then(|| Ahead {
            file: Arc::clone(&self.file),
            map: Arc::clone(&self.view.map),
            from,
            to,
            populates: fresh || eager && self.populates,
        })
    }

    /// Whether the pages of its first step are to be made ready too, which [`ahead`](Self::ahead) then says once: where
    /// the segment before it was filled fast.
    pub(crate) fn follows(&mut self, before: &Segment) -> bool {
        let took = self.segment.created.0.saturating_sub(before.created.0);
        self.fresh = self.populates && took <= EAGER;
        self.fresh
    }

    /// Takes over what [`Ahead::allocate`] allocated, if it was for this writer.
    pub(crate) fn extend(&mut self, ahead: &Ahead) {
        if Arc::ptr_eq(&self.view.map, &ahead.map) && ahead.to > self.allocated {
            self.grown(ahead.to);
        }
    }

    fn grown(&mut self, allocated: u32) {
        self.allocated = allocated;
        self.easy = easy(self.pos, allocated, self.capacity);
        if let Sink::Mapped(writer) = &mut self.sink {
            writer.grow(allocated as usize);
        }
    }

    /// Sees that `bytes` can be stored at the end without running out of space.
    pub(crate) fn reserve(&mut self, bytes: usize) -> Result<()> {
        if self.pos.index() + bytes <= self.allocated as usize {
            return Ok(());
        }
        self.grow(bytes)
    }

    fn grow(&mut self, bytes: usize) -> Result<()> {
        let needed = u32::try_from(self.pos.index() + bytes).unwrap_or(self.capacity);
        let step = self.allocated.min(LARGEST_STEP);
        let [least, target] =
            [needed, needed.saturating_add(step)].map(|end| end.next_multiple_of(4096).min(self.capacity));
        let mapped = matches!(self.sink, Sink::Mapped(_));
        let take = |target| allocate(self.file.as_ref(), mapped, self.allocated, target).map(|_| target);
        let taken = match take(target) {
            // Before the disk is full, the last of it is given out page by page.
            Err(error) if error.kind() == io::ErrorKind::StorageFull && least < target => take(least),
            taken => taken,
        };
        self.grown(taken.at(&self.segment.path)?);
        Ok(())
    }

    /// Appends one frame of `len` bytes, for which space has been reserved, at offset `base`. `fill` writes the records.
    ///
    /// The bytes are in the page cache when this returns, so that they survive the process. The length is stored last:
    /// a process that dies in between leaves zeros there, which recovery takes as the end.
    #[inline]
    pub(crate) fn put(&mut self, len: usize, base: u64, placed: &Placed, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        let pos = self.pos;
        let end = pos.index() + len;
        let padded = end.next_multiple_of(8);
        let stamp = FrameStamp {
            offset_delta: u32::try_from(base - self.segment.base).unwrap_or(u32::MAX),
            durable: self.segment.durable().0,
            timestamp: placed.timestamp,
            count: placed.count,
            span: placed.span,
            producer: placed.producer,
        };
        let seed = self.segment.seed;
        match &mut self.sink {
            Sink::Mapped(writer) => {
                // Space was reserved and `pos` is the filled end, so the slot is there.
                let Some(slot) = writer.slot(pos.index(), len) else { return Err(crate::Error::Closed) };
                fill(slot);
                let length = seal_frame(slot, seed, pos, &stamp);
                writer.store_length(pos.index(), length);
                writer.publish(padded);
            }
            Sink::Pwrite { map, frame } => {
                frame.clear();
                frame.resize(padded - pos.index(), 0);
                let slot = frame.get_mut(..len).unwrap_or_default();
                fill(slot);
                let length = seal_frame(slot, seed, pos, &stamp);
                if let Some(field) = slot.first_chunk_mut::<4>() {
                    *field = length.to_le_bytes();
                }
                self.file.write_at(frame, u64::from(pos.0)).at(&self.segment.path)?;
                map.fill(padded);
            }
        }
        if pos >= self.index_due {
            self.index_due = self.view.index.push(IndexEntry { offset: base, pos, newest_before: self.newest });
        }
        self.pos = Pos(u32::try_from(padded).unwrap_or(u32::MAX));
        self.next = base + u64::from(placed.span);
        self.records += u64::from(placed.count);
        self.newest = self.newest.max(placed.timestamp);
        self.segment.set_extent(&self.extent());
        Ok(())
    }

    /// Ends the segment: nothing is appended to it any more.
    pub(crate) fn finish(self) -> Rolled {
        self.segment.set_last(self.pos);
        Rolled { segment: self.segment, file: self.file, view: self.view, last: self.pos }
    }
}

/// Space behind what a writer has, on its way to being ready.
#[derive(Debug)]
pub(crate) struct Ahead {
    file: Arc<dyn File>,
    map: Arc<Map>,
    from: u32,
    to: u32,
    populates: bool,
}

impl Ahead {
    /// Allocates it. Must not run beside something that cuts the file.
    pub(crate) fn allocate(&self) -> io::Result<()> {
        self.file.allocate(u64::from(self.from), u64::from(self.to))
    }

    /// Makes its pages ready, where that pays. It may be cut meanwhile.
    pub(crate) fn populate(&self) {
        let mut from = self.from;
        while self.populates && from < self.to {
            let to = from.saturating_add(PIECE).min(self.to);
            self.map.populate(from as usize..to as usize);
            from = to;
        }
    }
}

/// How far an appender at `pos` gets before it asks for more: to the middle of its last step.
fn easy(pos: Pos, allocated: u32, capacity: u32) -> u32 {
    let left = allocated.saturating_sub(pos.0);
    if allocated < LEAST_AHEAD || allocated == capacity { allocated } else { pos.0 + left / 2 }
}

/// Allocates up to `target`, and says whether blocks are really there, so that stores into a mapping are safe.
fn allocate(file: &dyn File, mapped: bool, from: u32, target: u32) -> io::Result<bool> {
    match file.allocate(u64::from(from), u64::from(target)) {
        Ok(()) => Ok(mapped),
        // Where nothing can be allocated, `pwrite` makes the file longer as it goes, and says so when the disk is full.
        Err(error) if error.kind() == io::ErrorKind::Unsupported && (from == 0 || !mapped) => Ok(false),
        Err(error) => Err(error),
    }
}
