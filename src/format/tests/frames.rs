//! Frames: what is noticed, and where they do not pass.

use proptest::prelude::*;

use super::flipped;
use super::samples::{BASE, IDENT, NEW_YEAR, frame, segment};
use crate::format::{
    FRAME_HEADER, FrameHeader, FrameStamp, Ident, MAX_FRAME_RECORDS, PARSED, ProducerStamp, Seed, verify_frame,
};
use crate::types::{LogId, Millis, Pos};

/// Whether a frame would be taken for one at `pos`, by a reader of the file `bytes` begins in.
fn passes(bytes: &[u8], seed: Seed, pos: Pos) -> bool {
    let whole = FrameHeader::parse(bytes).and_then(|header| bytes.get(..header.length as usize));
    whole.is_some_and(|frame| verify_frame(frame, seed, pos))
}

/// Where the frames of the example stand in it.
fn example() -> Vec<(Pos, Vec<u8>)> {
    let bytes = segment();
    let mut frames = Vec::new();
    let mut at = 64;
    while let Some(header) = bytes.get(at..).and_then(FrameHeader::parse) {
        let end = at + header.length as usize;
        frames.push((Pos(u32::try_from(at).unwrap()), bytes[at..end].to_vec()));
        at = end.next_multiple_of(8);
    }
    assert_eq!((frames.len(), at), (3, bytes.len()));
    frames
}

fn stamps() -> impl Strategy<Value = FrameStamp> {
    let producer = prop::option::of((any::<u32>(), any::<u32>(), any::<u64>()));
    let counts = (1..=40_u32, prop_oneof![Just(0), 1..=MAX_FRAME_RECORDS - 40]);
    (any::<u32>(), any::<u32>(), 0..=Millis::MAX.0, counts, producer).prop_map(
        |(offset_delta, durable, timestamp, (count, gaps), producer)| FrameStamp {
            offset_delta,
            durable,
            timestamp: Millis(timestamp),
            count,
            span: count + gaps,
            producer: producer.map(|(id, epoch, sequence)| ProducerStamp { id, epoch, sequence }),
        },
    )
}

fn idents() -> impl Strategy<Value = (Ident, u64)> {
    (any::<u128>(), any::<u32>(), any::<u32>(), any::<u64>())
        .prop_map(|(store, log, partition, base)| (Ident { store, log: LogId(log), partition }, base))
}

fn positions() -> impl Strategy<Value = Pos> {
    (8..1_u32 << 28).prop_map(|eighth| Pos(eighth * 8))
}

proptest! {
    #[test]
    fn a_frame_comes_back_as_it_was_sealed(
        stamp in stamps(),
        (ident, base) in idents(),
        pos in positions(),
        more in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let seed = Seed::new(&ident, base);
        let records = [vec![7; 8 * stamp.count as usize], more].concat();
        let bytes = frame(seed, pos, &stamp, &records);
        let header = FrameHeader::parse(&bytes).unwrap();
        prop_assert_eq!(header.length as usize, bytes.len());
        prop_assert_eq!(header.offset_delta, stamp.offset_delta);
        prop_assert_eq!(header.durable, stamp.durable);
        prop_assert_eq!(header.timestamp, stamp.timestamp);
        prop_assert_eq!(header.count, stamp.count);
        prop_assert_eq!(header.span, stamp.span);
        prop_assert_eq!(&bytes[header.records_at()..], &records);
        prop_assert!(header.plausible(seed, pos));
        prop_assert!(verify_frame(&bytes, seed, pos));
        if let Some(ProducerStamp { id, epoch, sequence }) = stamp.producer {
            let stood = [id.to_le_bytes().to_vec(), epoch.to_le_bytes().to_vec(), sequence.to_le_bytes().to_vec()];
            prop_assert_eq!(&bytes[header.records_at() - 16..header.records_at()], &stood.concat());
        }
    }

    /// A checksum that begins with another number is another one, always; two seeds are the same once in 2^32.
    #[test]
    fn a_frame_passes_at_its_own_place_only(
        stamp in stamps(),
        (ident, base) in idents(),
        (elsewhere, other_base) in idents(),
        pos in positions(),
        to in positions(),
    ) {
        let seed = Seed::new(&ident, base);
        let bytes = frame(seed, pos, &stamp, &vec![1; 8 * stamp.count as usize]);
        prop_assume!(pos != to);
        prop_assert!(!passes(&bytes, seed, to));
        let strangers = [
            Seed::new(&Ident { store: elsewhere.store, ..ident }, base),
            Seed::new(&Ident { log: elsewhere.log, ..ident }, base),
            Seed::new(&Ident { partition: elsewhere.partition, ..ident }, base),
            Seed::new(&ident, other_base),
        ];
        for other in strangers {
            prop_assume!(other != seed);
            prop_assert!(!passes(&bytes, other, pos));
        }
    }

    #[test]
    fn bytes_that_are_not_ours_are_no_frame(bytes in prop::collection::vec(any::<u8>(), 0..300), pos in positions()) {
        prop_assert!(!passes(&bytes, Seed::new(&IDENT, BASE), pos));
    }
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let (seed, zeros) = (Seed::new(&IDENT, BASE), vec![0; 1 << 16]);
    for (pos, bytes) in example() {
        // Behind it there is room for all but the largest lengths, as in a segment, zeros and others.
        for behind in [&zeros[..], &segment().repeat(200)] {
            for (bit, damaged) in flipped(&bytes) {
                assert!(!passes(&[&damaged, behind].concat(), seed, pos), "bit {bit} of the frame at {}", pos.0);
            }
        }
    }
}

