//! What is appended comes back as it was written, in order, under dense offsets.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use placemark::{Entry, Error, Log, LogOptions, Record, StartAt, Store};

use common::{Numbers, SHORT, WAIT, entries, files, in_cache, offsets, options, scratch, values, within};

fn store(dir: &tempfile::TempDir) -> Store {
    in_cache().open(dir.path()).unwrap()
}

#[test]
fn an_empty_partition_yields_nothing_and_its_reader_goes_on_when_records_come() {
    let dir = scratch();
    let store = store(&dir);
    let starts = [StartAt::Earliest, StartAt::Latest, StartAt::Offset(0), StartAt::Time(UNIX_EPOCH)];
    for (number, start) in starts.into_iter().enumerate() {
        let partition = store.log(&format!("log-{number}")).unwrap().partition(0).unwrap();
        assert_eq!((partition.start_offset(), partition.end_offset()), (0, 0));
        let mut reader = partition.read(start).unwrap();
        for expected in 0..3 {
            assert!(reader.next().is_none() && reader.next().is_none(), "{start:?}");
            assert_eq!(partition.append("record").unwrap(), expected);
            assert_eq!(reader.next().unwrap().unwrap().offset(), expected);
        }
        assert_eq!(reader.skipped(), 0);
        assert_eq!((partition.start_offset(), partition.end_offset()), (0, 3));
    }
}

#[test]
fn latest_is_only_what_comes_after() {
    let dir = scratch();
    let log = store(&dir).log_with("orders", LogOptions::new().partitions(3)).unwrap();
    log.append_batch(["old", "older"]).unwrap();
    let mut reader = log.read(StartAt::Latest).unwrap();
    assert!(reader.next().is_none());
    for number in 0..6 {
        log.append(format!("new {number}")).unwrap();
    }
    let read: BTreeSet<_> = values(reader).into_iter().collect();
    assert_eq!(read, (0..6).map(|number| format!("new {number}").into_bytes()).collect());
}

#[test]
fn every_shape_of_record_comes_back_as_written() {
    let dir = scratch();
    let time = UNIX_EPOCH + Duration::from_millis(1_234_567_890_123);
    let check = |log: &Log| {
        let entries = entries(log.partition(0).unwrap().read(StartAt::Earliest).unwrap());
        let keys: Vec<_> = entries.iter().map(Entry::key).collect();
        assert_eq!(keys, [None, None, Some(&b""[..]), Some(b"key"), Some(b"key"), Some(b"\0\xff"), None]);
        let values: Vec<_> = entries.iter().map(Entry::value).collect();
        assert_eq!(values, [&b"plain"[..], b"", b"empty key", b"", b"", b"all", b"headers"]);
        assert!(entries.iter().all(|entry| entry.is_tombstone() == (entry.offset() == 4)));
        let headers: Vec<_> = entries[5].headers().collect();
        assert_eq!(headers, [("a", &b"1"[..]), ("b", b""), ("a", b"2"), ("größe", b"\xff\0")]);
        assert_eq!(entries[5].header("a"), Some(&b"1"[..]), "the first of a name");
        assert_eq!(entries[5].header("c"), None);
        assert_eq!(entries[5].timestamp(), time);
        assert_eq!(entries[6].headers().count(), 300);
        assert!(entries[..5].iter().all(|entry| entry.headers().next().is_none()));
    };
    let store = store(&dir);
    let log = store.log("shapes").unwrap();
    let partition = log.partition(0).unwrap();
    partition.append("plain").unwrap();
    partition.append("").unwrap();
    partition.append(Record::new("empty key").key("")).unwrap();
    partition.append(Record::new("").key("key")).unwrap();
    partition.append(Record::tombstone("key")).unwrap();
    let all = Record::new("all").key(b"\0\xff").timestamp(time);
    partition.append(all.header("a", "1").header("b", "").header("a", "2").header("größe", b"\xff\0")).unwrap();
    let names: Vec<_> = (0..300).map(|number| format!("name {number}")).collect();
    partition.append(names.iter().fold(Record::new("headers"), |record, name| record.header(name, name))).unwrap();
    check(&log);
    drop((partition, log));
    store.close().unwrap();
    check(&in_cache().open(dir.path()).unwrap().open_log("shapes").unwrap());
}

