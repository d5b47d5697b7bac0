//! What was committed with batches that were settled above the floor, until the floor comes there.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::format::Metadata;

/// Batches that were settled above the floor, and what was committed with each, by partition and end.
#[derive(Debug, Default)]
pub(crate) struct Ahead(BTreeMap<(u32, u64), Option<Metadata>>);

impl Ahead {
    /// The metadata for the placemark once a batch is settled that ends here, if the floor moves: those of the last batch
    /// below it. Behind that batch are no records then, only offsets that have none. What a batch above the floor has is
    /// kept until the floor comes there.
    #[inline]
    pub(crate) fn settle(
        &mut self,
        partition: u32,
        end: u64,
        metadata: Option<Metadata>,
        floor: Option<u64>,
    ) -> Option<Metadata> {
        let in_order = floor.is_some_and(|floor| end <= floor);
        if in_order && self.0.is_empty() { metadata } else { self.settle_among(partition, end, metadata, floor) }
    }

    fn settle_among(
        &mut self,
        partition: u32,
        end: u64,
        metadata: Option<Metadata>,
        floor: Option<u64>,
    ) -> Option<Metadata> {
        let below = (partition, 0)..=(partition, floor.unwrap_or(0));
        if floor.is_some_and(|floor| end <= floor) && self.0.range(below.clone()).all(|((_, other), _)| *other < end) {
            self.0.retain(|at, _| !below.contains(at));
            return metadata;
        }
        self.0.insert((partition, end), metadata);
        floor?;
        let mut last = None;
        while let Some(at) = self.0.range(below.clone()).next().map(|(at, _)| *at) {
            last = self.0.remove(&at);
        }
        last.flatten()
    }

    /// The metadata for the placemark once a transaction settles a batch that ends here and moves the floor there. Nothing
    /// is forgotten: it may not be decided.
    pub(crate) fn would_settle(
        &self,
        partition: u32,
        end: u64,
        metadata: Option<Metadata>,
        floor: u64,
    ) -> Option<Metadata> {
        let above = (Bound::Excluded((partition, end)), Bound::Included((partition, floor.max(end))));
        self.0.range(above).next_back().map_or(metadata, |(_, last)| last.clone())
    }

    /// Forgets what is below the floor.
    pub(crate) fn forget_below(&mut self, partition: u32, floor: u64) {
        if !self.0.is_empty() {
            self.0.retain(|(of, end), _| *of != partition || *end > floor);
        }
    }

    /// Forgets what was settled above the floor: it is read again.
    pub(crate) fn forget(&mut self, partition: u32) {
        self.0.retain(|(of, _), _| *of != partition);
    }
}
