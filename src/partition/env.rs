//! What all partitions of a store share: the disk, the modes chosen, the report of recovery, recently used mappings.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::partition::background::Background;
use crate::partition::latch::lock;
use crate::partition::report::Report;
use crate::segment::{Recent, Segment};
use crate::storage::Storage;
use crate::sync::Mutex;
use crate::types::CacheIdentity;
use crate::{RecoveryMode, WriteMode};

/// The surroundings of every partition of one store.
#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) storage: Arc<dyn Storage>,
    /// The store's id, part of the seed of every checksum.
    pub(crate) store: u128,
    pub(crate) recovery_mode: RecoveryMode,
    /// Whether frames are stored through a mapping, or written with `pwrite`.
    pub(crate) mapped: bool,
    /// Whose page cache this is, to tell at the next opening whether it is still the same.
    pub(crate) identity: CacheIdentity,
    pub(crate) report: Report,
    pub(crate) background: Background,
    /// Keeps what was read last mapped. Protects only the list; taken last of all locks and never held over I/O.
    recent: Mutex<VecDeque<Recent>>,
}

/// So many sealed segments stay mapped although no one reads them now.
const RECENT: usize = 64;

impl Env {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        store: u128,
        directory: &Path,
        recovery_mode: RecoveryMode,
        write_mode: WriteMode,
    ) -> Arc<Self> {
        // Where the file system cannot be told, the way that is safe on any of them is taken.
        let mapped = match write_mode {
            WriteMode::Auto => storage.overwrites_in_place(directory).unwrap_or(false),
            WriteMode::Mapped => true,
            WriteMode::Pwrite => false,
        };
        Arc::new(Self {
            store,
            recovery_mode,
            mapped,
            identity: storage.cache_identity(directory),
            report: Report::default(),
            background: Background::new(Arc::clone(&storage)),
            recent: Mutex::default(),
            storage,
        })
    }

    /// Keeps the mapping of a segment for the next reader.
    pub(crate) fn remember(&self, recent: Recent) {
        let mut list = lock(&self.recent);
        if let Some(at) = list.iter().position(|known| known.is_for(&recent)) {
            list.remove(at);
        } else if list.len() >= RECENT {
            list.pop_front();
        }
        list.push_back(recent);
    }

    /// Lets go of a segment that was removed, so that its disk is free once its readers are done.
    pub(crate) fn forget(&self, segment: &Segment) {
        lock(&self.recent).retain(|known| !known.is_of(segment));
    }

    /// Lets go of all segments.
    pub(crate) fn forget_all(&self) {
        lock(&self.recent).clear();
    }
}
