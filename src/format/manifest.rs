//! The manifest of a partition: what tells a hole from a legal gap.

use crate::format::fields::{Fields, unwrap, wrap};
use crate::format::{DecodeError, Ident, SegmentHeader};
use crate::types::{CacheIdentity, Millis, Pos};

const MAGIC: [u8; 8] = *b"PLMKMAN1";

/// Bytes of the recovery point.
const POINT: usize = 8 + 4 + 8 + 8 + 8;
/// How it was left: a byte, the boot id, the mount.
const STATE: usize = 1 + 16 + 8;
/// All before the sealed segments: whose it is, the active segment, the recovery point, the ceiling, the state, the
/// producers.
const HEAD: usize = Ident::LEN + 8 + 8 + POINT + 8 + STATE + MARK;
/// What is said of producers, with as many snapshots as are kept.
const MARK: usize = 8 + 8 + 1 + 2 * 8;
/// One sealed segment.
const SEALED: usize = 8 + 8 + 4 + 8 + 8 + 8 + 4;

/// Set in the byte of the state when producers are spoken of.
const HAS_PRODUCERS: u8 = 2;

/// What a partition consists of, and how it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) ident: Ident,
    /// Segments that are durable whole, oldest first.
    pub(crate) sealed: Vec<SealedSegment>,
    /// Base of the first segment that is not sealed; later ones are found by their names.
    pub(crate) active: u64,
    /// When that one was made.
    pub(crate) active_created: Millis,
    pub(crate) recovery: RecoveryPoint,
    /// Offsets from here on were not given out; `None` where no record was readable before it was durable.
    pub(crate) ceiling: Option<u64>,
    pub(crate) state: State,
    pub(crate) producers: ProducersMark,
}

/// Where the knowledge of producers' sequences stands, apart from the frames that carry them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducersMark {
    /// Offsets of the snapshots that there are, the newest first; at most two. None as long as no producer is known.
    pub(crate) snapshots: Vec<u64>,
    /// The newest snapshot, or that there is none, says all that is to be known of frames below this offset.
    pub(crate) covers: u64,
    /// Frames below this offset may have been removed, or lost their stamps: only a snapshot at or behind it will do.
    pub(crate) floor: u64,
}

/// A segment to which nothing is appended any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedSegment {
    pub(crate) base: u64,
    /// The offset that follows its last record.
    pub(crate) end: u64,
    /// Where its last frame ends. The file may be longer, until it has been trimmed.
    pub(crate) len: u32,
    pub(crate) records: u64,
    pub(crate) newest: Millis,
    pub(crate) created: Millis,
    /// How often it was rewritten by compaction.
    pub(crate) generation: u32,
}

/// Everything before it is durable, and is not read when the partition is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecoveryPoint {
    /// Base of the segment it is in: the active one.
    pub(crate) segment: u64,
    pub(crate) pos: Pos,
    /// The offset expected there.
    pub(crate) next: u64,
    /// Records of the segment before it.
    pub(crate) records: u64,
    /// Their newest time.
    pub(crate) newest: Millis,
}

/// How a partition was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Closed, or not written to since: nothing is behind the recovery point.
    Clean,
    /// Being written to, by a process that saw this page cache.
    Open(CacheIdentity),
}

impl ProducersMark {
    /// There are no producers in any frame below this offset.
    pub(crate) fn nothing_up_to(covers: u64) -> Self {
        Self { snapshots: Vec::new(), covers, floor: 0 }
    }
}

