//! A set of offsets, kept as the ranges it is made of.

use std::collections::BTreeMap;
use std::ops::Range;

/// Offsets as disjoint ranges that do not touch: start to end, lowest first.
#[derive(Debug, Default)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The range that begins lowest.
    #[inline]
    pub(crate) fn first(&self) -> Option<Range<u64>> {
        self.0.first_key_value().map(|(&start, &end)| start..end)
    }

    /// All ranges, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// Adds offsets; ranges that then touch become one.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        if let Some((&before, &reach)) = self.0.range(..=start).next_back()
            && reach >= start
        {
            start = before;
            end = end.max(reach);
        }
        while let Some((&inner, &reach)) = self.0.range(start..=end).next() {
            end = end.max(reach);
            self.0.remove(&inner);
        }
        self.0.insert(start, end);
    }

    /// Takes offsets out, splitting what reaches over them.
    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        if self.0.is_empty() || range.is_empty() {
            return;
        }
        if let Some((&before, &reach)) = self.0.range(..range.start).next_back()
            && reach > range.start
        {
            self.0.insert(before, range.start);
            self.insert(range.end..reach);
        }
        while let Some((&inner, &reach)) = self.0.range(range.clone()).next() {
            self.0.remove(&inner);
            self.insert(range.end..reach);
        }
    }

    /// The first offset at or after `from` that is not in the set.
    #[inline]
    pub(crate) fn reach(&self, from: u64) -> u64 {
        let before = self.0.range(..=from).next_back();
        before.map_or(from, |(_, &end)| end.max(from))
    }

    /// Takes out every range that begins at or below `from` and says how far they reach, as [`reach`](Self::reach).
    #[inline]
    pub(crate) fn absorb(&mut self, from: u64) -> u64 {
        let mut at = from;
        while let Some(first) = self.0.first_entry()
            && *first.key() <= at
        {
            at = at.max(first.remove());
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn runs(set: &BTreeSet<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for &offset in set {
            match runs.last_mut() {
                Some(last) if last.end == offset => last.end += 1,
                _ => runs.push(offset..offset + 1),
            }
        }
        runs
    }

    proptest! {
        #[test]
        fn equals_a_set_of_offsets(steps in prop::collection::vec((0..3u8, 0..40u64, 0..10u64), 0..60)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (step, start, len) in steps {
                let range = start..start + len;
                match step {
                    0 => {
                        ranges.insert(range.clone());
                        model.extend(range);
                    }
                    1 => {
                        ranges.remove(&range);
                        model.retain(|offset| !range.contains(offset));
                    }
                    _ => {
                        let reach = (start..=start + 60).find(|at| !model.contains(at)).unwrap();
                        // A range that lies below but does not reach `start` changes nothing.
                        prop_assert_eq!(ranges.reach(start), reach);
                    }
                }
                let all: Vec<_> = ranges.iter().collect();
                prop_assert_eq!(&all, &runs(&model));
                prop_assert_eq!(ranges.first(), all.first().cloned());
            }
        }
    }

    #[test]
    fn absorbing_takes_what_touches_and_leaves_what_does_not() {
        let mut ranges = Ranges::default();
        ranges.insert(5..10);
        ranges.insert(12..15);
        assert_eq!(ranges.absorb(4), 4);
        assert_eq!(ranges.absorb(5), 10);
        assert_eq!(ranges.first(), Some(12..15));
        assert_eq!(ranges.absorb(20), 20);
        assert!(ranges.is_empty());
    }
}
