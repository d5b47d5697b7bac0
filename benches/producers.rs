//! What idempotence costs: an append through a producer beside a plain one, and how long a log with a million producers
//! takes to open, and how much memory.
//!
//! The stores stand in memory where there is such a file system, so that making a million names does not wait for a disk
//! a million times; what is measured of them is not the disk.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use criterion::{Criterion, criterion_group};
use placemark::{Durability, Log, LogOptions, Record, Store};
use tempfile::TempDir;

use common::{Contest, in_pieces, rows, shown, timed};

const ROUNDS: usize = 15;
const APPENDS: u64 = 400_000;

/// So many times the speed of a plain append: it may cost 1.3 times as much.
const LEAST: f64 = 0.77;

/// So many producers, each of which is known by its last five records.
const PRODUCERS: u64 = 1_000_000;
const EACH: u64 = 5;

/// They may take so many seconds to load, and so much memory.
const LONGEST: f64 = 2.0;
const MOST: u64 = 200 << 20;

/// Tells a process to open the store in this directory, and no more.
const OPEN: &str = "PLACEMARK_BENCH_OPEN";

fn main() {
    match std::env::var_os(OPEN) {
        Some(dir) => open_made(Path::new(&dir)),
        None => benches(),
    }
}

fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn log(dir: &Path) -> Log {
    let store = Store::options().durability(Durability::Os).open(dir).unwrap();
    store.log_with("bench", LogOptions::new().segment_bytes(1 << 30)).unwrap()
}

/// A log that has been opened by a first append.
fn begun() -> (Log, TempDir) {
    let dir = scratch();
    let log = log(dir.path());
    log.append("the first append opens the segment").unwrap();
    (log, dir)
}

fn append(criterion: &mut Criterion) {
    let dir = scratch();
    fs::write(dir.path().join("fill"), vec![1; 256 << 20]).unwrap();
    drop(dir);
    for (len, keyed) in [(100, false), (100, true), (1024, false)] {
        let value = vec![7; len];
        let record = || if keyed { Record::new(&value).key(b"customer-7") } else { Record::new(&value) };
        let key = if keyed { " and a key" } else { "" };
        Contest::new(format!("append {len} B{key} through a producer, Os"), ROUNDS, APPENDS)
            .way("placemark", |n| {
                in_pieces(
                    n,
                    APPENDS,
                    |_| begun(),
                    |(log, _dir), count| {
                        let mut producer = log.producer("importer").unwrap();
                        for sequence in 1..=count {
                            producer.append(sequence, record()).unwrap();
                        }
                    },
                )
            })
            .limit("a plain append", LEAST, |n| {
                in_pieces(
                    n,
                    APPENDS,
                    |_| begun(),
                    |(log, _dir), count| {
                        for _ in 0..count {
                            log.append(record()).unwrap();
                        }
                    },
                )
            })
            .hold(criterion);
    }
}

fn open(_criterion: &mut Criterion) {
    let dir = scratch();
    let log = log(dir.path());
    for number in 0..PRODUCERS {
        let mut producer = log.producer(&format!("device-{number}")).unwrap();
        for sequence in 0..EACH {
            producer.append(sequence, "x").unwrap();
        }
    }
    drop(log);
    // In a process of its own, so that what the making left in memory does not count.
    let opened = Command::new(std::env::current_exe().unwrap()).env(OPEN, dir.path()).status().unwrap();
    assert!(opened.success());
}

/// Opens the store that was made, and the log.
fn open_made(dir: &Path) {
    let before = resident();
    let (mut store, mut log) = (None, None);
    let names = timed(|| store = Some(Store::options().durability(Durability::Os).open(dir).unwrap())).as_secs_f64();
    let with_names = resident();
    let known = timed(|| log = store.as_ref().map(|store| store.open_log("bench").unwrap())).as_secs_f64();
    let with_all = resident();
    let what = |what: &str| format!("a log with {PRODUCERS} producers, {what}");
    let took = format!("{}, {} of it for their names", shown(names + known), shown(names));
    rows::row(&what("time to open"), &took, &format!("under {}", shown(LONGEST)), Some(names + known < LONGEST));
    let memory = with_all.saturating_sub(before);
    let of_names = with_names.saturating_sub(before);
    let taken = format!("{} MiB, {} of it for their names", memory >> 20, of_names >> 20);
    rows::row(&what("memory"), &taken, &format!("under {} MiB", MOST >> 20), Some(memory < MOST));
    assert_eq!(log.unwrap().producer("device-7").unwrap().last_sequence(), Some(EACH - 1));
}

/// Memory of this process that is in use, without what is only mapped from files; 0 where the system does not say.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

criterion_group!(benches, append, open);
