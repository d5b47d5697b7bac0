//! Exactly once into a database of the application's own: its position wins over the store's.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use placemark::{Batch, Consumer, Error, ExactlyOnceFrom, Log, LogOptions, StartAt, Store};

use common::{WAIT, in_cache, scratch};

/// What a database would know: the position in each partition, and how often it was asked for it.
#[derive(Debug, Clone, Default)]
struct Database(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    positions: BTreeMap<u32, u64>,
    asked: Vec<u32>,
    down: bool,
}

impl Database {
    fn save(&self, partition: u32, position: Option<u64>) {
        let mut rows = self.0.lock().unwrap();
        match position {
            Some(position) => rows.positions.insert(partition, position),
            None => rows.positions.remove(&partition),
        };
    }

    fn set_down(&self, down: bool) {
        self.0.lock().unwrap().down = down;
    }

    /// The partitions it was asked for since the last time.
    fn asked(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    fn loader(&self) -> impl FnMut(u32) -> io::Result<Option<u64>> + Send + 'static {
        let rows = Arc::clone(&self.0);
        move |partition| {
            let mut rows = rows.lock().unwrap();
            rows.asked.push(partition);
            if rows.down {
                Err(io::Error::other("the database is down"))
            } else {
                Ok(rows.positions.get(&partition).copied())
            }
        }
    }
}

/// A log of one partition with ten records.
fn ten(store: &Store) -> Log {
    let log = store.log("orders").unwrap();
    log.append_batch((0..10).map(|number: u32| number.to_string())).unwrap();
    log
}

fn join(log: &Log, database: &Database) -> Consumer<ExactlyOnceFrom> {
    log.consumer("ledger").max_poll_records(3).exactly_once_from(database.loader()).unwrap()
}

fn take(consumer: &mut Consumer<ExactlyOnceFrom>) -> Batch<ExactlyOnceFrom> {
    consumer.poll(WAIT).unwrap().expect("there are records to deliver")
}

#[test]
fn the_position_of_the_database_wins_over_the_stores_at_every_assignment() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = ten(&store);
    let database = Database::default();
    let mut consumer = join(&log, &database);
    let batch = take(&mut consumer);
    assert_eq!(batch.offsets(), 0..3);
    database.save(0, Some(batch.placemark().offset));
    batch.commit().unwrap();
    assert_eq!(consumer.committed(0), Some(3));
    assert_eq!(take(&mut consumer).offsets(), 3..6);
    drop(consumer);

    // The store lags behind: the process died after the database had committed.
    database.save(0, Some(7));
    let mut consumer = join(&log, &database);
    assert_eq!(take(&mut consumer).offsets(), 7..10);
    drop(consumer);

    // The database was restored from a backup.
    database.save(0, Some(1));
    let mut consumer = join(&log, &database);
    let batch = take(&mut consumer);
    assert_eq!(batch.offsets(), 1..4);
    batch.commit().unwrap();
    assert_eq!(store.group("ledger").placemarks().unwrap().first().unwrap().offset, 4);
}

#[test]
fn it_is_asked_at_the_assignment_and_after_a_dropped_batch_and_not_in_between() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = ten(&store);
    let database = Database::default();
    let mut consumer = join(&log, &database);
    take(&mut consumer).commit().unwrap();
    take(&mut consumer).commit().unwrap();
    assert_eq!(database.asked(), [0]);

    // The database's transaction took effect, though the application saw an error and dropped the batch.
    let batch = take(&mut consumer);
    database.save(0, Some(batch.placemark().offset));
    drop(batch);
    assert_eq!(take(&mut consumer).offsets(), 9..10);
    assert_eq!(database.asked(), [0]);

    // It did not.
    database.save(0, Some(6));
    assert_eq!(take(&mut consumer).offsets(), 6..9);
    assert_eq!(database.asked(), [0]);
}

#[test]
fn no_position_is_nothing_processed_and_the_start_of_the_group_decides() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = ten(&store);
    let database = Database::default();
    let builder = log.consumer("ledger").start_at(StartAt::Offset(4)).max_poll_records(3);
    let mut consumer = builder.exactly_once_from(database.loader()).unwrap();
    let batch = take(&mut consumer);
    assert_eq!(batch.offsets(), 4..7);
    batch.commit().unwrap();
    drop(consumer);

    // The store's own placemark is 7, and the database was emptied.
    let mut consumer = join(&log, &database);
    assert_eq!(take(&mut consumer).offsets(), 4..7);
}

#[test]
fn a_loader_that_fails_is_the_source_of_the_error_and_is_asked_again() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = ten(&store);
    let database = Database::default();
    database.set_down(true);
    let mut consumer = join(&log, &database);
    for _ in 0..2 {
        let error = consumer.poll(WAIT).unwrap_err();
        assert!(matches!(error, Error::Application { .. }), "{error:?}");
        assert_eq!(error.source().unwrap().to_string(), "the database is down");
    }
    database.set_down(false);
    database.save(0, Some(9));
    assert_eq!(take(&mut consumer).offsets(), 9..10);
    assert_eq!(database.asked(), [0, 0, 0]);
}

#[test]
fn a_position_that_the_partition_does_not_have_is_an_error_and_never_read_from_elsewhere() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = ten(&store);
    let database = Database::default();
    database.save(0, Some(11));
    let mut consumer = join(&log, &database);
    let error = consumer.poll(WAIT).unwrap_err();
    assert!(matches!(error, Error::OffsetOutOfRange { requested: 11, start: 0, end: 10 }), "{error:?}");
    database.save(0, Some(10));
    assert!(consumer.poll(Duration::ZERO).unwrap().is_none(), "the end is a position like others");
    log.append("10").unwrap();
    assert_eq!(take(&mut consumer).offsets(), 10..11);
}

#[test]
fn a_member_that_takes_over_asks_for_what_it_gets() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("orders", LogOptions::new().partitions(2)).unwrap();
    for partition in 0..2 {
        let partition = log.partition(partition).unwrap();
        partition.append_batch((0..10).map(|number: u32| number.to_string())).unwrap();
    }
    let database = Database::default();
    let mut first = join(&log, &database);
    let batches = [take(&mut first), take(&mut first)];
    assert!(first.poll(Duration::ZERO).unwrap().is_none(), "one batch of a partition at a time");
    assert_eq!(database.asked(), [0, 1]);

    let mut second = join(&log, &database);
    assert!(second.poll(Duration::ZERO).unwrap().is_none());
    for batch in batches {
        database.save(batch.partition(), Some(batch.placemark().offset));
        batch.commit().unwrap();
    }
    let batch = take(&mut second);
    assert_eq!((batch.partition(), batch.offsets()), (1, 3..6));
    assert_eq!(database.asked(), [1]);
    assert_eq!(take(&mut first).offsets(), 3..6);
    assert_eq!(database.asked(), Vec::<u32>::new(), "what stays is not asked for again");
}

#[test]
fn what_retention_took_before_a_group_that_has_processed_nothing_is_counted() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("log", LogOptions::new().segment_bytes(64 << 10)).unwrap();
    for _ in 0..40 {
        log.append(vec![7; 5000]).unwrap();
    }
    let mut consumer = log.consumer("group").exactly_once_from(Database::default().loader()).unwrap();
    let partition = log.partition(0).unwrap();
    partition.trim_before(24).unwrap();
    let batch = consumer.poll(Duration::ZERO).unwrap().unwrap();
    assert_eq!((batch.offsets().start, batch.skipped()), (partition.start_offset(), partition.start_offset()));
    assert!(batch.skipped() > 0);
}
