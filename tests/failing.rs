//! Records that fail: tried as often as was asked for, across crashes, then passed, each once and nothing else with it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use placemark::storage::{Crash, Keep, SimDisk};
use placemark::{
    AtLeastOnce, Batch, Consumer, Durability, Entry, Error, Log, LogOptions, Record, Result, StartAt, Store,
};

use common::child::{self, Child};
use common::{Numbers, WAIT, entries, in_cache, options, scratch, within};

/// A log whose records have their offset as their value.
fn numbered(store: &Store, name: &str, partitions: u32, records: u64) -> Log {
    let log = store.log_with(name, LogOptions::new().partitions(partitions).segment_bytes(64 << 10)).unwrap();
    for partition in 0..partitions {
        log.partition(partition).unwrap().append_batch((0..records).map(|number| number.to_string())).unwrap();
    }
    log
}

fn poll<M>(consumer: &mut Consumer<M>) -> Option<Batch<M>> {
    consumer.poll(Duration::ZERO).unwrap()
}

fn text<'a>(entry: &'a Entry, header: &str) -> &'a str {
    std::str::from_utf8(entry.header(header).unwrap_or_else(|| panic!("no {header} in {entry:?}"))).unwrap()
}

/// The dead letters: partition and offset they come from, and attempts.
fn letters(dead: &Log) -> Vec<(u32, u64, u64)> {
    let number = |entry: &Entry, header| text(entry, header).parse::<u64>().unwrap();
    let place = |entry: &Entry| {
        let partition = u32::try_from(number(entry, "placemark-partition")).unwrap();
        (partition, number(entry, "placemark-offset"), number(entry, "placemark-attempts"))
    };
    entries(dead.read(StartAt::Earliest).unwrap()).iter().map(place).collect()
}

/// Processes all there is, dropping each batch in which a record is bad; what was processed, and how often each was seen.
fn process(consumer: &mut Consumer<AtLeastOnce>, bad: &[u64]) -> (Vec<(u32, u64)>, BTreeMap<u64, u64>) {
    let (mut processed, mut seen) = (Vec::new(), BTreeMap::new());
    while let Some(batch) = poll(consumer) {
        for entry in &batch {
            *seen.entry(entry.offset()).or_default() += 1;
        }
        if batch.iter().any(|entry| bad.contains(&entry.offset())) {
            continue;
        }
        processed.extend(batch.iter().map(|entry| (entry.partition(), entry.offset())));
        batch.commit().unwrap();
    }
    (processed, seen)
}

// ---- what becomes of a record ----

#[test]
fn a_record_that_failed_so_often_is_in_the_dead_letter_log_as_it_was_and_passed() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, dead) = (store.log("orders").unwrap(), store.log("dead").unwrap());
    let bad =
        Record::new("value").key("key").header("trace", "1").header("trace", "2").header("placemark-reason", "old");
    log.append(&bad).unwrap();
    log.append(Record::tombstone("gone")).unwrap();
    log.append("good").unwrap();
    let mut consumer =
        log.consumer("group").max_attempts(3).dead_letter(&dead).max_poll_records(1).at_least_once().unwrap();
    for offset in [0, 0, 0, 1, 1, 1, 2] {
        assert_eq!(poll(&mut consumer).unwrap().offsets(), offset..offset + 1);
    }
    assert_eq!(consumer.committed(0), Some(2));
    poll(&mut consumer).unwrap().commit().unwrap();
    let read = entries(dead.read(StartAt::Earliest).unwrap());
    assert_eq!((read[0].key(), read[0].value()), (Some(&b"key"[..]), &b"value"[..]));
    let headers: Vec<_> = read[0].headers().map(|(name, value)| (name, std::str::from_utf8(value).unwrap())).collect();
    let ours = [
        ("trace", "1"),
        ("trace", "2"),
        ("placemark-log", "orders"),
        ("placemark-partition", "0"),
        ("placemark-offset", "0"),
        ("placemark-reason", "the batch was dropped"),
        ("placemark-attempts", "3"),
    ];
    assert_eq!(headers, ours);
    assert!(read[1].is_tombstone() && read[1].key() == Some(b"gone"));
    assert_eq!(letters(&dead), [(0, 0, 3), (0, 1, 3)]);
}

