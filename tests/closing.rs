//! Closing: what it unlocks, what then answers `Closed`, and what keeps a store open.

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::thread;
use std::time::{Duration, Instant};

use placemark::{Error, StartAt, Store};

use common::{SHORT, WAIT, entries, in_cache, options, scratch, values, within};

fn is_open(dir: &tempfile::TempDir) -> bool {
    match in_cache().open(dir.path()) {
        Ok(store) => {
            store.close().expect("a store that was just opened closes");
            false
        }
        Err(Error::Locked { .. }) => true,
        Err(other) => panic!("{other}"),
    }
}

fn store(dir: &tempfile::TempDir) -> Store {
    in_cache().open(dir.path()).expect("the store opens")
}

#[test]
fn close_unlocks_at_once_and_every_handle_then_answers_closed() {
    let dir = scratch();
    let store = store(&dir);
    let log = store.log("orders").unwrap();
    log.append_batch(["a", "b"]).unwrap();
    let partition = log.partition(0).unwrap();
    let mut reader = log.read(StartAt::Earliest).unwrap();
    let mut consumer = log.consumer("group").at_least_once().unwrap();
    let batch = consumer.poll(WAIT).unwrap().unwrap();
    let mut transaction = store.transaction();
    transaction.append(&log, "never").unwrap();
    let entry = reader.next().unwrap().unwrap();
    let second = store.clone();
    store.close().unwrap();
    assert!(!is_open(&dir));
    assert!(matches!(log.append("c"), Err(Error::Closed)));
    assert!(matches!(log.append_batch(["c", "d"]), Err(Error::Closed)));
    assert!(matches!(partition.append("c"), Err(Error::Closed)));
    assert!(matches!(log.read(StartAt::Earliest), Err(Error::Closed)));
    assert!(matches!(reader.next(), Some(Err(Error::Closed))));
    assert!(matches!(reader.recv_timeout(Duration::ZERO), Err(Error::Closed)));
    assert!(matches!(second.log("orders"), Err(Error::Closed)));
    assert!(matches!(second.log("new"), Err(Error::Closed)));
    assert!(matches!(second.logs(), Err(Error::Closed)));
    assert!(matches!(second.sync(), Err(Error::Closed)));
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Closed)));
    assert!(matches!(batch.commit(), Err(Error::Closed)));
    assert!(matches!(transaction.commit(), Err(Error::Closed)));
    assert_eq!(entry.value(), b"a");
    let store = in_cache().open(dir.path()).unwrap();
    assert_eq!(values(store.log("orders").unwrap().read(StartAt::Earliest).unwrap()), [b"a", b"b"]);
    assert!(store.group("group").placemarks().unwrap().iter().all(|placemark| placemark.offset == 0));
}

#[test]
fn closing_wakes_whoever_waits() {
    within(WAIT, || {
        let dir = scratch();
        let store = store(&dir);
        let log = store.log("orders").unwrap();
        let mut reader = log.read(StartAt::Earliest).unwrap();
        let mut consumer = log.consumer("group").at_most_once().unwrap();
        let reading = thread::spawn(move || reader.recv_timeout(WAIT * 2).map(drop));
        let polling = thread::spawn(move || consumer.poll(WAIT * 2).map(drop));
        // Both ways must work: whoever waits already is woken, whoever comes later is told at once.
        thread::sleep(SHORT);
        let closed = Instant::now();
        store.close().unwrap();
        assert!(matches!(reading.join().unwrap(), Err(Error::Closed)));
        assert!(matches!(polling.join().unwrap(), Err(Error::Closed)));
        assert!(closed.elapsed() < WAIT / 3);
    });
}

