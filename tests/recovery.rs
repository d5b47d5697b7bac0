//! Opening after a kill: a torn tail is cut and reported, damage in what was durable is refused and never cut.
//!
//! A copy of a store that is open is what a process killed at that moment leaves.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as the tests do"
)]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use placemark::{Durability, Error, LogOptions, Partition, RecoveryMode, StartAt, Store, StoreOptions};
use tempfile::TempDir;

use common::{Numbers, WAIT, files, in_cache, offsets, options, scratch, values};

fn value(number: u64) -> Vec<u8> {
    format!("value {number} ").into_bytes()
}

/// A killed store, whose log `orders` has `count` records and `other` has one.
fn killed(options: StoreOptions, count: u64) -> TempDir {
    let dir = scratch();
    let store = options.open(dir.path()).unwrap();
    let partition = store.log("orders").unwrap().partition(0).unwrap();
    for number in 0..count {
        partition.append(value(number)).unwrap();
    }
    store.log("other").unwrap().append("other").unwrap();
    files::image(dir.path())
}

fn only_segment(dir: &Path) -> PathBuf {
    files::segments(&files::partition(dir, "orders", 0)).remove(0)
}

fn orders(store: &Store) -> Result<Partition, Error> {
    store.open_log("orders")?.partition(0)
}

/// Whether the partition has the first `kept` records and goes on behind them, now and after opening again.
fn check_goes_on(dir: &Path, store: &Store, kept: u64) {
    let partition = orders(store).unwrap();
    let mut expected: Vec<_> = (0..kept).map(value).collect();
    assert_eq!(values(partition.read(StartAt::Earliest).unwrap()), expected);
    let next = partition.append("after").unwrap();
    assert!(next >= kept, "offset {next} was given to a second record");
    expected.push(b"after".to_vec());
    assert_eq!(values(partition.read(StartAt::Earliest).unwrap()), expected);
    drop(partition);
    store.close().unwrap();
    let store = options().open(dir).unwrap();
    assert_eq!(values(orders(&store).unwrap().read(StartAt::Earliest).unwrap()), expected);
    assert_eq!(store.recovery().cut_bytes(), 0, "what was cut does not come back");
}

/// The error that opening `orders` and reading all of it comes to.
fn damage(store: &Store) -> (PathBuf, u64) {
    let failed = orders(store).and_then(|partition| {
        partition.read(StartAt::Earliest)?.map(|entry| entry.map(drop)).collect::<Result<Vec<()>, Error>>()
    });
    match failed {
        Err(Error::Corrupt { path, position, .. }) => (path, position),
        other => panic!("not corrupt: {other:?}"),
    }
}

#[test]
fn a_killed_store_has_every_record_and_cuts_nothing() {
    for durability in [Durability::Os, Durability::Sync] {
        let dir = killed(options().durability(durability), 10);
        let store = options().open(dir.path()).unwrap();
        check_goes_on(dir.path(), &store, 10);
    }
}

#[test]
fn garbage_from_any_byte_of_the_unsynced_tail_keeps_exactly_the_records_before_it() {
    let source = killed(in_cache(), 5);
    let segment = only_segment(source.path());
    let frames = files::frames(&segment);
    let end = frames.last().unwrap().end.next_multiple_of(8);
    let original = fs::read(&segment).unwrap();
    for at in files::FIRST_FRAME..=end {
        let dir = files::image(source.path());
        let segment = only_segment(dir.path());
        let kept = frames.iter().take_while(|frame| frame.end <= at).count() as u64;
        // Every byte is another one than it was.
        let from = usize::try_from(at).unwrap();
        let mut garbage = Numbers::new(at).bytes(300);
        for (byte, before) in garbage.iter_mut().zip(&original[from..]) {
            *byte = if *byte == *before { !*byte } else { *byte };
        }
        files::overwrite(&segment, at, &garbage);
        let store = in_cache().open(dir.path()).unwrap();
        orders(&store).unwrap_or_else(|error| panic!("garbage from {at}: {error}"));
        let cut = store.recovery().cut_bytes();
        assert!((1..=300 + 64).contains(&cut), "garbage from {at}: {cut} bytes cut");
        check_goes_on(dir.path(), &store, kept);
    }
}

#[test]
fn a_tail_that_ends_at_any_byte_keeps_exactly_the_records_before_it() {
    let source = killed(in_cache(), 4);
    let frames = files::frames(&only_segment(source.path()));
    for at in files::FIRST_FRAME..=frames[3].end {
        for shorter in [false, true] {
            let dir = files::image(source.path());
            let segment = only_segment(dir.path());
            let len = fs::metadata(&segment).unwrap().len();
            if shorter {
                files::truncate(&segment, at);
            } else {
                files::zero(&segment, at..len);
            }
            let store = in_cache().open(dir.path()).unwrap();
            orders(&store).unwrap_or_else(|error| panic!("ends at {at}: {error}"));
            // The last bytes of a value may be zeros and all there; these are not.
            let kept = frames.iter().take_while(|frame| frame.end <= at).count() as u64;
            check_goes_on(dir.path(), &store, kept);
        }
    }
}