#[test]
fn times_are_kept_to_the_millisecond_and_supplied_ones_are_of_now() {
    let dir = scratch();
    let log = store(&dir).log("times").unwrap();
    let given = [0, 1, 999, 4_102_444_800_000, 1_700_000_000_123].map(Duration::from_millis);
    for since in given {
        log.append(Record::new("given").timestamp(UNIX_EPOCH + since)).unwrap();
    }
    let before = SystemTime::now();
    log.append("supplied").unwrap();
    let after = SystemTime::now();
    let mut entries = entries(log.read(StartAt::Earliest).unwrap());
    let supplied = entries.pop().unwrap().timestamp();
    assert!(supplied >= before - Duration::from_millis(11) && supplied <= after, "{supplied:?}, called at {before:?}");
    let kept: Vec<_> = entries.iter().map(|it| it.timestamp().duration_since(UNIX_EPOCH).unwrap()).collect();
    assert_eq!(kept, given);
}

#[test]
fn a_batch_has_consecutive_offsets_and_an_empty_one_changes_nothing() {
    let dir = scratch();
    let log = store(&dir).log("batches").unwrap();
    let partition = log.partition(0).unwrap();
    assert_eq!(partition.append_batch(["a", "b", "c"]).unwrap(), 0..3);
    assert_eq!(partition.append_batch(Vec::<String>::new()).unwrap().count(), 0);
    assert!(log.append_batch(Vec::<String>::new()).unwrap().is_empty());
    assert_eq!(partition.append("d").unwrap(), 3);
    let positions = log.append_batch(["e", "f"]).unwrap();
    assert_eq!(positions.iter().map(|at| (at.partition, at.offset)).collect::<Vec<_>>(), [(0, 4), (0, 5)]);
    let segment = files::segments(&files::partition(dir.path(), "batches", 0)).remove(0);
    assert_eq!(files::frames(&segment).len(), 3, "a batch is one frame, an empty one none");
    for offset in 0..=6 {
        assert_eq!(offsets(partition.read(StartAt::Offset(offset)).unwrap()), (offset..6).collect::<Vec<_>>());
    }
}

