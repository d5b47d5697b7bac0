//! A log of topics, each with one position of its reader.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus as Log, disable_fd_backend, enable_fd_backend};

use crate::peer::{About, Peer, together};
use crate::trials::Measure;
use crate::values::Seen;
use crate::works::Work;

const TOPIC: &str = "records";

/// Bytes of one read, about the 2000 records that a read gives at most.
const READ: usize = 256 << 10;

pub(crate) struct Walrus {
    log: Log,
}

impl Peer for Walrus {
    const ABOUT: About = About {
        name: "walrus-rust",
        package: "walrus-rust",
        power: "with `NoFsync`, what the kernel had written",
        durable: "`SyncEach`; threads take turns",
        checks: "FNV-1a",
        settings: "single appends that are not waited for through its mapping, the rest through its default, descriptors \
                   and io_uring; a batch is always synced; consuming: `StrictlyAtOnce`, which always syncs; files of \
                   1000 MiB",
        remarks: &[
            (Measure::Batch, "each batch is synced: walrus-rust has no other"),
            (Measure::Consume, "each position is synced: walrus-rust has no other for every record"),
        ],
        reads_once: true,
    };

    /// It keeps its files where the environment says, which whoever starts this process has set.
    fn open(_: &Path, work: Work) -> Result<Self> {
        match work {
            Work::Append100 | Work::Append1k | Work::Kill => disable_fd_backend(),
            _ => enable_fd_backend(),
        }
        let consistency = match work.consumes() {
            true => ReadConsistency::StrictlyAtOnce,
            false => ReadConsistency::AtLeastOnce { persist_every: u32::MAX },
        };
        let schedule = if work.waits_for_disk() { FsyncSchedule::SyncEach } else { FsyncSchedule::NoFsync };
        Ok(Self { log: Log::with_consistency_and_schedule(consistency, schedule)? })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        Ok(self.log.append_for_topic(TOPIC, value)?)
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        Ok(self.log.batch_append_for_topic(TOPIC, values)?)
    }

    fn append_together(&mut self, threads: u64, until: Instant, value: &[u8]) -> Result<u64> {
        together(threads, until, |_| Ok(self.log.append_for_topic(TOPIC, value)?))
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        loop {
            let entries = self.log.batch_read_for_topic(TOPIC, READ, true)?;
            if entries.is_empty() || !entries.iter().all(|entry| seen.see(&entry.data)) {
                return Ok(());
            }
        }
    }

    fn consume(&mut self, seen: &mut Seen) -> Result<()> {
        while let Some(entry) = self.log.read_next(TOPIC, true)? {
            if !seen.see(&entry.data) {
                break;
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}
