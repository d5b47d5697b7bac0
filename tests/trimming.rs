//! Records are given up by hand: whole segments, oldest first, and nothing that anyone still needs.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use placemark::storage::{Crash, Fault, Keep, Operation, SimDisk};
use placemark::{Durability, Error, Log, LogOptions, Partition, Result, StartAt, Store};

use common::producing::{sequence, small, value};
use common::{WAIT, entries, files, in_cache, options, scratch, within};

/// So many records of a thousand bytes are several segments.
const RECORDS: u64 = 300;

fn filled(store: &Store) -> (Log, Partition) {
    let log = store.log_with("log", small(1)).unwrap();
    for number in 0..RECORDS {
        log.append(value(number)).unwrap();
    }
    let partition = log.partition(0).unwrap();
    (log, partition)
}

/// Whether exactly the records from the start on are there.
#[track_caller]
fn check(partition: &Partition, start: u64, end: u64) {
    assert_eq!((partition.start_offset(), partition.end_offset()), (start, end));
    let read = entries(partition.read(StartAt::Earliest).unwrap());
    assert!(read.iter().map(|entry| (entry.offset(), sequence(entry.value()))).eq((start..end).map(|at| (at, at))));
    if start > 0 {
        let below = partition.read(StartAt::Offset(start - 1));
        assert!(matches!(below, Err(Error::OffsetOutOfRange { start: found, .. }) if found == start), "{below:?}");
    }
}

#[test]
fn it_stops_at_the_boundary_of_a_segment_and_clamps_at_the_end() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, partition) = filled(&store);
    partition.trim_before(0).unwrap();
    check(&partition, 0, RECORDS);
    let bases: Vec<u64> =
        files::segments(&files::partition(dir.path(), "log", 0)).iter().map(|it| files::base(it)).collect();
    let [_, second, third, ..] = bases[..] else { panic!("{bases:?}") };
    for (before, start) in
        [(1, 0), (second - 1, 0), (second, second), (third - 1, second), (third + 1, third), (0, third)]
    {
        partition.trim_before(before).unwrap();
        check(&partition, start, RECORDS);
    }
    let last = *bases.last().unwrap();
    partition.trim_before(RECORDS - 1).unwrap();
    check(&partition, last, RECORDS);
    partition.trim_before(RECORDS).unwrap();
    check(&partition, RECORDS, RECORDS);
    for number in RECORDS..RECORDS + 10 {
        assert_eq!(log.append(value(number)).unwrap().offset, number);
    }
    partition.trim_before(u64::MAX).unwrap();
    check(&partition, RECORDS + 10, RECORDS + 10);
    partition.trim_before(u64::MAX).unwrap();
    check(&partition, RECORDS + 10, RECORDS + 10);
    drop((log, partition));
    store.close().unwrap();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.open_log("log").unwrap();
    check(&log.partition(0).unwrap(), RECORDS + 10, RECORDS + 10);
    assert_eq!(log.append(value(RECORDS + 10)).unwrap().offset, RECORDS + 10, "no offset comes twice");
}

#[test]
fn giving_up_everything_frees_the_disk() {
    for (closed, durability) in [(false, Durability::Os), (true, Durability::Os), (false, Durability::Sync)] {
        let dir = scratch();
        let store = options().durability(durability).open(dir.path()).unwrap();
        let (mut log, mut partition) = filled(&store);
        if closed {
            drop((log, partition));
            store.close().unwrap();
            let store = options().durability(durability).open(dir.path()).unwrap();
            log = store.open_log("log").unwrap();
            partition = log.partition(0).unwrap();
        }
        let directory = files::partition(dir.path(), "log", 0);
        assert!(files::disk_bytes(&directory) > 300_000);
        partition.trim_before(u64::MAX).unwrap();
        let left = files::disk_bytes(&directory);
        assert!(left <= 64 << 10, "{left} bytes are left, closed before: {closed}, {durability:?}");
        assert_eq!(files::segments(&directory).len(), 1);
        assert_eq!(log.append(value(RECORDS)).unwrap().offset, RECORDS);
        check(&partition, RECORDS, RECORDS + 1);
    }
}

