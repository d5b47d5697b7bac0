//! File systems that are really full: small ones, mounted for the test where the machine permits it, and files that may not
//! grow where it does not. A full disk is an error, never a signal, and costs nothing that was acknowledged.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use placemark::{Durability, Error, LogOptions, Partition, StartAt, Store};
use tempfile::TempDir;

use common::child::{self, Child};
use common::{WAIT, options, scratch, values};

const DURABILITY: &str = "PLACEMARK_CHILD_DURABILITY";
const DURABILITIES: [&str; 3] = ["sync", "interval", "os"];

/// Kept beside the store, and removed to make room again.
const BALLAST: &str = "ballast";
const BALLAST_BYTES: u64 = 2 << 20;

/// What is left to a child to fill.
const ROOM: u64 = 3 << 20;

/// A file system of its own, as small as its kind allows; unmounted when dropped.
struct Mounted {
    at: PathBuf,
    _dir: TempDir,
}

impl Mounted {
    /// `None`, saying why, where it cannot be made or mounted.
    fn new(kind: &str) -> Option<Self> {
        let dir = scratch();
        let (at, image) = (dir.path().join("mounted"), dir.path().join("image"));
        fs::create_dir(&at).unwrap();
        let made = match kind {
            "tmpfs" => run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&at)),
            "ext4" => run_on_image(&image, 12, &["mkfs.ext4", "-q", "-F"], &at),
            "btrfs" => run_on_image(&image, 24, &["mkfs.btrfs", "-q", "-f", "--mixed"], &at),
            "xfs" => run_on_image(&image, 300, &["mkfs.xfs", "-q", "-f"], &at),
            other => panic!("{other} is no kind of file system"),
        };
        match made {
            Ok(()) => Some(Self { at, _dir: dir }),
            Err(reason) => {
                println!("not tried on {kind}: {reason}");
                None
            }
        }
    }
}

impl Mounted {
    /// Leaves so much room that filling it does not take long.
    fn weigh_down(&self, kind: &str) {
        let found = rustix::fs::statvfs(&self.at).unwrap();
        let rest = (found.f_bavail * found.f_frsize).saturating_sub(ROOM + BALLAST_BYTES);
        // btrfs says nothing reliable of the room it has.
        self.put("weight", if kind == "btrfs" { 8 << 20 } else { rest });
    }

    /// Puts something beside the store to make room with later.
    fn put(&self, name: &str, bytes: u64) {
        fs::write(self.at.join(name), vec![1; usize::try_from(bytes).unwrap()]).unwrap();
        rustix::fs::sync();
    }

    /// Makes room. A file system that copies on write has it after a sync only.
    fn relieve(&self) {
        fs::remove_file(self.at.join(BALLAST)).unwrap();
        rustix::fs::sync();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ =
            run(Command::new("umount").arg(&self.at)).or_else(|_| run(Command::new("umount").arg("-l").arg(&self.at)));
    }
}