#[test]
fn what_is_skipped_leaves_no_trace_and_the_order_of_the_rest_is_kept() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = numbered(&store, "log", 1, 100);
    let bad = [0, 17, 18, 99];
    let mut consumer = log.consumer("group").max_attempts(2).skip().at_least_once().unwrap();
    let (processed, seen) = process(&mut consumer, &bad);
    assert!(processed.iter().map(|(_, offset)| *offset).eq((0..100).filter(|offset| !bad.contains(offset))));
    assert!(bad.iter().all(|bad| seen[bad] >= 2));
    assert_eq!((consumer.committed(0), store.logs().unwrap().len()), (Some(100), 1));
    let lag = consumer.lag().unwrap();
    assert_eq!((lag[0].records, lag[0].bytes, lag[0].age), (0, 0, Duration::ZERO));
}

#[test]
fn good_neighbours_in_a_batch_of_many_are_not_taken_for_the_one_that_fails() {
    for attempts in [1, 3] {
        for bad in [0, 250, 499] {
            let dir = scratch();
            let store = in_cache().open(dir.path()).unwrap();
            let (log, dead) = (numbered(&store, "log", 1, 500), store.log("dead").unwrap());
            let mut consumer = log.consumer("group").max_attempts(attempts).dead_letter(&dead).at_least_once().unwrap();
            let (processed, seen) = process(&mut consumer, &[bad]);
            assert_eq!(letters(&dead), [(0, bad, u64::from(attempts))]);
            assert!(processed.iter().map(|(_, offset)| *offset).eq((0..500).filter(|offset| *offset != bad)));
            assert!(seen.values().all(|times| *times < 20), "{seen:?}");
        }
    }
}

#[test]
fn other_partitions_go_on_while_one_fails() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = numbered(&store, "log", 3, 10);
    let dead = store.log("dead").unwrap();
    let mut consumer =
        log.consumer("group").max_attempts(5).dead_letter(&dead).max_poll_records(1).at_least_once().unwrap();
    let (mut done, mut failed) = (0_u32, 0);
    while let Some(batch) = poll(&mut consumer) {
        if batch.partition() == 1 {
            failed += 1;
        } else {
            done += 1;
            batch.commit().unwrap();
            // A dropped batch comes first, but what is passed has had its turn.
            assert!(failed <= 5 * done.div_ceil(2), "{failed} failures for {done} done");
        }
    }
    assert_eq!((done, failed), (20, 50));
    assert_eq!(letters(&dead), (0..10).map(|offset| (1, offset, 5)).collect::<Vec<_>>());
}

#[test]
fn without_a_bound_a_record_comes_again_for_ever() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let mut consumer = numbered(&store, "log", 1, 5).consumer("group").at_least_once().unwrap();
    for _ in 0..1000 {
        assert_eq!(poll(&mut consumer).unwrap().offsets(), 0..5);
    }
}

#[test]
fn a_record_that_is_named_is_the_one_and_what_was_before_it_is_settled() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, dead) = (numbered(&store, "log", 1, 10), store.log("dead").unwrap());
    let consumer = log.consumer("group").max_attempts(2).dead_letter(&dead).max_poll_records(9);
    let mut consumer = consumer.at_least_once().unwrap();
    let batch = poll(&mut consumer).unwrap();
    assert!(poll(&mut consumer).is_none(), "one batch of a partition at a time");
    batch.fail(4, "first").unwrap();
    assert_eq!(consumer.committed(0), Some(4));
    let alone = poll(&mut consumer).unwrap();
    assert_eq!(alone.offsets(), 4..5);
    alone.fail(4, "second").unwrap();
    let rest = poll(&mut consumer).unwrap();
    assert_eq!(rest.offsets(), 5..9, "nothing else is under suspicion");
    assert_eq!(letters(&dead), [(0, 4, 2)]);
    assert_eq!(text(&entries(dead.read(StartAt::Earliest).unwrap())[0], "placemark-reason"), "second");
    let refused = rest.fail(4, "it is not in there");
    assert!(matches!(refused, Err(Error::InvalidOption { option: "offset", .. })));
    poll(&mut consumer).expect("what was not settled comes again").commit().unwrap();
    // Also where nothing is counted.
    let mut plain = log.consumer("plain").at_least_once().unwrap();
    poll(&mut plain).unwrap().fail(7, "no matter").unwrap();
    assert_eq!((plain.committed(0), poll(&mut plain).unwrap().offsets()), (Some(7), 7..10));
}

