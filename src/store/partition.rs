//! The public handle of one partition.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::partition::PartitionCore;
use crate::record::Record;
use crate::store::{Handle, LogCore, Reader};
use crate::{Result, StartAt};

/// One partition of a log: records numbered by their offsets.
///
/// It is cheap to clone, all clones share one state, and it keeps its store open.
///
/// ```
/// # fn main() -> placemark::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use placemark::{LogOptions, StartAt, Store};
///
/// let store = Store::open(dir.path())?;
/// let clicks = store.log_with("clicks", LogOptions::new().partitions(2))?;
/// let second = clicks.partition(1)?;
/// assert_eq!(second.append_batch(["a", "b"])?, 0..2);
/// assert_eq!((second.start_offset(), second.end_offset()), (0, 2));
/// assert_eq!(second.read(StartAt::Earliest)?.count(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Partition {
    handle: Handle,
    log: Arc<LogCore>,
    core: Arc<PartitionCore>,
}

impl Partition {
    pub(super) fn new(handle: Handle, log: Arc<LogCore>, core: Arc<PartitionCore>) -> Self {
        Self { handle, log, core }
    }

    /// Its number, from 0.
    pub fn number(&self) -> u32 {
        self.core.ident().partition
    }

    /// The first offset that is kept.
    pub fn start_offset(&self) -> u64 {
        self.core.start()
    }

    /// The end of what is readable: the next offset to be assigned, once everything appended is.
    pub fn end_offset(&self) -> u64 {
        self.core.end()
    }

    /// Appends a record here, whatever its key, and returns its offset once it is as durable as the log's durability
    /// promises.
    ///
    /// # Errors
    ///
    /// Those of [`Log::append`](crate::Log::append).
    #[inline]
    pub fn append<'a>(&self, record: impl Into<Record<'a>>) -> Result<u64> {
        match record.into().into_plain() {
            Ok(value) => self.append_value(value.as_slice()),
            Err(record) => self.append_record(&record),
        }
    }

    fn append_value(&self, value: &[u8]) -> Result<u64> {
        self.log.check_key(false, 0)?;
        self.appended(self.core.append_value(value))
    }

    fn append_record(&self, record: &Record<'_>) -> Result<u64> {
        self.log.check_key(record.key_bytes().is_some(), 0)?;
        self.appended(self.core.append(record))
    }

    #[inline]
    fn appended(&self, appended: Result<u64>) -> Result<u64> {
        self.core.env().background.lend_a_hand();
        appended.map_err(|error| self.log.explain(error))
    }

    /// Appends records as one frame, with consecutive offsets: all of them or none.
    ///
    /// # Errors
    ///
    /// Those of [`Log::append`](crate::Log::append); a batch that does not fit in a segment is refused whole.
    pub fn append_batch<'a, I>(&self, records: I) -> Result<Range<u64>>
    where
        I: IntoIterator,
        I::Item: Into<Record<'a>>,
    {
        let records: Vec<Record<'a>> = records.into_iter().map(Into::into).collect();
        for (place, record) in records.iter().enumerate() {
            self.log.check_key(record.key_bytes().is_some(), place)?;
        }
        let appended = self.core.append_batch(&records);
        self.core.env().background.lend_a_hand();
        appended.map_err(|error| self.log.explain(error))
    }

    /// Reads in the order of the offsets. At the end it may be asked again for what has come since.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange) for an offset outside `start..=end`.
    pub fn read(&self, start: StartAt) -> Result<Reader> {
        Reader::over_partition(self.handle.clone(), Arc::clone(&self.log), &self.core, start)
            .map_err(|error| self.log.explain(error))
    }

    /// Gives up the records below `offset`, and their disk: as far as whole segments have no others, so that the start
    /// moves to the first offset of the segment that has `offset`. At the end of the partition or behind it, all records
    /// are given up. The end, and the offsets of what is kept, never change.
    ///
    /// It first waits until every full segment is sealed. Who is reading a segment that goes finishes it, and entries
    /// that were read stay readable; a group that had not come so far goes on at the new start, and says how much it
    /// missed. Sequences of [producers](crate::Producer) stay known. What a committed transaction has still to bring to
    /// the disk, and a record that is being appended, are never given up.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let orders = placemark::Log::open(dir.path())?;
    /// orders.append_batch(["order 1", "order 2"])?;
    /// let partition = orders.partition(0)?;
    /// partition.trim_before(1)?; // both are in one segment, which stays
    /// assert_eq!(partition.start_offset(), 0);
    /// partition.trim_before(2)?;
    /// assert_eq!((partition.start_offset(), partition.end_offset()), (2, 2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) and [`Error::Failed`](crate::Error::Failed): the records are there or gone, as the
    /// next opening shows.
    pub fn trim_before(&self, offset: u64) -> Result<()> {
        let trimmed = self.core.trim_before(offset);
        self.core.env().background.lend_a_hand();
        trimmed.map_err(|error| self.log.explain(error))
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("log", &self.log.name())
            .field("number", &self.number())
            .field("start_offset", &self.start_offset())
            .field("end_offset", &self.end_offset())
            .finish_non_exhaustive()
    }
}
