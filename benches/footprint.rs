//! What a log takes: memory for each open partition, and disk for each record.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use placemark::{Durability, LogOptions, Record, StartAt, Store};

use common::{Subject, one_segment, rows, subject};

const PARTITIONS: u32 = 64;

/// Tells a process to open the store in this directory, and no more.
const OPEN: &str = "PLACEMARK_BENCH_OPEN";

fn main() {
    if let Some(dir) = std::env::var_os(OPEN) {
        return use_all(Path::new(&dir));
    }
    // Run by `cargo test` too, which only wants to see that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    for mib in if measured { &[0, 8][..] } else { &[0] } {
        memory(*mib);
    }
    let records = if measured { 1_000_000 } else { 1000 };
    disk(records, 1, 1.4);
    disk(records, 1000, 1.1);
}

/// Of partitions with so many MiB each, in a process of its own.
fn memory(mib: u32) {
    let Subject { log, store, dir } = subject(Durability::Os, LogOptions::new().partitions(PARTITIONS));
    for partition in 0..PARTITIONS {
        let partition = log.partition(partition).unwrap();
        for _ in 0..mib {
            partition.append_batch((0..1024).map(|_| &[7; 1016])).unwrap();
        }
    }
    drop(log);
    store.close().unwrap();
    let this = std::env::current_exe().unwrap();
    let status = Command::new(this).env(OPEN, dir.path()).env("PLACEMARK_BENCH_MIB", mib.to_string()).status();
    assert!(status.unwrap().success());
}

/// Appends to each partition of a store and reads from it, and says what that took.
fn use_all(dir: &Path) {
    let mib = std::env::var("PLACEMARK_BENCH_MIB").unwrap();
    let before = resident();
    let store = Store::options().durability(Durability::Os).open(dir).unwrap();
    let log = store.log("bench").unwrap();
    for partition in 0..PARTITIONS {
        let partition = log.partition(partition).unwrap();
        partition.append("more").unwrap();
        assert!(partition.read(StartAt::Earliest).unwrap().next().unwrap().is_ok());
    }
    let each = resident().saturating_sub(before) / u64::from(PARTITIONS);
    let what = format!("heap for each open partition of {mib} MiB, appended to and read");
    rows::row(&what, &format!("{} KiB", each >> 10), "under 64 KiB", Some(each < 64 << 10));
}

/// Memory of this process that is in use, without what is only mapped from files; 0 where the system does not say.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Of records of 100 B, so many a frame, in a log that is closed; the whole store counts.
fn disk(records: u64, batch: u64, most: f64) {
    const VALUE: &[u8] = &[7; 100];
    let Subject { log, store, dir } = subject(Durability::Os, one_segment());
    for _ in 0..records / batch {
        match batch {
            1 => drop(log.append(VALUE).unwrap()),
            _ => drop(log.append_batch((0..batch).map(|_| Record::new(VALUE))).unwrap()),
        }
    }
    drop(log);
    store.close().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let ratio = blocks(dir.path()) as f64 / (records * VALUE.len() as u64) as f64;
    let what = format!("disk for records of 100 B, {batch} a frame");
    // Few records are less than what a store takes that has none.
    let met = (records > 100_000).then_some(ratio < most);
    rows::row(&what, &format!("{ratio:.3} x their values"), &format!("under {most} x"), met);
}

fn blocks(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() { blocks(&entry.path()) } else { meta.blocks() * 512 }
        })
        .sum()
}
