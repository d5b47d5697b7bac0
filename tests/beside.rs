//! Work done beside other work: batches polled ahead, how many of them, and the order of each key.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use placemark::{AtLeastOnce, Batch, Consumer, Entry, Error, Log, LogOptions, Record, StartAt, Store, WriteMode};

use placemark::storage::{Fault, Operation, SimDisk};

use common::{Numbers, SHORT, WAIT, in_cache, scratch, within};

fn store(dir: &tempfile::TempDir) -> Store {
    in_cache().open(dir.path()).unwrap()
}

/// A log of one partition whose records have these keys, and their offsets as values.
fn keyed(store: &Store, keys: &[&str]) -> Log {
    let log = store.log("orders").unwrap();
    append(&log, keys);
    log
}

fn append(log: &Log, keys: &[&str]) {
    for key in keys {
        let record = Record::new("order");
        log.append(if key.is_empty() { record } else { record.key(*key) }).unwrap();
    }
}

/// One record at a time, in the order of keys.
fn by_key(log: &Log) -> Consumer<AtLeastOnce> {
    log.consumer("billing").by_key().max_poll_records(1).at_least_once().unwrap()
}

fn take(consumer: &mut Consumer<AtLeastOnce>) -> Batch<AtLeastOnce> {
    consumer.poll(WAIT).unwrap().expect("there are records to deliver")
}

fn nothing(consumer: &mut Consumer<AtLeastOnce>) -> bool {
    consumer.poll(Duration::ZERO).unwrap().is_none()
}

fn offsets(batch: &Batch<AtLeastOnce>) -> Vec<u64> {
    batch.iter().map(Entry::offset).collect()
}

#[test]
fn after_a_failure_no_commit_is_acknowledged_not_even_one_that_moves_nothing() {
    let disk = SimDisk::new(1);
    let store = Store::options().storage(Arc::new(disk.clone())).write_mode(WriteMode::Pwrite).open("/data").unwrap();
    let log = keyed(&store, &["", "", ""]);
    let mut consumer = log.consumer("billing").max_poll_records(1).at_least_once().unwrap();
    let [first, second, third] = [(); 3].map(|()| take(&mut consumer));
    second.commit().unwrap();
    disk.inject(Fault::new(Operation::Write, ErrorKind::Other).at("/placemarks/"));
    assert!(matches!(first.commit(), Err(Error::Io { .. })));
    assert!(matches!(third.commit(), Err(Error::Failed { .. })));
}

#[test]
fn a_record_waits_for_those_before_it_of_its_key_and_for_no_others() {
    let dir = scratch();
    let store = store(&dir);
    let log = keyed(&store, &["ann", "ann", "bob", "", "ann", "", "bob"]);
    let mut consumer = by_key(&log);
    let [ann, bob, none, also_none] = [(); 4].map(|()| take(&mut consumer));
    assert_eq!([&ann, &bob, &none, &also_none].map(offsets), [[0], [2], [3], [5]]);
    assert!(nothing(&mut consumer));
    assert_eq!(consumer.position(0), Some(1));
    assert_eq!(consumer.lag().unwrap()[0].records, 3);

    bob.commit().unwrap();
    let next_of_bob = take(&mut consumer);
    assert_eq!(offsets(&next_of_bob), [6]);
    assert!(nothing(&mut consumer));
    ann.commit().unwrap();
    assert_eq!(consumer.committed(0), Some(1));
    let next_of_ann = take(&mut consumer);
    assert_eq!(offsets(&next_of_ann), [1]);
    assert!(nothing(&mut consumer));
    for batch in [none, also_none, next_of_bob] {
        batch.commit().unwrap();
    }
    assert_eq!(consumer.committed(0), Some(1), "the placemark moves over what is settled without a gap");
    next_of_ann.commit().unwrap();
    assert_eq!(consumer.committed(0), Some(4));
    take(&mut consumer).commit().unwrap();
    assert_eq!(consumer.committed(0), Some(7));
    assert!(nothing(&mut consumer));
    assert_eq!(consumer.lag().unwrap()[0].records, 0);
}

