//! Ten thousand logs, all open and appended to at once, within what a process gets by default.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use placemark::{Durability, Log, LogOptions, StartAt, Store, WriteMode};

use common::within;

const LOGS: usize = 10_000;

/// What the system allows by default: file handles, mappings; and what the process is to have at most.
const HANDLES: usize = 1024;
const MAPS: usize = 65_530;
const MEMORY: u64 = 1 << 30;

fn handles() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn maps() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// The most memory that this process ever had, pages of mapped files included.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn check_usage(what: &str) {
    let (handles, maps, peak) = (handles(), maps(), peak());
    println!("{what}: {handles} handles, {maps} maps, {} MiB at most", peak >> 20);
    assert!(handles < HANDLES, "{handles} file handles after {what}");
    assert!(maps < MAPS, "{maps} mappings after {what}");
    assert!(peak < MEMORY, "{} MiB of memory after {what}", peak >> 20);
}

fn open(dir: &Path) -> (Store, Vec<Log>) {
    let store = Store::options().write_mode(WriteMode::Mapped).open(dir).unwrap();
    let logs = (0..LOGS)
        .map(|number| {
            let durability = match number % 10 {
                0 => Durability::Sync,
                1 => Durability::Interval(Duration::from_millis(100)),
                _ => Durability::Os,
            };
            store.log_with(&format!("log-{number}"), LogOptions::new().durability(durability)).unwrap()
        })
        .collect();
    (store, logs)
}

#[test]
fn ten_thousand_logs_are_open_and_appended_to_at_once() {
    // Ten thousand logs are made with a hundred thousand syncs, which is not what is tested: in memory, where there is one.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let dir = tempfile::Builder::new().prefix("placemark-").tempdir_in(place).unwrap();
    within(Duration::from_secs(500), move || {
        let (store, logs) = open(dir.path());
        check_usage("making the logs");
        for round in 0..3_u64 {
            for log in &logs {
                assert_eq!(log.append(&[7; 1000]).unwrap().offset, round);
            }
            check_usage("appending to all");
        }
        store.sync().unwrap();
        check_usage("syncing all");
        for log in &logs {
            assert_eq!(log.append("more").unwrap().offset, 3);
            assert_eq!(log.read(StartAt::Earliest).unwrap().map(Result::unwrap).count(), 4);
        }
        check_usage("reading all");
        drop(logs);
        store.close().unwrap();
        assert!(handles() < 100, "{} handles are left", handles());
        let (store, logs) = open(dir.path());
        check_usage("opening all again");
        for log in &logs {
            assert_eq!(log.read(StartAt::Offset(3)).unwrap().next().unwrap().unwrap().value(), b"more");
        }
        check_usage("reading all again");
        drop((logs, store));
    });
}
