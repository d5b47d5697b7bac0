//! The files of a store, to look at and to damage.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::scratch;

/// Where the first frame of a segment stands.
pub(crate) const FIRST_FRAME: u64 = 64;

/// The directory of a partition.
pub(crate) fn partition(store: &Path, log: &str, partition: u32) -> PathBuf {
    store.join("logs").join(log).join(partition.to_string())
}

/// The segment files of a directory, by their first offsets.
pub(crate) fn segments(directory: &Path) -> Vec<PathBuf> {
    with_extension(directory, "log")
}

/// The index files of a directory, by their first offsets.
pub(crate) fn indexes(directory: &Path) -> Vec<PathBuf> {
    with_extension(directory, "index")
}

fn with_extension(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|known| known == extension))
        .collect();
    paths.sort();
    paths
}

/// The first offset of a segment, as its name says.
pub(crate) fn base(segment: &Path) -> u64 {
    segment.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// Where the frames of a segment stand, without their padding.
pub(crate) fn frames(segment: &Path) -> Vec<Range<u64>> {
    let bytes = fs::read(segment).unwrap();
    let mut frames = Vec::new();
    let mut at = usize::try_from(FIRST_FRAME).unwrap();
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        if length == 0 {
            break;
        }
        assert!(at + length <= bytes.len(), "a frame of {} reaches past its end", segment.display());
        frames.push(at as u64..(at + length) as u64);
        at = (at + length).next_multiple_of(8);
    }
    frames
}

/// Flips the lowest bit of a byte.
pub(crate) fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Writes `bytes` over what stands at `at`.
pub(crate) fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

/// Writes zeros over a range.
pub(crate) fn zero(path: &Path, range: Range<u64>) {
    overwrite(path, range.start, &vec![0; usize::try_from(range.end - range.start).unwrap()]);
}

/// Cuts a file, or makes it longer.
pub(crate) fn truncate(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// A copy of a store as the disk has it now: what a process that is killed now leaves behind.
pub(crate) fn image(store: &Path) -> TempDir {
    let copy = scratch();
    copy_into(store, copy.path());
    copy
}

/// The same, unless something changed in the midst of copying: a copy is not the work of one moment, a kill is.
pub(crate) fn image_at_rest(store: &Path) -> Option<TempDir> {
    let before = try_contents(store).ok()?;
    let copy = scratch();
    for (path, bytes) in &before {
        let target = copy.path().join(path.strip_prefix(store).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
    (try_contents(store).ok()? == before).then_some(copy)
}

fn copy_into(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_into(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file below a directory with its bytes, to see that nothing was changed.
pub(crate) fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    try_contents(directory).unwrap()
}

/// The same of a directory in use, where a file that was listed may be gone before it is read.
pub(crate) fn try_contents(directory: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    visit(directory, &mut |path| {
        files.insert(path.to_path_buf(), fs::read(path)?);
        Ok(())
    })?;
    Ok(files)
}

/// The disk that a directory takes with all that is in it, in bytes. Files that go away meanwhile take none.
pub(crate) fn disk_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let own = fs::metadata(directory).map_or(0, |metadata| metadata.blocks() * 512);
    entries.fold(own, |sum, entry| {
        let path = entry.unwrap().path();
        let size =
            if path.is_dir() { disk_bytes(&path) } else { fs::metadata(&path).map_or(0, |it| it.blocks() * 512) };
        sum + size
    })
}

fn visit(directory: &Path, act: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { visit(&path, act)? } else { act(&path)? }
    }
    Ok(())
}
