//! Stores that every version of the crate has to open, as they were written by the versions named in their paths:
//! `closed` was closed, `killed` was in use when its process died. Those of `beside` have what a store keeps beside its
//! records: metadata of placemarks, counted attempts, and what is known of producers whose records are gone.
//!
//! Written by `PLACEMARK_WRITE_FIXTURES=tests/fixtures/v1 cargo test --test fixtures`, with the code of that version and
//! on a simulated disk, so that nothing in them is of the machine: not the boot, not the clock, not the random numbers.
//! What is there is never written again, and what is missing there is added; another version of the format gets a
//! directory of its own beside it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as the tests do"
)]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use placemark::storage::SimDisk;
use placemark::{Durability, Entry, Error, Log, LogOptions, Producer, Record, Retention, StartAt, Store};

use common::producing::{duplicate, new};
use common::{entries, files, options, scratch, values};

const KINDS: [&str; 4] = ["closed", "killed", "beside/closed", "beside/killed"];

const MINUTES_20: u64 = 20 * 60_000;

/// What `closed` has of each log, and what `killed` has more.
const ORDERS: u64 = 16;
const MORE: u64 = 3;
const EVENTS: u64 = 40;
/// How the default partitioner spreads the events.
const SPREAD: [usize; 3] = [16, 20, 4];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// A record of the log `orders`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    key: Option<Vec<u8>>,
    /// `None` for a tombstone.
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since 1970.
    time: u64,
}

/// The order of this number: each shape that a record can have comes up.
fn order(number: u64) -> Row {
    let text = format!("order {number}").into_bytes();
    let (key, value, headers) = match number % 8 {
        1 => (Some(b"customer-7".to_vec()), Some(text), vec![]),
        2 => (None, Some(text), vec![("trace", &b"ab12"[..]), ("", b""), ("trace", b"cd34")]),
        3 => (Some(b"customer-7".to_vec()), None, vec![("reason", &b"gone"[..])]),
        4 => (Some(vec![]), Some(vec![]), vec![]),
        5 => (None, Some(vec![0xff; 700]), vec![]),
        6 => (Some(vec![0, 255]), Some(text), vec![("\u{fc}ber", &[0, 1, 2][..])]),
        _ => (None, Some(text), vec![]),
    };
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    // One brings a time of its own, before that of the record ahead of it.
    let time = SimDisk::START + if number == 7 { MINUTES_20 / 2 } else { number * MINUTES_20 };
    Row { key, value, headers, time }
}

fn record(row: &Row) -> Record<'_> {
    let mut record = match (&row.value, &row.key) {
        (Some(value), None) => Record::new(value),
        (Some(value), Some(key)) => Record::new(value).key(key),
        (None, key) => Record::tombstone(key.as_deref().unwrap_or_default()),
    };
    for (name, value) in &row.headers {
        record = record.header(name.as_str(), value);
    }
    record
}

fn row(entry: &Entry) -> Row {
    Row {
        key: entry.key().map(<[u8]>::to_vec),
        value: (!entry.is_tombstone()).then(|| entry.value().to_vec()),
        headers: entry.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        time: u64::try_from(entry.timestamp().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap(),
    }
}

fn event(number: u64) -> (String, String) {
    (format!("device-{}", number % 9), format!("event {number}"))
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

// Writing.

fn append_orders(disk: &SimDisk, orders: &Log, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let row = order(number);
        disk.set_now(SimDisk::START + number * MINUTES_20);
        match number {
            7 => orders.append(record(&row).timestamp(at(row.time))).unwrap(),
            _ => orders.append(record(&row)).unwrap(),
        };
    }
}

/// Hands the orders behind the group's placemark on to `invoices`, each once.
fn invoice(store: &Store, orders: &Log) {
    let invoices = store.log("invoices").unwrap();
    let mut invoicing = orders.consumer("invoicing").max_poll_records(5).exactly_once().unwrap();
    while let Some(batch) = invoicing.poll(Duration::ZERO).unwrap() {
        let mut transaction = store.transaction();
        for entry in &batch {
            transaction.append(&invoices, format!("invoice {}", entry.offset())).unwrap();
        }
        transaction.commit_with(batch).unwrap();
    }
}

fn append_events(events: &Log, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let (key, value) = event(number);
        events.append(Record::new(&value).key(&key)).unwrap();
    }
}