#[test]
fn dropping_the_last_handle_closes_and_an_entry_or_batch_does_not_hold_it_open() {
    let dir = scratch();
    let store = store(&dir);
    let log = store.log("orders").unwrap();
    let partition = log.partition(0).unwrap();
    log.append_batch(["a", "b", "c"]).unwrap();
    drop(store);
    assert!(is_open(&dir), "a log keeps it open");
    drop(log);
    assert!(is_open(&dir), "a partition keeps it open");
    let read = entries(partition.read(StartAt::Earliest).unwrap());
    drop(partition);
    assert!(!is_open(&dir), "an entry does not");
    assert_eq!(read[2].value(), b"c");

    let store = in_cache().open(dir.path()).unwrap();
    let mut consumer = store.log("orders").unwrap().consumer("group").at_least_once().unwrap();
    let batch = consumer.poll(WAIT).unwrap().unwrap();
    drop((consumer, store));
    assert!(!is_open(&dir), "a batch does not");
    assert_eq!(batch.len(), 3);
    assert!(matches!(batch.commit(), Err(Error::Closed)));
}

#[test]
fn a_reader_a_consumer_and_a_transaction_each_keep_the_store_open() {
    let dir = scratch();
    let log = store(&dir).log("orders").unwrap();
    log.append("a").unwrap();
    let mut reader = log.read(StartAt::Earliest).unwrap();
    drop(log);
    assert!(is_open(&dir));
    assert_eq!(reader.next().unwrap().unwrap().value(), b"a");
    drop(reader);
    assert!(!is_open(&dir));

    let mut consumer = store(&dir).log("orders").unwrap().consumer("group").at_least_once().unwrap();
    assert!(is_open(&dir));
    consumer.poll(WAIT).unwrap().unwrap().commit().unwrap();
    drop(consumer);
    assert!(!is_open(&dir));

    let store = in_cache().open(dir.path()).unwrap();
    let mut transaction = store.transaction();
    transaction.append(&store.log("orders").unwrap(), "b").unwrap();
    drop(store);
    assert!(is_open(&dir));
    transaction.commit().unwrap();
    assert!(!is_open(&dir));
    let log = in_cache().open(dir.path()).unwrap().log("orders").unwrap();
    assert_eq!(values(log.read(StartAt::Earliest).unwrap()), [b"a", b"b"]);
}

#[test]
fn closing_twice_is_closed_or_nothing_and_harms_no_one() {
    let dir = scratch();
    let store = options().open(dir.path()).unwrap();
    store.log("orders").unwrap().append("a").unwrap();
    store.close().unwrap();
    assert!(matches!(store.close(), Ok(()) | Err(Error::Closed)));
    let again = options().open(dir.path()).unwrap();
    // The handle of before is of a store that is gone: it does nothing to the one that is open now.
    let _ = store.close();
    drop(store);
    assert!(is_open(&dir));
    again.log("orders").unwrap().append("b").unwrap();
}

#[test]
fn appends_while_the_store_closes_are_either_refused_or_there() {
    within(WAIT, || {
        let dir = scratch();
        let store = store(&dir);
        let log = store.log("orders").unwrap();
        let appenders: Vec<_> = (0..4)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || {
                    let mut given = Vec::new();
                    loop {
                        match log.append("record") {
                            Ok(at) => given.push(at.offset),
                            Err(Error::Closed) => return given,
                            Err(other) => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        let mut reader = log.read(StartAt::Earliest).unwrap();
        for _ in 0..1000 {
            reader.recv_timeout(WAIT).unwrap().unwrap();
        }
        store.close().unwrap();
        let mut given: Vec<_> = appenders.into_iter().flat_map(|appender| appender.join().unwrap()).collect();
        given.sort_unstable();
        let store = in_cache().open(dir.path()).unwrap();
        let end = store.log("orders").unwrap().partition(0).unwrap().end_offset();
        assert_eq!(given, (0..end).collect::<Vec<_>>());
        assert_eq!(store.recovery().cut_bytes(), 0);
    });
}

#[test]
fn a_record_that_fails_after_the_close_is_told_so() {
    let dir = scratch();
    let store = options().open(dir.path()).unwrap();
    let log = store.log("log").unwrap();
    log.append_batch(["first", "second"]).unwrap();
    let batch = log.consumer("group").at_least_once().unwrap().poll(WAIT).unwrap().unwrap();
    store.close().unwrap();
    assert!(matches!(batch.fail(0, "late"), Err(Error::Closed)));
}
