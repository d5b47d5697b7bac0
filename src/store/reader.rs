//! Reading without a group.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::partition::{Cursor, PartitionCore};
use crate::segment::Entry;
use crate::storage::Deadline;
use crate::store::{Handle, LogCore};
use crate::types::Millis;
use crate::{Error, Result, StartAt};

/// Reads a log or one of its partitions forward: an iterator of entries that can also wait for more.
///
/// It yields each partition in the order of its offsets, and ends at the end of the log; asked again later, it goes on
/// from there, also with partitions that were added since. A reader that retention overtakes finishes the segment it
/// holds and goes on at the new start: [`skipped`](Self::skipped) counts what it missed. It keeps its store open.
///
/// After an error it stays where it is, and the next call meets the same damage: read from an offset behind it to go on.
///
/// ```
/// # fn main() -> placemark::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use std::time::Duration;
/// use placemark::{Log, StartAt};
///
/// let orders = Log::open(dir.path())?;
/// let mut reader = orders.read(StartAt::Latest)?;
/// let writer = orders.clone();
/// let appended = std::thread::spawn(move || writer.append("order 1"));
/// let entry = reader.recv_timeout(Duration::from_secs(30))?.expect("an order within half a minute");
/// assert_eq!(entry.value(), b"order 1");
/// # appended.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
pub struct Reader {
    handle: Handle,
    log: Arc<LogCore>,
    /// Of every partition that is read; with `all`, by number.
    cursors: Vec<Cursor>,
    /// Which of them is read now.
    at: usize,
    /// Whether partitions that are added to the log are read too.
    all: bool,
}

impl Reader {
    pub(super) fn over_log(handle: Handle, log: Arc<LogCore>, start: StartAt) -> Result<Self> {
        handle.core()?;
        let cursors = log.partitions().iter().map(|partition| begin(partition, start)).collect::<Result<_>>()?;
        Ok(Self { handle, log, cursors, at: 0, all: true })
    }

    pub(super) fn over_partition(
        handle: Handle,
        log: Arc<LogCore>,
        partition: &Arc<PartitionCore>,
        start: StartAt,
    ) -> Result<Self> {
        handle.core()?;
        Ok(Self { handle, log, cursors: vec![begin(partition, start)?], at: 0, all: false })
    }

    /// The next entry, waited for until `timeout` has passed; `Ok(None)` when none came.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when the next record is damaged, [`Error::Closed`] when the store was closed meanwhile, and
    /// [`Error::NoSuchLog`] when the log was deleted.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Entry>> {
        if let Some(entry) = self.advance()? {
            return Ok(Some(entry));
        }
        if timeout.is_zero() {
            return Ok(None);
        }
        let deadline = Deadline::after(timeout);
        let log = Arc::clone(&self.log);
        let mut listener = log.signal().listen();
        loop {
            // Looked for after listening began, so that nothing that comes in between is missed.
            if let Some(entry) = self.advance()? {
                return Ok(Some(entry));
            }
            if !listener.wait(&deadline) {
                return Ok(None);
            }
        }
    }

    /// Records that retention removed before this reader came to them.
    pub fn skipped(&self) -> u64 {
        self.cursors.iter().map(Cursor::skipped).sum()
    }

    /// The next entry of the partition that is being read, or of the one behind it.
    fn advance(&mut self) -> Result<Option<Entry>> {
        if self.handle.is_closed() {
            return Err(Error::Closed);
        }
        match self.cursors.get_mut(self.at).map(Cursor::next) {
            Some(Ok(Some(entry))) => Ok(Some(entry)),
            Some(Err(error)) => Err(self.log.explain(error)),
            Some(Ok(None)) | None => self.turn(),
        }
    }

    /// Looks into each of the other partitions once, in turn.
    fn turn(&mut self) -> Result<Option<Entry>> {
        if self.all {
            self.take_in_added()?;
        }
        let count = self.cursors.len();
        for _ in 1..count {
            self.at = (self.at + 1) % count;
            let next = self.cursors.get_mut(self.at).map(Cursor::next).transpose();
            if let Some(entry) = next.map_err(|error| self.log.explain(error))?.flatten() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn take_in_added(&mut self) -> Result<()> {
        let log = Arc::clone(&self.log);
        for partition in log.partitions().get(self.cursors.len()..).unwrap_or_default() {
            let cursor = partition.cursor(partition.start()).map_err(|error| log.explain(error))?;
            self.cursors.push(cursor);
        }
        Ok(())
    }
}

/// A cursor at the place that `start` means in this partition.
pub(crate) fn begin(partition: &Arc<PartitionCore>, start: StartAt) -> Result<Cursor> {
    let offset = match start {
        StartAt::Earliest => partition.start(),
        StartAt::Latest => partition.end(),
        StartAt::Offset(offset) => return partition.cursor(offset),
        StartAt::Time(time) => partition.offset_at_time(Millis::searched(time))?,
    };
    match partition.cursor(offset) {
        // Retention was faster; what it removed was not asked for by number.
        Err(Error::OffsetOutOfRange { start, .. }) if offset < start => partition.cursor(partition.start()),
        begun => begun,
    }
}

impl Iterator for Reader {
    type Item = Result<Entry>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // As `advance`, but for the most common case by a way on which the entry is not wrapped twice: each wrapping
        // copies it, which takes longer than finding it.
        while !self.handle.is_closed()
            && let Some(cursor) = self.cursors.get_mut(self.at)
        {
            if let Some(entry) = cursor.value() {
                return Some(Ok(entry));
            }
            if cursor.is_open()
                && let Some(entry) = cursor.record()
            {
                return Some(Ok(entry));
            }
            if !matches!(cursor.open_frame(), Ok(true)) {
                break;
            }
        }
        self.advance().transpose()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("log", &self.log.name())
            .field("skipped", &self.skipped())
            .finish_non_exhaustive()
    }
}
