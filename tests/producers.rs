//! Idempotent producers: what a duplicate is, in one partition and in several, singly and in batches; and that a name has
//! one holder.
#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use placemark::{Appended, Durability, Error, LogOptions, Producer, Record, StartAt};

use common::files;
use common::producing::{append, duplicate, key_for, new, sequence, sequences, small, value};
use common::{Numbers, WAIT, entries, in_cache, options, scratch, within};

// ---- what a duplicate is ----

#[test]
fn a_sequence_at_or_below_the_last_one_is_a_duplicate_and_writes_nothing() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("log").unwrap();
    let mut producer = log.producer("importer").unwrap();
    assert_eq!(producer.last_sequence(), None);
    for (sequence, offset) in [(0, 0), (1, 1), (7, 2), (100, 3)] {
        assert_eq!(new(append(&mut producer, sequence)).offset, offset, "gaps are allowed");
    }
    for (sequence, offset) in [(100, Some(3)), (7, Some(2)), (0, Some(0)), (8, None), (99, None), (6, None)] {
        assert_eq!(duplicate(append(&mut producer, sequence)).map(|at| at.offset), offset, "{sequence}");
    }
    assert_eq!(producer.last_sequence(), Some(100));
    assert_eq!(sequences(&log), [0, 1, 7, 100]);
    assert_eq!(new(append(&mut producer, u64::MAX)).offset, 4);
    assert_eq!(duplicate(append(&mut producer, u64::MAX)).map(|at| at.offset), Some(4));
}

#[test]
fn the_last_five_positions_of_each_partition_are_known() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("log", small(3)).unwrap();
    let keys: Vec<_> = (0..3).map(|partition| key_for(&log, partition)).collect();
    let mut producer = log.producer("importer").unwrap();
    let mut at = Vec::new();
    for sequence in 0..60 {
        let key = &keys[usize::try_from(sequence % 3).unwrap()];
        at.push(new(producer.append(sequence, Record::new("value").key(key)).unwrap()));
    }
    let check = |producer: &mut Producer| {
        for sequence in 0..60 {
            let key = &keys[usize::try_from(sequence % 3).unwrap()];
            let found = duplicate(producer.append(sequence, Record::new("value").key(key)).unwrap());
            let known = at[usize::try_from(sequence).unwrap()];
            assert!(found == Some(known) || (found.is_none() && sequence < 45), "{sequence}: {found:?}");
        }
    };
    check(&mut producer);
    let killed = files::image(dir.path());
    drop(producer);
    store.close().unwrap();
    for left in [dir.path(), killed.path()] {
        let store = in_cache().open(left).unwrap();
        check(&mut store.open_log("log").unwrap().producer("importer").unwrap());
    }
}

#[test]
fn names_are_checked_and_do_not_influence_one_another_nor_do_logs() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, other) = (store.log("log").unwrap(), store.log("other").unwrap());
    for name in ["", ".", "..", "a/b", &"x".repeat(250)] {
        assert!(matches!(log.producer(name), Err(Error::InvalidName { .. })), "{name:?}");
    }
    let mut producers = [
        log.producer("a").unwrap(),
        log.producer("b").unwrap(),
        other.producer("a").unwrap(),
        log.producer(&"x".repeat(249)).unwrap(),
    ];
    for (place, producer) in producers.iter_mut().enumerate() {
        let sequence = 10 - place as u64;
        assert_eq!(producer.last_sequence(), None);
        new(append(producer, sequence));
        duplicate(append(producer, sequence));
    }
    assert_eq!(sequences(&log), [10, 9, 7]);
    assert_eq!(sequences(&other), [8]);
    let shown = format!("{:?}", producers[0]);
    assert!(shown.contains("\"a\"") && shown.contains("\"log\"") && shown.contains("10"), "{shown}");
}

