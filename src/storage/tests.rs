//! What every disk does alike.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::*;

/// A directory on the real disk and one on the simulated disk.
fn disks() -> Vec<(Arc<dyn Storage>, PathBuf, Option<tempfile::TempDir>)> {
    let scratch = tempfile::tempdir().unwrap();
    let real = (Arc::new(Disk::new()) as Arc<dyn Storage>, scratch.path().to_path_buf(), Some(scratch));
    let simulated = SimDisk::new(1);
    simulated.create_dir(Path::new("/scratch")).unwrap();
    vec![real, (Arc::new(simulated), PathBuf::from("/scratch"), None)]
}

fn error<T>(result: io::Result<T>) -> ErrorKind {
    result.err().expect("it should have failed").kind()
}

fn content(disk: &dyn Storage, path: &Path) -> Vec<u8> {
    let file = disk.open(path, Mode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

#[test]
fn files_open_as_their_mode_says() {
    for (disk, dir, _scratch) in disks() {
        let path = dir.join("file");
        assert_eq!(error(disk.open(&path, Mode::Read)), ErrorKind::NotFound);
        assert_eq!(error(disk.open(&path, Mode::Write)), ErrorKind::NotFound);
        let file = disk.open(&path, Mode::Create).unwrap();
        assert!(file.is_empty().unwrap());
        assert_eq!(error(disk.open(&path, Mode::Create)), ErrorKind::AlreadyExists);
        disk.open(&path, Mode::Write).unwrap().write_at(b"abc", 2).unwrap();
        assert_eq!(content(&*disk, &path), b"\0\0abc");
        let reader = disk.open(&path, Mode::Read).unwrap();
        assert!(reader.write_at(b"x", 0).is_err());
        assert!(reader.map(10, true).is_err());
        assert!(disk.open(&dir, Mode::Read).is_err(), "a directory is no file");
        assert_eq!(error(disk.open(&path.join("below"), Mode::Read)), ErrorKind::NotADirectory);
    }
}

#[test]
fn reads_end_at_the_end_of_the_file() {
    for (disk, dir, _scratch) in disks() {
        let file = disk.open(&dir.join("file"), Mode::Create).unwrap();
        file.write_at(&[7; 10_000], 0).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(file.read_at(&mut buffer, 9_950).unwrap(), 50);
        assert_eq!(buffer[..50], [7; 50]);
        assert_eq!(buffer[50..], [0; 50]);
        assert_eq!(file.read_at(&mut buffer, 10_000).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
        file.write_at(b"", 20_000).unwrap();
        assert_eq!(file.len().unwrap(), 10_000, "an empty write changes nothing");
    }
}

#[test]
fn allocating_makes_a_file_longer_and_never_shorter() {
    for (disk, dir, _scratch) in disks() {
        let file = disk.open(&dir.join("file"), Mode::Create).unwrap();
        file.write_at(b"abc", 0).unwrap();
        if let Err(error) = file.allocate(0, 10_000) {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            continue;
        }
        assert_eq!(file.len().unwrap(), 10_000);
        file.allocate(0, 5_000).unwrap();
        file.allocate(5_000, 5_000).unwrap();
        file.allocate(9_000, 5_000).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        let mut bytes = content(&*disk, &dir.join("file"));
        assert_eq!(bytes.drain(..3).as_slice(), b"abc");
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_is_cut_from_a_file_comes_back_as_zeros() {
    for (disk, dir, _scratch) in disks() {
        let file = disk.open(&dir.join("file"), Mode::Create).unwrap();
        file.write_at(&[7; 10_000], 0).unwrap();
        file.set_len(4_100).unwrap();
        file.set_len(9_000).unwrap();
        file.sync().unwrap();
        let bytes = content(&*disk, &dir.join("file"));
        assert_eq!(bytes.len(), 9_000);
        assert!(bytes[..4_100].iter().all(|byte| *byte == 7));
        assert!(bytes[4_100..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn names_are_listed_sorted_with_their_kinds() {
    for (disk, dir, _scratch) in disks() {
        for name in ["b", "c", "a"] {
            disk.open(&dir.join(name), Mode::Create).unwrap();
        }
        disk.create_dir(&dir.join("bb")).unwrap();
        let listed: Vec<_> = disk.list(&dir).unwrap().into_iter().map(|listed| (listed.name, listed.kind)).collect();
        let expected = [("a", Kind::File), ("b", Kind::File), ("bb", Kind::Directory), ("c", Kind::File)];
        assert_eq!(listed, expected.map(|(name, kind)| (name.to_owned(), kind)));
        assert_eq!(disk.kind(&dir.join("a")).unwrap(), Some(Kind::File));
        assert_eq!(disk.kind(&dir.join("bb")).unwrap(), Some(Kind::Directory));
        assert_eq!(disk.kind(&dir.join("d")).unwrap(), None);
        assert_eq!(error(disk.list(&dir.join("d"))), ErrorKind::NotFound);
        assert_eq!(error(disk.list(&dir.join("a"))), ErrorKind::NotADirectory);
    }
}

#[test]
fn directories_are_made_once_and_removed_empty() {
    for (disk, dir, _scratch) in disks() {
        let (inner, file) = (dir.join("inner"), dir.join("inner/file"));
        assert_eq!(error(disk.create_dir(&inner.join("deeper"))), ErrorKind::NotFound);
        assert_eq!(error(disk.open(&file, Mode::Create)), ErrorKind::NotFound);
        disk.create_dir(&inner).unwrap();
        assert_eq!(error(disk.create_dir(&inner)), ErrorKind::AlreadyExists);
        disk.open(&file, Mode::Create).unwrap();
        assert_eq!(error(disk.remove_dir(&inner)), ErrorKind::DirectoryNotEmpty);
        assert_eq!(error(disk.remove_dir(&file)), ErrorKind::NotADirectory);
        assert!(disk.remove_file(&inner).is_err(), "a directory is no file");
        disk.remove_file(&file).unwrap();
        assert_eq!(error(disk.remove_file(&file)), ErrorKind::NotFound);
        disk.sync_dir(&inner).unwrap();
        disk.remove_dir(&inner).unwrap();
        assert_eq!(error(disk.sync_dir(&inner)), ErrorKind::NotFound);
    }
}

#[test]
fn a_rename_replaces_files_and_moves_directories() {
    for (disk, dir, _scratch) in disks() {
        let (a, b) = (dir.join("a"), dir.join("b"));
        assert_eq!(error(disk.rename(&a, &b)), ErrorKind::NotFound);
        disk.open(&a, Mode::Create).unwrap().write_at(b"a", 0).unwrap();
        disk.open(&b, Mode::Create).unwrap().write_at(b"b", 0).unwrap();
        disk.rename(&a, &b).unwrap();
        assert_eq!(content(&*disk, &b), b"a");
        assert_eq!(disk.kind(&a).unwrap(), None);
        disk.create_dir(&a).unwrap();
        disk.rename(&b, &a.join("b")).unwrap();
        disk.rename(&a, &b).unwrap();
        assert_eq!(content(&*disk, &b.join("b")), b"a");
        assert_eq!(error(disk.rename(&b, &b.join("itself"))), ErrorKind::InvalidInput);
        disk.create_dir(&a).unwrap();
        assert_eq!(error(disk.rename(&a, &b)), ErrorKind::DirectoryNotEmpty);
        assert_eq!(error(disk.rename(&a, &b.join("b"))), ErrorKind::NotADirectory);
        assert_eq!(error(disk.rename(&b.join("b"), &a)), ErrorKind::IsADirectory);
        disk.rename(&b, &a).unwrap();
        assert_eq!(content(&*disk, &a.join("b")), b"a");
    }
}

#[test]
fn a_lock_is_held_once_and_until_it_is_dropped() {
    for (disk, dir, _scratch) in disks() {
        let path = dir.join("LOCK");
        let held = disk.lock(&path).unwrap();
        assert!(held.is_some());
        assert!(disk.lock(&path).unwrap().is_none());
        assert!(disk.lock(&dir.join("other")).unwrap().is_some());
        drop(held);
        let held = disk.lock(&path).unwrap();
        assert!(held.is_some(), "the lock was not given back, or by who did not have it");
        assert!(disk.lock(&path).unwrap().is_none());
        assert!(disk.lock(&dir).is_err(), "a directory is no lock");
    }
}

#[test]
fn a_map_shows_only_what_was_filled() {
    for (disk, dir, _scratch) in disks() {
        let file = disk.open(&dir.join("file"), Mode::Create).unwrap();
        file.write_at(b"hello, world", 0).unwrap();
        let map = Arc::new(file.map(1 << 20, false).unwrap()); // far longer than the file
        assert_eq!(map.filled(), 0);
        assert_eq!(map.bytes(0..1), None);
        map.fill(5);
        assert_eq!(map.bytes(0..5), Some(&b"hello"[..]));
        assert_eq!(map.bytes(2..2), Some(&b""[..]));
        assert_eq!(map.bytes(0..6), None);
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
        let reversed = 3..2;
        assert_eq!(map.bytes(reversed), None);
        assert_eq!(map.bytes(usize::MAX..usize::MAX), None);
        map.fill(2);
        assert_eq!(map.filled(), 5, "what was filled stays filled");
        assert!(map.writer(5, 12).is_none(), "a read-only map has no writer");
    }
}

#[test]
fn a_writer_fills_a_map_from_the_front() {
    for (disk, dir, _scratch) in disks() {
        let file = disk.open(&dir.join("file"), Mode::Create).unwrap();
        if file.allocate(0, 8192).is_err() {
            continue;
        }
        file.write_at(b"head----", 0).unwrap();
        let map = Arc::new(file.map(1 << 20, true).unwrap());
        assert!(map.writer(8, (1 << 20) + 1).is_none(), "nothing is allocated past the map");
        assert!(map.writer(9, 8).is_none());
        let mut writer = map.writer(8, 8192).unwrap();
        assert!(map.writer(8, 8192).is_none(), "there is one writer at most");
        assert_eq!(map.bytes(0..8), Some(&b"head----"[..]));

        writer.slot(12, 4).unwrap().copy_from_slice(b"body");
        writer.store_length(8, 0x0403_0201);
        assert_eq!(map.bytes(8..16), None, "not published");
        assert_eq!(content(&*disk, &dir.join("file"))[8..16], *b"\x01\x02\x03\x04body");
        writer.publish(16);
        assert_eq!(map.bytes(8..16), Some(&b"\x01\x02\x03\x04body"[..]));
        assert!(writer.slot(15, 4).is_none(), "published bytes never change");
        assert!(writer.slot(8190, 4).is_none(), "nor is anything touched that is not allocated");
        assert!(writer.slot(usize::MAX, 4).is_none());

        file.allocate(8192, 16_384).unwrap();
        writer.grow(16_384);
        writer.slot(8190, 4).unwrap().copy_from_slice(b"tail");
        writer.publish(8194);
        assert_eq!(map.bytes(8190..8194), Some(&b"tail"[..]));
        drop(writer);
        assert!(map.writer(16, 8192).is_none(), "a writer begins behind what is filled");
        assert!(map.writer(8194, 16_384).is_some(), "the next writer was refused");
    }
}

#[test]
fn shared_bytes_outlive_map_file_and_name() {
    for (disk, dir, _scratch) in disks() {
        let path = dir.join("file");
        let file = disk.open(&path, Mode::Create).unwrap();
        file.write_at(b"hello, world", 0).unwrap();
        let map = Arc::new(file.map(12, false).unwrap());
        let shared = Shares::of(&map).take();
        assert!(shared.bytes(7..12).is_none());
        map.fill(12);
        assert!(shared.bytes(7..13).is_none());
        drop((map, file));
        disk.remove_file(&path).unwrap();
        let read = thread::spawn(move || shared.bytes(7..12) == Some(&b"world"[..]));
        assert!(read.join().unwrap());
    }
}

#[test]
fn shares_keep_a_map_until_the_last_is_dropped_in_whatever_thread() {
    let map = Arc::new(a_map_of(b"shared"));
    let there = Arc::downgrade(&map);
    let mut shares = Shares::of(&map);
    drop(map);
    // More than are taken at a time, some of them copied.
    let mut taken: Vec<Share> = (0..5000).map(|_| shares.take()).collect();
    let copied: Vec<Share> = taken.iter().step_by(7).cloned().collect();
    let last = shares.take();
    drop(shares);
    let halves = [taken.split_off(2500), taken, copied];
    thread::scope(|scope| {
        for half in halves {
            scope.spawn(move || half.into_iter().for_each(|share| assert_eq!(share.bytes(0..6), Some(&b"shared"[..]))));
        }
    });
    assert!(there.upgrade().is_some(), "one is left");
    drop(last);
    assert!(there.upgrade().is_none(), "none is left");
}

fn a_map_of(bytes: &[u8]) -> Map {
    let (disk, dir, _guard) = disks().remove(0);
    let file = disk.open(&dir.join("mapped"), Mode::Create).unwrap();
    file.write_at(bytes, 0).unwrap();
    let map = file.map(bytes.len(), false).unwrap();
    map.fill(bytes.len());
    map
}

#[test]
fn a_file_without_a_name_can_still_be_used() {
    for (disk, dir, _scratch) in disks() {
        let path = dir.join("file");
        let file = disk.open(&path, Mode::Create).unwrap();
        disk.remove_file(&path).unwrap();
        file.write_at(b"still here", 0).unwrap();
        file.sync().unwrap();
        let mut buffer = [0; 10];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 10);
        assert_eq!(&buffer, b"still here");
        assert_eq!(disk.kind(&path).unwrap(), None);
    }
}

#[test]
fn readers_see_whole_what_another_thread_publishes() {
    const FRAMES: usize = if cfg!(miri) { 50 } else { 4000 };
    const FRAME: usize = 64;
    for (disk, dir, _scratch) in disks() {
        let file = disk.open(&dir.join("file"), Mode::Create).unwrap();
        if file.allocate(0, (FRAMES * FRAME) as u64).is_err() {
            continue;
        }
        let map = Arc::new(file.map(FRAMES * FRAME, true).unwrap());
        let mut writer = map.writer(0, FRAMES * FRAME).unwrap();
        let appender = thread::spawn(move || {
            for frame in 0..FRAMES {
                let at = frame * FRAME;
                writer.slot(at + 4, FRAME - 4).unwrap().fill(u8::try_from(frame % 251).unwrap());
                writer.store_length(at, u32::try_from(FRAME).unwrap());
                writer.publish(at + FRAME);
            }
        });
        let mut checked = 0;
        while checked < FRAMES {
            if map.filled() < (checked + 1) * FRAME {
                file.sync().unwrap(); // reads all of it on the simulated disk, at the same time
                thread::yield_now();
                continue;
            }
            let frame = map.bytes(checked * FRAME..(checked + 1) * FRAME).unwrap();
            assert_eq!(frame[..4], 64_u32.to_le_bytes());
            assert!(frame[4..].iter().all(|byte| usize::from(*byte) == checked % 251));
            checked += 1;
        }
        appender.join().unwrap();
    }
}

#[test]
fn random_numbers_differ() {
    for (disk, _, _scratch) in disks() {
        let mut given: Vec<_> = (0..1000).map(|_| disk.random()).collect();
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 1000);
        for bit in 0..128 {
            let set = given.iter().filter(|number| **number >> bit & 1 == 1).count();
            assert!((300..700).contains(&set), "bit {bit} is set {set} times in 1000");
        }
    }
}