#[test]
fn a_batch_is_cut_as_a_whole() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let partition = store.log("orders").unwrap().partition(0).unwrap();
    partition.append_batch((0..3).map(value)).unwrap();
    partition.append_batch((3..40).map(value)).unwrap();
    let frame = files::frames(&only_segment(dir.path())).pop().unwrap();
    for at in [frame.start, frame.start + 28, u64::midpoint(frame.start, frame.end), frame.end - 1] {
        let dir = files::image(dir.path());
        files::flip(&only_segment(dir.path()), at);
        let store = in_cache().open(dir.path()).unwrap();
        orders(&store).unwrap();
        assert_eq!(store.recovery().cut_bytes(), frame.end - frame.start);
        check_goes_on(dir.path(), &store, 3);
    }
}

#[test]
fn a_page_lost_in_the_middle_of_an_unsynced_tail_is_no_corruption() {
    let source = killed(in_cache(), 400);
    let frames = files::frames(&only_segment(source.path()));
    assert!(frames.last().unwrap().end > 12 << 10);
    for page in [4096..8192, 8192..12288] {
        let dir = files::image(source.path());
        files::zero(&only_segment(dir.path()), page.clone());
        let store = in_cache().open(dir.path()).unwrap();
        orders(&store).unwrap();
        assert!(store.recovery().cut_bytes() > 0);
        let kept = frames.iter().take_while(|frame| frame.end <= page.start).count() as u64;
        check_goes_on(dir.path(), &store, kept);
    }
}

/// A record whose value holds frames that were valid elsewhere, at the very positions that they had there.
fn nested(durability: Durability) -> (TempDir, Vec<u8>) {
    let dir = scratch();
    let store = options().durability(durability).open(dir.path()).unwrap();
    let other = store.log("other").unwrap();
    for number in 0..200 {
        other.append(value(number)).unwrap();
    }
    let bytes = fs::read(&files::segments(&files::partition(dir.path(), "other", 0))[0]).unwrap();
    let partition = store.log("orders").unwrap().partition(0).unwrap();
    partition.append(value(0)).unwrap();
    let start = files::frames(&only_segment(dir.path()))[0].end.next_multiple_of(8) + 36;
    let embedded = bytes[usize::try_from(start).unwrap()..8192].to_vec();
    assert_eq!(partition.append(&embedded).unwrap(), 1);
    partition.append(value(2)).unwrap();
    (files::image(dir.path()), embedded)
}

#[test]
fn a_record_that_holds_the_bytes_of_frames_is_no_frame() {
    let (dir, embedded) = nested(Durability::Os);
    let frame = files::frames(&only_segment(dir.path()))[1].clone();
    let intact = files::image(dir.path());
    let store = in_cache().open(intact.path()).unwrap();
    let expected = [value(0), embedded, value(2)];
    assert_eq!(values(orders(&store).unwrap().read(StartAt::Earliest).unwrap()), expected);
    assert_eq!(store.recovery().cut_bytes(), 0);
    // Without its own header the record is garbage that looks much like frames.
    files::zero(&only_segment(dir.path()), frame.start..frame.start + 28);
    let store = in_cache().open(dir.path()).unwrap();
    orders(&store).unwrap();
    assert!(store.recovery().cut_bytes() > 4096);
    check_goes_on(dir.path(), &store, 1);
}

#[test]
fn a_whole_segment_inside_a_record_is_no_segment() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let partition = store.log("orders").unwrap().partition(0).unwrap();
    for number in 0..50 {
        partition.append(value(number)).unwrap();
    }
    let bytes = fs::read(only_segment(dir.path())).unwrap();
    // Aligned as frames are: the value begins four bytes past a multiple of eight.
    let record = [&[0; 4][..], &bytes[..8192]].concat();
    assert_eq!(partition.append(&record).unwrap(), 50);
    partition.append(value(51)).unwrap();
    let killed = files::image(dir.path());
    let segment = only_segment(killed.path());
    let frame = files::frames(&segment)[50].clone();
    files::zero(&segment, frame.start..frame.start + 28);
    let store = in_cache().open(killed.path()).unwrap();
    orders(&store).unwrap();
    check_goes_on(killed.path(), &store, 50);
}

