//! One case of behaviour each.
#![expect(clippy::unnecessary_wraps, reason = "deadlines are optional, and every test would wrap them otherwise")]

use super::*;

fn fetch(from: u64) -> Wanted {
    Wanted { from, until: None }
}

fn again(range: Range<u64>) -> Wanted {
    Wanted { from: range.start, until: Some(range.end) }
}

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

fn fenced<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Fenced))
}

#[test]
fn delivering_moves_the_position_and_settling_moves_the_floor() {
    let mut progress = Progress::new(7);
    let batch = progress.delivered(7..10, None);
    assert_eq!((progress.position(), progress.floor()), (10, 7));
    assert!(!progress.is_idle());
    assert_eq!(progress.settle(batch).unwrap(), Some(10));
    assert_eq!((progress.position(), progress.floor()), (10, 10));
    assert!(progress.is_idle());
}

#[test]
fn the_floor_moves_only_over_what_is_settled_without_a_gap() {
    let mut progress = Progress::new(0);
    let [first, second, third] = [0..10, 10..20, 20..30].map(|range| progress.delivered(range, None));
    assert_eq!(progress.settle(third).unwrap(), None);
    assert_eq!(progress.settle(first).unwrap(), Some(10));
    assert_eq!(progress.settles_to(second).unwrap(), Some(30));
    assert_eq!(progress.settle(second).unwrap(), Some(30));
}

#[test]
fn a_batch_covers_the_gap_before_its_first_record() {
    let mut progress = Progress::new(0);
    let before = progress.delivered(0..5, None);
    // Offsets 5 to 99 were compacted away: reading began at 5, the first record is 100.
    let over_a_gap = progress.delivered(5..101, None);
    assert_eq!(progress.settle(over_a_gap).unwrap(), None);
    assert_eq!(progress.settle(before).unwrap(), Some(101));
}

#[test]
fn a_dropped_batch_comes_first_and_lowest_first() {
    let mut progress = Progress::new(0);
    let [first, _, third] = [0..10, 10..20, 20..30].map(|range| progress.delivered(range, None));
    progress.drop_batch(third);
    assert_eq!(progress.next_fetch(), again(20..30));
    progress.drop_batch(first);
    assert_eq!(progress.next_fetch(), again(0..10));
    assert_eq!(progress.position(), 0);
    progress.delivered(0..10, None);
    progress.delivered(20..30, None);
    assert_eq!(progress.next_fetch(), fetch(30));
}

#[test]
fn a_dropped_batch_may_come_back_in_pieces_or_with_its_neighbour() {
    let mut progress = Progress::new(0);
    let [first, second] = [0..10, 10..20].map(|range| progress.delivered(range, None));
    progress.drop_batch(second);
    progress.drop_batch(first);
    assert_eq!(progress.next_fetch(), again(0..20));
    let piece = progress.delivered(0..3, None);
    assert_eq!(progress.next_fetch(), again(3..20));
    let rest = progress.delivered(3..20, None);
    assert_eq!(progress.settle(rest).unwrap(), None);
    assert_eq!(progress.settle(piece).unwrap(), Some(20));
}

#[test]
fn a_dropped_batch_holds_the_floor_back_until_it_is_settled() {
    let mut progress = Progress::new(0);
    let [first, second] = [0..10, 10..20].map(|range| progress.delivered(range, None));
    progress.drop_batch(first);
    assert_eq!(progress.settle(second).unwrap(), None);
    let retry = progress.delivered(0..10, None);
    assert_eq!(progress.settle(retry).unwrap(), Some(20));
}

#[test]
fn a_batch_is_settled_or_dropped_once() {
    let mut progress = Progress::new(0);
    let batch = progress.delivered(0..10, None);
    progress.settle(batch).unwrap();
    assert!(fenced(&progress.settle(batch)));
    progress.drop_batch(batch);
    assert_eq!(progress.next_fetch(), fetch(10));
}

