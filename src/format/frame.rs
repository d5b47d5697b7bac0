//! The frame: the unit of atomicity.

use crate::broken::broken;
use crate::format::Seed;
use crate::format::fields::{get, put};
use crate::types::{Millis, Pos};

const LENGTH: usize = 0;
const CRC: usize = LENGTH + 4;
const OFFSET_DELTA: usize = CRC + 4;
const DURABLE: usize = OFFSET_DELTA + 4;
const TIME_AND_CHECK: usize = DURABLE + 4;
const COUNT_AND_FLAGS: usize = TIME_AND_CHECK + 8;

/// Bytes of a frame's header, without what its flags add.
pub(crate) const FRAME_HEADER: usize = COUNT_AND_FLAGS + 4;

/// Most bytes that [`FrameHeader::parse`] looks at. No frame is shorter.
pub(crate) const PARSED: usize = FRAME_HEADER + SPAN;

/// What the checksum does not cover.
const UNCOVERED: usize = OFFSET_DELTA;

/// Bytes that the span of a frame with gaps takes.
const SPAN: usize = 4;

/// Bytes of a producer's stamp.
const PRODUCER: usize = 4 + 4 + 8;

/// Least bytes of a record.
const LEAST_RECORD: usize = 8;

/// Most records in one frame, and most offsets that it takes: they are counted in 24 bits.
pub(crate) const MAX_FRAME_RECORDS: u32 = (1 << 24) - 1;

const FLAG_PRODUCER: u8 = 1;
const FLAG_SPARSE: u8 = 2;

const _: () = assert!(FRAME_HEADER == 28);
const _: () = assert!(PARSED <= FRAME_HEADER + LEAST_RECORD);
const _: () = assert!(FRAME_HEADER + LEAST_RECORD == 36, "a plain record costs 36 bytes over its value");

/// What the appender knows of a frame besides its records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameStamp {
    pub(crate) offset_delta: u32,
    /// How far the segment was known to be durable.
    pub(crate) durable: u32,
    /// The newest time of its records.
    pub(crate) timestamp: Millis,
    pub(crate) count: u32,
    /// Offsets it takes: more than the count when records have been removed.
    pub(crate) span: u32,
    pub(crate) producer: Option<ProducerStamp>,
}

/// Who wrote a frame, for idempotence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(crate) id: u32,
    pub(crate) epoch: u32,
    /// Sequence of its first record.
    pub(crate) sequence: u64,
}

/// A frame's header, as it stands in a file: nothing in it can be trusted before a check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameHeader {
    pub(crate) length: u32,
    pub(crate) offset_delta: u32,
    pub(crate) durable: u32,
    pub(crate) timestamp: Millis,
    pub(crate) count: u32,
    /// How many offsets the frame takes: the next one follows its last record's, which may not be its count.
    pub(crate) span: u32,
    check: u16,
    flags: u8,
}

/// Length of a dense frame whose records take so many bytes.
#[inline]
pub(crate) const fn frame_len(records: usize, producer: bool) -> usize {
    FRAME_HEADER + if producer { PRODUCER } else { 0 } + records
}

/// Length of any frame.
pub(crate) fn frame_len_of(records: usize, producer: Option<&ProducerStamp>, sparse: bool) -> usize {
    frame_len(records, producer.is_some()) + if sparse { SPAN } else { 0 }
}

#[inline]
fn word(bytes: &[u8; FRAME_HEADER], at: usize) -> u32 {
    get(bytes, at).map_or(0, u32::from_le_bytes)
}

