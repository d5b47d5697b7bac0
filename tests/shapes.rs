//! The shapes that applications lean on: what can be sent between threads, what can be copied, what an append takes.

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use placemark::{
    AtLeastOnce, AtMostOnce, Batch, Compaction, Consumer, Durability, Entry, Error, ExactlyOnce, Log, LogOptions,
    Partition, Position, Reader, Record, RecoveryMode, ResetTo, Result, Retention, StartAt, Store, WriteMode,
};

use common::{entries, in_cache, scratch, values};

const fn shared<T: Clone + Send + Sync + Debug + 'static>() {}
const fn sent<T: Send + Debug + 'static>() {}
const fn copied<T: Copy + Send + Sync + Debug + 'static>() {}

const _: () = {
    shared::<Store>();
    shared::<Log>();
    shared::<Partition>();
    shared::<Entry>();
    shared::<LogOptions>();
    shared::<Record<'static>>();
    copied::<Durability>();
    copied::<StartAt>();
    copied::<ResetTo>();
    copied::<Position>();
    sent::<Reader>();
    sent::<Consumer<AtMostOnce>>();
    sent::<Consumer<AtLeastOnce>>();
    sent::<Consumer<ExactlyOnce>>();
    sent::<Batch<AtMostOnce>>();
    sent::<Batch<AtLeastOnce>>();
    sent::<Batch<ExactlyOnce>>();
    sent::<Error>();
};

/// A transaction's type need not be named to be sent.
fn is_sent<T: Send + Debug + 'static>(_: &T) {}

#[test]
fn an_append_takes_borrowed_and_owned_values_of_every_kind() {
    let dir = scratch();
    let log = in_cache().open(dir.path()).unwrap().log("shapes").unwrap();
    let (text, bytes, shared) = (String::from("b"), vec![b'e'], Bytes::from_static(b"f"));
    let record = Record::new("j").key("k");
    log.append("a").unwrap();
    log.append(&text).unwrap();
    log.append(b"c").unwrap();
    log.append(&b"d"[..]).unwrap();
    log.append(&bytes).unwrap();
    log.append(&shared).unwrap();
    log.append(format!("{}", 'g')).unwrap();
    log.append(vec![b'h']).unwrap();
    log.append(Bytes::from_static(b"i")).unwrap();
    log.append(&record).unwrap();
    log.append(record).unwrap();
    let expected: Vec<_> = b"abcdefghijj".iter().map(|byte| vec![*byte]).collect();
    assert_eq!(values(log.read(StartAt::Earliest).unwrap()), expected);
}

#[test]
fn a_batch_takes_anything_that_gives_such_values() {
    let dir = scratch();
    let log = in_cache().open(dir.path()).unwrap().log("shapes").unwrap();
    let partition = log.partition(0).unwrap();
    let strings = vec![String::from("c"), String::from("d")];
    let records = [Record::new("g"), Record::new(b"h")];
    log.append_batch(["a", "b"]).unwrap();
    log.append_batch(&strings).unwrap();
    log.append_batch((b'e'..=b'f').map(|byte| vec![byte])).unwrap();
    log.append_batch(&records).unwrap();
    log.append_batch(records).unwrap();
    assert_eq!(partition.append_batch(strings).unwrap(), 10..12);
    assert_eq!(partition.append(b"i").unwrap(), 12);
    let expected: Vec<_> = b"abcdefghghcdi".iter().map(|byte| vec![*byte]).collect();
    assert_eq!(values(log.read(StartAt::Earliest).unwrap()), expected);
}

#[test]
fn keys_tombstones_and_headers_are_borrowed_or_owned_likewise() {
    let dir = scratch();
    let log = in_cache().open(dir.path()).unwrap().log("shapes").unwrap();
    let key = String::from("key");
    log.append(Record::new(&key).key(&key).header("name", &key)).unwrap();
    log.append(Record::new(key.clone()).key(key.clone()).header("name", vec![1])).unwrap();
    log.append(Record::new(Bytes::from_static(b"v")).key(b"key").header("name", b"ab12")).unwrap();
    log.append(Record::tombstone(&key)).unwrap();
    log.append(Record::tombstone(key)).unwrap();
    let entries = entries(log.read(StartAt::Earliest).unwrap());
    assert_eq!(entries.len(), 5);
    assert!(entries.iter().all(|entry| entry.key() == Some(b"key")));
    assert_eq!(entries[2].header("name"), Some(&b"ab12"[..]));
}

#[test]
fn builders_take_every_documented_option() {
    let dir = scratch();
    let store = Store::options()
        .durability(Durability::Interval(Duration::from_millis(100)))
        .recovery_mode(RecoveryMode::Strict)
        .write_mode(WriteMode::Auto)
        .open(dir.path())
        .unwrap();
    let options = LogOptions::new()
        .partitions(4)
        .segment_bytes(128 << 20)
        .segment_age(Duration::from_secs(86_400))
        .max_record_bytes(16 << 20)
        .durability(Durability::Os)
        .retention(Retention::new().max_bytes(10 << 30).max_age(Duration::from_secs(7 * 86_400)).consumed())
        .tombstone_delay(Duration::from_secs(86_400))
        .compaction(Compaction::KeepLatest);
    store.log_with("clicks", options).unwrap();
    assert_eq!(store.logs().unwrap(), ["clicks"]);
    is_sent(&store.transaction());
}

#[test]
fn debug_prints_public_fields_by_their_names() {
    let dir = scratch();
    let log = in_cache().open(dir.path()).unwrap().log("shapes").unwrap();
    let at = log.append(Record::new("value").key("the-key")).unwrap();
    assert_eq!(at, Position { partition: 0, offset: 0 });
    assert_eq!(format!("{at:?}"), "Position { partition: 0, offset: 0 }");
    let refused = log.partition(0).unwrap().read(StartAt::Offset(7)).unwrap_err();
    assert_eq!(format!("{refused:?}"), "OffsetOutOfRange { requested: 7, start: 0, end: 1 }");
    let entry = entries(log.read(StartAt::Earliest).unwrap()).remove(0);
    let printed = format!("{entry:?}");
    assert!(printed.contains("offset") && printed.contains("the-key"), "{printed}");
}

#[test]
fn errors_carry_their_fields_and_fit_into_a_boxed_error() {
    fn fails(dir: PathBuf) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let store = in_cache().open(dir)?;
        store.open_log("nothing")?;
        Ok(())
    }
    let dir = scratch();
    let message = fails(dir.path().to_path_buf()).unwrap_err().to_string();
    assert!(message.contains("nothing"), "{message}");
    let held = in_cache().open(dir.path()).unwrap();
    let Err(Error::Locked { path }) = in_cache().open(dir.path()) else { panic!("opened twice") };
    assert!(path.starts_with(dir.path()), "{}", path.display());
    held.close().unwrap();
}

#[test]
fn a_log_alone_is_a_store_of_one_log() {
    let dir = scratch();
    let path = dir.path().join("data").join("orders");
    let log = Log::open(&path).unwrap();
    let before = SystemTime::now();
    assert_eq!(log.append("order 1").unwrap().offset, 0);
    drop(log);
    let log = Log::open(&path).unwrap();
    assert_eq!(log.append("order 2").unwrap().offset, 1);
    let entries = entries(log.read(StartAt::Earliest).unwrap());
    assert_eq!(entries.iter().map(Entry::value).collect::<Vec<_>>(), [b"order 1", b"order 2"]);
    assert!(entries[0].timestamp() >= before - Duration::from_millis(11));
}
