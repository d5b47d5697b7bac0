//! What it costs a consumer to read a record and move its placemark, in each mode and durability, and what a
//! transaction costs, beside bare syncs.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use placemark::{AtLeastOnce, Batch, Durability, Log, LogOptions, Record};

use common::limits::Synced;
use common::{Contest, Subject, subject, timed};

const VALUE: &[u8] = &[7; 100];
const WAIT: Duration = Duration::from_secs(60);

/// A log of at least `count` records.
fn filled(durability: Durability, count: u64) -> Subject {
    let subject = subject(durability, LogOptions::new());
    subject.log.append_batch((0..count).map(|_| VALUE)).unwrap();
    subject
}

fn at_most_once(durability: Durability, iterations: u64) -> Duration {
    let subject = filled(durability, iterations);
    let mut consumer = subject.log.consumer("group").max_poll_records(1).at_most_once().unwrap();
    timed(|| (0..iterations).for_each(|_| drop(consumer.poll(WAIT).unwrap().unwrap())))
}

fn at_least_once(durability: Durability, iterations: u64) -> Duration {
    let subject = filled(durability, iterations);
    let mut consumer = subject.log.consumer("group").max_poll_records(1).at_least_once().unwrap();
    timed(|| (0..iterations).for_each(|_| consumer.poll(WAIT).unwrap().unwrap().commit().unwrap()))
}

/// A log of at least `count` records, of a thousand keys in turn.
fn keyed(count: u64) -> Subject {
    let subject = subject(Durability::Os, LogOptions::new());
    subject.log.append_batch((0..count).map(|number| Record::new(VALUE).key((number % 1000).to_string()))).unwrap();
    subject
}

/// By batches, eight of them in flight; the order of each key is kept, or not.
fn beside(by_key: bool, records: usize, iterations: u64) -> Duration {
    let subject = keyed(iterations);
    let builder = subject.log.consumer("group").max_poll_records(records);
    let mut consumer = if by_key { builder.by_key() } else { builder }.at_least_once().unwrap();
    timed(|| {
        let (mut left, mut in_flight) = (iterations, VecDeque::new());
        while left > 0 {
            if in_flight.len() == 8 {
                in_flight.pop_front().map(Batch::<AtLeastOnce>::commit).unwrap().unwrap();
            }
            match consumer.poll(Duration::ZERO).unwrap() {
                Some(batch) => {
                    left = left.saturating_sub(batch.len() as u64);
                    in_flight.push_back(batch);
                }
                None => in_flight.pop_front().map(Batch::<AtLeastOnce>::commit).unwrap().unwrap(),
            }
        }
    })
}

/// Each record read becomes one of another log.
fn exactly_once(durability: Durability, iterations: u64) -> Duration {
    let subject = filled(durability, iterations);
    let out: Log = subject.store.log("out").unwrap();
    let mut consumer = subject.log.consumer("group").max_poll_records(1).exactly_once().unwrap();
    timed(|| {
        for _ in 0..iterations {
            let batch = consumer.poll(WAIT).unwrap().unwrap();
            let mut transaction = subject.store.transaction();
            for entry in &batch {
                transaction.append(&out, entry.value()).unwrap();
            }
            transaction.commit_with(batch).unwrap();
        }
    })
}

/// Transactions of one record in each of `logs` logs.
fn transaction(subject: &Subject, logs: &[Log], iterations: u64) -> Duration {
    timed(|| {
        for _ in 0..iterations {
            let mut transaction = subject.store.transaction();
            for log in logs {
                transaction.append(log, VALUE).unwrap();
            }
            transaction.commit().unwrap();
        }
    })
}

/// The placemark is kept with the results, here in a variable.
fn exactly_once_from(durability: Durability, iterations: u64) -> Duration {
    let subject = filled(durability, iterations);
    let kept = Arc::new(AtomicU64::new(0));
    let loaded = Arc::clone(&kept);
    let load = move |_| Ok::<_, std::io::Error>(Some(loaded.load(Ordering::Relaxed)));
    let mut consumer = subject.log.consumer("group").max_poll_records(1).exactly_once_from(load).unwrap();
    timed(|| {
        for _ in 0..iterations {
            let batch = consumer.poll(WAIT).unwrap().unwrap();
            kept.store(batch.offsets().end, Ordering::Relaxed);
            batch.commit().unwrap();
        }
    })
}

fn consume(criterion: &mut Criterion) {
    let raw = Synced::new();
    let interval = Durability::Interval(Duration::from_millis(100));
    for (name, durability) in [("Os", Durability::Os), ("Interval of 100 ms", interval)] {
        let contest = Contest::new(format!("read and commit one record, at least once, {name}"), 9, 100_000)
            .way("placemark", |n| at_least_once(durability, n))
            .way("at most once", |n| at_most_once(durability, n))
            .way("exactly once from a database", |n| exactly_once_from(durability, n));
        let contest = if durability == Durability::Os { contest.at_most(1.0 / 3e6) } else { contest };
        contest.hold(criterion);
    }
    Contest::new("read and commit one record, at least once, Sync", 15, 100)
        .way("placemark", |n| at_least_once(Durability::Sync, n))
        .limit("pwrite + fdatasync", 0.95, |n| raw.write(n, VALUE))
        .way("at most once", |n| at_most_once(Durability::Sync, n))
        .way("exactly once from a database", |n| exactly_once_from(Durability::Sync, n))
        .hold(criterion);
    for records in [1, 100] {
        Contest::new(format!("read and commit a keyed record, {records} to a batch, 8 batches beside"), 9, 100_000)
            .way("placemark, by key", |n| beside(true, records, n))
            .way("placemark, in any order", |n| beside(false, records, n))
            .hold(criterion);
    }
    for (name, durability) in [("Os", Durability::Os), ("Interval of 100 ms", interval), ("Sync", Durability::Sync)] {
        Contest::new(format!("read one record, write one, commit exactly once, {name}"), 9, 50)
            .way("placemark", |n| exactly_once(durability, n))
            .way("pwrite + fdatasync", |n| raw.write(n, VALUE))
            .hold(criterion);
    }
    let subject = subject(Durability::Sync, LogOptions::new());
    let logs: Vec<Log> = (0..8).map(|number| subject.store.log(&format!("log-{number}")).unwrap()).collect();
    for count in [1, 8] {
        let logs = logs.get(..count).unwrap();
        Contest::new(format!("transaction, records in so many logs: {count}"), 9, 50)
            .way("placemark", |n| transaction(&subject, logs, n))
            .way("pwrite + fdatasync", |n| raw.write(n, VALUE))
            .hold(criterion);
    }
}

criterion_group!(benches, consume);
criterion_main!(benches);
