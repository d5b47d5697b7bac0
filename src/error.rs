//! The one error type of the crate.

use std::io;
use std::path::{Path, PathBuf};

/// How a message speaks of one log, or of all.
fn on(log: Option<&str>) -> String {
    log.map_or_else(|| "any log".to_owned(), |log| format!("log {log:?}"))
}

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed, and what to do about it.
///
/// Few kinds, told apart by what the caller can do. Every message names the path and the number that it is about.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process, or another `Store` in this one, has the store open. Close that one, or wait for it to end: the
    /// kernel releases the lock with the process, however it dies.
    #[error("{} is locked by another open store: close that one first", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },

    /// The batch, transaction or producer belongs to an owner that has been replaced. Drop what it produced and poll
    /// again: its records are delivered to the new owner. Or a group has moved since the plan to reset it was made: make
    /// another.
    #[error("fenced: the partition or name has a newer owner; drop this work and poll again")]
    Fenced,

    /// The offset is not one of the partition's: below its first kept record or past its end.
    #[error("offset {requested} is outside {start}..={end}: use StartAt::Earliest, Latest or an offset in that range")]
    OffsetOutOfRange {
        /// The offset that was asked for.
        requested: u64,
        /// The first offset kept.
        start: u64,
        /// The next offset to be assigned, and readable.
        end: u64,
    },

    /// A record, or a batch that has to be written as one frame, is larger than the log takes. Nothing was written.
    #[error(
        "{size} bytes are more than the {max} that this log takes at once: split it, or raise max_record_bytes or segment_bytes"
    )]
    RecordTooLarge {
        /// Size of the record or batch in bytes, with what stands around it.
        size: u64,
        /// The most that fits.
        max: u64,
    },

    /// A transaction holds more than may be buffered. Nothing was written.
    #[error("the transaction holds {size} bytes, more than {max}: commit in smaller pieces")]
    TransactionTooLarge {
        /// Bytes buffered.
        size: u64,
        /// The most that a transaction may hold.
        max: u64,
    },

    /// What was durable does not read back as it was written. Nothing has been cut or changed. Restore the file from a
    /// copy, or open with [`RecoveryMode::Salvage`](crate::RecoveryMode::Salvage) to go on without what is damaged.
    #[error("{} is damaged at byte {position}: {reason}; restore it, or open with RecoveryMode::Salvage to skip what is damaged", path.display())]
    Corrupt {
        /// The file, or where it should be.
        path: PathBuf,
        /// Byte in the file at which the damage begins.
        position: u64,
        /// What does not hold.
        reason: String,
    },

    /// A write or a sync failed earlier, so that what this handle would do next cannot be trusted. Find the cause in
    /// `reason`, then close the store and open it again: nothing acknowledged is lost.
    #[error("{} failed earlier ({reason}): close the store, mend the cause and open it again", path.display())]
    Failed {
        /// The file or directory at which it failed.
        path: PathBuf,
        /// The first failure.
        reason: String,
    },

    /// No log of this name exists in the store.
    #[error("there is no log named {name:?}: Store::log creates one")]
    NoSuchLog {
        /// The name that was asked for.
        name: String,
    },

    /// No group of this name is known, where one was asked for that exists. Check its name; a group becomes known when its
    /// first consumer joins without [`existing`](crate::ConsumerBuilder::existing).
    #[error("there is no group named {group:?} on {}: check the name, or join without `existing`", on(log.as_deref()))]
    NoSuchGroup {
        /// The group that was asked for.
        group: String,
        /// The log on which; `None` when no log knows it.
        log: Option<String>,
    },

    /// The log has no such partition.
    #[error("log {log:?} has {partitions} partitions, numbered from 0: there is no partition {partition}")]
    NoSuchPartition {
        /// The log.
        log: String,
        /// The partition that was asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },

    /// A log, group or producer name that is not 1 to 249 of `[A-Za-z0-9._-]`, or is `.` or `..`.
    #[error("{name:?} is not a name: {reason}")]
    InvalidName {
        /// The name as given.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },

    /// An option, or the value of a record's field, that cannot be.
    #[error("{option} {reason}")]
    InvalidOption {
        /// The option or field.
        option: &'static str,
        /// What is wrong with the value, and which values are right.
        reason: String,
    },

    /// The file was written by another version of this crate, or belongs to another store. Nothing was changed.
    #[error("{} has format {found}, and this version reads {expected}: open it with the version that wrote it", path.display())]
    IncompatibleFormat {
        /// The file.
        path: PathBuf,
        /// What stands in it.
        found: String,
        /// What this version of the crate reads.
        expected: String,
    },

    /// The group has members, or batches in flight. Close its consumers and settle or drop their batches first.
    #[error("group {group:?} has {members} members or batches in flight: close its consumers first")]
    GroupActive {
        /// The group.
        group: String,
        /// Consumers in it now.
        members: usize,
    },

    /// The store, or the consumer, has been closed.
    #[error("the store or consumer is closed: open it again")]
    Closed,

    /// The operating system refused. What was acknowledged before is safe.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// The application's own code, called by this crate, failed.
    #[error("the application's {what} failed: {source}")]
    Application {
        /// Which callback.
        what: &'static str,
        /// Its error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn corrupt(path: &Path, position: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_path_buf(), position, reason: reason.into() }
    }

    pub(crate) fn option(option: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidOption { option, reason: reason.into() }
    }
}

/// Names the path an operating system error is about.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_path_buf(), source })
    }
}