fn run_on_image(image: &Path, mebibytes: u64, make: &[&str], at: &Path) -> Result<(), String> {
    fs::File::create(image).and_then(|file| file.set_len(mebibytes << 20)).map_err(|error| error.to_string())?;
    let (program, arguments) = make.split_first().unwrap();
    run(Command::new(program).args(arguments).arg(image))?;
    run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at))
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Err(error) => Err(format!("{command:?}: {error}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

fn value(number: u64) -> Vec<u8> {
    let len = 100 + usize::try_from(number * 131 % 2900).unwrap();
    number.to_be_bytes().into_iter().cycle().take(len).collect()
}

fn open(dir: &Path, durability: &str) -> Result<Store, Error> {
    let durability = match durability {
        "sync" => Durability::Sync,
        "interval" => Durability::Interval(Duration::from_millis(5)),
        _ => Durability::Os,
    };
    options().durability(durability).open(dir)
}

fn small() -> LogOptions {
    LogOptions::new().segment_bytes(256 << 10)
}

fn check(partition: &Partition, least: u64) -> u64 {
    let read = values(partition.read(StartAt::Earliest).unwrap());
    assert!(read.len() as u64 >= least, "{} of {least} are left", read.len());
    for (number, read) in (0..).zip(&read) {
        assert_eq!(*read, value(number));
    }
    read.len() as u64
}

fn is_full(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return false };
    matches!(source.raw_os_error(), Some(code) if [28, 27, 122].contains(&code)) // ENOSPC, EFBIG, EDQUOT
}

#[test]
fn child_that_fills_the_disk() {
    let Some(dir) = child::directory() else { return };
    let store = open(&dir, &env::var(DURABILITY).unwrap()).unwrap();
    let orders = store.log_with("orders", small()).unwrap();
    let partition = orders.partition(0).unwrap();
    let mut billing = orders.consumer("billing").max_poll_records(1).at_least_once().unwrap();
    let refusal = loop {
        let next = partition.end_offset();
        match partition.append(value(next)) {
            Ok(offset) => child::say(format_args!("appended {}", offset + 1)),
            Err(refusal) => break refusal,
        }
        assert!(next < 1_000_000, "nothing is refused");
    };
    // A background thread may have met the full disk first; then this partition says so by its latch.
    let told = is_full(&refusal) || matches!(&refusal, Error::Failed { reason, .. } if reason.contains("os error"));
    assert!(told, "{refusal:?}");
    check(&partition, partition.end_offset());
    assert!(partition.append(value(0)).is_err(), "an append after a failed one");
    // Whatever else is asked for either works or says why it does not.
    if let Some(batch) = billing.poll(WAIT).unwrap()
        && batch.commit().is_ok()
    {
        child::say("committed 1");
    }
    let mut transaction = store.transaction();
    transaction.append(&orders, vec![7; 100_000]).unwrap();
    assert!(transaction.commit().is_err(), "a transaction into a log that has failed");
    if let Ok(other) = store.log_with("other", small()) {
        while other.append(value(0)).is_ok() {}
    }
    let _ = store.sync();
    child::say("through");
    let _ = store.close();
    process::exit(0);
}

/// What a child that filled the disk says: how many records, and how many commits, were acknowledged.
fn said(child: Child) -> (u64, u64) {
    let (status, said) = child.finish();
    assert!(status.success(), "a full disk ended the child: {status}; it said at last {:?}", said.last());
    assert_eq!(said.last().map(String::as_str), Some("through"));
    let last = |word: &str| said.iter().rev().find_map(|line| line.strip_prefix(word)?.parse().ok()).unwrap_or(0);
    (last("appended "), last("committed "))
}

/// With room again, everything acknowledged is there, and the store goes on.
fn check_goes_on(dir: &Path, durability: &str, (appended, committed): (u64, u64)) {
    for round in 0..2 {
        let store = open(dir, durability).unwrap();
        let orders = store.open_log("orders").unwrap();
        let partition = orders.partition(0).unwrap();
        let there = check(&partition, appended + round);
        let placemark = store.group("billing").placemarks().unwrap().first().map_or(0, |at| at.offset);
        assert!(placemark >= committed, "{placemark} of {committed}");
        assert_eq!(partition.append(value(there)).unwrap(), there);
        store.close().unwrap();
    }
}

fn fill(kind: &str) {
    let Some(mounted) = Mounted::new(kind) else { return };
    mounted.weigh_down(kind);
    for durability in DURABILITIES {
        mounted.put(BALLAST, BALLAST_BYTES);
        let dir = mounted.at.join("store");
        let variables = [(DURABILITY, durability)];
        let acknowledged = said(Child::start("child_that_fills_the_disk", &dir, &variables));
        assert!(acknowledged.0 > 500, "{kind}, {durability}: only {acknowledged:?} went onto an empty disk");
        // Opening needs a little room. On a disk that is still full it may be refused, and changes nothing then.
        match open(&dir, durability) {
            Ok(store) => {
                if let Ok(orders) = store.open_log("orders") {
                    check(&orders.partition(0).unwrap(), acknowledged.0);
                }
                let _ = store.close();
            }
            Err(refusal) => assert!(is_full(&refusal), "{kind}, {durability}: {refusal:?}"),
        }
        mounted.relieve();
        check_goes_on(&dir, durability, acknowledged);
        fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn a_full_tmpfs_is_an_error_and_loses_nothing() {
    fill("tmpfs");
}

#[test]
fn a_full_ext4_is_an_error_and_loses_nothing() {
    fill("ext4");
}

#[test]
fn a_full_btrfs_is_an_error_and_loses_nothing() {
    fill("btrfs");
}

#[test]
fn a_full_xfs_is_an_error_and_loses_nothing() {
    fill("xfs");
}

#[test]
fn files_that_may_not_grow_are_an_error_and_lose_nothing() {
    for durability in DURABILITIES {
        let dir = scratch();
        let variables = [(DURABILITY, durability)];
        // 100 KiB, less than a segment.
        let acknowledged = said(Child::start_limited("child_that_fills_the_disk", dir.path(), &variables, 200));
        assert!(acknowledged.0 > 20, "{durability}: only {acknowledged:?} went into 100 KiB");
        check_goes_on(dir.path(), durability, acknowledged);
    }
}
