//! Members of a group: how they share partitions, how one is handed over, and that a former owner is fenced.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use placemark::{AtLeastOnce, Batch, Consumer, Error, Log, LogOptions, Record, ResetTo, Store};

use common::{SHORT, WAIT, in_cache, scratch, within};

fn store(dir: &tempfile::TempDir) -> Store {
    in_cache().open(dir.path()).unwrap()
}

/// A log of so many partitions with so many records in each.
fn filled(store: &Store, partitions: u32, records: u32) -> Log {
    let log = store.log_with("orders", LogOptions::new().partitions(partitions)).unwrap();
    for partition in 0..partitions {
        let partition = log.partition(partition).unwrap();
        for number in 0..records {
            partition.append(&number.to_be_bytes()).unwrap();
        }
    }
    log
}

fn member(log: &Log) -> Consumer<AtLeastOnce> {
    log.consumer("group").max_poll_records(10).at_least_once().unwrap()
}

fn take<M>(consumer: &mut Consumer<M>) -> Batch<M> {
    consumer.poll(WAIT).unwrap().expect("there are records to deliver")
}

fn assigned<M>(consumer: &Consumer<M>) -> Vec<u32> {
    let mut partitions = consumer.assignment();
    partitions.sort_unstable();
    partitions
}

/// Whether the members own each partition once, in shares that differ by at most one.
fn check_shares(members: &[Consumer<AtLeastOnce>], partitions: u32) -> Vec<Vec<u32>> {
    let shares: Vec<_> = members.iter().map(assigned).collect();
    let mut all = shares.concat();
    all.sort_unstable();
    assert_eq!(all, (0..partitions).collect::<Vec<_>>(), "{shares:?}");
    let sizes = shares.iter().map(Vec::len);
    assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "{shares:?}");
    shares
}

#[test]
fn members_share_evenly_and_those_that_stay_keep_what_they_can() {
    let dir = scratch();
    let log = filled(&store(&dir), 7, 1);
    let mut members = vec![member(&log)];
    let mut before = check_shares(&members, 7);
    let mut generation = members[0].generation();
    for count in 2..=9 {
        members.push(member(&log));
        let now = check_shares(&members, 7);
        for (kept, had) in now.iter().zip(&before) {
            assert!(kept.iter().all(|partition| had.contains(partition)), "with {count}: {before:?}, then {now:?}");
        }
        assert!(members[0].generation() > generation, "a rebalance is a new generation");
        generation = members[0].generation();
        before = now;
    }
    while members.len() > 1 {
        let gone = members.len() / 2;
        drop(members.remove(gone));
        before.remove(gone);
        let now = check_shares(&members, 7);
        for (has, had) in now.iter().zip(&before) {
            assert!(had.iter().all(|partition| has.contains(partition)), "one left: {before:?}, then {now:?}");
        }
        before = now;
    }
}

#[test]
fn a_partition_is_handed_over_when_its_batch_is_settled_and_not_before() {
    for settled in [true, false] {
        let dir = scratch();
        let log = filled(&store(&dir), 2, 20);
        let mut first = member(&log);
        let mut held = [take(&mut first), take(&mut first)];
        held.sort_by_key(Batch::partition);
        assert_eq!(held.each_ref().map(Batch::partition), [0, 1], "both partitions are in flight");
        let mut second = member(&log);
        assert!(second.poll(SHORT).unwrap().is_none(), "no partition was given up yet");
        assert_eq!(assigned(&first), [0, 1], "who has batches in flight has their partitions");
        let [staying, moving] = held;
        // A member keeps its lowest partitions. What stays is settled as ever; it is the other batch that the newcomer
        // waits for.
        staying.commit().unwrap();
        assert!(second.poll(SHORT).unwrap().is_none());
        if settled {
            moving.commit().unwrap();
        } else {
            drop(moving);
        }
        let batch = take(&mut second);
        assert_eq!((batch.partition(), batch.offsets().start), (1, if settled { 10 } else { 0 }));
        assert_eq!((assigned(&first), assigned(&second)), (vec![0], vec![1]));
    }
}

