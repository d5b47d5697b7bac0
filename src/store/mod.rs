//! A store: the directory, its logs, and who keeps it open.

mod core;
mod directory;
mod handle;
mod lifecycle;
mod log;
mod log_core;
mod partition;
mod partitioner;
mod reader;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub(crate) use self::core::StoreCore;
pub(crate) use handle::Handle;
pub(crate) use lifecycle::Missing;
pub use log::Log;
pub(crate) use log_core::LogCore;
pub use partition::Partition;
pub use reader::Reader;

use crate::storage::{Disk, Storage};
use crate::{Durability, LogOptions, RecoveryMode, RecoveryReport, Result, WriteMode};

/// A directory of logs, open in one process at a time.
///
/// It is cheap to clone, and all clones share one state. It is closed by [`close`](Self::close), or when the last handle
/// of it is dropped: a store, log, partition, reader, consumer or its builder, group or its reset plan, producer or
/// transaction. Batches and entries do not keep it open. A store that was not closed loses nothing: the next opening
/// recovers it.
///
/// ```
/// # fn main() -> placemark::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("data");
/// use placemark::{StartAt, Store};
///
/// let store = Store::open(&path)?;
/// let orders = store.log("orders")?;
/// orders.append("order 1")?;
/// for entry in orders.read(StartAt::Earliest)? {
///     println!("{}", String::from_utf8_lossy(entry?.value()));
/// }
/// store.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Store {
    handle: Handle,
}

impl Store {
    /// Opens the store in this directory with the default options, and makes what is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`](crate::Error::Locked) when it is open elsewhere, [`Error::IncompatibleFormat`] when another
    /// version wrote it, [`Error::Corrupt`](crate::Error::Corrupt) when the placemarks or the journal of transactions
    /// are damaged (damage in a log is met by whoever opens that log), and [`Error::Io`](crate::Error::Io) when `path`
    /// is a file or a symbolic link, or the system refuses.
    ///
    /// [`Error::IncompatibleFormat`]: crate::Error::IncompatibleFormat
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(path)
    }

    /// Options to open a store with.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("data");
    /// use placemark::{Durability, Store};
    ///
    /// let store = Store::options().durability(Durability::Os).open(&path)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn options() -> StoreOptions {
        StoreOptions::new()
    }

    /// Opens the log of this name as it is, or makes one with the default options.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`](crate::Error::InvalidName), and [`Error::Corrupt`](crate::Error::Corrupt) when the log is
    /// damaged where it was not closed. Other logs are not concerned.
    pub fn log(&self, name: &str) -> Result<Log> {
        self.log_with(name, LogOptions::new())
    }

    /// The same with options, which are stored with the log. In a log that exists this changes what is set and keeps
    /// what is not.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use placemark::{LogOptions, Store};
    ///
    /// let store = Store::open(dir.path())?;
    /// let clicks = store.log_with("clicks", LogOptions::new().partitions(2))?;
    /// assert_eq!(clicks.partitions(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Besides those of [`log`](Self::log), [`Error::InvalidOption`](crate::Error::InvalidOption) for values that cannot
    /// be, for fewer partitions than there are, and for another compaction.
    pub fn log_with(&self, name: &str, options: LogOptions) -> Result<Log> {
        let core = self.handle.core()?.log(name, &options, Missing::Create)?;
        Ok(Log::new(self.handle.clone(), core))
    }

    /// Opens the log of this name, which must exist.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchLog`](crate::Error::NoSuchLog), and those of [`log`](Self::log).
    pub fn open_log(&self, name: &str) -> Result<Log> {
        let core = self.handle.core()?.existing_log(name)?;
        Ok(Log::new(self.handle.clone(), core))
    }

    /// The names of all logs, sorted.
    pub fn logs(&self) -> Result<Vec<String>> {
        Ok(self.handle.core()?.side().logs().into_iter().map(|(name, _)| name).collect())
    }

    /// Deletes a log, with its groups, their placemarks and its producers. Whoever holds a handle of it learns that it
    /// is gone; entries that were read stay readable. A log made again under the name inherits nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchLog`](crate::Error::NoSuchLog). After an error of the disk the log is there or gone, as the next
    /// opening shows.
    pub fn delete_log(&self, name: &str) -> Result<()> {
        self.handle.core()?.delete_log(name)
    }

    /// What opening found and did so far. It grows as logs are opened, and as salvage skips what is damaged.
    pub fn recovery(&self) -> RecoveryReport {
        self.handle.store().env().report.snapshot()
    }

    /// Makes everything written so far durable, whatever the durability. When it is missing or damaged later, that is
    /// [`Error::Corrupt`](crate::Error::Corrupt), never a silent loss. Logs that an earlier process left open, and that were
    /// not asked for since, are opened for it.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`](crate::Error::Failed) and those of opening a log. The others are synced all the same.
    pub fn sync(&self) -> Result<()> {
        self.handle.core()?.sync()
    }

    /// Closes the store at once, whoever holds handles of it: those answer [`Error::Closed`](crate::Error::Closed) from
    /// now on. Everything written through it is durable on return, and the lock is given back. What an earlier process left
    /// in logs that no one has asked for since is as durable as it was; [`sync`](Self::sync) sees to that too.
    ///
    /// Dropping the last handle does the same, and cannot report a failure. To close a closed store is `Ok`.
    ///
    /// # Errors
    ///
    /// The first failure met; all the rest is closed, and the lock given back, all the same. What was acknowledged is
    /// safe as the durability says, and the next opening recovers it.
    pub fn close(&self) -> Result<()> {
        self.handle.store().close()
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.handle.store().dir()).finish_non_exhaustive()
    }
}

/// How to open a store. See [`Store::options`].
#[derive(Debug, Clone)]
#[must_use = "options do nothing until `open`"]
pub struct StoreOptions {
    durability: Durability,
    recovery_mode: RecoveryMode,
    write_mode: WriteMode,
    storage: Arc<dyn Storage>,
}

impl StoreOptions {
    fn new() -> Self {
        Self {
            durability: Durability::Sync,
            recovery_mode: RecoveryMode::default(),
            write_mode: WriteMode::default(),
            storage: Arc::new(Disk::new()),
        }
    }

    /// What `Ok` means for logs that have no durability of their own, and for placemarks, queues and producers:
    /// [`Durability::Sync`] unless said here.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// What to do with damage: [`RecoveryMode::Strict`] unless said here.
    pub fn recovery_mode(mut self, mode: RecoveryMode) -> Self {
        self.recovery_mode = mode;
        self
    }

    /// How frames reach their files: [`WriteMode::Auto`] unless said here.
    pub fn write_mode(mut self, mode: WriteMode) -> Self {
        self.write_mode = mode;
        self
    }

    /// The disk, clock and threads to use: those of the system unless said here. For tests, with a
    /// [`SimDisk`](crate::storage::SimDisk).
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// Opens the store in this directory, and makes what is missing.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`], and [`Error::InvalidOption`](crate::Error::InvalidOption) for an interval of zero.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        self.durability.check()?;
        let core = StoreCore::open(&self, path.as_ref())?;
        Ok(Store { handle: Handle::new(core) })
    }
}
