//! A durable append has the disk write a page or two, not all that the kernel has brought in around it: a sync writes whole
//! pieces of the page cache.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::fs;

use placemark::{Durability, Log, Store};

use common::scratch;

const APPENDS: u64 = 600;

/// What this process has had disks write; there is one test in it. `None` where the system does not say.
fn written() -> Option<u64> {
    let counts = fs::read_to_string("/proc/self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok())
}

/// Bytes written for each of many appends, a page apart, so that none is in a page that a sync has brought in.
fn each(log: &Log) -> u64 {
    let before = written().unwrap_or(0);
    for _ in 0..APPENDS {
        log.append(vec![7; 4096 - 36]).unwrap();
    }
    (written().unwrap_or(0) - before) / APPENDS
}

#[test]
fn a_durable_append_has_the_disk_write_little_more_than_its_page() {
    let dir = scratch();
    let store = Store::options().durability(Durability::Sync).open(dir.path()).unwrap();
    let log = store.log("orders").unwrap();
    // Past the first steps, in which the file grows.
    log.append(vec![7; 1 << 20]).unwrap();
    let first = each(&log);
    drop((log, store));
    let store = Store::options().durability(Durability::Sync).open(dir.path()).unwrap();
    let log = store.log("orders").unwrap();
    log.append(vec![7; 1 << 20]).unwrap();
    let again = each(&log);
    println!("written by an append of a page: {first} B, in a log that was opened again {again} B");
    assert!(first < 3 * 4096 && again < 3 * 4096, "{first} B, and {again} B in a log that was opened again");
}
