//! The log of `TiKV`'s Raft groups, and small values beside it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use raft_engine::{Config, Engine, LogBatch, MessageExt};
use raft_proto::eraftpb::Entry;

use crate::peer::{About, Peer, together};
use crate::trials::Measure;
use crate::values::Seen;
use crate::works::Work;

/// The group that one thread writes.
const GROUP: u64 = 1;
const POSITION: &[u8] = b"position";

/// Entries of one read.
const READ: u64 = 1000;

pub(crate) struct RaftEngine {
    engine: Engine,
    batch: LogBatch,
    next: u64,
    durable: bool,
}

/// How the engine finds an entry's index.
#[derive(Clone)]
struct Indexed;

impl MessageExt for Indexed {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

fn entry(index: u64, value: &[u8]) -> Entry {
    Entry { index, data: value.to_vec().into(), ..Entry::default() }
}

impl RaftEngine {
    /// Shows a group's entries from `next` on; `behind` is told the index behind each.
    fn read(
        &self,
        group: u64,
        mut next: u64,
        seen: &mut Seen,
        mut behind: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let end = self.engine.last_index(group).map_or(0, |last| last + 1);
        let mut entries = Vec::new();
        while next < end {
            entries.clear();
            self.engine.fetch_entries_to::<Indexed>(group, next, end.min(next + READ), None, &mut entries)?;
            for entry in &entries {
                next = entry.index + 1;
                let more = seen.see(&entry.data);
                behind(next)?;
                if !more {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Peer for RaftEngine {
    const ABOUT: About = About {
        name: "raft-engine",
        package: "raft-engine",
        power: "what the kernel had written",
        durable: "`write(.., sync)`; threads share a sync",
        checks: "CRC-32",
        settings: "one Raft group, 16 threads: one each; reads of 1000 entries; positions are values of the group",
        remarks: &[(Measure::DurableMany, "each thread writes to a Raft group of its own")],
        reads_once: false,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        let dir = dir.to_str().ok_or_else(|| anyhow::anyhow!("a path that is not text"))?.to_owned();
        let engine = Engine::open(Config { dir, ..Config::default() })?;
        let next = engine.last_index(GROUP).map_or(1, |last| last + 1);
        Ok(Self { engine, batch: LogBatch::default(), next, durable: work.waits_for_disk() })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_batch(&[value])
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        let entries: Vec<Entry> = (self.next..).zip(values).map(|(index, value)| entry(index, value)).collect();
        self.next += values.len() as u64;
        self.batch.add_entries::<Indexed>(GROUP, &entries)?;
        self.engine.write(&mut self.batch, self.durable)?;
        Ok(())
    }

    /// Each thread writes to a group of its own, as many Raft groups share an engine: a group's entries come in order.
    fn append_together(&mut self, threads: u64, until: Instant, value: &[u8]) -> Result<u64> {
        let next = |group| self.engine.last_index(group).map_or(1, |last| last + 1);
        let next: Vec<AtomicU64> = (0..threads).map(|thread| AtomicU64::new(next(GROUP + thread))).collect();
        together(threads, until, |thread| {
            let index = next.get(usize::try_from(thread)?).map_or(0, |next| next.fetch_add(1, Ordering::Relaxed));
            let mut batch = LogBatch::default();
            batch.add_entries::<Indexed>(GROUP + thread, &[entry(index, value)])?;
            self.engine.write(&mut batch, self.durable)?;
            Ok(())
        })
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        self.engine.raft_groups().into_iter().try_for_each(|group| self.read(group, 1, seen, |_| Ok(())))
    }

    fn consume(&mut self, seen: &mut Seen) -> Result<()> {
        let next = match self.engine.get(GROUP, POSITION) {
            Some(bytes) => u64::from_le_bytes(bytes.as_slice().try_into()?),
            None => 1,
        };
        self.read(GROUP, next, seen, |next| {
            let mut batch = LogBatch::default();
            batch.put(GROUP, POSITION.to_vec(), next.to_le_bytes().to_vec())?;
            self.engine.write(&mut batch, self.durable)?;
            Ok(())
        })
    }

    fn close(self) -> Result<()> {
        self.engine.sync()?;
        Ok(())
    }
}
