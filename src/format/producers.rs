//! What a partition knows of its producers, as it stands in a snapshot.

use crate::format::fields::{Fields, begin, end, unwrap};
use crate::format::{DecodeError, Ident, ProducerStamp};

const MAGIC: [u8; 8] = *b"PLMKPRD1";

/// So many runs are known of each producer. A run has at least one record, so that the positions of the newest five
/// records are always known.
const RUNS: usize = 5;

/// Most bytes of a producer in a snapshot.
pub(crate) const KNOWN_LEN: usize = 4 + 4 + 1 + RUNS * (8 + 8 + 4);

/// What a partition knows of one producer: its newest runs, the newest first. A run is what one frame holds: records
/// with consecutive sequences at consecutive offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: u32,
    pub(crate) epoch: u32,
    // By field, and not by run, so that nothing is lost to padding: there may be a million of these.
    sequences: [u64; RUNS],
    offsets: [u64; RUNS],
    counts: [u32; RUNS],
    runs: u8,
}

const _: () = assert!(size_of::<Known>() <= 112);

impl Known {
    /// The first that is known of a producer: one frame.
    pub(crate) fn first(stamp: &ProducerStamp, offset: u64, count: u32) -> Self {
        let mut known = Self {
            id: stamp.id,
            epoch: stamp.epoch,
            sequences: [0; RUNS],
            offsets: [0; RUNS],
            counts: [0; RUNS],
            runs: 0,
        };
        known.push(stamp, offset, count);
        known
    }

    /// Takes in one frame more.
    #[inline]
    pub(crate) fn push(&mut self, stamp: &ProducerStamp, offset: u64, count: u32) {
        self.epoch = stamp.epoch;
        self.sequences.copy_within(..RUNS - 1, 1);
        self.offsets.copy_within(..RUNS - 1, 1);
        self.counts.copy_within(..RUNS - 1, 1);
        (self.sequences[0], self.offsets[0], self.counts[0]) = (stamp.sequence, offset, count);
        self.runs = (self.runs + 1).min(RUNS.to_le_bytes()[0]);
    }

    /// The newest sequence.
    #[inline]
    pub(crate) fn newest(&self) -> u64 {
        self.sequences[0].saturating_add(u64::from(self.counts[0].saturating_sub(1)))
    }

    /// The offset that follows the newest record.
    pub(crate) fn end(&self) -> u64 {
        self.offsets[0].saturating_add(u64::from(self.counts[0]))
    }

    /// The offset of the record with this sequence, if it is one of the newest runs'.
    pub(crate) fn find(&self, sequence: u64) -> Option<u64> {
        let found = |(first, offset, count): (u64, u64, u32)| {
            let at = sequence.checked_sub(first).filter(|at| *at < u64::from(count))?;
            offset.checked_add(at)
        };
        self.runs().find_map(found)
    }

    fn runs(&self) -> impl Iterator<Item = (u64, u64, u32)> {
        let runs = self.sequences.iter().zip(&self.offsets).zip(&self.counts);
        runs.map(|((sequence, offset), count)| (*sequence, *offset, *count)).take(usize::from(self.runs))
    }

