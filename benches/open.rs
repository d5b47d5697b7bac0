//! How long it takes to open a store and read a first record: closed cleanly, and as a crash left it; and to load a side
//! log of a million placemarks.
//!
//! The large sizes take disk: `PLACEMARK_BENCH_GIB` says how large the largest log may be, 1 if it says nothing.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use placemark::{Durability, LogOptions, StartAt, Store};
use tempfile::TempDir;

use common::{Contest, Subject, copied, limits, rows, shown, subject, timed};

/// A log of so many MiB, in batches.
fn filled(mib: u64) -> Subject {
    let subject = subject(Durability::Os, LogOptions::new());
    for _ in 0..mib {
        subject.log.append_batch((0..1024).map(|_| &[7; 1016])).unwrap();
    }
    subject
}

fn open_and_read(dir: &Path) -> Duration {
    let mut store = None;
    let took = timed(|| {
        let opened = Store::options().durability(Durability::Os).open(dir).unwrap();
        let log = opened.log("bench").unwrap();
        assert!(log.read(StartAt::Earliest).unwrap().next().unwrap().is_ok());
        store = Some(opened);
    });
    store.unwrap().close().unwrap();
    took
}

fn clean(criterion: &mut Criterion, largest: u64) {
    for mib in [16, 1024, 10 * 1024].into_iter().filter(|mib| *mib <= largest) {
        let Subject { log, store, dir } = filled(mib);
        drop(log);
        store.close().unwrap();
        Contest::new(format!("open and read the first record, closed cleanly, {mib} MiB"), 15, 1)
            .way("placemark", |n| (0..n).map(|_| open_and_read(dir.path())).sum())
            .at_most(1e-3)
            .hold(criterion);
    }
}

/// Opening what a crash left, `tail` MiB behind the recovery point. Under `Sync` each frame vouches for those before it,
/// and the tail is read; under `Os` nothing has vouched for it, and it is written again.
fn after_crash(tail: u64, durability: Durability) {
    let options = LogOptions::new().segment_bytes(2 << 30).durability(durability);
    let Subject { log, store, dir } = subject(Durability::Os, options);
    store.sync().unwrap();
    for _ in 0..tail {
        log.append_batch((0..1024).map(|_| &[7; 1016])).unwrap();
    }
    let crashed = copied(dir.path());
    if durability == Durability::Sync {
        // What is vouched for was on the disk. Of the copy it is so once that is synced; else opening would write it.
        synced(crashed.path());
    }
    drop((log, store, dir));
    let seconds = open_and_read(crashed.path()).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = (tail << 20) as f64;
    let speed = bytes / seconds / 1e9;
    let measured = format!("{} ({speed:.2} GB/s)", shown(seconds));
    let what = |how: &str| format!("open after a crash, {tail} MiB behind the recovery point, {how}");
    // What is written again goes to the disk at the disk's speed; what opening takes besides is in both.
    if durability == Durability::Sync {
        rows::row(&what("vouched for"), &measured, "3 GB/s", (tail >= 1024).then_some(speed >= 3.0));
    } else {
        let disk = limits::disk(tail << 20);
        let measured = format!("{measured}; {:.2} x writing and syncing as much ({})", disk / seconds, shown(disk));
        rows::row(&what("nothing vouched for"), &measured, "the disk's speed", None);
    }
}

/// Takes all files of a directory to the disk.
fn synced(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { synced(&path) } else { fs::File::open(&path).unwrap().sync_all().unwrap() }
    }
}

/// A store whose side log has placemarks of `groups` groups in `partitions` partitions.
fn with_placemarks(groups: u32, partitions: u32) -> TempDir {
    let Subject { log, store, dir } = subject(Durability::Os, LogOptions::new().partitions(partitions));
    for group in 0..groups {
        drop(log.consumer(&format!("group-{group}")).at_least_once().unwrap());
    }
    drop(log);
    store.close().unwrap();
    dir
}

fn open(criterion: &mut Criterion) {
    let gib = std::env::var("PLACEMARK_BENCH_GIB").ok().and_then(|gib| gib.parse().ok()).unwrap_or(1);
    common::warm_up();
    clean(criterion, gib * 1024);
    for (tail, durability) in [16, 1024].into_iter().flat_map(|tail| [(tail, Durability::Sync), (tail, Durability::Os)])
    {
        after_crash(tail, durability);
    }
    let (groups, partitions) = (1000, 1000);
    let dir = with_placemarks(groups, partitions);
    let took = timed(|| drop(Store::options().durability(Durability::Os).open(dir.path()).unwrap()));
    rows::row(&format!("open a store with {} placemarks", groups * partitions), &shown(took.as_secs_f64()), "", None);
}

criterion_group!(benches, open);
criterion_main!(benches);
