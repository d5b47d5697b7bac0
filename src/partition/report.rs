//! What opening found and did.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::partition::latch::lock;
use crate::sync::Mutex;

/// What opening a store and its logs found and did. It grows as logs open, and as salvage skips what is damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Torn tails that were cut, none of which had been promised to be durable, or only under the durability chosen.
    pub cuts: Vec<Cut>,
    /// Partitions that had not been closed, and were walked from their recovery point.
    pub recovered_partitions: u64,
    /// Decided transactions that were applied again.
    pub replayed_transactions: u64,
    damage: Vec<Damage>,
}

/// A torn tail that was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The segment file.
    pub path: PathBuf,
    /// Byte from which on it was cut.
    pub position: u64,
    /// Bytes, up to the last that was not zero.
    pub bytes: u64,
}

/// A stretch of a file that does not read back as it was written, and that salvage steps over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file, or where it should be.
    pub path: PathBuf,
    /// Byte at which it begins.
    pub position: u64,
    /// Bytes that were stepped over.
    pub bytes: u64,
    /// Offsets of the records that are missing because of it.
    pub offsets: Range<u64>,
}

impl RecoveryReport {
    /// Bytes cut from torn tails, over all partitions.
    pub fn cut_bytes(&self) -> u64 {
        self.cuts.iter().map(|cut| cut.bytes).sum()
    }

    /// What salvage stepped over so far, each stretch once.
    pub fn damage(&self) -> Vec<Damage> {
        self.damage.clone()
    }
}

/// The report as it grows.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Protects the report; nothing else is locked under it.
    inner: Mutex<RecoveryReport>,
}

impl Report {
    pub(crate) fn snapshot(&self) -> RecoveryReport {
        lock(&self.inner).clone()
    }

    pub(crate) fn recovered(&self) {
        lock(&self.inner).recovered_partitions += 1;
    }

    pub(crate) fn replayed(&self, transactions: u64) {
        lock(&self.inner).replayed_transactions += transactions;
    }

    pub(crate) fn cut(&self, path: &Path, position: u64, bytes: u64) {
        if bytes > 0 {
            lock(&self.inner).cuts.push(Cut { path: path.to_path_buf(), position, bytes });
        }
    }

    /// Lists a damage, once however often it is met.
    pub(crate) fn damaged(&self, path: &Path, position: u64, bytes: u64, offsets: Range<u64>) {
        let damage = &mut lock(&self.inner).damage;
        if !damage.iter().any(|known| known.path == path && known.position == position) {
            damage.push(Damage { path: path.to_path_buf(), position, bytes, offsets });
        }
    }
}
