//! How far a group has come in one partition.
//!
//! ```text
//!        floor                                                frontier
//!          v                                                      v
//!  settled | in flight | settled | dropped | held back | in flight |  never delivered
//! ```
//!
//! Everything below the floor is settled without a gap: the floor is what a placemark may say. Everything below the
//! frontier has been delivered once, or was held back, since a record of the same key was in flight before it; what was
//! dropped waits there to be delivered again. A batch's range begins where
//! its reading began, not at its first record, and so covers the gaps that compaction leaves; ranges therefore always
//! meet, and the floor moves over a gap only together with the batch that stepped over it.

use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::time::Duration;

use super::keyed::{Hashed, Picked, Sight};
use super::ranges::Ranges;
use crate::broken::broken;
use crate::{Error, Result};

/// A batch in flight, by a number that its partition's [`Progress`] never gives again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchId(u64);

/// What is to be delivered next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Where to begin reading.
    pub(crate) from: u64,
    /// Where to stop, when it is a dropped range: what follows has been delivered already.
    pub(crate) until: Option<u64>,
}

/// What becomes of batches in flight when a seek overtakes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overtaken {
    /// They may still be settled, which counts above the new position only: their records were processed.
    Counts,
    /// They may not: their records will be delivered again, and their results must not appear twice.
    Fenced,
}

#[derive(Debug)]
struct InFlight {
    pieces: Pieces,
    /// Hashes of its keys, if records of one key are to go one after the other.
    keys: Vec<u64>,
    deadline: Option<Duration>,
    /// A seek came after it was delivered, and left it to the new frontier what is delivered again.
    overtaken: bool,
    /// A transaction is deciding on it: it can neither be taken back nor fenced any more.
    committing: bool,
}

/// The offsets of a batch, lowest first. Only where others are held back are there more than one range.
#[derive(Debug)]
struct Pieces {
    first: Range<u64>,
    others: Vec<Range<u64>>,
}

impl Pieces {
    fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// Progress of one group in one partition.
#[derive(Debug)]
pub(crate) struct Progress {
    floor: u64,
    frontier: u64,
    /// Settled above the floor.
    settled: Ranges,
    /// To be delivered again.
    dropped: Ranges,
    /// To be delivered once their keys are free.
    held: Ranges,
    /// By numbers that need no hash. Its memory is used again, so that a batch takes none.
    in_flight: HashMap<BatchId, InFlight, BuildHasherDefault<Hashed>>,
    /// The batches in flight that have a deadline and can be taken back.
    deadlines: BTreeSet<(Duration, BatchId)>,
    next_batch: u64,
}

impl Progress {
    /// Begins at a placemark: everything below it is settled, nothing at or above it was delivered.
    pub(crate) fn new(at: u64) -> Self {
        Self {
            floor: at,
            frontier: at,
            settled: Ranges::default(),
            dropped: Ranges::default(),
            held: Ranges::default(),
            in_flight: HashMap::default(),
            deadlines: BTreeSet::new(),
            next_batch: 0,
        }
    }

    /// The next offset to commit: everything below it is settled.
    #[cfg(test)]
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// The next offset to be delivered.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.next_fetch().from
    }

    /// What to deliver next: the lowest range that was dropped or held back, then what was never delivered. So nothing
    /// is below it that is not settled, if nothing is in flight.
    #[inline]
    pub(crate) fn next_fetch(&self) -> Wanted {
        let (dropped, held) = (self.dropped.first(), self.held.first());
        let lowest = match (dropped, held) {
            (Some(dropped), Some(held)) => Some(if held.start < dropped.start { held } else { dropped }),
            (dropped, held) => dropped.or(held),
        };
        lowest.map_or(Wanted { from: self.frontier, until: None }, |range| Wanted {
            from: range.start,
            until: Some(range.end),
        })
    }

    /// All that is to be delivered: what was dropped or held back, then what was never delivered.
    pub(crate) fn undelivered(&self) -> impl Iterator<Item = Range<u64>> {
        self.dropped.iter().chain(self.held.iter()).chain(std::iter::once(self.frontier..u64::MAX))
    }

    /// What there is to choose from, where records of one key go one after the other.
    pub(crate) fn sight(&self) -> Sight {
        let mut undelivered: Vec<Range<u64>> = self.undelivered().collect();
        undelivered.sort_unstable_by_key(|range| range.start);
        let busy = self.in_flight.values().flat_map(|batch| &batch.keys).copied().collect();
        Sight { undelivered, busy }
    }

    /// Whether something waits to be delivered again.
    #[inline]
    pub(crate) fn has_dropped(&self) -> bool {
        !self.dropped.is_empty()
    }

    /// Whether nothing is in flight.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// How many batches are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A batch was handed out. Its range begins where [`next_fetch`](Self::next_fetch) said, and ends behind its last
    /// record, at the latest where a dropped range ends.
    #[inline]
    pub(crate) fn delivered(&mut self, range: Range<u64>, deadline: Option<Duration>) -> BatchId {
        self.step_over(&range);
        self.sent(Pieces { first: range, others: Vec::new() }, Vec::new(), deadline)
    }

    /// What was chosen of [what there is](Self::sight) was handed out, if it was anything: the batch is in flight, what has
    /// no records any more is settled, and what else was looked at is held back.
    pub(crate) fn delivered_keyed(&mut self, picked: Picked, deadline: Option<Duration>) -> Option<BatchId> {
        let Picked { pieces, keys, gaps, reached, .. } = picked;
        if reached > self.frontier {
            self.held.insert(self.frontier..reached);
            self.frontier = reached;
        }
        for range in pieces.iter().chain(&gaps) {
            self.step_over(range);
        }
        for gap in gaps {
            self.count(gap);
        }
        let mut pieces = pieces.into_iter();
        let first = pieces.next()?;
        Some(self.sent(Pieces { first, others: pieces.collect() }, keys, deadline))
    }

