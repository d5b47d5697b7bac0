//! Transactions: everything in one becomes readable, with the placemark, or nothing does.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use placemark::storage::{Crash, Fault, Keep, Operation, SimDisk};
use placemark::{
    Batch, Consumer, Durability, Entry, Error, ExactlyOnce, Log, LogOptions, Record, StartAt, Store, WriteMode,
};

use common::{SHORT, WAIT, entries, files, in_cache, offsets, options, scratch, values, within};

fn store(dir: &Path) -> Store {
    in_cache().open(dir).unwrap()
}

fn member(log: &Log, records: usize) -> Consumer<ExactlyOnce> {
    log.consumer("group").max_poll_records(records).exactly_once().unwrap()
}

fn take(consumer: &mut Consumer<ExactlyOnce>) -> Batch<ExactlyOnce> {
    consumer.poll(WAIT).unwrap().expect("there are records to deliver")
}

fn all(log: &Log) -> Vec<Vec<u8>> {
    values(log.read(StartAt::Earliest).unwrap())
}

#[test]
fn a_transaction_over_logs_and_partitions_is_readable_when_commit_returns_and_not_before() {
    let dir = scratch();
    let store1 = store(dir.path());
    let one = store1.log("one").unwrap();
    let three = store1.log_with("three", LogOptions::new().partitions(3)).unwrap();
    let mut transaction = store1.transaction();
    for number in 0..30_u8 {
        transaction.append(&one, vec![number]).unwrap();
        transaction.append(&three, Record::new(vec![number]).key(vec![number]).header("n", "1")).unwrap();
    }
    transaction.append(&one, String::from("text")).unwrap();
    assert!(all(&one).is_empty() && all(&three).is_empty());
    one.append("beside").unwrap();
    transaction.commit().unwrap();
    let check = |store: &Store| {
        let (one, three) = (store.open_log("one").unwrap(), store.open_log("three").unwrap());
        let mut expected: Vec<_> = std::iter::once(b"beside".to_vec()).chain((0..30).map(|it| vec![it])).collect();
        expected.push(b"text".to_vec());
        assert_eq!(all(&one), expected);
        let mut seen = entries(three.read(StartAt::Earliest).unwrap());
        assert!(seen.iter().all(|entry| entry.key() == Some(entry.value()) && entry.header("n") == Some(b"1")));
        assert!((0..3).all(|it| seen.iter().filter(|entry| entry.partition() == it).map(Entry::value).is_sorted()));
        seen.sort_by(|a, b| a.value().cmp(b.value()));
        assert!(seen.iter().map(Entry::value).eq((0..30_u8).map(|it| [it])));
    };
    check(&store1);
    let killed = files::image(dir.path());
    check(&store(killed.path()));
    drop((one, three));
    store1.close().unwrap();
    check(&store(dir.path()));
}

#[test]
fn an_aborted_transaction_leaves_no_trace_and_takes_no_disk() {
    let dir = scratch();
    let store1 = store(dir.path());
    let log = store1.log_with("orders", LogOptions::new().partitions(4)).unwrap();
    log.append("before").unwrap();
    store1.sync().unwrap();
    let before = files::contents(dir.path());
    let taken = files::disk_bytes(dir.path());
    for _ in 0..20 {
        let mut transaction = store1.transaction();
        for number in 0..100_u32 {
            transaction.append(&log, Record::new(vec![1; 10_000]).key(number.to_be_bytes().to_vec())).unwrap();
        }
        drop(transaction);
    }
    assert_eq!(all(&log), [b"before"]);
    assert_eq!(files::disk_bytes(dir.path()), taken);
    assert!(files::contents(dir.path()) == before);
    assert!((0..4).map(|it| log.partition(it).unwrap().end_offset()).sum::<u64>() == 1);
    // An empty one has nothing to decide.
    store1.transaction().commit().unwrap();
    assert_eq!(all(&log), [b"before"]);
}

#[test]
fn an_open_transaction_holds_no_one_back() {
    let dir = scratch();
    let store = store(dir.path());
    let log = store.log("orders").unwrap();
    let mut transaction = store.transaction();
    transaction.append(&log, "in the transaction").unwrap();
    let mut reader = log.read(StartAt::Earliest).unwrap();
    log.append("beside").unwrap();
    assert_eq!(reader.next().unwrap().unwrap().value(), b"beside");
    assert!(reader.recv_timeout(SHORT).unwrap().is_none());
    transaction.commit().unwrap();
    assert_eq!(reader.next().unwrap().unwrap().value(), b"in the transaction");
}

