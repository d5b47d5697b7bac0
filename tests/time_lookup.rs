//! Reading from a time: the first record at or after it, whatever order the times have.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use placemark::{LogOptions, Partition, Record, StartAt};

use common::{Numbers, in_cache, offsets, scratch};

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// Compares the lookup of many times, those of records and those beside and between them, with a plain search.
fn check(partition: &Partition, times: &[u64]) {
    let step = times.len() / 100 + 1;
    let probes: BTreeSet<_> =
        times.iter().step_by(step).flat_map(|time| [time.saturating_sub(1), *time, time + 1]).collect();
    for probe in probes.into_iter().chain([0, u64::from(u32::MAX) * 1000]) {
        let expected = times.iter().position(|time| *time >= probe).unwrap_or(times.len()) as u64;
        let mut reader = partition.read(StartAt::Time(at(probe))).unwrap();
        match reader.next() {
            Some(entry) => assert_eq!(entry.unwrap().offset(), expected, "looking for {probe}"),
            None => assert_eq!(expected, times.len() as u64, "looking for {probe}"),
        }
    }
}

fn with_times(times: &[u64]) {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("times", LogOptions::new().segment_bytes(64 << 10)).unwrap();
    let partition = log.partition(0).unwrap();
    let record = |time: &u64| Record::new(vec![b'v'; 200]).timestamp(at(*time));
    let (singly, batched) = times.split_at(times.len() / 2);
    for time in singly {
        partition.append(record(time)).unwrap();
    }
    for batch in batched.chunks(7) {
        partition.append_batch(batch.iter().map(record)).unwrap();
    }
    check(&partition, times);
    drop((partition, log));
    store.close().unwrap();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.open_log("times").unwrap();
    check(&log.partition(0).unwrap(), times);
}

#[test]
fn sorted_times_are_found() {
    let mut numbers = Numbers::new(3);
    let mut now = 1_000_000;
    let times: Vec<_> = (0..2000)
        .map(|_| {
            now += numbers.below(5);
            now
        })
        .collect();
    with_times(&times);
}

#[test]
fn unsorted_times_are_found() {
    let mut numbers = Numbers::new(4);
    with_times(&(0..2000).map(|_| 1_000_000 + numbers.below(1_000_000)).collect::<Vec<_>>());
}

#[test]
fn falling_times_and_one_far_ahead_are_found() {
    let mut times: Vec<_> = (0..2000).map(|number| 3_000_000 - number * 1000).collect();
    with_times(&times);
    times[700] = 9_000_000;
    with_times(&times);
}

#[test]
fn a_part_of_a_millisecond_counts_as_a_later_time() {
    let dir = scratch();
    let log = in_cache().open(dir.path()).unwrap().log("times").unwrap();
    log.append(Record::new("a").timestamp(at(1000))).unwrap();
    log.append(Record::new("b").timestamp(at(1001))).unwrap();
    let between = at(1000) + Duration::from_nanos(1);
    assert_eq!(offsets(log.read(StartAt::Time(between)).unwrap()), [1]);
}

#[test]
fn a_log_is_looked_up_in_each_of_its_partitions_and_goes_on_at_the_end() {
    let dir = scratch();
    let log = in_cache().open(dir.path()).unwrap().log_with("times", LogOptions::new().partitions(2)).unwrap();
    for partition in 0..2 {
        let partition = log.partition(partition).unwrap();
        partition.append_batch((0..10).map(|second| Record::new("v").timestamp(at(second * 1000)))).unwrap();
    }
    let mut found = offsets(log.read(StartAt::Time(at(8000))).unwrap());
    found.sort_unstable();
    assert_eq!(found, [8, 8, 9, 9]);
    let mut reader = log.read(StartAt::Time(at(9001))).unwrap();
    assert!(reader.next().is_none());
    log.partition(1).unwrap().append(Record::new("late").timestamp(at(0))).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().offset(), 10);
}
