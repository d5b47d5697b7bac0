//! The directory of a store: how it is made, what opening does with what it finds in it, and how logs come and go.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use placemark::{Compaction, Durability, Error, Log, LogOptions, Position, Reader, Record, ResetTo, StartAt, Store};
use tempfile::TempDir;

/// Long enough for what must happen.
const WAIT: Duration = Duration::from_secs(30);

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(dir: &Path) -> Store {
    Store::options().durability(Durability::Os).open(dir).unwrap()
}

fn values(reader: Reader) -> Vec<Vec<u8>> {
    reader.map(|entry| entry.unwrap().value().to_vec()).collect()
}

fn all(log: &Log) -> Vec<Vec<u8>> {
    values(log.read(StartAt::Earliest).unwrap())
}

/// A closed store with the logs `a` and `b`, of one record each.
fn prepared() -> TempDir {
    let dir = scratch();
    let store = open(dir.path());
    for name in ["a", "b"] {
        store.log(name).unwrap().append(name).unwrap();
    }
    store.close().unwrap();
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_store_is_made_with_its_parents_and_in_a_directory_of_other_things() {
    let dir = scratch();
    let path = dir.path().join("some/where/data");
    open(&path).log("orders").unwrap().append("1").unwrap();
    for part in ["LOCK", "STORE", "placemarks/MANIFEST", "transactions/MANIFEST", "logs/orders/LOG", "logs/orders/0"] {
        assert!(path.join(part).exists(), "{part}");
    }
    let among = dir.path().join("among");
    fs::create_dir_all(among.join("logs/app")).unwrap();
    fs::write(among.join("notes.txt"), "mine").unwrap();
    fs::write(among.join("logs/app/app.log"), "mine too").unwrap();
    open(&among).log("orders").unwrap().append("1").unwrap();
    assert_eq!(open(&among).logs().unwrap(), ["orders"]);
    assert_eq!(fs::read(among.join("notes.txt")).unwrap(), b"mine");
    assert_eq!(fs::read(among.join("logs/app/app.log")).unwrap(), b"mine too");
    match open(&among).log("app") {
        Err(Error::Io { path, .. }) => assert_eq!(path, among.join("logs/app")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_left_of_an_unfinished_creation_is_made_again() {
    let whole = scratch();
    open(whole.path()).close().unwrap();
    for leave in
        [&["LOCK"][..], &["LOCK", "logs"], &["LOCK", "logs", "placemarks"], &["logs", "placemarks", "transactions"]]
    {
        let dir = scratch();
        for name in leave {
            let from = whole.path().join(name);
            if from.is_dir() {
                copy(&from, &dir.path().join(name));
            } else {
                fs::write(dir.path().join(name), "").unwrap();
            }
        }
        fs::write(dir.path().join("STORE.new"), "half").unwrap();
        let half = dir.path().join("placemarks/MANIFEST");
        if half.exists() {
            fs::write(half, "half").unwrap();
        }
        let store = open(dir.path());
        store.log("orders").unwrap().append("1").unwrap();
        store.close().unwrap();
        assert_eq!(all(&open(dir.path()).log("orders").unwrap()), [b"1"], "{leave:?}");
        assert!(!dir.path().join("STORE.new").exists());
    }
}

#[test]
fn a_directory_in_the_way_of_a_new_store_is_named_and_kept() {
    let dir = scratch();
    let mine = dir.path().join("placemarks");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("letter.txt"), "mine").unwrap();
    match Store::open(dir.path()) {
        Err(Error::Io { path, .. }) => assert_eq!(path, mine),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read(mine.join("letter.txt")).unwrap(), b"mine");
}

#[test]
fn whatever_is_missing_of_a_store_is_corruption_that_names_it() {
    let missing = |part: &str| {
        let dir = prepared();
        let path = dir.path().join(part);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let before = files(dir.path());
        let Err(Error::Corrupt { path: named, .. }) = Store::open(dir.path()) else { panic!("opened without {part}") };
        assert!(named.starts_with(&path), "{}", named.display());
        assert_eq!(files(dir.path()), before, "nothing was changed");
    };
    for part in ["STORE", "placemarks", "placemarks/MANIFEST", "transactions", "transactions/MANIFEST", "logs"] {
        missing(part);
    }
}

#[test]
fn a_log_that_is_missing_or_damaged_does_not_keep_the_others() {
    for part in ["logs/a", "logs/a/LOG", "logs/a/0", "logs/a/0/MANIFEST"] {
        let dir = prepared();
        let path = dir.path().join(part);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let store = open(dir.path());
        assert_eq!(store.logs().unwrap(), ["a", "b"]);
        for opened in [store.log("a"), store.open_log("a"), store.log_with("a", LogOptions::new().partitions(2))] {
            let Err(Error::Corrupt { path: named, .. }) = opened else { panic!("{part}: {opened:?}") };
            assert!(named.starts_with(&path), "{}", named.display());
        }
        assert_eq!(all(&store.log("b").unwrap()), [b"b"]);
        store.delete_log("a").unwrap();
        store.log("a").unwrap().append("anew").unwrap();
        store.close().unwrap();
        assert_eq!(all(&open(dir.path()).log("a").unwrap()), [b"anew"]);
    }
}

#[test]
fn files_of_another_version_or_store_are_refused_by_name() {
    let other = prepared();
    for (file, opens) in [("STORE", false), ("placemarks/MANIFEST", false), ("logs/a/LOG", true)] {
        let dir = prepared();
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 99;
        fs::write(&path, bytes).unwrap();
        let refused = Store::open(dir.path()).and_then(|store| store.log("a").map(drop));
        let Err(Error::IncompatibleFormat { path: named, found, .. }) = refused else { panic!("{file}: {refused:?}") };
        assert_eq!(named, path);
        assert!(found.contains("99"), "{found}");
        assert_eq!(Store::open(dir.path()).is_ok(), opens);
        if file == "STORE" {
            continue;
        }
        fs::copy(other.path().join(file), &path).unwrap();
        let refused = Store::open(dir.path()).and_then(|store| store.log("a").map(drop));
        let Err(Error::IncompatibleFormat { path: named, .. }) = refused else { panic!("{file}: {refused:?}") };
        assert_eq!(named, path);
    }
}

#[test]
fn a_path_that_is_no_directory_is_refused_by_name_and_left_alone() {
    let dir = prepared();
    let (file, link) = (dir.path().join("notes.txt"), dir.path().join("link"));
    fs::write(&file, "mine").unwrap();
    symlink(dir.path(), &link).unwrap();
    for path in [&file, &link, &file.join("below"), &dir.path().join("link/")] {
        match Store::open(path) {
            Err(error @ Error::Io { .. }) => {
                assert!(error.to_string().contains("notes.txt") || error.to_string().contains("link"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn what_a_crash_left_of_making_and_deleting_logs_is_finished() {
    let dir = prepared();
    let logs = dir.path().join("logs");
    copy(&logs.join("a"), &logs.join("~new.40"));
    fs::remove_file(logs.join("~new.40/LOG")).unwrap();
    fs::rename(logs.join("b"), logs.join("~gone.17")).unwrap();
    fs::write(logs.join("~gone.17/half"), "").unwrap();
    fs::create_dir(logs.join("~mine")).unwrap();
    let store = open(dir.path());
    assert_eq!(store.logs().unwrap(), ["a"]);
    let left: Vec<_> = fs::read_dir(&logs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(logs.join("~mine").exists(), "foreign");
    let again = store.log("b").unwrap();
    assert!(all(&again).is_empty(), "it inherits nothing");
}

#[test]
fn a_log_that_a_crash_kept_from_its_registration_is_adopted() {
    let dir = prepared();
    let before = scratch();
    copy(dir.path(), before.path());
    let store = open(dir.path());
    store.log("late").unwrap().append("late").unwrap();
    store.close().unwrap();
    copy(&dir.path().join("logs/late"), &before.path().join("logs/late"));
    let store = open(before.path());
    assert_eq!(store.logs().unwrap(), ["a", "b", "late"]);
    assert_eq!(all(&store.open_log("late").unwrap()), [b"late"]);
    store.log("later").unwrap().append("later").unwrap();
    store.close().unwrap();
    let store = open(before.path());
    assert_eq!(all(&store.open_log("late").unwrap()), [b"late"]);
    assert_eq!(all(&store.open_log("later").unwrap()), [b"later"], "its number is its own");
}

#[test]
fn a_copied_directory_is_no_second_log() {
    let dir = prepared();
    copy(&dir.path().join("logs/a"), &dir.path().join("logs/c"));
    let store = open(dir.path());
    assert_eq!(store.logs().unwrap(), ["a", "b"]);
    assert!(matches!(store.log("c"), Err(Error::Corrupt { path, .. }) if path == dir.path().join("logs/c/LOG")));
    assert_eq!(all(&store.log("a").unwrap()), [b"a"]);
    store.close().unwrap();
    fs::remove_dir_all(dir.path().join("logs/b")).unwrap();
    fs::rename(dir.path().join("logs/c"), dir.path().join("logs/b")).unwrap();
    assert!(matches!(open(dir.path()).log("b"), Err(Error::Corrupt { .. })));
}

#[test]
fn options_change_while_the_log_is_in_use() {
    let dir = scratch();
    let store = open(dir.path());
    let log = store.log_with("log", LogOptions::new().max_record_bytes(10)).unwrap();
    assert!(matches!(log.append(vec![0; 100]), Err(Error::RecordTooLarge { .. })));
    store.log_with("log", LogOptions::new().max_record_bytes(1000).durability(Durability::Sync)).unwrap();
    log.append(vec![0; 100]).unwrap();
    assert!(matches!(log.append(vec![0; 2000]), Err(Error::RecordTooLarge { .. })));
    for refused in [LogOptions::new().compaction(Compaction::KeepLatest), LogOptions::new().partitions(0)] {
        let refused = store.log_with("log", refused.max_record_bytes(5000));
        assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{refused:?}");
    }
    assert!(matches!(log.append(vec![0; 2000]), Err(Error::RecordTooLarge { .. })), "a refused change changes nothing");
}

#[test]
fn a_log_grows_under_its_readers() {
    let dir = scratch();
    let store = open(dir.path());
    let log = store.log("log").unwrap();
    log.append("0").unwrap();
    let mut reader = log.read(StartAt::Earliest).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().partition(), 0);
    assert!(reader.next().is_none());
    // As an earlier attempt may have left it.
    fs::create_dir(dir.path().join("logs/log/1")).unwrap();
    fs::write(dir.path().join("logs/log/1/MANIFEST.new"), "half").unwrap();
    let waiting = thread::spawn(move || (reader.recv_timeout(WAIT), reader));
    store.log_with("log", LogOptions::new().partitions(3)).unwrap();
    assert_eq!(log.partitions(), 3);
    log.partition(2).unwrap().append("2").unwrap();
    let (entry, mut reader) = waiting.join().unwrap();
    assert_eq!(entry.unwrap().unwrap().value(), b"2");
    log.partition(1).unwrap().append("1").unwrap();
    assert_eq!(reader.next().unwrap().unwrap().partition(), 1);
    assert!(matches!(log.partition(3), Err(Error::NoSuchPartition { partition: 3, partitions: 3, .. })));
    drop((store, log, reader));
    let log = open(dir.path()).log("log").unwrap();
    assert_eq!(log.partitions(), 3);
    assert_eq!(all(&log), [b"0", b"1", b"2"]);
}

#[test]
fn a_deleted_log_says_so_to_all_its_handles_and_its_entries_stay() {
    let dir = scratch();
    let store = open(dir.path());
    let log = store.log("log").unwrap();
    log.append_batch(["first", "second"]).unwrap();
    let mut reader = log.read(StartAt::Earliest).unwrap();
    let entry = reader.next().unwrap().unwrap();
    let partition = log.partition(0).unwrap();
    let mut tail = log.read(StartAt::Latest).unwrap();
    let plan = store.group("group").plan_reset(&log, ResetTo::Latest).unwrap();
    let waiting = thread::spawn(move || tail.recv_timeout(WAIT));
    store.delete_log("log").unwrap();
    let gone = |result: Result<(), Error>| assert!(matches!(result, Err(Error::NoSuchLog { .. })), "{result:?}");
    gone(log.append("late").map(drop));
    gone(log.append_batch(["late", "later"]).map(drop));
    gone(partition.append("late").map(drop));
    gone(log.read(StartAt::Earliest).map(drop));
    gone(log.consumer("group").at_least_once().map(drop));
    gone(log.consumer("another").existing().at_least_once().map(drop));
    gone(store.group("group").reset(&log, ResetTo::Latest).map(drop));
    gone(store.group("group").plan_reset(&log, ResetTo::Latest).map(drop));
    gone(plan.apply().map(drop));
    gone(waiting.join().unwrap().map(drop));
    assert_eq!(entry.value(), b"first");
    assert_eq!(fs::read_dir(dir.path().join("logs")).unwrap().count(), 0);
    let again = store.log("log").unwrap();
    again.append("anew").unwrap();
    gone(log.append("late").map(drop));
    assert_eq!(all(&again), [b"anew"]);
}

#[test]
fn a_batch_is_spread_by_its_keys_and_answers_in_its_own_order() {
    let dir = scratch();
    let store = open(dir.path());
    let log = store.log_with("log", LogOptions::new().partitions(4)).unwrap();
    let keys: Vec<String> = (0..40).map(|number| format!("key-{number}")).collect();
    let record = |key: &String| Record::new(format!("of {key}")).key(key.clone());
    let at = log.append_batch(keys.iter().map(record)).unwrap();
    for (key, at) in keys.iter().zip(&at) {
        let entry =
            log.partition(at.partition).unwrap().read(StartAt::Offset(at.offset)).unwrap().next().unwrap().unwrap();
        assert_eq!(entry.key(), Some(key.as_bytes()));
        assert_eq!(log.append(record(key)).unwrap().partition, at.partition, "a key stays in its partition");
    }
    assert!((0..4).all(|number| at.iter().any(|at| at.partition == number)), "{at:?}");
    let turns: Vec<Vec<Position>> = (0..4).map(|_| log.append_batch(["x", "y"]).unwrap()).collect();
    let mut partitions: Vec<u32> = turns.iter().map(|batch| batch[0].partition).collect();
    assert!(turns.iter().all(|batch| batch[0].partition == batch[1].partition), "an unkeyed batch stays whole");
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2, 3]);
    assert!(log.append_batch(Vec::<&str>::new()).unwrap().is_empty());
}

#[test]
fn a_log_compacted_by_key_names_the_record_that_has_none() {
    let dir = scratch();
    let store = open(dir.path());
    let log = store.log_with("log", LogOptions::new().compaction(Compaction::KeepLatest)).unwrap();
    let keyed = || Record::new("value").key("key");
    let batch = log.append_batch([keyed(), keyed(), Record::new("none")]);
    let Err(error @ Error::InvalidOption { .. }) = batch else { panic!("{batch:?}") };
    assert!(error.to_string().contains("record 2"), "{error}");
    assert!(matches!(log.append("none"), Err(Error::InvalidOption { .. })));
    assert!(matches!(log.partition(0).unwrap().append("none"), Err(Error::InvalidOption { .. })));
    assert_eq!(log.append(keyed()).unwrap().offset, 0, "nothing was written");
}

#[test]
fn logs_are_made_opened_and_deleted_from_many_threads() {
    let dir = scratch();
    let store = open(dir.path());
    thread::scope(|scope| {
        for worker in 0..8_u32 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..6 {
                    store.log("shared").unwrap().append(format!("{worker}-{round}")).unwrap();
                    let own = format!("own-{worker}");
                    store.log(&own).unwrap().append("mine").unwrap();
                    if round % 2 == 0 {
                        store.delete_log(&own).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(store.logs().unwrap().len(), 9);
    assert_eq!(all(&store.log("shared").unwrap()).len(), 48);
    store.close().unwrap();
    let store = open(dir.path());
    assert_eq!(all(&store.log("shared").unwrap()).len(), 48);
    for worker in 0..8 {
        assert_eq!(all(&store.log(&format!("own-{worker}")).unwrap()), [b"mine"]);
    }
}

#[test]
fn closing_while_others_append_and_open_loses_nothing_acknowledged() {
    let dir = scratch();
    let store = open(dir.path());
    let acknowledged: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let store = store.clone();
                scope.spawn(move || {
                    let mut count = 0;
                    loop {
                        let name = format!("log-{}", (worker + count) % 8);
                        match store.log(&name).and_then(|log| log.append(name.as_str())) {
                            Ok(_) => count += 1,
                            Err(Error::Closed) => return count,
                            Err(other) => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        while store.logs().unwrap().len() < 4 {
            thread::yield_now();
        }
        store.close().unwrap();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    let store = open(dir.path());
    assert_eq!(store.recovery().recovered_partitions, 0, "everything was closed cleanly");
    let found: usize = store.logs().unwrap().iter().map(|name| all(&store.log(name).unwrap()).len()).sum();
    assert_eq!(found, acknowledged);
}
