//! What the tests of idempotent producers share: records that say their sequences, and what became of them.

use placemark::{Appended, Log, LogOptions, Position, Producer, Record, StartAt};

use super::values;

/// A log whose segments are soon full.
pub(crate) fn small(partitions: u32) -> LogOptions {
    LogOptions::new().partitions(partitions).segment_bytes(64 << 10)
}

/// Where a new record went.
#[track_caller]
pub(crate) fn new(appended: Appended) -> Position {
    match appended {
        Appended::New(at) => at,
        Appended::Duplicate(at) => panic!("a duplicate of {at:?}"),
    }
}

/// Where a duplicate is, if that is known.
#[track_caller]
pub(crate) fn duplicate(appended: Appended) -> Option<Position> {
    match appended {
        Appended::Duplicate(at) => at,
        Appended::New(at) => panic!("new at {at:?}"),
    }
}

/// Appends each number as its own value: large enough to roll small segments.
pub(crate) fn append(producer: &mut Producer, sequence: u64) -> Appended {
    producer.append(sequence, value(sequence)).unwrap()
}

pub(crate) fn value(sequence: u64) -> Vec<u8> {
    format!("{sequence:.<1000}").into_bytes()
}

pub(crate) fn sequence(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().trim_end_matches('.').parse().unwrap()
}

/// A key that goes to this partition, found by trying.
pub(crate) fn key_for(log: &Log, partition: u32) -> String {
    let goes_there = |key: &String| log.append(Record::new("probe").key(key)).unwrap().partition == partition;
    (0..1000).map(|number: u32| number.to_string()).find(goes_there).unwrap()
}

/// The sequences that a log holds, by partition and offset.
pub(crate) fn sequences(log: &Log) -> Vec<u64> {
    values(log.read(StartAt::Earliest).unwrap()).iter().map(|value| sequence(value)).collect()
}