#[test]
fn a_producer_may_go_to_another_thread_and_keeps_the_store_open() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let mut producer = store.log("log").unwrap().producer("importer").unwrap();
    drop(store);
    let mut producer = within(WAIT, move || {
        new(append(&mut producer, 1));
        producer
    });
    assert!(matches!(in_cache().open(dir.path()), Err(Error::Locked { .. })));
    duplicate(append(&mut producer, 1));
    drop(producer);
    let store = in_cache().open(dir.path()).unwrap();
    let mut producer = store.log("log").unwrap().producer("importer").unwrap();
    assert_eq!(producer.last_sequence(), Some(1));
    store.close().unwrap();
    assert!(matches!(producer.append(2, "2"), Err(Error::Closed)));
    assert!(matches!(producer.append(1, "1"), Err(Error::Closed)), "a duplicate too");
    assert!(matches!(producer.append_batch(1, ["1"]), Err(Error::Closed)));
}

#[test]
fn a_record_that_is_refused_leaves_its_sequence_free() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("log", LogOptions::new().max_record_bytes(100)).unwrap();
    let mut producer = log.producer("importer").unwrap();
    assert!(matches!(producer.append(1, vec![0; 1000]), Err(Error::RecordTooLarge { .. })));
    assert!(matches!(producer.append_batch(1, [vec![0; 1000]]), Err(Error::RecordTooLarge { .. })));
    assert_eq!(producer.last_sequence(), None);
    new(producer.append(1, "1").unwrap());
    let refused = producer.append_batch(u64::MAX, ["a", "b"]);
    assert!(matches!(refused, Err(Error::InvalidOption { option: "first_sequence", .. })), "{refused:?}");
    let compacted =
        store.log_with("compacted", LogOptions::new().compaction(placemark::Compaction::KeepLatest)).unwrap();
    let mut producer = compacted.producer("importer").unwrap();
    new(producer.append(5, Record::new("5").key("five")).unwrap());
    for sequence in [5, 6] {
        assert!(matches!(producer.append(sequence, "no key"), Err(Error::InvalidOption { option: "key", .. })));
    }
}

// ---- partitions ----

#[test]
fn an_unkeyed_retry_finds_its_first_partition_and_a_keyed_one_is_compared_in_its_own() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("log", small(4)).unwrap();
    let mut producer = log.producer("importer").unwrap();
    let first: Vec<_> = (0..8).map(|sequence| new(append(&mut producer, sequence))).collect();
    let partitions: BTreeSet<u32> = first.iter().map(|at| at.partition).collect();
    assert_eq!(partitions.len(), 4, "they go in turn");
    for (sequence, at) in (0..).zip(&first) {
        assert_eq!(duplicate(append(&mut producer, sequence)), Some(*at));
    }
    // A keyed one that comes late into a partition whose newest is lower is new there.
    let keyed = |producer: &mut Producer, sequence: u64, key: &str| {
        producer.append(sequence, Record::new("keyed").key(key)).unwrap()
    };
    let mut other = log.producer("other").unwrap();
    let far = new(keyed(&mut other, 100, "a"));
    let key = key_for(&log, (far.partition + 1) % 4);
    let near = new(keyed(&mut other, 50, &key));
    assert_ne!(near.partition, far.partition);
    assert_eq!(duplicate(keyed(&mut other, 50, &key)), Some(near));
    assert_eq!(duplicate(keyed(&mut other, 49, &key)), None);
    new(keyed(&mut other, 51, &key));
    assert_eq!(other.last_sequence(), Some(100), "the largest anywhere");
    assert_eq!(duplicate(other.append(99, "unkeyed").unwrap()), None);
}

