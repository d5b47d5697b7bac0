//! How far a group is in one partition.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::{Error, Result};

/// A batch that was handed out and is not settled.
pub(crate) type BatchId = u64;

/// What is settled, what is in flight, what is to be delivered again, and what comes next.
///
/// Below `floor` everything is settled: it is where the placemark goes. Ranges cover gaps: a batch's begins where its
/// fetch began, and ends behind its last record, so that settled ranges join.
#[derive(Debug)]
pub(crate) struct Progress {
    floor: u64,
    /// The next offset that has not been delivered since the last seek.
    fetch: u64,
    /// Settled ranges above the floor, none of which touch.
    settled: BTreeMap<u64, u64>,
    /// Ranges that were dropped, to be delivered again, lowest first.
    dropped: BTreeMap<u64, u64>,
    in_flight: BTreeMap<BatchId, InFlight>,
    next_id: BatchId,
    /// Counts the seeks: a batch from before one neither moves the floor nor comes back.
    seeks: u64,
}

#[derive(Debug)]
struct InFlight {
    range: Range<u64>,
    /// When it is taken back, if it is not settled by then.
    deadline: Option<Duration>,
    /// Being committed: it is not taken back.
    committing: bool,
    seeks: u64,
}

/// What to read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) from: u64,
    /// Where to stop; `None` for the end of the partition.
    pub(crate) until: Option<u64>,
}

impl Progress {
    pub(crate) fn new(floor: u64) -> Self {
        Self {
            floor,
            fetch: floor,
            settled: BTreeMap::new(),
            dropped: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            next_id: 0,
            seeks: 0,
        }
    }

    pub(crate) fn next_fetch(&self) -> Fetch {
        match self.dropped.first_key_value() {
            Some((from, until)) => Fetch { from: *from, until: Some(*until) },
            None => Fetch { from: self.fetch, until: None },
        }
    }

    /// Where reading is: the first offset that is delivered next.
    pub(crate) fn position(&self) -> u64 {
        self.next_fetch().from
    }

    /// Notes that `range` leaves for the application. It begins where the last [`next_fetch`](Self::next_fetch) did.
    fn take(&mut self, range: &Range<u64>) {
        if let Some(until) = self.dropped.remove(&range.start) {
            if range.end < until {
                self.dropped.insert(range.end, until);
            }
        } else {
            self.fetch = self.fetch.max(range.end);
        }
    }

    /// A batch is handed out, to be settled.
    pub(crate) fn deliver(&mut self, range: Range<u64>, deadline: Option<Duration>) -> BatchId {
        self.take(&range);
        let id = self.next_id;
        self.next_id += 1;
        self.in_flight.insert(id, InFlight { range, deadline, committing: false, seeks: self.seeks });
        id
    }

    /// A batch is handed out that counts as settled before it is seen. Returns the new floor.
    pub(crate) fn deliver_settled(&mut self, range: &Range<u64>) -> Option<u64> {
        self.take(range);
        self.mark_settled(range)
    }

    /// Settles a batch. Returns the floor, when that moved it; `Fenced` when the batch was taken back.
    pub(crate) fn settle(&mut self, id: BatchId) -> Result<Option<u64>> {
        let batch = self.in_flight.remove(&id).ok_or(Error::Fenced)?;
        if batch.seeks != self.seeks {
            return Ok(None);
        }
        Ok(self.mark_settled(&batch.range))
    }

    fn mark_settled(&mut self, range: &Range<u64>) -> Option<u64> {
        if range.end > self.floor {
            let end = self.settled.entry(range.start.max(self.floor)).or_default();
            *end = (*end).max(range.end);
        }
        let before = self.floor;
        while let Some((start, end)) = self.settled.first_key_value().map(|(start, end)| (*start, *end)) {
            if start > self.floor {
                break;
            }
            self.floor = self.floor.max(end);
            self.settled.pop_first();
        }
        (self.floor > before).then_some(self.floor)
    }

    /// Keeps a batch from being taken back while it is committed; `Fenced` when it has been. Returns its range.
    pub(crate) fn begin_commit(&mut self, id: BatchId) -> Result<Range<u64>> {
        let batch = self.in_flight.get_mut(&id).ok_or(Error::Fenced)?;
        batch.committing = true;
        Ok(batch.range.clone())
    }

    /// A batch was dropped unsettled: it is delivered again. Nothing happens when it was taken back before.
    pub(crate) fn drop_batch(&mut self, id: BatchId) {
        if let Some(batch) = self.in_flight.remove(&id)
            && batch.seeks == self.seeks
        {
            self.give_back(batch.range);
        }
    }

