//! Segments: when a new one begins, and that offsets and times resolve over all of them, whatever became of an index.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use placemark::{LogOptions, Partition, Record, StartAt, Store};

use common::{Numbers, WAIT, entries, files, in_cache, offsets, scratch, values, within};

const SMALL: u64 = 64 << 10;

fn small() -> LogOptions {
    LogOptions::new().segment_bytes(SMALL)
}

/// The time of the record with this number: rising, but not evenly.
fn time(number: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_000_000 + number * 10 + number % 7)
}

/// The value of the record with this number; sizes differ.
fn value(number: u64) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(8 + usize::try_from(number * 37 % 900).unwrap(), b'v');
    bytes
}

fn fill(partition: &Partition, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let record = Record::new(value(number)).timestamp(time(number));
        let record = if number % 3 == 0 { record.key(number.to_be_bytes().to_vec()) } else { record };
        let record = if number % 5 == 0 { record.header("number", number.to_string()) } else { record };
        assert_eq!(partition.append(record).unwrap(), number);
    }
}

/// Whether all records are there, and every offset and time leads to its record.
fn check(partition: &Partition, count: u64) {
    assert_eq!((partition.start_offset(), partition.end_offset()), (0, count));
    let all = entries(partition.read(StartAt::Earliest).unwrap());
    assert_eq!(all.len() as u64, count);
    for (entry, number) in all.iter().zip(0..) {
        assert_eq!((entry.offset(), entry.timestamp(), entry.value()), (number, time(number), &value(number)[..]));
        assert_eq!(entry.key(), (number % 3 == 0).then_some(&number.to_be_bytes()[..]));
        assert_eq!(entry.header("number"), (number % 5 == 0).then_some(number.to_string().as_bytes()));
    }
    for number in (0..count).step_by(13) {
        for start in [StartAt::Offset(number), StartAt::Time(time(number))] {
            let entry = partition.read(start).unwrap().next().unwrap().unwrap();
            assert_eq!(entry.offset(), number, "{start:?}");
        }
    }
    assert!(partition.read(StartAt::Offset(count)).unwrap().next().is_none());
    assert!(partition.read(StartAt::Time(time(count))).unwrap().next().is_none());
}

#[test]
fn segments_roll_by_bytes_are_named_by_their_first_offset_and_read_as_one() {
    const COUNT: u64 = 2000;
    let dir = scratch();
    let directory = files::partition(dir.path(), "rolled", 0);
    let store = in_cache().open(dir.path()).unwrap();
    let partition = store.log_with("rolled", small()).unwrap().partition(0).unwrap();
    fill(&partition, 0..COUNT);
    check(&partition, COUNT);
    drop(partition);
    store.close().unwrap();
    let segments = files::segments(&directory);
    assert!(segments.len() > 10, "{segments:?}");
    let mut next = 0;
    for segment in &segments {
        let frames = files::frames(segment).len() as u64;
        assert!(frames > 0, "{} is empty", segment.display());
        assert_eq!(files::base(segment), next);
        assert!(fs::metadata(segment).unwrap().len() <= SMALL, "{} is too long", segment.display());
        next += frames;
    }
    assert_eq!(next, COUNT);
    let store = in_cache().open(dir.path()).unwrap();
    let partition = store.open_log("rolled").unwrap().partition(0).unwrap();
    check(&partition, COUNT);
    fill(&partition, COUNT..COUNT + 500);
    check(&partition, COUNT + 500);
}

#[test]
fn batches_of_many_records_roll_at_their_edges() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let partition = store.log_with("batches", small()).unwrap().partition(0).unwrap();
    let mut next = 0;
    for size in (1..150).cycle().take(400) {
        let given = partition.append_batch((next..next + size).map(value)).unwrap();
        assert_eq!(given, next..next + size);
        next += size;
        if next > 3000 {
            break;
        }
    }
    let read = values(partition.read(StartAt::Earliest).unwrap());
    assert!(read.iter().zip(0..).all(|(read, number)| *read == value(number)));
    assert_eq!(read.len() as u64, next);
    for offset in (0..next).step_by(29) {
        assert_eq!(partition.read(StartAt::Offset(offset)).unwrap().next().unwrap().unwrap().value(), value(offset));
    }
}

