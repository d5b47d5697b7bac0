//! What the machine can do at best, in the same works: frames stored into a mapping and walked over, and frames written
//! with `pwrite` and `fdatasync`. Neither is a log: nothing here survives a mistake.
#![expect(unsafe_code, reason = "the limit is a store into a mapping, which memmap2 cannot know to be safe")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use memmap2::MmapMut;
use rustix::fs::{FallocateFlags, fallocate};

use crate::peer::{About, Peer, unable};
use crate::position::PositionFile;
use crate::values::{Seen, Values};
use crate::works::Work;

/// Header of a frame: its length, a checksum over what follows, and room for what a log has to say of it.
const HEADER: usize = 28;
/// Before each record: its length, and room.
const RECORD: usize = 8;
/// Bytes of one file.
const FILE: usize = 512 << 20;

/// A file of allocated blocks.
fn allocated(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, FILE as u64)?;
    Ok(file)
}

fn frame_len(values: &[&[u8]]) -> usize {
    HEADER + values.iter().map(|value| RECORD + value.len()).sum::<usize>()
}

/// Makes a frame of these values, its length last.
#[inline]
fn fill(frame: &mut [u8], values: &[&[u8]]) -> Result<()> {
    let mut at = HEADER;
    for value in values {
        let begin = at + RECORD;
        frame[at..at + 4].copy_from_slice(&u32::try_from(value.len())?.to_le_bytes());
        at = begin + value.len();
        frame[begin..at].copy_from_slice(value);
    }
    let crc = crc32fast::hash(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    let len = u32::try_from(frame.len())?;
    frame[..4].copy_from_slice(&len.to_le_bytes());
    Ok(())
}

/// From frame to frame, and from record to record. Whether more are wanted.
fn walk(bytes: &[u8], seen: &mut Seen) -> Result<bool> {
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word) as usize);
    let mut at = 0;
    while at < bytes.len() && word(at) != 0 {
        let end = at + word(at);
        anyhow::ensure!(crc32fast::hash(&bytes[at + 8..end]) as usize == word(at + 4), "a frame is damaged");
        let mut record = at + HEADER;
        while record < end {
            let begin = record + RECORD;
            record = begin + word(record);
            if !seen.see(&bytes[begin..record]) {
                return Ok(false);
            }
        }
        at = end;
    }
    Ok(true)
}

/// Frames in a mapping.
pub(crate) struct Mapping {
    dir: PathBuf,
    maps: Vec<MmapMut>,
    /// Where the next frame goes in the last of them.
    end: usize,
}

impl Mapping {
    fn map(dir: &Path, number: usize) -> Result<MmapMut> {
        let file = allocated(&dir.join(format!("{number}.map")))?;
        // SAFETY: the file lies in a directory of this benchmark's own, and nobody else cuts it.
        Ok(unsafe { MmapMut::map_mut(&file)? })
    }

    /// Room for a frame of `len` bytes.
    fn room(&mut self, len: usize) -> Result<&mut [u8]> {
        if self.maps.is_empty() || self.end + len > FILE {
            self.maps.push(Self::map(&self.dir, self.maps.len())?);
            self.end = 0;
        }
        let begin = self.end;
        self.end += len;
        match self.maps.last_mut() {
            Some(map) => Ok(&mut map[begin..self.end]),
            None => bail!("no file"),
        }
    }
}

impl Peer for Mapping {
    const ABOUT: About = About {
        name: "limit: mapping",
        package: "",
        power: "",
        durable: "",
        checks: "CRC-32",
        settings: "a frame with its CRC-32 stored into a mapping of allocated blocks; a bare walk over the frames",
        remarks: &[],
        reads_once: false,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        if work.waits_for_disk() || work.consumes() || matches!(work, Work::Fill | Work::Open | Work::Kill) {
            return Err(unable("a mapping has no such limit"));
        }
        std::fs::create_dir_all(dir)?;
        let count = std::fs::read_dir(dir)?.count();
        let maps = (0..count).map(|number| Self::map(dir, number)).collect::<Result<_>>()?;
        Ok(Self { dir: dir.to_owned(), maps, end: 0 })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_batch(&[value])
    }

    #[inline]
    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        fill(self.room(frame_len(values))?, values)
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        for map in &self.maps {
            if !walk(map, seen)? {
                break;
            }
        }
        Ok(())
    }

    fn consume(&mut self, _: &mut Seen) -> Result<()> {
        Err(unable("a mapping has no such limit"))
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

/// Frames written one by one.
pub(crate) struct Pwrite {
    dir: PathBuf,
    file: File,
    buffer: Vec<u8>,
    at: u64,
    durable: bool,
}

impl Peer for Pwrite {
    const ABOUT: About = About {
        name: "limit: `pwrite`",
        package: "",
        power: "",
        durable: "",
        checks: "CRC-32",
        settings: "a frame with its CRC-32 written by one `pwrite` into an allocated file, and one `fdatasync` where it is \
                   waited for; a scan reads the file whole; consuming reads nothing and writes 12 bytes in place",
        remarks: &[],
        reads_once: false,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        if matches!(work, Work::Fill | Work::Open | Work::Kill) {
            return Err(unable("nothing is opened"));
        }
        std::fs::create_dir_all(dir)?;
        let file = allocated(&dir.join("file"))?;
        file.sync_all()?;
        Ok(Self { dir: dir.to_owned(), file, buffer: Vec::new(), at: 0, durable: work.waits_for_disk() })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_batch(&[value])
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        self.buffer.resize(frame_len(values), 0);
        fill(&mut self.buffer, values)?;
        self.file.write_all_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        if self.durable {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn append_together(&mut self, _: u64, _: Instant, _: &[u8]) -> Result<u64> {
        Err(unable("how threads share a sync is what is compared"))
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        walk(&std::fs::read(self.dir.join("file"))?, seen)?;
        Ok(())
    }

    fn consume(&mut self, seen: &mut Seen) -> Result<()> {
        let position = PositionFile::open(&self.dir, self.durable)?;
        let mut at = position.get()?;
        let mut values = Values::new(100);
        values.skip(at);
        loop {
            let more = seen.see(values.next());
            at += 1;
            position.set(at)?;
            if !more {
                return Ok(());
            }
        }
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}
