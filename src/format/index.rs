//! The file beside a segment: where some of its frames are.

use crate::format::Ident;
use crate::format::fields::{AROUND, Fields, unwrap, wrap};
use crate::types::{Millis, Pos};

const MAGIC: [u8; 8] = *b"PLMKIDX1";

/// A frame that is found without a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Its first offset.
    pub(crate) offset: u64,
    /// Where it begins.
    pub(crate) pos: Pos,
    /// The newest time of all records before it in the segment.
    pub(crate) newest_before: Millis,
}

/// Whose index it is, and what it covers.
const HEAD: usize = Ident::LEN + 8 + 4;
/// One entry.
const ENTRY: usize = 8 + 4 + 8;

/// Length of the file of an index with so many entries.
pub(crate) const fn index_len(entries: usize) -> usize {
    AROUND + HEAD + entries * ENTRY
}

/// The index of a segment whose frames end at `covered`.
pub(crate) fn encode_index(ident: &Ident, base: u64, covered: u32, entries: &[IndexEntry]) -> Vec<u8> {
    let mut body = Vec::with_capacity(HEAD + entries.len() * ENTRY);
    body.extend_from_slice(&ident.encode());
    body.extend_from_slice(&base.to_le_bytes());
    body.extend_from_slice(&covered.to_le_bytes());
    for entry in entries {
        body.extend_from_slice(&entry.offset.to_le_bytes());
        body.extend_from_slice(&entry.pos.0.to_le_bytes());
        body.extend_from_slice(&entry.newest_before.0.to_le_bytes());
    }
    wrap(MAGIC, &body)
}

/// What the index covers, and its entries; `None` when it is not the intact index of this segment.
pub(crate) fn decode_index(bytes: &[u8], ident: &Ident, base: u64) -> Option<(u32, Vec<IndexEntry>)> {
    let mut fields = Fields::new(unwrap(MAGIC, bytes).ok()?);
    if fields.ident()? != *ident || fields.u64()? != base {
        return None;
    }
    let covered = fields.u32()?;
    let mut entries = Vec::with_capacity(fields.remaining() / ENTRY);
    while !fields.is_empty() {
        let offset = fields.u64()?;
        let pos = Pos(fields.u32()?);
        entries.push(IndexEntry { offset, pos, newest_before: Millis(fields.u64()?) });
    }
    Some((covered, entries))
}
