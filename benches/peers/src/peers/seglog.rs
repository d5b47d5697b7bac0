//! Segments of a fixed size with one writer; which segment comes next is left to the user.

use std::path::{Path, PathBuf};

use anyhow::Result;
use seglog::FlushedOffset;
use seglog::read::Reader;
use seglog::write::{WriteError, Writer};

use crate::peer::{About, Peer};
use crate::position::PositionFile;
use crate::trials::Measure;
use crate::values::Seen;
use crate::works::Work;

/// Bytes of a segment.
const SEGMENT: usize = 64 << 20;

pub(crate) struct Seglog {
    dir: PathBuf,
    writer: Writer<0>,
    /// Segments, of which the last is written.
    segments: usize,
    /// Number of the next record.
    next: u64,
    durable: bool,
    position: PositionFile,
}

impl Seglog {
    fn path(dir: &Path, number: usize) -> PathBuf {
        dir.join(format!("{number}.segment"))
    }

    fn write(&mut self, value: &[u8]) -> Result<()> {
        match self.writer.append(&[], value) {
            Err(WriteError::SegmentFull { .. }) => {
                self.writer.commit(self.next)?;
                self.writer = Writer::create(Self::path(&self.dir, self.segments), SEGMENT, 0)?;
                self.segments += 1;
                self.writer.append(&[], value)?;
            }
            other => drop(other?),
        }
        self.next += 1;
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        if self.durable {
            self.writer.commit(self.next)?;
        }
        Ok(())
    }

    /// Shows records behind the first `skipped`; `behind` is told the number behind each.
    fn read(&self, skipped: u64, seen: &mut Seen, mut behind: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let mut number = 0;
        for segment in 0..self.segments {
            let last = segment + 1 == self.segments;
            let end: Option<FlushedOffset> = last.then(|| self.writer.flushed_offset());
            let mut reader = Reader::<0>::open(Self::path(&self.dir, segment), end)?;
            let mut records = reader.iter(0);
            while let Some(record) = records.next_record()? {
                number += 1;
                if number <= skipped {
                    continue;
                }
                let more = seen.see(&record.data);
                behind(number)?;
                if !more {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Peer for Seglog {
    const ABOUT: About = About {
        name: "seglog",
        package: "seglog",
        power: "none since the last `commit`",
        durable: "`append`, `commit`; one writer, threads take turns",
        checks: "CRC-32C",
        settings: "segments of 64 MiB; appends that are not waited for stay in a buffer of the process, and without a \
                   `commit`, which always syncs, opening cuts them; no consumer positions: a file of ours",
        remarks: &[
            (Measure::DiskSingles, "its last segment, of 64 MiB, is allocated whole"),
            (Measure::DiskBatches, "its last segment, of 64 MiB, is allocated whole"),
        ],
        reads_once: false,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        let position = PositionFile::open(dir, work.waits_for_disk())?;
        let segments = (0..1 << 20).take_while(|number| Self::path(dir, *number).exists()).count();
        let writer = match segments.checked_sub(1) {
            Some(last) => Writer::open(Self::path(dir, last), SEGMENT, 0)?,
            None => Writer::create(Self::path(dir, 0), SEGMENT, 0)?,
        };
        let next = writer.last_committed_position().unwrap_or(0);
        let durable = work.waits_for_disk();
        Ok(Self { dir: dir.to_owned(), writer, segments: segments.max(1), next, durable, position })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.write(value)?;
        self.settle()
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        values.iter().try_for_each(|value| self.write(value))?;
        self.settle()
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        self.read(0, seen, |_| Ok(()))
    }

    fn consume(&mut self, seen: &mut Seen) -> Result<()> {
        self.read(self.position.get()?, seen, |next| self.position.set(next))
    }

    fn close(mut self) -> Result<()> {
        self.writer.commit(self.next)?;
        Ok(self.writer.close()?)
    }
}
