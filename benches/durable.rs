//! What an append costs that waits for the disk, beside a bare `pwrite` and `fdatasync` into an allocated file, and what
//! group commit makes of many threads.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use placemark::{Durability, LogOptions, Store};

use common::limits::{GroupCommit, Synced};
use common::{Contest, Subject, copied, rows, subject, together};

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
    let (one, eight, raw, group) = (grown(1), grown(8), Synced::new(), GroupCommit::new());
    Contest::new("append 100 B, Sync, one thread", 25, 100)
        .way("placemark", |n| by(&one, 1, n))
        .limit("pwrite + fdatasync", 0.95, |n| raw.write(n, VALUE))
        .hold(criterion);
    for threads in [4, 16, 64] {
        let times = u32::try_from(threads).unwrap();
        let contest = Contest::new(format!("append 100 B, Sync, {threads} threads, one partition"), 15, threads * 50)
            .way("placemark", |n| by(&one, threads, n))
            .way("pwrite + fdatasync", |n| raw.write(n / threads, VALUE) * times);
        let contest = if threads == 16 {
            contest.limit("one thread", 6.0, |n| by(&one, 1, n / threads) * times).limit(
                "a bare group commit",
                0.95,
                |n| group.write(threads, n, VALUE),
            )
        } else {
            contest.way("a bare group commit", |n| group.write(threads, n, VALUE))
        };
        contest.hold(criterion);
    }
    for threads in [1, 4, 16, 64] {
        Contest::new(format!("append 100 B, Sync, {threads} threads, eight partitions"), 9, threads * 50)
            .way("placemark", |n| by(&eight, threads, n))
            .way("a bare group commit", |n| group.write(threads, n, VALUE))
            .hold(criterion);
    }
    drop(eight);
    written(&one, &raw);
}

/// What one durable append has the disk write: a sync writes whole pages of the cache, which may be large.
fn written(one: &Subject, raw: &Synced) {
    let bare = written_by(|| raw.write(500, VALUE)) / 500;
    let say = |what: &str, subject: &Subject| {
        let bytes = written_by(|| by(subject, 1, 500)) / 500;
        let measured = format!("{bytes} B; a bare pwrite and fdatasync: {bare} B");
        rows::row(
            &format!("written to the disk by one durable append, {what}"),
            &measured,
            "at most 8192 B",
            Some(bytes <= 8192),
        );
    };
    say("in one run", one);
    let dir = copied(one.dir.path());
    let store = Store::options().durability(Durability::Sync).open(dir.path()).unwrap();
    let log = store.log("bench").unwrap();
    say("after a crash and its recovery", &Subject { log, store, dir });
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
