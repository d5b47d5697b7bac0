//! What an idempotent producer has appended stays known: over rolls, kills, power loss, damaged snapshots, and when the
//! records are gone.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use placemark::{Durability, Error, Log, Record, RecoveryMode, StartAt, Store};
use tempfile::TempDir;

use common::child::{self, Child};
use common::files;
use common::producing::{append, duplicate, new, sequence, small, value};
use common::{Numbers, WAIT, entries, in_cache, options, scratch, within};

/// What a kill leaves, also while something is being sealed.
fn image(store: &Path) -> TempDir {
    (0..1000).find_map(|_| files::image_at_rest(store)).unwrap()
}

// ---- what must not make it forget ----

/// The snapshots of a partition's producers, by offset.
fn snapshots(store: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(files::partition(store, "log", 0))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "producers"))
        .collect();
    paths.sort();
    paths
}

/// A log of many segments with three producers: one that was idle since the beginning, one in the middle, one at the end.
fn three_producers(store: &Store) -> Log {
    let log = store.log_with("log", small(1)).unwrap();
    let mut early = log.producer("early").unwrap();
    let mut late = log.producer("late").unwrap();
    for sequence in 0..7 {
        new(append(&mut early, sequence));
    }
    for number in 0..300 {
        log.append(value(number)).unwrap();
        if number == 150 {
            new(append(&mut log.producer("middle").unwrap(), 5));
        }
    }
    for sequence in 0..200 {
        new(append(&mut late, sequence));
    }
    log
}

/// Whether all is known of those three.
fn check_three(store: &Store, what: &str) {
    let log = store.open_log("log").unwrap();
    let end = log.partition(0).unwrap().end_offset();
    for (name, last, position) in [("early", 6, 6), ("middle", 5, 158), ("late", 199, 507)] {
        let mut producer = log.producer(name).unwrap_or_else(|error| panic!("{what}: {name}: {error}"));
        assert_eq!(producer.last_sequence(), Some(last), "{what}: {name}");
        let at = duplicate(append(&mut producer, last));
        assert_eq!(at.map(|at| at.offset), Some(position), "{what}: {name}");
        duplicate(append(&mut producer, 0));
    }
    assert_eq!(log.partition(0).unwrap().end_offset(), end, "{what}: nothing was written");
}

#[test]
fn sequences_survive_rolls_kills_and_reopening() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = three_producers(&store);
    let killed = image(dir.path());
    drop(log);
    check_three(&store, "running");
    store.close().unwrap();
    for round in 0..3 {
        let store = in_cache().open(dir.path()).unwrap();
        check_three(&store, &format!("closed {round} times"));
        store.close().unwrap();
    }
    // Killed again and again, without a close in between.
    let mut left = killed;
    for round in 0..3 {
        let store = in_cache().open(left.path()).unwrap();
        check_three(&store, &format!("killed {round} times"));
        store.open_log("log").unwrap().append("awake").unwrap();
        let next = image(left.path());
        drop(store);
        left = next;
    }
}

#[test]
fn after_a_clean_close_no_frame_is_read_to_know_them() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    drop(three_producers(&store));
    store.close().unwrap();
    // With every frame destroyed, opening can only know them from elsewhere.
    for segment in files::segments(&files::partition(dir.path(), "log", 0)) {
        for frame in files::frames(&segment) {
            files::zero(&segment, frame.start + 4..frame.end);
        }
    }
    check_three(&in_cache().open(dir.path()).unwrap(), "without a frame");
}

/// What is done to a file.
type Harm = fn(&Path);

#[test]
fn a_snapshot_that_is_missing_or_damaged_is_made_again_from_the_frames() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    drop(three_producers(&store));
    let killed = image(dir.path());
    store.close().unwrap();
    let harms: [(&str, Harm); 4] = [
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("flipped", |path| files::flip(path, fs::metadata(path).unwrap().len() / 2)),
        ("cut", |path| files::truncate(path, 20)),
        ("empty", |path| files::truncate(path, 0)),
    ];
    for (left, state) in [(dir.path(), "closed"), (killed.path(), "killed")] {
        assert_eq!(snapshots(left).len(), 2, "{state}: the newest and the one before");
        for (harm, act) in harms {
            for newest_only in [true, false] {
                let what = format!("{state}, {harm}, newest only: {newest_only}");
                let copy = image(left);
                let found = snapshots(copy.path());
                for path in found.iter().rev().take(if newest_only { 1 } else { 2 }) {
                    act(path);
                }
                let store = in_cache().open(copy.path()).unwrap();
                check_three(&store, &what);
                store.close().unwrap();
                let left = snapshots(copy.path());
                assert!((1..=2).contains(&left.len()), "{what}: {left:?}, {found:?}");
                check_three(&in_cache().open(copy.path()).unwrap(), &format!("{what}, opened again"));
            }
        }
    }
}

