//! What is asked of each crate.

use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::Result;

use crate::trials::Measure;
use crate::values::Seen;
use crate::works::Work;

/// A log as one would build it on the crate.
pub(crate) trait Peer: Sized + Send {
    const ABOUT: About;

    /// Opens the log in `dir`, or makes a new one, with the settings that suit the work best.
    fn open(dir: &Path, work: Work) -> Result<Self>;

    /// One record; on the disk when it returns, if the work says so.
    fn append(&mut self, value: &[u8]) -> Result<()>;

    /// Records that are there whole or not at all, where the crate can promise that.
    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()>;

    /// Appends from so many threads until the time has come; how many records those were.
    ///
    /// Where a crate has one writer, the threads take turns.
    fn append_together(&mut self, threads: u64, until: Instant, value: &[u8]) -> Result<u64> {
        let writer = Mutex::new(self);
        together(threads, until, |_| writer.lock().map_err(|_| anyhow::anyhow!("a writer panicked"))?.append(value))
    }

    /// Shows every record from the first on, as long as more are wanted, checking what the crate can check.
    fn scan(&mut self, seen: &mut Seen) -> Result<()>;

    /// Shows records from where the consumer stands, and writes its new position down behind each, as durably as the
    /// work says.
    fn consume(&mut self, seen: &mut Seen) -> Result<()>;

    /// An orderly end.
    fn close(self) -> Result<()>;
}

/// What the reader of the table should know.
pub(crate) struct About {
    pub(crate) name: &'static str,
    /// The package whose version counts; empty for the limits.
    pub(crate) package: &'static str,
    /// What is left, after a power failure, of records that were appended without a sync. What a kill leaves is tried.
    pub(crate) power: &'static str,
    /// What a durable append is.
    pub(crate) durable: &'static str,
    /// What a scan checks.
    pub(crate) checks: &'static str,
    /// Settings that are not the crate's own, and whatever else makes a figure what it is.
    pub(crate) settings: &'static str,
    /// What makes a single figure other than it seems.
    pub(crate) remarks: &'static [(Measure, &'static str)],
    /// Reading takes the records away, or moves a position that the next reading starts from.
    pub(crate) reads_once: bool,
}

/// What a crate has no way to do, and why.
#[derive(Debug)]
pub(crate) struct Unable(String);

/// The error that says so.
pub(crate) fn unable(why: impl Into<String>) -> anyhow::Error {
    Unable(why.into()).into()
}

impl fmt::Display for Unable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Unable {}

/// Runs `append` in so many threads, each told its number, until the time has come; how often that was.
pub(crate) fn together(threads: u64, until: Instant, append: impl Fn(u64) -> Result<()> + Sync) -> Result<u64> {
    let work = |thread| -> Result<u64> {
        let mut count = 0;
        while Instant::now() < until {
            append(thread)?;
            count += 1;
        }
        Ok(count)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("an appending thread panicked"))?)
            .sum()
    })
}
