//! The path of a read: position to segment, index, frame, record.

use std::ops::Range;
use std::sync::Arc;

use crate::format::{decode_record, decode_value};
use crate::partition::{PartitionCore, Segments};
use crate::segment::{Entry, FIRST_FRAME, Frame, Segment, View, find_frame, frame_at};
use crate::storage::Shares;
use crate::sync::atomic::Ordering;
use crate::types::{Millis, Pos};
use crate::{Error, RecoveryMode, Result};

/// Reads one partition forward. Takes no lock of the appender's.
#[derive(Debug)]
pub(crate) struct Cursor {
    partition: Arc<PartitionCore>,
    place: Option<Place>,
    /// The offset wanted next.
    next: u64,
    skipped: u64,
}

/// A place in a segment.
#[derive(Debug)]
struct Place {
    segment: Arc<Segment>,
    view: Arc<View>,
    /// Of the view's mapping, for the entries.
    shares: Shares,
    /// The frame that is read next, or the one that `record` is in.
    pos: Pos,
    /// How far frames were readable when last looked at.
    limit: Pos,
    /// The partition's end when last looked at. It follows the segment's by a moment, and what lies between the two is
    /// not read: nobody is to see a record at or behind the end.
    end: u64,
    frame: Option<Open>,
    /// Whether a record of the frame at `pos` did not decode, though the checksum held.
    malformed: bool,
}

/// A frame whose checksum held, and what of it is still to be read.
#[derive(Debug, Clone, Copy)]
struct Open {
    end: Pos,
    base: u64,
    timestamp: Millis,
    /// Where the next record begins, from the frame's start.
    record: usize,
    left: u32,
}

/// What stands between a place and the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) records: u64,
    /// Bytes of their frames.
    pub(crate) bytes: u64,
    /// Time of the first, if that can be read.
    pub(crate) oldest: Option<Millis>,
}

impl PartitionCore {
    /// Reads from `offset` on, which must be in `start..=end`.
    pub(crate) fn cursor(self: &Arc<Self>, offset: u64) -> Result<Cursor> {
        self.check_offset(offset)?;
        Ok(Cursor::new(self, offset))
    }

    pub(crate) fn check_offset(&self, offset: u64) -> Result<()> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        let (start, end) = (self.start(), self.end());
        if offset < start || offset > end {
            return Err(Error::OffsetOutOfRange { requested: offset, start, end });
        }
        Ok(())
    }

    /// The offset of the first readable record at or after `time`, or the end.
    pub(crate) fn offset_at_time(self: &Arc<Self>, time: Millis) -> Result<u64> {
        let end = self.end();
        for segment in self.segments().iter().filter(|segment| segment.newest() >= time) {
            match self.offset_in(segment, time) {
                Ok(None) => {}
                Ok(Some(offset)) => return Ok(offset),
                Err(error) => self.unless_gone(segment, error)?,
            }
        }
        Ok(end)
    }

    /// The same in one segment.
    fn offset_in(self: &Arc<Self>, segment: &Arc<Segment>, time: Millis) -> Result<Option<u64>> {
        let view = self.view(segment)?;
        let floor = view.index.floor_time(time);
        let place = Some(Place::at(segment, view, floor));
        let mut cursor = Cursor { place, ..Cursor::new(self, segment.base) };
        let after = segment.end();
        while let Some(entry) = cursor.next()? {
            if entry.millis() >= time {
                return Ok(Some(entry.offset()));
            }
            if segment.last().is_some() && entry.offset() + 1 >= after {
                break;
            }
        }
        Ok(None)
    }

    /// What there is to be read in a range of offsets, as far as it is readable.
    pub(crate) fn backlog(self: &Arc<Self>, range: Range<u64>) -> Result<Backlog> {
        let range = range.start.max(self.start())..range.end.min(self.end());
        let mut backlog = Backlog::default();
        if range.is_empty() {
            return Ok(backlog);
        }
        // Where it is damaged, how much is behind is worth knowing all the more.
        let first = Cursor::new(self, range.start).next().ok().flatten();
        backlog.oldest = first.filter(|entry| entry.offset() < range.end).map(|entry| entry.millis());
        for segment in self.segments().iter().filter(|segment| segment.base < range.end) {
            if segment.end() <= range.start && segment.last().is_some() {
                continue;
            }
            let inside = segment.base >= range.start && segment.end() <= range.end;
            if let Some(last) = segment.last().filter(|last| inside && segment.readable() == *last) {
                backlog.records += segment.records();
                backlog.bytes += u64::from(last.0.saturating_sub(FIRST_FRAME.0));
            } else {
                let counted = self.count_part(segment, &range, &mut backlog);
                counted.or_else(|error| self.unless_gone(segment, error))?;
            }
        }
        Ok(backlog)
    }

    /// Counts frame by frame what of a segment is in the range.
    fn count_part(&self, segment: &Arc<Segment>, range: &Range<u64>, backlog: &mut Backlog) -> Result<()> {
        let view = self.view(segment)?;
        let limit = segment.readable();
        let bytes = view.bytes(limit);
        let mut pos = view.index.floor(range.start);
        while pos < limit {
            let Some(frame) = next_frame(bytes, segment, pos) else { break };
            pos = frame.next();
            let (base, end) = (frame.base(segment.base), frame.end(segment.base));
            if base >= range.end {
                break;
            }
            let size = u64::from(frame.next().0 - frame.pos.0);
            if base >= range.start && end <= range.end {
                backlog.records += u64::from(frame.header.count);
                backlog.bytes += size;
            } else if end > range.start {
                let records = records_in(&frame, base, range);
                backlog.records += u64::from(records);
                backlog.bytes += size * u64::from(records) / u64::from(frame.header.count.max(1));
            }
        }
        Ok(())
    }

    /// Forgives an error about a segment that was given up, or rewritten, while it was being looked at.
    fn unless_gone(&self, segment: &Arc<Segment>, error: Error) -> Result<()> {
        if self.lists(segment) { Err(error) } else { Ok(()) }
    }

    /// Whether a segment is still one of the partition's.
    fn lists(&self, segment: &Arc<Segment>) -> bool {
        self.segments().iter().any(|listed| Arc::ptr_eq(listed, segment))
    }

    fn view(&self, segment: &Arc<Segment>) -> Result<Arc<View>> {
        segment.view(self.env.storage.as_ref(), self.env.recovery_mode, |recent| self.env.remember(recent))
    }
}

