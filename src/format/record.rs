//! A record within a frame.

use std::ops::Range;

use crate::format::fields::Fields;
use crate::record::Record;
use crate::types::Millis;
use crate::{Error, Result};

/// Value length, then offset delta and flags.
const RECORD_HEADER: usize = 8;

const DELTA: u32 = (1 << 24) - 1;
const FLAG_KEY: u8 = 1;
const FLAG_TOMBSTONE: u8 = 2;
const FLAG_HEADERS: u8 = 4;
const FLAG_TIME: u8 = 8;
const KNOWN: u8 = FLAG_KEY | FLAG_TOMBSTONE | FLAG_HEADERS | FLAG_TIME;

/// Lengths of keys and values have 31 bits.
const MOST: usize = (1 << 31) - 1;

/// A record as it stands in a frame. The ranges count from the frame's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawRecord {
    /// Its offset less the frame's.
    pub(crate) delta: u32,
    pub(crate) tombstone: bool,
    /// Its time, where it differs from the frame's.
    pub(crate) timestamp: Option<Millis>,
    pub(crate) key: Option<Range<u32>>,
    pub(crate) headers: Option<Range<u32>>,
    pub(crate) value: Range<u32>,
    /// Where the next record begins.
    pub(crate) next: u32,
}

/// Bytes that a record takes in a frame whose time is its own.
#[inline]
pub(crate) fn record_len(record: &Record<'_>) -> Result<usize> {
    let value = record.value_bytes().map_or(0, <[u8]>::len);
    let mut len = RECORD_HEADER + value;
    if let Some(key) = record.key_bytes() {
        len += 4 + key.len();
    }
    if !record.headers.is_empty() {
        len += 4 + headers_len(record)?;
    }
    checked(len)
}

#[inline]
fn checked(len: usize) -> Result<usize> {
    if len > MOST { Err(Error::RecordTooLarge { size: len as u64, max: MOST as u64 }) } else { Ok(len) }
}

fn headers_len(record: &Record<'_>) -> Result<usize> {
    let mut len = 0;
    for (name, value) in &record.headers {
        if name.len() > usize::from(u16::MAX) {
            let reason = format!("has {} bytes: at most {} are allowed", name.len(), u16::MAX);
            return Err(Error::option("header name", reason));
        }
        len += 2 + name.len() + 4 + value.as_slice().len();
    }
    Ok(len)
}

/// Writes a record to the front of `out`, which must have room, and returns how many bytes that took.
#[inline]
pub(crate) fn encode_record(record: &Record<'_>, delta: u32, own_time: Option<Millis>, out: &mut [u8]) -> usize {
    match record.value_bytes() {
        Some(value) if record.key.is_none() && record.headers.is_empty() && own_time.is_none() => {
            encode_value(value, delta, out)
        }
        _ => encode_full(record, delta, own_time, out),
    }
}

/// Bytes that a record of this value and nothing else takes.
#[inline]
pub(crate) fn value_len(value: &[u8]) -> Result<usize> {
    checked(RECORD_HEADER + value.len())
}

/// The same for such a record.
#[inline]
pub(crate) fn encode_value(value: &[u8], delta: u32, out: &mut [u8]) -> usize {
    let end = RECORD_HEADER + value.len();
    if let Some((header, space)) = out.get_mut(..end).and_then(|out| out.split_first_chunk_mut::<RECORD_HEADER>()) {
        // One store, as a checksum loads it.
        *header = (u64::from(short(value.len())) | u64::from(delta & DELTA) << 32).to_le_bytes();
        space.copy_from_slice(value);
    }
    end
}

/// Bytes that a record of this key and value and nothing else takes.
#[inline]
pub(crate) fn keyed_len(key: &[u8], value: &[u8]) -> Result<usize> {
    checked(RECORD_HEADER + 4 + key.len() + value.len())
}

/// The same for such a record.
#[inline]
pub(crate) fn encode_keyed(key: &[u8], value: &[u8], delta: u32, out: &mut [u8]) -> usize {
    let flags = delta & DELTA | u32::from(FLAG_KEY) << 24;
    let mut out = Out { bytes: out, at: 0 };
    out.put(&(u64::from(short(value.len())) | u64::from(flags) << 32).to_le_bytes());
    out.put(&short(key.len()).to_le_bytes());
    out.put(key);
    out.put(value);
    out.at
}

fn encode_full(record: &Record<'_>, delta: u32, own_time: Option<Millis>, out: &mut [u8]) -> usize {
    let value = record.value_bytes();
    let key = record.key_bytes();
    let mut flags = 0;
    flags |= if key.is_some() { FLAG_KEY } else { 0 };
    flags |= if value.is_none() { FLAG_TOMBSTONE } else { 0 };
    flags |= if record.headers.is_empty() { 0 } else { FLAG_HEADERS };
    flags |= if own_time.is_some() { FLAG_TIME } else { 0 };
    let value = value.unwrap_or_default();
    let mut out = Out { bytes: out, at: 0 };
    out.put(&short(value.len()).to_le_bytes());
    out.put(&(delta & DELTA | u32::from(flags) << 24).to_le_bytes());
    if let Some(time) = own_time {
        out.put(&time.0.to_le_bytes());
    }
    if let Some(key) = key {
        out.put(&short(key.len()).to_le_bytes());
        out.put(key);
    }
    if !record.headers.is_empty() {
        let lens = record.headers.iter().map(|(name, value)| 2 + name.len() + 4 + value.as_slice().len());
        out.put(&short(lens.sum()).to_le_bytes());
        for (name, value) in &record.headers {
            out.put(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.put(name.as_bytes());
            out.put(&short(value.as_slice().len()).to_le_bytes());
            out.put(value.as_slice());
        }
    }
    out.put(value);
    out.at
}

/// Lengths were checked by [`record_len`].
#[inline]
fn short(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

struct Out<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Out<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if let Some(space) = self.bytes.get_mut(self.at..self.at + bytes.len()) {
            space.copy_from_slice(bytes);
        }
        self.at += bytes.len();
    }
}

