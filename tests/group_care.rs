//! Groups looked after from outside: joined only if they exist, seen with their members, moved by a plan, forked.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use placemark::storage::{Crash, Keep, SimDisk};
use placemark::{AtLeastOnce, Consumer, Durability, Error, Log, LogOptions, ResetTo, Result, StartAt, Store};

use common::producing::value;
use common::{in_cache, scratch};

fn filled(store: &Store, name: &str, partitions: u32, records: u64) -> Log {
    let log = store.log_with(name, LogOptions::new().partitions(partitions).segment_bytes(64 << 10)).unwrap();
    for partition in 0..partitions {
        log.partition(partition).unwrap().append_batch((0..records).map(value)).unwrap();
    }
    log
}

/// Settles so many records, one by one.
fn advance(consumer: &mut Consumer<AtLeastOnce>, records: u64) {
    for _ in 0..records {
        consumer.poll(Duration::ZERO).unwrap().unwrap().commit().unwrap();
    }
}

fn offsets(store: &Store, group: &str) -> Vec<(String, u32, u64)> {
    let all = store.group(group).placemarks().unwrap();
    all.into_iter().map(|at| (at.log, at.partition, at.offset)).collect()
}

// ---- existing ----

#[test]
fn a_group_that_must_exist_and_does_not_is_an_error_and_stays_unknown() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, other) = (filled(&store, "log", 2, 5), filled(&store, "other", 1, 5));
    let unknown = |log: &Log| match log.consumer("group").existing().at_least_once() {
        Err(Error::NoSuchGroup { group, log: Some(on) }) => group == "group" && on == log.name(),
        other => panic!("{other:?}"),
    };
    assert!(unknown(&log));
    assert!(store.groups().unwrap().is_empty());
    let first = log.consumer("group").start_at(StartAt::Offset(3)).at_least_once().unwrap();
    drop(log.consumer("group").existing().at_most_once().unwrap());
    assert!(unknown(&other), "a group of the same name on another log is another");
    drop(first);
    // Also after it has been forgotten in memory, and with another start asked for.
    let mut again = log.consumer("group").existing().start_at(StartAt::Latest).exactly_once().unwrap();
    assert_eq!(again.poll(Duration::ZERO).unwrap().unwrap().offsets(), 3..5);
    drop((again, log, other));
    store.close().unwrap();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.open_log("log").unwrap();
    drop(log.consumer("group").existing().at_least_once().unwrap());
    store.group("group").delete().unwrap();
    assert!(unknown(&log));
    let text = log.consumer("group").existing().at_least_once().unwrap_err().to_string();
    assert!(text.contains("\"group\"") && text.contains("\"log\""), "{text}");
}

// ---- members ----

#[test]
fn members_are_seen_with_their_names_what_they_read_and_what_they_wait_for() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = filled(&store, "log", 4, 5);
    let group = store.group("group");
    assert!(group.members().unwrap().is_empty());
    let mut first = log.consumer("group").member_name("first").max_poll_records(1).at_least_once().unwrap();
    let held: Vec<_> = (0..4).map(|_| first.poll(Duration::ZERO).unwrap().unwrap()).collect();
    let second = log.consumer("group").at_least_once().unwrap();
    let [a, b] = &group.members().unwrap()[..] else { panic!("two members") };
    assert_eq!((a.log.as_str(), a.name.as_deref(), a.in_flight), ("log", Some("first"), 4));
    assert_eq!((b.name.as_deref(), b.in_flight), (None, 0));
    assert_eq!(a.assignment, [0, 1, 2, 3], "what is in flight is not handed over");
    assert_eq!((b.assignment.len(), b.awaited.len()), (0, 2));
    let awaited = b.awaited.clone();
    drop(held);
    let [a, b] = &group.members().unwrap()[..] else { panic!("two members") };
    assert_eq!((a.assignment.len(), a.in_flight), (2, 0));
    assert_eq!((&b.assignment, b.awaited.len()), (&awaited, 0));
    let elsewhere = filled(&store, "elsewhere", 1, 1).consumer("group").member_name("third").at_most_once().unwrap();
    let logs: Vec<_> = group.members().unwrap().into_iter().map(|member| (member.log, member.name)).collect();
    assert_eq!(logs.len(), 3);
    assert!(logs.contains(&("elsewhere".to_owned(), Some("third".to_owned()))));
    drop((first, second, elsewhere));
    assert!(group.members().unwrap().is_empty());
    let refused = log.consumer("group").member_name("not/a name").at_least_once();
    assert!(matches!(refused, Err(Error::InvalidName { .. })));
}

