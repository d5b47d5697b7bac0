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

const APPENDS: u64 = 200_000;
const READS: u64 = 20_000;

/// Records of about 1 KiB: so many make a MiB.
const PER_MIB: u64 = 1024;

/// Reads fall into so much of a log, so that both have all of it in memory.
const WINDOW: u64 = 64 * PER_MIB;

fn filled(mib: u64) -> Subject {
    let subject = subject(Durability::Os, LogOptions::new());
    for _ in 0..mib {
        subject.log.append_batch((0..PER_MIB).map(|_| &[7; 1016])).unwrap();
    }
    subject.store.sync().unwrap();
    subject
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
            let at = window + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % WINDOW;
            black_box(subject.log.read(StartAt::Offset(at)).unwrap().next().unwrap().unwrap());
        }
    })
}

/// All of the window, in order.
fn scan(subject: &Subject, window: u64) -> Duration {
    let count = usize::try_from(WINDOW).unwrap();
    timed(|| {
        let entries = subject.log.read(StartAt::Offset(window)).unwrap().take(count);
        assert!(black_box(entries.map(|entry| entry.unwrap().value().len()).sum::<usize>()) > 0);
    })
}

fn flat(criterion: &mut Criterion) {
    let gib = std::env::var("PLACEMARK_BENCH_GIB").ok().and_then(|gib| gib.parse().ok()).unwrap_or(1);
    common::warm_up();
    let (large, small) = (filled(gib * 1024), filled(100));
    let (middle, first) = (gib * 1024 / 2 * PER_MIB, 16 * PER_MIB);
    let beside = "the same at 100 MiB";
    Contest::new(format!("read a record at a random offset, at {gib} GiB of log"), 21, READS)
        .way("placemark", |n| read(&large, middle, n))
        .limit(beside, 0.9, |n| read(&small, first, n))
        .hold(criterion);
    Contest::new(format!("scan of 1 KiB, records in batches, at {gib} GiB of log"), 21, WINDOW)
        .way("placemark", |_| scan(&large, middle))
        .limit(beside, 0.9, |_| scan(&small, first))
        .hold(criterion);
    // A new small one each time: appending makes it larger.
    Contest::new(format!("append 100 B, Os, at {gib} GiB of log"), 21, APPENDS)
        .way("placemark", |n| append(&large, n))
        .limit(beside, 0.9, |n| append(&filled(100), n))
        .hold(criterion);
}

criterion_group!(benches, flat);
criterion_main!(benches);