#[test]
fn an_offset_outside_the_partition_is_refused_with_its_bounds() {
    let dir = scratch();
    let log = store(&dir).log("orders").unwrap();
    log.append_batch(["a", "b"]).unwrap();
    let partition = log.partition(0).unwrap();
    for asked in [3, 1000, u64::MAX] {
        match partition.read(StartAt::Offset(asked)) {
            Err(Error::OffsetOutOfRange { requested, start, end }) => {
                assert_eq!((requested, start, end), (asked, 0, 2));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(log.partition(1), Err(Error::NoSuchPartition { .. })));
}

#[test]
fn keys_go_where_the_default_partitioner_of_kafka_sends_them() {
    // Hashes from Kafka's own test of murmur2.
    let known: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    let dir = scratch();
    let store = store(&dir);
    for partitions in [1, 7, 64] {
        let options = LogOptions::new().partitions(partitions.try_into().unwrap());
        let log = store.log_with(&format!("keyed-{partitions}"), options).unwrap();
        let expected = known.map(|(_, hash)| u32::try_from((hash & i32::MAX) % partitions).unwrap());
        for ((key, _), partition) in known.iter().zip(expected) {
            assert_eq!(log.append(Record::new("value").key(key)).unwrap().partition, partition, "{key}");
        }
        let positions = log.append_batch(known.map(|(key, _)| Record::new(key).key(key))).unwrap();
        assert_eq!(positions.iter().map(|at| at.partition).collect::<Vec<_>>(), expected);
        for (at, (key, _)) in positions.iter().zip(known) {
            let mut reader = log.partition(at.partition).unwrap().read(StartAt::Offset(at.offset)).unwrap();
            assert_eq!(reader.next().unwrap().unwrap().value(), key.as_bytes());
        }
    }
}

#[test]
fn records_without_a_key_go_round_robin_and_an_unkeyed_batch_stays_whole() {
    let dir = scratch();
    let log = store(&dir).log_with("spread", LogOptions::new().partitions(3)).unwrap();
    let singles: Vec<_> = (0..6).map(|_| log.append("single").unwrap().partition).collect();
    assert_eq!(singles[..3].iter().collect::<BTreeSet<_>>().len(), 3, "{singles:?}");
    assert_eq!(singles[..3], singles[3..]);
    let batches: Vec<_> = (0..3).map(|_| log.append_batch(["a", "b", "c", "d"]).unwrap()).collect();
    for batch in &batches {
        assert!(batch.iter().all(|at| at.partition == batch[0].partition), "{batch:?}");
    }
    assert_eq!(batches.iter().map(|batch| batch[0].partition).collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn a_log_is_read_in_order_within_each_partition() {
    let dir = scratch();
    let log = store(&dir).log_with("many", LogOptions::new().partitions(4)).unwrap();
    for number in 0..1000_u32 {
        log.append(Record::new(&number.to_be_bytes()).key(&(number % 50).to_be_bytes())).unwrap();
    }
    let mut next = [0; 4];
    let mut seen = 0;
    for entry in log.read(StartAt::Earliest).unwrap() {
        let entry = entry.unwrap();
        let expected = &mut next[entry.partition() as usize];
        assert_eq!(entry.offset(), *expected);
        *expected += 1;
        seen += 1;
    }
    assert_eq!(seen, 1000);
    assert!((0..4).all(|number| log.partition(number).unwrap().end_offset() == next[number as usize]));
}

#[test]
fn appends_of_many_threads_get_dense_offsets_each_once_and_keep_their_order() {
    const THREADS: u32 = 16;
    const EACH: u32 = 625;
    within(WAIT, || {
        let dir = scratch();
        let log = store(&dir).log_with("busy", LogOptions::new().segment_bytes(256 << 10)).unwrap();
        let barrier = Barrier::new(THREADS as usize);
        let given: Vec<Vec<u64>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (log, barrier) = (&log, &barrier);
                    scope.spawn(move || {
                        let mut sizes = Numbers::new(thread.into());
                        barrier.wait();
                        let append = |number: u32| {
                            let mut value = [thread.to_be_bytes(), number.to_be_bytes()].concat();
                            value.resize(8 + usize::try_from(sizes.below(900)).unwrap(), b'.');
                            log.append(value).unwrap().offset
                        };
                        (0..EACH).map(append).collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut all: Vec<_> = given.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..u64::from(THREADS * EACH)).collect::<Vec<_>>());
        let read = entries(log.read(StartAt::Earliest).unwrap());
        assert_eq!(read.len(), all.len());
        for (thread, offsets) in given.iter().enumerate() {
            assert!(offsets.is_sorted());
            for (number, offset) in offsets.iter().enumerate() {
                let value = read[usize::try_from(*offset).unwrap()].value();
                let expected = [u32::try_from(thread).unwrap(), u32::try_from(number).unwrap()].map(u32::to_be_bytes);
                assert_eq!(value[..8], expected.concat());
            }
        }
    });
}

#[test]
fn a_record_over_the_limit_is_refused_and_the_next_append_works() {
    let dir = scratch();
    let store = store(&dir);
    let small = LogOptions::new().segment_bytes(64 << 10);
    let limited = store.log_with("limited", small.max_record_bytes(1000)).unwrap();
    let unlimited = store.log_with("unlimited", small).unwrap();
    for (log, fits, over) in [(&limited, 800, 1001), (&limited, 800, 10 << 20), (&unlimited, 60 << 10, 64 << 10)] {
        let partition = log.partition(0).unwrap();
        let before = partition.end_offset();
        let refused = vec![1; over];
        for result in [log.append(&refused).map(drop), partition.append_batch([&refused[..1], &refused]).map(drop)] {
            match result {
                Err(Error::RecordTooLarge { size, max }) => {
                    assert!((over as u64..=over as u64 + 127).contains(&size) && max < size, "{size} over {max}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(partition.end_offset(), before);
        assert_eq!(log.append(vec![2; fits]).unwrap().offset, before);
        assert_eq!(log.append("").unwrap().offset, before + 1);
        let read = values(partition.read(StartAt::Offset(before)).unwrap());
        assert_eq!(read, [vec![2; fits], Vec::new()]);
    }
}

#[test]
fn a_batch_larger_than_a_segment_is_taken_or_refused_whole() {
    let dir = scratch();
    let log = store(&dir).log_with("small", LogOptions::new().segment_bytes(64 << 10)).unwrap();
    log.append("before").unwrap();
    let taken = match log.append_batch((0..200).map(|_| vec![7; 1000])) {
        Ok(positions) => positions.len(),
        Err(Error::RecordTooLarge { .. }) => 0,
        Err(other) => panic!("{other}"),
    };
    assert!(taken == 200 || taken == 0, "{taken}");
    log.append("after").unwrap();
    let read = values(log.read(StartAt::Earliest).unwrap());
    assert_eq!((read.len(), &read[taken + 1][..]), (taken + 2, &b"after"[..]));
}

#[test]
fn a_waiting_reader_is_woken_by_an_append() {
    within(WAIT, || {
        let dir = scratch();
        let log = store(&dir).log_with("awaited", LogOptions::new().partitions(2)).unwrap();
        let mut whole = log.read(StartAt::Earliest).unwrap();
        let mut one = log.partition(1).unwrap().read(StartAt::Latest).unwrap();
        let asked = Instant::now();
        assert!(whole.recv_timeout(SHORT).unwrap().is_none());
        assert!(asked.elapsed() >= SHORT);
        assert!(whole.recv_timeout(Duration::ZERO).unwrap().is_none());
        let readers = [thread::spawn(move || whole.recv_timeout(WAIT)), thread::spawn(move || one.recv_timeout(WAIT))];
        // Whether they wait already or not yet, the append must reach them.
        thread::sleep(SHORT);
        let appended = Instant::now();
        log.partition(1).unwrap().append("news").unwrap();
        for reader in readers {
            assert_eq!(reader.join().unwrap().unwrap().unwrap().value(), b"news");
        }
        assert!(appended.elapsed() < WAIT / 3, "woken after {:?}", appended.elapsed());
    });
}

#[test]
fn readers_follow_an_appender_without_a_lost_wake_up() {
    within(WAIT * 2, || {
        let dir = scratch();
        let log = store(&dir).log_with("followed", LogOptions::new().segment_bytes(64 << 10)).unwrap();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let mut reader = log.read(StartAt::Earliest).unwrap();
                thread::spawn(move || {
                    for expected in 0..5000_u64 {
                        let entry = reader.recv_timeout(WAIT).unwrap().expect("a record came and nobody said so");
                        assert_eq!(entry.offset(), expected);
                        assert_eq!(entry.value(), expected.to_be_bytes().repeat(8));
                    }
                })
            })
            .collect();
        for number in 0..5000_u64 {
            log.append(number.to_be_bytes().repeat(8)).unwrap();
            if number % 64 == 0 {
                thread::yield_now();
            }
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn an_entry_outlives_its_log_and_its_store() {
    let dir = scratch();
    let store = options().open(dir.path()).unwrap();
    let log = store.log_with("gone", LogOptions::new().segment_bytes(64 << 10)).unwrap();
    let value = Numbers::new(1).bytes(1000);
    for _ in 0..200 {
        log.append(Record::new(&value).key("key").header("name", "header")).unwrap();
    }
    let read = entries(log.read(StartAt::Earliest).unwrap());
    let bytes = read[0].value_bytes();
    assert_eq!(bytes.as_ptr(), read[0].value().as_ptr(), "the bytes are not a copy");
    drop(log);
    store.delete_log("gone").unwrap();
    store.close().unwrap();
    drop(dir);
    let check = thread::spawn(move || {
        for entry in &read {
            assert_eq!(
                (entry.value(), entry.key(), entry.header("name")),
                (&value[..], Some(&b"key"[..]), Some(&b"header"[..]))
            );
        }
        drop(read);
        assert_eq!(bytes, value);
    });
    check.join().unwrap();
}

#[test]
fn a_plain_record_takes_36_bytes_over_its_value_which_stands_as_it_is_in_the_file() {
    let dir = scratch();
    let store = store(&dir);
    let log = store.log("plain").unwrap();
    let value = Numbers::new(2).bytes(100);
    for _ in 0..10 {
        log.append(&value).unwrap();
    }
    store.sync().unwrap();
    let segment = files::segments(&files::partition(dir.path(), "plain", 0)).remove(0);
    let frames = files::frames(&segment);
    assert_eq!(frames.iter().map(|frame| frame.end - frame.start).collect::<Vec<_>>(), [136; 10]);
    let bytes = fs::read(&segment).unwrap();
    assert_eq!(bytes.windows(value.len()).filter(|window| *window == value).count(), 10);
}
