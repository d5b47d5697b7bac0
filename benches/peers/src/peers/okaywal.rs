//! A write-ahead log: every entry is synced, and read when the log is opened again.

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use crate::peer::{About, Peer, together, unable};
use crate::trials::Measure;
use crate::values::Seen;
use crate::works::Work;

pub(crate) struct Okaywal {
    dir: PathBuf,
    /// None before it is needed: opening reads everything, and so is the scan itself.
    wal: Option<WriteAheadLog>,
}

/// Shows what recovery finds.
#[derive(Debug)]
struct Recovered(Arc<Mutex<Seen>>);

impl LogManager for Recovered {
    fn recover(&mut self, entry: &mut Entry<'_>) -> std::io::Result<()> {
        let chunks = entry.read_all_chunks()?.unwrap_or_default();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in chunks {
            seen.see(&chunk);
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> std::io::Result<()> {
        Ok(())
    }
}

impl Okaywal {
    /// All in one file, and never given up: a checkpoint would take the entries away.
    fn recover(&mut self, seen: &mut Seen) -> Result<&WriteAheadLog> {
        let shared = Arc::new(Mutex::new(mem::replace(seen, Seen::up_to(0))));
        let configuration = Configuration::default_for(self.dir.as_path())
            .preallocate_bytes(64 << 20)
            .checkpoint_after_bytes(u64::MAX)
            .open(Recovered(Arc::clone(&shared)))?;
        let wal = self.wal.insert(configuration);
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        mem::swap(seen, &mut shared);
        Ok(wal)
    }

    fn wal(&mut self) -> Result<&WriteAheadLog> {
        match self.wal {
            Some(ref wal) => Ok(wal),
            None => self.recover(&mut Seen::up_to(0)),
        }
    }
}

impl Peer for Okaywal {
    const ABOUT: About = About {
        name: "okaywal",
        package: "okaywal",
        power: "all: every entry is synced",
        durable: "`commit`; threads share a sync",
        checks: "CRC-32C",
        settings: "files allocated in steps of 64 MiB, no checkpoints, which would take the entries away; it is read by \
                   opening it, all of it before the first append, and has no consumer positions",
        remarks: &[
            (Measure::Batch, "each batch is synced: okaywal has no other"),
            (Measure::ScanBatches, "opening is the scan"),
            (Measure::Open, "opening reads everything"),
            (Measure::DiskBatches, "its file grows by 64 MiB here"),
        ],
        reads_once: true,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        if matches!(work, Work::Append100 | Work::Append1k) {
            return Err(unable("it syncs every entry"));
        }
        if work.consumes() {
            return Err(unable("it gives entries back while it is opened, and only then"));
        }
        Ok(Self { dir: dir.to_owned(), wal: None })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_batch(&[value])
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        let mut entry = self.wal()?.begin_entry()?;
        for value in values {
            entry.write_chunk(value)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn append_together(&mut self, threads: u64, until: Instant, value: &[u8]) -> Result<u64> {
        let wal = self.wal()?;
        together(threads, until, |_| {
            let mut entry = wal.begin_entry()?;
            entry.write_chunk(value)?;
            entry.commit()?;
            Ok(())
        })
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        self.recover(seen)?;
        Ok(())
    }

    fn consume(&mut self, _: &mut Seen) -> Result<()> {
        Err(unable("it gives entries back while it is opened, and only then"))
    }

    fn close(self) -> Result<()> {
        Ok(self.wal.map_or(Ok(()), WriteAheadLog::shutdown)?)
    }
}
