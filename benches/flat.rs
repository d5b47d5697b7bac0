//! Whether a log stays as fast as it grows: appends and reads of a large one beside those of one of 100 MiB.
//!
//! `PLACEMARK_BENCH_GIB` says how large the large one is, 1 if it says nothing; so much disk is needed.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use placemark::{Durability, LogOptions, StartAt};

use common::{Contest, Subject, subject, timed};

/// So many fill a segment and more: the next one is begun in every round, of the small log too.
const APPENDS: u64 = 260_000;
const READS: u64 = 20_000;

/// Records of about 1 KiB: so many make a MiB.
const PER_MIB: u64 = 1024;

/// Reads fall into so many MiB of a log, so that both have all of it in memory.
const WINDOW: u64 = 40;

/// Small enough that what is read stands in full segments in both: the one that is appended to is mapped otherwise.
const SEGMENT: u64 = 32 << 20;

/// What stands before and behind the windows of the small log.
const AROUND: u64 = 10;

/// A log, and where its windows begin.
struct Log {
    subject: Subject,
    mib: u64,
    in_batches: u64,
    singly: u64,
}

impl Log {
    fn new() -> Self {
        let options = LogOptions::new().segment_bytes(SEGMENT);
        Self { subject: subject(Durability::Os, options), mib: 0, in_batches: 0, singly: 0 }
    }

    fn next(&self) -> u64 {
        self.subject.log.partition(0).unwrap().end_offset()
    }

    fn fill_in_batches(&mut self, mib: u64) {
        for _ in 0..mib {
            self.subject.log.append_batch((0..PER_MIB).map(|_| &[7; 1016])).unwrap();
        }
        self.mib += mib;
    }

    fn fill_singly(&mut self, mib: u64) {
        for _ in 0..mib * PER_MIB {
            self.subject.log.append(&[7; 1016]).unwrap();
        }
        self.mib += mib;
    }
}

/// A log of so many GiB, and one of 100 MiB. Their windows are made in turn: at the speed of memory a read's time says
/// where the pages lie, which depends on when they were asked for, and would speak louder than the size of a log.
fn filled(gib: u64) -> (Log, Log) {
    let (mut large, mut small) = (Log::new(), Log::new());
    large.fill_in_batches(gib * 512);
    small.fill_in_batches(AROUND);
    for log in [&mut large, &mut small] {
        log.in_batches = log.next();
        log.singly = log.in_batches + WINDOW * PER_MIB;
    }
    for _ in 0..WINDOW {
        large.fill_in_batches(1);
        small.fill_in_batches(1);
    }
    for _ in 0..WINDOW {
        large.fill_singly(1);
        small.fill_singly(1);
    }
    small.fill_in_batches(AROUND);
    large.fill_in_batches(gib * 1024 - large.mib);
    assert_eq!((large.mib, small.mib), (gib * 1024, 100));
    for log in [&large, &small] {
        log.subject.store.sync().unwrap();
    }
    (large, small)
}

fn append(subject: &Subject, iterations: u64) -> Duration {
    timed(|| {
        for _ in 0..iterations {
            subject.log.append(black_box(&[7; 100])).unwrap();
        }
    })
}

/// First records from anywhere in the window.
fn read(subject: &Subject, window: u64, iterations: u64) -> Duration {
    timed(|| {
        for number in 0..iterations {
            let at = window + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (WINDOW * PER_MIB);
            black_box(subject.log.read(StartAt::Offset(at)).unwrap().next().unwrap().unwrap());
        }
    })
}

/// All of the window, in order.
fn scan(subject: &Subject, window: u64) -> Duration {
    let count = usize::try_from(WINDOW * PER_MIB).unwrap();
    timed(|| {
        let entries = subject.log.read(StartAt::Offset(window)).unwrap().take(count);
        assert!(black_box(entries.map(|entry| entry.unwrap().value().len()).sum::<usize>()) > 0);
    })
}

/// A log of 100 MiB.
fn small_one() -> Subject {
    let mut log = Log::new();
    log.fill_in_batches(100);
    log.subject.store.sync().unwrap();
    log.subject
}

fn flat(criterion: &mut Criterion) {
    let gib = std::env::var("PLACEMARK_BENCH_GIB").ok().and_then(|gib| gib.parse().ok()).unwrap_or(1);
    common::warm_up();
    let (large, small) = filled(gib);
    let beside = "the same at 100 MiB";
    Contest::new(format!("read a record at a random offset, one a frame, at {gib} GiB of log"), 41, 10 * READS)
        .way("placemark", |n| read(&large.subject, large.singly, n))
        .limit(beside, 0.9, |n| read(&small.subject, small.singly, n))
        .hold(criterion);
    Contest::new(format!("read a record at a random offset, 1024 a frame, at {gib} GiB of log"), 41, READS)
        .way("placemark", |n| read(&large.subject, large.in_batches, n))
        .limit(beside, 0.9, |n| read(&small.subject, small.in_batches, n))
        .hold(criterion);
    Contest::new(format!("scan of 1 KiB, records in batches, at {gib} GiB of log"), 41, WINDOW * PER_MIB)
        .way("placemark", |_| scan(&large.subject, large.in_batches))
        .limit(beside, 0.9, |_| scan(&small.subject, small.in_batches))
        .hold(criterion);
    // A new small one each time: appending makes it larger.
    Contest::new(format!("append 100 B, Os, at {gib} GiB of log"), 41, APPENDS)
        .way("placemark", |n| append(&large.subject, n))
        .limit(beside, 0.9, |n| append(&small_one(), n))
        .hold(criterion);
}

criterion_group!(benches, flat);
criterion_main!(benches);
