//! Logs of a store: their names, their options, growing them, deleting them, and what an empty one takes.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::fs;
use std::time::Duration;

use placemark::{Compaction, Durability, Error, LogOptions, Record, StartAt, Store};

use common::{WAIT, files, in_cache, options, scratch, values};

fn store(dir: &tempfile::TempDir) -> Store {
    in_cache().open(dir.path()).unwrap()
}

#[test]
fn logs_are_listed_sorted_and_only_those_that_exist_can_be_opened() {
    let dir = scratch();
    let store = store(&dir);
    assert!(store.logs().unwrap().is_empty());
    match store.open_log("orders") {
        Err(Error::NoSuchLog { name }) => assert_eq!(name, "orders"),
        other => panic!("{other:?}"),
    }
    assert!(store.logs().unwrap().is_empty(), "open_log makes none");
    for name in ["b", "a.b", "A", "a-1", "a_1", "0"] {
        store.log(name).unwrap();
    }
    let sorted = ["0", "A", "a-1", "a.b", "a_1", "b"];
    assert_eq!(store.logs().unwrap(), sorted);
    store.open_log("b").unwrap();
    drop(store);
    assert_eq!(in_cache().open(dir.path()).unwrap().logs().unwrap(), sorted);
}

#[test]
fn a_name_that_is_none_is_refused_and_reaches_nothing() {
    let dir = scratch();
    let root = dir.path().join("store");
    let store = in_cache().open(&root).unwrap();
    let log = store.log("log").unwrap();
    let longest = "x".repeat(249);
    let before = files::contents(dir.path()).into_keys().collect::<Vec<_>>();
    let over = "x".repeat(250);
    let bad =
        ["", ".", "..", "../outside", "/tmp/outside", "a/b", "a\\b", "a b", "a\0b", "ä", "~a", "a:b", "a\n", &over];
    for name in bad {
        let refused = |result: Result<(), Error>| assert!(matches!(result, Err(Error::InvalidName { .. })), "{name:?}");
        refused(store.log(name).map(drop));
        refused(store.log_with(name, LogOptions::new()).map(drop));
        refused(store.open_log(name).map(drop));
        refused(store.delete_log(name));
        refused(log.consumer(name).at_least_once().map(drop));
    }
    assert_eq!(files::contents(dir.path()).into_keys().collect::<Vec<_>>(), before);
    assert!(store.groups().unwrap().is_empty());
    for name in [&longest[..], "...", "a..b", "-", "_"] {
        store.log(name).unwrap().append(name).unwrap();
        log.consumer(name).at_least_once().unwrap();
    }
    assert_eq!(store.logs().unwrap().len(), 6);
    assert_eq!(store.groups().unwrap().len(), 5);
}

#[test]
fn options_that_cannot_be_are_refused_and_make_no_log() {
    let dir = scratch();
    let store = store(&dir);
    let new = LogOptions::new;
    let impossible = [
        new().partitions(0),
        new().segment_bytes(0),
        new().segment_bytes((64 << 10) - 1),
        new().max_record_bytes(0),
        new().segment_age(Duration::ZERO),
        new().durability(Durability::Interval(Duration::ZERO)),
    ];
    for options in impossible {
        assert!(matches!(store.log_with("log", options), Err(Error::InvalidOption { .. })), "{options:?}");
    }
    assert!(store.logs().unwrap().is_empty());
    store.log_with("log", new().partitions(1).segment_bytes(64 << 10).max_record_bytes(1)).unwrap();
}

#[test]
fn options_are_stored_and_what_is_not_set_is_kept() {
    let dir = scratch();
    let store1 = store(&dir);
    let first = LogOptions::new().partitions(2).segment_bytes(64 << 10).max_record_bytes(1000);
    store1.log_with("log", first.compaction(Compaction::None)).unwrap();
    store1.close().unwrap();

    let store2 = store(&dir);
    let log = store2.log("log").unwrap();
    assert!(log.partition(1).is_ok() && log.partition(2).is_err());
    assert!(matches!(log.append(vec![0; 2000]), Err(Error::RecordTooLarge { .. })));
    for _ in 0..200 {
        log.partition(0).unwrap().append(vec![0; 900]).unwrap();
    }
    assert!(files::segments(&files::partition(dir.path(), "log", 0)).len() > 2);
    let log = store2.log_with("log", LogOptions::new().max_record_bytes(5000)).unwrap();
    log.append(vec![0; 2000]).unwrap();
    assert!(log.partition(1).is_ok() && log.partition(2).is_err());
    for refused in [LogOptions::new().partitions(1), LogOptions::new().compaction(Compaction::KeepLatest)] {
        assert!(matches!(store2.log_with("log", refused), Err(Error::InvalidOption { .. })), "{refused:?}");
    }
    drop(log);
    store2.close().unwrap();

    let log = store(&dir).log("log").unwrap();
    log.append(vec![0; 2000]).unwrap();
    assert!(matches!(log.append(vec![0; 6000]), Err(Error::RecordTooLarge { .. })));
}