#[test]
fn who_reads_a_segment_that_goes_finishes_it_and_is_told_what_was_missed() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, partition) = filled(&store);
    let mut reader = partition.read(StartAt::Earliest).unwrap();
    let first = reader.next().unwrap().unwrap();
    let mut consumer = log.consumer("group").max_poll_records(10).at_least_once().unwrap();
    consumer.poll(Duration::ZERO).unwrap().unwrap().commit().unwrap();
    partition.trim_before(RECORDS - 10).unwrap();
    let start = partition.start_offset();
    let read: Vec<u64> = reader.by_ref().map(|entry| entry.unwrap().offset()).collect();
    let finished = read.iter().take_while(|offset| **offset < start).count() as u64;
    assert!(finished > 20, "{read:?}");
    assert!(read.iter().copied().eq((1..=finished).chain(start..RECORDS)), "{read:?}");
    assert_eq!(reader.skipped(), start - 1 - finished);
    assert_eq!(sequence(first.value()), 0, "an entry stays readable");
    let mut missed = 0;
    let mut next = Vec::new();
    while let Some(batch) = consumer.poll(Duration::ZERO).unwrap() {
        missed += batch.skipped();
        next.push(batch.offsets());
        batch.commit().unwrap();
    }
    // What it had fetched ahead may still come.
    let got: u64 = next.iter().map(|offsets| offsets.end - offsets.start).sum();
    assert_eq!(10 + got + missed, RECORDS, "{next:?}");
}

#[test]
fn a_group_whose_records_are_all_gone_is_told_with_the_next_batch() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, partition) = filled(&store);
    let mut consumer = log.consumer("billing").max_poll_records(1).at_least_once().unwrap();
    consumer.poll(WAIT).unwrap().unwrap().commit().unwrap();
    let end = partition.end_offset();
    partition.trim_before(end).unwrap();
    assert_eq!(partition.start_offset(), end);
    assert!(consumer.poll(Duration::ZERO).unwrap().is_none());
    log.append("later").unwrap();
    let batch = consumer.poll(WAIT).unwrap().unwrap();
    assert_eq!((batch.offsets(), batch.skipped()), (end..end + 1, end - 1));
}

#[test]
fn a_partition_that_is_gone_says_so() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, partition) = filled(&store);
    drop(log);
    store.delete_log("log").unwrap();
    assert!(matches!(partition.trim_before(5), Err(Error::NoSuchLog { .. })));
    let other = store.log("other").unwrap().partition(0).unwrap();
    store.close().unwrap();
    assert!(matches!(other.trim_before(5), Err(Error::Closed)));
}

#[test]
fn a_record_that_is_on_its_way_is_not_given_up_before_it_was_there() {
    within(WAIT, || {
        for durability in [Durability::Sync, Durability::Os] {
            let dir = scratch();
            let store = options().durability(durability).open(dir.path()).unwrap();
            let log = store.log_with("log", small(1)).unwrap();
            let partition = log.partition(0).unwrap();
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let (log, stop) = (&log, &stop);
                let writers: Vec<_> = (0..3)
                    .map(|_| {
                        scope.spawn(move || {
                            let mut appended = Vec::new();
                            while !stop.load(Ordering::Relaxed) {
                                appended.push(log.append(value(7)).unwrap().offset);
                            }
                            appended
                        })
                    })
                    .collect();
                for _ in 0..25 {
                    // What was readable by now may go, and what was not may not.
                    let end = partition.end_offset();
                    partition.trim_before(end).unwrap();
                    let start = partition.start_offset();
                    assert!(start <= end, "{start} is past {end}, where it was to be trimmed");
                    thread::sleep(Duration::from_millis(3));
                }
                stop.store(true, Ordering::Relaxed);
                let mut all: Vec<u64> = writers.into_iter().flat_map(|it| it.join().unwrap()).collect();
                all.sort_unstable();
                assert!(all.iter().copied().eq(0..all.len() as u64));
                assert_eq!(partition.end_offset(), all.len() as u64);
            });
            let (start, end) = (partition.start_offset(), partition.end_offset());
            assert_eq!(partition.read(StartAt::Earliest).unwrap().count() as u64, end - start);
        }
    });
}

// ---- power loss ----

const PATH: &str = "/var/lib/data";

fn open(disk: &SimDisk) -> Result<Store> {
    Store::options().storage(Arc::new(disk.clone())).open(PATH)
}

/// What was done when the power failed.
#[derive(Debug, Default)]
struct Done {
    /// Durable since a transaction committed, a sync or a trim.
    durable: u64,
    /// Given up, or being so.
    trimming: u64,
    trimmed: u64,
    /// The placemark of the group, by a transaction.
    placemark: u64,
}