#[test]
fn attempts_are_counted_by_record_and_not_by_place_when_a_group_goes_back() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = numbered(&store, "log", 1, 3);
    let mut consumer = log.consumer("group").max_attempts(2).skip().max_poll_records(1).at_least_once().unwrap();
    for _ in 0..10 {
        poll(&mut consumer).unwrap().commit().unwrap();
        consumer.seek(0, StartAt::Earliest).unwrap();
    }
    drop(poll(&mut consumer));
    drop(consumer);
    store.group("group").reset(&log, placemark::ResetTo::Earliest).unwrap();
    let mut consumer = log.consumer("group").max_attempts(2).skip().max_poll_records(1).at_least_once().unwrap();
    for offset in [0, 0, 1] {
        assert_eq!(poll(&mut consumer).unwrap().offsets().start, offset, "a reset begins to count anew");
    }
}

#[test]
fn a_batch_held_past_its_timeout_has_failed() {
    within(WAIT, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let (log, dead) = (numbered(&store, "log", 1, 2), store.log("dead").unwrap());
        let consumer = log.consumer("group").max_attempts(1).dead_letter(&dead).max_poll_records(1);
        let mut consumer = consumer.processing_timeout(Duration::from_millis(20)).at_least_once().unwrap();
        let late = poll(&mut consumer).unwrap();
        assert_eq!(consumer.poll(WAIT).unwrap().unwrap().offsets(), 1..2);
        assert!(matches!(late.commit(), Err(Error::Fenced)));
        let letter = &entries(dead.read(StartAt::Earliest).unwrap())[0];
        assert_eq!(text(letter, "placemark-reason"), "it was held past its processing timeout");
    });
}

#[test]
fn a_dead_letter_log_that_refuses_a_record_is_an_error_until_it_is_mended_and_nothing_is_lost() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("log").unwrap();
    log.append(vec![b'x'; 5000]).unwrap();
    let dead = store.log_with("dead", LogOptions::new().max_record_bytes(1000)).unwrap();
    let mut consumer = log.consumer("group").max_attempts(1).dead_letter(&dead).at_least_once().unwrap();
    drop(poll(&mut consumer).unwrap());
    for _ in 0..3 {
        assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::RecordTooLarge { .. })));
        assert_eq!(consumer.committed(0), None);
    }
    store.log_with("dead", LogOptions::new().max_record_bytes(10_000)).unwrap();
    assert!(poll(&mut consumer).is_none());
    assert_eq!((letters(&dead), consumer.committed(0)), (vec![(0, 0, 1)], Some(1)));
    log.append("bad").unwrap();
    drop(poll(&mut consumer).unwrap());
    store.delete_log("dead").unwrap();
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::NoSuchLog { name }) if name == "dead"));
    assert_eq!(consumer.committed(0), Some(1));
}

#[test]
fn combinations_without_a_meaning_are_refused_and_make_no_group() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, dead) = (store.log("log").unwrap(), store.log("dead").unwrap());
    let other = in_cache().open(scratch().path()).unwrap().log("other").unwrap();
    let group = || log.consumer("group");
    let refused = |consumer: Result<Consumer<AtLeastOnce>>, what: &str| match consumer {
        Err(Error::InvalidOption { option, reason }) => assert_eq!(option, what, "{reason}"),
        other => panic!("{what}: {other:?}"),
    };
    refused(group().max_attempts(3).at_least_once(), "max_attempts");
    refused(group().max_attempts(0).skip().at_least_once(), "max_attempts");
    refused(group().max_attempts(3).skip().dead_letter(&dead).at_least_once(), "max_attempts");
    refused(group().max_attempts(3).skip().by_key().at_least_once(), "max_attempts");
    refused(group().skip().at_least_once(), "skip");
    refused(group().dead_letter(&dead).at_least_once(), "dead_letter");
    refused(group().max_attempts(3).dead_letter(&log).at_least_once(), "dead_letter");
    refused(group().max_attempts(3).dead_letter(&other).at_least_once(), "dead_letter");
    refused(group().backoff(Duration::ZERO, WAIT).at_least_once(), "backoff");
    refused(group().backoff(WAIT, Duration::from_millis(1)).at_least_once(), "backoff");
    let most = group().max_attempts(3).skip().at_most_once();
    assert!(matches!(most, Err(Error::InvalidOption { option: "max_attempts", .. })));
    let from = group().max_attempts(3).skip().exactly_once_from(|_| Ok::<_, Error>(None));
    assert!(matches!(from, Err(Error::InvalidOption { option: "max_attempts", .. })));
    assert!(store.groups().unwrap().is_empty());
}