// ---- plans ----

#[test]
fn a_plan_shows_what_it_would_do_and_does_exactly_that() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = filled(&store, "log", 2, 10);
    let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
    advance(&mut consumer, 6);
    let before = offsets(&store, "group");
    let group = store.group("group");
    // Made while it is active, applied when it is not.
    let plan = group.plan_reset(&log, ResetTo::ShiftBy(-2)).unwrap();
    let planned = plan.resets().to_vec();
    assert_eq!(
        planned.iter().map(|reset| (reset.partition, reset.from, reset.to)).collect::<Vec<_>>(),
        [(0, 3, 1), (1, 3, 1)]
    );
    assert!(matches!(plan.clone().apply(), Err(Error::GroupActive { .. })));
    drop(consumer);
    assert_eq!(offsets(&store, "group"), before, "nothing has moved");
    assert_eq!(plan.clone().apply().unwrap(), planned);
    assert_eq!(offsets(&store, "group"), [("log".to_owned(), 0, 1), ("log".to_owned(), 1, 1)]);
    // Made before it moved: not applied any more.
    assert!(matches!(plan.apply(), Err(Error::Fenced)));
    assert_eq!(offsets(&store, "group"), [("log".to_owned(), 0, 1), ("log".to_owned(), 1, 1)]);
    let plan = group.plan_reset(&log, ResetTo::Latest).unwrap();
    plan.apply().unwrap();
    let mut consumer = log.consumer("group").existing().at_least_once().unwrap();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_none());
}

#[test]
fn a_plan_to_where_retention_has_been_meanwhile_is_refused_whole() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = filled(&store, "log", 2, 10);
    let group = store.group("group");
    group.reset(&log, ResetTo::Offset(5)).unwrap();
    let plan = group.plan_reset(&log, ResetTo::Earliest).unwrap();
    log.partition(1).unwrap().trim_before(u64::MAX).unwrap();
    let refused = plan.apply();
    assert!(matches!(refused, Err(Error::OffsetOutOfRange { requested: 0, start: 10, end: 10 })), "{refused:?}");
    assert_eq!(offsets(&store, "group"), [("log".to_owned(), 0, 5), ("log".to_owned(), 1, 5)]);
    let of_another_store = in_cache().open(scratch().path()).unwrap().group("group").plan_reset(&log, ResetTo::Latest);
    assert!(matches!(of_another_store, Err(Error::InvalidOption { option: "log", .. })));
    // One for a group that is not known makes it known when it is applied, and not before.
    let plan = store.group("new").plan_reset(&log, ResetTo::Offset(7)).unwrap();
    assert_eq!(store.groups().unwrap(), ["group"]);
    assert_eq!(
        plan.apply().unwrap().iter().map(|reset| (reset.from, reset.to)).collect::<Vec<_>>(),
        [(0, 7), (10, 10)]
    );
    assert_eq!(store.groups().unwrap(), ["group", "new"]);
}

// ---- forks ----

#[test]
fn a_fork_is_where_its_origin_is_and_goes_its_own_way() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, other) = (filled(&store, "log", 3, 10), filled(&store, "other", 1, 10));
    let group = store.group("group");
    assert!(matches!(group.fork("fork"), Err(Error::NoSuchGroup { group, log: None }) if group == "group"));
    let mut consumer = log.consumer("group").start_at(StartAt::Offset(2)).max_poll_records(1).at_least_once().unwrap();
    advance(&mut consumer, 2);
    let held = consumer.poll(Duration::ZERO).unwrap().unwrap();
    let mut elsewhere = other.consumer("group").max_poll_records(1).at_least_once().unwrap();
    advance(&mut elsewhere, 4);
    let fork = group.fork("fork").unwrap();
    assert_eq!(fork.name(), "fork");
    for exists in ["fork", "group"] {
        assert!(matches!(group.fork(exists), Err(Error::InvalidOption { option: "group", .. })));
    }
    assert!(matches!(group.fork("a/b"), Err(Error::InvalidName { .. })));
    let at_the_fork = offsets(&store, "group");
    assert_eq!(offsets(&store, "fork"), at_the_fork);
    held.commit().unwrap();
    advance(&mut elsewhere, 1);
    assert_eq!(offsets(&store, "fork"), at_the_fork, "the origin goes on alone");
    drop((consumer, elsewhere, log, other));
    store.close().unwrap();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.open_log("log").unwrap();
    let mut consumer = log.consumer("fork").existing().start_at(StartAt::Latest).at_least_once().unwrap();
    let held: Vec<_> = (0..3).map(|_| consumer.poll(Duration::ZERO).unwrap().unwrap()).collect();
    // Two had one settled, and of the third the start is known.
    let mut first: Vec<u64> = held.iter().map(|batch| batch.offsets().start).collect();
    first.sort_unstable();
    assert_eq!(first, [2, 3, 3]);
    drop((held, consumer));
    store.group("group").delete().unwrap();
    assert_eq!(offsets(&store, "fork"), at_the_fork, "it outlives its origin");
}

