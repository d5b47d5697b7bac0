//! The work whose instructions `benches/count.sh` counts: so many operations of one kind, and nothing else.
//!
//! A run of twice as many operations less a run of as many gives the cost of one, whatever starting and ending cost.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;
use std::time::Duration;

use placemark::{Durability, Log, LogOptions, Record, StartAt, Store};

fn main() {
    // Cargo adds `--bench`; without a kind of work there is none, as under `cargo bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let [kind, count] = &arguments[..] else { return };
    let count: usize = count.parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(dir.path()).unwrap();
    let log = store.log_with("counted", LogOptions::new().segment_bytes(1 << 30)).unwrap();
    match kind.as_str() {
        "append-100" => append(&log, count, &[7; 100]),
        "append-1024" => append(&log, count, &[7; 1024]),
        "produce-100" => produce(&log, count, &[7; 100]),
        "batch-100" => append_in_batches(&log, count, &[7; 100]),
        "consume-100" => {
            append_in_batches(&log, 10_000, &[7; 100]);
            consume(&log, count);
        }
        "scan-100" => {
            append_in_batches(&log, 10_000, &[7; 100]);
            scan(&log, count);
        }
        "scan-single-100" => {
            append(&log, 10_000, &[7; 100]);
            scan(&log, count);
        }
        other => panic!("no such work: {other}"),
    }
}

fn append(log: &Log, count: usize, value: &[u8]) {
    for _ in 0..count {
        log.append(black_box(value)).unwrap();
    }
}

fn produce(log: &Log, count: usize, value: &[u8]) {
    let mut producer = log.producer("counted").unwrap();
    for sequence in 0..count as u64 {
        producer.append(sequence, black_box(value)).unwrap();
    }
}

/// Counts records, in batches of 1000.
fn append_in_batches(log: &Log, count: usize, value: &[u8]) {
    let batch: Vec<Record<'_>> = (0..1000).map(|_| Record::new(value)).collect();
    for _ in 0..count / 1000 {
        log.append_batch(black_box(&batch)).unwrap();
    }
}

/// Reads a record and moves the placemark over it, so many times, of the 10,000 that there are.
fn consume(log: &Log, count: usize) {
    let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
    for _ in 0..count / 10_000 {
        consumer.seek(0, StartAt::Earliest).unwrap();
        for _ in 0..10_000 {
            consumer.poll(Duration::from_secs(60)).unwrap().unwrap().commit().unwrap();
        }
    }
}

/// Reads so many entries, of the 10,000 that there are, from the first again and again.
fn scan(log: &Log, count: usize) {
    for _ in 0..count / 10_000 {
        let read = log.read(StartAt::Earliest).unwrap().map(|entry| entry.unwrap().value().len()).sum::<usize>();
        assert_eq!(black_box(read), 10_000 * 100);
    }
}
