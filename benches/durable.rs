//! What an append costs that waits for the disk, beside a bare `pwrite` and `fdatasync` into an allocated file, and what
//! group commit makes of many threads.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use placemark::{Durability, LogOptions};

use common::limits::Synced;
use common::{Contest, Subject, subject, together};

const VALUE: &[u8] = &[7; 100];

fn by(subject: &Subject, threads: u64, iterations: u64) -> Duration {
    let partitions = u64::from(subject.log.partitions());
    together(threads, iterations.next_multiple_of(threads), |thread, count| {
        let partition = subject.log.partition(u32::try_from(thread % partitions).unwrap()).unwrap();
        for _ in 0..count {
            partition.append(VALUE).unwrap();
        }
    })
}

/// A log that has grown past its first small steps.
fn grown(partitions: u32) -> Subject {
    let subject = subject(Durability::Sync, LogOptions::new().partitions(partitions));
    for partition in 0..partitions {
        subject.log.partition(partition).unwrap().append(vec![7; 1 << 20]).unwrap();
    }
    subject
}

fn durable(criterion: &mut Criterion) {
    let (one, eight, raw) = (grown(1), grown(8), Synced::new());
    Contest::new("append 100 B, Sync, one thread", 15, 100)
        .way("placemark", |n| by(&one, 1, n))
        .way("pwrite + fdatasync", |n| raw.write(n, VALUE))
        .hold(criterion);
    for threads in [4, 16, 64] {
        Contest::new(format!("append 100 B, Sync, threads: {threads}, one partition"), 9, threads * 50)
            .way("placemark", |n| by(&one, threads, n))
            .way("one thread", |n| by(&one, 1, n / threads) * u32::try_from(threads).unwrap())
            .way("pwrite + fdatasync", |n| raw.write(n / threads, VALUE) * u32::try_from(threads).unwrap())
            .hold(criterion);
    }
    Contest::new("append 100 B, Sync, threads: 64, eight partitions", 9, 64 * 50)
        .way("placemark", |n| by(&eight, 64, n))
        .way("pwrite + fdatasync", |n| raw.write(n / 64, VALUE) * 64)
        .hold(criterion);
    println!("bytes written to the disk by one durable append: {}", written_by(|| by(&one, 1, 500)) / 500);
    println!("the same by a bare pwrite and fdatasync: {}", written_by(|| raw.write(500, VALUE)) / 500);
}

fn written_by(work: impl FnOnce() -> Duration) -> u64 {
    let written = || -> u64 {
        let counts = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        counts.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0)
    };
    let before = written();
    work();
    written() - before
}

criterion_group!(benches, durable);
criterion_main!(benches);
