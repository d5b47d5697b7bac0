//! What opening does with what it finds: a clean store, one in use, files that should not be there, a format of later.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use placemark::{Durability, Error, Log, LogOptions, Record, StartAt, Store};

use common::child::{self, Child};
use common::{Numbers, WAIT, entries, files, in_cache, offsets, options, scratch, within};

/// A closed store with one log of many segments and another of a single record.
fn prepare(dir: &Path) {
    let store = options().open(dir).unwrap();
    let options = LogOptions::new().segment_bytes(64 << 10).durability(Durability::Os);
    let partition = store.log_with("orders", options).unwrap().partition(0).unwrap();
    for number in 0..300_u32 {
        partition.append(number.to_be_bytes().repeat(200)).unwrap();
    }
    store.log("other").unwrap().append("other").unwrap();
    store.close().unwrap();
}

/// What opening the log and reading it whole comes to.
fn read(store: &Store, log: &str) -> Result<Vec<u64>, Error> {
    let reader = store.open_log(log)?.partition(0)?.read(StartAt::Earliest)?;
    let mut offsets = Vec::new();
    for entry in reader {
        offsets.push(entry?.offset());
    }
    Ok(offsets)
}

fn open_and_read(dir: &Path, log: &str) -> Result<Vec<u64>, Error> {
    read(&options().open(dir)?, log)
}

