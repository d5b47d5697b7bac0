//! Producers on the simulated disk, which loses its power at every operation, and fails where it is told to: a sequence
//! that was acknowledged is a duplicate ever after, and one of which nothing is left is new.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use placemark::storage::{Crash, Fault, Keep, Operation, SimDisk};
use placemark::{Appended, Durability, Error, Producer, Record, Result, StartAt, Store};

use common::entries;
use common::producing::{duplicate, key_for, new, small};

const PATH: &str = "/var/lib/data";
const PARTITIONS: u32 = 2;

fn open(disk: &SimDisk, durability: Durability) -> Result<Store> {
    Store::options().durability(durability).storage(Arc::new(disk.clone())).open(PATH)
}

/// Large enough that a segment takes twenty.
fn record(sequence: u64) -> Record<'static> {
    let value = format!("{sequence:.<3000}");
    match sequence % 4 {
        0 => Record::new(value),
        key => Record::new(value).key(key.to_string()),
    }
}

fn sequence_of(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().trim_end_matches('.').parse().unwrap()
}

/// What an application knows when the power fails.
#[derive(Debug, Default)]
struct Known {
    /// Everything below was tried.
    tried: u64,
    /// These were acknowledged.
    acknowledged: BTreeSet<u64>,
    /// These may have been given up, or were.
    trimming: BTreeSet<u64>,
    trimmed: BTreeSet<u64>,
}

/// Appends singly and in batches, over several segments, with trims and reopenings, until something fails.
fn run(disk: &SimDisk, durability: Durability, known: &mut Known) -> Result<()> {
    for life in 0..3 {
        let store = open(disk, durability)?;
        let log = store.log_with("log", small(PARTITIONS))?;
        let mut producer = log.producer("importer")?;
        let mut next = producer.last_sequence().map_or(0, |last| last + 1);
        assert_eq!(next, known.tried);
        for step in 0..7 {
            let count = 1 + (step + life) % 4;
            known.tried = next + count;
            if count == 1 {
                new(producer.append(next, record(next))?);
            } else {
                let all = producer.append_batch(next, (next..next + count).map(record))?;
                assert!(all.iter().all(|it| matches!(it, Appended::New(_))));
            }
            known.acknowledged.extend(next..next + count);
            next += count;
        }
        if life > 0 {
            let partition = log.partition(0)?;
            // All of it once, and what full segments have once.
            let before = if life == 1 { u64::MAX } else { partition.end_offset() - 1 };
            let gone = partition.read(StartAt::Earliest)?.map(|entry| Ok(sequence_of(entry?.value())));
            let gone = gone.collect::<Result<BTreeSet<u64>>>()?;
            known.trimming.extend(&gone);
            partition.trim_before(before)?;
            let kept = partition.read(StartAt::Earliest)?.map(|entry| Ok(sequence_of(entry?.value())));
            let kept = kept.collect::<Result<BTreeSet<u64>>>()?;
            known.trimmed.extend(gone.difference(&kept));
        }
        if life == 1 {
            store.sync()?;
        }
        store.close()?;
    }
    Ok(())
}