/// The header's own check is right but once in 65,536 times; of the example's bits it misses none.
#[test]
fn every_flipped_bit_of_a_header_makes_it_implausible() {
    let seed = Seed::new(&IDENT, BASE);
    for (pos, bytes) in example() {
        assert!(FrameHeader::parse(&bytes).unwrap().plausible(seed, pos));
        for (bit, damaged) in flipped(&bytes[..PARSED]) {
            let sparse = bytes[FRAME_HEADER - 1] & 2 != 0;
            // The checksum itself, and what stands behind the header where there is no span.
            if (32..64).contains(&bit) || (bit >= FRAME_HEADER * 8 && !sparse) {
                continue;
            }
            let plausible = FrameHeader::parse(&damaged).is_some_and(|header| header.plausible(seed, pos));
            assert!(!plausible, "bit {bit} of the frame at {}", pos.0);
        }
    }
}

/// What a walk by headers relies on: wrong bytes pass the header's check about once in 65,536 times, not more.
#[test]
fn a_header_of_another_place_is_implausible() {
    let seed = Seed::new(&IDENT, BASE);
    let mut passed = 0;
    for (pos, bytes) in example() {
        let header = FrameHeader::parse(&bytes).unwrap();
        passed +=
            (0..1 << 20).map(|eighth| Pos(eighth * 8)).filter(|to| *to != pos && header.plausible(seed, *to)).count();
    }
    assert!((1..3 * 64).contains(&passed), "{passed} of 3 * 2^20, and 48 are to be expected");
}

#[test]
fn a_frame_that_ends_at_any_byte_is_none() {
    let seed = Seed::new(&IDENT, BASE);
    for (pos, bytes) in example() {
        assert!(passes(&bytes, seed, pos));
        for len in 0..bytes.len() {
            assert!(!passes(&bytes[..len], seed, pos), "{len} bytes of the frame at {}", pos.0);
        }
    }
}

#[test]
fn a_header_that_cannot_be_is_refused_before_its_checks() {
    let stamp = FrameStamp { offset_delta: 0, durable: 0, timestamp: NEW_YEAR, count: 2, span: 2, producer: None };
    let good = frame(Seed::new(&IDENT, BASE), Pos(64), &stamp, &[0; 16]);
    assert!(FrameHeader::parse(&good).is_some());
    let with = |at: usize, bytes: &[u8]| {
        let mut copy = good.clone();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        FrameHeader::parse(&copy).is_some()
    };
    assert!(!with(0, &[0; 4]), "a length of zero is no frame");
    assert!(!with(0, &43_u32.to_le_bytes()), "two records need 16 bytes");
    assert!(!with(24, &[0; 3]), "a frame without records is none");
    assert!(!with(27, &[4]), "a flag that is not known is refused");
    assert!(!with(27, &[1]), "the producer's stamp leaves no room for the records");
    let sparse = |span: u32| {
        let mut copy = [&good[..28], &span.to_le_bytes(), &good[28..]].concat();
        copy[0] = 48;
        copy[27] = 2;
        FrameHeader::parse(&copy).is_some_and(|header| header.span == span)
    };
    assert!(sparse(3) && sparse(MAX_FRAME_RECORDS));
    assert!(!sparse(0) && !sparse(2), "a frame with gaps takes more offsets than it has records");
    assert!(!sparse(MAX_FRAME_RECORDS + 1) && !sparse(u32::MAX), "the span is bounded");
}
