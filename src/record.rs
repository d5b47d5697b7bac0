//! A record on its way into a log.

use std::borrow::Cow;
use std::time::SystemTime;

use bytes::Bytes;

/// Bytes that a [`Record`] borrows or owns: made from a reference to anything that is `AsRef<[u8]>`, or from an owned
/// `String`, `Vec<u8>` or [`Bytes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Bytes of the caller's.
    Borrowed(&'a [u8]),
    /// Bytes that the record carries with it.
    Owned(Bytes),
}

impl Payload<'_> {
    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    fn to_owned(&self) -> Payload<'static> {
        Payload::Owned(match self {
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Self::Owned(bytes) => bytes.clone(),
        })
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a T) -> Self {
        Self::Borrowed(bytes.as_ref())
    }
}

impl From<String> for Payload<'_> {
    fn from(text: String) -> Self {
        Self::Owned(text.into())
    }
}

impl From<Vec<u8>> for Payload<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes.into())
    }
}

impl From<Bytes> for Payload<'_> {
    fn from(bytes: Bytes) -> Self {
        Self::Owned(bytes)
    }
}

/// A record to be appended: a value, and where wanted a key, headers and a time of its own.
///
/// It borrows its parts, or owns them; an append copies them once, into the segment.
///
/// ```
/// use placemark::Record;
///
/// let plain = Record::new("order 1");
/// let keyed = Record::new(b"paid").key("customer-7").header("trace", b"ab12");
/// let gone = Record::tombstone("customer-7");
/// # let _ = (plain, keyed, gone);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    pub(crate) key: Option<Payload<'a>>,
    pub(crate) value: Option<Payload<'a>>,
    pub(crate) headers: Vec<(Cow<'a, str>, Payload<'a>)>,
    pub(crate) timestamp: Option<SystemTime>,
}

impl<'a> Record<'a> {
    /// A record with this value, without a key.
    #[inline]
    pub fn new(value: impl Into<Payload<'a>>) -> Self {
        Self { key: None, value: Some(value.into()), headers: Vec::new(), timestamp: None }
    }

    /// A record that says that its key has no value any more.
    pub fn tombstone(key: impl Into<Payload<'a>>) -> Self {
        Self { key: Some(key.into()), value: None, headers: Vec::new(), timestamp: None }
    }

    /// Gives it a key: records of one key go to one partition, in order. An empty key is a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Payload<'a>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header. Headers keep their order, and a name may be used again.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Payload<'a>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Gives it a time of its own, to the millisecond, instead of that of the append.
    #[must_use]
    pub fn timestamp(mut self, time: SystemTime) -> Self {
        self.timestamp = Some(time);
        self
    }

    /// The same record, borrowing nothing.
    pub fn into_owned(self) -> Record<'static> {
        Record {
            key: self.key.as_ref().map(Payload::to_owned),
            value: self.value.as_ref().map(Payload::to_owned),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (Cow::Owned(name.clone().into_owned()), value.to_owned()))
                .collect(),
            timestamp: self.timestamp,
        }
    }

    #[inline]
    pub(crate) fn key_bytes(&self) -> Option<&[u8]> {
        self.key.as_ref().map(Payload::as_slice)
    }

    #[inline]
    pub(crate) fn value_bytes(&self) -> Option<&[u8]> {
        self.value.as_ref().map(Payload::as_slice)
    }

    /// The value, if there is nothing else.
    #[inline]
    pub(crate) fn into_plain(self) -> Result<Payload<'a>, Self> {
        match self {
            Self { key: None, value: Some(value), headers, timestamp: None } if headers.is_empty() => Ok(value),
            record => Err(record),
        }
    }

    fn borrowed(&'a self) -> Self {
        Self {
            key: self.key_bytes().map(Payload::Borrowed),
            value: self.value_bytes().map(Payload::Borrowed),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (Cow::Borrowed(name.as_ref()), Payload::Borrowed(value.as_slice())))
                .collect(),
            timestamp: self.timestamp,
        }
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Record<'a> {
    #[inline]
    fn from(value: &'a T) -> Self {
        Self::new(value)
    }
}

impl<'a> From<&'a Record<'_>> for Record<'a> {
    fn from(record: &'a Record<'_>) -> Self {
        record.borrowed()
    }
}

impl From<String> for Record<'_> {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<Vec<u8>> for Record<'_> {
    fn from(value: Vec<u8>) -> Self {
        Self::new(value)
    }
}

impl From<Bytes> for Record<'_> {
    fn from(value: Bytes) -> Self {
        Self::new(value)
    }
}