#[test]
fn outputs_and_placemark_move_together() {
    let dir = scratch();
    let store1 = store(dir.path());
    let (input, output) = (store1.log("input").unwrap(), store1.log("output").unwrap());
    input.append_batch((0..30).map(|number| format!("{number}"))).unwrap();
    let mut consumer = member(&input, 10);
    let batch = take(&mut consumer);
    let mut transaction = store1.transaction();
    for entry in &batch {
        transaction.append(&output, entry.value()).unwrap();
    }
    let before = files::image(dir.path());
    transaction.commit_with(batch).unwrap();
    let after = files::image(dir.path());
    assert_eq!(consumer.committed(0), Some(10));
    for (killed, moved) in [(before, 0), (after, 10)] {
        let store = store(killed.path());
        assert_eq!(all(&store.open_log("output").unwrap()).len(), moved);
        let batch = take(&mut member(&store.open_log("input").unwrap(), 10));
        assert_eq!(batch.offsets().start, moved as u64);
    }
    // Dropping the transaction aborts it; its batch comes again.
    let batch = take(&mut consumer);
    let mut transaction = store1.transaction();
    transaction.append(&output, "never").unwrap();
    drop((transaction, batch));
    let batch = take(&mut consumer);
    assert_eq!(batch.offsets(), 10..20);
    store1.transaction().commit_with(batch).unwrap();
    assert_eq!(consumer.committed(0), Some(20), "a batch may have no outputs");
    assert_eq!(all(&output).len(), 10);
}

#[test]
fn a_batch_whose_partition_has_moved_on_is_fenced_and_none_of_its_outputs_appear() {
    within(WAIT, || {
        let dir = scratch();
        let store = store(dir.path());
        let (input, output) = (store.log("input").unwrap(), store.log("output").unwrap());
        input.append_batch(["a", "b"]).unwrap();
        let timed = input.consumer("group").processing_timeout(Duration::from_millis(30));
        let mut first = timed.exactly_once().unwrap();
        let late = take(&mut first);
        let mut transaction = store.transaction();
        transaction.append(&output, "from the former owner").unwrap();
        drop(first);
        let mut second = member(&input, 10);
        let batch = take(&mut second);
        assert_eq!(batch.offsets(), 0..2);
        assert!(matches!(transaction.commit_with(late), Err(Error::Fenced)));
        assert!(all(&output).is_empty());
        assert!(store.group("group").placemarks().unwrap().iter().all(|placemark| placemark.offset == 0));
        let mut transaction = store.transaction();
        transaction.append(&output, "from the owner").unwrap();
        transaction.commit_with(batch).unwrap();
        assert_eq!(all(&output), [b"from the owner"]);
    });
}

#[test]
fn a_keyed_batch_over_several_partitions_is_whole_or_not_there() {
    for durability in [Durability::Os, Durability::Sync] {
        let dir = scratch();
        let store1 = options().durability(durability).open(dir.path()).unwrap();
        let log = store1.log_with("orders", LogOptions::new().partitions(5).max_record_bytes(1000)).unwrap();
        let keyed = |number: u8| Record::new(vec![number]).key(vec![number]);
        let positions = log.append_batch((0..50).map(keyed)).unwrap();
        for (at, number) in positions.iter().zip(0..) {
            let mut reader = log.partition(at.partition).unwrap().read(StartAt::Offset(at.offset)).unwrap();
            assert_eq!(reader.next().unwrap().unwrap().value(), [number]);
        }
        let too_large = Record::new(vec![0; 5000]).key("key");
        let refused = log.append_batch((0..50).map(keyed).chain([too_large]));
        assert!(matches!(refused, Err(Error::RecordTooLarge { .. })));
        let killed = files::image(dir.path());
        let store = options().open(killed.path()).unwrap();
        let mut read = all(&store.open_log("orders").unwrap());
        read.sort();
        assert_eq!(read, (0..50).map(|number| vec![number]).collect::<Vec<_>>());
    }
}

