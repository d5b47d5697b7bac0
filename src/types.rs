//! Small values that every part of the crate speaks: positions, starting points, and the numbers that must not be mixed
//! up inside it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

/// Where a record stands: its partition, and its offset in that partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the partition, from 0.
    pub partition: u32,
    /// Offset of the record in the partition, from 0, never given twice.
    pub offset: u64,
}

/// What identifies a record in its store for good: its log, partition and offset. No other record ever has the same, not
/// even one of a log that is made anew under the name of a deleted one.
///
/// It is for effects outside the store that are to happen once: an effect that is keyed by it, as the row of a table with
/// a primary key or a request with an idempotency key, is harmless to repeat.
///
/// As bytes and as numbers it sorts by log, partition and offset. As text it is `log.partition.offset`.
///
/// ```
/// # fn main() -> placemark::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use placemark::{EntryId, Log, StartAt};
///
/// let mail = Log::open(dir.path())?;
/// mail.append("to alice")?;
/// let entry = mail.read(StartAt::Earliest)?.next().unwrap()?;
/// let key = entry.id().to_string(); // such as an idempotency key of a request
/// assert_eq!(key.parse::<EntryId>()?, entry.id());
/// assert_eq!(EntryId::from_bytes(entry.id().to_bytes()), entry.id());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Number of the log in its store, never given to another.
    pub log: u32,
    /// Number of the partition.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
}

impl EntryId {
    /// The three numbers, each with its highest byte first, so that they sort as they stand.
    pub fn to_bytes(self) -> [u8; 16] {
        let number = u128::from(self.log) << 96 | u128::from(self.partition) << 64 | u128::from(self.offset);
        number.to_be_bytes()
    }

    /// What [`to_bytes`](Self::to_bytes) gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [l0, l1, l2, l3, p0, p1, p2, p3, offset @ ..] = bytes;
        Self {
            log: u32::from_be_bytes([l0, l1, l2, l3]),
            partition: u32::from_be_bytes([p0, p1, p2, p3]),
            offset: u64::from_be_bytes(offset),
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.log, self.partition, self.offset)
    }
}

impl FromStr for EntryId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, '.');
        let parsed = parts.next().and_then(|log| log.parse().ok()).zip(parts.next().and_then(|it| it.parse().ok()));
        let parsed = parsed.zip(parts.next().and_then(|offset| offset.parse().ok()));
        match parsed.map(|((log, partition), offset)| Self { log, partition, offset }) {
            // Numbers have other spellings, such as with a plus sign; a key has one.
            Some(id) if id.to_string() == text => Ok(id),
            _ => Err(Error::option("entry id", format!("{text:?} is not of the form log.partition.offset"))),
        }
    }
}

/// Where to begin reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The first record that is kept.
    Earliest,
    /// Behind the last record: only what is appended from now on.
    Latest,
    /// This offset, which must be in `start..=end` of the partition.
    Offset(u64),
    /// The first record with a timestamp at or after this time; the end when there is none.
    Time(SystemTime),
}

/// Where to put a group's placemarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// The first record that is kept.
    Earliest,
    /// The end.
    Latest,
    /// This offset, clamped to what exists.
    Offset(u64),
    /// The first record at or after this time; the end when there is none.
    Time(SystemTime),
    /// So many offsets forward, or back when negative, clamped to what exists.
    ShiftBy(i64),
}

/// What proves that the page cache still holds what was written before: the same boot of the kernel, and the same mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheIdentity {
    /// The kernel's boot id; zero when it is not known, which never equals another.
    pub boot: [u8; 16],
    /// The unique id of the mount, or zero where the kernel has none.
    pub mount: u64,
}

impl CacheIdentity {
    /// Whether the page cache of `earlier` is certain to be the one of now.
    pub fn survives(&self, earlier: &Self) -> bool {
        self.boot != [0; 16] && self == earlier
    }
}

/// A log's number, never used again within a store. 0 is the side log, 1 the journal of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LogId(pub(crate) u32);

impl LogId {
    pub(crate) const SIDE_LOG: Self = Self(0);
    pub(crate) const JOURNAL: Self = Self(1);
    pub(crate) const FIRST_USER: Self = Self(16);
}

/// A group's number, never used again within a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(pub(crate) u32);

/// A producer's number, never used again within a store, and how often its name has been opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerId {
    pub(crate) number: u32,
    pub(crate) epoch: u32,
}

/// A byte position in a segment file. Frames begin at multiples of eight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Pos(pub(crate) u32);

impl Pos {
    /// As an index into the bytes of a file; never truncates, since 16-bit targets are refused.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The next multiple of eight; past the last one that there is it is a place where nothing begins.
    pub(crate) const fn aligned(self) -> Self {
        Self(self.0.div_ceil(8).saturating_mul(8))
    }
}

/// Milliseconds since 1970, as frames store them (48 bits: past the year 10000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Millis(pub(crate) u64);

impl Millis {
    /// The largest that the format holds.
    pub(crate) const MAX: Self = Self((1 << 48) - 1);

    /// The time as milliseconds; times before 1970 or past what a frame holds are refused.
    pub(crate) fn from_time(time: SystemTime) -> Result<Self> {
        time.duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| u64::try_from(since.as_millis()).ok())
            .map(Self)
            .filter(|millis| *millis <= Self::MAX)
            .ok_or_else(|| Error::option("timestamp", "must be between 1970 and 10889"))
    }

    /// The same for a search: times that no record can have are clamped. A part of a millisecond counts as a whole
    /// one, so that a record found is never before the time asked for.
    pub(crate) fn searched(time: SystemTime) -> Self {
        let Ok(since) = time.duration_since(UNIX_EPOCH) else { return Self(0) };
        let millis = since.as_nanos().div_ceil(1_000_000);
        Self(u64::try_from(millis).map_or(Self::MAX.0 + 1, |millis| millis.min(Self::MAX.0 + 1)))
    }

    pub(crate) fn to_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.min(Self::MAX.0))
    }
}

/// Checks the name of a log, group or producer: it becomes a file name, and must not reach outside the store.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() || name.len() > 249 {
        "names have 1 to 249 characters"
    } else if name == "." || name == ".." {
        "it stands for a directory"
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        "only A-Z, a-z, 0-9, '.', '_' and '-' are allowed"
    } else {
        return Ok(());
    };
    Err(Error::InvalidName { name: name.chars().take(300).collect(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_id_is_read_back_from_its_bytes_and_text_and_sorts_alike() {
        let id = |log, partition, offset| EntryId { log, partition, offset };
        let ids = [id(0, 0, 0), id(16, 0, 300), id(16, 1, 2), id(300, 0, u64::MAX), id(u32::MAX, u32::MAX, u64::MAX)];
        for id in ids {
            assert_eq!(EntryId::from_bytes(id.to_bytes()), id);
            assert_eq!(id.to_string().parse::<EntryId>().unwrap(), id);
        }
        assert!(ids.is_sorted());
        assert!(ids.map(EntryId::to_bytes).is_sorted());
        assert_eq!(id(16, 2, 42).to_string(), "16.2.42");
        for text in ["", "1.2", "1.2.3.4", "+1.2.3", "1.02.3", " 1.2.3", "1.2.x", "4294967296.0.0"] {
            assert!(text.parse::<EntryId>().is_err(), "{text}");
        }
    }
}
