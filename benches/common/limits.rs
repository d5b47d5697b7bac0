//! What the machine can do at best, and what the plain way costs.
#![expect(unsafe_code, reason = "the limit is a store into a mapping, which memmap2 cannot know to be safe")]
#![expect(clippy::indexing_slicing, reason = "a benchmark fails by panicking")]

use std::fs::File;
use std::hint::black_box;
use std::mem;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use memmap2::MmapMut;

use super::{in_pieces, timed, together};

/// Bytes around a record's value on disk.
pub(crate) const AROUND: usize = 36;

/// Records that go into one file before it is thrown away.
pub(crate) const PIECE: u64 = 400_000;

pub(crate) fn allocated(len: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len).unwrap();
    file
}

fn mapped(len: u64) -> MmapMut {
    // SAFETY: the file has no name, so that no one else can cut it.
    unsafe { MmapMut::map_mut(&allocated(len)) }.unwrap()
}

/// Stores a frame: the length, a checksum, room for a header, and the value.
fn store(slot: &mut [u8], value: &[u8]) {
    slot[AROUND..].copy_from_slice(value);
    let crc = crc32fast::hash(&slot[8..]);
    slot[4..8].copy_from_slice(&crc.to_le_bytes());
    let len = u32::try_from(slot.len()).unwrap();
    slot[..4].copy_from_slice(&len.to_le_bytes());
}

/// The bytes and their CRC, stored into a mapping of allocated blocks.
pub(crate) fn into_mapping(iterations: u64, value: &[u8]) -> Duration {
    let frame = AROUND + value.len();
    in_pieces(
        iterations,
        PIECE,
        |count| mapped(count * frame as u64),
        |map, _| map.chunks_exact_mut(frame).for_each(|slot| store(slot, black_box(value))),
    )
}

/// One `pwrite` a record, into an allocated file.
pub(crate) fn pwrite(iterations: u64, value: &[u8]) -> Duration {
    let frame = AROUND + value.len();
    let mut bytes = vec![0; frame];
    in_pieces(
        iterations,
        PIECE,
        |count| allocated(count * frame as u64),
        |file, count| {
            for number in 0..count {
                bytes[AROUND..].copy_from_slice(black_box(value));
                file.write_all_at(&bytes, number * frame as u64).unwrap();
            }
        },
    )
}

/// A file to be written from the front, one record a sync.
pub(crate) struct Synced {
    file: File,
    at: std::cell::Cell<u64>,
}

impl Synced {
    pub(crate) fn new() -> Self {
        let file = allocated(64 << 20);
        file.sync_all().unwrap();
        Self { file, at: std::cell::Cell::new(0) }
    }

    /// One `pwrite` and one `fdatasync` a record.
    pub(crate) fn write(&self, iterations: u64, value: &[u8]) -> Duration {
        let bytes = vec![1; AROUND + value.len()];
        timed(|| {
            for _ in 0..iterations {
                self.file.write_all_at(&bytes, self.at.get()).unwrap();
                self.file.sync_data().unwrap();
                self.at.set((self.at.get() + bytes.len() as u64) % (60 << 20));
            }
        })
    }
}

/// The plain way to share a sync: records are gathered, and whoever finds no one writing writes and syncs them for all.
pub(crate) struct GroupCommit {
    file: File,
    gathered: Mutex<Gathered>,
    synced: Condvar,
}

#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    at: u64,
    appended: u64,
    durable: u64,
    writing: bool,
}

impl GroupCommit {
    pub(crate) fn new() -> Self {
        Self { file: allocated(256 << 20), gathered: Mutex::default(), synced: Condvar::new() }
    }

    /// Records of this value by so many threads, each of which waits for its own.
    pub(crate) fn write(&self, threads: u64, iterations: u64, value: &[u8]) -> Duration {
        let bytes = &vec![1; AROUND + value.len()];
        together(threads, iterations, |_, count| (0..count).for_each(|_| self.append(bytes)))
    }

    fn append(&self, bytes: &[u8]) {
        let mut gathered = self.gathered.lock().unwrap();
        gathered.bytes.extend_from_slice(bytes);
        gathered.appended += 1;
        let own = gathered.appended;
        while gathered.durable < own {
            if gathered.writing {
                gathered = self.synced.wait(gathered).unwrap();
                continue;
            }
            gathered.writing = true;
            let (all, at, last) = (mem::take(&mut gathered.bytes), gathered.at, gathered.appended);
            gathered.at = (at + all.len() as u64) % (250 << 20);
            drop(gathered);
            self.file.write_all_at(&all, at).unwrap();
            self.file.sync_data().unwrap();
            gathered = self.gathered.lock().unwrap();
            gathered.durable = last;
            gathered.writing = false;
            self.synced.notify_all();
        }
    }
}

/// Seconds to write so many bytes and sync them, in pieces of 1 MiB.
pub(crate) fn disk(bytes: u64) -> f64 {
    let file = tempfile::tempfile().unwrap();
    let piece = vec![1; 1 << 20];
    timed(|| {
        (0..bytes >> 20).for_each(|at| file.write_all_at(&piece, at << 20).unwrap());
        file.sync_data().unwrap();
    })
    .as_secs_f64()
}

/// Frames of `records` values each, as the bare walk reads them.
pub(crate) fn frames(count: usize, records: usize, value: &[u8]) -> MmapMut {
    let frame = 28 + records * (8 + value.len());
    let mut map = mapped((count / records * frame) as u64);
    for slot in map.chunks_exact_mut(frame) {
        for record in slot[28..].chunks_exact_mut(8 + value.len()) {
            record[..4].copy_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
            record[8..].copy_from_slice(value);
        }
        let crc = crc32fast::hash(&slot[8..]);
        slot[4..8].copy_from_slice(&crc.to_le_bytes());
        slot[..4].copy_from_slice(&u32::try_from(frame).unwrap().to_le_bytes());
    }
    map
}

/// From frame to frame by their lengths, each held against its CRC, and from record to record; the sum of their lengths.
pub(crate) fn walk(bytes: &[u8]) -> usize {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut sum) = (0, 0);
    while at < bytes.len() {
        let end = at + word(at);
        assert_eq!(crc32fast::hash(&bytes[at + 8..end]) as usize, word(at + 4));
        let mut record = at + 28;
        while record < end {
            let len = word(record);
            sum += len;
            record += 8 + len;
        }
        at = end;
    }
    sum
}