#[test]
fn a_hand_over_needs_no_poll_and_no_presence_of_the_former_owner() {
    within(WAIT, || {
        let dir = scratch();
        let log = filled(&store(&dir), 1, 20);
        let mut first = member(&log);
        let batch = take(&mut first);
        drop(first);
        let mut second = member(&log);
        assert!(second.poll(SHORT).unwrap().is_none(), "a batch that outlives its consumer still counts");
        let waiting = thread::spawn(move || take(&mut second).offsets());
        thread::sleep(SHORT);
        batch.commit().unwrap();
        assert_eq!(waiting.join().unwrap(), 10..20);
    });
}

#[test]
fn a_member_that_panics_leaves_and_its_batch_goes_to_another() {
    let dir = scratch();
    let log = filled(&store(&dir), 2, 5);
    let mut stays = member(&log);
    let mut leaves = member(&log);
    let taken = take(&mut leaves);
    let (partition, offsets) = (taken.partition(), taken.offsets());
    let handler = panic::catch_unwind(AssertUnwindSafe(move || {
        let (_member, batch) = (leaves, taken);
        assert!(batch.is_empty(), "the handler fails on purpose");
    }));
    assert!(handler.is_err());
    let mut seen = BTreeMap::new();
    for _ in 0..2 {
        let batch = take(&mut stays);
        seen.insert(batch.partition(), batch.offsets());
        batch.commit().unwrap();
    }
    assert_eq!(seen.get(&partition), Some(&offsets));
    assert_eq!(assigned(&stays), [0, 1]);
}

#[test]
fn a_batch_held_past_the_processing_timeout_is_taken_back_and_its_settlement_fenced() {
    within(WAIT, || {
        let dir = scratch();
        let store = store(&dir);
        let log = filled(&store, 1, 10);
        let join = || log.consumer("group").processing_timeout(Duration::from_millis(30)).at_least_once().unwrap();
        let mut first = join();
        let started = Instant::now();
        let late = take(&mut first);
        assert_eq!(late.offsets(), 0..10);
        let mut second = join();
        drop(first);
        let again = take(&mut second);
        assert!(started.elapsed() >= Duration::from_millis(30), "taken back after {:?}", started.elapsed());
        assert_eq!(again.offsets(), 0..10);
        assert!(matches!(late.commit(), Err(Error::Fenced)));
        assert!(store.group("group").placemarks().unwrap().iter().all(|placemark| placemark.offset == 0));
        // The new owner's may be late too on a slow machine; then it is fenced and comes again.
        let mut batch = again;
        while let Err(error) = batch.commit() {
            assert!(matches!(error, Error::Fenced), "{error}");
            batch = take(&mut second);
        }
        assert_eq!(store.group("group").placemarks().unwrap()[0].offset, 10);
    });
}

#[test]
fn the_same_consumer_gets_a_batch_again_that_it_held_too_long() {
    within(WAIT, || {
        let dir = scratch();
        let log = filled(&store(&dir), 1, 3);
        let timeout = Duration::from_millis(30);
        let mut consumer = log.consumer("group").processing_timeout(timeout).at_least_once().unwrap();
        let late = take(&mut consumer);
        assert_eq!(take(&mut consumer).offsets(), 0..3);
        assert!(matches!(late.commit(), Err(Error::Fenced)));
    });
}

#[test]
fn a_batch_within_its_timeout_is_not_taken_back() {
    let dir = scratch();
    let log = filled(&store(&dir), 1, 3);
    let mut consumer = log.consumer("group").processing_timeout(WAIT * 10).at_least_once().unwrap();
    let batch = take(&mut consumer);
    assert!(consumer.poll(SHORT).unwrap().is_none());
    batch.commit().unwrap();
}

#[test]
fn what_a_closed_consumer_left_in_flight_still_counts_and_a_clean_one_leaves_at_once() {
    let dir = scratch();
    let log = filled(&store(&dir), 1, 20);
    let mut first = member(&log);
    take(&mut first).commit().unwrap();
    first.close().unwrap();
    let mut second = member(&log);
    let batch = take(&mut second);
    assert_eq!(batch.offsets(), 10..20);
    second.close().unwrap();
    batch.commit().unwrap();
    let mut third = member(&log);
    assert!(third.poll(Duration::ZERO).unwrap().is_none());
    assert_eq!(third.committed(0), Some(20));
}