#[test]
fn a_power_loss_while_a_group_is_forked_leaves_it_whole_or_unknown() {
    const PATH: &str = "/var/lib/data";
    let open = |disk: &SimDisk| Store::options().storage(Arc::new(disk.clone())).open(PATH);
    // Until a power loss; says when the fork began.
    let run = |disk: &SimDisk| -> Result<(u64, u64)> {
        let store = open(disk)?;
        let log = store.log_with("log", LogOptions::new().partitions(5))?;
        for partition in 0..5 {
            log.partition(partition)?.append_batch((0..10).map(value))?;
        }
        store.group("group").reset(&log, ResetTo::Offset(4))?;
        let before = disk.operations();
        store.group("group").fork("fork")?;
        Ok((before, disk.operations()))
    };
    let (before, after) = run(&SimDisk::new(1)).unwrap();
    assert!(after > before);
    for operations in before..=after {
        for (seed, keep) in [(1, Keep::Nothing), (2, Keep::Everything), (3, Keep::Random), (4, Keep::Random)] {
            let disk = SimDisk::new(1);
            disk.crash_after(operations);
            let acknowledged = run(&disk).is_ok();
            let store = open(&disk.crash(Crash::new(seed).keep(keep))).unwrap();
            let found = offsets(&store, "fork");
            let whole: Vec<_> = (0..5).map(|partition| ("log".to_owned(), partition, 4)).collect();
            assert!(found == whole || (found.is_empty() && !acknowledged), "{operations}, {keep:?}: {found:?}");
            assert_eq!(store.groups().unwrap().len(), if found.is_empty() { 1 } else { 2 });
            // A new group of any name begins at its own start.
            let log = store.open_log("log").unwrap();
            let mut other = log.consumer("other").start_at(StartAt::Offset(8)).at_least_once().unwrap();
            assert_eq!(other.poll(Duration::ZERO).unwrap().unwrap().offsets(), 8..10);
        }
    }
}

// ---- metadata ----

fn meta(store: &Store, log: &Log) -> Option<Vec<u8>> {
    store.group("group").metadata(log, 0).unwrap()
}

#[test]
fn metadata_stand_with_their_placemark_across_reopening_compaction_and_forks() {
    for close in [true, false] {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let log = filled(&store, "log", 2, 30);
        let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
        assert_eq!((consumer.metadata(0), meta(&store, &log)), (None, None));
        let largest = vec![0xa5; 4096];
        consumer.poll(Duration::ZERO).unwrap().unwrap().commit_with_metadata(&largest).unwrap();
        assert_eq!((consumer.metadata(0), meta(&store, &log)), (Some(largest.clone()), Some(largest.clone())));
        assert_eq!(consumer.metadata(1), None, "each partition has its own");
        store.group("group").fork("fork").unwrap();
        let mut other = log.consumer("other").max_poll_records(1).at_least_once().unwrap();
        // So many that the side log is compacted.
        for _ in 0..4000 {
            other.poll(Duration::ZERO).unwrap().unwrap().commit_with_metadata(vec![1; 1000]).unwrap();
            for partition in 0..2 {
                other.seek(partition, StartAt::Earliest).unwrap();
            }
        }
        drop((consumer, other, log));
        if close {
            store.close().unwrap();
        } else {
            drop(store);
        }
        let store = in_cache().open(dir.path()).unwrap();
        let log = store.open_log("log").unwrap();
        assert_eq!(meta(&store, &log), Some(largest.clone()));
        assert_eq!(store.group("fork").metadata(&log, 0).unwrap(), Some(largest));
        assert_eq!(store.group("unknown").metadata(&log, 0).unwrap(), None);
        // A placemark that moves without any has none; neither has one that was reset.
        let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
        while consumer.metadata(0).is_some() {
            consumer.poll(Duration::ZERO).unwrap().unwrap().commit().unwrap();
        }
        drop(consumer);
        store.group("fork").reset(&log, ResetTo::Offset(1)).unwrap();
        assert_eq!(store.group("fork").metadata(&log, 0).unwrap(), None);
    }
}