#[test]
fn a_transaction_of_16_mib_succeeds_and_a_larger_one_is_whole_or_refused() {
    within(WAIT * 2, || {
        let dir = scratch();
        let store = store(dir.path());
        let log = store.log("large").unwrap();
        let mut transaction = store.transaction();
        for number in 0..16_u8 {
            transaction.append(&log, vec![number; 1 << 20]).unwrap();
        }
        transaction.commit().unwrap();
        let read = all(&log);
        assert_eq!(read.len(), 16);
        assert!(read.iter().zip(0..).all(|(value, number)| *value == vec![number; 1 << 20]));

        let small = store.log_with("small", LogOptions::new().segment_bytes(64 << 10)).unwrap();
        for (count, size) in [(20, 10_000), (200, 1 << 20)] {
            let before = all(&small).len();
            let mut transaction = store.transaction();
            let appended = (0..count).try_for_each(|_| transaction.append(&small, vec![1; size]));
            let committed = appended.map(drop).and_then(|()| transaction.commit());
            let now = all(&small).len();
            match committed {
                Ok(()) => assert_eq!(now, before + count),
                Err(refused) => {
                    assert_eq!(now, before, "{refused}");
                    assert!(!matches!(refused, Error::Io { .. } | Error::Failed { .. }), "{refused}");
                }
            }
            small.append("goes on").unwrap();
        }
    });
}

#[test]
fn many_threads_commit_at_once_and_each_transaction_is_whole() {
    const THREADS: u32 = 8;
    const EACH: u32 = 40;
    within(WAIT * 2, || {
        let dir = scratch();
        let store1 = store(dir.path());
        let logs = [1, 3].map(|it| store1.log_with(&format!("log-{it}"), LogOptions::new().partitions(it)).unwrap());
        let stop_at = u64::from(THREADS * EACH * 3);
        let follower = {
            let mut reader = logs[0].read(StartAt::Earliest).unwrap();
            thread::spawn(move || {
                (0..stop_at).map(|_| reader.recv_timeout(WAIT).unwrap().unwrap().value().to_vec()).collect::<Vec<_>>()
            })
        };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (store, logs) = (&store1, &logs);
                scope.spawn(move || {
                    for number in 0..EACH {
                        let value = [thread, number].map(u32::to_be_bytes).concat();
                        let mut transaction = store.transaction();
                        for _ in 0..3 {
                            transaction.append(&logs[0], &value).unwrap();
                            transaction.append(&logs[1], Record::new(&value).key(&value)).unwrap();
                        }
                        if number % 5 == 4 {
                            logs[1].append(Record::new("beside").key(&value)).unwrap();
                        }
                        transaction.commit().unwrap();
                    }
                });
            }
        });
        // Records of one transaction stand together, in a single partition, at once readable.
        let read = follower.join().unwrap();
        assert!(read.chunks(3).all(|three| three.iter().all(|value| *value == three[0])));
        let check = |store: &Store| {
            let logs = ["log-1", "log-3"].map(|name| store.open_log(name).unwrap());
            assert_eq!(all(&logs[0]), read);
            let mut counts = BTreeMap::new();
            for value in all(&logs[1]) {
                *counts.entry(value).or_insert(0) += 1;
            }
            assert_eq!(counts.remove(&b"beside"[..]), Some(THREADS * EACH / 5));
            assert_eq!(counts.len(), (THREADS * EACH) as usize);
            assert!(counts.values().all(|count| *count == 3));
            for partition in 0..3 {
                let partition = logs[1].partition(partition).unwrap();
                let dense = (0..partition.end_offset()).collect::<Vec<_>>();
                assert_eq!(offsets(partition.read(StartAt::Earliest).unwrap()), dense);
            }
        };
        check(&store1);
        let killed = files::image(dir.path());
        check(&store(killed.path()));
        drop(logs);
        store1.close().unwrap();
        check(&store(dir.path()));
    });
}

#[test]
fn a_decided_transaction_is_applied_when_the_partitions_lost_it() {
    let dir = scratch();
    let store1 = store(dir.path());
    let logs = ["a", "b"].map(|name| store1.log(name).unwrap());
    logs[0].append("before").unwrap();
    store1.sync().unwrap();
    let mut consumer = member(&logs[0], 1);
    let batch = take(&mut consumer);
    let mut transaction = store1.transaction();
    for log in &logs {
        transaction.append(log, "decided").unwrap();
    }
    transaction.commit_with(batch).unwrap();
    // The decision is on disk whatever the durability; the partitions' own frames are not.
    let killed = files::image(dir.path());
    for (name, first) in [("a", 1), ("b", 0)] {
        let segment = files::segments(&files::partition(killed.path(), name, 0)).remove(0);
        let frame = files::frames(&segment)[first].clone();
        files::zero(&segment, frame);
    }
    for _ in 0..2 {
        let store = store(killed.path());
        let logs = ["a", "b"].map(|name| store.open_log(name).unwrap());
        assert_eq!(all(&logs[0]), [&b"before"[..], b"decided"]);
        assert_eq!(all(&logs[1]), [b"decided"]);
        assert_eq!(store.group("group").placemarks().unwrap()[0].offset, 1);
    }
}

