//! What `Ok` means: shared syncs, `sync()`, the interval, and that what was promised durable is missed when it is gone.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use placemark::storage::{Crash, Keep, SimDisk};
use placemark::{Durability, Error, LogOptions, StartAt, Store};

use common::{WAIT, files, in_cache, offsets, options, scratch, within};

/// Opens a store and reads a log whole, offset by offset.
fn read(dir: &Path, log: &str) -> Result<Vec<u64>, Error> {
    let store = options().open(dir)?;
    let reader = store.open_log(log)?.partition(0)?.read(StartAt::Earliest)?;
    reader.map(|entry| entry.map(|entry| entry.offset())).collect()
}

#[test]
fn sixteen_threads_share_syncs_and_each_gets_its_own_offset() {
    const THREADS: u64 = 16;
    const EACH: u64 = 100;
    within(WAIT * 2, || {
        let dir = scratch();
        let store = options().open(dir.path()).unwrap();
        let log = store.log_with("shared", LogOptions::new().segment_bytes(64 << 10)).unwrap();
        let barrier = Barrier::new(usize::try_from(THREADS).unwrap());
        let mut given: Vec<u64> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (log, barrier) = (&log, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        let partition = log.partition(0).unwrap();
                        let append = |number: u64| {
                            let offset = partition.append([thread, number].map(u64::to_be_bytes).concat()).unwrap();
                            // What was acknowledged is readable, by whoever asks and at once.
                            assert!(partition.end_offset() > offset);
                            let entry = partition.read(StartAt::Offset(offset)).unwrap().next().unwrap().unwrap();
                            assert_eq!(entry.value()[..8], thread.to_be_bytes());
                            offset
                        };
                        let offsets: Vec<_> = (0..EACH).map(append).collect();
                        assert!(offsets.is_sorted());
                        offsets
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        given.sort_unstable();
        assert_eq!(given, (0..THREADS * EACH).collect::<Vec<_>>());
        let killed = files::image(dir.path());
        assert_eq!(read(killed.path(), "shared").unwrap(), given);
    });
}

#[test]
fn a_reader_sees_no_offset_above_the_readable_end() {
    within(WAIT, || {
        let dir = scratch();
        let log = options().open(dir.path()).unwrap().log("awaited").unwrap();
        let partition = log.partition(0).unwrap();
        let mut reader = partition.read(StartAt::Earliest).unwrap();
        let seen = partition.clone();
        let follower = thread::spawn(move || {
            for expected in 0..200 {
                let entry = reader.recv_timeout(WAIT).unwrap().unwrap();
                assert_eq!(entry.offset(), expected);
                assert!(seen.end_offset() > expected, "{expected} was read before it was durable");
            }
        });
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert!(partition.append("record").is_ok())));
            }
        });
        follower.join().unwrap();
    });
}

/// Damages the last record of a log; what reading it then comes to.
fn with_last_record_damaged(dir: &Path, log: &str) -> Result<Vec<u64>, Error> {
    let image = files::image(dir);
    let segment = files::segments(&files::partition(image.path(), log, 0)).pop().unwrap();
    let last = files::frames(&segment).pop().unwrap();
    files::flip(&segment, last.end - 1);
    read(image.path(), log)
}

#[test]
fn after_sync_damage_to_the_last_record_is_corrupt_and_before_it_a_torn_tail() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("orders").unwrap();
    for _ in 0..10 {
        log.append("record").unwrap();
    }
    assert_eq!(with_last_record_damaged(dir.path(), "orders").unwrap(), (0..9).collect::<Vec<_>>());
    store.sync().unwrap();
    assert!(matches!(with_last_record_damaged(dir.path(), "orders"), Err(Error::Corrupt { .. })));
    log.append("unsynced").unwrap();
    assert_eq!(with_last_record_damaged(dir.path(), "orders").unwrap(), (0..10).collect::<Vec<_>>());
    store.sync().unwrap();
    store.sync().unwrap();
    assert!(matches!(with_last_record_damaged(dir.path(), "orders"), Err(Error::Corrupt { .. })));
}

#[test]
fn after_sync_a_tail_that_is_zero_or_cut_off_is_corrupt() {
    for durability in [Durability::Os, Durability::Sync] {
        let dir = scratch();
        let store = options().durability(durability).open(dir.path()).unwrap();
        let log = store.log("orders").unwrap();
        for _ in 0..10 {
            log.append("record").unwrap();
        }
        store.sync().unwrap();
        for cut in [false, true] {
            let image = files::image(dir.path());
            let segment = files::segments(&files::partition(image.path(), "orders", 0)).pop().unwrap();
            let last = files::frames(&segment).pop().unwrap();
            if cut {
                files::truncate(&segment, last.start);
            } else {
                files::zero(&segment, last);
            }
            match read(image.path(), "orders") {
                Err(Error::Corrupt { path, .. }) => assert_eq!(path, segment),
                other => panic!("{durability:?}, cut {cut}: {other:?}"),
            }
        }
    }
}