#[test]
fn exactly_once_a_failed_record_has_no_outputs_and_one_dead_letter() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = numbered(&store, "log", 1, 40);
    let (out, dead) = (store.log("out").unwrap(), store.log("dead").unwrap());
    let mut consumer = log.consumer("group").max_attempts(2).dead_letter(&dead).exactly_once().unwrap();
    while let Some(batch) = poll(&mut consumer) {
        let mut transaction = store.transaction();
        for entry in &batch {
            transaction.append(&out, entry.value()).unwrap();
        }
        if batch.iter().all(|entry| entry.offset() != 13) {
            transaction.commit_with(batch).unwrap();
        }
    }
    assert_eq!(letters(&dead), [(0, 13, 2)]);
    let outputs: Vec<String> = entries(out.read(StartAt::Earliest).unwrap())
        .iter()
        .map(|it| String::from_utf8_lossy(it.value()).into())
        .collect();
    assert!(outputs.iter().map(|it| it.parse::<u64>().unwrap()).eq((0..40).filter(|offset| *offset != 13)));
}

// ---- across openings, crashes and kills ----

#[test]
fn attempts_and_suspicion_are_known_after_reopening() {
    for close in [true, false] {
        let dir = scratch();
        let mut seen: Vec<Range<u64>> = Vec::new();
        for _ in 0..20 {
            let store = in_cache().open(dir.path()).unwrap();
            let log = match store.open_log("log") {
                Ok(log) => log,
                Err(_) => numbered(&store, "log", 1, 8),
            };
            let dead = store.log("dead").unwrap();
            let mut consumer = log.consumer("group").max_attempts(3).dead_letter(&dead).at_least_once().unwrap();
            let Some(batch) = poll(&mut consumer) else { break };
            seen.push(batch.offsets());
            if batch.offsets().contains(&5) {
                std::mem::forget(batch);
            } else {
                batch.commit().unwrap();
            }
            drop((consumer, log, dead));
            if close {
                store.close().unwrap();
            }
        }
        assert_eq!(seen, IN_HALVES);
        let store = in_cache().open(dir.path()).unwrap();
        let dead = store.open_log("dead").unwrap();
        assert_eq!(letters(&dead), [(0, 5, 3)]);
        let letter = &entries(dead.read(StartAt::Earliest).unwrap())[0];
        assert_eq!(text(letter, "placemark-reason"), "its process ended before it was settled");
    }
}

#[test]
fn an_attempt_is_on_the_disk_before_the_record_is_handed_out() {
    let mut disk = SimDisk::new(1);
    let mut seen: Vec<Range<u64>> = Vec::new();
    for _ in 0..20 {
        let store = simulated(&disk).unwrap();
        let (log, dead) = (store.log("log").unwrap(), store.log("dead").unwrap());
        if log.partition(0).unwrap().end_offset() == 0 {
            log.append_batch((0..8).map(|number: u64| number.to_string())).unwrap();
        }
        let mut consumer = log.consumer("group").max_attempts(3).dead_letter(&dead).at_least_once().unwrap();
        let Some(batch) = poll(&mut consumer) else { break };
        seen.push(batch.offsets());
        // Its power fails while the batch is in hand, and takes all that it may.
        if batch.offsets().contains(&5) {
            disk = disk.crash(Crash::new(1).keep(Keep::Nothing));
        } else {
            batch.commit().unwrap();
            store.close().unwrap();
        }
    }
    assert_eq!(seen, IN_HALVES);
    assert_eq!(letters(&simulated(&disk).unwrap().log("dead").unwrap()), [(0, 5, 3)]);
}

