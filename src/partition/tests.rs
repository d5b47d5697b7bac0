//! The engine over the real disk, and over files that were damaged in ways that only bytes of our own making show.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Env, Floor, Kept, PartitionCore, Settings};
use crate::format::{FRAME_HEADER, FrameHeader, FrameStamp, Ident, Seed, seal_frame};
use crate::segment::index_path;
use crate::storage::{Disk, Signal, SimDisk};
use crate::types::{LogId, Pos};
use crate::{Durability, Error, Log, Record, RecoveryMode, StartAt, Store, WriteMode};

const IDENT: Ident = Ident { store: 7, log: LogId(16), partition: 0 };

fn settings(durability: Durability) -> Settings {
    Settings { durability, segment_bytes: 64 << 10, segment_age: None, record_limit: 16 << 20, unsealed: 0 }
}

fn open(dir: &Path, settings: Settings, mode: WriteMode) -> Arc<PartitionCore> {
    let env = Env::new(Arc::new(Disk::new()), 7, dir, RecoveryMode::Strict, mode);
    let at = dir.join("p");
    if !at.exists() {
        PartitionCore::create(&env, IDENT, &at).unwrap();
    }
    PartitionCore::open(&env, IDENT, &at, settings, Arc::new(Signal::default()), &Floor::default()).unwrap()
}

fn values(partition: &Arc<PartitionCore>, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut cursor = partition.cursor(from).unwrap();
    let mut all = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        all.push((entry.offset(), entry.value().to_vec()));
    }
    all
}

#[test]
fn records_come_back_over_rolls_and_reopening() {
    for mode in [WriteMode::Mapped, WriteMode::Pwrite] {
        for durability in [Durability::Os, Durability::Sync] {
            let dir = tempfile::tempdir().unwrap();
            let partition = open(dir.path(), settings(durability), mode);
            for n in 0..3000_u64 {
                assert_eq!(partition.append(&Record::new(format!("record {n}"))).unwrap(), n);
            }
            assert_eq!(values(&partition, 0).len(), 3000);
            assert_eq!(values(&partition, 1234)[0], (1234, b"record 1234".to_vec()));
            partition.close().unwrap();
            let partition = open(dir.path(), settings(durability), mode);
            assert_eq!(partition.end(), 3000);
            assert_eq!(values(&partition, 2999), vec![(2999, b"record 2999".to_vec())]);
            assert_eq!(values(&partition, 0).len(), 3000);
            assert_eq!(partition.append(&Record::new("more")).unwrap(), 3000);
            // Not closed: the next opening recovers.
            drop(partition);
            let partition = open(dir.path(), settings(durability), mode);
            assert_eq!(values(&partition, 2999).len(), 2);
            assert_eq!(partition.end(), 3001);
        }
    }
}

/// A partition on a disk of its own, closed, of one segment of `count` records that was compacted to those whose offset
/// `keep` keeps, with the range of each frame in it.
fn compacted(count: u64, batch: u64, keep: fn(u64) -> bool) -> (SimDisk, PathBuf, Vec<Range<usize>>) {
    let disk = SimDisk::new(1);
    let partition = simulated(&disk, RecoveryMode::Strict);
    for first in (0..count).step_by(usize::try_from(batch).unwrap()) {
        let values: Vec<_> = (first..first + batch).map(|n| format!("record {n}")).collect();
        let records: Vec<_> = values.iter().map(|value| Record::new(value).key("key")).collect();
        partition.append_batch(&records).unwrap();
    }
    partition.roll().unwrap();
    partition.compact(&Kept::new((0..count).filter(|offset| keep(*offset)).collect(), count)).unwrap();
    let path = partition.segments()[0].path.clone();
    partition.close().unwrap();
    let bytes = disk.read_file(&path).unwrap();
    let mut frames = Vec::new();
    let mut at = 64;
    while let Some(header) = bytes.get(at..).and_then(FrameHeader::parse) {
        frames.push(at..at + header.length as usize);
        at = frames.last().unwrap().end.next_multiple_of(8);
    }
    (disk, path, frames)
}

fn simulated(disk: &SimDisk, mode: RecoveryMode) -> Arc<PartitionCore> {
    let env = Env::new(Arc::new(disk.clone()), 7, Path::new("/"), mode, WriteMode::Auto);
    let dir = Path::new("/p");
    if disk.files().is_empty() {
        PartitionCore::create(&env, IDENT, dir).unwrap();
    }
    PartitionCore::open(&env, IDENT, dir, settings(Durability::Os), Arc::new(Signal::default()), &Floor::default())
        .unwrap()
}

fn offsets(partition: &Arc<PartitionCore>, from: u64) -> Result<Vec<u64>, Error> {
    let mut cursor = partition.cursor(from)?;
    let mut all = Vec::new();
    while let Some(entry) = cursor.next()? {
        all.push(entry.offset());
    }
    Ok(all)
}