#[test]
fn a_later_reset_is_not_undone_by_the_transactions_of_before() {
    let dir = scratch();
    let store1 = store(dir.path());
    let log = store1.log("input").unwrap();
    log.append_batch(["a", "b", "c"]).unwrap();
    let mut consumer = member(&log, 2);
    store1.transaction().commit_with(take(&mut consumer)).unwrap();
    drop(consumer);
    store1.group("group").reset(&log, placemark::ResetTo::Offset(1)).unwrap();
    let killed = files::image(dir.path());
    let store = store(killed.path());
    assert_eq!(store.group("group").placemarks().unwrap()[0].offset, 1);
}

#[test]
fn two_stages_in_a_row_hand_every_record_through_once() {
    within(WAIT * 2, || {
        let dir = scratch();
        let store = store(dir.path());
        let [a, b, c] = ["a", "b", "c"].map(|name| store.log_with(name, LogOptions::new().partitions(2)).unwrap());
        let stages: Vec<_> = [(&a, &b), (&b, &c), (&a, &b), (&b, &c)]
            .map(|(from, to)| {
                let (store, to) = (store.clone(), to.clone());
                let mut consumer = member(from, 7);
                let stopper = consumer.stopper();
                let stage = thread::spawn(move || {
                    while let Some(batch) = consumer.poll(WAIT * 4).unwrap() {
                        let mut transaction = store.transaction();
                        for entry in &batch {
                            transaction.append(&to, Record::new(entry.value()).key(entry.key().unwrap())).unwrap();
                        }
                        transaction.commit_with(batch).unwrap();
                    }
                });
                (stopper, stage)
            })
            .into();
        let mut reader = c.read(StartAt::Earliest).unwrap();
        let expected: Vec<_> = (0..500_u32).map(|number| number.to_be_bytes().to_vec()).collect();
        for (value, key) in expected.iter().zip((0..9_u8).cycle()) {
            a.append(Record::new(value).key(&[key])).unwrap();
        }
        let mut seen: Vec<_> = (0..500).map(|_| reader.recv_timeout(WAIT).unwrap().unwrap()).collect();
        for key in 0..9_u8 {
            assert!(seen.iter().filter(|entry| entry.key() == Some(&[key])).map(Entry::value).is_sorted());
        }
        seen.sort_by(|a, b| a.value().cmp(b.value()));
        assert!(seen.iter().map(Entry::value).eq(&expected));
        for (stopper, stage) in stages {
            stopper.stop();
            stage.join().unwrap();
        }
        assert!(reader.next().is_none());
    });
}

#[test]
fn what_failed_after_it_was_decided_is_not_decided_again_by_a_program_that_goes_on() {
    let disk = SimDisk::new(1);
    // Here a placemark is a call that can fail.
    let open = |disk: &SimDisk| {
        Store::options().storage(Arc::new(disk.clone())).write_mode(WriteMode::Pwrite).open("/data").unwrap()
    };
    let store = open(&disk);
    let (orders, invoices) = (store.log("orders").unwrap(), store.log("invoices").unwrap());
    orders.append_batch(["1", "2"]).unwrap();
    let mut invoicing = member(&orders, 1);
    let once = |store: &Store, invoicing: &mut Consumer<ExactlyOnce>| {
        let batch = take(invoicing);
        let mut transaction = store.transaction();
        transaction.append(&invoices, batch.iter().next().unwrap().value())?;
        transaction.commit_with(batch)
    };
    disk.inject(Fault::new(Operation::Write, ErrorKind::Other).at("/placemarks/"));
    assert!(matches!(once(&store, &mut invoicing), Err(Error::Io { .. })));
    // The batch comes again, which is as it should be, and is not processed again.
    for _ in 0..2 {
        assert!(matches!(once(&store, &mut invoicing), Err(Error::Failed { .. })));
    }
    // Nor is anything else decided that the failure would keep from being shown.
    let mut other = store.transaction();
    other.append(&orders, "3").unwrap();
    assert!(matches!(other.commit(), Err(Error::Failed { .. })));
    let store = open(&disk.crash(Crash::new(1).keep(Keep::Nothing)));
    assert_eq!(all(&store.open_log("invoices").unwrap()), [b"1"]);
    assert_eq!(all(&store.open_log("orders").unwrap()), [b"1", b"2"]);
    assert_eq!(member(&store.open_log("orders").unwrap(), 1).position(0), Some(1));
}