/// A record that is a value and nothing else, as it stands in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawValue {
    /// Its offset less the frame's.
    pub(crate) delta: u32,
    /// Where its value begins and ends, from the frame's start. The next record begins there.
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// The record that begins at `at` of a frame, if it is a value and nothing else: most are, and finding one takes less than
/// [`decode_record`] does.
#[inline]
pub(crate) fn decode_value(frame: &[u8], at: usize) -> Option<RawValue> {
    let head = u64::from_le_bytes(*frame.get(at..)?.first_chunk::<RECORD_HEADER>()?);
    let (value, rest) = (u32::try_from(head & u64::from(u32::MAX)).ok()?, u32::try_from(head >> 32).ok()?);
    let start = u32::try_from(at + RECORD_HEADER).ok()?;
    let end = start.checked_add(value)?;
    (rest <= DELTA && end as usize <= frame.len()).then_some(RawValue { delta: rest, start, end })
}

/// The record that begins at `at` of a frame; `None` when no record can.
#[inline]
pub(crate) fn decode_record(frame: &[u8], at: usize) -> Option<RawRecord> {
    if let Some(RawValue { delta, start, end }) = decode_value(frame, at) {
        let plain = RawRecord {
            delta,
            tombstone: false,
            timestamp: None,
            key: None,
            headers: None,
            value: start..end,
            next: end,
        };
        return Some(plain);
    }
    let [l0, l1, l2, l3, d0, d1, d2, flags] = *frame.get(at..)?.first_chunk::<RECORD_HEADER>()?;
    let begin = u32::try_from(at + RECORD_HEADER).ok()?;
    if flags == 0 {
        return None;
    }
    let (value, delta) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([d0, d1, d2, 0]));
    decode_full(frame, begin, value, delta, flags)
}

fn decode_full(frame: &[u8], begin: u32, value: u32, delta: u32, flags: u8) -> Option<RawRecord> {
    if flags & !KNOWN != 0 {
        return None;
    }
    let mut fields = Fields::new(frame.get(begin as usize..)?);
    let here = |fields: &Fields<'_>| u32::try_from(frame.len() - fields.remaining()).ok();
    let mut timestamp = None;
    if flags & FLAG_TIME != 0 {
        timestamp = Some(Millis(fields.u64()?));
    }
    let stretch = |fields: &mut Fields<'_>| -> Option<Range<u32>> {
        let len = fields.u32()?;
        let start = here(fields)?;
        fields.take(len as usize)?;
        Some(start..start.checked_add(len)?)
    };
    let key = if flags & FLAG_KEY == 0 { None } else { Some(stretch(&mut fields)?) };
    let headers = if flags & FLAG_HEADERS == 0 { None } else { Some(stretch(&mut fields)?) };
    if let Some(range) = &headers
        && !well_formed(frame.get(range.start as usize..range.end as usize)?)
    {
        return None;
    }
    let start = here(&fields)?;
    fields.take(value as usize)?;
    let next = start.checked_add(value)?;
    let tombstone = flags & FLAG_TOMBSTONE != 0;
    Some(RawRecord { delta, tombstone, timestamp, key, headers, value: start..next, next })
}

fn well_formed(bytes: &[u8]) -> bool {
    let mut headers = headers(bytes);
    headers.by_ref().for_each(drop);
    headers.fields.is_empty()
}

/// The headers in these bytes.
pub(crate) fn headers(bytes: &[u8]) -> HeaderIter<'_> {
    HeaderIter { fields: Fields::new(bytes) }
}

/// Goes through headers; ends early where they are malformed, which decoding a record has ruled out.
#[derive(Debug, Clone)]
pub(crate) struct HeaderIter<'a> {
    fields: Fields<'a>,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut fields = self.fields;
        let len = fields.take(2)?.first_chunk().map(|len| u16::from_le_bytes(*len))?;
        let name = std::str::from_utf8(fields.take(usize::from(len))?).ok()?;
        let len = fields.u32()?;
        let value = fields.take(len as usize)?;
        self.fields = fields;
        Some((name, value))
    }
}

/// Appends `record`, which has no time of its own, with one.
pub(crate) fn with_time(record: &[u8], time: Millis, out: &mut Vec<u8>) {
    let Some((head, rest)) = record.split_first_chunk::<RECORD_HEADER>() else { return };
    let mut head = *head;
    let [.., flags] = &mut head;
    *flags |= FLAG_TIME;
    out.extend_from_slice(&head);
    out.extend_from_slice(&time.0.to_le_bytes());
    out.extend_from_slice(rest);
}