#[test]
fn a_log_grows_by_partitions_and_keeps_its_records() {
    let dir = scratch();
    let store1 = store(&dir);
    let old = store1.log("log").unwrap();
    old.append("first").unwrap();
    let grown = store1.log_with("log", LogOptions::new().partitions(3)).unwrap();
    for number in 0..6 {
        grown.append(format!("{number}")).unwrap();
    }
    assert!((0..3).all(|number| grown.partition(number).unwrap().end_offset() >= 2));
    assert_eq!(old.partition(2).unwrap().append("through the old handle").unwrap(), 2);
    drop((old, grown));
    store1.close().unwrap();
    let log = store(&dir).log("log").unwrap();
    let mut read = values(log.read(StartAt::Earliest).unwrap());
    read.sort();
    let expected: [&[u8]; 8] = [b"0", b"1", b"2", b"3", b"4", b"5", b"first", b"through the old handle"];
    assert_eq!(read, expected);
}

#[test]
fn a_deleted_log_is_gone_and_one_made_again_inherits_nothing() {
    let dir = scratch();
    let store1 = store(&dir);
    let log = store1.log_with("log", LogOptions::new().partitions(2).max_record_bytes(100)).unwrap();
    let kept = store1.log("kept").unwrap();
    for log in [&log, &kept] {
        log.append_batch([Record::new("a").key("a"), Record::new("b").key("b")]).unwrap();
        let mut consumer = log.consumer("group").at_least_once().unwrap();
        while let Some(batch) = consumer.poll(Duration::ZERO).unwrap() {
            batch.commit().unwrap();
        }
    }
    let reader = log.read(StartAt::Earliest).unwrap();
    store1.delete_log("log").unwrap();
    assert!(matches!(store1.delete_log("log"), Err(Error::NoSuchLog { .. })));
    assert!(matches!(store1.open_log("log"), Err(Error::NoSuchLog { .. })));
    assert_eq!(store1.logs().unwrap(), ["kept"]);
    assert!(log.append("late").is_err(), "a handle of a deleted log takes no record");
    drop((reader, log));
    assert!(!dir.path().join("logs").join("log").exists());
    assert!(store1.group("group").placemarks().unwrap().iter().all(|placemark| placemark.log == "kept"));

    let again = store1.log("log").unwrap();
    assert!(again.partition(1).is_err());
    assert_eq!(again.partition(0).unwrap().end_offset(), 0);
    again.append(vec![1; 1000]).unwrap();
    let mut consumer = again.consumer("group").at_least_once().unwrap();
    assert_eq!(consumer.poll(WAIT).unwrap().unwrap().offsets(), 0..1);
    drop((again, consumer, kept));
    store1.close().unwrap();

    let store2 = store(&dir);
    assert_eq!(store2.logs().unwrap(), ["kept", "log"]);
    assert_eq!(values(store2.log("kept").unwrap().read(StartAt::Earliest).unwrap()), [b"a", b"b"]);
    assert_eq!(values(store2.log("log").unwrap().read(StartAt::Earliest).unwrap()), [vec![1; 1000]]);
}

#[test]
fn an_empty_log_takes_no_more_than_64_kib_of_disk() {
    let dir = scratch();
    let store = options().open(dir.path()).unwrap();
    store.log("empty").unwrap();
    let directory = dir.path().join("logs").join("empty");
    let limit = 64 << 10;
    let live = files::disk_bytes(&directory);
    assert!(live <= limit, "open it takes {live}");
    store.close().unwrap();
    let closed = files::disk_bytes(&directory);
    assert!(closed <= limit, "closed it takes {closed}");
    let store = options().open(dir.path()).unwrap();
    store.open_log("empty").unwrap();
    let reopened = files::disk_bytes(&directory);
    assert!(reopened <= limit, "opened again it takes {reopened}");
}

#[test]
fn a_closed_log_takes_the_disk_of_its_records() {
    let dir = scratch();
    let store = store(&dir);
    let log = store.log("small").unwrap();
    for _ in 0..1000 {
        log.append(vec![b'.'; 100]).unwrap();
    }
    store.close().unwrap();
    let taken = files::disk_bytes(&dir.path().join("logs").join("small"));
    assert!(taken < 136_000 + (64 << 10), "{taken}");
    let longest = fs::metadata(&files::segments(&files::partition(dir.path(), "small", 0))[0]).unwrap().len();
    assert!(longest < 140_000, "the file is {longest} bytes long");
}
