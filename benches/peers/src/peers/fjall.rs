//! A key-value store of log-structured trees, keyed by offset.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::peer::{About, Peer, together};
use crate::values::Seen;
use crate::works::Work;

pub(crate) struct Fjall {
    database: Database,
    records: Keyspace,
    positions: Keyspace,
    next: AtomicU64,
    durable: bool,
}

fn number(bytes: &[u8]) -> Result<u64> {
    Ok(u64::from_be_bytes(bytes.try_into()?))
}

impl Fjall {
    fn put(&self, value: &[u8]) -> Result<()> {
        let offset = self.next.fetch_add(1, Ordering::Relaxed);
        self.records.insert(offset.to_be_bytes(), value)?;
        self.settle()
    }

    fn settle(&self) -> Result<()> {
        if self.durable {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Peer for Fjall {
    const ABOUT: About = About {
        name: "fjall",
        package: "fjall",
        power: "what the kernel had written",
        durable: "`insert`, `persist(SyncData)`; threads sync in turn",
        checks: "XXH3 of blocks",
        settings: "keyspaces of records, by offset, and of positions",
        remarks: &[],
        reads_once: false,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        let database = Database::builder(dir).open()?;
        let records = database.keyspace("records", KeyspaceCreateOptions::default)?;
        let positions = database.keyspace("positions", KeyspaceCreateOptions::default)?;
        let next = match records.last_key_value() {
            Some(last) => number(&last.key()?)? + 1,
            None => 0,
        };
        Ok(Self { database, records, positions, next: AtomicU64::new(next), durable: work.waits_for_disk() })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.put(value)
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        let mut batch = self.database.batch();
        for value in values {
            let offset = self.next.fetch_add(1, Ordering::Relaxed);
            batch.insert(&self.records, offset.to_be_bytes(), *value);
        }
        batch.commit()?;
        self.settle()
    }

    fn append_together(&mut self, threads: u64, until: Instant, value: &[u8]) -> Result<u64> {
        together(threads, until, |_| self.put(value))
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        for item in self.records.iter() {
            if !seen.see(&item.value()?) {
                break;
            }
        }
        Ok(())
    }

    fn consume(&mut self, seen: &mut Seen) -> Result<()> {
        let at = match self.positions.get("group")? {
            Some(bytes) => number(&bytes)?,
            None => 0,
        };
        for item in self.records.range(at.to_be_bytes()..) {
            let (key, value) = item.into_inner()?;
            let more = seen.see(&value);
            self.positions.insert("group", (number(&key)? + 1).to_be_bytes())?;
            self.settle()?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