    fn give_back(&mut self, range: Range<u64>) {
        if range.start < range.end {
            self.dropped.insert(range.start, range.end);
        }
    }

    /// Takes back what was held too long; true when there was any.
    pub(crate) fn expire(&mut self, now: Duration) -> bool {
        let late = |batch: &InFlight| !batch.committing && batch.deadline.is_some_and(|deadline| deadline <= now);
        let ids: Vec<BatchId> = self.in_flight.iter().filter(|(_, batch)| late(batch)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.drop_batch(*id);
        }
        !ids.is_empty()
    }

    /// Goes on at `to`. Batches from before may still be settled, to no effect; with `fence` they are `Fenced`.
    pub(crate) fn seek(&mut self, to: u64, fence: bool) {
        self.floor = to;
        self.fetch = to;
        self.settled.clear();
        self.dropped.clear();
        self.seeks += 1;
        if fence {
            self.in_flight.retain(|_, batch| batch.committing);
        }
    }

    /// How many batches are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// When the next batch is to be taken back.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.in_flight.values().filter(|batch| !batch.committing).filter_map(|batch| batch.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_floor_moves_only_over_the_gapless_prefix() {
        let mut progress = Progress::new(0);
        let a = progress.deliver(0..10, None);
        let b = progress.deliver(10..20, None);
        let c = progress.deliver(20..30, None);
        assert_eq!(progress.settle(b).unwrap(), None);
        assert_eq!(progress.settle(a).unwrap(), Some(20));
        assert_eq!(progress.settle(c).unwrap(), Some(30));
        assert!(matches!(progress.settle(c), Err(Error::Fenced)));
    }

    #[test]
    fn a_batch_taken_back_is_fenced_and_comes_again() {
        let mut progress = Progress::new(5);
        let held = progress.deliver(5..8, Some(Duration::from_secs(1)));
        assert!(!progress.expire(Duration::from_millis(999)));
        assert!(progress.expire(Duration::from_secs(1)));
        assert!(matches!(progress.settle(held), Err(Error::Fenced)));
        assert_eq!(progress.next_fetch(), Fetch { from: 5, until: Some(8) });
    }

    #[test]
    fn a_seek_forgets_what_was_dropped_and_what_was_settled_ahead() {
        let mut progress = Progress::new(0);
        let a = progress.deliver(0..10, None);
        let b = progress.deliver(10..20, None);
        let c = progress.deliver(20..30, None);
        progress.drop_batch(a);
        progress.settle(c).unwrap();
        progress.seek(15, false);
        assert_eq!(progress.next_fetch(), Fetch { from: 15, until: None });
        assert_eq!(progress.settle(b).unwrap(), None, "a batch from before the seek moves nothing");
        let d = progress.deliver(15..20, None);
        assert_eq!(progress.settle(d).unwrap(), Some(20));
    }

    proptest! {
        /// Against a set of settled offsets: the floor is the first that is not in it, and everything that is neither
        /// settled nor in flight is delivered again.
        #[test]
        fn progress_equals_a_set(steps in prop::collection::vec((0_u8..4, 1_u64..6, 0_usize..6), 1..200)) {
            let mut progress = Progress::new(0);
            let mut settled: BTreeSet<u64> = BTreeSet::new();
            let mut out: Vec<(BatchId, Range<u64>)> = Vec::new();
            let mut delivered = 0;
            for (step, len, which) in steps {
                match step {
                    0 | 1 => {
                        let fetch = progress.next_fetch();
                        let end = fetch.until.map_or(fetch.from + len, |until| until.min(fetch.from + len));
                        for (_, other) in &out {
                            prop_assert!(end <= other.start || fetch.from >= other.end, "delivered twice at once");
                        }
                        let id = progress.deliver(fetch.from..end, None);
                        out.push((id, fetch.from..end));
                        delivered = delivered.max(end);
                    }
                    2 if !out.is_empty() => {
                        let (id, range) = out.remove(which % out.len());
                        settled.extend(range);
                        progress.settle(id).unwrap();
                    }
                    3 if !out.is_empty() => progress.drop_batch(out.remove(which % out.len()).0),
                    _ => {}
                }
                let floor = (0..=u64::MAX).find(|offset| !settled.contains(offset)).unwrap();
                prop_assert_eq!(progress.floor, floor);
                let flying = |offset| out.iter().any(|(_, range)| range.contains(&offset));
                let next = (0..delivered).find(|offset| !settled.contains(offset) && !flying(*offset));
                prop_assert_eq!(progress.next_fetch().from, next.unwrap_or(delivered));
            }
        }
    }
}