/// Appends, commits transactions into the log with a placemark of it, and trims, whole and in part.
fn run(disk: &SimDisk, done: &mut Done) -> Result<()> {
    let store = open(disk)?;
    // Where records may be lost, and placemarks not.
    let log = store.log_with("log", LogOptions::new().segment_bytes(64 << 10).durability(Durability::Os))?;
    let partition = log.partition(0)?;
    let mut consumer = log.consumer("group").max_poll_records(15).exactly_once()?;
    let mut next = 0;
    for round in 0..8 {
        for _ in 0..9 {
            log.append(value(next).repeat(3))?;
            next += 1;
        }
        if let Some(batch) = consumer.poll(Duration::ZERO)? {
            let mut transaction = store.transaction();
            for _ in 0..2 {
                transaction.append(&log, value(next).repeat(3))?;
                next += 1;
            }
            let placemark = batch.offsets().end;
            transaction.commit_with(batch)?;
            (done.placemark, done.durable) = (placemark, next);
        }
        let before = match round {
            2 | 5 => done.placemark,
            6 => u64::MAX,
            _ => continue,
        };
        done.trimming = before.min(next);
        partition.trim_before(before)?;
        // Full segments were sealed first.
        done.trimmed = partition.start_offset();
    }
    store.close()
}

#[test]
fn a_power_loss_at_any_operation_leaves_the_records_or_their_absence_and_all_that_was_decided() {
    let whole = SimDisk::new(1);
    let mut done = Done::default();
    run(&whole, &mut done).unwrap();
    assert!(done.trimmed > 60 && done.placemark > 40, "{done:?}");
    let all = whole.operations();
    for after in 0..=all {
        let disk = SimDisk::new(1);
        disk.crash_after(after);
        let mut done = Done::default();
        let _ = run(&disk, &mut done);
        let keep = [Keep::Nothing, Keep::Random, Keep::Everything, Keep::Random];
        let keep = keep.into_iter().cycle().nth(usize::try_from(after).unwrap()).unwrap();
        let what = format!("power lost after operation {after} of {all}, {keep:?}: {done:?}");
        let left = disk.crash(Crash::new(after).keep(keep));
        let store = open(&left).unwrap_or_else(|error| panic!("{what}: {error}"));
        let log = store.log("log").unwrap();
        let partition = log.partition(0).unwrap();
        let (start, end) = (partition.start_offset(), partition.end_offset());
        assert!(start >= done.trimmed && start <= done.trimming.max(done.trimmed), "{what}: {start}");
        assert!(end >= start.max(done.durable), "{what}: {end}");
        // What transactions brought is there, as far as it was not given up; each record is the one of its offset.
        for entry in entries(partition.read(StartAt::Earliest).unwrap()) {
            assert_eq!(entry.value(), value(entry.offset()).repeat(3), "{what}");
        }
        let placemarks = store.group("group").placemarks().unwrap();
        let placemark = placemarks.first().map_or(0, |it| it.offset);
        assert!(placemark >= done.placemark && placemark <= end, "{what}: {placemark}");
        let at = log.append("next").unwrap().offset;
        assert!(at >= end, "{what}");
        partition.trim_before(u64::MAX).unwrap();
        assert_eq!((partition.start_offset(), partition.end_offset()), (at + 1, at + 1), "{what}");
        store.close().unwrap();
    }
}

#[test]
fn a_removal_that_fails_is_an_error_and_finished_by_the_next_opening() {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    let log = store.log_with("log", small(1)).unwrap();
    for number in 0..RECORDS {
        log.append(value(number)).unwrap();
    }
    let partition = log.partition(0).unwrap();
    disk.inject(Fault::new(Operation::Remove, io::ErrorKind::PermissionDenied).at(".log").nth(2).forever());
    assert!(matches!(partition.trim_before(u64::MAX), Err(Error::Io { .. })));
    assert!(matches!(log.append("next"), Err(Error::Failed { .. })));
    let left = disk.kill();
    let log = open(&left).unwrap().log("log").unwrap();
    assert_eq!(log.partition(0).unwrap().start_offset(), RECORDS);
    let segments = left
        .files()
        .into_iter()
        .filter(|path| path.starts_with("/var/lib/data/logs") && path.extension().is_some_and(|it| it == "log"));
    assert_eq!(segments.count(), 1);
}