#[test]
fn metadata_that_are_too_large_are_refused_with_the_sizes_and_move_nothing() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, out) = (filled(&store, "log", 1, 3), store.log("out").unwrap());
    let too_large = vec![0; 4097];
    let check = |refused: Result<()>| match refused {
        Err(Error::InvalidOption { option: "metadata", reason }) => {
            assert!(reason.contains("4097") && reason.contains("4096"), "{reason}");
        }
        other => panic!("{other:?}"),
    };
    let mut least = log.consumer("least").at_least_once().unwrap();
    check(least.poll(Duration::ZERO).unwrap().unwrap().commit_with_metadata(&too_large));
    assert_eq!(least.committed(0), None);
    assert_eq!(least.poll(Duration::ZERO).unwrap().unwrap().offsets(), 0..3);
    let mut exactly = log.consumer("exactly").exactly_once().unwrap();
    let mut transaction = store.transaction();
    transaction.append(&out, "output").unwrap();
    check(transaction.commit_with_metadata(exactly.poll(Duration::ZERO).unwrap().unwrap(), &too_large));
    assert_eq!((exactly.committed(0), out.partition(0).unwrap().end_offset()), (None, 0));
    store.transaction().commit_with_metadata(exactly.poll(Duration::ZERO).unwrap().unwrap(), b"state").unwrap();
    assert_eq!(exactly.metadata(0).as_deref(), Some(&b"state"[..]));
    let mut from = log.consumer("from").exactly_once_from(|_| Ok::<_, Error>(None)).unwrap();
    from.poll(Duration::ZERO).unwrap().unwrap().commit_with_metadata("").unwrap();
    assert_eq!(from.metadata(0).as_deref(), Some(&b""[..]), "none and empty are two things");
}

#[test]
fn metadata_of_batches_settled_out_of_order_are_those_of_the_placemark() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = filled(&store, "log", 1, 6);
    let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
    let mut batches: Vec<_> = (0..6).map(|_| consumer.poll(Duration::ZERO).unwrap().unwrap()).collect();
    let mut settle = |index: usize, metadata: Option<&str>| {
        let batch = batches.remove(index);
        match metadata {
            Some(metadata) => batch.commit_with_metadata(metadata),
            None => batch.commit(),
        }
    };
    settle(1, Some("2")).unwrap();
    assert_eq!((consumer.committed(0), consumer.metadata(0)), (None, None));
    settle(0, Some("1")).unwrap();
    assert_eq!((consumer.committed(0), consumer.metadata(0).as_deref()), (Some(2), Some(&b"2"[..])));
    // Of 2, 3, 4 and 5: the last one has none.
    settle(2, Some("5")).unwrap();
    settle(2, None).unwrap();
    settle(1, Some("4")).unwrap();
    settle(0, Some("3")).unwrap();
    assert_eq!((consumer.committed(0), consumer.metadata(0)), (Some(6), None));
}

#[test]
fn metadata_stand_while_the_placemark_passes_offsets_that_have_no_record() {
    let disk = SimDisk::new(1);
    let open =
        |disk: &SimDisk| Store::options().storage(Arc::new(disk.clone())).durability(Durability::Os).open("/data");
    let store = open(&disk).unwrap();
    drop(filled(&store, "log", 1, 2));
    store.sync().unwrap();
    // Offsets that may have been given out before the power loss are given to no one again.
    let store = open(&disk.crash(Crash::new(1).keep(Keep::Nothing))).unwrap();
    let log = store.open_log("log").unwrap();
    let end = log.partition(0).unwrap().end_offset();
    assert!(end > 2, "there is a gap before {end}");
    let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
    let first = consumer.poll(Duration::ZERO).unwrap().unwrap();
    let last = consumer.poll(Duration::ZERO).unwrap().unwrap();
    assert_eq!((last.offsets().start, consumer.poll(Duration::ZERO).unwrap().map(|batch| batch.offsets())), (1, None));
    last.commit_with_metadata("all").unwrap();
    first.commit_with_metadata("half").unwrap();
    assert_eq!((consumer.committed(0), consumer.metadata(0).as_deref()), (Some(end), Some(&b"all"[..])));
}

