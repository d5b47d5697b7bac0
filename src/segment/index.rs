//! The sparse index of a segment: from an offset or a time to a frame near it.
//!
//! It thins itself out: it holds at most [`MOST`] entries, and when they are full every other one is dropped and the
//! distance between entries doubled. So its size does not depend on the segment's, and a small segment is indexed as
//! finely as a large one is coarsely.

use std::sync::PoisonError;

use crate::format::{self, IndexEntry};
use crate::segment::{FIRST_FRAME, Segment, find_frame, frame_at, index_path};
use crate::storage::{Mode, Storage};
use crate::sync::RwLock;
use crate::types::{Millis, Pos};

/// Most entries an index holds: 24 B each, so that a partition stays under 64 KiB of heap.
const MOST: usize = 1536;

/// Bytes between entries as long as the index is small.
const STRIDE: u32 = 4096;

/// Entries in the order of the file. Each stands for the frame that begins at its position.
#[derive(Debug)]
pub(crate) struct Index {
    /// Protects the entries: written once in many appends, read by lookups.
    entries: RwLock<Entries>,
}

#[derive(Debug)]
struct Entries {
    list: Vec<IndexEntry>,
    stride: u32,
}

impl Index {
    /// An empty index with room for all it will ever hold, so that appends never allocate.
    pub(crate) fn new() -> Self {
        Self { entries: RwLock::new(Entries { list: Vec::with_capacity(MOST), stride: STRIDE }) }
    }

    fn of(list: Vec<IndexEntry>) -> Self {
        let index = Self::new();
        let mut due = Pos(0);
        for entry in list {
            if entry.pos >= due {
                due = index.push(entry);
            }
        }
        index
    }

    /// Adds the frame at `entry`, and says from which position on the next one is wanted.
    pub(crate) fn push(&self, entry: IndexEntry) -> Pos {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.list.len() >= MOST {
            let mut keep = false;
            entries.list.retain(|_| {
                keep = !keep;
                keep
            });
            entries.stride = entries.stride.saturating_mul(2);
        }
        entries.list.push(entry);
        Pos(entry.pos.0.saturating_add(entries.stride))
    }

    /// Where to begin walking to find `offset`: the last entry at or below it, or the first frame.
    pub(crate) fn floor(&self, offset: u64) -> Pos {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let at = entries.list.partition_point(|entry| entry.offset <= offset);
        at.checked_sub(1).and_then(|at| entries.list.get(at)).map_or(FIRST_FRAME, |entry| entry.pos)
    }

    /// Where to begin walking to find the first record at or after `time`: everything before it is older.
    pub(crate) fn floor_time(&self, time: Millis) -> Pos {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let at = entries.list.partition_point(|entry| entry.newest_before < time);
        at.checked_sub(1).and_then(|at| entries.list.get(at)).map_or(FIRST_FRAME, |entry| entry.pos)
    }

    /// The file's bytes, for a segment whose frames end at `covered`.
    pub(crate) fn encode(&self, segment: &Segment, covered: Pos) -> Vec<u8> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        format::encode_index(&segment.ident, segment.base, covered.0, &entries.list)
    }

    /// The index beside `segment`, if it is there, intact, of this segment, and covers it exactly.
    pub(crate) fn load(storage: &dyn Storage, segment: &Segment, covered: Pos) -> Option<Self> {
        let file = storage.open(&index_path(&segment.path), Mode::Read).ok()?;
        let len = usize::try_from(file.len().ok()?).ok()?;
        if len > format::index_len(MOST) {
            return None;
        }
        let mut bytes = vec![0; len];
        if file.read_at(&mut bytes, 0).ok()? != len {
            return None;
        }
        let (stands_for, entries) = format::decode_index(&bytes, &segment.ident, segment.base)?;
        let sorted = entries.windows(2).all(|pair| match pair {
            [a, b] => a.pos < b.pos && a.offset < b.offset && a.newest_before <= b.newest_before,
            _ => true,
        });
        let within = entries.iter().all(|entry| entry.pos >= FIRST_FRAME && entry.pos < covered);
        (stands_for == covered.0 && sorted && within).then(|| Self::of(entries))
    }

    /// The index of the frames in `bytes`, by their headers; what is damaged is stepped over.
    pub(crate) fn rebuild(segment: &Segment, bytes: &[u8]) -> Self {
        let index = Self::new();
        let (mut pos, mut due, mut newest) = (FIRST_FRAME, Pos(0), Millis::default());
        while pos.index() < bytes.len() {
            let plain = frame_at(bytes, pos).filter(|frame| frame.header.plausible(segment.seed, pos));
            let Some(frame) = plain.or_else(|| find_frame(bytes, segment.seed, pos)) else { break };
            if frame.pos >= due {
                due =
                    index.push(IndexEntry { offset: frame.base(segment.base), pos: frame.pos, newest_before: newest });
            }
            newest = newest.max(frame.header.timestamp);
            pos = frame.next();
        }
        index
    }
}
