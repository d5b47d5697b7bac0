//! Placemarks of groups: committing, seeking, positions, lag, resets, and what comes again.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use placemark::{AtLeastOnce, Batch, Consumer, Entry, Error, Log, LogOptions, Record, ResetTo, StartAt, Store};

use common::{SHORT, WAIT, files, in_cache, options, scratch, within};

fn store(dir: &tempfile::TempDir) -> Store {
    in_cache().open(dir.path()).unwrap()
}

/// A log of one partition with so many records; the one at an offset has it as its time in seconds.
fn filled(store: &Store, name: &str, records: u64) -> Log {
    let log = store.log(name).unwrap();
    append(&log, 0..records);
    log
}

fn append(log: &Log, numbers: std::ops::Range<u64>) {
    for number in numbers {
        log.append(Record::new(number.to_be_bytes().to_vec()).timestamp(time(number))).unwrap();
    }
}

fn time(number: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + number)
}

fn member(log: &Log, group: &str, records: usize) -> Consumer<AtLeastOnce> {
    log.consumer(group).max_poll_records(records).at_least_once().unwrap()
}

fn take<M>(consumer: &mut Consumer<M>) -> Batch<M> {
    consumer.poll(WAIT).unwrap().expect("there are records to deliver")
}

fn nothing<M>(consumer: &mut Consumer<M>) -> bool {
    consumer.poll(Duration::ZERO).unwrap().is_none()
}

/// Records, and bytes, that a consumer has still to read.
fn lag<M>(consumer: &Consumer<M>) -> (u64, u64) {
    let lag = consumer.lag().unwrap();
    (lag.iter().map(|it| it.records).sum(), lag.iter().map(|it| it.bytes).sum())
}

fn placemark(store: &Store, group: &str) -> Option<u64> {
    let placemarks = store.group(group).placemarks().unwrap();
    assert!(placemarks.len() <= 1, "{placemarks:?}");
    placemarks.first().map(|placemark| placemark.offset)
}