/// How eight records are handed out of which the sixth kills its process, three times alone.
const IN_HALVES: [Range<u64>; 10] = [0..8, 0..4, 4..8, 4..6, 4..5, 5..7, 5..6, 5..6, 5..6, 6..8];

const PATH: &str = "/var/lib/data";
const BAD: [u64; 2] = [2, 7];
const ALL: u64 = 9;

fn simulated(disk: &SimDisk) -> Result<Store> {
    Store::options().storage(Arc::new(disk.clone())).open(PATH)
}

/// Processes until nothing is left, in batches that fail where a record is bad; notes what was processed.
fn work(store: &Store, processed: &mut Vec<u64>) -> Result<()> {
    let [log, dead] = prepared(store)?;
    let mut consumer = log.consumer("group").max_attempts(2).dead_letter(&dead).max_poll_records(4).at_least_once()?;
    while let Some(batch) = consumer.poll(Duration::ZERO)? {
        settle_or_fail(batch, processed)?;
    }
    Ok(())
}

/// The same by `run`.
fn run(store: &Store, processed: &mut Vec<u64>) -> Result<()> {
    let [log, dead] = prepared(store)?;
    let consumer = log.consumer("group").max_attempts(2).dead_letter(&dead).max_poll_records(4);
    let mut consumer = consumer.backoff(Duration::from_micros(1), Duration::from_micros(1)).at_least_once()?;
    if consumer.committed(0) == Some(ALL) {
        return Ok(());
    }
    let stopper = consumer.stopper();
    consumer.run(|entry| {
        if BAD.contains(&entry.offset()) {
            return Err("bad");
        }
        processed.push(entry.offset());
        if entry.offset() == ALL - 1 {
            stopper.stop();
        }
        Ok(())
    })
}

fn prepared(store: &Store) -> Result<[Log; 2]> {
    let log = store.log_with("log", LogOptions::new().segment_bytes(64 << 10))?;
    while log.partition(0)?.end_offset() < ALL {
        log.append(log.partition(0)?.end_offset().to_string())?;
    }
    Ok([log, store.log("dead")?])
}

fn settle_or_fail(batch: Batch<AtLeastOnce>, processed: &mut Vec<u64>) -> Result<()> {
    let failed = batch.iter().map(Entry::offset).find(|offset| BAD.contains(offset));
    let before = batch.iter().map(Entry::offset).filter(|offset| failed.is_none_or(|failed| *offset < failed));
    match failed {
        // Of one it is known that it is the one.
        Some(7) if batch.len() > 1 => {
            processed.extend(before);
            batch.fail(7, "known")?;
        }
        Some(_) => drop(batch),
        None => {
            processed.extend(before);
            batch.commit()?;
        }
    }
    Ok(())
}

#[test]
fn a_crash_at_any_operation_leaves_each_dead_letter_once_and_passes_nothing_else() {
    for work in [work, run] {
        lose_power_at_every_operation(work);
    }
}

fn lose_power_at_every_operation(work: fn(&Store, &mut Vec<u64>) -> Result<()>) {
    let whole = SimDisk::new(1);
    work(&simulated(&whole).unwrap(), &mut Vec::new()).unwrap();
    let all = whole.operations();
    assert!(all > 60, "{all} operations");
    for after in 0..=all {
        for (seed, keep) in [(1, None), (2, Some(Keep::Nothing)), (3, Some(Keep::Everything)), (4, Some(Keep::Random))]
        {
            let disk = SimDisk::new(1);
            disk.crash_after(after);
            let mut processed = Vec::new();
            let _ = simulated(&disk).and_then(|store| work(&store, &mut processed));
            let left = keep.map_or_else(|| disk.kill(), |keep| disk.crash(Crash::new(seed * 1000 + after).keep(keep)));
            let what = format!("after operation {after} of {all}, {keep:?}");
            let store = simulated(&left).unwrap_or_else(|error| panic!("{what}: {error}"));
            work(&store, &mut processed).unwrap_or_else(|error| panic!("{what}: {error}"));
            let found = letters(&store.open_log("dead").unwrap());
            assert_eq!(found, BAD.map(|bad| (0, bad, 2)), "{what}");
            processed.sort_unstable();
            processed.dedup();
            let good: Vec<u64> = (0..ALL).filter(|offset| !BAD.contains(offset)).collect();
            assert_eq!(processed, good, "{what}");
        }
    }
}

