//! STORE, LOG, MANIFEST, the index, and the header of a segment.

use std::time::Duration;

use proptest::prelude::*;

use super::flipped;
use super::samples::{self, BASE, IDENT};
use crate::format::{
    DecodeError, HeaderFault, Ident, IndexEntry, LogFile, Manifest, ProducersMark, RecoveryPoint, SealedSegment,
    SegmentHeader, SnapshotReader, State, StoreFile, decode_index, encode_index, index_len,
};
use crate::types::{CacheIdentity, LogId, Millis, Pos};
use crate::{Compaction, Durability, LogOptions, Retention};

/// What decoding comes to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Whole,
    Damaged,
    Version(u32),
}

type Decode = fn(&[u8]) -> Outcome;

/// Each kind of file: its name, the example of it, and how it is decoded.
fn kinds() -> Vec<(&'static str, Vec<u8>, Decode)> {
    fn outcome<T>(decoded: &Result<T, DecodeError>) -> Outcome {
        match decoded {
            Ok(_) => Outcome::Whole,
            Err(DecodeError::Damaged { .. }) => Outcome::Damaged,
            Err(DecodeError::Version { found }) => Outcome::Version(*found),
        }
    }
    vec![
        ("STORE", samples::store_file().encode(), |bytes| outcome(&StoreFile::decode(bytes))),
        ("LOG", samples::log_file().encode(), |bytes| outcome(&LogFile::decode(bytes))),
        ("MANIFEST", samples::manifest().encode(), |bytes| outcome(&Manifest::decode(bytes))),
        ("producers", samples::snapshot(), |bytes| {
            outcome(&SnapshotReader::new(IDENT, BASE + 7).take(bytes, true, |_| {}))
        }),
        ("index", samples::index(), |bytes| {
            if decode_index(bytes, &IDENT, BASE).is_some() { Outcome::Whole } else { Outcome::Damaged }
        }),
        ("segment", samples::segment()[..SegmentHeader::LEN].to_vec(), |bytes| match SegmentHeader::decode(bytes) {
            Ok(_) => Outcome::Whole,
            Err(HeaderFault::Version(found)) => Outcome::Version(found),
            Err(_) => Outcome::Damaged,
        }),
    ]
}

#[test]
fn every_flipped_bit_is_noticed() {
    for (name, bytes, decode) in kinds() {
        assert_eq!(decode(&bytes), Outcome::Whole, "{name}");
        for (bit, damaged) in flipped(&bytes) {
            let found = u32::from_le_bytes(damaged[8..12].try_into().unwrap());
            let other_version = (64..96).contains(&bit) && name != "index" && (2..1 << 16).contains(&found);
            let expected = if other_version { Outcome::Version(found) } else { Outcome::Damaged };
            assert_eq!(decode(&damaged), expected, "bit {bit} of {name}");
        }
    }
}

#[test]
fn a_file_that_ends_at_any_byte_or_goes_on_is_damaged() {
    for (name, bytes, decode) in kinds() {
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), Outcome::Damaged, "{len} bytes of {name}");
        }
        // A segment goes on with its frames.
        for more in [1, 20, 52] {
            let longer = [&bytes[..], &vec![0; more]].concat();
            assert!(name == "segment" || decode(&longer) == Outcome::Damaged, "{more} bytes behind {name}");
        }
        let zeros = vec![0; bytes.len()];
        assert_eq!(decode(&zeros), Outcome::Damaged, "{name} of zeros");
    }
}

#[test]
fn a_file_of_another_version_is_told_from_a_damaged_one() {
    for (name, bytes, decode) in kinds().into_iter().filter(|(name, ..)| *name != "index") {
        for version in [0_u32, 2, 77, 1 << 16] {
            let mut other = bytes.clone();
            other[8..12].copy_from_slice(&version.to_le_bytes());
            // As another version would write it, and where it has its checksum elsewhere.
            let mut sealed = other.clone();
            let end = sealed.len() - 4;
            let crc = crc32fast::hash(&sealed[..end]);
            sealed[end..].copy_from_slice(&crc.to_le_bytes());
            let known = (2..1 << 16).contains(&version);
            let expected = if known { Outcome::Version(version) } else { Outcome::Damaged };
            // Snapshots of producers are read before their checksum is.
            let sealed_as = if name == "producers" { &expected } else { &Outcome::Version(version) };
            assert_eq!(&decode(&sealed), sealed_as, "{name}");
            assert_eq!(decode(&other), expected, "{name}, version {version}");
        }
    }
}

