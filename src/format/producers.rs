//! What a partition knows of its producers, as it stands in a snapshot.

use crate::format::fields::{Fields, begin, end, is_other_version};
use crate::format::{DecodeError, Ident, ProducerStamp, VERSION};

const MAGIC: [u8; 8] = *b"PLMKPRD1";

/// So many runs are known of each producer. A run has at least one record, so that the positions of the newest five
/// records are always known.
const RUNS: usize = 5;

/// Most bytes of a producer in a snapshot.
pub(crate) const KNOWN_LEN: usize = 4 + 4 + 1 + RUNS * (8 + 8 + 4);

/// So many of them are older than the newest.
const OLDER: usize = RUNS - 1;

/// What a partition knows of one producer: its newest runs. A run is what one frame holds: records with consecutive
/// sequences at consecutive offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: u32,
    pub(crate) epoch: u32,
    // By field, and not as a run, so that nothing is lost to padding: there may be a million of these.
    sequence: u64,
    offset: u64,
    count: u32,
    older: Older,
}

const _: () = assert!(size_of::<Known>() <= 80);

/// One run. Without a record it stands for none, and none is behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Run {
    sequence: u64,
    offset: u64,
    count: u32,
}

/// The runs before the newest, the newest of them first.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Older {
    Near([Step; OLDER]),
    /// Where one is too large for a step, or too far below the one that followed it.
    Far(Box<[Run; OLDER]>),
}

/// A run by how far it is below the one that followed it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, packed(2))]
struct Step {
    sequence: u32,
    offset: u32,
    count: u16,
}

impl Step {
    #[inline]
    fn to(run: &Run, following: &Run) -> Option<Self> {
        Some(Self {
            sequence: u32::try_from(following.sequence.checked_sub(run.sequence)?).ok()?,
            offset: u32::try_from(following.offset.checked_sub(run.offset)?).ok()?,
            count: u16::try_from(run.count).ok()?,
        })
    }

    fn from(self, following: &Run) -> Run {
        Run {
            sequence: following.sequence.saturating_sub(self.sequence.into()),
            offset: following.offset.saturating_sub(self.offset.into()),
            count: self.count.into(),
        }
    }
}

impl Older {
    /// These runs, which stand before `newest`.
    fn before(newest: &Run, runs: [Run; OLDER]) -> Self {
        let (mut steps, mut following) = ([Step::default(); OLDER], newest);
        for (step, run) in steps.iter_mut().zip(&runs).take_while(|(_, run)| run.count > 0) {
            match Step::to(run, following) {
                Some(to) => *step = to,
                None => return Self::Far(Box::new(runs)),
            }
            following = run;
        }
        Self::Near(steps)
    }
}

impl Known {
    /// The first that is known of a producer: one frame.
    pub(crate) fn first(stamp: &ProducerStamp, offset: u64, count: u32) -> Self {
        let ProducerStamp { id, epoch, sequence } = *stamp;
        Self { id, epoch, sequence, offset, count, older: Older::Near([Step::default(); OLDER]) }
    }

    /// Takes in one frame more.
    #[inline]
    pub(crate) fn push(&mut self, stamp: &ProducerStamp, offset: u64, count: u32) {
        let (last, newest) = (self.newest_run(), Run { sequence: stamp.sequence, offset, count });
        match (&mut self.older, Step::to(&last, &newest)) {
            (Older::Near(steps), Some(step)) => {
                steps.copy_within(..OLDER - 1, 1);
                steps[0] = step;
            }
            _ => self.push_far(&newest),
        }
        (self.sequence, self.offset, self.count) = (newest.sequence, newest.offset, newest.count);
        self.epoch = stamp.epoch;
    }

    /// What was known becomes older than `newest`, and is near or far anew.
    #[cold]
    fn push_far(&mut self, newest: &Run) {
        let mut older = [Run::default(); OLDER];
        for (slot, run) in older.iter_mut().zip(self.runs()) {
            *slot = run;
        }
        self.older = Older::before(newest, older);
    }