const KILLERS: [u64; 4] = [0, 41, 42, 150];
const RECORDS: u64 = 200;
const ATTEMPTS: u32 = 3;

#[test]
fn child_that_dies_of_some_records() {
    let Some(dir) = child::directory() else { return };
    let store = options().durability(Durability::Os).open(&dir).unwrap();
    let (log, dead) = (store.open_log("log").unwrap(), store.log("dead").unwrap());
    let consumer = log.consumer("group").max_attempts(ATTEMPTS).dead_letter(&dead).max_poll_records(32);
    let mut consumer = consumer.at_least_once().unwrap();
    while let Some(batch) = poll(&mut consumer) {
        child::say(format_args!("got {} {}", batch.offsets().start, batch.len()));
        for entry in &batch {
            if KILLERS.contains(&entry.offset()) {
                // To be killed by the parent, as by the kernel for want of memory.
                child::say("kill me");
                loop {
                    std::thread::park();
                }
            }
        }
        batch.commit().unwrap();
        child::say(format_args!("done {}", consumer.committed(0).unwrap()));
    }
    child::say("finished");
}

#[test]
fn records_that_kill_their_process_are_dead_lettered_once_and_their_neighbours_never() {
    within(WAIT * 8, || {
        let dir = scratch();
        let store = options().durability(Durability::Os).open(dir.path()).unwrap();
        numbered(&store, "log", 1, RECORDS);
        store.close().unwrap();
        let (mut alone, mut lives, mut finished) = (BTreeMap::new(), 0, false);
        while !finished {
            let child = Child::start("child_that_dies_of_some_records", dir.path(), &[]);
            // Now and then it is killed before it comes to any of them.
            let most = if lives % 5 == 3 { 1 + Numbers::new(lives).below(6) } else { u64::MAX };
            let mut heard = 0;
            while let Some(line) = child.hear() {
                heard += 1;
                if let Some(single) = line.strip_prefix("got ").and_then(|it| it.strip_suffix(" 1")) {
                    *alone.entry(single.parse::<u64>().unwrap()).or_insert(0_u32) += 1;
                }
                finished |= line == "finished";
                if line == "kill me" || heard >= most {
                    break;
                }
            }
            child.kill();
            lives += 1;
            assert!(lives < 200, "it does not come to an end");
        }
        assert!(lives > 12, "{lives}");
        for killer in KILLERS {
            assert_eq!(alone[&killer], ATTEMPTS, "{killer} was tried so often");
        }
        let store = options().durability(Durability::Os).open(dir.path()).unwrap();
        let expected = KILLERS.map(|killer| (0, killer, u64::from(ATTEMPTS)));
        assert_eq!(letters(&store.open_log("dead").unwrap()), expected);
        assert_eq!(store.group("group").placemarks().unwrap()[0].offset, RECORDS);
    });
}

#[test]
fn a_panic_of_the_application_is_an_attempt_and_says_so() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, dead) = (numbered(&store, "log", 1, 3), store.log("dead").unwrap());
    let mut consumer =
        log.consumer("group").max_attempts(1).dead_letter(&dead).max_poll_records(1).at_least_once().unwrap();
    let died = panic::catch_unwind(AssertUnwindSafe(|| {
        let _batch = poll(&mut consumer).unwrap();
        panic!("of the application's own");
    }));
    assert!(died.is_err());
    assert_eq!(poll(&mut consumer).unwrap().offsets(), 1..2);
    assert_eq!(
        text(&entries(dead.read(StartAt::Earliest).unwrap())[0], "placemark-reason"),
        "the application panicked"
    );
}
