//! A log after Kafka's, without groups.

use std::path::Path;

use anyhow::Result;
use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};

use crate::peer::{About, Peer, unable};
use crate::position::PositionFile;
use crate::values::Seen;
use crate::works::Work;

pub(crate) struct Commitlog {
    log: CommitLog,
    position: PositionFile,
    buffer: MessageBuf,
}

/// Bytes of one read.
const READ: usize = 256 << 10;

impl Commitlog {
    /// Shows records from `next` on; `behind` is told the offset behind each.
    fn read(&self, mut next: u64, seen: &mut Seen, mut behind: impl FnMut(u64) -> Result<()>) -> Result<()> {
        loop {
            let set = self.log.read(next, ReadLimit::max_bytes(READ))?;
            if set.is_empty() {
                return Ok(());
            }
            for message in set.iter() {
                next = message.offset() + 1;
                let more = seen.see(message.payload());
                behind(next)?;
                if !more {
                    return Ok(());
                }
            }
        }
    }
}

impl Peer for Commitlog {
    const ABOUT: About = About {
        name: "commitlog",
        package: "commitlog",
        power: "not said: no call syncs the log file",
        durable: "none: `flush` syncs the index, not the log",
        checks: "CRC-32C",
        settings: "one buffer for all appends; reads of 256 KiB; no consumer positions: a file of ours",
        remarks: &[],
        reads_once: false,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        if work.waits_for_disk() && !work.consumes() {
            return Err(unable("no call syncs its log file: `flush` writes back the mapped index only"));
        }
        let log = CommitLog::new(LogOptions::new(dir.join("log")))?;
        let position = PositionFile::open(dir, work.waits_for_disk())?;
        Ok(Self { log, position, buffer: MessageBuf::default() })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_batch(&[value])
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        self.buffer.clear();
        for value in values {
            self.buffer.push(value).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        }
        self.log.append(&mut self.buffer)?;
        Ok(())
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        self.read(0, seen, |_| Ok(()))
    }

    fn consume(&mut self, seen: &mut Seen) -> Result<()> {
        self.read(self.position.get()?, seen, |next| self.position.set(next))
    }

    fn close(mut self) -> Result<()> {
        Ok(self.log.flush()?)
    }
}