    #[inline]
    fn sent(&mut self, pieces: Pieces, keys: Vec<u64>, deadline: Option<Duration>) -> BatchId {
        let id = BatchId(self.next_batch);
        self.next_batch += 1;
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
        }
        self.in_flight.insert(id, InFlight { pieces, keys, deadline, overtaken: false, committing: false });
        id
    }

    /// A range that was read is settled without being in flight: an at-most-once batch, or a range that holds no
    /// records any more. Answers the new floor if it moved.
    pub(crate) fn pass(&mut self, range: Range<u64>) -> Option<u64> {
        self.step_over(&range);
        self.count(range)
    }

    /// The floor that settling a batch would lead to, if that moves it. Changes nothing, so that a placemark can be
    /// written before anything depends on it.
    #[inline]
    pub(crate) fn settles_to(&self, id: BatchId) -> Result<Option<u64>> {
        let batch = self.in_flight.get(&id).ok_or_else(|| Error::Fenced)?;
        if !batch.counts() {
            return Ok(None);
        }
        let mut at = self.floor;
        for piece in batch.pieces.iter().filter(|piece| piece.end > self.floor) {
            if piece.start > at && !broken("gap passed") {
                break;
            }
            at = self.settled.reach(piece.end);
        }
        Ok((at > self.floor).then_some(at))
    }

    /// From here on the batch is neither taken back by a deadline nor fenced by a seek, until it is settled or
    /// dropped: a transaction is about to decide on it.
    pub(crate) fn commit_begins(&mut self, id: BatchId) -> Result<()> {
        let batch = self.in_flight.get_mut(&id).ok_or_else(|| Error::Fenced)?;
        batch.committing = true;
        if let Some(deadline) = batch.deadline.take() {
            self.deadlines.remove(&(deadline, id));
        }
        Ok(())
    }

    /// A batch has been processed. Answers the new floor if it moved; `Fenced` when the batch is not in flight.
    #[inline]
    pub(crate) fn settle(&mut self, id: BatchId) -> Result<Option<u64>> {
        let batch = self.take(id).ok_or_else(|| Error::Fenced)?;
        let before = self.floor;
        if batch.counts() {
            for piece in batch.pieces.iter() {
                self.count(piece.clone());
            }
        }
        Ok((self.floor > before).then_some(self.floor))
    }

    /// A batch was given back unprocessed: it is delivered again. Answers whether it was in flight; if not, nothing
    /// happens.
    pub(crate) fn drop_batch(&mut self, id: BatchId) -> bool {
        let Some(batch) = self.take(id) else { return false };
        if !batch.overtaken {
            batch.pieces.iter().for_each(|piece| self.dropped.insert(piece.clone()));
        }
        true
    }

    /// A batch was given back unprocessed from this offset on. Answers whether anything of it is still in flight.
    pub(crate) fn give_back(&mut self, id: BatchId, from: u64) -> Result<bool> {
        let batch = self.in_flight.get_mut(&id).ok_or_else(|| Error::Fenced)?;
        let (mut kept, mut back) = (Vec::new(), Vec::new());
        for piece in batch.pieces.iter() {
            if piece.start < from {
                kept.push(piece.start..piece.end.min(from));
            }
            if piece.end > from {
                back.push(piece.start.max(from)..piece.end);
            }
        }
        let overtaken = batch.overtaken;
        let mut kept = kept.into_iter();
        let left = kept.next().map(|first| batch.pieces = Pieces { first, others: kept.collect() }).is_some();
        if !left {
            self.take(id);
        }
        if !overtaken {
            for piece in back {
                self.dropped.insert(piece);
            }
        }
        Ok(left)
    }

    /// Takes back the batches whose deadline has come. Answers whether there were any.
    pub(crate) fn expire(&mut self, now: Duration) -> bool {
        let mut any = false;
        while let Some((_, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now).copied() {
            any |= self.drop_batch(id);
        }
        any
    }

    /// When the next batch is to be taken back.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Goes on at another position, as if everything below it were settled and nothing above it had been delivered.
    pub(crate) fn seek(&mut self, to: u64, overtaken: Overtaken) {
        self.floor = to;
        self.frontier = to;
        self.settled.clear();
        self.dropped.clear();
        self.held.clear();
        if overtaken == Overtaken::Fenced {
            self.in_flight.retain(|_, batch| batch.committing);
            self.deadlines.clear();
        }
        for batch in self.in_flight.values_mut() {
            batch.overtaken = true;
        }
    }

    #[inline]
    fn step_over(&mut self, range: &Range<u64>) {
        debug_assert!(range.start < range.end, "a range that was read is not empty");
        debug_assert!(range.start <= self.frontier, "reading began at a position that was wanted");
        self.dropped.remove(range);
        self.held.remove(range);
        self.frontier = self.frontier.max(range.end);
    }

    /// Counts a range as settled, as far as it lies above the floor.
    #[inline]
    fn count(&mut self, range: Range<u64>) -> Option<u64> {
        if range.end <= self.floor {
            return None;
        }
        if range.start > self.floor {
            self.settled.insert(range);
            return None;
        }
        self.floor = self.settled.absorb(range.end);
        Some(self.floor)
    }

    #[inline]
    fn take(&mut self, id: BatchId) -> Option<InFlight> {
        let batch = self.in_flight.remove(&id)?;
        if let Some(deadline) = batch.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        Some(batch)
    }
}

impl InFlight {
    /// Whether settling it counts. What a transaction decided before a seek stands on disk, but the position is where
    /// the seek put it.
    fn counts(&self) -> bool {
        !(self.overtaken && self.committing)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