#[test]
fn a_frame_with_gaps_whose_span_is_damaged_is_met_by_reads_of_its_own_offsets_only() {
    // Of each batch of ten, the first record and the sixth are left.
    let (disk, path, frames) = compacted(50, 10, |offset| offset % 5 == 0);
    let kept: Vec<u64> = (0..50).step_by(5).collect();
    assert_eq!(offsets(&simulated(&disk, RecoveryMode::Strict), 0).unwrap(), kept);
    let whole = disk.read_file(&path).unwrap();
    for bit in 0..32 {
        let mut bytes = whole.clone();
        bytes[frames[2].start + FRAME_HEADER + bit / 8] ^= 1 << (bit % 8);
        disk.write_file(&path, &bytes);
        // Once with the index that was written, once with one that has to be made of the damaged segment.
        for _ in 0..2 {
            let partition = simulated(&disk, RecoveryMode::Strict);
            for wanted in 20..30 {
                let read = offsets(&partition, wanted);
                assert!(matches!(read, Err(Error::Corrupt { .. })), "bit {bit}, from {wanted}: {read:?}");
            }
            for wanted in 30..50 {
                let expected: Vec<u64> = kept.iter().copied().filter(|offset| *offset >= wanted).collect();
                assert_eq!(offsets(&partition, wanted).unwrap(), expected, "bit {bit}, from {wanted}");
            }
            disk.write_file(index_path(&path), b"junk");
        }
    }
}

#[test]
fn a_header_that_is_wrong_and_passes_its_own_check_hides_no_record() {
    let (disk, path, frames) = compacted(50, 10, |offset| offset % 5 == 0);
    let mut bytes = disk.read_file(&path).unwrap();
    let pos = Pos(u32::try_from(frames[2].start).unwrap());
    // As if two bits had been flipped that the check of 16 bits misses: only the checksum tells.
    let header = FrameHeader::parse(&bytes[frames[2].clone()]).unwrap();
    let stamp = FrameStamp {
        offset_delta: header.offset_delta,
        durable: header.durable,
        timestamp: header.timestamp,
        count: header.count,
        span: header.count + 1,
        producer: None,
    };
    let length = seal_frame(&mut bytes[frames[2].clone()], Seed::new(&IDENT, 0), pos, &stamp);
    bytes[frames[2].start..][..4].copy_from_slice(&length.to_le_bytes());
    bytes[frames[2].start + 4] ^= 1;
    disk.write_file(&path, &bytes);
    let partition = simulated(&disk, RecoveryMode::Strict);
    for wanted in 20..30 {
        let read = offsets(&partition, wanted);
        assert!(matches!(read, Err(Error::Corrupt { .. })), "from {wanted}: {read:?}");
    }
    assert_eq!(offsets(&partition, 30).unwrap(), [30, 35, 40, 45]);
}