    /// The newest sequence.
    #[inline]
    pub(crate) fn newest(&self) -> u64 {
        self.sequence.saturating_add(u64::from(self.count.saturating_sub(1)))
    }

    /// The offset that follows the newest record.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.count))
    }

    /// The offset of the record with this sequence, if it is one of the newest runs'.
    pub(crate) fn find(&self, sequence: u64) -> Option<u64> {
        let found = |run: Run| {
            let at = sequence.checked_sub(run.sequence).filter(|at| *at < u64::from(run.count))?;
            run.offset.checked_add(at)
        };
        self.runs().find_map(found)
    }

    #[inline]
    fn newest_run(&self) -> Run {
        Run { sequence: self.sequence, offset: self.offset, count: self.count }
    }

    /// The newest first.
    fn runs(&self) -> impl Iterator<Item = Run> + use<> {
        let newest = self.newest_run();
        let mut following = newest;
        let older = match &self.older {
            Older::Far(runs) => **runs,
            Older::Near(steps) => steps.map(|step| {
                following = step.from(&following);
                following
            }),
        };
        std::iter::once(newest).chain(older).take_while(|run| run.count > 0)
    }

    /// Adds it to a snapshot that was begun.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.push(self.runs().map(|_| 1_u8).sum());
        for run in self.runs() {
            out.extend_from_slice(&run.sequence.to_le_bytes());
            out.extend_from_slice(&run.offset.to_le_bytes());
            out.extend_from_slice(&run.count.to_le_bytes());
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let (id, epoch, runs) = (fields.u32()?, fields.u32()?, fields.u8()?);
        let mut run = || {
            let run = Run { sequence: fields.u64()?, offset: fields.u64()?, count: fields.u32()? };
            Some(run).filter(|run| run.count > 0)
        };
        let older_runs = usize::from(runs).checked_sub(1)?;
        let newest = run()?;
        let mut older = [Run::default(); OLDER];
        for slot in older.get_mut(..older_runs)? {
            *slot = run()?;
        }
        let Run { sequence, offset, count } = newest;
        Some(Self { id, epoch, sequence, offset, count, older: Older::before(&newest, older) })
    }
}

/// Begins a snapshot of what a partition knows at `offset`: [`Known::encode`] adds to it, [`end_snapshot`] ends it, and
/// [`SnapshotReader`] reads it.
pub(crate) fn begin_snapshot(ident: &Ident, offset: u64, capacity: usize) -> Vec<u8> {
    let mut out = begin(MAGIC, capacity + 64);
    out.extend_from_slice(&ident.encode());
    out.extend_from_slice(&offset.to_le_bytes());
    out
}

pub(crate) fn end_snapshot(out: Vec<u8>) -> Vec<u8> {
    end(out)
}

/// Reads the snapshot of a partition at an offset piece by piece, so that it is never in memory whole.
#[derive(Debug)]
pub(crate) struct SnapshotReader {
    ident: Ident,
    offset: u64,
    crc: crc32fast::Hasher,
    /// Whether what stands before the producers was read.
    begun: bool,
}

/// What stands before the producers, and behind them.
const HEAD: usize = MAGIC.len() + 4 + Ident::LEN + 8;
const CRC_LEN: usize = 4;

impl SnapshotReader {
    pub(crate) fn new(ident: Ident, offset: u64) -> Self {
        Self { ident, offset, crc: crc32fast::Hasher::new(), begun: false }
    }

