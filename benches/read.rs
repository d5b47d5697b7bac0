//! What a read costs: a scan beside a bare walk over frames with their CRC, and the way to one record.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use criterion::{Criterion, criterion_group, criterion_main};
use placemark::{Durability, Record, StartAt, Store};

use common::{Contest, Subject, limits, one_segment, timed};

const COUNT: usize = 400_000;
const VALUE: &[u8] = &[7; 100];

/// A log of `COUNT` records, in batches of so many, each batch later than the one before.
fn filled(batch: usize) -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Os).open(dir.path()).unwrap();
    let log = store.log_with("bench", one_segment()).unwrap();
    for first in (0..COUNT).step_by(batch) {
        log.append_batch((first..first + batch).map(|_| Record::new(VALUE).timestamp(time(first as u64)))).unwrap();
    }
    Subject { log, store, dir }
}

fn time(number: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + number)
}

fn scan(subject: &Subject) {
    let read: usize = subject.log.read(StartAt::Earliest).unwrap().map(|entry| entry.unwrap().value().len()).sum();
    assert!(black_box(read) >= COUNT * VALUE.len());
}

/// Whole passes, scaled to the number asked for.
fn passes(iterations: u64, pass: impl Fn()) -> Duration {
    let count = (iterations / COUNT as u64).max(1);
    let took = timed(|| (0..count).for_each(|_| pass()));
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    took.mul_f64(iterations as f64 / (count * COUNT as u64) as f64)
}

fn first(subject: &Subject, start: impl Fn(u64) -> StartAt, iterations: u64) -> Duration {
    timed(|| {
        for number in 0..iterations {
            let at = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % COUNT as u64;
            black_box(subject.log.read(start(at)).unwrap().next().unwrap().unwrap());
        }
    })
}

fn read(criterion: &mut Criterion) {
    for batch in [1000, 1] {
        let (subject, frames) = (filled(batch), limits::frames(COUNT, batch, VALUE));
        Contest::new(format!("scan of 100 B, records a frame: {batch}"), 15, COUNT as u64)
            .way("placemark", |n| passes(n, || scan(&subject)))
            .limit("a bare walk with CRC", 0.7, |n| passes(n, || assert!(black_box(limits::walk(&frames)) > 0)))
            .hold(criterion);
    }
    let (single, batched) = (filled(1), filled(1000));
    Contest::new("first record read at a random offset, one a frame", 9, 5000)
        .way("placemark", |n| first(&single, StartAt::Offset, n))
        .way("the same at a random time", |n| first(&single, |at| StartAt::Time(time(at)), n))
        .way("the same of batches of 1000", |n| first(&batched, StartAt::Offset, n))
        .hold(criterion);
}

criterion_group!(benches, read);
criterion_main!(benches);
