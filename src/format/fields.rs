//! Numbers and strings in bytes: the frame around every small file, and a reader that never reads past the end.

use crate::format::{DecodeError, VERSION};

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

    pub(super) fn varint32(&mut self) -> Option<u32> {
        self.varint().and_then(|value| u32::try_from(value).ok())
    }
}

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

/// A small file: magic, version, body, and the CRC-32 of all that.
pub(super) fn wrap(magic: [u8; 8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 16);
    out.extend_from_slice(&magic);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out
}

/// The body of a small file.
pub(super) fn unwrap(magic: [u8; 8], bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let damaged = |position: usize, reason| DecodeError::Damaged { position: position as u64, reason };
    let Some((inner, crc)) = bytes.split_last_chunk::<4>() else { return Err(damaged(0, "the file is too short")) };
    let Some((found, rest)) = inner.split_first_chunk::<8>() else { return Err(damaged(0, "the file is too short")) };
    let Some((version, body)) = rest.split_first_chunk::<4>() else {
        return Err(damaged(8, "the file is too short"));
    };
    if *found != magic {
        return Err(damaged(0, "the file does not begin as one of its kind does"));
    }
    let version = u32::from_le_bytes(*version);
    if crc32fast::hash(inner) != u32::from_le_bytes(*crc) {
        // A version that is not ours may put its checksum elsewhere.
        if version != VERSION && version > 0 && version < 1 << 16 {
            return Err(DecodeError::Version { found: version });
        }
        return Err(damaged(inner.len(), "the file's checksum does not match"));
    }
    if version == VERSION { Ok(body) } else { Err(DecodeError::Version { found: version }) }
}