    /// Takes in bytes, the `last` ones or not, and returns how many of them: the rest belongs to what comes next. Whether
    /// what it gives to `known` is what was written is known at the end only.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        last: bool,
        mut known: impl FnMut(Known),
    ) -> Result<usize, DecodeError> {
        let damaged = |reason| DecodeError::Damaged { position: 0, reason };
        let mut fields = Fields::new(bytes);
        if !self.begun && bytes.len() >= HEAD + CRC_LEN {
            self.begin(&mut fields)?;
            self.begun = true;
        }
        // The longest that there can be, with the checksum behind it: so that none is taken for a part of one.
        let kept = if last { CRC_LEN } else { KNOWN_LEN + CRC_LEN - 1 };
        while self.begun && fields.remaining() > kept {
            known(Known::decode(&mut fields).ok_or_else(|| damaged("the snapshot contradicts itself"))?);
        }
        let taken = bytes.len() - fields.remaining();
        self.crc.update(bytes.get(..taken).unwrap_or_default());
        if last {
            let sum = fields.u32().filter(|_| self.begun && fields.is_empty());
            let sum = sum.ok_or_else(|| damaged("the snapshot ends in the middle"))?;
            if sum != self.crc.clone().finalize() {
                return Err(damaged("the snapshot's checksum does not match"));
            }
        }
        Ok(taken)
    }

    fn begin(&self, fields: &mut Fields<'_>) -> Result<(), DecodeError> {
        let damaged = |reason| Err(DecodeError::Damaged { position: 0, reason });
        if fields.take(MAGIC.len()) != Some(&MAGIC) {
            return damaged("the file does not begin as one of its kind does");
        }
        match fields.u32() {
            Some(VERSION) => {}
            Some(found) if is_other_version(found) => return Err(DecodeError::Version { found }),
            _ => return damaged("the snapshot's checksum does not match"),
        }
        if fields.ident() != Some(self.ident) || fields.u64() != Some(self.offset) {
            return damaged("the snapshot is that of another partition, or of another offset");
        }
        Ok(())
    }
}

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

    /// Reads a snapshot of which so many bytes come at a time.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Known>, DecodeError> {
        let mut reader = SnapshotReader::new(IDENT, 99);
        let (mut all, mut taken, mut come) = (Vec::new(), 0, 0);
        while come < bytes.len() {
            come = (come + piece).min(bytes.len());
            taken += reader.take(&bytes[taken..come], false, |known| all.push(known))?;
        }
        reader.take(&bytes[taken..], true, |known| all.push(known))?;
        Ok(all)
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

    /// Sequences may be anything that grows: a count, a place in a file, a time in nanoseconds.
    #[test]
    fn runs_are_known_however_large_and_however_far_apart() {
        let (far, large) = (u64::from(u32::MAX) + 1, u32::from(u16::MAX) + 1);
        let steps = [(1, 1), (far, 1), (1, large), (far - 1, large - 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1)];
        let mut runs = vec![(7, 70, 2)];
        let mut known = Known::first(&stamp(1, 7), 70, 2);
        for (apart, count) in steps {
            let (sequence, offset, last) = *runs.last().unwrap();
            let run = (sequence + u64::from(last) + apart, offset + u64::from(last) + apart, count);
            runs.push(run);
            known.push(&stamp(1, run.0), run.1, run.2);
            let newest: Vec<_> = runs.iter().rev().take(RUNS).copied().collect();
            let found: Vec<_> = known.runs().map(|run| (run.sequence, run.offset, run.count)).collect();
            assert_eq!(found, newest);
            for (sequence, offset, count) in newest {
                let last = u64::from(count) - 1;
                assert_eq!([0, last].map(|at| known.find(sequence + at)), [0, last].map(|at| Some(offset + at)));
                assert_eq!(known.find(sequence + last + 1), None);
            }
            assert_eq!(read(&snapshot(std::slice::from_ref(&known)), 500).unwrap(), [known.clone()]);
        }
        assert!(matches!(known.older, Older::Near(_)), "what is near again is kept so");
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
        for piece in 1..300 {
            assert_eq!(read(&bytes, piece).unwrap(), all, "in pieces of {piece}");
        }
        assert_eq!(read(&snapshot(&[]), 500).unwrap(), []);
        let of_another = |ident, offset| SnapshotReader::new(ident, offset).take(&bytes, true, |_| {}).is_err();
        assert!(of_another(IDENT, 98) && of_another(Ident { partition: 1, ..IDENT }, 99));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let bytes = snapshot(&[Known::first(&stamp(1, 5), 0, 1), Known::first(&stamp(2, 5), 1, 1)]);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            for piece in [7, 500] {
                assert!(read(&flipped, piece).is_err(), "byte {at}");
                assert!(read(&bytes[..at], piece).is_err(), "cut to {at}");
            }
        }
    }
}