#[test]
fn no_file_is_taken_for_one_of_another_kind() {
    let all = kinds();
    for (name, bytes, _) in &all {
        for (other, _, decode) in all.iter().filter(|(other, ..)| other != name) {
            assert_eq!(decode(bytes), Outcome::Damaged, "{name} read as {other}");
        }
    }
}

#[test]
fn lengths_are_what_the_constants_say() {
    assert_eq!(samples::store_file().encode().len(), StoreFile::LEN);
    assert_eq!(samples::log_file().encode().len(), LogFile::LEN);
    assert_eq!(samples::index().len(), index_len(2));
    let mut manifest = samples::manifest();
    let capacity = manifest.encode();
    manifest.sealed.clear();
    manifest.active = 0;
    manifest.recovery.segment = 0;
    assert_eq!(capacity.len() - manifest.encode().len(), 48, "a sealed segment takes 48 bytes");
    assert_eq!(manifest.encode().len(), 125);
}

#[test]
fn an_index_of_another_segment_is_none() {
    let bytes = samples::index();
    let strangers =
        [Ident { store: IDENT.store + 1, ..IDENT }, Ident { log: LogId(17), ..IDENT }, Ident { partition: 1, ..IDENT }];
    for stranger in strangers {
        assert_eq!(decode_index(&bytes, &stranger, BASE), None);
    }
    assert_eq!(decode_index(&bytes, &IDENT, BASE + 1), None);
}

#[test]
fn a_header_that_was_never_written_says_so() {
    assert_eq!(SegmentHeader::decode(&[]), Err(HeaderFault::Short));
    assert_eq!(SegmentHeader::decode(&[0; 63]), Err(HeaderFault::Short));
    assert_eq!(SegmentHeader::decode(&[0; 64]), Err(HeaderFault::Zero));
    assert_eq!(SegmentHeader::decode(&[1; 64]), Err(HeaderFault::Damaged));
}

#[test]
fn a_manifest_that_contradicts_itself_is_damaged() {
    type Spoil = fn(&mut Manifest);
    let spoils: [Spoil; 12] = [
        |manifest| manifest.sealed[0].end = manifest.active + 1,
        |manifest| manifest.sealed[0].base = manifest.sealed[0].end + 1,
        |manifest| manifest.sealed[0].len = 0,
        |manifest| manifest.sealed[0].len = 100,
        |manifest| manifest.sealed.push(manifest.sealed[0]),
        |manifest| manifest.recovery.segment += 1,
        |manifest| manifest.recovery.next = manifest.active - 1,
        |manifest| manifest.recovery.pos = Pos(63),
        |manifest| manifest.recovery.pos = Pos(68),
        |manifest| manifest.producers.covers += 1,
        |manifest| manifest.producers.floor = manifest.producers.covers + 1,
        |manifest| manifest.producers.snapshots = vec![5, 5],
    ];
    for (number, spoil) in spoils.into_iter().enumerate() {
        let mut manifest = samples::manifest();
        spoil(&mut manifest);
        assert!(matches!(Manifest::decode(&manifest.encode()), Err(DecodeError::Damaged { .. })), "spoil {number}");
    }
}

fn options() -> impl Strategy<Value = LogOptions> {
    let millis = || (1..1_u64 << 50).prop_map(Duration::from_millis);
    let durability =
        prop_oneof![Just(Durability::Sync), Just(Durability::Os), millis().prop_map(Durability::Interval),];
    let retention = (prop::option::of(1..u64::MAX), prop::option::of(millis()), any::<bool>())
        .prop_map(|(max_bytes, max_age, consumed)| Retention { max_bytes, max_age, consumed });
    let bounds = (
        prop::option::of(1..=LogOptions::MAX_PARTITIONS),
        prop::option::of(LogOptions::MIN_SEGMENT_BYTES..=LogOptions::MAX_SEGMENT_BYTES),
        prop::option::of(millis()),
        prop::option::of(1..=LogOptions::MAX_RECORD_BYTES),
    );
    let compaction = prop::option::of(prop_oneof![Just(Compaction::None), Just(Compaction::KeepLatest)]);
    let delay = prop::option::of(millis());
    (bounds, prop::option::of(durability), prop::option::of(retention), compaction, delay).prop_map(
        |((partitions, segment_bytes, segment_age, max_record_bytes), durability, retention, compaction, delay)| {
            LogOptions {
                partitions,
                segment_bytes,
                segment_age,
                max_record_bytes,
                durability,
                retention,
                compaction,
                tombstone_delay: delay,
            }
        },
    )
}