impl Manifest {
    /// Longer than that of any partition that fits on a disk: five million segments.
    pub(crate) const LONGEST: usize = 256 << 20;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(HEAD + self.sealed.len() * SEALED);
        let mut put = |bytes: &[u8]| body.extend_from_slice(bytes);
        put(&self.ident.encode());
        put(&self.active.to_le_bytes());
        put(&self.active_created.0.to_le_bytes());
        put(&self.recovery.segment.to_le_bytes());
        put(&self.recovery.pos.0.to_le_bytes());
        put(&self.recovery.next.to_le_bytes());
        put(&self.recovery.records.to_le_bytes());
        put(&self.recovery.newest.0.to_le_bytes());
        put(&self.ceiling.unwrap_or(u64::MAX).to_le_bytes());
        let (open, identity) = match self.state {
            State::Clean => (0, CacheIdentity::default()),
            State::Open(identity) => (1, identity),
        };
        // Most logs have no producers, and say nothing about them.
        let mark = self.producers != ProducersMark::nothing_up_to(self.recovery.next);
        put(&[open | if mark { HAS_PRODUCERS } else { 0 }]);
        put(&identity.boot);
        put(&identity.mount.to_le_bytes());
        if mark {
            put(&self.producers.covers.to_le_bytes());
            put(&self.producers.floor.to_le_bytes());
            put(&[self.producers.snapshots.len().to_le_bytes()[0]]);
            for offset in &self.producers.snapshots {
                put(&offset.to_le_bytes());
            }
        }
        for segment in &self.sealed {
            put(&segment.base.to_le_bytes());
            put(&segment.end.to_le_bytes());
            put(&segment.len.to_le_bytes());
            put(&segment.records.to_le_bytes());
            put(&segment.newest.0.to_le_bytes());
            put(&segment.created.0.to_le_bytes());
            put(&segment.generation.to_le_bytes());
        }
        wrap(MAGIC, &body)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body = unwrap(MAGIC, bytes)?;
        Self::fields(Fields::new(body))
            .filter(Self::is_sound)
            .ok_or(DecodeError::Damaged { position: 12, reason: "the manifest contradicts itself" })
    }

    fn fields(mut fields: Fields<'_>) -> Option<Self> {
        let ident = fields.ident()?;
        let active = fields.u64()?;
        let active_created = Millis(fields.u64()?);
        let recovery = RecoveryPoint {
            segment: fields.u64()?,
            pos: Pos(fields.u32()?),
            next: fields.u64()?,
            records: fields.u64()?,
            newest: Millis(fields.u64()?),
        };
        let ceiling = Some(fields.u64()?).filter(|ceiling| *ceiling != u64::MAX);
        let open = fields.u8()?;
        let boot = *fields.take(16)?.first_chunk()?;
        let identity = CacheIdentity { boot, mount: fields.u64()? };
        let state = match open & !HAS_PRODUCERS {
            0 => State::Clean,
            1 => State::Open(identity),
            _ => return None,
        };
        let mut producers = ProducersMark::nothing_up_to(recovery.next);
        if open & HAS_PRODUCERS != 0 {
            (producers.covers, producers.floor) = (fields.u64()?, fields.u64()?);
            for _ in 0..fields.u8()? {
                producers.snapshots.push(fields.u64()?);
            }
        }
        let mut sealed = Vec::with_capacity(fields.remaining() / SEALED);
        while !fields.is_empty() {
            sealed.push(SealedSegment {
                base: fields.u64()?,
                end: fields.u64()?,
                len: fields.u32()?,
                records: fields.u64()?,
                newest: Millis(fields.u64()?),
                created: Millis(fields.u64()?),
                generation: fields.u32()?,
            });
        }
        Some(Self { ident, sealed, active, active_created, recovery, ceiling, state, producers })
    }

    /// Segments follow one another, the recovery point is in the active one, and positions are such as frames have.
    fn is_sound(&self) -> bool {
        let ordered = self.sealed.windows(2).all(|pair| match pair {
            [a, b] => a.end <= b.base,
            _ => true,
        });
        let whole = self.sealed.iter().all(|segment| segment.base <= segment.end && is_place(Pos(segment.len)));
        let last = self.sealed.last().is_none_or(|last| last.end <= self.active);
        let point = &self.recovery;
        let begun = point.segment == self.active && point.next >= self.active && is_place(point.pos);
        let mark = &self.producers;
        let covered = mark.floor <= mark.covers && mark.covers <= point.next;
        let newest_first = mark.snapshots.is_sorted_by(|a, b| a > b);
        ordered && whole && last && begun && covered && newest_first
    }
}

/// Whether a frame may begin here, or end.
fn is_place(pos: Pos) -> bool {
    pos.index() >= SegmentHeader::LEN && pos.0.is_multiple_of(8)
}
