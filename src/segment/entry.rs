//! A record as it is read: slices of a mapped segment.

use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;

use crate::format::{self, Ident, RawRecord, RawValue};
use crate::storage::Share;
use crate::types::{EntryId, LogId, Millis};

/// A record that was read.
///
/// It is owned and cheap to clone, may go to another thread, and stays readable after its segment has been deleted and
/// its store closed. As long as it lives it holds the mapping of its segment, and with a deleted segment its disk: to
/// keep a record for long, copy what is wanted of it.
///
/// ```
/// # fn main() -> placemark::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use placemark::{Log, Record, StartAt};
///
/// let log = Log::open(dir.path())?;
/// log.append(Record::new("paid").key("customer-7").header("trace", "ab12"))?;
/// let entry = log.read(StartAt::Earliest)?.next().unwrap()?;
/// assert_eq!(entry.value(), b"paid");
/// assert_eq!(entry.key(), Some(&b"customer-7"[..]));
/// assert_eq!(entry.header("trace"), Some(&b"ab12"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Entry {
    map: Share,
    offset: u64,
    timestamp: Millis,
    log: LogId,
    partition: u32,
    value: Slice,
    key: Option<Slice>,
    headers: Slice,
    tombstone: bool,
}

/// A stretch of a segment; positions fit in 32 bits.
#[derive(Debug, Clone, Copy)]
struct Slice {
    start: u32,
    end: u32,
}

impl Slice {
    #[inline]
    fn within(frame: u32, range: &Range<u32>) -> Self {
        Self { start: frame.saturating_add(range.start), end: frame.saturating_add(range.end) }
    }

    #[inline]
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Entry {
    /// The record `raw` of the frame at `frame`, whose checksum was checked.
    #[inline]
    pub(crate) fn new(map: Share, frame: u32, ident: &Ident, offset: u64, time: Millis, raw: &RawRecord) -> Self {
        Self {
            map,
            offset,
            timestamp: raw.timestamp.unwrap_or(time),
            log: ident.log,
            partition: ident.partition,
            value: Slice::within(frame, &raw.value),
            key: raw.key.as_ref().map(|key| Slice::within(frame, key)),
            headers: raw.headers.as_ref().map_or(Slice { start: 0, end: 0 }, |headers| Slice::within(frame, headers)),
            tombstone: raw.tombstone,
        }
    }

    /// The same for a record that is a value and nothing else.
    #[inline]
    pub(crate) fn of_value(map: Share, frame: u32, ident: &Ident, offset: u64, time: Millis, raw: RawValue) -> Self {
        let value = Slice { start: frame.saturating_add(raw.start), end: frame.saturating_add(raw.end) };
        let headers = Slice { start: 0, end: 0 };
        let (log, partition) = (ident.log, ident.partition);
        Self { map, offset, timestamp: time, log, partition, value, key: None, headers, tombstone: false }
    }

    /// Number of its partition.
    #[inline]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Its offset in the partition.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What identifies it in its store for good.
    pub fn id(&self) -> EntryId {
        EntryId { log: self.log.0, partition: self.partition, offset: self.offset }
    }

    /// When it was appended, or the time it was given, to the millisecond.
    pub fn timestamp(&self) -> SystemTime {
        self.timestamp.to_time()
    }

    /// Its key. An empty key is a key.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.map(|key| self.slice(key))
    }

    /// Its value; empty for a tombstone.
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.slice(self.value)
    }

    /// Whether it says that its key has no value any more.
    #[inline]
    pub fn is_tombstone(&self) -> bool {
        self.tombstone
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All headers, in order.
    pub fn headers(&self) -> Headers<'_> {
        Headers { inner: format::headers(self.slice(self.headers)) }
    }

    /// The value as [`Bytes`] that point into the mapped segment: nothing is copied, and the segment stays mapped as
    /// long as they live.
    pub fn value_bytes(&self) -> Bytes {
        Bytes::from_owner(ValueOwner { map: self.map.clone(), value: self.value })
    }

    pub(crate) fn millis(&self) -> Millis {
        self.timestamp
    }

    #[inline]
    fn slice(&self, slice: Slice) -> &[u8] {
        // Entries are made of frames below the filled end, so that the bytes are always there.
        self.map.bytes(slice.range()).unwrap_or_default()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp())
            .field("key", &self.key().map(Bytes::copy_from_slice))
            .field("value", &Bytes::copy_from_slice(self.value()))
            .field("is_tombstone", &self.tombstone)
            .finish_non_exhaustive()
    }
}

/// The headers of an [`Entry`], in order.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    inner: format::HeaderIter<'a>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.inner.next()
    }
}

/// Keeps the mapping for [`Entry::value_bytes`].
struct ValueOwner {
    map: Share,
    value: Slice,
}

impl AsRef<[u8]> for ValueOwner {
    fn as_ref(&self) -> &[u8] {
        self.map.bytes(self.value.range()).unwrap_or_default()
    }
}
