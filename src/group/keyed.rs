//! Which records a member may be given while others of the same keys are in flight.
//!
//! Records of one key go one after the other: while one is in flight, those behind it are held back, and records of other
//! keys go past them. The idea is that of Pulsar's key-shared subscriptions and of Confluent's parallel consumer.
//!
//! Nothing here reads: records are [offered](Picker::offer) in the order of their offsets, from the first that was not
//! delivered.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use crate::broken::broken;

/// Records that are looked at, from the first that is to be delivered: so far may others go past one that is held back,
/// and so much may come again after a crash for the sake of it.
pub(crate) const LOOK_AHEAD: usize = 4096;

/// What there is to choose from.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    /// The offsets that are to be delivered, lowest first; the last range has no end.
    pub(crate) undelivered: Vec<Range<u64>>,
    /// Hashes of the keys that are in flight.
    pub(crate) busy: HashSet<u64, BuildHasherDefault<Hashed>>,
}

/// Passes on what is a hash already.
#[derive(Debug, Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// What was chosen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Picked {
    /// Offsets of the batch, lowest first: its records, and what has no record before and between them.
    pub(crate) pieces: Vec<Range<u64>>,
    /// Hashes of their keys.
    pub(crate) keys: Vec<u64>,
    /// Offsets that were to be delivered, and have no records any more.
    pub(crate) gaps: Vec<Range<u64>>,
    /// Everything below has been looked at.
    pub(crate) reached: u64,
    /// Whether there may be more to choose from once there are more records.
    pub(crate) open: bool,
}

/// Chooses the records of a batch.
#[derive(Debug)]
pub(crate) struct Picker {
    sight: Sight,
    /// The range of what is undelivered that records are offered of now.
    region: usize,
    /// Where in it no record has been met yet.
    at: u64,
    /// Whether the last record that was met in it was taken; `None` before the first.
    took_last: Option<bool>,
    most: usize,
    taken: usize,
    seen: usize,
    picked: Picked,
}

impl Picker {
    /// Chooses at most so many records.
    pub(crate) fn new(sight: Sight, most: usize) -> Self {
        let at = sight.undelivered.first().map_or(u64::MAX, |range| range.start);
        Self { sight, region: 0, at, took_last: None, most, taken: 0, seen: 0, picked: Picked::default() }
    }

    /// Whether no more is chosen.
    pub(crate) fn is_done(&self) -> bool {
        self.taken >= self.most || self.seen >= LOOK_AHEAD
    }

    /// A record, behind all that were offered before, and its key's hash, if it has a key: one without waits for none.
    /// Answers whether it goes into the batch. It does not if its key is in flight, or it is itself, or it was settled.
    pub(crate) fn offer(&mut self, offset: u64, key: Option<u64>) -> bool {
        if self.is_done() {
            return false;
        }
        self.pass_regions(offset);
        if self.sight.undelivered.get(self.region).is_none_or(|region| offset < region.start) {
            return false;
        }
        self.seen += 1;
        let free = key.is_none_or(|key| !self.sight.busy.contains(&key) || broken("key order ignored"));
        if free {
            self.taken += 1;
            self.picked.keys.extend(key);
            self.take(offset + 1);
        }
        self.at = offset + 1;
        self.took_last = Some(free);
        free
    }

    /// Every record below `end` has been offered, unless it was [done](Self::is_done) before.
    pub(crate) fn finish(mut self, end: u64) -> Picked {
        self.picked.open = !self.is_done();
        if self.picked.open {
            self.pass_regions(end);
            if let Some(region) = self.sight.undelivered.get(self.region)
                && region.start < end
            {
                self.leave_region(end);
                self.at = self.at.max(end);
            }
        }
        self.picked.reached = self.at;
        self.picked.keys.sort_unstable();
        self.picked.keys.dedup();
        self.picked
    }

    /// Leaves the regions that lie below an offset.
    fn pass_regions(&mut self, offset: u64) {
        while let Some(end) = self.sight.undelivered.get(self.region).map(|region| region.end)
            && end <= offset
        {
            self.leave_region(end);
            self.region += 1;
            self.took_last = None;
            self.at = self.sight.undelivered.get(self.region).map_or(end, |next| next.start);
        }
    }

    /// No more records come of the region below `end`: what is left of it goes with the record before it, if there was one.
    fn leave_region(&mut self, end: u64) {
        match self.took_last {
            Some(true) => self.take(end),
            None if self.at < end => self.picked.gaps.push(self.at..end),
            _ => {}
        }
    }

    /// Takes all from where no record has been met up to `end`.
    fn take(&mut self, end: u64) {
        if self.at >= end {
            return;
        }
        match self.picked.pieces.last_mut() {
            Some(piece) if piece.end == self.at => piece.end = end,
            _ => self.picked.pieces.push(self.at..end),
        }
    }
}

#[cfg(test)]
mod tests;
