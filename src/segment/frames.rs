//! Frames one after the other: in a mapping, and in a file read piece by piece.

#[cfg(test)]
mod tests;

use std::path::Path;

use crate::Result;
use crate::error::At;
use crate::format::{FRAME_HEADER, FrameHeader, PARSED, Seed, verify_frame};
use crate::storage::File;
use crate::types::Pos;

/// A frame where it stands. Its bytes lie within the segment; its checksum may not have been looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) pos: Pos,
    pub(crate) header: FrameHeader,
    /// All of it, header included, without the padding.
    pub(crate) bytes: &'a [u8],
}

impl Frame<'_> {
    /// Where the next frame begins.
    #[inline]
    pub(crate) fn next(&self) -> Pos {
        Pos(self.pos.0.saturating_add(self.header.length)).aligned()
    }

    /// Its first offset, in a segment with this base.
    #[inline]
    pub(crate) fn base(&self, segment: u64) -> u64 {
        segment.saturating_add(u64::from(self.header.offset_delta))
    }

    /// The offset that follows its last record.
    #[inline]
    pub(crate) fn end(&self, segment: u64) -> u64 {
        self.base(segment).saturating_add(u64::from(self.header.span))
    }

    /// Whether its checksum holds at this place.
    #[inline]
    pub(crate) fn is_intact(&self, seed: Seed) -> bool {
        verify_frame(self.bytes, seed, self.pos)
    }
}

/// What stands at `pos`, if a frame that ends within `bytes` may: lengths are checked, the checksum is not.
#[inline]
pub(crate) fn frame_at(bytes: &[u8], pos: Pos) -> Option<Frame<'_>> {
    let rest = bytes.get(pos.index()..)?;
    let header = FrameHeader::parse(rest)?;
    let bytes = rest.get(..usize::try_from(header.length).ok()?)?;
    Some(Frame { pos, header, bytes })
}

/// The first intact frame at or behind `from`. Every eighth byte is tried; the check in the header makes that cheap,
/// and keeps what a record holds from costing a checksum at each step.
pub(crate) fn find_frame(bytes: &[u8], seed: Seed, from: Pos) -> Option<Frame<'_>> {
    let mut pos = from.aligned();
    while pos.index() + FRAME_HEADER <= bytes.len() {
        if let Some(frame) = frame_at(bytes, pos)
            && frame.header.plausible(seed, pos)
            && frame.is_intact(seed)
        {
            return Some(frame);
        }
        pos = Pos(pos.0 + 8);
    }
    None
}

/// Reads a file with `read(2)` through a buffer that grows to the largest frame met, never past what the file has.
#[derive(Debug)]
pub(crate) struct FrameReader<'a> {
    file: &'a dyn File,
    path: &'a Path,
    /// Bytes of the file that may hold frames.
    len: u64,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    start: u64,
}

/// So much is read at a time.
const PIECE: usize = 1 << 20;

impl<'a> FrameReader<'a> {
    pub(crate) fn new(file: &'a dyn File, path: &'a Path) -> Result<Self> {
        let len = file.len().at(path)?.min(u64::from(u32::MAX));
        Ok(Self { file, path, len, buffer: Vec::new(), start: 0 })
    }

    /// What stands at `pos`, if its header is one for this place and it ends within the file. The checksum is not
    /// looked at, and nothing behind the header is read before its own check holds: a length that is wrong costs nothing.
    pub(crate) fn frame_at(&mut self, seed: Seed, pos: Pos) -> Result<Option<Frame<'_>>> {
        let header = FrameHeader::parse(self.bytes(pos, PARSED)?).filter(|header| header.plausible(seed, pos));
        let Some(header) = header else { return Ok(None) };
        let Ok(length) = usize::try_from(header.length) else { return Ok(None) };
        if u64::from(pos.0) + u64::from(header.length) > self.len {
            return Ok(None);
        }
        let bytes = self.bytes(pos, length)?;
        Ok((bytes.len() == length).then_some(Frame { pos, header, bytes }))
    }

    /// The first intact frame at or behind `from`.
    pub(crate) fn find_frame(&mut self, seed: Seed, from: Pos) -> Result<Option<Frame<'_>>> {
        let mut pos = from.aligned();
        while u64::from(pos.0) + FRAME_HEADER as u64 <= self.len {
            if self.frame_at(seed, pos)?.is_some_and(|frame| frame.is_intact(seed)) {
                return self.frame_at(seed, pos);
            }
            pos = Pos(pos.0 + 8);
        }
        Ok(None)
    }

    /// Where the last byte that is not zero ends, at or behind `from`; `from` when all are zero.
    pub(crate) fn last_written(&mut self, from: Pos) -> Result<Pos> {
        let mut last = from;
        let mut at = u64::from(from.0);
        while at < self.len {
            let position = Pos(u32::try_from(at).unwrap_or(u32::MAX));
            let piece = self.bytes(position, PIECE)?;
            if piece.is_empty() {
                break;
            }
            if let Some(found) = last_written(piece) {
                last = Pos(position.0 + u32::try_from(found + 1).unwrap_or(u32::MAX));
            }
            at += piece.len() as u64;
        }
        Ok(last)
    }

    /// Up to `len` bytes from `pos`; fewer only at the end of the file.
    pub(crate) fn bytes(&mut self, pos: Pos, len: usize) -> Result<&[u8]> {
        let from = u64::from(pos.0);
        let wanted = usize::try_from(self.len.saturating_sub(from)).unwrap_or(usize::MAX).min(len);
        let begins = from.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let held = begins.is_some_and(|at| at + wanted <= self.buffer.len());
        if !held {
            self.fill(from, wanted.max(PIECE))?;
        }
        let at = usize::try_from(from - self.start).unwrap_or(usize::MAX);
        let rest = self.buffer.get(at..).unwrap_or_default();
        Ok(rest.get(..wanted).unwrap_or(rest))
    }

    /// Reads on, from `from`. What is held already of what is wanted is kept: nothing is read twice by a walk.
    fn fill(&mut self, from: u64, len: usize) -> Result<()> {
        let len = usize::try_from(self.len.saturating_sub(from)).unwrap_or(usize::MAX).min(len);
        let passed = from.checked_sub(self.start).and_then(|passed| usize::try_from(passed).ok());
        let passed = passed.map_or(self.buffer.len(), |passed| passed.min(self.buffer.len()));
        let mut read = self.buffer.len() - passed;
        self.buffer.copy_within(passed.., 0);
        self.buffer.resize(len, 0);
        self.start = from;
        while let Some(space) = self.buffer.get_mut(read..).filter(|space| !space.is_empty()) {
            match self.file.read_at(space, from + read as u64).at(self.path)? {
                0 => break,
                count => read += count,
            }
        }
        self.buffer.truncate(read);
        Ok(())
    }
}

/// Where the last byte that is not zero is. Zeros are compared by the page, which is as fast as they are read.
fn last_written(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    for page in bytes.rchunks(ZEROS.len()) {
        end -= page.len();
        if ZEROS.get(..page.len()) != Some(page) {
            return page.iter().rposition(|byte| *byte != 0).map(|at| end + at);
        }
    }
    None
}
