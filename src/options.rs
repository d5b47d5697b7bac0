//! What can be chosen, and the bounds of each choice.

use std::time::Duration;

use crate::{Error, Result};

/// What `Ok` of an append means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk: it survives power loss. Callers at the same time share one `fdatasync`. The next one may be held back
    /// until those whom it covered are here again: for as long as it took since it ended, and at most 1 ms. One thread
    /// alone is never held back. A record becomes readable when it is durable, not before. The default.
    Sync,
    /// In the page cache: it survives a crash of the process, and is on disk within this time.
    Interval(Duration),
    /// In the page cache: it survives a crash of the process, and is on disk when the kernel or `sync()` says so.
    Os,
}

/// What opening does with damage in what was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecoveryMode {
    /// Damage is an error, [`Error::Corrupt`], and nothing is changed. The default.
    #[default]
    Strict,
    /// Damaged frames are skipped and listed by [`Store::recovery`](crate::Store::recovery).
    Salvage,
}

/// How frames reach a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteMode {
    /// Mapped where the file system overwrites allocated blocks in place, `pwrite` elsewhere. The default.
    #[default]
    Auto,
    /// Through a shared mapping over allocated blocks. On a copy-on-write file system a full disk is then a SIGBUS.
    Mapped,
    /// Through `pwrite`, a system call an append, on any file system.
    Pwrite,
}

/// What is removed from a log, and when. Nothing, unless said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) consumed: bool,
}

impl Retention {
    /// Keeps everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes the oldest sealed segments while the rest stays at or above so many bytes, for each partition.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Removes sealed segments whose newest record is older.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Removes sealed segments that every group known to the log has moved past.
    #[must_use]
    pub fn consumed(mut self) -> Self {
        self.consumed = true;
        self
    }
}

/// Which records of a log supersede others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compaction {
    /// None. The default.
    #[default]
    None,
    /// Only the last record of every key is kept. Every record must have a key.
    KeepLatest,
}

/// How a log is kept. Options that are not set keep what is stored with the log, or the default when it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogOptions {
    pub(crate) partitions: Option<u32>,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) segment_age: Option<Duration>,
    pub(crate) max_record_bytes: Option<u64>,
    pub(crate) durability: Option<Durability>,
    pub(crate) retention: Option<Retention>,
    pub(crate) compaction: Option<Compaction>,
    pub(crate) tombstone_delay: Option<Duration>,
}

impl LogOptions {
    /// Least value of [`segment_bytes`](Self::segment_bytes): 64 KiB.
    pub const MIN_SEGMENT_BYTES: u64 = 64 << 10;
    /// Largest value of [`segment_bytes`](Self::segment_bytes): 2 GiB, so that every position fits in 32 bits.
    pub const MAX_SEGMENT_BYTES: u64 = 2 << 30;
    /// Largest number of [`partitions`](Self::partitions).
    pub const MAX_PARTITIONS: u32 = 1 << 16;
    /// Largest value of [`max_record_bytes`](Self::max_record_bytes): 512 MiB.
    pub const MAX_RECORD_BYTES: u64 = 512 << 20;

    /// Nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of partitions, 1 by default. It may grow later, never shrink.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Size in bytes at which a segment is full, 128 MiB by default, at least 64 KiB.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// Age at which a segment is full, whatever its size. None by default.
    #[must_use]
    pub fn segment_age(mut self, age: Duration) -> Self {
        self.segment_age = Some(age);
        self
    }

    /// Largest record in bytes, 16 MiB by default.
    #[must_use]
    pub fn max_record_bytes(mut self, bytes: u64) -> Self {
        self.max_record_bytes = Some(bytes);
        self
    }

    /// What `Ok` of an append to this log means, the store's durability by default.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// What is removed, and when. Nothing by default.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Which records supersede others. Fixed when the log is created.
    #[must_use]
    pub fn compaction(mut self, compaction: Compaction) -> Self {
        self.compaction = Some(compaction);
        self
    }

    /// How long compaction keeps a tombstone, a day by default.
    #[must_use]
    pub fn tombstone_delay(mut self, delay: Duration) -> Self {
        self.tombstone_delay = Some(delay);
        self
    }

    /// These options, with what is not set taken from `stored`.
    pub(crate) fn or(self, stored: Self) -> Self {
        Self {
            partitions: self.partitions.or(stored.partitions),
            segment_bytes: self.segment_bytes.or(stored.segment_bytes),
            segment_age: self.segment_age.or(stored.segment_age),
            max_record_bytes: self.max_record_bytes.or(stored.max_record_bytes),
            durability: self.durability.or(stored.durability),
            retention: self.retention.or(stored.retention),
            compaction: self.compaction.or(stored.compaction),
            tombstone_delay: self.tombstone_delay.or(stored.tombstone_delay),
        }
    }

    /// Refuses values that cannot be, naming the option and its bounds.
    pub(crate) fn check(&self) -> Result<()> {
        within("partitions", self.partitions.map(u64::from), 1, u64::from(Self::MAX_PARTITIONS))?;
        within("segment_bytes", self.segment_bytes, Self::MIN_SEGMENT_BYTES, Self::MAX_SEGMENT_BYTES)?;
        within("max_record_bytes", self.max_record_bytes, 1, Self::MAX_RECORD_BYTES)?;
        positive("segment_age", self.segment_age)?;
        if let Some(durability) = self.durability {
            durability.check()?;
        }
        if let Some(retention) = self.retention {
            within("retention.max_bytes", retention.max_bytes, 1, u64::MAX)?;
            positive("retention.max_age", retention.max_age)?;
        }
        Ok(())
    }

    pub(crate) fn partition_count(&self) -> u32 {
        self.partitions.unwrap_or(1)
    }

    pub(crate) fn segment_size(&self) -> u64 {
        self.segment_bytes.unwrap_or(128 << 20)
    }

    pub(crate) fn record_limit(&self) -> u64 {
        self.max_record_bytes.unwrap_or(16 << 20)
    }
}

impl Durability {
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Interval(interval) => positive("durability interval", Some(interval)),
            Self::Sync | Self::Os => Ok(()),
        }
    }
}

fn within(option: &'static str, value: Option<u64>, least: u64, most: u64) -> Result<()> {
    match value {
        Some(value) if value < least || value > most => {
            Err(Error::option(option, format!("is {value}: it must be {least} to {most}")))
        }
        _ => Ok(()),
    }
}

fn positive(option: &'static str, value: Option<Duration>) -> Result<()> {
    match value {
        Some(value) if value.as_millis() == 0 => {
            Err(Error::option(option, format!("is {value:?}: it must be at least 1 ms")))
        }
        _ => Ok(()),
    }
}
