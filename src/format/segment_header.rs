//! The first 64 bytes of a segment.

use std::fmt;

use crate::format::fields::Fields;
use crate::format::{Ident, VERSION};
use crate::types::{LogId, Millis};

const MAGIC: [u8; 8] = *b"PLMKSEG1";

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) ident: Ident,
    /// The offset that its frames' offsets count from.
    pub(crate) base: u64,
    pub(crate) created: Millis,
}

/// Why the first bytes of a file are no segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Fewer than a header's bytes.
    Short,
    /// Nothing was ever written there.
    Zero,
    /// The checksum does not match.
    Damaged,
    /// Another version wrote it.
    Version(u32),
}

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("cut short"),
            Self::Zero => f.write_str("all zeros"),
            Self::Damaged => f.write_str("damaged"),
            Self::Version(found) => write!(f, "of version {found}"),
        }
    }
}

impl SegmentHeader {
    /// Bytes of the header.
    pub(crate) const LEN: usize = 64;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields: [&[u8]; 9] = [
            &MAGIC,
            &VERSION.to_le_bytes(),
            &self.ident.log.0.to_le_bytes(),
            &self.ident.store.to_le_bytes(),
            &self.ident.partition.to_le_bytes(),
            &[0; 4],
            &self.base.to_le_bytes(),
            &self.created.0.to_le_bytes(),
            &[0; 4],
        ];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        if let Some((covered, crc)) = bytes.split_last_chunk_mut::<4>() {
            *crc = crc32fast::hash(covered).to_le_bytes();
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let bytes = bytes.get(..Self::LEN).ok_or(HeaderFault::Short)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(HeaderFault::Zero);
        }
        let (covered, crc) = bytes.split_last_chunk::<4>().ok_or(HeaderFault::Short)?;
        let mut fields = Fields::new(bytes);
        let magic = fields.take(8).ok_or(HeaderFault::Short)?;
        let version = fields.u32().ok_or(HeaderFault::Short)?;
        if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
            let other = magic == MAGIC && version != VERSION && (1..1 << 16).contains(&version);
            return Err(if other { HeaderFault::Version(version) } else { HeaderFault::Damaged });
        }
        if magic != MAGIC {
            return Err(HeaderFault::Damaged);
        }
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        Self::fields(fields).ok_or(HeaderFault::Short)
    }

    fn fields(mut fields: Fields<'_>) -> Option<Self> {
        let log = LogId(fields.u32()?);
        let store = fields.u128()?;
        let partition = fields.u32()?;
        fields.take(4)?;
        let base = fields.u64()?;
        let created = Millis(fields.u64()?);
        Some(Self { ident: Ident { store, log, partition }, base, created })
    }
}