fn idents() -> impl Strategy<Value = Ident> {
    (any::<u128>(), any::<u32>(), any::<u32>()).prop_map(|(store, log, partition)| Ident {
        store,
        log: LogId(log),
        partition,
    })
}

fn places() -> impl Strategy<Value = u32> {
    (8..1_u32 << 28).prop_map(|eighth| eighth * 8)
}

fn manifests() -> impl Strategy<Value = Manifest> {
    let segment = (1..1_u64 << 32, places(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>());
    let state = prop_oneof![
        Just(State::Clean),
        (any::<[u8; 16]>(), any::<u64>()).prop_map(|(boot, mount)| State::Open(CacheIdentity { boot, mount })),
    ];
    let point = (places(), 0..1_u64 << 40, any::<u64>(), any::<u64>());
    let ceiling = prop::option::of(0..u64::MAX);
    (idents(), prop::collection::vec(segment, 0..6), state, point, ceiling, any::<u64>()).prop_map(
        |(ident, segments, state, (pos, more, records, newest), ceiling, created)| {
            let mut active = 0;
            let sealed = segments.into_iter().map(|(span, len, records, newest, created, generation)| {
                let base = active;
                active += span;
                let (newest, created) = (Millis(newest), Millis(created));
                SealedSegment { base, end: active, len, records, newest, created, generation }
            });
            let sealed = sealed.collect();
            let recovery =
                RecoveryPoint { segment: active, pos: Pos(pos), next: active + more, records, newest: Millis(newest) };
            let producers = ProducersMark::nothing_up_to(recovery.next);
            Manifest { ident, sealed, active, active_created: Millis(created), recovery, ceiling, state, producers }
        },
    )
}

/// The same with something to say of producers.
fn with_producers() -> impl Strategy<Value = Manifest> {
    let marks = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::collection::vec(any::<u64>(), 0..3));
    (manifests(), marks).prop_map(|(mut manifest, (covers, floor, mut snapshots))| {
        let covers = covers.index(usize::try_from(manifest.recovery.next).unwrap() + 1) as u64;
        let floor = floor.index(usize::try_from(covers).unwrap() + 1) as u64;
        snapshots.sort_unstable_by_key(|offset| std::cmp::Reverse(*offset));
        snapshots.dedup();
        manifest.producers = ProducersMark { snapshots, covers, floor };
        manifest
    })
}

proptest! {
    #[test]
    fn a_store_file_comes_back(store in any::<u128>(), created in any::<u64>()) {
        let file = StoreFile { store, created: Millis(created) };
        prop_assert_eq!(StoreFile::decode(&file.encode()), Ok(file));
    }

    #[test]
    fn a_log_file_comes_back(store in any::<u128>(), id in any::<u32>(), options in options()) {
        let file = LogFile { store, id: LogId(id), options };
        prop_assert_eq!(LogFile::decode(&file.encode()), Ok(file));
    }

    #[test]
    fn a_manifest_comes_back(manifest in prop_oneof![manifests(), with_producers()]) {
        prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn a_segment_header_comes_back(ident in idents(), base in any::<u64>(), created in any::<u64>()) {
        let header = SegmentHeader { ident, base, created: Millis(created) };
        prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn an_index_comes_back(
        ident in idents(),
        base in any::<u64>(),
        covered in any::<u32>(),
        entries in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u64>()), 0..50),
    ) {
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(offset, pos, newest)| IndexEntry { offset, pos: Pos(pos), newest_before: Millis(newest) })
            .collect();
        let bytes = encode_index(&ident, base, covered, &entries);
        prop_assert_eq!(bytes.len(), index_len(entries.len()));
        prop_assert_eq!(decode_index(&bytes, &ident, base), Some((covered, entries)));
    }

    #[test]
    fn junk_is_damage_or_another_version(junk in prop::collection::vec(any::<u8>(), 0..300)) {
        for (_, bytes, decode) in kinds() {
            prop_assert_eq!(decode(&junk), Outcome::Damaged);
            // Behind the right beginning, and with a checksum that holds.
            let mut likely = [&bytes[..12], &junk].concat();
            let crc = crc32fast::hash(&likely);
            likely.extend_from_slice(&crc.to_le_bytes());
            let _ = decode(&likely);
        }
    }
}

#[test]
fn an_option_that_cannot_be_makes_the_file_damaged() {
    for options in [LogOptions::new().partitions(0), LogOptions::new().segment_bytes(1)] {
        let file = LogFile { store: 1, id: LogId(16), options };
        assert!(matches!(LogFile::decode(&file.encode()), Err(DecodeError::Damaged { .. })), "{options:?}");
    }
}