#[test]
fn a_batch_holds_records_whose_keys_are_in_no_other() {
    let dir = scratch();
    let store = store(&dir);
    let log = keyed(&store, &["ann", "bob", "ann", "cid", "bob", "dan", "ann", "cid"]);
    let mut consumer = log.consumer("billing").by_key().max_poll_records(3).at_least_once().unwrap();
    let first = take(&mut consumer);
    assert_eq!((offsets(&first), first.offsets()), (vec![0, 1, 2], 0..3), "records of one key may share a batch");
    let second = take(&mut consumer);
    assert_eq!((offsets(&second), second.offsets()), (vec![3, 5, 7], 3..8));
    assert!(nothing(&mut consumer));
    second.commit().unwrap();
    assert_eq!(consumer.committed(0), None);
    first.commit().unwrap();
    assert_eq!(consumer.committed(0), Some(4));
    let last = take(&mut consumer);
    assert_eq!(offsets(&last), [4, 6]);
    last.commit().unwrap();
    assert_eq!(consumer.committed(0), Some(8));
}

#[test]
fn what_is_dropped_comes_again_before_what_follows_of_its_key() {
    let dir = scratch();
    let store = store(&dir);
    let log = keyed(&store, &["ann", "bob", "ann", "bob"]);
    let mut consumer = by_key(&log);
    let [ann, bob] = [(); 2].map(|()| take(&mut consumer));
    drop(ann);
    bob.commit().unwrap();
    let ann = take(&mut consumer);
    assert_eq!(offsets(&ann), [0]);
    let bob = take(&mut consumer);
    assert_eq!(offsets(&bob), [3]);
    assert!(nothing(&mut consumer));
    ann.commit().unwrap();
    assert_eq!(offsets(&take(&mut consumer)), [2]);
}

#[test]
fn one_key_holds_others_up_only_where_as_much_as_may_be_has_been_looked_at() {
    const LOOK_AHEAD: usize = 4096;
    let dir = scratch();
    let store = store(&dir);
    let log = store.log("orders").unwrap();
    log.append_batch((0..5000).map(|_| Record::new("order").key("hot"))).unwrap();
    append(&log, &["cold"]);
    let mut consumer = by_key(&log);
    let mut hot = take(&mut consumer);
    let mut settled = 0;
    let cold = loop {
        match consumer.poll(Duration::ZERO).unwrap() {
            Some(other) => break other,
            None => hot.commit().unwrap(),
        }
        settled += 1;
        hot = take(&mut consumer);
    };
    assert_eq!(offsets(&cold), [5000]);
    assert_eq!(offsets(&hot), [settled]);
    // From the record behind the hot one to the cold one, both included.
    assert_eq!(usize::try_from(5000 - settled).unwrap(), LOOK_AHEAD);
}

#[test]
fn another_member_goes_on_with_what_waited() {
    let dir = scratch();
    let store = store(&dir);
    let log = keyed(&store, &["ann", "ann", "bob", "ann"]);
    let mut first = by_key(&log);
    let [ann, bob] = [(); 2].map(|()| take(&mut first));
    bob.commit().unwrap();
    drop(first);
    let mut second = by_key(&log);
    assert!(nothing(&mut second), "the batch in flight still counts");
    ann.commit().unwrap();
    let ann = take(&mut second);
    assert_eq!(offsets(&ann), [1]);
    assert!(nothing(&mut second));
    drop(second);
    ann.commit().unwrap();

    // One that asks for no order gets what waited, and nothing of what was settled.
    let mut third = log.consumer("billing").at_least_once().unwrap();
    let rest = take(&mut third);
    assert_eq!(offsets(&rest), [3]);
    rest.commit().unwrap();
    assert!(nothing(&mut third));
    assert_eq!(third.committed(0), Some(4));
}

#[test]
fn a_seek_and_a_pause_hold_where_records_wait_for_their_key() {
    let dir = scratch();
    let store = store(&dir);
    let log = keyed(&store, &["ann", "ann", "bob", "bob", "cid"]);
    let mut consumer = by_key(&log);
    let ann = take(&mut consumer);
    consumer.pause(0).unwrap();
    assert!(nothing(&mut consumer));
    consumer.resume(0).unwrap();
    consumer.seek(0, StartAt::Offset(3)).unwrap();
    let bob = take(&mut consumer);
    assert_eq!(offsets(&bob), [3]);
    consumer.seek(0, StartAt::Earliest).unwrap();
    let cid = take(&mut consumer);
    assert_eq!(offsets(&cid), [4], "what is in flight from before the seek is still of its key");
    drop(ann);
    let again = take(&mut consumer);
    assert_eq!(offsets(&again), [0]);
    assert!(nothing(&mut consumer));
    bob.commit().unwrap();
    assert_eq!(offsets(&take(&mut consumer)), [2]);
}