fn event_options() -> LogOptions {
    LogOptions::new()
        .partitions(3)
        .durability(Durability::Interval(Duration::from_millis(50)))
        .max_record_bytes(64 << 10)
        .retention(Retention::new().max_bytes(1 << 40))
}

/// What both have.
fn fill(disk: &SimDisk, store: &Store) {
    store.log("temporary").unwrap().append("not to be seen again").unwrap();
    store.log("temporary").unwrap().consumer("gone").at_least_once().unwrap();
    // Small segments, by age, since a file has few bytes here.
    let orders = store
        .log_with("orders", LogOptions::new().segment_age(Duration::from_secs(7200)).segment_bytes(64 << 10))
        .unwrap();
    append_orders(disk, &orders, 0..ORDERS);
    store.delete_log("temporary").unwrap();
    let events = store.log_with("events", event_options()).unwrap();
    append_events(&events, 0..EVENTS);
    invoice(store, &orders);
    let mut billing = orders.consumer("billing").max_poll_records(6).at_least_once().unwrap();
    billing.poll(Duration::ZERO).unwrap().unwrap().commit().unwrap();
    let mut audit = orders.consumer("audit").max_poll_records(2).at_most_once().unwrap();
    audit.poll(Duration::ZERO).unwrap().unwrap();
    orders.consumer("late").start_at(StartAt::Latest).at_least_once().unwrap();
    store.log("after").unwrap();
}

fn open_simulated(disk: &SimDisk) -> Store {
    Store::options().storage(Arc::new(disk.clone())).open("/data").unwrap()
}

/// The sequences of the producer `importer`: with gaps, also one that does not fit in 32 bits.
const IMPORTED: [u64; 8] = [0, 1, 2, 5, 1 << 40, (1 << 40) + 1, (1 << 40) + 2, (1 << 40) + 9];

fn import(disk: &SimDisk, importer: &mut Producer, sequences: &[u64]) {
    for sequence in sequences {
        // Old enough to roll every few of them.
        disk.advance(Duration::from_secs(3600));
        new(importer.append(*sequence, format!("line {sequence}")).unwrap());
    }
}

/// What both of `beside` have.
fn fill_beside(disk: &SimDisk, store: &Store) {
    let lines = store
        .log_with("lines", LogOptions::new().segment_age(Duration::from_secs(7200)).segment_bytes(64 << 10))
        .unwrap();
    new(lines.producer("idle").unwrap().append(77, "line of its own").unwrap());
    import(disk, &mut lines.producer("importer").unwrap(), &IMPORTED[..6]);
    // Only a snapshot knows what stood there.
    lines.partition(0).unwrap().trim_before(6).unwrap();
    let orders = store.log("orders").unwrap();
    orders.append_batch((0..9).map(|number| format!("order {number}"))).unwrap();
    let mut totals = orders.consumer("totals").max_poll_records(4).at_least_once().unwrap();
    totals.poll(Duration::ZERO).unwrap().unwrap().commit_with_metadata("total 4").unwrap();
    let mut invoicing = orders.consumer("invoicing").max_poll_records(2).exactly_once().unwrap();
    let batch = invoicing.poll(Duration::ZERO).unwrap().unwrap();
    let mut transaction = store.transaction();
    transaction.append(&store.log("invoices").unwrap(), "invoice").unwrap();
    transaction.commit_with_metadata(batch, [0, 255]).unwrap();
    // One record failed twice, and one of four that were handed out together, nobody knows which.
    let mut alone = orders.consumer("alone").max_attempts(3).skip().max_poll_records(1).at_least_once().unwrap();
    for _ in 0..2 {
        drop(alone.poll(Duration::ZERO).unwrap().unwrap());
    }
    let mut halves = orders.consumer("halves").max_attempts(3).skip().max_poll_records(4).at_least_once().unwrap();
    drop(halves.poll(Duration::ZERO).unwrap().unwrap());
}