    /// Adds it to a snapshot that was begun.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.push(self.runs);
        for (sequence, offset, count) in self.runs() {
            out.extend_from_slice(&sequence.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let (id, epoch, runs) = (fields.u32()?, fields.u32()?, fields.u8()?);
        let mut known = Self { id, epoch, sequences: [0; RUNS], offsets: [0; RUNS], counts: [0; RUNS], runs: 0 };
        if runs == 0 || usize::from(runs) > RUNS {
            return None;
        }
        let slots = known.sequences.iter_mut().zip(&mut known.offsets).zip(&mut known.counts);
        for ((sequence, offset), count) in slots.take(usize::from(runs)) {
            (*sequence, *offset, *count) = (fields.u64()?, fields.u64()?, fields.u32()?);
        }
        known.runs = runs;
        known.runs().all(|(_, _, count)| count > 0).then_some(known)
    }
}

/// Begins a snapshot of what a partition knows at `offset`: [`Known::encode`] adds to it, [`end_snapshot`] ends it.
pub(crate) fn begin_snapshot(ident: &Ident, offset: u64, capacity: usize) -> Vec<u8> {
    let mut out = begin(MAGIC, capacity + 64);
    out.extend_from_slice(&ident.encode());
    out.extend_from_slice(&offset.to_le_bytes());
    out
}

pub(crate) fn end_snapshot(out: Vec<u8>) -> Vec<u8> {
    end(out)
}

/// The producers in a snapshot, which must be that of this partition at this offset.
pub(crate) fn decode_snapshot<'a>(
    bytes: &'a [u8],
    ident: &Ident,
    offset: u64,
) -> Result<impl ExactSizeIterator<Item = Known> + use<'a>, DecodeError> {
    let damaged = |reason| DecodeError::Damaged { position: 12, reason };
    let mut fields = Fields::new(unwrap(MAGIC, bytes)?);
    let whose = |fields: &mut Fields<'_>| Some((fields.ident()?, fields.u64()?));
    if whose(&mut fields) != Some((*ident, offset)) {
        return Err(damaged("the snapshot is that of another partition, or of another offset"));
    }
    // Counted first: all of it is sound before any of it is used, and the list that takes it has its final size.
    let (mut rest, mut count) = (fields, 0);
    while !rest.is_empty() {
        Known::decode(&mut rest).ok_or_else(|| damaged("the snapshot contradicts itself"))?;
        count += 1;
    }
    Ok(Decoded { fields, count })
}

struct Decoded<'a> {
    fields: Fields<'a>,
    count: usize,
}

impl Iterator for Decoded<'_> {
    type Item = Known;

    fn next(&mut self) -> Option<Known> {
        let known = Known::decode(&mut self.fields)?;
        self.count -= 1;
        Some(known)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Decoded<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogId;

    const IDENT: Ident = Ident { store: 7, log: LogId(16), partition: 2 };

    fn stamp(id: u32, sequence: u64) -> ProducerStamp {
        ProducerStamp { id, epoch: 3, sequence }
    }

    fn snapshot(all: &[Known]) -> Vec<u8> {
        let mut out = begin_snapshot(&IDENT, 99, 0);
        for known in all {
            known.encode(&mut out);
        }
        end_snapshot(out)
    }

    #[test]
    fn the_newest_five_runs_are_known_and_found_by_sequence() {
        let mut known = Known::first(&stamp(1, 10), 100, 3);
        assert_eq!((known.newest(), known.end()), (12, 103));
        assert_eq!([9, 10, 12, 13].map(|at| known.find(at)), [None, Some(100), Some(102), None]);
        for run in 0..5 {
            known.push(&stamp(1, 20 + run * 2), 200 + run, 1);
        }
        assert_eq!((known.newest(), known.end()), (28, 205));
        let found: Vec<_> = (10..30).filter_map(|at| known.find(at)).collect();
        assert_eq!(found, [200, 201, 202, 203, 204]);
    }

    #[test]
    fn a_snapshot_reads_back_and_only_as_its_own() {
        let mut all: Vec<Known> = (1..50).map(|id| Known::first(&stamp(id, 5), u64::from(id), 2)).collect();
        for known in all.iter_mut().step_by(3) {
            for run in 0..7 {
                known.push(&stamp(known.id, 100 + run), 1000 + run, 1);
            }
        }
        let bytes = snapshot(&all);
        let read = decode_snapshot(&bytes, &IDENT, 99).unwrap();
        assert_eq!(read.len(), all.len());
        assert_eq!(read.collect::<Vec<_>>(), all);
        assert!(decode_snapshot(&bytes, &IDENT, 98).is_err());
        assert!(decode_snapshot(&bytes, &Ident { partition: 1, ..IDENT }, 99).is_err());
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let bytes = snapshot(&[Known::first(&stamp(1, 5), 0, 1), Known::first(&stamp(2, 5), 1, 1)]);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(decode_snapshot(&flipped, &IDENT, 99).is_err(), "byte {at}");
            assert!(decode_snapshot(&bytes[..at], &IDENT, 99).is_err(), "cut to {at}");
        }
    }
}