#[test]
fn a_commit_is_found_again_also_after_reopening_and_an_unknown_group_has_none() {
    let dir = scratch();
    let store1 = store(&dir);
    let log = filled(&store1, "orders", 10);
    assert!(store1.groups().unwrap().is_empty());
    assert!(store1.group("billing").placemarks().unwrap().is_empty());
    let mut consumer = member(&log, "billing", 4);
    assert_eq!(consumer.committed(0), None);
    let batch = take(&mut consumer);
    assert_eq!((batch.partition(), batch.offsets(), batch.len(), batch.skipped()), (0, 0..4, 4, 0));
    assert_eq!(batch.iter().map(Entry::offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!((&batch).into_iter().all(|entry| entry.value() == entry.offset().to_be_bytes()));
    let next = batch.placemark();
    assert_eq!((&*next.group, &*next.log, next.partition, next.offset), ("billing", "orders", 0, 4));
    let before = SystemTime::now();
    batch.commit().unwrap();
    assert_eq!((consumer.committed(0), consumer.committed(1), consumer.position(1)), (Some(4), None, None));
    drop((consumer, log));
    store1.close().unwrap();

    let store2 = store(&dir);
    assert_eq!(store2.groups().unwrap(), ["billing"]);
    let found = store2.group("billing").placemarks().unwrap();
    assert_eq!(found.len(), 1);
    let found = &found[0];
    assert_eq!((&*found.log, found.partition, found.offset, found.end, found.lag), ("orders", 0, 4, 10, 6));
    assert!(found.committed_at >= before - SHORT && found.committed_at <= SystemTime::now());
    assert_eq!(take(&mut member(&store2.log("orders").unwrap(), "billing", 10)).offsets(), 4..10);
}

#[test]
fn a_batch_is_as_large_as_was_asked_whatever_the_frames_are() {
    let dir = scratch();
    let log = store(&dir).log("orders").unwrap();
    log.append_batch((0..10_u8).map(|number| vec![number; 100_000])).unwrap();
    let mut consumer = member(&log, "group", 1);
    for offset in 0..10 {
        let batch = take(&mut consumer);
        assert_eq!((batch.offsets(), batch.len()), (offset..offset + 1, 1));
        assert_eq!(batch.iter().next().unwrap().value().len(), 100_000);
        batch.commit().unwrap();
    }
    assert!(nothing(&mut consumer));
}

#[test]
fn position_seek_and_commit_are_three_things() {
    let dir = scratch();
    let store = store(&dir);
    let log = filled(&store, "orders", 20);
    let mut consumer = member(&log, "group", 5);
    take(&mut consumer).commit().unwrap();
    assert_eq!((consumer.position(0), consumer.committed(0)), (Some(5), Some(5)));
    let ahead = take(&mut consumer);
    assert_eq!((consumer.position(0), consumer.committed(0)), (Some(10), Some(5)));
    ahead.commit().unwrap();
    consumer.seek(0, StartAt::Offset(2)).unwrap();
    assert_eq!((consumer.position(0), consumer.committed(0)), (Some(2), Some(10)), "seeking does not commit");
    assert_eq!(placemark(&store, "group"), Some(10));
    let batch = take(&mut consumer);
    assert_eq!(batch.offsets(), 2..7);
    batch.commit().unwrap();
    assert_eq!(consumer.committed(0), Some(7), "the gapless prefix counts from where it sought");
    consumer.seek(0, StartAt::Time(time(15))).unwrap();
    assert_eq!(take(&mut consumer).offsets(), 15..20);
    consumer.seek(0, StartAt::Earliest).unwrap();
    assert_eq!(take(&mut consumer).offsets(), 0..5);
    consumer.seek(0, StartAt::Latest).unwrap();
    assert!(nothing(&mut consumer));
    let refused = consumer.seek(0, StartAt::Offset(21)).unwrap_err();
    assert!(matches!(refused, Error::OffsetOutOfRange { requested: 21, start: 0, end: 20 }), "{refused}");
    assert_eq!(consumer.committed(0), Some(7));
}

#[test]
fn after_a_seek_nothing_that_was_fetched_before_is_returned() {
    let dir = scratch();
    let log = filled(&store(&dir), "orders", 100);
    let mut consumer = member(&log, "group", 10);
    drop(take(&mut consumer));
    consumer.seek(0, StartAt::Offset(50)).unwrap();
    let batch = take(&mut consumer);
    assert_eq!(batch.offsets(), 50..60, "what was dropped before the seek is forgotten");
    batch.commit().unwrap();
    assert_eq!(consumer.committed(0), Some(60));
}

#[test]
fn batches_settled_out_of_order_move_the_placemark_over_the_gapless_prefix_only() {
    let dir = scratch();
    let store = store(&dir);
    let log = filled(&store, "orders", 25);
    let mut consumer = member(&log, "group", 5);
    let mut batches: Vec<_> = (0..5).map(|_| Some(take(&mut consumer))).collect();
    let mut settle = |number: usize| {
        let batch = batches[number].take().unwrap();
        thread::spawn(move || batch.commit()).join().unwrap().unwrap();
        placemark(&store, "group").unwrap_or(0)
    };
    assert_eq!([3, 1, 0, 4, 2].map(&mut settle), [0, 0, 10, 10, 25]);
    assert_eq!(consumer.committed(0), Some(25));
}

#[test]
fn a_dropped_batch_comes_first_at_the_next_poll() {
    let dir = scratch();
    let store = store(&dir);
    let log = filled(&store, "orders", 20);
    let mut consumer = member(&log, "group", 5);
    let first = take(&mut consumer);
    let second = take(&mut consumer);
    drop(first);
    second.commit().unwrap();
    assert_eq!(placemark(&store, "group").unwrap_or(0), 0, "what was dropped is a gap");
    let again = take(&mut consumer);
    assert_eq!(again.offsets(), 0..5);
    again.commit().unwrap();
    assert_eq!(placemark(&store, "group"), Some(10));
    assert_eq!(take(&mut consumer).offsets(), 10..15);
}

#[test]
fn a_batch_that_a_panic_dropped_is_delivered_again() {
    let dir = scratch();
    let log = filled(&store(&dir), "orders", 5);
    let mut consumer = member(&log, "group", 5);
    let batch = take(&mut consumer);
    let handler = panic::catch_unwind(AssertUnwindSafe(move || {
        assert_eq!(batch.len(), 0, "the handler fails on purpose");
        batch.commit().unwrap();
    }));
    assert!(handler.is_err());
    let again = take(&mut consumer);
    assert_eq!(again.offsets(), 0..5);
    again.commit().unwrap();
    assert!(nothing(&mut consumer));
}

#[test]
fn an_at_most_once_batch_is_committed_before_it_is_seen() {
    let dir = scratch();
    let store1 = store(&dir);
    let log = filled(&store1, "orders", 10);
    let mut consumer = log.consumer("group").max_poll_records(4).at_most_once().unwrap();
    let batch = take(&mut consumer);
    assert_eq!(batch.offsets(), 0..4);
    assert_eq!(placemark(&store1, "group"), Some(4));
    let killed = files::image(dir.path());
    drop(batch);
    assert_eq!(take(&mut consumer).offsets(), 4..8, "a dropped batch does not come again");
    let log = in_cache().open(killed.path()).unwrap().log("orders").unwrap();
    let mut consumer = log.consumer("group").max_poll_records(4).at_most_once().unwrap();
    assert_eq!(take(&mut consumer).offsets(), 4..8, "nor after a crash");
}

#[test]
fn groups_do_not_influence_each_other_and_start_where_they_are_told() {
    let dir = scratch();
    let store = store(&dir);
    let log = filled(&store, "orders", 10);
    let other = filled(&store, "other", 10);
    take(&mut member(&log, "a", 3)).commit().unwrap();
    take(&mut member(&log, "b", 7)).commit().unwrap();
    take(&mut member(&other, "a", 1)).commit().unwrap();
    let start = |group: &str, at: StartAt| log.consumer(group).start_at(at).max_poll_records(100).at_least_once();
    assert_eq!(take(&mut start("a", StartAt::Latest).unwrap()).offsets(), 3..10, "a placemark wins");
    assert_eq!(take(&mut start("b", StartAt::Earliest).unwrap()).offsets(), 7..10);
    assert_eq!(take(&mut start("c", StartAt::Earliest).unwrap()).offsets(), 0..10);
    assert_eq!(take(&mut start("d", StartAt::Offset(6)).unwrap()).offsets(), 6..10);
    assert_eq!(take(&mut start("e", StartAt::Time(time(8))).unwrap()).offsets(), 8..10);
    assert!(nothing(&mut start("f", StartAt::Latest).unwrap()));
    let placemarks = store.group("a").placemarks().unwrap();
    let found: Vec<_> = placemarks.iter().map(|it| (&*it.log, it.offset)).collect();
    assert_eq!(found, [("orders", 3), ("other", 1)]);
    assert_eq!(store.groups().unwrap(), ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn joining_fixes_where_a_group_starts() {
    let dir = scratch();
    let store1 = store(&dir);
    let log = filled(&store1, "orders", 10);
    let latest = |log: &Log| log.consumer("late").start_at(StartAt::Latest).at_least_once().unwrap();
    drop(latest(&log));
    append(&log, 10..12);
    drop(log);
    store1.close().unwrap();
    let log = store(&dir).log("orders").unwrap();
    append(&log, 12..13);
    assert_eq!(take(&mut latest(&log)).offsets(), 10..13, "nothing that came since it joined is passed over");
}

#[test]
fn partitions_added_later_start_at_0_and_reach_live_members() {
    let dir = scratch();
    let store = store(&dir);
    let log = filled(&store, "orders", 3);
    let mut consumer = log.consumer("group").start_at(StartAt::Latest).at_least_once().unwrap();
    assert_eq!(consumer.assignment(), [0]);
    let grown = store.log_with("orders", LogOptions::new().partitions(2)).unwrap();
    grown.partition(1).unwrap().append("new").unwrap();
    let batch = take(&mut consumer);
    assert_eq!((batch.partition(), batch.offsets()), (1, 0..1));
    batch.commit().unwrap();
    let mut assignment = consumer.assignment();
    assignment.sort_unstable();
    assert_eq!(assignment, [0, 1]);
}

#[test]
fn a_paused_partition_yields_nothing_and_loses_nothing() {
    let dir = scratch();
    let log = store(&dir).log_with("orders", LogOptions::new().partitions(2)).unwrap();
    for partition in 0..2 {
        log.partition(partition).unwrap().append_batch((0..10).map(|number| format!("{number}"))).unwrap();
    }
    let mut consumer = member(&log, "group", 2);
    let first = take(&mut consumer);
    let (paused, start) = (first.partition(), first.offsets().end);
    first.commit().unwrap();
    consumer.pause(paused).unwrap();
    let mut seen = 0;
    while let Some(batch) = consumer.poll(Duration::ZERO).unwrap() {
        assert_ne!(batch.partition(), paused, "what was fetched before the pause is not returned");
        seen += batch.len();
        batch.commit().unwrap();
    }
    assert_eq!(seen, 10);
    assert!(consumer.poll(SHORT).unwrap().is_none());
    consumer.resume(paused).unwrap();
    let batch = take(&mut consumer);
    assert_eq!((batch.partition(), batch.offsets().start), (paused, start));
}

#[test]
fn a_stopper_ends_a_blocked_poll_or_the_next_one_once_and_loses_nothing() {
    within(WAIT, || {
        let dir = scratch();
        let log = store(&dir).log("orders").unwrap();
        let mut consumer = member(&log, "group", 5);
        let stopper = consumer.stopper();
        let polling = thread::spawn(move || {
            let polled = consumer.poll(WAIT * 2);
            (consumer, polled)
        });
        // Whether it polls already or not yet, it must end.
        thread::sleep(SHORT);
        let asked = Instant::now();
        stopper.stop();
        let (mut consumer, polled) = polling.join().unwrap();
        assert!(polled.unwrap().is_none());
        assert!(asked.elapsed() < WAIT / 3);
        stopper.stop();
        let asked = Instant::now();
        assert!(consumer.poll(WAIT * 2).unwrap().is_none(), "the next one, when none is blocked");
        assert!(asked.elapsed() < WAIT / 3);
        log.append("record").unwrap();
        assert_eq!(take(&mut consumer).offsets(), 0..1);
    });
}

#[test]
fn a_blocked_poll_is_woken_by_a_record() {
    within(WAIT, || {
        let dir = scratch();
        let log = store(&dir).log_with("orders", LogOptions::new().partitions(3)).unwrap();
        let mut consumer = member(&log, "group", 5);
        let asked = Instant::now();
        assert!(consumer.poll(SHORT).unwrap().is_none());
        assert!(asked.elapsed() >= SHORT);
        let polling = thread::spawn(move || take(&mut consumer).partition());
        thread::sleep(SHORT);
        let appended = Instant::now();
        log.partition(2).unwrap().append("record").unwrap();
        assert_eq!(polling.join().unwrap(), 2);
        assert!(appended.elapsed() < WAIT / 3);
    });
}

#[test]
fn lag_counts_what_can_be_delivered_and_reaches_0() {
    fn age(age: impl Into<Option<Duration>>) -> Option<Duration> {
        age.into()
    }
    let dir = scratch();
    let store = store(&dir);
    let log = store.log("orders").unwrap();
    let mut consumer = member(&log, "group", 6);
    assert_eq!(lag(&consumer), (0, 0));
    for _ in 0..10 {
        log.append(vec![1; 100]).unwrap();
    }
    let (records, bytes) = lag(&consumer);
    assert_eq!(records, 10);
    assert!((1000..=10 * 164).contains(&bytes), "{bytes}");
    let measured = consumer.lag().unwrap();
    assert_eq!((measured.len(), measured[0].partition), (1, 0));
    assert!(age(measured[0].age).unwrap() < WAIT);
    take(&mut consumer).commit().unwrap();
    assert_eq!(lag(&consumer).0, 4);
    assert_eq!(store.group("group").placemarks().unwrap()[0].lag, 4);
    take(&mut consumer).commit().unwrap();
    assert_eq!(lag(&consumer), (0, 0));
    assert!(age(consumer.lag().unwrap()[0].age).is_none_or(|age| age.is_zero()));
    assert_eq!(store.group("group").placemarks().unwrap()[0].lag, 0);
}

#[test]
fn lag_counts_what_was_dropped_and_not_what_is_in_other_hands() {
    let dir = scratch();
    let log = filled(&store(&dir), "orders", 10);
    let mut consumer = member(&log, "group", 3);
    let [first, second] = [take(&mut consumer), take(&mut consumer)];
    assert_eq!(lag(&consumer).0, 4);
    drop(first);
    assert_eq!(lag(&consumer).0, 3 + 4, "what is in flight behind what was dropped is no lag");
    second.commit().unwrap();
    assert_eq!(lag(&consumer).0, 3 + 4);
    take(&mut consumer).commit().unwrap();
    assert_eq!(lag(&consumer).0, 4);
}

#[test]
fn a_reset_is_refused_while_the_group_is_active_and_says_from_where_to_where() {
    let dir = scratch();
    let store1 = store(&dir);
    let log = filled(&store1, "orders", 10);
    let group = store1.group("group");
    let mut consumer = member(&log, "group", 4);
    let batch = take(&mut consumer);
    assert!(matches!(group.reset(&log, ResetTo::Earliest), Err(Error::GroupActive { .. })));
    drop(consumer);
    assert!(matches!(group.reset(&log, ResetTo::Earliest), Err(Error::GroupActive { .. })), "a batch is in flight");
    batch.commit().unwrap();
    assert_eq!(placemark(&store1, "group"), Some(4), "neither changed anything");
    let mut from = 4;
    let steps = [
        (ResetTo::Latest, 10),
        (ResetTo::ShiftBy(-3), 7),
        (ResetTo::ShiftBy(2), 9),
        (ResetTo::ShiftBy(100), 10),
        (ResetTo::ShiftBy(i64::MIN), 0),
        (ResetTo::ShiftBy(i64::MAX), 10),
        (ResetTo::Offset(6), 6),
        (ResetTo::Offset(1000), 10),
        (ResetTo::Time(time(3)), 3),
        (ResetTo::Time(time(1000)), 10),
        (ResetTo::Earliest, 0),
        (ResetTo::Offset(5), 5),
    ];
    for (to, expected) in steps {
        let moved = group.reset(&log, to).unwrap();
        assert_eq!(moved.len(), 1);
        assert_eq!((moved[0].partition, moved[0].from, moved[0].to), (0, from, expected), "{to:?}");
        assert_eq!(placemark(&store1, "group"), Some(expected));
        from = expected;
    }
    assert_eq!(take(&mut member(&log, "group", 100)).offsets(), 5..10);
    drop((group, log));
    store1.close().unwrap();
    let log = store(&dir).log("orders").unwrap();
    assert_eq!(take(&mut member(&log, "group", 100)).offsets(), 5..10);
}

#[test]
fn a_deleted_group_is_unknown_and_starts_anew() {
    let dir = scratch();
    let store1 = store(&dir);
    let log = filled(&store1, "orders", 10);
    for group in ["gone", "kept"] {
        take(&mut member(&log, group, 4)).commit().unwrap();
    }
    let active = member(&log, "gone", 1);
    assert!(matches!(store1.group("gone").delete(), Err(Error::GroupActive { .. })));
    drop(active);
    store1.group("gone").delete().unwrap();
    assert_eq!(store1.groups().unwrap(), ["kept"]);
    assert!(store1.group("gone").placemarks().unwrap().is_empty());
    drop(log);
    store1.close().unwrap();
    let store2 = store(&dir);
    assert_eq!(store2.groups().unwrap(), ["kept"]);
    let log = store2.log("orders").unwrap();
    assert_eq!(take(&mut member(&log, "kept", 100)).offsets(), 4..10);
    assert_eq!(take(&mut member(&log, "gone", 100)).offsets(), 0..10);
}

#[test]
fn placemarks_follow_the_durability_of_the_store() {
    let dir = scratch();
    let store = options().open(dir.path()).unwrap();
    let log = filled(&store, "orders", 50);
    let mut consumer = member(&log, "group", 1);
    for number in 1..=50 {
        take(&mut consumer).commit().unwrap();
        if number % 10 == 0 {
            let killed = files::image(dir.path());
            let store = options().open(killed.path()).unwrap();
            assert_eq!(placemark(&store, "group"), Some(number));
            assert_eq!(store.recovery().cut_bytes(), 0);
        }
    }
}