#[test]
fn sequences_survive_the_records_when_those_are_trimmed() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = three_producers(&store);
    let partition = log.partition(0).unwrap();
    let mut left = Vec::new();
    for before in [100, 300, u64::MAX] {
        partition.trim_before(before).unwrap();
        check_three(&store, &format!("trimmed before {before}"));
        left.push((image(dir.path()), format!("trimmed before {before}, killed")));
    }
    assert_eq!(partition.start_offset(), partition.end_offset());
    drop((log, partition));
    store.close().unwrap();
    left.push((image(dir.path()), "trimmed, closed".to_owned()));
    for (copy, what) in left {
        let store = in_cache().open(copy.path()).unwrap();
        check_three(&store, &what);
        store.close().unwrap();
        check_three(&in_cache().open(copy.path()).unwrap(), &format!("{what}, closed"));
    }
}

#[test]
fn a_snapshot_whose_frames_are_gone_is_missed_and_never_forgotten_in_silence() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    three_producers(&store).partition(0).unwrap().trim_before(u64::MAX).unwrap();
    store.close().unwrap();
    for path in snapshots(dir.path()) {
        files::flip(&path, 60);
    }
    let store = in_cache().open(dir.path()).unwrap();
    match store.open_log("log") {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path.extension().unwrap(), "producers"),
        other => panic!("{other:?}"),
    }
    drop(store);
    let store = in_cache().recovery_mode(RecoveryMode::Salvage).open(dir.path()).unwrap();
    let log = store.open_log("log").unwrap();
    assert_eq!(store.recovery().damage().len(), 1, "and salvage says so");
    assert_eq!(log.producer("early").unwrap().last_sequence(), None);
}

#[test]
fn a_log_without_producers_has_no_snapshot_and_old_ones_do_not_pile_up() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("log", small(1)).unwrap();
    for number in 0..500 {
        log.append(value(number)).unwrap();
    }
    store.sync().unwrap();
    assert!(snapshots(dir.path()).is_empty());
    drop(log);
    store.close().unwrap();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.open_log("log").unwrap();
    let mut producer = log.producer("importer").unwrap();
    for sequence in 0..500 {
        new(append(&mut producer, sequence));
    }
    log.partition(0).unwrap().trim_before(0).unwrap();
    let found = snapshots(dir.path());
    assert!((1..=2).contains(&found.len()), "{found:?}");
    drop((log, producer));
    store.close().unwrap();
    let foreign = files::partition(dir.path(), "log", 0).join("notes.producers");
    fs::write(&foreign, "mine").unwrap();
    drop(in_cache().open(dir.path()).unwrap().open_log("log").unwrap());
    assert_eq!(snapshots(dir.path()).len(), 3, "two, and the foreign one");
    fs::remove_file(foreign).unwrap();
}

#[test]
fn a_log_made_again_knows_nothing_of_its_namesakes_producers() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let mut old = three_producers(&store).producer("early").unwrap();
    store.delete_log("log").unwrap();
    for sequence in [0, 100] {
        let gone = old.append(sequence, "gone");
        assert!(matches!(&gone, Err(Error::NoSuchLog { name }) if name == "log"), "{gone:?}");
    }
    let log = store.log_with("log", small(1)).unwrap();
    for name in ["early", "middle", "late"] {
        let mut producer = log.producer(name).unwrap();
        assert_eq!(producer.last_sequence(), None);
        new(append(&mut producer, 0));
    }
    drop((log, old));
    store.close().unwrap();
    let store = in_cache().open(dir.path()).unwrap();
    assert_eq!(store.open_log("log").unwrap().producer("early").unwrap().last_sequence(), Some(0));
}

// ---- killed ----

