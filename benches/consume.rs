//! What it costs a consumer to read a record and move its placemark, in each mode and durability, and what a
//! transaction costs, beside bare syncs.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use placemark::{Durability, Log, LogOptions};

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

fn consume(criterion: &mut Criterion) {
    let raw = Synced::new();
    Contest::new("read and commit one record, Os, at least once", 9, 100_000)
        .way("placemark", |n| at_least_once(Durability::Os, n))
        .way("at most once", |n| at_most_once(Durability::Os, n))
        .hold(criterion);
    Contest::new("read and commit one record, Sync, at least once", 9, 100)
        .way("placemark", |n| at_least_once(Durability::Sync, n))
        .way("at most once", |n| at_most_once(Durability::Sync, n))
        .way("pwrite + fdatasync", |n| raw.write(n, VALUE))
        .hold(criterion);
    for (name, durability) in [("Os", Durability::Os), ("Sync", Durability::Sync)] {
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