/// How many records of a frame are in the range.
fn records_in(frame: &Frame<'_>, base: u64, range: &Range<u64>) -> u32 {
    let mut at = frame.header.records_at();
    let mut inside = 0;
    for _ in 0..frame.header.count {
        let Some(record) = decode_record(frame.bytes, at) else { break };
        inside += u32::from(range.contains(&(base + u64::from(record.delta))));
        at = record.next as usize;
    }
    inside
}

/// The frame at `pos` by its header, or the next intact one when that is damaged.
fn next_frame<'a>(bytes: &'a [u8], segment: &Segment, pos: Pos) -> Option<Frame<'a>> {
    frame_at(bytes, pos)
        .filter(|frame| frame.header.plausible(segment.seed, pos))
        .or_else(|| find_frame(bytes, segment.seed, pos))
}

impl Place {
    fn at(segment: &Arc<Segment>, view: Arc<View>, pos: Pos) -> Self {
        Self {
            segment: Arc::clone(segment),
            shares: Shares::of(&view.map),
            view,
            pos,
            limit: Pos(0),
            end: 0,
            frame: None,
            malformed: false,
        }
    }

    fn look_through(&mut self, view: Arc<View>) {
        self.shares = Shares::of(&view.map);
        self.view = view;
    }
}

impl Cursor {
    fn new(partition: &Arc<PartitionCore>, next: u64) -> Self {
        Self { partition: Arc::clone(partition), place: None, next, skipped: 0 }
    }

