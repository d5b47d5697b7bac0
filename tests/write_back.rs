//! A disk that fails behind the page cache: the kernel writes a page back, fails, and the page counts as clean. Only the
//! file that was open meanwhile still has the error; a sync through it must tell, whoever has heard of it before.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use placemark::{Durability, Error, Store, WriteMode};
use tempfile::TempDir;

use common::{files, scratch, values, within};

/// A file system on an image that stands in a small memory of its own: when that is full, what is written to blocks of
/// the image that it does not have yet fails as on a bad disk.
struct Failing {
    memory: PathBuf,
    disk: PathBuf,
    _dir: TempDir,
}

impl Failing {
    /// `None`, saying why, where it cannot be made or mounted.
    fn new() -> Option<Self> {
        let dir = scratch();
        let (memory, disk) = (dir.path().join("memory"), dir.path().join("disk"));
        fs::create_dir(&memory).unwrap();
        fs::create_dir(&disk).unwrap();
        let failing = Self { memory, disk, _dir: dir };
        match failing.mount() {
            Ok(()) => Some(failing),
            Err(reason) => {
                println!("not tried: {reason}");
                None
            }
        }
    }

    /// What the file system keeps about itself is written now, and it keeps no journal, so that only files can fail later.
    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&self.memory))?;
        let image = self.memory.join("image");
        fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).map_err(|error| error.to_string())?;
        let kind = ["-q", "-F", "-b", "4096", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=0"];
        run(Command::new("mkfs.ext4").args(kind).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop,nodiscard"]).arg(&image).arg(&self.disk))
    }

    /// From now on no new block is written.
    fn fail(&self) {
        let mut ballast = fs::File::create(self.memory.join("ballast")).unwrap();
        for piece in [vec![1; 1 << 16], vec![1; 1 << 12]] {
            while ballast.write_all(&piece).is_ok() {}
        }
    }

    fn mend(&self) {
        fs::remove_file(self.memory.join("ballast")).unwrap();
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        for at in [&self.disk, &self.memory] {
            let _ = run(Command::new("umount").arg(at)).or_else(|_| run(Command::new("umount").arg("-l").arg(at)));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Err(error) => Err(format!("{command:?}: {error}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Syncs the active segment as another process would, who is told of the error and does not pass it on.
fn heard_by_another(dir: &Path) -> bool {
    let segment = files::segments(&files::partition(dir, "orders", 0)).remove(0);
    let other = fs::OpenOptions::new().write(true).open(segment).unwrap();
    other.sync_data().is_err()
}

fn check(mode: WriteMode) {
    let Some(failing) = Failing::new() else { return };
    let dir = failing.disk.join("store");
    within(Duration::from_secs(100), move || {
        let store = Store::options().durability(Durability::Os).write_mode(mode).open(&dir).unwrap();
        let partition = store.log("orders").unwrap().partition(0).unwrap();
        partition.append("on the disk").unwrap();
        store.sync().unwrap();
        // Room in the file before there is none on the disk.
        partition.append(vec![1; 1 << 20]).unwrap();
        failing.fail();
        partition.append(vec![2; 1 << 20]).unwrap();
        assert!(heard_by_another(&dir), "the disk does not fail");
        assert!(!heard_by_another(&dir), "the kernel tries a page again that failed: this test shows nothing");
        // All else that a sync writes goes through: it fails for the lost page or not at all.
        failing.mend();
        assert!(store.sync().is_err(), "{mode:?}: a sync passes over a page that was lost");
        let next = partition.append("refused").unwrap_err();
        assert!(matches!(next, Error::Failed { .. }), "{next}");
        assert_eq!(values(partition.read(placemark::StartAt::Offset(0)).unwrap()).len(), 3);
        assert!(store.close().is_err(), "what could not be synced is no clean end");
        drop(failing);
    });
}

#[test]
fn a_sync_through_the_mapping_tells_of_a_page_that_was_lost_before_it() {
    check(WriteMode::Mapped);
}

#[test]
fn a_sync_of_the_file_tells_of_a_page_that_was_lost_before_it() {
    check(WriteMode::Pwrite);
}