#[test]
fn after_a_failure_of_the_placemarks_a_transaction_that_moves_one_is_not_decided() {
    let disk = SimDisk::new(1);
    let options = || Store::options().storage(Arc::new(disk.clone())).write_mode(WriteMode::Pwrite);
    let store = options().open("/data").unwrap();
    let (orders, invoices) = (store.log("orders").unwrap(), store.log("invoices").unwrap());
    orders.append("1").unwrap();
    let mut billing = orders.consumer("billing").at_least_once().unwrap();
    let mut invoicing = member(&orders, 1);
    disk.inject(Fault::new(Operation::Write, ErrorKind::Other).at("/placemarks/"));
    assert!(matches!(billing.poll(WAIT).unwrap().unwrap().commit(), Err(Error::Io { .. })));
    let mut transaction = store.transaction();
    transaction.append(&invoices, "1").unwrap();
    assert!(matches!(transaction.commit_with(take(&mut invoicing)), Err(Error::Failed { .. })));
    assert!(all(&invoices).is_empty(), "it says that it failed, and nothing of it appears");
    drop((orders, invoices, billing, invoicing, store));
    let disk = disk.kill();
    let store = Store::options().storage(Arc::new(disk)).open("/data").unwrap();
    assert!(all(&store.open_log("invoices").unwrap()).is_empty());
}

#[test]
fn a_batch_whose_log_was_deleted_is_fenced_and_nothing_of_its_transaction_appears() {
    let dir = scratch();
    let store = store(dir.path());
    let (input, output) = (store.log("in").unwrap(), store.log("out").unwrap());
    input.append("record").unwrap();
    let batch = take(&mut member(&input, 1));
    store.delete_log("in").unwrap();
    let mut transaction = store.transaction();
    transaction.append(&output, "result").unwrap();
    assert!(matches!(transaction.commit_with(batch), Err(Error::Fenced)));
    assert!(all(&output).is_empty());
}

#[test]
fn each_of_many_transactions_for_a_deleted_log_is_told_so_and_those_beside_it_commit() {
    const EACH: usize = 50;
    within(WAIT, || {
        let dir = scratch();
        let store = store(dir.path());
        let (gone, stays) = (store.log("gone").unwrap(), store.log("stays").unwrap());
        let begun = |log: &Log| {
            let mut transaction = store.transaction();
            transaction.append(log, "record").unwrap();
            transaction
        };
        let work: Vec<(bool, Vec<_>)> = (0..6)
            .map(|thread| (thread < 4, if thread < 4 { &gone } else { &stays }))
            .map(|(refused, log)| (refused, (0..EACH).map(|_| begun(log)).collect()))
            .collect();
        store.delete_log("gone").unwrap();
        thread::scope(|scope| {
            for (refused, transactions) in work {
                scope.spawn(move || {
                    for transaction in transactions {
                        match transaction.commit() {
                            Err(Error::NoSuchLog { name }) if refused => assert_eq!(name, "gone"),
                            Ok(()) if !refused => {}
                            other => panic!("{other:?}"),
                        }
                    }
                });
            }
        });
        assert_eq!(all(&stays).len(), 2 * EACH);
        assert!(matches!(store.transaction().append(&gone, "record"), Err(Error::NoSuchLog { .. })));
    });
}

#[test]
fn records_without_a_key_stay_together_in_a_transaction() {
    let dir = scratch();
    let store = store(dir.path());
    let log = store.log_with("log", LogOptions::new().partitions(4)).unwrap();
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let mut transaction = store.transaction();
        for number in 0..20 {
            transaction.append(&log, Record::new("keyed").key(format!("key {number}"))).unwrap();
            transaction.append(&log, "without").unwrap();
        }
        let before = entries(log.read(StartAt::Earliest).unwrap()).len();
        transaction.commit().unwrap();
        let mut partitions = std::collections::BTreeMap::<u32, usize>::new();
        for entry in entries(log.read(StartAt::Earliest).unwrap()).iter().filter(|entry| entry.key().is_none()) {
            *partitions.entry(entry.partition()).or_default() += 1;
        }
        assert!(partitions.values().all(|count| count % 20 == 0), "{partitions:?} after {before}");
        used.extend(partitions.into_keys());
    }
    assert_eq!(used.len(), 4, "each partition has its turn");
}