#[test]
fn what_is_gone_before_it_was_read_is_counted_once() {
    let dir = scratch();
    let store = store(&dir);
    let log = store.log_with("orders", LogOptions::new().segment_bytes(64 << 10)).unwrap();
    let keys: Vec<String> = (0..400).map(|number| format!("key {}", number % 7)).collect();
    let value = "x".repeat(1000);
    for key in &keys {
        log.append(Record::new(&value).key(key)).unwrap();
    }
    let mut consumer = by_key(&log);
    take(&mut consumer).commit().unwrap();
    let partition = log.partition(0).unwrap();
    partition.trim_before(u64::MAX).unwrap();
    assert!(nothing(&mut consumer));
    log.append("later").unwrap();
    let batch = take(&mut consumer);
    assert_eq!((offsets(&batch), batch.skipped()), (vec![400], 399));
    batch.commit().unwrap();
    assert_eq!(consumer.committed(0), Some(401));
}

#[test]
fn options_without_a_meaning_are_refused() {
    let dir = scratch();
    let store = store(&dir);
    let log = store.log("orders").unwrap();
    let option = |error: Error| match error {
        Error::InvalidOption { option, .. } => option.to_string(),
        other => panic!("{other:?}"),
    };
    let builder = || log.consumer("billing");
    assert_eq!(option(builder().max_in_flight(0).at_least_once().unwrap_err()), "max_in_flight");
    assert_eq!(option(builder().max_in_flight(1).at_most_once().unwrap_err()), "max_in_flight");
    assert_eq!(option(builder().by_key().exactly_once().unwrap_err()), "by_key");
    let load = |_| Ok::<_, std::convert::Infallible>(None);
    assert_eq!(option(builder().by_key().exactly_once_from(load).unwrap_err()), "by_key");
    assert!(store.groups().unwrap().is_empty(), "what was refused has made no group known");
}

#[test]
fn a_poll_waits_for_room_and_goes_on_when_a_batch_is_settled_elsewhere() {
    let dir = scratch();
    let store = store(&dir);
    let log = keyed(&store, &["", "", ""]);
    let mut consumer = log.consumer("billing").max_poll_records(1).max_in_flight(2).at_least_once().unwrap();
    let [first, second] = [(); 2].map(|()| take(&mut consumer));
    assert!(consumer.poll(SHORT).unwrap().is_none());
    let (polled, batch) = mpsc::channel();
    thread::spawn(move || polled.send(offsets(&take(&mut consumer))));
    assert!(batch.recv_timeout(SHORT).is_err());
    second.commit().unwrap();
    assert_eq!(batch.recv_timeout(WAIT).unwrap(), [2]);
    drop(first);
}

#[test]
fn a_poll_waits_for_a_key_and_goes_on_when_it_is_free() {
    let dir = scratch();
    let store = store(&dir);
    let log = keyed(&store, &["ann", "ann"]);
    let mut consumer = by_key(&log);
    let first = take(&mut consumer);
    let (polled, batch) = mpsc::channel();
    let waiting = thread::spawn(move || {
        for _ in 0..2 {
            let batch = take(&mut consumer);
            polled.send(offsets(&batch)).unwrap();
            batch.commit().unwrap();
        }
    });
    assert!(batch.recv_timeout(SHORT).is_err());
    append(&log, &["ann", "bob"]);
    assert_eq!(batch.recv_timeout(WAIT).unwrap(), [3], "a record of a key that is free ends the wait");
    assert!(batch.recv_timeout(SHORT).is_err());
    first.commit().unwrap();
    assert_eq!(batch.recv_timeout(WAIT).unwrap(), [1]);
    within(WAIT, move || waiting.join().unwrap());
}

/// What workers have done.
#[derive(Debug, Default)]
struct Done {
    records: u64,
    /// The last offset of each partition and key.
    last: BTreeMap<(u32, Vec<u8>), u64>,
    /// The partitions and keys that are worked on now.
    now: BTreeSet<(u32, Vec<u8>)>,
    dropped: u64,
    most_beside: usize,
}