impl FrameHeader {
    /// The header at the front of `frame`; `None` when nothing is there, or what is there cannot be a frame.
    #[inline]
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let bytes = frame.first_chunk::<FRAME_HEADER>()?;
        let length = word(bytes, LENGTH);
        let (low, high) = (word(bytes, TIME_AND_CHECK), word(bytes, TIME_AND_CHECK + 4));
        let last = word(bytes, COUNT_AND_FLAGS);
        let [.., flags] = last.to_le_bytes();
        let count = last & MAX_FRAME_RECORDS;
        let records = u64::from(length).checked_sub(Self::records_from(flags) as u64)?;
        if count == 0 || flags & !(FLAG_PRODUCER | FLAG_SPARSE) != 0 || records < u64::from(count) * LEAST_RECORD as u64
        {
            return None;
        }
        let span = if flags & FLAG_SPARSE == 0 { count } else { Self::wide(frame, count)? };
        Some(Self {
            length,
            offset_delta: word(bytes, OFFSET_DELTA),
            durable: word(bytes, DURABLE),
            timestamp: Millis(u64::from(low) | u64::from(high & 0xffff) << 32),
            check: u16::try_from(high >> 16).unwrap_or(0),
            count,
            span,
            flags,
        })
    }

    /// The span of a frame with gaps.
    #[cold]
    fn wide(frame: &[u8], count: u32) -> Option<u32> {
        let span = get(frame, FRAME_HEADER).map(u32::from_le_bytes)?;
        (span > count && span <= MAX_FRAME_RECORDS).then_some(span)
    }

    #[inline]
    const fn records_from(flags: u8) -> usize {
        FRAME_HEADER
            + if flags & FLAG_SPARSE == 0 { 0 } else { SPAN }
            + if flags & FLAG_PRODUCER == 0 { 0 } else { PRODUCER }
    }

    /// Where the records begin, from the frame's start.
    #[inline]
    pub(crate) const fn records_at(&self) -> usize {
        Self::records_from(self.flags)
    }

    /// Whether the header is one that was written for this place: cheap, and wrong once in 65,536 for other bytes.
    #[inline]
    pub(crate) fn plausible(&self, seed: Seed, pos: Pos) -> bool {
        let last = self.count | u32::from(self.flags) << 24;
        let start = seed.at(pos) ^ (self.span - self.count);
        self.check == check(start, self.length, self.offset_delta, self.durable, self.timestamp, last)
    }

    /// Who wrote the frame, if it was an idempotent producer.
    pub(crate) fn producer(&self, frame: &[u8]) -> Option<ProducerStamp> {
        if self.flags & FLAG_PRODUCER == 0 {
            return None;
        }
        let at = self.records_at() - PRODUCER;
        Some(ProducerStamp {
            id: u32::from_le_bytes(get(frame, at)?),
            epoch: u32::from_le_bytes(get(frame, at + 4)?),
            sequence: u64::from_le_bytes(get(frame, at + 8)?),
        })
    }
}

/// Whether the checksum of a whole frame, without its padding, holds at this place.
#[inline]
pub(crate) fn verify_frame(frame: &[u8], seed: Seed, pos: Pos) -> bool {
    let Some((_, covered)) = frame.split_at_checked(UNCOVERED) else { return false };
    get(frame, CRC).is_some_and(|stored| crc(seed, pos, covered) == u32::from_le_bytes(stored) || broken("crc"))
}

/// Completes a frame whose records are in place: writes every field of its header but the length, which stays zero and
/// is returned, for the caller to store last.
#[expect(clippy::inline_always, reason = "of one record's frame most is known where it is called")]
#[inline(always)]
pub(crate) fn seal_frame(frame: &mut [u8], seed: Seed, pos: Pos, stamp: &FrameStamp) -> u32 {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let mut flags = 0;
    let mut at = FRAME_HEADER;
    if stamp.span != stamp.count {
        flags |= FLAG_SPARSE;
        put(frame, at, stamp.span.to_le_bytes());
        at += SPAN;
    }
    if let Some(producer) = &stamp.producer {
        flags |= FLAG_PRODUCER;
        put(frame, at, producer.id.to_le_bytes());
        put(frame, at + 4, producer.epoch.to_le_bytes());
        put(frame, at + 8, producer.sequence.to_le_bytes());
    }
    let last = stamp.count | u32::from(flags) << 24;
    let start = seed.at(pos) ^ stamp.span.wrapping_sub(stamp.count);
    let check = check(start, length, stamp.offset_delta, stamp.durable, stamp.timestamp, last);
    let time = stamp.timestamp.0 & Millis::MAX.0 | u64::from(check) << 48;
    if let Some(header) = frame.first_chunk_mut::<FRAME_HEADER>() {
        put(header, LENGTH, [0; 4]);
        put(header, OFFSET_DELTA, stamp.offset_delta.to_le_bytes());
        put(header, DURABLE, stamp.durable.to_le_bytes());
        put(header, TIME_AND_CHECK, time.to_le_bytes());
        put(header, COUNT_AND_FLAGS, last.to_le_bytes());
    }
    let sum = frame.get(UNCOVERED..).map_or(0, |covered| crc(seed, pos, covered));
    put(frame, CRC, sum.to_le_bytes());
    length
}

#[inline]
fn crc(seed: Seed, pos: Pos, covered: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed.at(pos));
    hasher.update(covered);
    hasher.finalize()
}

/// Sixteen bits that mix all of the header with its place, from which `start` comes, and its gaps (multiply and fold).
#[inline]
fn check(start: u32, length: u32, delta: u32, durable: u32, time: Millis, last: u32) -> u16 {
    let a = u64::from(start) << 32 | u64::from(length);
    let b = u64::from(delta) << 32 | u64::from(durable);
    let c = time.0 & Millis::MAX.0 ^ u64::from(last) << 32;
    let mixed = (a ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        ^ (b ^ 0x94d0_49bb_1331_11eb).wrapping_mul(0xd6e8_feb8_6659_fd93)
        ^ c.wrapping_mul(0xa076_1d64_78bd_642f);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xe703_7ed1_a0b4_28db);
    u16::try_from(mixed >> 48).unwrap_or(0)
}