const DURABILITY: &str = "PLACEMARK_CHILD_DURABILITY";

fn kills() -> u64 {
    std::env::var("PLACEMARK_KILLS").map_or(10, |kills| kills.parse().unwrap())
}

fn open(dir: &Path, durability: &str) -> Store {
    let durability = match durability {
        "sync" => Durability::Sync,
        "interval" => Durability::Interval(Duration::from_millis(5)),
        "os" => Durability::Os,
        other => panic!("{other} is no durability"),
    };
    options().durability(durability).open(dir).unwrap()
}

/// A record with or without a key, as its sequence has it.
fn killed_record(sequence: u64) -> Record<'static> {
    match sequence % 5 {
        0 => Record::new(value(sequence)),
        key => Record::new(value(sequence)).key(key.to_string()),
    }
}

#[test]
fn child_that_produces() {
    let Some(dir) = child::directory() else { return };
    child::say("opening");
    let store = open(&dir, &std::env::var(DURABILITY).unwrap());
    let log = store.log_with("log", small(3)).unwrap();
    let mut producer = log.producer("importer").unwrap();
    let last = producer.last_sequence();
    child::say(format_args!("last {}", last.map_or(0, |last| last + 1)));
    // It does not trust that, and goes over the last ones again, as an importer that keeps its own place would.
    let mut next = last.map_or(0, |last| last.saturating_sub(40));
    loop {
        if next % 11 == 3 {
            let count = 1 + next % 6;
            producer.append_batch(next, (next..next + count).map(killed_record)).unwrap();
            next += count;
        } else {
            producer.append(next, killed_record(next)).unwrap();
            next += 1;
        }
        child::say(format_args!("done {next}"));
        if next % 50 == 7 {
            // Half of what was read goes, so that only snapshots know of it.
            for partition in (0..3).map(|it| log.partition(it).unwrap()) {
                let (start, end) = (partition.start_offset(), partition.end_offset());
                if end - start > 400 {
                    child::say(format_args!("trim {} {start} {}", partition.number(), start + 200));
                    partition.trim_before(start + 200).unwrap();
                }
            }
        }
    }
}

#[test]
fn a_producer_killed_in_a_loop_writes_each_sequence_once_whatever_it_tries_again() {
    within(WAIT * 3, || {
        for durability in ["sync", "interval", "os"] {
            let dir = scratch();
            let mut done = 0;
            for round in 0..kills() {
                let child = Child::start("child_that_produces", dir.path(), &[(DURABILITY, durability)]);
                let most = if round % 4 == 3 { 1 } else { 2 + Numbers::new(round).below(400) };
                let mut said: Vec<String> = (0..most).map_while(|_| child.hear()).collect();
                assert_eq!(said.len() as u64, most, "it ends by being killed only");
                said.extend(child.kill());
                for line in &said {
                    if let Some(last) = line.strip_prefix("last ") {
                        let last: u64 = last.parse().unwrap();
                        assert!(last >= done, "{durability}: {done} were acknowledged, and {last} are known");
                    }
                    if let Some(next) = line.strip_prefix("done ") {
                        done = done.max(next.parse().unwrap());
                    }
                }
            }
            assert!(done > 0, "{durability}: the child did nothing");
            let store = open(dir.path(), durability);
            let log = store.open_log("log").unwrap();
            let mut seen = BTreeSet::new();
            for partition in 0..3 {
                let read = entries(log.partition(partition).unwrap().read(StartAt::Earliest).unwrap());
                assert!(read.is_sorted_by(|a, b| sequence(a.value()) < sequence(b.value())), "{durability}");
                for entry in &read {
                    assert!(seen.insert(sequence(entry.value())), "{durability}: {} twice", sequence(entry.value()));
                }
                let start = log.partition(partition).unwrap().start_offset();
                let end = log.partition(partition).unwrap().end_offset();
                assert_eq!(read.len() as u64, end - start, "{durability}: offsets are dense");
            }
            // What is not there was trimmed: all offsets together are as many as there were sequences.
            let ends: u64 = (0..3).map(|it| log.partition(it).unwrap().end_offset()).sum();
            let last = log.producer("importer").unwrap().last_sequence().unwrap();
            assert_eq!(ends, last + 1, "{durability}: each sequence took one offset");
        }
    });
}