#[test]
fn a_batch_past_its_deadline_is_fenced_and_delivered_again() {
    let mut progress = Progress::new(0);
    let late = progress.delivered(0..10, secs(5));
    let later = progress.delivered(10..20, secs(6));
    assert_eq!(progress.next_deadline(), secs(5));
    assert!(!progress.expire(Duration::from_millis(4_999)));
    assert!(progress.expire(Duration::from_secs(5)));
    assert_eq!(progress.next_deadline(), secs(6));
    assert!(fenced(&progress.settles_to(late)));
    assert!(fenced(&progress.settle(late)));
    assert_eq!(progress.next_fetch(), again(0..10));
    let retry = progress.delivered(0..10, secs(9));
    progress.drop_batch(late);
    assert_eq!(progress.next_fetch(), fetch(20), "dropping what was taken back leaves its successor alone");
    progress.settle(retry).unwrap();
    assert_eq!(progress.settle(later).unwrap(), Some(20));
    assert_eq!(progress.next_deadline(), None);
}

#[test]
fn a_batch_being_committed_is_not_taken_back() {
    let mut progress = Progress::new(0);
    let batch = progress.delivered(0..10, secs(5));
    progress.commit_begins(batch).unwrap();
    assert_eq!(progress.next_deadline(), None);
    assert!(!progress.expire(Duration::from_secs(60)));
    assert_eq!(progress.settle(batch).unwrap(), Some(10));
    assert!(fenced(&progress.commit_begins(batch)));
}

#[test]
fn what_holds_no_records_any_more_is_passed_without_being_in_flight() {
    let mut progress = Progress::new(0);
    let batch = progress.delivered(0..10, None);
    assert_eq!(progress.pass(10..50), None);
    progress.drop_batch(batch);
    assert_eq!(progress.pass(0..10), Some(50));
    assert_eq!(progress.next_fetch(), fetch(50));
    assert!(progress.is_idle());
}

#[test]
fn after_a_seek_the_prefix_counts_from_there_and_what_was_dropped_is_forgotten() {
    let mut progress = Progress::new(0);
    let [first, second] = [0..10, 10..20].map(|range| progress.delivered(range, None));
    progress.drop_batch(first);
    progress.settle(second).unwrap();
    progress.seek(5, Overtaken::Counts);
    assert_eq!(progress.next_fetch(), fetch(5));
    assert_eq!(progress.floor(), 5);
    let batch = progress.delivered(5..8, None);
    assert_eq!(progress.settle(batch).unwrap(), Some(8), "10..20 was settled before the seek and counts no more");
}

#[test]
fn a_batch_overtaken_by_a_seek_counts_above_the_new_position_only() {
    let mut progress = Progress::new(0);
    let [below, across, above] = [0..10, 10..20, 20..30].map(|range| progress.delivered(range, None));
    progress.seek(15, Overtaken::Counts);
    assert!(!progress.is_idle());
    assert_eq!(progress.settle(above).unwrap(), None);
    assert_eq!(progress.settle(below).unwrap(), None);
    assert_eq!(progress.settles_to(across).unwrap(), Some(30));
    assert_eq!(progress.settle(across).unwrap(), Some(30));
    assert_eq!(progress.next_fetch(), fetch(15), "what was asked for is delivered, settled or not");
}

#[test]
fn a_batch_dropped_after_a_seek_is_not_delivered_twice() {
    let mut progress = Progress::new(0);
    let [below, above] = [0..10, 10..20].map(|range| progress.delivered(range, secs(5)));
    progress.seek(5, Overtaken::Counts);
    progress.drop_batch(below);
    assert!(progress.expire(Duration::from_secs(5)));
    assert!(fenced(&progress.settle(above)));
    assert_eq!(progress.next_fetch(), fetch(5), "the new position covers both");
}

#[test]
fn a_seek_can_fence_what_is_in_flight() {
    let mut progress = Progress::new(0);
    let batch = progress.delivered(0..10, secs(5));
    progress.seek(0, Overtaken::Fenced);
    assert!(progress.is_idle());
    assert_eq!(progress.next_deadline(), None);
    assert!(fenced(&progress.settle(batch)));
    assert_eq!(progress.floor(), 0);
}

#[test]
fn a_seek_leaves_a_commit_that_has_begun_alone_and_decides_the_position() {
    let mut progress = Progress::new(0);
    let batch = progress.delivered(0..10, None);
    progress.commit_begins(batch).unwrap();
    progress.seek(3, Overtaken::Fenced);
    assert!(!progress.is_idle());
    assert_eq!(progress.settle(batch).unwrap(), None);
    assert_eq!((progress.floor(), progress.position()), (3, 3));
}