#[test]
fn after_sync_or_close_a_whole_file_that_is_gone_is_an_error_and_nothing_is_made_anew() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("orders", LogOptions::new().segment_bytes(64 << 10)).unwrap();
    for _ in 0..200 {
        log.append(vec![1; 1000]).unwrap();
    }
    let mut consumer = log.consumer("group").at_least_once().unwrap();
    consumer.poll(WAIT).unwrap().unwrap().commit().unwrap();
    store.sync().unwrap();
    let synced = files::image(dir.path());
    drop(consumer);
    store.close().unwrap();
    for source in [synced.path(), dir.path()] {
        let partition = files::partition(source, "orders", 0);
        let mut lost = files::segments(&partition);
        lost.push(partition.join("MANIFEST"));
        lost.extend(files::segments(&source.join("placemarks")));
        lost.push(source.join("placemarks").join("MANIFEST"));
        for lost in lost {
            let image = files::image(source);
            let lost = image.path().join(lost.strip_prefix(source).unwrap());
            fs::remove_file(&lost).unwrap();
            let error = read(image.path(), "orders").expect_err(&lost.display().to_string());
            assert!(matches!(error, Error::Corrupt { .. }), "{}: {error:?}", lost.display());
            assert!(!lost.exists(), "{} was made anew", lost.display());
        }
    }
}

#[test]
fn damage_in_the_side_log_makes_the_store_fail_rather_than_open_with_other_placemarks() {
    let dir = scratch();
    let store = options().open(dir.path()).unwrap();
    let log = store.log("orders").unwrap();
    log.append_batch(["a", "b", "c"]).unwrap();
    let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
    for _ in 0..3 {
        consumer.poll(WAIT).unwrap().unwrap().commit().unwrap();
    }
    drop((consumer, log));
    store.close().unwrap();
    let segment = files::segments(&dir.path().join("placemarks")).pop().unwrap();
    for frame in files::frames(&segment) {
        let image = files::image(dir.path());
        let copy = image.path().join(segment.strip_prefix(dir.path()).unwrap());
        files::flip(&copy, frame.end - 1);
        match options().open(image.path()) {
            Err(Error::Corrupt { path, .. }) => assert_eq!(path, copy),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_was_appended_under_an_interval_is_durable_once_it_has_passed() {
    within(WAIT * 2, || {
        let dir = scratch();
        let interval = Duration::from_millis(20);
        let store = options().durability(Durability::Interval(interval)).open(dir.path()).unwrap();
        let log = store.log("orders").unwrap();
        for _ in 0..10 {
            log.append("record").unwrap();
        }
        // A later frame tells how far the segment was durable when it was written: it vouches for those before it.
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < WAIT, "the interval passed and nothing was synced");
            log.append("later").unwrap();
            let image = files::image(dir.path());
            let segment = files::segments(&files::partition(image.path(), "orders", 0)).pop().unwrap();
            files::flip(&segment, files::frames(&segment)[9].end - 1);
            match read(image.path(), "orders") {
                Err(Error::Corrupt { .. }) => break,
                Ok(kept) => assert_eq!(kept, (0..9).collect::<Vec<_>>()),
                Err(other) => panic!("{other}"),
            }
        }
    });
}

#[test]
fn a_log_may_have_a_durability_of_its_own() {
    let dir = scratch();
    let store = options().open(dir.path()).unwrap();
    let fast = store.log_with("fast", LogOptions::new().durability(Durability::Os)).unwrap();
    let safe = store.log("safe").unwrap();
    for log in [&fast, &safe] {
        for _ in 0..10 {
            log.append("record").unwrap();
        }
    }
    let damaged = |log: &str| {
        let image = files::image(dir.path());
        let segment = files::segments(&files::partition(image.path(), log, 0)).pop().unwrap();
        files::flip(&segment, files::frames(&segment)[5].end - 1);
        read(image.path(), log)
    };
    assert_eq!(damaged("fast").unwrap(), [0, 1, 2, 3, 4]);
    assert!(matches!(damaged("safe"), Err(Error::Corrupt { .. })));
    drop((fast, safe));
    store.close().unwrap();
    let log = options().open(dir.path()).unwrap().log("fast").unwrap();
    assert_eq!(offsets(log.read(StartAt::Earliest).unwrap()), (0..10).collect::<Vec<_>>());
}

#[test]
fn sync_covers_what_an_earlier_process_wrote_to_logs_that_no_one_has_asked_for_since() {
    let disk = SimDisk::new(1);
    let open = |disk: &SimDisk| {
        Store::options().storage(Arc::new(disk.clone())).durability(Durability::Os).open("/data").unwrap()
    };
    let store = open(&disk);
    store.log("log").unwrap().append("record").unwrap();
    store.log("closed").unwrap();
    let disk = disk.kill();
    let store = open(&disk);
    store.sync().unwrap();
    let store = open(&disk.crash(Crash::new(1).keep(Keep::Nothing)));
    assert_eq!(offsets(store.open_log("log").unwrap().read(StartAt::Earliest).unwrap()), [0]);
}