/// Writes those of the kinds that are not there.
fn write(to: &Path) {
    for kind in KINDS.into_iter().filter(|kind| !to.join(kind).exists()) {
        let disk = SimDisk::new(1);
        let store = open_simulated(&disk);
        let left = match kind {
            "closed" | "killed" => left_of_records(kind, &disk, &store),
            _ => left_beside(kind, &disk, &store),
        };
        for path in left.files() {
            let target = to.join(kind).join(path.strip_prefix("/data").unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(target, left.read_file(&path).unwrap()).unwrap();
        }
    }
}

fn left_of_records(kind: &str, disk: &SimDisk, store: &Store) -> SimDisk {
    fill(disk, store);
    if kind == "closed" {
        store.close().unwrap();
        return disk.clone();
    }
    let orders = store.log("orders").unwrap();
    append_orders(disk, &orders, ORDERS..ORDERS + MORE);
    invoice(store, &orders);
    append_events(&store.log("events").unwrap(), EVENTS..EVENTS + MORE);
    orders.append_batch(["a batch", "of two"]).unwrap();
    let mut billing = orders.consumer("billing").max_poll_records(2).at_least_once().unwrap();
    let _in_hand = billing.poll(Duration::ZERO).unwrap().unwrap();
    disk.kill()
}

fn left_beside(kind: &str, disk: &SimDisk, store: &Store) -> SimDisk {
    fill_beside(disk, store);
    if kind == "beside/closed" {
        store.close().unwrap();
        return disk.clone();
    }
    // Behind what the newest snapshot knows, and with a third attempt in hand.
    import(disk, &mut store.log("lines").unwrap().producer("importer").unwrap(), &IMPORTED[6..]);
    let orders = store.log("orders").unwrap();
    let mut alone = orders.consumer("alone").max_attempts(3).skip().max_poll_records(1).at_least_once().unwrap();
    let _in_hand = alone.poll(Duration::ZERO).unwrap().unwrap();
    disk.kill()
}

// Checking.

/// Copies of a fixture, and of what this version leaves of the same work: opening changes a store.
fn copies(kind: &str) -> [tempfile::TempDir; 2] {
    let fixture = fixtures().join(kind);
    assert!(fixture.join("STORE").exists(), "{} is missing", fixture.display());
    let fresh = scratch();
    write(fresh.path());
    [files::image(&fixture), files::image(&fresh.path().join(kind))]
}

fn check_orders(store: &Store, expected: &[Row]) {
    let orders = store.open_log("orders").unwrap();
    assert_eq!(orders.partitions(), 1);
    let read = entries(orders.read(StartAt::Earliest).unwrap());
    assert_eq!(read.iter().map(row).collect::<Vec<_>>(), expected);
    assert_eq!(read.iter().map(Entry::offset).collect::<Vec<_>>(), (0..expected.len() as u64).collect::<Vec<_>>());
    assert_eq!(read[2].header("trace"), Some(&b"ab12"[..]));
    let partition = orders.partition(0).unwrap();
    assert_eq!((partition.start_offset(), partition.end_offset()), (0, expected.len() as u64));
    for from in 0..=expected.len() {
        let rest: Vec<_> = entries(partition.read(StartAt::Offset(from as u64)).unwrap()).iter().map(row).collect();
        assert_eq!(rest, expected[from..], "from offset {from}");
    }
    for time in expected.iter().flat_map(|row| [row.time, row.time + 1]) {
        let first = expected.iter().position(|row| row.time >= time).map(|offset| offset as u64);
        let found = entries(partition.read(StartAt::Time(at(time))).unwrap()).first().map(Entry::offset);
        assert_eq!(found, first, "at time {time}");
    }
}

fn check_events(store: &Store, appended: u64) -> Vec<usize> {
    let events = store.open_log("events").unwrap();
    assert_eq!(events.partitions(), 3);
    let read = entries(events.read(StartAt::Earliest).unwrap());
    let mut by_key: BTreeMap<String, (u32, Vec<String>)> = BTreeMap::new();
    for entry in &read {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let of_key = by_key.entry(text(entry.key().unwrap())).or_insert((entry.partition(), Vec::new()));
        assert_eq!(of_key.0, entry.partition(), "one key, two partitions");
        of_key.1.push(text(entry.value()));
    }
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in (0..appended).map(event) {
        expected.entry(key).or_default().push(value);
    }
    assert_eq!(by_key.into_iter().map(|(key, (_, values))| (key, values)).collect::<BTreeMap<_, _>>(), expected);
    (0..3).map(|partition| read.iter().filter(|entry| entry.partition() == partition).count()).collect()
}

fn check_groups(store: &Store, done: u64) {
    assert_eq!(store.groups().unwrap(), ["audit", "billing", "invoicing", "late"]);
    for (group, offset) in [("audit", 2), ("billing", 6), ("invoicing", done)] {
        let placemarks = store.group(group).placemarks().unwrap();
        assert_eq!(placemarks.len(), 1, "{group}");
        let placemark = &placemarks[0];
        assert_eq!((placemark.log.as_str(), placemark.partition, placemark.offset), ("orders", 0, offset), "{group}");
        assert!(placemark.committed_at >= at(SimDisk::START), "{group}");
    }
    assert_eq!(store.group("late").placemarks().unwrap(), []);
    let invoices = values(store.open_log("invoices").unwrap().read(StartAt::Earliest).unwrap());
    let expected: Vec<_> = (0..done).map(|offset| format!("invoice {offset}").into_bytes()).collect();
    assert_eq!(invoices, expected);
}

/// Whether the store goes on from where it was: offsets, groups, options.
fn check_goes_on(store: &Store, rows: usize) {
    let orders = store.log("orders").unwrap();
    assert_eq!(orders.append("new").unwrap().offset, rows as u64);
    let mut billing = orders.consumer("billing").at_least_once().unwrap();
    let mut seen = Vec::new();
    while let Some(batch) = billing.poll(Duration::ZERO).unwrap() {
        seen.extend(batch.iter().map(Entry::offset));
        batch.commit().unwrap();
    }
    assert_eq!(seen, (6..=rows as u64).collect::<Vec<_>>());
    let mut late = orders.consumer("late").at_least_once().unwrap();
    let first = late.poll(Duration::ZERO).unwrap().unwrap().offsets().start;
    assert_eq!(first, ORDERS, "where it joined is where it starts");
    let events = store.log("events").unwrap();
    let before: Vec<_> = (0..3).map(|partition| events.partition(partition).unwrap().end_offset()).collect();
    let position = events.append("new").unwrap();
    assert!(position.offset >= before[position.partition as usize], "an offset was given to a second record");
    let refused = events.append(vec![0; 65 << 10]);
    assert!(matches!(refused, Err(Error::RecordTooLarge { .. })), "options are kept: {refused:?}");
    assert!(matches!(store.open_log("temporary"), Err(Error::NoSuchLog { .. })));
    let again = store.log("temporary").unwrap();
    assert_eq!(values(again.read(StartAt::Earliest).unwrap()), [b""; 0]);
    assert!(!store.groups().unwrap().contains(&"gone".to_owned()));
}

#[test]
fn a_store_that_was_closed_opens_with_all_that_it_had() {
    for dir in copies("closed") {
        check_closed(dir.path());
    }
}

#[test]
fn a_store_that_was_killed_opens_with_all_that_it_had() {
    for dir in copies("killed") {
        check_killed(dir.path());
    }
}

fn check_closed(dir: &Path) {
    let store = options().open(dir).unwrap();
    assert_eq!(store.logs().unwrap(), ["after", "events", "invoices", "orders"]);
    let rows: Vec<_> = (0..ORDERS).map(order).collect();
    check_orders(&store, &rows);
    assert_eq!(check_events(&store, EVENTS), SPREAD);
    check_groups(&store, ORDERS);
    assert_eq!(values(store.open_log("after").unwrap().read(StartAt::Earliest).unwrap()), [b""; 0]);
    let report = store.recovery();
    assert_eq!((report.cut_bytes(), report.recovered_partitions, report.damage()), (0, 0, vec![]));
    check_goes_on(&store, rows.len());
    store.close().unwrap();
    let store = options().open(dir).unwrap();
    assert_eq!(entries(store.log("orders").unwrap().read(StartAt::Earliest).unwrap()).len(), rows.len() + 1);
}

fn check_killed(dir: &Path) {
    let store = options().open(dir).unwrap();
    assert_eq!(store.logs().unwrap(), ["after", "events", "invoices", "orders"]);
    let mut rows: Vec<_> = (0..ORDERS + MORE).map(order).collect();
    for value in ["a batch", "of two"] {
        let time = rows.last().unwrap().time;
        rows.push(Row { key: None, value: Some(value.into()), headers: vec![], time });
    }
    check_orders(&store, &rows);
    check_events(&store, EVENTS + MORE);
    check_groups(&store, ORDERS + MORE);
    let report = store.recovery();
    assert_eq!((report.cut_bytes(), report.damage()), (0, vec![]));
    assert!(report.recovered_partitions >= 5, "{report:?}");
    // It was another boot's page cache: what readers of `events` had seen may have been lost, and its offsets with it.
    for partition in 0..3 {
        assert!(store.open_log("events").unwrap().partition(partition).unwrap().end_offset() >= 1 << 20);
    }
    check_goes_on(&store, rows.len());
    store.close().unwrap();
    let store = options().open(dir).unwrap();
    assert_eq!(store.recovery().recovered_partitions, 0);
    assert_eq!(entries(store.log("orders").unwrap().read(StartAt::Earliest).unwrap()).len(), rows.len() + 1);
}

#[test]
fn a_store_opens_with_all_that_it_kept_beside_its_records() {
    for kind in ["beside/closed", "beside/killed"] {
        for dir in copies(kind) {
            let names = files::contents(dir.path());
            assert!(names.keys().any(|path| path.extension().is_some_and(|kind| kind == "producers")), "no snapshot");
            let store = options().open(dir.path()).unwrap();
            let killed = kind == "beside/killed";
            check_producers(&store, if killed { &IMPORTED } else { &IMPORTED[..6] });
            check_metadata(&store);
            check_attempts(&store, killed);
            assert_eq!(store.recovery().recovered_partitions > 0, killed);
            assert_eq!((store.recovery().cut_bytes(), store.recovery().damage()), (0, vec![]));
            store.close().unwrap();
        }
    }
}

fn check_producers(store: &Store, sequences: &[u64]) {
    let lines = store.open_log("lines").unwrap();
    let start = lines.partition(0).unwrap().start_offset();
    assert!(start > 1, "records of both were trimmed");
    let mut idle = lines.producer("idle").unwrap();
    assert_eq!(idle.last_sequence(), Some(77));
    assert_eq!(duplicate(idle.append(77, "again").unwrap()).map(|at| at.offset), Some(0));
    let mut importer = lines.producer("importer").unwrap();
    assert_eq!(importer.last_sequence(), sequences.last().copied());
    // Behind the line of the idle one.
    let known: Vec<_> = sequences.iter().zip(1_u64..).collect();
    let known = &known[known.len() - 5..];
    assert!(known.iter().any(|(_, offset)| *offset < start), "of one that is known the record is gone");
    for (sequence, offset) in known.iter().copied() {
        let found = duplicate(importer.append(*sequence, "again").unwrap());
        assert_eq!(found.map(|at| at.offset), Some(offset), "sequence {sequence}");
    }
    let next = sequences.last().unwrap() + 1;
    assert_eq!(new(importer.append(next, "new").unwrap()).offset, sequences.len() as u64 + 1);
}

fn check_metadata(store: &Store) {
    let orders = store.open_log("orders").unwrap();
    for (group, offset, metadata) in [("totals", 4, &b"total 4"[..]), ("invoicing", 2, &[0, 255])] {
        let group = store.group(group);
        assert_eq!(group.metadata(&orders, 0).unwrap().as_deref(), Some(metadata), "{group:?}");
        assert_eq!(group.placemarks().unwrap()[0].offset, offset, "{group:?}");
    }
    assert_eq!(store.group("alone").metadata(&orders, 0).unwrap(), None);
    assert_eq!(values(store.open_log("invoices").unwrap().read(StartAt::Earliest).unwrap()), [b"invoice"]);
}

/// Whether attempts go on from where they were.
fn check_attempts(store: &Store, spent: bool) {
    let orders = store.open_log("orders").unwrap();
    let mut alone = orders.consumer("alone").max_attempts(3).skip().max_poll_records(1).at_least_once().unwrap();
    if !spent {
        assert_eq!(alone.poll(Duration::ZERO).unwrap().unwrap().offsets(), 0..1, "a third time");
    }
    assert_eq!(alone.poll(Duration::ZERO).unwrap().unwrap().offsets(), 1..2, "and no fourth");
    let mut halves = orders.consumer("halves").max_attempts(3).skip().max_poll_records(4).at_least_once().unwrap();
    assert_eq!(halves.poll(Duration::ZERO).unwrap().unwrap().offsets(), 0..2);
}

#[test]
fn the_fixtures_are_small() {
    let bytes: usize = files::contents(&fixtures()).values().map(Vec::len).sum();
    assert!((1..400 << 10).contains(&bytes), "{bytes} bytes");
}

#[test]
fn fixtures_are_written_where_that_is_asked_for() {
    let Some(to) = env::var_os("PLACEMARK_WRITE_FIXTURES") else { return };
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join(to);
    let missing = KINDS.iter().any(|kind| !to.join(kind).exists());
    assert!(missing, "all is there already in {}, and fixtures are never written again", to.display());
    write(&to);
}
