//! A real process, killed in a loop with SIGKILL: what it had acknowledged is there, and each mode keeps its word.
//!
//! `PLACEMARK_KILLS` says how often each of the twelve is killed, ten times unless said; with 210 that makes 2,200 kills in a
//! minute or two. The last line of each test says how many it was.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as the tests do"
)]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use placemark::{Durability, ExactlyOnce, Log, LogOptions, Record, StartAt, Store};

use common::child::{self, Child};
use common::{Numbers, WAIT, entries, offsets, options, scratch, within};

const DURABILITY: &str = "PLACEMARK_CHILD_DURABILITY";
const DURABILITIES: [&str; 3] = ["sync", "interval", "os"];

/// Records in a batch of the consumers that are killed.
const POLLED: usize = 10;

fn kills() -> u64 {
    env::var("PLACEMARK_KILLS").map_or(10, |kills| kills.parse().unwrap())
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

/// The time that so many lives may take.
fn limit() -> Duration {
    WAIT * 2 + Duration::from_secs(10) * u32::try_from(kills()).unwrap()
}

/// Children killed so far, by the tests of this process together.
static KILLED: AtomicU64 = AtomicU64::new(0);

fn report() {
    println!("{} children killed so far", KILLED.load(Ordering::Relaxed));
}

/// Opens the store in a child, saying so before and after, so that a kill can fall in between.
fn open_in_child(dir: &Path) -> Store {
    child::say("opening");
    let store = open(dir, &env::var(DURABILITY).unwrap());
    child::say("open");
    store
}

fn small(partitions: u32) -> LogOptions {
    LogOptions::new().partitions(partitions).segment_bytes(64 << 10)
}

/// Starts a child, hears up to `most` things, more or less from round to round, kills it, and gives all it said.
fn one_life(test: &str, dir: &Path, durability: &str, round: u64, most: u64) -> Vec<String> {
    let child = Child::start(test, dir, &[(DURABILITY, durability)]);
    // Sometimes while it opens, mostly at work.
    let heard = if round % 5 == 4 { 1 } else { 2 + Numbers::new(round).below(most) };
    let mut said: Vec<_> = (0..heard).map_while(|_| child.hear()).collect();
    if (said.len() as u64) < heard {
        // It ended by itself: with nothing left to do, not with a failure.
        let (status, _) = child.finish();
        assert!(status.success(), "{test} under {durability}: {status}");
    } else {
        said.extend(child.kill());
        KILLED.fetch_add(1, Ordering::Relaxed);
    }
    said
}

/// The numbers behind a word, of what was said.
fn numbers<'a>(said: &'a [String], word: &'a str) -> impl Iterator<Item = u64> + 'a {
    said.iter().filter_map(move |line| line.strip_prefix(word)?.trim().parse().ok())
}

// ---- appends ----

/// A record of one of the child's threads: its number there, and the numbers of the batch it was appended with.
fn appended(lane: u64, number: u64, batch: &Range<u64>) -> Vec<u8> {
    let mut value = [lane, number, batch.start, batch.end].map(u64::to_be_bytes).concat();
    value.resize(value.len() + usize::try_from(number * 37 % 300).unwrap(), b'.');
    value
}

fn parse(value: &[u8]) -> [u64; 4] {
    let mut words = value.chunks(8).map(|word| u64::from_be_bytes(word.try_into().unwrap()));
    std::array::from_fn(|_| words.next().unwrap())
}

#[test]
fn child_that_appends() {
    let Some(dir) = child::directory() else { return };
    let store = open_in_child(&dir);
    let log = store.log_with("orders", small(3)).unwrap();
    thread::scope(|scope| {
        for lane in 0..3 {
            let log = &log;
            scope.spawn(move || {
                let partition = log.partition(u32::try_from(lane % 2).unwrap()).unwrap();
                let own = entries(partition.read(StartAt::Earliest).unwrap());
                let mut next = own.iter().filter(|entry| parse(entry.value())[0] == lane).count() as u64;
                loop {
                    let batch = next..next + 1 + next % 4;
                    let records = batch.clone().map(|number| appended(lane, number, &batch));
                    partition.append_batch(records).unwrap();
                    next = batch.end;
                    child::say(format_args!("lane{lane} {next}"));
                }
            });
        }
    });
}

/// Whether each lane's records are there once, in order, in whole batches; how many it has.
fn check_lanes(log: &Log) -> [u64; 3] {
    let mut next = [0; 3];
    for partition in 0..2 {
        let read = entries(log.partition(partition).unwrap().read(StartAt::Earliest).unwrap());
        assert!(read.windows(2).all(|pair| pair[0].offset() < pair[1].offset()));
        let values: Vec<_> = read.iter().map(|entry| parse(entry.value())).collect();
        for batch in values.chunk_by(|a, b| a[0] == b[0] && a[2] == b[2]) {
            let [lane, _, first, end] = batch[0];
            assert!(batch.iter().map(|record| record[1]).eq(first..end), "a batch of lane {lane}: {batch:?}");
            let next = &mut next[usize::try_from(lane).unwrap()];
            assert_eq!(first, *next, "lane {lane}");
            *next = end;
        }
        for (entry, [lane, number, first, end]) in read.iter().zip(&values) {
            assert_eq!(entry.value(), appended(*lane, *number, &(*first..*end)));
        }
    }
    next
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_in_order_once_and_in_whole_batches() {
    within(limit(), || {
        for durability in DURABILITIES {
            let dir = scratch();
            let mut acknowledged = [0; 3];
            for round in 0..kills() {
                let said = one_life("child_that_appends", dir.path(), durability, round, 300);
                for (lane, acknowledged) in acknowledged.iter_mut().enumerate() {
                    *acknowledged = numbers(&said, &format!("lane{lane}")).last().unwrap_or(*acknowledged);
                }
                if round % 2 == 1 || round + 1 == kills() {
                    let store = open(dir.path(), durability);
                    let there = check_lanes(&store.log_with("orders", small(3)).unwrap());
                    for (there, acknowledged) in there.iter().zip(&acknowledged) {
                        assert!(there >= acknowledged, "{durability}: {there} of {acknowledged} in round {round}");
                    }
                    assert!(store.recovery().damage().is_empty());
                }
            }
            // On a busy machine one lane may be killed each time before it has its turn.
            assert!(acknowledged.iter().any(|count| *count > 0), "{durability}: the child did nothing");
        }
        report();
    });
}

// ---- delivery ----

/// Enough that no life comes to the end of it.
fn delivered() -> u64 {
    1000 * kills()
}

/// Fills the log that the consumers read, closed before the first child opens it.
fn fill(dir: &Path, records: u64) {
    let store = options().durability(Durability::Os).open(dir).unwrap();
    let log = store.log_with("input", small(1)).unwrap();
    for chunk in (0..records).collect::<Vec<_>>().chunks(100) {
        log.append_batch(chunk.iter().map(|number| number.to_be_bytes().to_vec())).unwrap();
    }
    store.close().unwrap();
}

#[test]
fn child_at_most_once() {
    let Some(dir) = child::directory() else { return };
    let store = open_in_child(&dir);
    let input = store.open_log("input").unwrap();
    let mut consumer = input.consumer("group").max_poll_records(POLLED).at_most_once().unwrap();
    while let Some(batch) = consumer.poll(Duration::ZERO).unwrap() {
        for entry in &batch {
            child::say(format_args!("got {}", entry.offset()));
        }
    }
}

#[test]
fn at_most_once_hands_no_record_out_twice_whatever_is_killed() {
    within(limit(), || {
        for durability in DURABILITIES {
            let dir = scratch();
            fill(dir.path(), delivered());
            let mut got = BTreeSet::new();
            for round in 0..kills() {
                for offset in numbers(&one_life("child_at_most_once", dir.path(), durability, round, 300), "got ") {
                    assert!(got.insert(offset), "{durability}: {offset} came twice");
                }
            }
            assert!(!got.is_empty());
            // What is lost was in the hands of a child that was killed.
            let reached = got.last().unwrap() + 1;
            let lost = reached - got.len() as u64;
            assert!(lost <= kills() * 2 * POLLED as u64, "{durability}: {lost} lost of {reached}");
        }
        report();
    });
}

#[test]
fn child_at_least_once() {
    let Some(dir) = child::directory() else { return };
    let store = open_in_child(&dir);
    let input = store.open_log("input").unwrap();
    let mut consumer = input.consumer("group").max_poll_records(POLLED).at_least_once().unwrap();
    while let Some(batch) = consumer.poll(Duration::ZERO).unwrap() {
        for entry in &batch {
            child::say(format_args!("got {}", entry.offset()));
        }
        let end = batch.offsets().end;
        batch.commit().unwrap();
        child::say(format_args!("committed {end}"));
    }
}

#[test]
fn at_least_once_skips_no_record_and_repeats_none_that_was_committed() {
    within(limit(), || {
        for durability in DURABILITIES {
            let dir = scratch();
            fill(dir.path(), delivered());
            let (mut got, mut committed) = (BTreeSet::new(), 0);
            for round in 0..kills() {
                let said = one_life("child_at_least_once", dir.path(), durability, round, 300);
                if let Some(first) = numbers(&said, "got ").next() {
                    assert!(first >= committed, "{durability}: {first} again, after {committed} was committed");
                }
                got.extend(numbers(&said, "got "));
                committed = numbers(&said, "committed ").last().unwrap_or(committed);
            }
            assert!(committed > 0, "{durability}: the child did nothing");
            assert!(got.iter().copied().eq(0..got.len() as u64), "{durability}: a record was skipped");
            let store = open(dir.path(), durability);
            let placemark = store.group("group").placemarks().unwrap()[0].offset;
            assert!((committed..=got.len() as u64).contains(&placemark), "{durability}: {placemark}");
        }
        report();
    });
}

// ---- exactly once ----

const KEYS: u64 = 13;

/// Enough that no life comes to the end of it.
fn piped() -> u64 {
    600 * kills()
}

/// Hands records through, each with its outputs in one transaction, until the stage has nothing left.
fn stage(store: &Store, from: &Log, to: &Log, idle: Duration, say: bool) {
    let mut consumer = from.consumer("stage").max_poll_records(POLLED).exactly_once().unwrap();
    while let Some(batch) = consumer.poll(idle).unwrap() {
        let count = batch.len();
        hand_through(store, to, batch);
        if say {
            child::say(format_args!("handed {count}"));
        }
    }
}

fn hand_through(store: &Store, to: &Log, batch: placemark::Batch<ExactlyOnce>) {
    let mut transaction = store.transaction();
    for entry in &batch {
        transaction.append(to, Record::new(entry.value()).key(entry.key().unwrap())).unwrap();
    }
    transaction.commit_with(batch).unwrap();
}

fn pipeline(store: &Store) -> [Log; 3] {
    [("a", 2), ("b", 3), ("c", 2)].map(|(name, partitions)| store.log_with(name, small(partitions)).unwrap())
}

#[test]
fn child_with_two_pipelines() {
    let Some(dir) = child::directory() else { return };
    let store = open_in_child(&dir);
    let [a, b, c] = pipeline(&store);
    thread::scope(|scope| {
        // Two members of the first stage, one of the second; they end only by being killed, or when all is done.
        scope.spawn(|| stage(&store, &a, &b, Duration::from_millis(100), true));
        scope.spawn(|| stage(&store, &a, &b, Duration::from_millis(100), true));
        scope.spawn(|| stage(&store, &b, &c, Duration::from_millis(100), true));
    });
}

#[test]
fn exactly_once_two_pipelines_in_a_row_leave_each_result_once() {
    within(limit(), || {
        for durability in DURABILITIES {
            let dir = scratch();
            let store = options().durability(Durability::Os).open(dir.path()).unwrap();
            let [a, ..] = pipeline(&store);
            for chunk in (0..piped()).collect::<Vec<_>>().chunks(50) {
                let records =
                    chunk.iter().map(|it| Record::new(it.to_be_bytes().to_vec()).key(vec![(it % KEYS) as u8]));
                a.append_batch(records).unwrap();
            }
            drop(a);
            store.close().unwrap();
            let mut handed = 0;
            for round in 0..kills() {
                let said = one_life("child_with_two_pipelines", dir.path(), durability, round, 40);
                handed += numbers(&said, "handed ").sum::<u64>();
            }
            assert!(handed > 0, "{durability}: the child did nothing");
            let store = open(dir.path(), durability);
            let [a, b, c] = pipeline(&store);
            for (from, to) in [(&a, &b), (&b, &c)] {
                stage(&store, from, to, Duration::ZERO, false);
            }
            for (log, partitions) in [(&b, 3), (&c, 2)] {
                check_piped(log, durability);
                for partition in (0..partitions).map(|it| log.partition(it).unwrap()) {
                    assert!(offsets(partition.read(StartAt::Earliest).unwrap()).is_sorted_by(|a, b| a < b));
                }
            }
        }
        report();
    });
}

/// Whether a log holds each number once, those of each key in order.
fn check_piped(log: &Log, durability: &str) {
    let mut keys: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    for entry in entries(log.read(StartAt::Earliest).unwrap()) {
        let number = u64::from_be_bytes(entry.value().try_into().unwrap());
        keys.entry(entry.key().unwrap().to_vec()).or_default().push(number);
    }
    assert_eq!(keys.len() as u64, KEYS);
    for (key, numbers) in keys {
        let expected = (u64::from(key[0])..piped()).step_by(usize::try_from(KEYS).unwrap());
        assert!(numbers.iter().copied().eq(expected), "{durability}: {numbers:?}");
    }
}
