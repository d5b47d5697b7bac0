//! The first 64 bytes of a segment.

use std::fmt;

use crate::format::fields::{get, is_other_version, put};
use crate::format::{Ident, VERSION};
use crate::types::{LogId, Millis};

const MAGIC: [u8; 8] = *b"PLMKSEG1";

const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + 8;
const LOG: usize = VERSION_AT + 4;
const STORE: usize = LOG + 4;
const PARTITION: usize = STORE + 16;
// Four bytes that are zero, so that what follows is aligned.
const BASE: usize = PARTITION + 4 + 4;
const CREATED: usize = BASE + 8;
// Four more.
const CRC: usize = CREATED + 8 + 4;

const _: () = assert!(CRC + 4 == SegmentHeader::LEN);
const _: () = assert!(STORE.is_multiple_of(16) && BASE.is_multiple_of(8) && CREATED.is_multiple_of(8));
const _: () = assert!(SegmentHeader::LEN.is_multiple_of(8), "the first frame stands behind it");

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
        put(&mut bytes, MAGIC_AT, MAGIC);
        put(&mut bytes, VERSION_AT, VERSION.to_le_bytes());
        put(&mut bytes, LOG, self.ident.log.0.to_le_bytes());
        put(&mut bytes, STORE, self.ident.store.to_le_bytes());
        put(&mut bytes, PARTITION, self.ident.partition.to_le_bytes());
        put(&mut bytes, BASE, self.base.to_le_bytes());
        put(&mut bytes, CREATED, self.created.0.to_le_bytes());
        let crc = bytes.first_chunk::<CRC>().map_or(0, |covered| crc32fast::hash(covered));
        put(&mut bytes, CRC, crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let bytes = bytes.get(..Self::LEN).ok_or(HeaderFault::Short)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(HeaderFault::Zero);
        }
        let (covered, crc) = bytes.split_last_chunk::<4>().ok_or(HeaderFault::Short)?;
        let magic = get(bytes, MAGIC_AT) == Some(MAGIC);
        let version = get(bytes, VERSION_AT).map_or(0, u32::from_le_bytes);
        if !magic || crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
            let other = magic && is_other_version(version);
            return Err(if other { HeaderFault::Version(version) } else { HeaderFault::Damaged });
        }
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        Self::fields(bytes).ok_or(HeaderFault::Short)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let ident = Ident {
            store: get(bytes, STORE).map(u128::from_le_bytes)?,
            log: LogId(get(bytes, LOG).map(u32::from_le_bytes)?),
            partition: get(bytes, PARTITION).map(u32::from_le_bytes)?,
        };
        let base = get(bytes, BASE).map(u64::from_le_bytes)?;
        let created = Millis(get(bytes, CREATED).map(u64::from_le_bytes)?);
        Some(Self { ident, base, created })
    }
}
