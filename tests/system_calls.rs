//! An append makes no system call: a child whose appending thread may make none goes on appending.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process;

use placemark::{Durability, Store, WriteMode};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use common::child::{self, Child};
use common::{files, scratch};

/// What a thread needs to say what it did, and to end; a clock that is no call of the kernel on most machines, and is
/// on some.
const ENDING: [i64; 5] =
    [libc::SYS_write, libc::SYS_futex, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_clock_gettime];

/// Kills this process when the calling thread makes another system call than these.
fn allow_only(calls: &[i64]) {
    let filter = SeccompFilter::new(
        calls.iter().map(|call| (*call, Vec::new())).collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

fn allocated(segment: &Path) -> u64 {
    fs::metadata(segment).unwrap().blocks() * 512
}

const RECORD: u64 = 136;

/// Appends until the segment has just been given more blocks, then forbids system calls and fills half of what it got.
fn append_without_calls(mode: WriteMode, allowed: &[i64]) {
    let Some(dir) = child::directory() else { return };
    let store = Store::options().durability(Durability::Os).write_mode(mode).open(&dir).unwrap();
    let partition = store.log("orders").unwrap().partition(0).unwrap();
    let segment = files::segments(&files::partition(&dir, "orders", 0)).remove(0);
    let value = [7; 100];
    let mut step = 0;
    let mut grown = 0;
    // Steps may grow; the first few are small.
    while grown < 4 || step < RECORD * 1000 {
        let before = allocated(&segment);
        partition.append(&value).unwrap();
        step = allocated(&segment) - before;
        grown += u64::from(step > 0);
        assert!(partition.end_offset() < 900_000, "the segment grows with every record, or not at all");
    }
    let records = (step / 2 / RECORD).min(10_000);
    let end = partition.end_offset();
    // What comes first on standard output allocates its buffer.
    child::say(format_args!("{records} to go"));
    allow_only(&[&ENDING[..], allowed].concat());
    for _ in 0..records {
        if partition.append(&value).is_err() {
            process::exit(3);
        }
    }
    let appended = partition.end_offset() - end;
    child::say(format_args!("appended {appended}"));
    process::exit(if appended == records { 0 } else { 4 });
}

#[test]
fn child_that_appends_through_a_mapping() {
    append_without_calls(WriteMode::Mapped, &[]);
}

#[test]
fn child_that_appends_through_pwrite() {
    append_without_calls(WriteMode::Pwrite, &[libc::SYS_pwrite64]);
}

#[test]
fn child_that_makes_a_call() {
    if child::directory().is_some() {
        allow_only(&ENDING);
        process::exit(i32::from(fs::exists("/").is_ok()));
    }
}

fn check(test: &str) {
    let dir = scratch();
    let (status, said) = Child::start(test, dir.path(), &[]).finish();
    assert_ne!(status.signal(), Some(libc::SIGSYS), "an append made a system call");
    assert!(status.success(), "{status}");
    let appended: u64 = said.last().unwrap().strip_prefix("appended ").unwrap().parse().unwrap();
    assert!(appended >= 500, "only {appended} appends were watched");
}

#[test]
fn the_filter_kills() {
    let dir = scratch();
    let (status, _) = Child::start("child_that_makes_a_call", dir.path(), &[]).finish();
    assert_eq!(status.signal(), Some(libc::SIGSYS));
}

#[test]
fn an_append_through_a_mapping_makes_no_system_call() {
    check("child_that_appends_through_a_mapping");
}

#[test]
fn an_append_through_pwrite_makes_that_call_and_no_other() {
    check("child_that_appends_through_pwrite");
}