#[test]
fn after_a_clean_close_nothing_is_scanned_and_damage_is_met_by_the_read() {
    let dir = scratch();
    prepare(dir.path());
    let segments = files::segments(&files::partition(dir.path(), "orders", 0));
    let first = segments.first().unwrap();
    files::flip(first, files::frames(first)[3].start + 100);
    let last = segments.last().unwrap();
    files::flip(last, files::frames(last)[0].start + 100);
    let store = options().open(dir.path()).unwrap();
    let partition = store.open_log("orders").unwrap().partition(0).unwrap();
    assert_eq!((partition.start_offset(), partition.end_offset()), (0, 300));
    assert_eq!(store.recovery().cut_bytes(), 0);
    assert!(store.recovery().damage().is_empty());
    let mut reader = partition.read(StartAt::Earliest).unwrap();
    assert_eq!(reader.by_ref().take(3).map(|entry| entry.unwrap().offset()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(matches!(reader.next(), Some(Err(Error::Corrupt { path, .. })) if path == *first));
}

#[test]
fn the_marker_of_a_clean_close_is_gone_before_the_first_write() {
    let dir = scratch();
    prepare(dir.path());
    let store = options().open(dir.path()).unwrap();
    let partition = store.open_log("orders").unwrap().partition(0).unwrap();
    partition.append("unsynced").unwrap();
    let killed = files::image(dir.path());
    let segment = files::segments(&files::partition(killed.path(), "orders", 0)).pop().unwrap();
    let frame = files::frames(&segment).pop().unwrap();
    files::flip(&segment, frame.end - 1);
    let store = options().open(killed.path()).unwrap();
    let log = store.open_log("orders").unwrap();
    assert_eq!(store.recovery().cut_bytes(), frame.end - frame.start);
    assert_eq!(offsets(log.read(StartAt::Earliest).unwrap()), (0..300).collect::<Vec<_>>());
    assert_eq!(read(&store, "other").unwrap(), [0]);
}

#[test]
fn opening_and_closing_without_a_write_changes_no_record_and_no_segment() {
    let dir = scratch();
    prepare(dir.path());
    let directory = files::partition(dir.path(), "orders", 0);
    let before: Vec<_> = files::segments(&directory).iter().map(|path| fs::read(path).unwrap()).collect();
    for _ in 0..3 {
        assert_eq!(open_and_read(dir.path(), "orders").unwrap(), (0..300).collect::<Vec<_>>());
    }
    let after: Vec<_> = files::segments(&directory).iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn a_store_is_open_once_in_a_process() {
    let dir = scratch();
    let store = options().open(dir.path()).unwrap();
    store.log("orders").unwrap().append("first").unwrap();
    for _ in 0..2 {
        let Err(Error::Locked { path }) = options().open(dir.path()) else { panic!("opened twice") };
        assert!(path.starts_with(dir.path()), "{}", path.display());
    }
    // The refused openings did the open one no harm.
    store.log("orders").unwrap().append("second").unwrap();
    drop(store);
    assert_eq!(open_and_read(dir.path(), "orders").unwrap(), [0, 1]);
}

#[test]
fn child_that_holds_a_store() {
    let Some(dir) = child::directory() else { return };
    match options().open(&dir) {
        Ok(store) => {
            store.log("orders").unwrap().append("from the child").unwrap();
            child::say("open");
            // Until it is killed.
            loop {
                std::thread::park();
            }
        }
        Err(Error::Locked { .. }) => child::say("locked"),
        Err(other) => child::say(other),
    }
}

#[test]
fn a_store_is_open_in_one_process_and_a_killed_one_leaves_no_lock() {
    let dir = scratch();
    let holder = Child::start("child_that_holds_a_store", dir.path(), &[]);
    assert_eq!(holder.hear().as_deref(), Some("open"));
    assert!(matches!(options().open(dir.path()), Err(Error::Locked { .. })));
    holder.kill();
    let store = options().open(dir.path()).unwrap();
    assert_eq!(read(&store, "orders").unwrap(), [0]);
    let (status, said) = Child::start("child_that_holds_a_store", dir.path(), &[]).finish();
    assert!(status.success());
    assert_eq!(said, ["locked"]);
    store.log("orders").unwrap().append("from the parent").unwrap();
}

#[test]
fn child_that_races_to_open() {
    let Some(dir) = child::directory() else { return };
    let (store, mark) = (dir.join("store"), dir.join("mark"));
    let mut held = 0;
    while held < 20 {
        match options().open(&store) {
            Ok(open) => {
                // Whoever has the store open is alone with the mark.
                let mine = File::create_new(&mark);
                assert!(mine.is_ok(), "two processes have the store open: {mine:?}");
                open.log("orders").unwrap().append("from a racer").unwrap();
                fs::remove_file(&mark).unwrap();
                open.close().unwrap();
                held += 1;
                child::say(held);
            }
            Err(Error::Locked { .. }) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn processes_that_race_to_open_have_the_store_one_after_the_other() {
    within(WAIT * 2, || {
        let dir = scratch();
        let racers: Vec<_> = (0..4).map(|_| Child::start("child_that_races_to_open", dir.path(), &[])).collect();
        for racer in racers {
            let (status, said) = racer.finish();
            assert!(status.success() && said.len() == 20, "{status}: {said:?}");
        }
        assert_eq!(open_and_read(&dir.path().join("store"), "orders").unwrap(), (0..80).collect::<Vec<_>>());
    });
}

#[test]
fn child_that_changes_its_working_directory() {
    let Some(dir) = child::directory() else { return };
    env::set_current_dir(&dir).unwrap();
    let store = in_cache().open("data").unwrap();
    let early = store.log_with("early", LogOptions::new().segment_bytes(64 << 10)).unwrap();
    env::set_current_dir("/").unwrap();
    for _ in 0..100 {
        early.append(vec![7; 10_000]).unwrap();
    }
    store.log("late").unwrap().append("1").unwrap();
    store.close().unwrap();
    child::say("closed");
}

#[test]
fn a_store_opened_by_a_relative_path_stays_where_it_is_when_the_process_goes_elsewhere() {
    let dir = scratch();
    let (status, said) = Child::start("child_that_changes_its_working_directory", dir.path(), &[]).finish();
    assert!(status.success(), "{status}");
    assert_eq!(said, ["closed"]);
    assert_eq!(open_and_read(&dir.path().join("data"), "early").unwrap().len(), 100);
    assert_eq!(open_and_read(&dir.path().join("data"), "late").unwrap(), [0]);
}

#[test]
fn a_missing_segment_is_corruption_that_names_it_and_changes_nothing() {
    for which in [0, 3, 1] {
        let dir = scratch();
        prepare(dir.path());
        let directory = files::partition(dir.path(), "orders", 0);
        let missing = files::segments(&directory).remove(which);
        fs::remove_file(&missing).unwrap();
        let kept = files::segments(&directory);
        let store = options().open(dir.path()).unwrap();
        match read(&store, "orders") {
            Err(Error::Corrupt { path, .. }) => assert_eq!(path, missing),
            other => panic!("without {}: {other:?}", missing.display()),
        }
        assert_eq!(read(&store, "other").unwrap(), [0]);
        assert_eq!(files::segments(&directory), kept);
    }
}

#[test]
fn a_segment_of_no_bytes_is_corruption() {
    let dir = scratch();
    prepare(dir.path());
    let empty = files::segments(&files::partition(dir.path(), "orders", 0)).remove(1);
    files::truncate(&empty, 0);
    match open_and_read(dir.path(), "orders") {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path, empty),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_that_a_killed_roll_left_empty_is_cleaned_up() {
    let dir = scratch();
    prepare(dir.path());
    let store = options().open(dir.path()).unwrap();
    let partition = store.open_log("orders").unwrap().partition(0).unwrap();
    partition.append("unsynced").unwrap();
    for len in [0, 64, 8192] {
        let killed = files::image(dir.path());
        let leftover = files::partition(killed.path(), "orders", 0).join(format!("{:020}.log", 301));
        fs::write(&leftover, vec![0; len]).unwrap();
        let store = options().open(killed.path()).unwrap();
        let partition = store.open_log("orders").unwrap().partition(0).unwrap();
        for offset in 301..303 {
            assert_eq!(partition.append(Record::new(vec![1; 60 << 10])).unwrap(), offset, "beside {len} bytes");
        }
        drop(partition);
        store.close().unwrap();
        assert_eq!(open_and_read(killed.path(), "orders").unwrap(), (0..303).collect::<Vec<_>>());
    }
}

#[test]
fn an_orphan_index_goes_and_foreign_files_stay() {
    let dir = scratch();
    prepare(dir.path());
    let directory = files::partition(dir.path(), "orders", 0);
    let orphan = directory.join(format!("{:020}.index", 999_999));
    fs::write(&orphan, Numbers::new(6).bytes(500)).unwrap();
    let foreign = [
        dir.path().join("README"),
        dir.path().join("logs").join("note.txt"),
        dir.path().join("logs").join("orders").join("note.txt"),
        directory.join("note.txt"),
        directory.join("7.log"),
        directory.join("7.index"),
        directory.join("note.index"),
        directory.join("note.new"),
        directory.join("00000000000000000000.log.bak"),
    ];
    for path in &foreign {
        fs::write(path, "mine").unwrap();
    }
    let store = options().open(dir.path()).unwrap();
    assert_eq!(store.logs().unwrap(), ["orders", "other"]);
    assert_eq!(read(&store, "orders").unwrap(), (0..300).collect::<Vec<_>>());
    store.open_log("orders").unwrap().append("more").unwrap();
    store.close().unwrap();
    assert_eq!(open_and_read(dir.path(), "orders").unwrap().len(), 301);
    assert!(!orphan.exists());
    for path in &foreign {
        assert_eq!(fs::read(path).unwrap(), b"mine", "{}", path.display());
    }
}

#[test]
fn what_a_crash_left_of_making_or_deleting_a_log_is_cleaned_up() {
    let dir = scratch();
    prepare(dir.path());
    let logs = dir.path().join("logs");
    let leftovers = ["~new.77", "~gone.78"].map(|name| logs.join(name));
    for leftover in &leftovers {
        fs::create_dir_all(leftover.join("0")).unwrap();
        fs::write(leftover.join("0").join("00000000000000000000.log"), "half").unwrap();
    }
    let store = options().open(dir.path()).unwrap();
    assert_eq!(store.logs().unwrap(), ["orders", "other"]);
    store.close().unwrap();
    for leftover in &leftovers {
        assert!(!leftover.exists(), "{}", leftover.display());
    }
}

#[test]
fn another_version_of_a_format_is_refused_by_name_and_nothing_is_changed() {
    let dir = scratch();
    prepare(dir.path());
    let partition = files::partition(dir.path(), "orders", 0);
    let versioned = [
        dir.path().join("STORE"),
        dir.path().join("logs").join("orders").join("LOG"),
        partition.join("MANIFEST"),
        files::segments(&partition).remove(0),
    ];
    for file in versioned {
        let copy = files::image(dir.path());
        let file = copy.path().join(file.strip_prefix(dir.path()).unwrap());
        // Behind the eight bytes that say what it is.
        files::overwrite(&file, 8, &77_u32.to_le_bytes());
        let before = files::contents(&copy.path().join("logs"));
        match open_and_read(copy.path(), "orders") {
            Err(Error::IncompatibleFormat { path, found, .. }) => {
                assert_eq!(path, file);
                assert!(found.contains("77"), "{found}");
            }
            other => panic!("{}: {other:?}", file.display()),
        }
        let after = files::contents(&copy.path().join("logs"));
        for (path, bytes) in before.iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "log")) {
            assert!(after.get(path) == Some(bytes), "{} was changed", path.display());
        }
        assert!(after.get(&file).is_none_or(|bytes| before.get(&file) == Some(bytes)), "{}", file.display());
    }
}

#[test]
fn a_segment_of_another_store_is_refused_by_name() {
    let (dir, stranger) = (scratch(), scratch());
    prepare(dir.path());
    prepare(stranger.path());
    let file = files::segments(&files::partition(dir.path(), "orders", 0)).remove(1);
    let strange = files::segments(&files::partition(stranger.path(), "orders", 0)).remove(1);
    fs::copy(strange, &file).unwrap();
    match open_and_read(dir.path(), "orders") {
        Err(Error::IncompatibleFormat { path, .. } | Error::Corrupt { path, .. }) => assert_eq!(path, file),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_path_that_is_a_file_is_refused_by_name_and_kept() {
    let dir = scratch();
    let path = dir.path().join("file");
    fs::write(&path, "mine").unwrap();
    for path in [path.clone(), path.join("below")] {
        let message = options().open(&path).unwrap_err().to_string();
        assert!(message.contains(&dir.path().join("file").display().to_string()), "{message}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_directory_that_may_not_be_written_is_refused_by_name() {
    let dir = scratch();
    let path = dir.path().join("read-only");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(path.join("probe"), "").is_ok() {
        // Permissions do not bind root.
        return;
    }
    let message = options().open(&path).unwrap_err().to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn a_symbolic_link_never_leads_to_a_second_open_store() {
    let dir = scratch();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    prepare(&real);
    symlink(&real, &link).unwrap();
    let before = files::contents(&real.join("logs"));
    match options().open(&link) {
        Ok(store) => {
            assert_eq!(read(&store, "orders").unwrap().len(), 300);
            assert!(matches!(options().open(&real), Err(Error::Locked { .. })));
        }
        Err(refused) => {
            assert!(refused.to_string().contains(&link.display().to_string()), "{refused}");
            assert!(files::contents(&real.join("logs")) == before);
        }
    }
    assert_eq!(open_and_read(&real, "orders").unwrap().len(), 300);
}

#[test]
fn a_link_in_place_of_a_log_or_a_segment_is_not_followed() {
    let (dir, outside) = (scratch(), scratch());
    prepare(dir.path());
    let segment = files::segments(&files::partition(dir.path(), "orders", 0)).remove(1);
    let moved = outside.path().join("moved.log");
    fs::copy(&segment, &moved).unwrap();
    fs::remove_file(&segment).unwrap();
    symlink(&moved, &segment).unwrap();
    let before = fs::read(&moved).unwrap();
    let error = open_and_read(dir.path(), "orders").unwrap_err();
    assert!(error.to_string().contains(&segment.display().to_string()), "{error}");
    assert!(fs::read(&moved).unwrap() == before);
}

#[test]
fn an_opened_store_is_found_with_all_it_had() {
    let dir = scratch();
    let path = dir.path().join("made").join("with").join("parents");
    let store = in_cache().open(&path).unwrap();
    // In segments of which each has some records and an index.
    let log = store.log_with("orders", LogOptions::new().partitions(3).segment_bytes(64 << 10)).unwrap();
    for number in 0..300_u64 {
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000 + number / 3);
        log.append(Record::new(format!("order {number:01000}")).timestamp(time)).unwrap();
    }
    let found = |log: &Log, number: u32| {
        let partition = log.partition(number).unwrap();
        let all = entries(partition.read(StartAt::Earliest).unwrap());
        let first = |at: StartAt| partition.read(at).unwrap().next().map(|entry| entry.unwrap().offset());
        let by_offset: Vec<_> = all.iter().map(|entry| first(StartAt::Offset(entry.offset()))).collect();
        let by_time: Vec<_> = all.iter().map(|entry| first(StartAt::Time(entry.timestamp()))).collect();
        let all: Vec<_> = all.iter().map(|it| (it.offset(), it.timestamp(), it.value().to_vec())).collect();
        (partition.start_offset(), partition.end_offset(), all, by_offset, by_time)
    };
    let before: Vec<_> = (0..3).map(|number| found(&log, number)).collect();
    assert!(
        before
            .iter()
            .all(|(_, end, all, by_offset, _)| *end == 100 && all.len() == 100 && by_offset.last() == Some(&Some(99)))
    );
    store.close().unwrap();
    let store = in_cache().open(&path).unwrap();
    let log = store.log("orders").unwrap();
    for (number, before) in (0..).zip(before) {
        assert_eq!(found(&log, number), before);
    }
}
