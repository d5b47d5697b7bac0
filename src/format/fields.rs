//! Numbers and strings in bytes: the frame around every small file, and a reader that never reads past the end.

use crate::format::{DecodeError, Ident, VERSION};
use crate::types::LogId;

/// Writes a field of a fixed place. There must be room: fields lie within what their constants say.
#[inline]
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *field = value;
    }
}

/// A field of a fixed place.
#[inline]
pub(super) fn get<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Takes values off the front of a slice; `None` when too few bytes are left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// Store, log and partition.
    pub(super) fn ident(&mut self) -> Option<Ident> {
        Some(Ident { store: self.u128()?, log: LogId(self.u32()?), partition: self.u32()? })
    }

    /// A number of one to ten bytes, seven bits in each (LEB128).
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// An offset, or a version of a placemark: so large that none is reached by counting, and sums do not overflow.
    pub(super) fn counter(&mut self) -> Option<u64> {
        self.varint().filter(|value| *value <= LARGEST_COUNTER)
    }

    pub(super) fn varint32(&mut self) -> Option<u32> {
        self.varint().and_then(|value| u32::try_from(value).ok())
    }
}

/// Offsets and versions stay below 2^63.
const LARGEST_COUNTER: u64 = u64::MAX >> 1;

/// Appends a number in LEB128.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let byte = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// Appends bytes behind their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes what [`put_bytes`] appended.
pub(super) fn take_bytes<'a>(fields: &mut Fields<'a>) -> Option<&'a [u8]> {
    let len = usize::try_from(fields.varint()?).ok()?;
    fields.take(len)
}

/// Where the body of a small file begins, behind magic and version.
const BODY: usize = MAGIC_LEN + 4;
const MAGIC_LEN: usize = 8;
const CRC_LEN: usize = 4;

/// Bytes of a small file beside its body.
pub(super) const AROUND: usize = BODY + CRC_LEN;

/// A small file: magic, version, body, and the CRC-32 of all that.
pub(super) fn wrap(magic: [u8; MAGIC_LEN], body: &[u8]) -> Vec<u8> {
    let mut out = begin(magic, body.len());
    out.extend_from_slice(body);
    end(out)
}

/// The same for a body that is not small: it is appended to what this gives, and [`end`] ends the file.
pub(super) fn begin(magic: [u8; MAGIC_LEN], capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(AROUND + capacity);
    out.extend_from_slice(&magic);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out
}

pub(super) fn end(mut out: Vec<u8>) -> Vec<u8> {
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out
}

/// The body of a small file.
pub(super) fn unwrap(magic: [u8; MAGIC_LEN], bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let damaged = |position: usize, reason| DecodeError::Damaged { position: position as u64, reason };
    let short = || damaged(bytes.len(), "the file is too short");
    let (inner, crc) = bytes.split_last_chunk::<CRC_LEN>().ok_or_else(short)?;
    let (found, rest) = inner.split_first_chunk::<MAGIC_LEN>().ok_or_else(short)?;
    let (version, body) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    if *found != magic {
        return Err(damaged(0, "the file does not begin as one of its kind does"));
    }
    let version = u32::from_le_bytes(*version);
    if crc32fast::hash(inner) != u32::from_le_bytes(*crc) {
        if is_other_version(version) {
            return Err(DecodeError::Version { found: version });
        }
        return Err(damaged(inner.len(), "the file's checksum does not match"));
    }
    if version == VERSION { Ok(body) } else { Err(DecodeError::Version { found: version }) }
}

/// Whether a file of ours whose checksum does not hold was written by another version, which may put its checksum
/// elsewhere: it has a number that may come to be. A flipped bit in the number looks the same; nothing is lost by it.
pub(super) fn is_other_version(version: u32) -> bool {
    version != VERSION && (1..1 << 16).contains(&version)
}
