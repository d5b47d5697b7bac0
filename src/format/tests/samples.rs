//! One of each thing that is written, the same as in the chapter's worked example.

use std::time::Duration;

use crate::format::{
    DecidedPlacemark, Decision, FrameStamp, Ident, IndexEntry, Known, LogFile, Manifest, Part, ProducerStamp,
    ProducersMark, RecoveryPoint, SealedSegment, Seed, SegmentHeader, SideKey, SideValue, State, StoreFile, Trial,
    begin_snapshot, encode_index, encode_record, end_snapshot, frame_len_of, record_len, seal_frame,
};
use crate::types::{CacheIdentity, GroupId, LogId, Millis, Pos, ProducerId};
use crate::{Durability, LogOptions, Record, Retention};

pub(super) const STORE: u128 = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;
/// 2026-01-01.
pub(super) const NEW_YEAR: Millis = Millis(1_767_225_600_000);
pub(super) const IDENT: Ident = Ident { store: STORE, log: LogId(16), partition: 0 };
pub(super) const BASE: u64 = 5000;

/// A frame, complete: its header, its records as they are encoded, and its length stored.
pub(super) fn frame(seed: Seed, pos: Pos, stamp: &FrameStamp, records: &[u8]) -> Vec<u8> {
    let len = frame_len_of(records.len(), stamp.producer.as_ref(), stamp.span != stamp.count);
    let mut frame = vec![0; len];
    frame[len - records.len()..].copy_from_slice(records);
    let length = seal_frame(&mut frame, seed, pos, stamp);
    assert_eq!(frame[..4], [0; 4], "the length is the caller's to store");
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

pub(super) fn record(record: &Record<'_>, delta: u32, own_time: Option<Millis>) -> Vec<u8> {
    let mut bytes = vec![0; record_len(record).unwrap() + if own_time.is_some() { 8 } else { 0 }];
    assert_eq!(encode_record(record, delta, own_time, &mut bytes), bytes.len());
    bytes
}

/// A segment of three frames, as a compaction could have left it.
pub(super) fn segment() -> Vec<u8> {
    let seed = Seed::new(&IDENT, BASE);
    let mut bytes = SegmentHeader { ident: IDENT, base: BASE, created: NEW_YEAR }.encode().to_vec();
    let plain = record(&Record::new("order 1"), 0, None);
    let stamp = FrameStamp {
        offset_delta: 0,
        durable: 0,
        timestamp: Millis(NEW_YEAR.0 + 1),
        count: 1,
        span: 1,
        producer: None,
    };
    add(&mut bytes, seed, &stamp, &plain);
    let batch = [
        record(&Record::new("paid").key("customer-7").header("trace", "ab12"), 0, Some(Millis(NEW_YEAR.0 + 2))),
        record(&Record::tombstone("customer-8"), 1, None),
    ];
    let stamp = FrameStamp {
        offset_delta: 1,
        durable: 112,
        timestamp: Millis(NEW_YEAR.0 + 3),
        count: 2,
        span: 2,
        producer: Some(ProducerStamp { id: 3, epoch: 1, sequence: 41 }),
    };
    add(&mut bytes, seed, &stamp, &batch.concat());
    let left = record(&Record::new("sent").key("customer-9"), 2, None);
    let stamp = FrameStamp {
        offset_delta: 3,
        durable: 232,
        timestamp: Millis(NEW_YEAR.0 + 4),
        count: 1,
        span: 4,
        producer: None,
    };
    add(&mut bytes, seed, &stamp, &left);
    bytes
}

fn add(segment: &mut Vec<u8>, seed: Seed, stamp: &FrameStamp, records: &[u8]) {
    let pos = Pos(u32::try_from(segment.len()).unwrap());
    segment.extend(frame(seed, pos, stamp, records));
    segment.resize(segment.len().next_multiple_of(8), 0);
}

pub(super) fn index() -> Vec<u8> {
    let entries = [
        IndexEntry { offset: BASE, pos: Pos(64), newest_before: Millis(0) },
        IndexEntry { offset: BASE + 3, pos: Pos(232), newest_before: Millis(NEW_YEAR.0 + 3) },
    ];
    encode_index(&IDENT, BASE, u32::try_from(segment().len()).unwrap(), &entries)
}

/// What the segment says of its producer.
pub(super) fn snapshot() -> Vec<u8> {
    let mut bytes = begin_snapshot(&IDENT, BASE + 7, 0);
    let mut known = Known::first(&ProducerStamp { id: 3, epoch: 1, sequence: 40 }, BASE - 1, 1);
    known.push(&ProducerStamp { id: 3, epoch: 1, sequence: 41 }, BASE + 1, 2);
    known.encode(&mut bytes);
    end_snapshot(bytes)
}

pub(super) fn manifest() -> Manifest {
    Manifest {
        ident: IDENT,
        sealed: vec![SealedSegment {
            base: BASE,
            end: BASE + 7,
            len: u32::try_from(segment().len()).unwrap(),
            records: 4,
            newest: Millis(NEW_YEAR.0 + 4),
            created: NEW_YEAR,
            generation: 1,
        }],
        active: BASE + 7,
        active_created: Millis(NEW_YEAR.0 + 5),
        recovery: RecoveryPoint { segment: BASE + 7, pos: Pos(64), next: BASE + 7, records: 0, newest: Millis(0) },
        ceiling: Some(BASE + 7 + (1 << 20)),
        state: State::Open(CacheIdentity { boot: *b"boot id, 16 byte", mount: 9 }),
        producers: ProducersMark::nothing_up_to(BASE + 7),
    }
}

pub(super) fn store_file() -> StoreFile {
    StoreFile { store: STORE, created: NEW_YEAR }
}

pub(super) fn log_file() -> LogFile {
    let options = LogOptions::new()
        .partitions(4)
        .segment_bytes(1 << 20)
        .durability(Durability::Interval(Duration::from_millis(100)))
        .retention(Retention::new().max_bytes(1 << 30))
        .compaction(crate::Compaction::None);
    LogFile { store: STORE, id: LogId(16), options }
}

/// Keys of the side log, each with a value.
pub(super) fn side() -> Vec<(SideKey, SideValue)> {
    let (group, log, partition) = (GroupId(2), LogId(16), 300);
    vec![
        (
            SideKey::Placemark { group, log, partition },
            SideValue::Placemark { offset: 5007, version: 12, metadata: Some(b"v7"[..].into()) },
        ),
        (SideKey::Start { group, log, partition }, SideValue::Number(5000)),
        (SideKey::Group { log, name: "billing".to_owned() }, SideValue::Number(2)),
        (SideKey::Log { name: "orders".to_owned() }, SideValue::Number(16)),
        (SideKey::NextLog, SideValue::Number(17)),
        (SideKey::NextGroup, SideValue::Number(3)),
        (
            SideKey::Producer { log, name: "importer".to_owned() },
            SideValue::Producer(ProducerId { number: 3, epoch: 1 }),
        ),
        (SideKey::NextProducer, SideValue::Number(4)),
        (
            SideKey::Trial { group, log, partition },
            SideValue::Trial(Trial { offset: 5007, records: 1, attempts: 2, until: 5100, version: 12 }),
        ),
    ]
}

pub(super) fn decision() -> Decision {
    Decision {
        parts: vec![Part {
            log: LogId(16),
            partition: 0,
            base: BASE,
            timestamp: NEW_YEAR,
            count: 1,
            producer: None,
            records: record(&Record::new("order 1"), 0, None),
        }],
        placemarks: vec![DecidedPlacemark {
            group: GroupId(2),
            log: LogId(17),
            partition: 0,
            offset: 300,
            version: 13,
            metadata: Some(b"v7"[..].into()),
        }],
    }
}
