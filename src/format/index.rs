//! The file beside a segment: where some of its frames are.

use crate::format::Ident;
use crate::format::fields::{Fields, unwrap, wrap};
use crate::types::{LogId, Millis, Pos};

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

const ENTRY: usize = 20;

/// The index of a segment whose frames end at `covered`.
pub(crate) fn encode_index(ident: &Ident, base: u64, covered: u32, entries: &[IndexEntry]) -> Vec<u8> {
    let mut body = Vec::with_capacity(36 + entries.len() * ENTRY);
    body.extend_from_slice(&ident.store.to_le_bytes());
    body.extend_from_slice(&ident.log.0.to_le_bytes());
    body.extend_from_slice(&ident.partition.to_le_bytes());
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
    let store = fields.u128()?;
    let log = LogId(fields.u32()?);
    let partition = fields.u32()?;
    if (Ident { store, log, partition }) != *ident || fields.u64()? != base {
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
