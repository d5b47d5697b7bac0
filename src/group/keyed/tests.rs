//! What is chosen, compared with a choice made one offset at a time.
#![expect(clippy::single_range_in_vec_init, reason = "sets of offsets are given as their ranges")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// No end.
const MAX: u64 = u64::MAX;

fn sight(undelivered: &[Range<u64>], busy: &[u64]) -> Sight {
    Sight { undelivered: undelivered.to_vec(), busy: busy.iter().copied().collect() }
}

/// Offers all of these records, the last of them right before `end`, and says which were taken.
fn pick(sight: Sight, most: usize, records: &[(u64, Option<u64>)], end: u64) -> (Vec<u64>, Picked) {
    let mut picker = Picker::new(sight, most);
    let taken = records.iter().filter(|(offset, key)| picker.offer(*offset, *key)).map(|(offset, _)| *offset).collect();
    (taken, picker.finish(end))
}

#[test]
fn records_go_past_those_whose_key_is_in_flight() {
    let records = [(5, Some(1)), (6, Some(2)), (7, None), (8, Some(1)), (9, Some(3))];
    let (taken, picked) = pick(sight(&[5..MAX], &[1]), 10, &records, 10);
    assert_eq!(taken, [6, 7, 9]);
    assert_eq!(picked.pieces, [6..8, 9..10]);
    assert_eq!(picked.keys, [2, 3]);
    assert_eq!((picked.reached, picked.open), (10, true));
}

#[test]
fn a_gap_goes_with_the_record_behind_it_and_the_last_gap_with_the_record_before_it() {
    let (taken, picked) = pick(sight(&[5..20, 30..MAX], &[1]), 10, &[(8, Some(2)), (12, Some(2)), (35, Some(1))], 40);
    assert_eq!(taken, [8, 12]);
    assert_eq!(picked.pieces, [5..20]);
    assert_eq!((picked.gaps, picked.reached), (vec![], 40));
}

#[test]
fn what_has_no_records_any_more_is_a_gap_of_its_own() {
    let (taken, picked) = pick(sight(&[5..10, 20..25, 30..MAX], &[]), 10, &[(22, None)], 33);
    assert_eq!(taken, [22]);
    assert_eq!((picked.pieces, picked.gaps), (vec![20..25], vec![5..10, 30..33]));
}

#[test]
fn a_full_batch_ends_the_choice_at_its_last_record() {
    let (taken, picked) = pick(sight(&[0..MAX], &[]), 2, &[(0, None), (1, None), (2, None)], 3);
    assert_eq!((taken, picked.reached, picked.open), (vec![0, 1], 2, false));
}

#[test]
fn no_more_is_looked_at_than_so_many_records() {
    let records: Vec<_> = (0..LOOK_AHEAD as u64).map(|offset| (offset, Some(1))).chain([(MAX - 9, None)]).collect();
    let (taken, picked) = pick(sight(&[0..MAX], &[1]), 1, &records, MAX - 8);
    assert!(taken.is_empty() && picked.pieces.is_empty());
    assert_eq!((picked.reached, picked.open), (LOOK_AHEAD as u64, false));
}

/// A log with gaps: the records' offsets and keys.
fn records() -> impl Strategy<Value = BTreeMap<u64, Option<u64>>> {
    prop::collection::btree_map(0..60u64, prop::option::weighted(0.8, 0..4u64), 0..40)
}

/// Ranges that do not touch, the last without end.
fn undelivered() -> impl Strategy<Value = Vec<Range<u64>>> {
    prop::collection::btree_set(0..70u64, 1..9).prop_map(|edges| {
        let edges: Vec<u64> = edges.into_iter().collect();
        let edges = if edges.len().is_multiple_of(2) { &edges[1..] } else { &edges[..] };
        edges.chunks(2).map(|edge| edge[0]..edge.get(1).copied().unwrap_or(MAX)).collect()
    })
}

proptest! {
    #[test]
    fn equals_a_choice_made_one_offset_at_a_time(
        records in records(),
        undelivered in undelivered(),
        busy in prop::collection::hash_set(0..4u64, 0..3),
        most in 1..20usize,
    ) {
        let end = 60.max(undelivered.last().unwrap().start);
        let wanted = |offset: u64| undelivered.iter().any(|range| range.contains(&offset));
        let free = |key: &Option<u64>| key.is_none_or(|key| !busy.contains(&key));
        let expected: Vec<u64> = records
            .iter()
            .filter(|(offset, key)| wanted(**offset) && free(key))
            .map(|(offset, _)| *offset)
            .take(most)
            .collect();

        let offered: Vec<_> = records.iter().map(|(offset, key)| (*offset, *key)).collect();
        let sight = Sight { undelivered: undelivered.clone(), busy: busy.iter().copied().collect() };
        let (taken, picked) = pick(sight, most, &offered, end);
        prop_assert_eq!(&taken, &expected);

        // What is taken is in the pieces, what waits is in none of the ranges, and gaps have no records.
        let inside = |ranges: &[Range<u64>], offset: u64| ranges.iter().any(|range| range.contains(&offset));
        for offset in 0..end {
            let (piece, gap) = (inside(&picked.pieces, offset), inside(&picked.gaps, offset));
            prop_assert!(!(piece && gap));
            prop_assert!(wanted(offset) || !(piece || gap), "{} was not to be delivered", offset);
            if records.contains_key(&offset) {
                prop_assert_eq!(piece, taken.contains(&offset));
                prop_assert!(!gap);
            }
        }
        // A range that holds nothing but what was taken, or nothing, is done with.
        for range in undelivered.iter().filter(|range| range.end <= picked.reached) {
            let mut waiting = range.clone().filter(|offset| records.contains_key(offset) && !taken.contains(offset));
            let done = range.clone().all(|offset| inside(&picked.pieces, offset) || inside(&picked.gaps, offset));
            prop_assert!(done || waiting.next().is_some(), "{:?} would be looked at for ever", range);
        }
        // Nothing that is not yet looked at is called so.
        if let Some(next) = records.keys().find(|offset| **offset >= picked.reached && wanted(**offset)) {
            prop_assert!(!picked.open, "{} was not looked at", next);
        }
        let mut keys: Vec<u64> = taken.iter().filter_map(|offset| records[offset]).collect();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(picked.keys, keys);
    }
}
