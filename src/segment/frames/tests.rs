//! Walks and searches over files that are not what they should be: what is read, and what is believed.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FrameReader, find_frame, frame_at};
use crate::format::{FRAME_HEADER, FrameStamp, Ident, Seed, frame_len, seal_frame};
use crate::storage::{File, Map};
use crate::types::{LogId, Millis, Pos};

const IDENT: Ident = Ident { store: 11, log: LogId(16), partition: 0 };

fn seed() -> Seed {
    Seed::new(&IDENT, 0)
}

/// A file that holds some bytes at a place, and zeros elsewhere, and counts what is read of it.
#[derive(Debug)]
struct Fake {
    len: u64,
    at: u64,
    bytes: Vec<u8>,
    largest: AtomicU64,
    total: AtomicU64,
}

impl Fake {
    fn new(bytes: Vec<u8>) -> Self {
        Self::long(bytes.len() as u64, 0, bytes)
    }

    fn long(len: u64, at: u64, bytes: Vec<u8>) -> Self {
        Self { len, at, bytes, largest: AtomicU64::new(0), total: AtomicU64::new(0) }
    }

    fn reader(&self) -> FrameReader<'_> {
        FrameReader::new(self, Path::new("fake")).unwrap()
    }
}

impl File for Fake {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.largest.fetch_max(buffer.len() as u64, Ordering::Relaxed);
        self.total.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        let len = usize::try_from(self.len.saturating_sub(at)).unwrap().min(buffer.len());
        buffer[..len].fill(0);
        let (from, to) = (at.max(self.at), (at + len as u64).min(self.at + self.bytes.len() as u64));
        if from < to {
            let held = usize::try_from(from - self.at).unwrap()..usize::try_from(to - self.at).unwrap();
            let into = usize::try_from(from - at).unwrap();
            buffer[into..into + held.len()].copy_from_slice(&self.bytes[held]);
        }
        Ok(len)
    }

    fn write_at(&self, _bytes: &[u8], _at: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _from: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn forget(&self, _from: u64) {}

    fn map(&self, _len: usize, _writable: bool) -> io::Result<Map> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A frame of one record with this value, for `pos`.
fn frame(pos: Pos, value: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; frame_len(8 + value.len(), false)];
    frame[FRAME_HEADER..FRAME_HEADER + 4].copy_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
    frame[FRAME_HEADER + 8..].copy_from_slice(value);
    let stamp = FrameStamp { offset_delta: 0, durable: 0, timestamp: Millis(1), count: 1, span: 1, producer: None };
    let length = seal_frame(&mut frame, seed(), pos, &stamp);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

/// Zeros, and a frame at `pos`.
fn file_with(len: usize, pos: Pos, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let frame = frame(pos, value);
    bytes[pos.index()..pos.index() + frame.len()].copy_from_slice(&frame);
    bytes
}

#[test]
fn a_length_that_is_wrong_makes_nothing_of_that_size_be_read() {
    let pos = Pos(64);
    let good = file_with(3 << 20, pos, b"value");
    for bit in 4..32 {
        let mut bytes = good.clone();
        bytes[pos.index() + bit / 8] ^= 1 << (bit % 8);
        let fake = Fake::new(bytes);
        assert!(fake.reader().frame_at(seed(), pos).unwrap().is_none(), "bit {bit}");
        if bit > 19 {
            assert!(fake.reader().find_frame(seed(), pos).unwrap().is_none(), "bit {bit}");
        }
        let largest = fake.largest.load(Ordering::Relaxed);
        assert!(largest <= 1 << 20, "bit {bit}: {largest} bytes at once");
    }
    assert!(Fake::new(good).reader().frame_at(seed(), pos).unwrap().is_some());
}

#[test]
fn a_frame_is_found_at_any_place_by_either_search() {
    let long = vec![3; 1 << 20];
    for at in [64, 72, 4096 - 8, 4096, (1 << 20) - 32, 1 << 20] {
        for value in [&b""[..], b"value", &long] {
            let bytes = file_with(9 << 18, Pos(at), value);
            let found = find_frame(&bytes, seed(), Pos(64)).unwrap();
            assert_eq!((found.pos, found.bytes.len()), (Pos(at), 36 + value.len()));
            let fake = Fake::new(bytes.clone());
            let mut reader = fake.reader();
            let read = reader.find_frame(seed(), Pos(61)).unwrap().unwrap();
            assert_eq!((read.pos, read.bytes), (found.pos, found.bytes));
            assert!(reader.find_frame(seed(), Pos(at + 8)).unwrap().is_none());
        }
    }
}

#[test]
fn a_frame_that_ends_behind_its_file_is_none() {
    let whole = file_with(200, Pos(64), &[1; 100]);
    for len in 0..200 {
        let ends = len >= 200;
        assert_eq!(frame_at(&whole[..len], Pos(64)).is_some(), ends);
        assert_eq!(Fake::new(whole[..len].to_vec()).reader().frame_at(seed(), Pos(64)).unwrap().is_some(), ends);
    }
    assert!(frame_at(&whole, Pos(64)).is_some());
}

#[test]
fn a_walk_reads_no_byte_twice_however_large_the_frames_are() {
    let mut bytes = vec![0; 64];
    for len in [5, 100, 1 << 20, (1 << 20) - 40, 7, 3 << 20, 2 << 20, 0, 1 << 19, 1 << 19, 1 << 19, 1 << 20] {
        let frame = frame(Pos(u32::try_from(bytes.len()).unwrap()), &vec![1; len]);
        bytes.extend(frame);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let (end, len) = (bytes.len(), bytes.len() + (5 << 20));
    bytes.resize(len, 0);
    let fake = Fake::new(bytes);
    let mut reader = fake.reader();
    let (mut pos, mut frames) = (Pos(64), 0);
    while let Some(frame) = reader.frame_at(seed(), pos).unwrap().filter(|frame| frame.is_intact(seed())) {
        (pos, frames) = (frame.next(), frames + 1);
    }
    assert_eq!((frames, pos.index()), (12, end));
    assert_eq!(reader.last_written(pos).unwrap(), pos);
    let total = fake.total.load(Ordering::Relaxed);
    assert!(total <= len as u64 - 64, "read {total} of {len}");
}

#[test]
fn the_last_byte_that_is_not_zero_is_found_wherever_it_is() {
    let len = (1 << 20) + 10_000;
    let near = |place: usize| place.saturating_sub(2)..(place + 2).min(len);
    for at in [64, 4096, 8192, 8192 + 64, 1 << 20, (1 << 20) + 64, len].into_iter().flat_map(near) {
        let mut bytes = vec![0; len];
        bytes[at] = 1;
        let found = Fake::new(bytes).reader().last_written(Pos(64)).unwrap().index();
        assert_eq!(found, if at < 64 { 64 } else { at + 1 }, "a byte at {at}");
    }
}

/// Content made to look like headers at every other place, each with a length of 2 MiB: the check in the header lets
/// one in 65,536 cost a checksum, where all of them would make it the square of the size.
#[test]
fn a_search_through_what_looks_like_frames_reads_it_a_few_times_at_most() {
    let size: usize = 8 << 20;
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 32
    };
    // Three words that are lengths, then three that are the counts of those.
    let words = (0..size / 8).map(|number| {
        let word = if number / 3 % 2 == 0 { 1 << 21 } else { 1 };
        random() << 32 | word | random() & 0xffff
    });
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let like = (64..size / 4).step_by(8).filter(|at| frame_at(&bytes, Pos(u32::try_from(*at).unwrap())).is_some());
    assert!(like.count() > 100_000, "every other place looks like a frame");
    let fake = Fake::new(bytes);
    assert!(fake.reader().find_frame(seed(), Pos(64)).unwrap().is_none());
    let total = fake.total.load(Ordering::Relaxed) / size as u64;
    assert!(total < 16, "read {total} times");
}

#[test]
fn places_at_the_end_of_what_32_bits_hold_do_not_overflow() {
    let end = u64::from(u32::MAX);
    // Behind 4 GiB nothing is ours. Headers there that parse, with lengths across the last place.
    for len in [end - 3, end, end + 1, end + 100, 6 << 30] {
        let mut bytes = [0xff_u8; 400];
        for header in bytes.chunks_exact_mut(32) {
            header[..4].copy_from_slice(&60_u32.to_le_bytes());
            header[24..28].copy_from_slice(&1_u32.to_le_bytes());
        }
        let fake = Fake::long(len, end - 303, bytes.to_vec());
        let mut reader = fake.reader();
        for back in (0..320_u32).step_by(8) {
            let pos = Pos((u32::MAX - back) & !7);
            assert!(reader.frame_at(seed(), pos).unwrap().is_none());
            assert!(reader.find_frame(seed(), pos).unwrap().is_none());
        }
        assert!(reader.find_frame(seed(), Pos(u32::MAX)).unwrap().is_none());
        assert_eq!(u64::from(reader.last_written(Pos(u32::MAX - 400)).unwrap().0), len.min(end));
    }
    assert!(Pos(u32::MAX).aligned() >= Pos(u32::MAX - 7), "a place past the last one stays there");
    assert_eq!(Pos(57).aligned(), Pos(64));
    assert_eq!(Pos(64).aligned(), Pos(64));
}
