//! A disk that is full, and one whose syncs fail: a child is told so by a filter of its system calls.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::env;
use std::path::Path;
use std::process;
use std::time::Duration;

use placemark::{Durability, Error, LogOptions, Partition, StartAt, Store};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use common::child::{self, Child};
use common::{WAIT, in_cache, options, scratch, values};

/// From now on these system calls fail in every thread of this process.
fn fail(calls: &[i64], error: i32) {
    let filter = SeccompFilter::new(
        calls.iter().map(|call| (*call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(u32::try_from(error).unwrap()),
        env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
}

const SPACE: [i64; 4] = [libc::SYS_fallocate, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2];
const SYNCS: [i64; 4] = [libc::SYS_fdatasync, libc::SYS_fsync, libc::SYS_msync, libc::SYS_sync_file_range];

fn value(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(50)
}

/// Appends numbered values until one is refused; how many were taken, and the refusal.
fn append_until_refused(partition: &Partition) -> (u64, Error) {
    loop {
        let next = partition.end_offset();
        match partition.append(value(next)) {
            Ok(offset) => {
                assert_eq!(offset, next);
                assert!(next < 1_000_000, "nothing is refused");
            }
            Err(refusal) => return (next, refusal),
        }
    }
}

fn check(partition: &Partition, least: u64) {
    let read = values(partition.read(StartAt::Earliest).unwrap());
    assert!(read.len() as u64 >= least, "{} of {least} are left", read.len());
    assert!(read.iter().zip(0..).all(|(read, number)| *read == value(number)));
}

fn has(error: &Error, code: i32) -> bool {
    matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(code))
}

/// Runs a child in a store and gives the number of records that it says were acknowledged.
fn acknowledged(test: &str, dir: &Path) -> u64 {
    let (status, said) = Child::start(test, dir, &[]).finish();
    assert!(status.success(), "{test}: {status}");
    said.last().unwrap().parse().unwrap()
}

/// Whether all that was acknowledged is there and appends work again.
fn check_reopened(dir: &Path, least: u64) {
    for _ in 0..2 {
        let store = options().open(dir).unwrap();
        let partition = store.open_log("orders").unwrap().partition(0).unwrap();
        check(&partition, least);
        for _ in 0..1000 {
            let next = partition.end_offset();
            partition.append(value(next)).unwrap();
        }
        check(&partition, least + 1000);
        store.close().unwrap();
    }
}

#[test]
fn child_on_a_full_disk() {
    let Some(dir) = child::directory() else { return };
    let store = in_cache().open(&dir).unwrap();
    let log = store.log_with("orders", LogOptions::new().segment_bytes(1 << 20)).unwrap();
    let partition = log.partition(0).unwrap();
    for number in 0..100 {
        partition.append(value(number)).unwrap();
    }
    fail(&SPACE, libc::ENOSPC);
    let (taken, refusal) = append_until_refused(&partition);
    assert!(has(&refusal, libc::ENOSPC) || refusal.to_string().to_lowercase().contains("space"), "{refusal}");
    assert!(taken >= 100);
    check(&partition, taken);
    assert!(partition.append(value(taken)).is_err(), "the disk is still full");
    assert!(store.log("new").is_err(), "a log takes space");
    check(&partition, taken);
    child::say(taken);
    // Closing may fail, and must not hang or lose anything.
    let _ = store.close();
    process::exit(0);
}

#[test]
fn on_a_full_disk_appends_fail_what_was_acknowledged_stays_and_reopening_goes_on() {
    let dir = scratch();
    let taken = acknowledged("child_on_a_full_disk", dir.path());
    check_reopened(dir.path(), taken);
    assert_eq!(options().open(dir.path()).unwrap().logs().unwrap(), ["orders"]);
}

#[test]
fn child_whose_syncs_fail() {
    let Some(dir) = child::directory() else { return };
    let store = options().durability(Durability::Sync).open(&dir).unwrap();
    let partition = store.log("orders").unwrap().partition(0).unwrap();
    for number in 0..100 {
        partition.append(value(number)).unwrap();
    }
    fail(&SYNCS, libc::EIO);
    let refusal = partition.append(value(100)).unwrap_err();
    assert!(has(&refusal, libc::EIO) || matches!(refusal, Error::Failed { .. }), "{refusal}");
    assert_eq!(partition.end_offset(), 100, "what is not durable is not readable");
    check(&partition, 100);
    let again = partition.append(value(100)).unwrap_err();
    assert!(matches!(again, Error::Failed { .. }), "{again}");
    let batch = partition.append_batch([value(100), value(101)]).unwrap_err();
    assert!(matches!(batch, Error::Failed { .. }), "{batch}");
    assert!(store.sync().is_err());
    check(&partition, 100);
    assert!(store.close().is_err(), "what could not be synced is no clean end");
    child::say(100);
}

#[test]
fn after_a_failed_sync_everything_fails_until_reopened_and_nothing_acknowledged_is_lost() {
    let dir = scratch();
    let taken = acknowledged("child_whose_syncs_fail", dir.path());
    let store = options().open(dir.path()).unwrap();
    let partition = store.open_log("orders").unwrap().partition(0).unwrap();
    // Those that were refused may be there or not; nothing else may.
    let end = partition.end_offset();
    assert!((taken..=taken + 1).contains(&end), "{end}");
    check(&partition, taken);
    drop(partition);
    store.close().unwrap();
    check_reopened(dir.path(), taken);
}

#[test]
fn child_whose_commits_fail() {
    let Some(dir) = child::directory() else { return };
    let store = options().durability(Durability::Sync).open(&dir).unwrap();
    let (input, orders) = (store.log("input").unwrap(), store.log("orders").unwrap());
    input.append_batch(["a", "b", "c"]).unwrap();
    let mut least = input.consumer("least").max_poll_records(1).at_least_once().unwrap();
    let mut most = input.consumer("most").max_poll_records(1).at_most_once().unwrap();
    let mut exactly = input.consumer("exactly").max_poll_records(1).exactly_once().unwrap();
    least.poll(WAIT).unwrap().unwrap().commit().unwrap();
    most.poll(WAIT).unwrap().unwrap();
    let batch = least.poll(WAIT).unwrap().unwrap();
    let piped = exactly.poll(WAIT).unwrap().unwrap();
    let mut transaction = store.transaction();
    transaction.append(&orders, value(0)).unwrap();
    fail(&SYNCS, libc::EIO);
    assert!(transaction.commit_with(piped).is_err());
    assert_eq!(orders.partition(0).unwrap().end_offset(), 0, "nothing undecided is readable");
    assert!(batch.commit().is_err());
    assert_eq!(least.committed(0), Some(1), "a commit that failed changes nothing");
    assert!(most.poll(Duration::from_secs(1)).is_err(), "what cannot be committed is not handed out");
    child::say(0);
    // What could not be synced is no clean end.
    assert!(store.close().is_err());
}

#[test]
fn a_commit_that_cannot_be_made_durable_fails_and_changes_nothing_that_is_seen() {
    let dir = scratch();
    acknowledged("child_whose_commits_fail", dir.path());
    let store = Store::open(dir.path()).unwrap();
    let offset = |group: &str| store.group(group).placemarks().unwrap().first().map_or(0, |it| it.offset);
    assert!((1..=2).contains(&offset("least")) && (1..=2).contains(&offset("most")));
    // Whole or not at all: the output is there exactly if the placemark moved.
    let outputs = store.log("orders").unwrap().partition(0).unwrap().end_offset();
    assert_eq!(outputs, offset("exactly"));
    check_reopened(dir.path(), outputs);
}
