//! What one member leaves to another of a different mode: nothing is lost by it, and nothing made twice.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::path::Path;
use std::time::Duration;

use placemark::{AtLeastOnce, Batch, Consumer, Entry, ExactlyOnce, Log, Record, Store};

use common::{in_cache, scratch};

fn take<M>(consumer: &mut Consumer<M>) -> Option<Batch<M>> {
    consumer.poll(Duration::ZERO).unwrap()
}

fn offsets<M>(batch: &Batch<M>) -> Vec<u64> {
    batch.iter().map(Entry::offset).collect()
}

fn by_key(log: &Log) -> Consumer<AtLeastOnce> {
    log.consumer("group").by_key().max_poll_records(1).at_least_once().unwrap()
}

/// A log whose second record was held back by a member that goes by key, and whose third was dropped by it: the first was
/// settled. `heir` joins before that, and owns the partition since.
fn held_back<M>(store: &Store, heir: impl FnOnce(&Log) -> Consumer<M>) -> (Log, Consumer<M>) {
    let log = store.log("in").unwrap();
    for key in ["a", "a", "b"] {
        log.append(Record::new("order").key(key)).unwrap();
    }
    let mut first = by_key(&log);
    let (zero, two) = (take(&mut first).unwrap(), take(&mut first).unwrap());
    assert_eq!((offsets(&zero), offsets(&two)), (vec![0], vec![2]));
    let heir = heir(&log);
    zero.commit().unwrap();
    drop((two, first));
    (log, heir)
}

/// What a member of the group is given that comes after the next opening.
fn delivered_later(dir: &Path) -> Vec<u64> {
    let store = in_cache().open(dir).unwrap();
    let mut later = store.log("in").unwrap().consumer("group").at_least_once().unwrap();
    let mut delivered = Vec::new();
    while let Some(batch) = take(&mut later) {
        delivered.extend(offsets(&batch));
        batch.commit().unwrap();
    }
    delivered
}

#[test]
fn exactly_once_does_not_pass_what_was_held_back() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (_, mut heir) = held_back(&store, |log| log.consumer("group").exactly_once().unwrap());
    let batch = take(&mut heir).unwrap();
    assert_eq!(offsets(&batch), [1]);
    store.transaction().commit_with(batch).unwrap();
    assert_eq!((heir.committed(0), heir.position(0)), (Some(2), Some(2)));
    store.close().unwrap();
    assert_eq!(delivered_later(dir.path()), [2]);
}

#[test]
fn a_batch_that_outlives_its_member_leaves_what_was_held_back_before_it() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("in").unwrap();
    let append = |key: &str| log.append(Record::new("order").key(key)).unwrap();
    append("a");
    append("b");
    let mut first = by_key(&log);
    let (zero, one) = (take(&mut first).unwrap(), take(&mut first).unwrap());
    append("a");
    append("c");
    let three = take(&mut first).unwrap();
    assert_eq!(offsets(&three), [3]);
    drop(first);
    let mut heir = log.consumer("group").exactly_once().unwrap();
    zero.commit().unwrap();
    one.commit().unwrap();
    drop(three);
    let batch = take(&mut heir).unwrap();
    assert_eq!(offsets(&batch), [2]);
    store.transaction().commit_with(batch).unwrap();
    store.close().unwrap();
    assert_eq!(delivered_later(dir.path()), [3]);
}

#[test]
fn a_dead_letter_does_not_pass_what_was_held_back() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let dead = store.log("dead").unwrap();
    let (log, mut heir) = held_back(&store, |log| {
        log.consumer("group").max_attempts(1).dead_letter(&dead).max_poll_records(1).at_least_once().unwrap()
    });
    take(&mut heir).unwrap().fail(1, "bad").unwrap();
    let next = take(&mut heir).unwrap();
    assert_eq!((offsets(&next), heir.committed(0)), (vec![2], Some(2)));
    drop((next, log));
    store.close().unwrap();
    assert_eq!(delivered_later(dir.path()), [2]);
}

#[test]
fn at_most_once_has_moved_the_placemark_over_what_it_hands_out() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (_, mut heir) = held_back(&store, |log| log.consumer("group").at_most_once().unwrap());
    let batch = take(&mut heir).unwrap();
    assert_eq!((offsets(&batch), heir.committed(0)), (vec![1], Some(2)));
    store.close().unwrap();
    assert_eq!(delivered_later(dir.path()), [2]);
}

/// Takes over from a member that delivers at least once, and has settled the second half, with these metadata, and dropped
/// the first.
fn settled_behind(log: &Log, metadata: &str) -> Consumer<ExactlyOnce> {
    log.append_batch(["0", "1", "2", "3"]).unwrap();
    let mut first = log.consumer("group").max_poll_records(2).at_least_once().unwrap();
    let (_lower, upper) = (take(&mut first).unwrap(), take(&mut first).unwrap());
    upper.commit_with_metadata(metadata).unwrap();
    log.consumer("group").exactly_once().unwrap()
}

#[test]
fn exactly_once_carries_the_placemark_over_what_was_settled_behind_its_batch() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, out) = (store.log("in").unwrap(), store.log("out").unwrap());
    let mut heir = settled_behind(&log, "upper");
    let batch = take(&mut heir).unwrap();
    assert_eq!(offsets(&batch), [0, 1]);
    let mut transaction = store.transaction();
    transaction.append(&out, "result").unwrap();
    transaction.commit_with_metadata(batch, "lower").unwrap();
    assert_eq!((heir.committed(0), heir.metadata(0).as_deref()), (Some(4), Some(&b"upper"[..])));
    assert!(take(&mut heir).is_none());
    // What was kept for the way there is forgotten: it is not that of what comes next.
    log.append("4").unwrap();
    store.transaction().commit_with(take(&mut heir).unwrap()).unwrap();
    assert_eq!((heir.committed(0), heir.metadata(0)), (Some(5), None));
    store.close().unwrap();
    assert_eq!(delivered_later(dir.path()), [] as [u64; 0]);
}

#[test]
fn a_transaction_that_fails_forgets_nothing_of_what_was_settled_behind_its_batch() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, gone) = (store.log("in").unwrap(), store.log("gone").unwrap());
    let mut heir = settled_behind(&log, "upper");
    let mut transaction = store.transaction();
    transaction.append(&gone, "result").unwrap();
    store.delete_log("gone").unwrap();
    assert!(transaction.commit_with(take(&mut heir).unwrap()).is_err());
    store.transaction().commit_with(take(&mut heir).unwrap()).unwrap();
    assert_eq!((heir.committed(0), heir.metadata(0).as_deref()), (Some(4), Some(&b"upper"[..])));
}