    /// The offset that is wanted next.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// Records that were removed before they could be read.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next readable record; `None` at the end, where it may be asked again later.
    ///
    /// An error does not move it: asked again it meets the same damage. In salvage it steps over what is damaged.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some(entry) = self.record() {
                return Ok(Some(entry));
            }
            if !self.open_frame()? {
                return Ok(None);
            }
        }
    }

    /// The next record of the frame that is open, if it is a value and nothing else. Otherwise the frame stays as it is, or
    /// is closed behind its last record.
    #[inline]
    pub(crate) fn value(&mut self) -> Option<Entry> {
        let place = self.place.as_mut()?;
        let open = place.frame.as_mut()?;
        while open.left > 0 {
            let bytes = place.view.map.bytes(place.pos.index()..open.end.index()).unwrap_or_default();
            let raw = decode_value(bytes, open.record)?;
            open.record = raw.end as usize;
            open.left -= 1;
            let offset = open.base + u64::from(raw.delta);
            if offset >= self.next {
                self.next = offset + 1;
                let ident = &self.partition.ident;
                return Some(Entry::of_value(place.shares.take(), place.pos.0, ident, offset, open.timestamp, raw));
            }
        }
        place.pos = open.end.aligned();
        place.frame = None;
        None
    }

    /// Whether a frame is open, with records still to be read.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.frame.is_some())
    }

    /// The next record of the frame that is open.
    pub(crate) fn record(&mut self) -> Option<Entry> {
        let place = self.place.as_mut()?;
        let open = place.frame.as_mut()?;
        while open.left > 0 {
            let bytes = place.view.map.bytes(place.pos.index()..open.end.index()).unwrap_or_default();
            let Some(raw) = decode_record(bytes, open.record) else {
                // Nothing that this version writes. It is met as damage, not passed over.
                place.malformed = true;
                place.frame = None;
                return None;
            };
            open.record = raw.next as usize;
            open.left -= 1;
            let offset = open.base + u64::from(raw.delta);
            if offset >= self.next {
                self.next = offset + 1;
                let map = place.shares.take();
                let ident = &self.partition.ident;
                return Some(Entry::new(map, place.pos.0, ident, offset, open.timestamp, &raw));
            }
        }
        place.pos = open.end.aligned();
        place.frame = None;
        None
    }

    /// Opens the next frame; false at the end of what is readable.
    ///
    /// Asked again it answers the same, until its records are read or more are appended.
    pub(crate) fn open_frame(&mut self) -> Result<bool> {
        if self.partition.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        loop {
            if self.place.is_none() && !self.locate()? {
                return Ok(false);
            }
            let Some(place) = &mut self.place else { return Ok(false) };
            if place.pos >= place.limit {
                // `last` first: once it is set, `readable` may still grow up to it, and no further.
                let last = place.segment.last();
                place.limit = place.segment.readable();
                if place.pos >= place.limit {
                    if last.is_none_or(|last| place.pos < last) {
                        return Ok(false);
                    }
                    if !self.next_segment()? {
                        return Ok(false);
                    }
                    continue;
                }
            }
            if place.view.map.filled() <= place.pos.index() {
                // The mapping was made before this was written, or the file has been cut.
                match self.partition.view(&place.segment) {
                    Ok(view) => place.look_through(view),
                    // Given up meanwhile, with what lies behind the mapping.
                    Err(_) if !self.partition.lists(&place.segment) => {
                        self.place = None;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            let bytes = place.view.bytes(place.limit);
            let intact = |frame: &Frame<'_>| !place.malformed && frame.is_intact(place.segment.seed);
            if let Some(frame) = frame_at(bytes, place.pos).filter(intact) {
                let base = frame.base(place.segment.base);
                if base >= place.end {
                    place.end = self.partition.end();
                    if base >= place.end {
                        return Ok(false);
                    }
                }
                place.frame = Some(Open {
                    end: Pos(place.pos.0 + frame.header.length),
                    base,
                    timestamp: frame.header.timestamp,
                    record: frame.header.records_at(),
                    left: frame.header.count,
                });
                return Ok(true);
            }
            self.meet_damage()?;
        }
    }

    /// A frame below the readable end does not hold: an error, or in salvage a step over it.
    fn meet_damage(&mut self) -> Result<()> {
        let Some(place) = &mut self.place else { return Ok(()) };
        let path = &place.segment.path;
        if self.partition.env.recovery_mode == RecoveryMode::Strict {
            let reason = if place.malformed {
                "a record of the frame does not decode"
            } else {
                "the frame's checksum does not match"
            };
            return Err(Error::corrupt(path, u64::from(place.pos.0), reason));
        }
        let bytes = place.view.bytes(place.limit);
        let behind = Pos(place.pos.0.saturating_add(8));
        let (to, offset) = match find_frame(bytes, place.segment.seed, behind) {
            Some(frame) => (frame.pos, frame.base(place.segment.base)),
            None => (place.limit, place.segment.end()),
        };
        let damaged = u64::from(to.0 - place.pos.0);
        self.partition.env.report.damaged(path, u64::from(place.pos.0), damaged, self.next..offset.max(self.next));
        place.pos = to;
        place.malformed = false;
        self.next = self.next.max(offset);
        Ok(())
    }

    /// Goes on with the segment that follows; false when there is none yet.
    fn next_segment(&mut self) -> Result<bool> {
        let Some(place) = &self.place else { return Ok(false) };
        let end = place.segment.end();
        let list = self.partition.segments();
        let at = list.partition_point(|segment| segment.base < end);
        let Some(segment) = list.get(at) else { return Ok(false) };
        if self.next < segment.base {
            // Retention may have been faster; a gap that compaction or recovery left is no loss.
            let gone = list.first().is_some_and(|first| first.base > end);
            if gone {
                self.skipped += segment.base - self.next.max(end);
            }
            self.next = segment.base;
        }
        let segment = Arc::clone(segment);
        self.enter(&segment, |_| FIRST_FRAME)?;
        Ok(true)
    }

    fn enter(&mut self, segment: &Arc<Segment>, pos: impl FnOnce(&View) -> Pos) -> Result<()> {
        match self.partition.view(segment) {
            Ok(view) => {
                let pos = pos(&view);
                self.place = Some(Place::at(segment, view, pos));
                Ok(())
            }
            // It was given up or rewritten since the list was looked at: the list of now says where to go on.
            Err(_) if !self.partition.lists(segment) => {
                self.place = None;
                Ok(())
            }
            Err(Error::Corrupt { path, .. }) if self.partition.env.recovery_mode == RecoveryMode::Salvage => {
                let end = segment.end();
                self.partition.env.report.damaged(&path, 0, u64::from(segment.readable().0), self.next..end);
                self.next = self.next.max(end);
                self.place = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Finds the place of the offset that is wanted; false when it is not readable yet.
    fn locate(&mut self) -> Result<bool> {
        loop {
            let list: Segments = self.partition.segments();
            let start = list.first().map_or(0, |segment| segment.base);
            if self.next < start {
                self.skipped += start - self.next;
                self.next = start;
            }
            // The segment that has the offset, or, for one in a gap at a segment's tail, the one behind it.
            let at = list.partition_point(|segment| segment.base <= self.next).saturating_sub(1);
            let Some(segment) = list.get(at) else { return Ok(false) };
            if segment.last().is_some() && segment.end() <= self.next {
                let Some(following) = list.get(at + 1) else { return Ok(false) };
                let following = Arc::clone(following);
                self.enter(&following, |_| FIRST_FRAME)?;
            } else {
                let (segment, wanted) = (Arc::clone(segment), self.next);
                self.enter(&segment, |view| view.index.floor(wanted))?;
                self.walk_to(wanted);
            }
            if self.place.is_some() {
                return Ok(true);
            }
            if self.next >= self.partition.end() {
                return Ok(false);
            }
        }
    }

    /// From the place that the index gave to the frame that holds `wanted` or is the first behind it, by the headers.
    ///
    /// An offset that no header claims is in a gap, or the header of the frame before it is wrong in a way that its own
    /// check missed: that frame's checksum tells, and the read is to meet the damage.
    fn walk_to(&mut self, wanted: u64) {
        let Some(place) = &mut self.place else { return };
        let (seed, base) = (place.segment.seed, place.segment.base);
        let limit = place.segment.readable();
        let bytes = place.view.bytes(limit);
        let mut before: Option<Frame<'_>> = None;
        let mut unclaimed = wanted < place.segment.end();
        while place.pos < limit {
            let found = next_frame(bytes, &place.segment, place.pos);
            let is_floor = found.is_some_and(|frame| frame.pos == place.pos && frame.base(base) <= wanted);
            if before.is_none() && !is_floor && place.pos > FIRST_FRAME {
                // Not what the index says, or damaged: the walk is to be right without it.
                place.pos = FIRST_FRAME;
                continue;
            }
            let Some(frame) = found else { return };
            // A damaged frame may have held the offset: the read is to meet it, unless the one behind begins below.
            if frame.pos > place.pos && frame.base(base) > wanted {
                return;
            }
            if frame.end(base) > wanted {
                unclaimed = frame.base(base) > wanted;
                place.pos = frame.pos;
                break;
            }
            before = Some(frame);
            place.pos = frame.next();
        }
        if let Some(before) = before.filter(|before| unclaimed && !before.is_intact(seed)) {
            place.pos = before.pos;
        }
    }
}