/// Works on batches, and gives some of them back, until there are no more.
fn labour(work: &Mutex<mpsc::Receiver<Batch<AtLeastOnce>>>, done: &Mutex<Done>, mut chance: Numbers) {
    loop {
        let received = work.lock().unwrap().recv();
        let Ok(batch) = received else { return };
        let key_of = |entry: &Entry| (entry.partition(), entry.key().unwrap().to_vec());
        let keys: BTreeSet<_> = batch.iter().map(key_of).collect();
        {
            let mut done = done.lock().unwrap();
            for key in &keys {
                assert!(done.now.insert(key.clone()), "{key:?} is worked on twice at a time");
            }
            done.most_beside = done.most_beside.max(done.now.len());
        }
        thread::yield_now();
        let give_back = chance.below(10) == 0;
        let mut done = done.lock().unwrap();
        done.now.retain(|key| !keys.contains(key));
        if give_back {
            done.dropped += 1;
            continue;
        }
        for entry in &batch {
            let last = done.last.insert(key_of(entry), entry.offset());
            assert!(last.is_none_or(|last| last < entry.offset()), "{entry:?} came after {last:?}");
            done.records += 1;
        }
        // Before it is settled, since from then on others may have its keys.
        drop(done);
        batch.commit().unwrap();
    }
}

#[test]
fn workers_beside_one_another_do_each_record_once_and_each_key_in_order() {
    const RECORDS: u64 = 20_000;
    let dir = scratch();
    let store = store(&dir);
    let log = store.log_with("orders", LogOptions::new().partitions(2).segment_bytes(256 << 10)).unwrap();
    let mut numbers = Numbers::new(7);
    for _ in 0..RECORDS {
        // Low numbers are far more frequent than others.
        let most = 1 + numbers.below(60);
        log.append(Record::new("order").key(numbers.below(most).to_be_bytes().to_vec())).unwrap();
    }
    let done = Arc::new(Mutex::new(Done::default()));
    let (hand, work) = mpsc::channel();
    let work = Arc::new(Mutex::new(work));
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (work, done) = (Arc::clone(&work), Arc::clone(&done));
            thread::spawn(move || labour(&work, &done, Numbers::new(worker)))
        })
        .collect();
    let consumer = log.consumer("billing").by_key().max_poll_records(3).max_in_flight(8);
    let mut consumer = consumer.at_least_once().unwrap();
    let seen = Arc::clone(&done);
    within(4 * WAIT, move || {
        while seen.lock().unwrap().records < RECORDS && workers.iter().all(|worker| !worker.is_finished()) {
            if let Some(batch) = consumer.poll(SHORT).unwrap() {
                hand.send(batch).unwrap();
            }
        }
        drop(hand);
        for worker in workers {
            worker.join().unwrap();
        }
        assert!(nothing(&mut consumer));
    });
    let placemarks = store.group("billing").placemarks().unwrap();
    assert!(placemarks.iter().all(|placemark| placemark.lag == 0), "{placemarks:?}");
    let done = done.lock().unwrap();
    assert_eq!(done.records, RECORDS);
    assert!(done.dropped > 100 && done.most_beside > 3, "{done:?}");
}

#[test]
fn after_a_crash_what_was_settled_over_a_gap_comes_again_in_the_order_of_its_key() {
    let disk = SimDisk::new(1);
    let open = |disk: &SimDisk| Store::options().storage(Arc::new(disk.clone())).open("/store");
    let store = open(&disk).unwrap();
    let log = keyed(&store, &["ann", "bob", "ann", "bob", "cid"]);
    let mut consumer = by_key(&log);
    let [ann, bob] = [(); 2].map(|()| take(&mut consumer));
    bob.commit().unwrap();
    take(&mut consumer).commit().unwrap();
    ann.commit().unwrap();
    let second_of_ann = take(&mut consumer);
    let cid = take(&mut consumer);
    assert_eq!([&second_of_ann, &cid].map(offsets), [[2], [4]]);
    cid.commit().unwrap();
    assert_eq!(consumer.committed(0), Some(2));

    let disk = disk.kill();
    let store = open(&disk).unwrap();
    let mut consumer = by_key(&store.log("orders").unwrap());
    let batches = [(); 3].map(|()| take(&mut consumer));
    assert_eq!(batches.each_ref().map(offsets), [[2], [3], [4]]);
    assert!(nothing(&mut consumer));
}
