#![doc = include_str!("format.md")]

mod fields;
mod frame;
mod index;
mod journal;
mod log_file;
mod manifest;
mod producers;
mod record;
mod segment_header;
mod side;
mod store_file;
#[cfg(test)]
mod tests;

pub(crate) use frame::{
    FRAME_HEADER, FrameHeader, FrameStamp, MAX_FRAME_RECORDS, PARSED, ProducerStamp, frame_len, frame_len_of,
    seal_frame, verify_frame,
};
pub(crate) use index::{IndexEntry, decode_index, encode_index, index_len};
pub(crate) use journal::{DecidedPlacemark, Decision, Part};
pub(crate) use log_file::LogFile;
pub(crate) use manifest::{Manifest, ProducersMark, RecoveryPoint, SealedSegment, State};
pub(crate) use producers::{KNOWN_LEN, Known, SnapshotReader, begin_snapshot, end_snapshot};
pub(crate) use record::{
    HeaderIter, RawRecord, RawValue, decode_record, decode_value, encode_keyed, encode_record, encode_value, headers,
    keyed_len, record_len, value_len, with_time,
};
pub(crate) use segment_header::{HeaderFault, SegmentHeader};
pub(crate) use side::{Metadata, SideKey, SideValue, Trial};
pub(crate) use store_file::StoreFile;

use crate::types::{LogId, Pos};
use fields::put;

/// Version of everything written by this crate.
pub(crate) const VERSION: u32 = 1;

/// Whose segment it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ident {
    pub(crate) store: u128,
    pub(crate) log: LogId,
    pub(crate) partition: u32,
}

impl Ident {
    const LEN: usize = 16 + 4 + 4;

    /// As it stands in the small files.
    fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        put(&mut bytes, 0, self.store.to_le_bytes());
        put(&mut bytes, 16, self.log.0.to_le_bytes());
        put(&mut bytes, 20, self.partition.to_le_bytes());
        bytes
    }
}

/// What the checksum of every frame of a segment begins with, so that a frame copied from elsewhere does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(ident: &Ident, base: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&ident.encode());
        hasher.update(&base.to_le_bytes());
        Self(hasher.finalize())
    }

    /// The start value for a frame at `pos`: a frame moved within its segment does not pass either.
    #[inline]
    fn at(self, pos: Pos) -> u32 {
        self.0 ^ pos.0
    }
}

/// Why a small file of ours does not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// Another version wrote it.
    Version { found: u32 },
    /// Its bytes are not what was written.
    Damaged { position: u64, reason: &'static str },
}