#[test]
fn partitions_added_later_are_used_and_known() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("log").unwrap();
    let mut producer = log.producer("importer").unwrap();
    new(append(&mut producer, 0));
    store.log_with("log", small(3)).unwrap();
    let at: Vec<_> = (1..10).map(|sequence| new(append(&mut producer, sequence))).collect();
    assert_eq!(at.iter().map(|at| at.partition).collect::<BTreeSet<_>>().len(), 3);
    drop(producer);
    let mut producer = log.producer("importer").unwrap();
    assert_eq!(producer.last_sequence(), Some(9));
    for (sequence, at) in (1..).zip(&at) {
        assert_eq!(duplicate(append(&mut producer, sequence)), Some(*at));
    }
}

// ---- batches ----

#[test]
fn of_a_batch_that_was_partly_seen_only_what_is_new_is_written() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("log").unwrap();
    let mut producer = log.producer("importer").unwrap();
    let batch = |range: std::ops::Range<u64>| range.map(value).collect::<Vec<_>>();
    assert!(producer.append_batch(5, Vec::<Vec<u8>>::new()).unwrap().is_empty());
    assert_eq!(producer.last_sequence(), None);
    let all = producer.append_batch(10, batch(10..14)).unwrap();
    assert_eq!(all.into_iter().map(|it| new(it).offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let again = producer.append_batch(12, batch(12..16)).unwrap();
    assert_eq!(duplicate(again[0]).map(|at| at.offset), Some(2));
    assert_eq!(duplicate(again[1]).map(|at| at.offset), Some(3));
    assert_eq!([new(again[2]).offset, new(again[3]).offset], [4, 5]);
    let whole = producer.append_batch(10, batch(10..16)).unwrap();
    assert_eq!(whole.into_iter().map(|it| duplicate(it).unwrap().offset).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(sequences(&log), (10..16).collect::<Vec<_>>());
    assert_eq!(producer.last_sequence(), Some(15));
    assert_eq!(new(append(&mut producer, 16)).offset, 6);
}

#[test]
fn a_batch_over_several_partitions_is_deduplicated_in_each_also_after_a_kill() {
    for durability in [Durability::Sync, Durability::Os] {
        let dir = scratch();
        let store = options().durability(durability).open(dir.path()).unwrap();
        let log = store.log_with("log", small(3)).unwrap();
        let mut producer = log.producer("importer").unwrap();
        // Runs of several records and single ones, some without a key.
        let record = |sequence: u64| match sequence % 7 {
            6 => Record::new(value(sequence)),
            _ => Record::new(value(sequence)).key((sequence / 2 % 5).to_string()),
        };
        let first = producer.append_batch(0, (0..20).map(record)).unwrap();
        let partitions: BTreeSet<u32> = first.iter().map(|it| new(*it).partition).collect();
        assert_eq!(partitions.len(), 3);
        let killed = files::image(dir.path());
        drop((producer, log));
        store.close().unwrap();
        for left in [dir.path(), killed.path()] {
            let store = options().durability(durability).open(left).unwrap();
            let log = store.open_log("log").unwrap();
            let mut producer = log.producer("importer").unwrap();
            assert_eq!(producer.last_sequence(), Some(19));
            let again = producer.append_batch(0, (0..30).map(record)).unwrap();
            for (sequence, (before, now)) in first.iter().zip(&again).enumerate() {
                let at = duplicate(*now);
                assert!(at.is_none_or(|at| at == new(*before)), "{sequence}: {at:?}");
            }
            assert!(again[20..].iter().all(|it| matches!(it, Appended::New(_))));
            let mut found = sequences(&log);
            found.sort_unstable();
            assert_eq!(found, (0..30).collect::<Vec<_>>(), "{durability:?}");
            for partition in 0..3 {
                let read = entries(log.partition(partition).unwrap().read(StartAt::Earliest).unwrap());
                assert!(read.is_sorted_by_key(|entry| sequence(entry.value())));
            }
        }
    }
}

// ---- fencing ----

#[test]
fn opening_a_name_again_fences_the_handle_that_had_it_for_duplicates_too() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("log", small(2)).unwrap();
    let mut old = log.producer("importer").unwrap();
    let mut other = log.producer("other").unwrap();
    new(append(&mut old, 1));
    let mut newer = log.producer("importer").unwrap();
    assert_eq!(newer.last_sequence(), Some(1));
    for sequence in [0, 1, 2] {
        assert!(matches!(old.append(sequence, value(sequence)), Err(Error::Fenced)), "{sequence}");
        assert!(matches!(old.append_batch(sequence, [value(sequence)]), Err(Error::Fenced)), "{sequence}");
    }
    let keyed = (0..10).map(|key| Record::new(value(5)).key(key.to_string()));
    assert!(matches!(old.append_batch(5, keyed), Err(Error::Fenced)), "over several partitions too");
    new(append(&mut newer, 2));
    new(append(&mut other, 1));
    drop(newer);
    assert!(matches!(old.append(3, "3"), Err(Error::Fenced)), "also when the newer handle is gone");
    let mut newest = log.producer("importer").unwrap();
    assert_eq!(newest.last_sequence(), Some(2));
    new(append(&mut newest, 3));
    let mut found = sequences(&log);
    found.sort_unstable();
    assert_eq!(found, [1, 1, 2, 3]);
}

#[test]
fn of_threads_that_take_a_name_from_one_another_each_sequence_is_written_once() {
    within(WAIT, || {
        for (durability, partitions) in [(Durability::Os, 1), (Durability::Os, 3), (Durability::Sync, 2)] {
            let dir = scratch();
            let store = options().durability(durability).open(dir.path()).unwrap();
            let log = store.log_with("log", small(partitions)).unwrap();
            let (stop, fenced) = (AtomicBool::new(false), AtomicU64::new(0));
            thread::scope(|scope| {
                for lane in 0..4_u64 {
                    let (log, stop, fenced) = (&log, &stop, &fenced);
                    scope.spawn(move || {
                        let mut numbers = Numbers::new(lane + 1);
                        while !stop.load(Ordering::Relaxed) {
                            let mut producer = log.producer("importer").unwrap();
                            let mut next = producer.last_sequence().map_or(0, |last| last + 1);
                            for _ in 0..numbers.below(50) {
                                let count = 1 + numbers.below(4);
                                let records = (next..next + count).map(|it| match it % 3 {
                                    0 => Record::new(value(it)),
                                    key => Record::new(value(it)).key(key.to_string()),
                                });
                                match producer.append_batch(next, records) {
                                    Ok(all) => assert!(all.iter().all(|it| matches!(it, Appended::New(_)))),
                                    Err(Error::Fenced) => {
                                        fenced.fetch_add(1, Ordering::Relaxed);
                                        break;
                                    }
                                    Err(error) => panic!("{error}"),
                                }
                                next += count;
                            }
                        }
                    });
                }
                thread::sleep(Duration::from_millis(600));
                stop.store(true, Ordering::Relaxed);
            });
            assert!(fenced.load(Ordering::Relaxed) > 0, "they met");
            let mut found = sequences(&log);
            found.sort_unstable();
            assert!(found.len() > 10 && found.iter().copied().eq(0..found.len() as u64), "{durability:?}: {found:?}");
        }
    });
}

#[test]
fn a_batch_may_end_with_the_last_sequence_there_is() {
    let dir = scratch();
    let log = in_cache().open(dir.path()).unwrap().log("log").unwrap();
    let mut producer = log.producer("importer").unwrap();
    for _ in 0..2 {
        assert_eq!(producer.append_batch(u64::MAX - 1, ["first", "last"]).unwrap().len(), 2);
        assert!(matches!(producer.append_batch(u64::MAX, ["last"]).unwrap()[..], [Appended::Duplicate(_)]));
    }
    assert!(matches!(producer.append_batch(u64::MAX, ["last", "more"]), Err(Error::InvalidOption { .. })));
    assert_eq!(log.partition(0).unwrap().end_offset(), 2);
}