#[test]
fn members_that_come_and_go_deliver_everything_and_what_is_committed_only_once() {
    const PARTITIONS: u32 = 5;
    const RECORDS: u32 = 2000;
    within(WAIT * 3, || {
        let dir = scratch();
        let store = store(&dir);
        let log = filled(&store, PARTITIONS, RECORDS);
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4_u32)
            .map(|thread| {
                let (log, barrier) = (log.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    let mut committed = Vec::new();
                    let mut round = thread;
                    loop {
                        let mut consumer = member(&log);
                        let mut idle = false;
                        for _ in 0..20 {
                            round += 1;
                            let Some(batch) = consumer.poll(SHORT).unwrap() else {
                                idle = true;
                                break;
                            };
                            let (partition, offsets) = (batch.partition(), batch.offsets());
                            if round % 7 == 0 {
                                drop(batch);
                                continue;
                            }
                            match batch.commit() {
                                Ok(()) => committed.extend(offsets.map(|offset| (partition, offset))),
                                Err(error) => panic!("{error}: a partition moves only once its batches are settled"),
                            }
                        }
                        let lag: u64 = consumer.lag().unwrap().iter().map(|it| it.records).sum();
                        if idle && lag == 0 {
                            return committed;
                        }
                    }
                })
            })
            .collect();
        let mut all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        all.sort_unstable();
        let each = (0..PARTITIONS).flat_map(|it| (0..u64::from(RECORDS)).map(move |offset| (it, offset)));
        assert!(all.iter().copied().eq(each), "{} committed", all.len());
        let placemarks = store.group("group").placemarks().unwrap();
        assert_eq!(placemarks.len(), PARTITIONS as usize);
        assert!(placemarks.iter().all(|placemark| placemark.offset == u64::from(RECORDS) && placemark.lag == 0));
    });
}

#[test]
fn a_partition_has_one_batch_in_flight_at_a_time_when_exactly_once() {
    let dir = scratch();
    let store = store(&dir);
    let log = store.log_with("orders", LogOptions::new().partitions(2)).unwrap();
    for partition in 0..2 {
        log.partition(partition).unwrap().append_batch((0..20).map(|_| Record::new("record"))).unwrap();
    }
    let mut consumer = log.consumer("group").max_poll_records(5).exactly_once().unwrap();
    let first = take(&mut consumer);
    let second = take(&mut consumer);
    assert_ne!(first.partition(), second.partition());
    assert!(consumer.poll(SHORT).unwrap().is_none());
    let partition = first.partition();
    store.transaction().commit_with(first).unwrap();
    let third = take(&mut consumer);
    assert_eq!((third.partition(), third.offsets()), (partition, 5..10));
    drop(second);
    assert_eq!(take(&mut consumer).offsets(), 0..5);
}

#[test]
fn a_batch_past_its_processing_timeout_counts_no_more_though_no_one_polls() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("log").unwrap();
    log.append("record").unwrap();
    let timeout = Duration::from_millis(20);
    let mut consumer = log.consumer("group").processing_timeout(timeout).at_least_once().unwrap();
    let batch = consumer.poll(WAIT).unwrap().unwrap();
    let held = Instant::now();
    while consumer.position(0) != Some(0) {
        assert!(held.elapsed() < WAIT, "it was never taken back");
        thread::yield_now();
    }
    assert!(held.elapsed() >= timeout / 2);
    assert!(matches!(batch.commit(), Err(Error::Fenced)));
    let batch = consumer.poll(WAIT).unwrap().unwrap();
    let held = Instant::now();
    while store.group("group").members().unwrap()[0].in_flight > 0 {
        assert!(held.elapsed() < WAIT, "it is in flight for ever");
        thread::yield_now();
    }
    assert!(matches!(batch.commit(), Err(Error::Fenced)));
    let batch = consumer.poll(WAIT).unwrap().unwrap();
    drop(consumer);
    let held = Instant::now();
    while matches!(store.group("group").reset(&log, ResetTo::Latest), Err(Error::GroupActive { .. })) {
        assert!(held.elapsed() < WAIT, "an orphan keeps the group for ever");
        thread::yield_now();
    }
    assert!(matches!(batch.commit(), Err(Error::Fenced)));
    assert_eq!(store.group("group").placemarks().unwrap()[0].offset, 1);
}

#[test]
fn a_processing_timeout_that_is_too_long_to_be_told_never_comes() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("log").unwrap();
    log.append("record").unwrap();
    let mut consumer = log.consumer("group").processing_timeout(Duration::MAX).at_least_once().unwrap();
    consumer.poll(WAIT).unwrap().unwrap().commit().unwrap();
}
