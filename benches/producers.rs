//! What idempotence costs: an append through a producer beside a plain one, and how long a log with a million producers
//! takes to open, and how much memory.
//!
//! The stores stand in memory where there is such a file system, so that making a million names does not wait for a disk
//! a million times; what is measured of them is not the disk.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use placemark::{Durability, Log, LogOptions, Record, Store};
use tempfile::TempDir;

const APPENDS: u64 = 400_000;
const ROUNDS: usize = 15;

/// So many producers, each of which is known by its last five records.
const PRODUCERS: u64 = 1_000_000;
const EACH: u64 = 5;

/// Tells a process to open the store in this directory, and no more.
const OPEN: &str = "PLACEMARK_BENCH_OPEN";

fn main() {
    if let Some(dir) = std::env::var_os(OPEN) {
        return open_made(Path::new(&dir));
    }
    // Run by `cargo test` too, which only wants to see that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (appends, producers) = if measured { (APPENDS, PRODUCERS) } else { (1000, 100) };
    warm_up(appends);
    append(appends);
    open(producers);
}

fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn warm_up(appends: u64) {
    let dir = scratch();
    fs::write(dir.path().join("fill"), vec![1; usize::try_from(appends * 400).unwrap()]).unwrap();
}

fn log(dir: &Path) -> Log {
    let store = Store::options().durability(Durability::Os).open(dir).unwrap();
    store.log_with("bench", LogOptions::new().segment_bytes(1 << 30)).unwrap()
}

/// One piece of work over a fresh log.
fn timed(work: impl FnOnce(&Log) -> Duration) -> Duration {
    let dir = scratch();
    work(&log(dir.path()))
}

/// Plain and through a producer in turn, so that both meet the same moods of the machine.
fn append(appends: u64) {
    println!("append, Os, one thread: the best of {ROUNDS}, in ns a record");
    for (len, keyed) in [(100, false), (100, true), (1024, false)] {
        let value = vec![7; len];
        let record = || if keyed { Record::new(&value).key(b"customer-7") } else { Record::new(&value) };
        let (mut plain, mut through) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            plain.push(timed(|log| {
                log.append("the first append opens the segment").unwrap();
                let begun = Instant::now();
                for _ in 0..appends {
                    log.append(record()).unwrap();
                }
                begun.elapsed()
            }));
            through.push(timed(|log| {
                let mut producer = log.producer("importer").unwrap();
                producer.append(0, "the first append opens the segment").unwrap();
                let begun = Instant::now();
                for sequence in 1..=appends {
                    producer.append(sequence, record()).unwrap();
                }
                begun.elapsed()
            }));
        }
        let [plain, through] = [plain, through].map(|times| best(&times, appends));
        println!(
            "{len:>5} B, key: {keyed:5}   plain {plain:6.1}   through a producer {through:6.1}   (x{:.2})",
            through / plain
        );
    }
}

/// The least of them: what others do on the machine only ever adds.
fn best(times: &[Duration], count: u64) -> f64 {
    let best = times.iter().min().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 appends")]
    let count = count as f64;
    best.as_secs_f64() * 1e9 / count
}

fn open(producers: u64) {
    let dir = scratch();
    let begun = Instant::now();
    let first = log(dir.path());
    for number in 0..producers {
        let mut producer = first.producer(&format!("device-{number}")).unwrap();
        for sequence in 0..EACH {
            producer.append(sequence, "x").unwrap();
        }
    }
    drop(first);
    println!("{producers} producers made in {:.1?}", begun.elapsed());
    // In a process of its own, so that what the making left in memory does not count.
    let opened = Command::new(std::env::current_exe().unwrap()).env(OPEN, dir.path()).status().unwrap();
    assert!(opened.success());
}

/// Opens the store that was made, and the log.
fn open_made(dir: &Path) {
    let (before, begun) = (resident(), Instant::now());
    let store = Store::options().durability(Durability::Os).open(dir).unwrap();
    let (names, opened) = (resident(), begun.elapsed());
    let begun = Instant::now();
    let log = store.open_log("bench").unwrap();
    let loaded = begun.elapsed();
    println!(
        "their names: store open in {opened:.2?}, {} MiB; what the log knows of them: open in {loaded:.2?}, {} MiB",
        names.saturating_sub(before) >> 20,
        resident().saturating_sub(names) >> 20,
    );
    assert_eq!(log.producer("device-7").unwrap().last_sequence(), Some(EACH - 1));
}

/// Memory of this process that is in use, without what is only mapped from files; 0 where the system does not say.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