#[test]
fn a_power_loss_leaves_a_placemark_with_its_metadata_or_the_one_before_with_its_own() {
    const PATH: &str = "/var/lib/data";
    let open = |disk: &SimDisk| Store::options().storage(Arc::new(disk.clone())).open(PATH);
    // How many commits were acknowledged.
    let run = |disk: &SimDisk, done: &mut u64| -> Result<()> {
        let store = open(disk)?;
        let (log, out) = (store.log("log")?, store.log("out")?);
        log.append_batch((0..6).map(value))?;
        let mut exactly = log.consumer("group").max_poll_records(1).exactly_once()?;
        for _ in 0..3 {
            let Some(batch) = exactly.poll(Duration::ZERO)? else { break };
            let mut transaction = store.transaction();
            transaction.append(&out, "output")?;
            let end = batch.offsets().end;
            transaction.commit_with_metadata(batch, end.to_string())?;
            *done = end;
        }
        drop(exactly);
        let mut least = log.consumer("group").max_poll_records(1).at_least_once()?;
        while let Some(batch) = least.poll(Duration::ZERO)? {
            let end = batch.offsets().end;
            batch.commit_with_metadata(end.to_string())?;
            *done = end;
        }
        Ok(())
    };
    let whole = SimDisk::new(1);
    run(&whole, &mut 0).unwrap();
    for after in 0..=whole.operations() {
        for keep in [Keep::Nothing, Keep::Everything, Keep::Random] {
            let disk = SimDisk::new(1);
            disk.crash_after(after);
            let mut done = 0;
            let _ = run(&disk, &mut done);
            let store = open(&disk.crash(Crash::new(after).keep(keep))).unwrap();
            let Ok(log) = store.open_log("log") else { continue };
            let at = offsets(&store, "group").first().map_or(0, |at| at.2);
            assert!((done..=done + 1).contains(&at), "{after}, {keep:?}: {at} of {done}");
            let metadata = meta(&store, &log).map(|it| String::from_utf8(it).unwrap());
            assert_eq!(metadata, (at > 0).then(|| at.to_string()), "{after}, {keep:?}");
        }
    }
}

// ---- placemarks that retention has passed ----

#[test]
fn a_group_whose_placemark_is_below_the_start_goes_on_there_and_is_told_how_many_are_gone() {
    for reopened in [false, true] {
        let dir = scratch();
        let mut store = in_cache().open(dir.path()).unwrap();
        let mut log = filled(&store, "log", 1, 30);
        for number in 30..400 {
            log.append(value(number)).unwrap();
        }
        let mut consumer = log.consumer("group").max_poll_records(7).at_least_once().unwrap();
        consumer.poll(Duration::ZERO).unwrap().unwrap().commit().unwrap();
        drop(consumer);
        log.partition(0).unwrap().trim_before(300).unwrap();
        let start = log.partition(0).unwrap().start_offset();
        assert!(start > 7, "{start}");
        if reopened {
            drop(log);
            store.close().unwrap();
            store = in_cache().open(dir.path()).unwrap();
            log = store.open_log("log").unwrap();
        }
        // Also where attempts are counted, which looks at the first record there is.
        let consumer = log.consumer("group").existing().max_attempts(2).skip().max_poll_records(7);
        let mut consumer = consumer.at_least_once().unwrap();
        assert_eq!(consumer.committed(0), Some(7));
        let batch = consumer.poll(Duration::ZERO).unwrap().unwrap();
        assert_eq!((batch.offsets(), batch.skipped()), (start..start + 7, start - 7));
        batch.commit().unwrap();
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().unwrap().skipped(), 0, "it is told once");
        assert_eq!(consumer.committed(0), Some(start + 7));
    }
}

#[test]
fn where_a_group_is_can_be_asked_though_it_stands_at_a_damaged_record() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, other) = (filled(&store, "log", 1, 10), filled(&store, "other", 1, 3));
    let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
    advance(&mut consumer, 4);
    advance(&mut other.consumer("group").max_poll_records(1).at_least_once().unwrap(), 1);
    drop((consumer, log, other));
    store.close().unwrap();
    let path = dir.path().join("logs/log/0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let store = in_cache().open(dir.path()).unwrap();
    let lags: Vec<u64> = store.group("group").placemarks().unwrap().iter().map(|at| at.lag).collect();
    assert_eq!(lags, [6, 2]);
    let mut consumer = store.log("log").unwrap().consumer("group").at_least_once().unwrap();
    assert_eq!(consumer.lag().unwrap()[0].records, 6);
    assert!(matches!(consumer.poll(Duration::ZERO), Err(Error::Corrupt { .. })));
}