#[test]
fn a_frame_from_earlier_in_the_segment_does_not_pass_at_another_place() {
    let dir = killed(in_cache(), 10);
    let segment = only_segment(dir.path());
    let frames = files::frames(&segment);
    let bytes = fs::read(&segment).unwrap();
    let range = |frame: &Range<u64>| usize::try_from(frame.start).unwrap()..usize::try_from(frame.end).unwrap();
    files::overwrite(&segment, frames[7].start, &bytes[range(&frames[6])]);
    let store = in_cache().open(dir.path()).unwrap();
    orders(&store).unwrap();
    check_goes_on(dir.path(), &store, 7);
}

#[test]
fn damage_below_the_durable_point_of_a_killed_store_is_corrupt_and_nothing_is_cut() {
    let source = killed(options().durability(Durability::Sync), 10);
    let frames = files::frames(&only_segment(source.path()));
    for number in [0_usize, 3, 6] {
        let frame = &frames[number];
        // Length, checksum, offset, record count, value, and all of it.
        for at in [0, 4, 8, 25, 37, frame.end - frame.start - 1].map(|within| frame.start + within) {
            let dir = files::image(source.path());
            let segment = only_segment(dir.path());
            files::flip(&segment, at);
            let before = fs::read(&segment).unwrap();
            let store = options().open(dir.path()).unwrap();
            let (path, position) = damage(&store);
            assert_eq!(path, segment);
            assert!((frame.start..frame.end).contains(&position), "bit at {at}, reported at {position}");
            let other = store.open_log("other").unwrap();
            assert_eq!(values(other.read(StartAt::Earliest).unwrap()), [b"other"]);
            other.append("more").unwrap();
            drop((other, store));
            // Nothing of that made the damage go away.
            assert_eq!(damage(&options().open(dir.path()).unwrap()).0, segment);
            let after = fs::read(&segment).unwrap();
            assert!(after.starts_with(&before[..usize::try_from(frames[9].end).unwrap()]), "a record was cut");
        }
    }
}

#[test]
fn a_page_lost_below_the_durable_point_is_corrupt() {
    let dir = killed(options().durability(Durability::Sync), 300);
    let segment = only_segment(dir.path());
    files::zero(&segment, 4096..8192);
    let (path, position) = damage(&options().open(dir.path()).unwrap());
    assert_eq!(path, segment);
    assert!((4000..8192).contains(&position), "{position}");
}

#[test]
fn salvage_skips_exactly_the_damaged_frames_lists_them_and_goes_on() {
    let dir = killed(options().durability(Durability::Sync), 10);
    let segment = only_segment(dir.path());
    let frames = files::frames(&segment);
    for number in [2_usize, 5] {
        files::flip(&segment, frames[number].start + 40);
    }
    for expected in [0..10, 0..11] {
        let salvage = || options().recovery_mode(RecoveryMode::Salvage);
        let store = salvage().open(dir.path()).unwrap();
        let partition = orders(&store).unwrap();
        let readable: Vec<_> = expected.clone().filter(|offset| ![2, 5].contains(offset)).collect();
        assert_eq!(offsets(partition.read(StartAt::Earliest).unwrap()), readable);
        assert_eq!(offsets(partition.read(StartAt::Offset(2)).unwrap()), readable[2..]);
        let listed = store.recovery().damage();
        assert_eq!(listed.len(), 2, "{listed:?}");
        assert!(format!("{listed:?}").contains(segment.file_name().unwrap().to_str().unwrap()), "{listed:?}");
        assert_eq!(partition.append(value(expected.end)).unwrap(), expected.end);
        drop(partition);
        store.close().unwrap();
    }
    // Salvage mends nothing in secret: to those who did not ask for it the damage still shows.
    assert_eq!(damage(&options().open(dir.path()).unwrap()).0, segment);
}

#[test]
fn salvage_keeps_what_is_left_of_a_segment_that_was_cut_and_goes_on_behind_it() {
    for close in [true, false] {
        let source = scratch();
        let store = options().durability(Durability::Sync).open(source.path()).unwrap();
        let partition = store.log("orders").unwrap().partition(0).unwrap();
        for number in 0..10 {
            partition.append(value(number)).unwrap();
        }
        store.sync().unwrap();
        drop(partition);
        let killed = files::image(source.path());
        store.close().unwrap();
        let dir = if close { source } else { killed };
        let segment = only_segment(dir.path());
        let frame = files::frames(&segment)[6].clone();
        files::truncate(&segment, frame.start + 10);
        assert_eq!(damage(&options().open(dir.path()).unwrap()).0, segment);

        let store = options().recovery_mode(RecoveryMode::Salvage).open(dir.path()).unwrap();
        let partition = orders(&store).unwrap();
        let expected: Vec<_> = (0..6).map(value).collect();
        assert_eq!(values(partition.read(StartAt::Earliest).unwrap()), expected);
        assert_eq!(values(partition.read(StartAt::Offset(4)).unwrap()), expected[4..]);
        let listed = store.recovery().damage();
        assert_eq!(listed.iter().map(|damage| damage.offsets.clone()).collect::<Vec<_>>(), vec![6..10], "{listed:?}");
        assert_eq!(partition.append(value(10)).unwrap(), 10);
        let read = offsets(partition.read(StartAt::Earliest).unwrap());
        assert_eq!(read, [0, 1, 2, 3, 4, 5, 10]);
        drop(partition);
        store.close().unwrap();
        // What is missing is missing for those who did not ask to go on without it, and the rest is there.
        let store = options().open(dir.path()).unwrap();
        assert_eq!(damage(&store), (segment, frame.start));
        assert_eq!(values(orders(&store).unwrap().read(StartAt::Offset(10)).unwrap()), [value(10)]);
    }
}