/// Tries everything again on what a crash left, and looks at what there is then.
fn check(disk: &SimDisk, durability: Durability, known: &Known, what: &str) {
    let store = open(disk, durability).unwrap_or_else(|error| panic!("{what}: {error}"));
    let log = store.log_with("log", small(PARTITIONS)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut producer = log.producer("importer").unwrap();
    let must = if durability == Durability::Sync { &known.acknowledged } else { &known.trimmed };
    let survived: BTreeSet<u64> =
        entries(log.read(StartAt::Earliest).unwrap()).iter().map(|entry| sequence_of(entry.value())).collect();
    assert!(producer.last_sequence() >= must.last().copied().max(survived.last().copied()), "{what}");
    for sequence in 0..known.tried {
        match producer.append(sequence, record(sequence)).unwrap() {
            Appended::New(_) => assert!(!must.contains(&sequence), "{what}: {sequence} was written twice"),
            Appended::Duplicate(at) => {
                let there = survived.contains(&sequence) || known.trimming.contains(&sequence);
                // Without a key it may be passed by one elsewhere that survived; that takes power loss, and no `Sync`.
                let passed = durability != Durability::Sync && sequence % 4 == 0;
                assert!(there || passed, "{what}: {sequence} is a duplicate of nothing, {at:?}");
            }
        }
    }
    let mut found = BTreeSet::new();
    for entry in entries(log.read(StartAt::Earliest).unwrap()) {
        assert!(found.insert(sequence_of(entry.value())), "{what}: {} twice", sequence_of(entry.value()));
    }
    store.close().unwrap();
    // What was made of it is closed and opens again.
    let store = open(disk, durability).unwrap();
    let mut producer = store.open_log("log").unwrap().producer("importer").unwrap();
    assert_eq!(producer.last_sequence(), known.tried.checked_sub(1), "{what}");
    if let Some(last) = known.tried.checked_sub(1) {
        duplicate(producer.append(last, record(last)).unwrap());
    }
}

fn lose_the_power_everywhere(durability: Durability) {
    let whole = SimDisk::new(1);
    let mut known = Known::default();
    run(&whole, durability, &mut known).unwrap();
    assert!(known.tried > 40 && known.trimmed.len() > 10, "{known:?}");
    let all = whole.operations();
    for after in 0..=all {
        let disk = SimDisk::new(1);
        disk.crash_after(after);
        let mut known = Known::default();
        // The last one comes to the end.
        let _ = run(&disk, durability, &mut known);
        let keep = [Keep::Nothing, Keep::Random, Keep::Everything, Keep::Random];
        let keep = keep.into_iter().cycle().nth(usize::try_from(after).unwrap()).unwrap();
        let left = disk.crash(Crash::new(after).keep(keep));
        let what = format!("{durability:?}, power lost after operation {after} of {all}, {keep:?}");
        check(&left, durability, &known, &what);
    }
}

#[test]
fn a_power_loss_at_any_operation_under_sync_makes_nothing_be_written_twice_or_be_taken_for_written() {
    lose_the_power_everywhere(Durability::Sync);
}

#[test]
fn a_power_loss_at_any_operation_under_os_takes_sequences_with_their_records_only() {
    lose_the_power_everywhere(Durability::Os);
}

#[test]
fn what_is_not_on_the_disk_yet_is_no_duplicate() {
    for partitions in [1, 3] {
        let disk = SimDisk::new(1);
        let store = open(&disk, Durability::Sync).unwrap();
        let log = store.log_with("log", small(partitions)).unwrap();
        let mut producer = log.producer("importer").unwrap();
        new(producer.append(1, "first").unwrap());
        disk.inject(Fault::new(Operation::Sync, io::ErrorKind::Other).at(".log"));
        assert!(producer.append(2, "second").is_err());
        // Neither is it answered that it is there, nor is it written elsewhere.
        for _ in 0..4 {
            let again = producer.append(2, "second");
            assert!(matches!(again, Err(Error::Failed { .. })), "{again:?}");
            let again = producer.append_batch(2, ["second", "third"]);
            assert!(matches!(again, Err(Error::Failed { .. })), "{again:?}");
        }
        assert!(matches!(log.producer("importer"), Err(Error::Failed { .. })), "nor by another handle");
        for (keep, is_there) in [(Keep::Nothing, false), (Keep::Everything, true)] {
            // What the failed sync dropped may be there after a kill, and is not after a power loss.
            let left = if is_there { disk.kill() } else { disk.crash(Crash::new(1).keep(keep)) };
            let store = open(&left, Durability::Sync).unwrap();
            let log = store.open_log("log").unwrap();
            let mut producer = log.producer("importer").unwrap();
            assert_eq!(producer.last_sequence(), Some(if is_there { 2 } else { 1 }));
            assert_eq!(matches!(again(&mut producer), Appended::Duplicate(_)), is_there);
            assert_eq!(log.read(StartAt::Earliest).unwrap().count(), 2);
        }
    }
}

fn again(producer: &mut Producer) -> Appended {
    producer.append(2, "second").unwrap()
}

#[test]
fn a_snapshot_that_cannot_be_written_stops_nothing_and_is_made_up_for() {
    let disk = SimDisk::new(1);
    let store = open(&disk, Durability::Os).unwrap();
    let log = store.log_with("log", small(1)).unwrap();
    let mut producer = log.producer("importer").unwrap();
    disk.inject(Fault::new(Operation::Create, io::ErrorKind::StorageFull).at(".producers").forever());
    for sequence in 0..100 {
        new(producer.append(sequence, record(sequence)).unwrap());
    }
    store.sync().unwrap();
    let partition = log.partition(0).unwrap();
    // Without one nothing may be given up; that is an error, and no more.
    assert!(matches!(partition.trim_before(u64::MAX), Err(Error::Io { .. })));
    new(producer.append(100, record(100)).unwrap());
    let killed = disk.kill();
    disk.clear_faults();
    partition.trim_before(u64::MAX).unwrap();
    assert_eq!(log.read(StartAt::Earliest).unwrap().count(), 0);
    drop((log, partition, producer));
    store.close().unwrap();
    for left in [disk, killed] {
        let store = open(&left, Durability::Os).unwrap();
        assert_eq!(store.open_log("log").unwrap().producer("importer").unwrap().last_sequence(), Some(100));
    }
}

#[test]
fn what_the_journal_has_does_not_stand_for_what_was_lost_before_it() {
    let disk = SimDisk::new(1);
    let store = open(&disk, Durability::Os).unwrap();
    let log = store.log_with("log", small(2)).unwrap();
    let mut producer = log.producer("importer").unwrap();
    let [here, there] = [0, 1].map(|partition| key_for(&log, partition));
    store.sync().unwrap();
    let keyed = |key: &str| Record::new("value").key(key.to_owned());
    new(producer.append(1, keyed(&here)).unwrap());
    let batch = producer.append_batch(2, [keyed(&here), keyed(&there)]).unwrap();
    assert!(batch.iter().all(|it| matches!(it, Appended::New(_))));
    // Waits for the journal, and so for the batch that was decided there, but not for the log.
    let mut transaction = store.transaction();
    transaction.append(&store.log("other").unwrap(), "other").unwrap();
    transaction.commit().unwrap();
    let left = disk.crash(Crash::new(1).keep(Keep::Nothing));
    let store = open(&left, Durability::Os).unwrap();
    assert!(store.recovery().replayed_transactions > 0);
    let log = store.open_log("log").unwrap();
    let mut producer = log.producer("importer").unwrap();
    new(producer.append(1, keyed(&here)).unwrap());
    let again = producer.append_batch(2, [keyed(&here), keyed(&there)]).unwrap();
    let found = |partition: u32| {
        let read = entries(log.partition(partition).unwrap().read(StartAt::Earliest).unwrap());
        read.iter().filter(|entry| entry.value() == b"value").count()
    };
    assert_eq!((found(0), found(1)), (2, 1), "each is there once: {again:?}");
}
