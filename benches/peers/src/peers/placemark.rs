//! Ours.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use placemark::{Durability, Log, StartAt, Store};

use crate::peer::{About, Peer, together};
use crate::values::Seen;
use crate::works::Work;

pub(crate) struct Placemark {
    store: Store,
    log: Log,
}

impl Peer for Placemark {
    const ABOUT: About = About {
        name: "placemark",
        package: "placemark",
        power: "what the kernel had written",
        durable: "`Durability::Sync`; threads share a sync",
        checks: "CRC-32",
        settings: "`Durability::Os` where nothing is waited for; consuming: `at_least_once`, one record a poll",
        remarks: &[],
        reads_once: false,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        let durability = if work.waits_for_disk() { Durability::Sync } else { Durability::Os };
        let store = Store::options().durability(durability).open(dir)?;
        let log = store.log("records")?;
        Ok(Self { store, log })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.log.append(value)?;
        Ok(())
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        self.log.append_batch(values)?;
        Ok(())
    }

    fn append_together(&mut self, threads: u64, until: Instant, value: &[u8]) -> Result<u64> {
        together(threads, until, |_| {
            self.log.append(value)?;
            Ok(())
        })
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        for entry in self.log.read(StartAt::Earliest)? {
            if !seen.see(entry?.value()) {
                break;
            }
        }
        Ok(())
    }

    fn consume(&mut self, seen: &mut Seen) -> Result<()> {
        let mut consumer = self.log.consumer("group").max_poll_records(1).at_least_once()?;
        while let Some(batch) = consumer.poll(Duration::ZERO)? {
            let more = batch.iter().all(|entry| seen.see(entry.value()));
            batch.commit()?;
            if !more {
                break;
            }
        }
        Ok(consumer.close()?)
    }

    fn close(self) -> Result<()> {
        Ok(self.store.close()?)
    }
}