#[test]
fn a_frame_whose_records_do_not_decode_is_damage_and_not_passed_over() {
    let (disk, path, frames) = compacted(5, 1, |_| true);
    let mut bytes = disk.read_file(&path).unwrap();
    let frame = frames[2].clone();
    // Flags of a record that this version does not know, in a frame that is whole.
    bytes[frame.start + FRAME_HEADER + 7] |= 0x80;
    let header = FrameHeader::parse(&bytes[frame.clone()]).unwrap();
    let stamp = FrameStamp {
        offset_delta: header.offset_delta,
        durable: header.durable,
        timestamp: header.timestamp,
        count: header.count,
        span: header.span,
        producer: None,
    };
    let pos = Pos(u32::try_from(frame.start).unwrap());
    let length = seal_frame(&mut bytes[frame.clone()], Seed::new(&IDENT, 0), pos, &stamp);
    bytes[frame.start..][..4].copy_from_slice(&length.to_le_bytes());
    disk.write_file(&path, &bytes);
    let partition = simulated(&disk, RecoveryMode::Strict);
    let mut cursor = partition.cursor(0).unwrap();
    for offset in 0..2 {
        assert_eq!(cursor.next().unwrap().unwrap().offset(), offset);
    }
    for _ in 0..3 {
        match cursor.next() {
            Err(Error::Corrupt { position, .. }) => assert_eq!(position, frame.start as u64),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(offsets(&partition, 3).unwrap(), [3, 4]);
    let partition = simulated(&disk, RecoveryMode::Salvage);
    assert_eq!(offsets(&partition, 0).unwrap(), [0, 1, 3, 4]);
    assert_eq!(partition.env().report.snapshot().damage().len(), 1);
}

#[test]
fn an_index_does_not_outlive_its_segment() {
    let (disk, path, _) = compacted(50, 10, |_| true);
    // What a crash before the manifest was replaced leaves of a compaction.
    let name = |extension: &str| PathBuf::from(format!("/p/{:020}.2.{extension}", 0));
    disk.write_file(name("log"), &disk.read_file(&path).unwrap());
    disk.write_file(name("index"), &disk.read_file(index_path(&path)).unwrap());
    let _ = simulated(&disk, RecoveryMode::Strict);
    let left = disk.files();
    assert!(!left.contains(&name("log")) && !left.contains(&name("index")), "{left:?}");
    assert!(left.contains(&path) && left.contains(&index_path(&path)), "{left:?}");
}

/// A log of the simulated disk, whose background work is done between two appends, and the segment it writes.
fn appended_ahead(disk: &SimDisk) -> (Store, Log, PathBuf) {
    let options = Store::options().durability(Durability::Os).storage(Arc::new(disk.clone()));
    let store = options.open("/store").unwrap();
    let log = store.log("orders").unwrap();
    log.append("the first append opens the segment").unwrap();
    let segment = PathBuf::from(format!("/store/logs/orders/0/{:020}.log", 0));
    (store, log, segment)
}

#[test]
fn space_is_allocated_before_the_appender_gets_there() {
    const RECORD: usize = 1024 + 36;
    let disk = SimDisk::new(1);
    let (_store, log, segment) = appended_ahead(&disk);
    let mut written = 0;
    while written < 6 << 20 {
        log.append(&[7; 1024]).unwrap();
        written += RECORD;
        let len = disk.read_file(&segment).unwrap().len();
        // Small steps are the appender's own; then there is always room for more than one record.
        assert!(written < 2 << 20 || len > written + 100 * RECORD, "{len} bytes when {written} are written");
        assert!(len < written + (16 << 20), "{len} bytes when {written} are written");
        for _ in 0..500 {
            log.append(&[7; 1024]).unwrap();
        }
        written += 500 * RECORD;
    }
}

#[test]
fn a_disk_that_has_no_space_ahead_is_filled_to_its_end() {
    let disk = SimDisk::new(1);
    let (store, log, _) = appended_ahead(&disk);
    disk.capacity(3 << 20);
    let taken = (0..10_000).take_while(|_| log.append(&[7; 1024]).is_ok()).count();
    assert!(taken * 1060 > 11 << 18, "only {taken} KiB of 3 MiB were taken");
    assert!(matches!(log.append("more"), Err(Error::Failed { .. })));
    drop((log, store));
    disk.capacity(1 << 30);
    let (_store, log, _) = appended_ahead(&disk);
    assert_eq!(log.read(StartAt::Earliest).unwrap().map(Result::unwrap).count(), taken + 2);
}

#[test]
fn what_salvage_stepped_over_at_the_end_of_a_segment_shows_to_those_who_did_not_ask_for_it() {
    let disk = SimDisk::new(1);
    let partition = simulated(&disk, RecoveryMode::Strict);
    while partition.segments().len() < 3 {
        let _ = partition.append_unsynced(&Record::new(&[7; 1000])).unwrap();
    }
    let (first, end) = (Arc::clone(&partition.segments()[0]), partition.segments()[0].end());
    partition.sync_written().unwrap();
    partition.append(&Record::new("vouches")).unwrap();
    let all = partition.end();
    let disk = disk.kill();
    let whole = disk.read_file(&first.path).unwrap();
    let last = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let spoils: [fn(&mut Vec<u8>, usize); 3] = [
        |bytes, last| bytes[last] ^= 1,
        |bytes, last| bytes[last - 1035..].fill(0),
        |bytes, last| bytes.truncate(last - 1035),
    ];
    for spoil in spoils {
        let mut bytes = whole.clone();
        spoil(&mut bytes, last);
        let disk = disk.kill();
        disk.write_file(&first.path, &bytes);
        check_salvaged(&disk, end, all);
    }
}

/// Whether the record before `end`, the last of its segment, is missing and known to be.
fn check_salvaged(disk: &SimDisk, end: u64, all: u64) {
    let readable: Vec<u64> = (0..all).filter(|offset| *offset != end - 1).collect();
    for _ in 0..2 {
        let partition = simulated(disk, RecoveryMode::Salvage);
        assert_eq!(offsets(&partition, 0).unwrap(), readable);
        let listed = partition.env().report.snapshot().damage();
        assert_eq!(listed.iter().map(|damage| damage.offsets.clone()).collect::<Vec<_>>(), vec![end - 1..end]);
        partition.close().unwrap();
    }
    let strict = offsets(&simulated(disk, RecoveryMode::Strict), 0);
    assert!(matches!(strict, Err(Error::Corrupt { .. })), "{strict:?}");
    let behind: Vec<u64> = (end..all).collect();
    assert_eq!(offsets(&simulated(disk, RecoveryMode::Strict), end).unwrap(), behind);
}