#[test]
fn damage_in_a_sealed_segment_is_met_by_the_read_and_the_rest_goes_on() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let partition = store.log_with("orders", LogOptions::new().segment_bytes(64 << 10)).unwrap().partition(0).unwrap();
    for number in 0..400_u64 {
        partition.append(number.to_be_bytes().repeat(100)).unwrap();
    }
    drop(partition);
    store.close().unwrap();
    let segment = files::segments(&files::partition(dir.path(), "orders", 0)).remove(1);
    let base = files::base(&segment);
    let frame = files::frames(&segment)[2].clone();
    files::flip(&segment, frame.start + 50);

    let store = in_cache().open(dir.path()).unwrap();
    let partition = orders(&store).unwrap();
    let mut reader = partition.read(StartAt::Earliest).unwrap();
    assert_eq!(reader.by_ref().map_while(Result::ok).count() as u64, base + 2);
    for _ in 0..3 {
        match reader.next() {
            Some(Err(Error::Corrupt { path, position, .. })) => {
                assert_eq!(path, segment);
                assert!((frame.start..frame.end).contains(&position), "{position}");
            }
            other => panic!("{other:?}"),
        }
    }
    let behind = offsets(partition.read(StartAt::Offset(base + 3)).unwrap());
    assert_eq!(behind, (base + 3..400).collect::<Vec<_>>());
    assert_eq!(partition.append("goes on").unwrap(), 400);
    let mut consumer = store.log("orders").unwrap().consumer("group").max_poll_records(7).at_least_once().unwrap();
    let mut next = 0;
    let error = loop {
        match consumer.poll(WAIT) {
            Ok(batch) => {
                let batch = batch.unwrap();
                assert_eq!(batch.offsets().start, next);
                next = batch.offsets().end;
                batch.commit().unwrap();
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(next, base + 2, "a consumer neither skips the damage nor stops before it");
    drop((consumer, reader, partition));
    store.close().unwrap();

    let store = in_cache().recovery_mode(RecoveryMode::Salvage).open(dir.path()).unwrap();
    let read = offsets(orders(&store).unwrap().read(StartAt::Earliest).unwrap());
    assert_eq!(read, (0..401).filter(|offset| *offset != base + 2).collect::<Vec<_>>());
    assert_eq!(store.recovery().damage().len(), 1);
}

#[test]
fn an_offset_that_a_placemark_covers_is_not_given_again_when_its_record_was_lost() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("orders").unwrap();
    log.append_batch((0..4).map(value)).unwrap();
    for number in 4..10 {
        log.append(value(number)).unwrap();
    }
    let mut consumer = log.consumer("group").at_least_once().unwrap();
    while consumer.committed(0).is_none_or(|offset| offset < 10) {
        consumer.poll(WAIT).unwrap().unwrap().commit().unwrap();
    }
    let killed = files::image(dir.path());
    let segment = only_segment(killed.path());
    let len = fs::metadata(&segment).unwrap().len();
    files::zero(&segment, files::frames(&segment)[1].start..len);

    let mut placemark = 10;
    for _ in 0..2 {
        let store = in_cache().open(killed.path()).unwrap();
        let log = store.open_log("orders").unwrap();
        let partition = log.partition(0).unwrap();
        assert!(partition.end_offset() >= placemark);
        assert_eq!(store.group("group").placemarks().unwrap()[0].offset, placemark);
        let mut consumer = log.consumer("group").at_least_once().unwrap();
        let offset = partition.append("new").unwrap();
        let batch = consumer.poll(WAIT).unwrap().unwrap();
        assert_eq!((batch.offsets().end, batch.len()), (offset + 1, 1));
        placemark = batch.offsets().end;
        batch.commit().unwrap();
        let read = offsets(partition.read(StartAt::Earliest).unwrap());
        assert_eq!(read[..4], [0, 1, 2, 3]);
        assert_eq!(offsets(partition.read(StartAt::Offset(7)).unwrap()), read[4..], "reading goes over the gap");
    }
}