#[test]
fn a_record_that_fills_a_segment_is_followed_by_one_in_the_next() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let partition = store.log_with("full", small()).unwrap().partition(0).unwrap();
    // The largest value that fits: header of the segment, of the frame and of the record come on top.
    let largest = usize::try_from(SMALL).unwrap() - 64 - 36;
    for offset in 0..5 {
        assert_eq!(partition.append(vec![u8::try_from(offset).unwrap(); largest]).unwrap(), offset);
    }
    drop(partition);
    store.close().unwrap();
    let segments = files::segments(&files::partition(dir.path(), "full", 0));
    assert_eq!(segments.iter().map(|segment| files::base(segment)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.open_log("full").unwrap();
    assert_eq!(offsets(log.read(StartAt::Earliest).unwrap()), [0, 1, 2, 3, 4]);
}

#[test]
fn segments_roll_by_age_and_an_empty_one_does_not() {
    within(WAIT, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let aged = LogOptions::new().segment_age(Duration::from_millis(20));
        let partition = store.log_with("aged", aged).unwrap().partition(0).unwrap();
        let directory = files::partition(dir.path(), "aged", 0);
        let started = Instant::now();
        // The age passes while nothing is there: the first record still goes to the first segment.
        thread::sleep(Duration::from_millis(60));
        let mut appended = 0;
        while files::segments(&directory).len() < 4 {
            assert!(started.elapsed() < WAIT / 2, "no roll after {appended} records");
            assert_eq!(partition.append("record").unwrap(), appended);
            appended += 1;
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(offsets(partition.read(StartAt::Earliest).unwrap()), (0..appended).collect::<Vec<_>>());
        drop(partition);
        store.close().unwrap();
        let segments = files::segments(&directory);
        let mut next = 0;
        for segment in &segments {
            assert_eq!(files::base(segment), next, "{segments:?}");
            let frames = files::frames(segment).len() as u64;
            assert!(frames > 0, "{} is empty", segment.display());
            next += frames;
        }
        assert_eq!(next, appended);
    });
}

#[test]
fn a_reader_goes_over_segments_that_roll_under_it() {
    within(WAIT * 2, || {
        let dir = scratch();
        let log = in_cache().open(dir.path()).unwrap().log_with("rolled", small()).unwrap();
        let mut reader = log.read(StartAt::Earliest).unwrap();
        let follower = thread::spawn(move || {
            for expected in 0..3000 {
                let entry = reader.recv_timeout(WAIT).unwrap().unwrap();
                assert_eq!((entry.offset(), entry.value()), (expected, &value(expected)[..]));
            }
            assert_eq!(reader.skipped(), 0);
        });
        fill(&log.partition(0).unwrap(), 0..3000);
        follower.join().unwrap();
    });
}

const INDEXED: u64 = 1200;

/// A closed store with records over many segments, and its index files.
fn indexed(dir: &Path) -> Vec<PathBuf> {
    let store = in_cache().open(dir).unwrap();
    fill(&store.log_with("indexed", small()).unwrap().partition(0).unwrap(), 0..INDEXED);
    store.close().unwrap();
    let indexes = files::indexes(&files::partition(dir, "indexed", 0));
    assert!(indexes.len() > 5, "{indexes:?}");
    indexes
}

/// Opens a store whose indexes were damaged, and sees whether that makes a difference.
fn check_indexed(dir: &Path) -> Store {
    let store = in_cache().open(dir).unwrap();
    let partition = store.open_log("indexed").unwrap().partition(0).unwrap();
    check(&partition, INDEXED);
    fill(&partition, INDEXED..INDEXED + 1);
    check(&partition, INDEXED + 1);
    store
}

#[test]
fn a_missing_index_is_rebuilt() {
    let dir = scratch();
    let indexes = indexed(dir.path());
    for index in &indexes {
        fs::remove_file(index).unwrap();
    }
    check_indexed(dir.path()).close().unwrap();
    assert!(indexes.iter().all(|index| index.exists()), "{:?}", files::indexes(indexes[0].parent().unwrap()));
}

#[test]
fn a_short_or_empty_index_is_rebuilt() {
    for keep in [0, 1, 2, 3] {
        let dir = scratch();
        for index in indexed(dir.path()) {
            let len = fs::metadata(&index).unwrap().len();
            files::truncate(&index, len * keep / 4);
        }
        check_indexed(dir.path());
    }
}

#[test]
fn an_index_of_junk_is_rebuilt() {
    let dir = scratch();
    let mut numbers = Numbers::new(5);
    for (number, index) in indexed(dir.path()).iter().enumerate() {
        let len = usize::try_from(fs::metadata(index).unwrap().len()).unwrap();
        match number % 4 {
            0 => files::overwrite(index, 0, &numbers.bytes(len)),
            1 => files::overwrite(index, len as u64 / 2, &numbers.bytes(len / 2)),
            2 => files::overwrite(index, len as u64, &numbers.bytes(1000)),
            _ => files::zero(index, 0..len as u64),
        }
    }
    check_indexed(dir.path());
}

#[test]
fn an_index_of_another_segment_or_of_an_earlier_time_is_rebuilt() {
    let dir = scratch();
    let indexes = indexed(dir.path());
    let bytes: Vec<_> = indexes.iter().map(|index| fs::read(index).unwrap()).collect();
    for (index, other) in indexes.iter().zip(bytes.iter().cycle().skip(1)) {
        fs::write(index, other).unwrap();
    }
    check_indexed(dir.path()).close().unwrap();

    let dir = scratch();
    let directory = files::partition(dir.path(), "indexed", 0);
    let store = in_cache().open(dir.path()).unwrap();
    fill(&store.log("indexed").unwrap().partition(0).unwrap(), 0..30);
    store.close().unwrap();
    let stale: Vec<_> = files::indexes(&directory).iter().map(|index| fs::read(index).unwrap()).collect();
    let store = in_cache().open(dir.path()).unwrap();
    fill(&store.log("indexed").unwrap().partition(0).unwrap(), 30..INDEXED);
    store.close().unwrap();
    for (index, stale) in files::indexes(&directory).iter().zip(stale) {
        fs::write(index, stale).unwrap();
    }
    check_indexed(dir.path());
}
