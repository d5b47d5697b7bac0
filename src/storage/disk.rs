//! The real disk.

use std::fs::{self, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memmap2::{MmapOptions, MmapRaw};

use crate::storage::{CacheIdentity, File, Kind, Listed, Lock, Map, Mode, Storage};

/// Files of the operating system.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Disk;

impl Disk {
    /// The disk of this machine.
    pub fn new() -> Self {
        Self
    }
}

impl Storage for Disk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(no_follow());
        match mode {
            Mode::Read => {}
            Mode::Write => {
                options.write(true);
            }
            Mode::Create => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(DiskFile { file: options.open(path)?, path: path.to_path_buf() }))
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(kind_of(metadata.file_type()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            listed.push(Listed { name, kind: kind_of(entry.file_type()?) });
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(no_follow());
        let file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(DiskLock { file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    #[cfg(target_os = "linux")]
    fn overwrites_in_place(&self, path: &Path) -> io::Result<bool> {
        const EXT: u64 = 0xef53;
        const XFS: u64 = 0x5846_5342;
        const TMPFS: u64 = 0x0102_1994;
        let kind = rustix::fs::statfs(path)?.f_type;
        Ok(u64::try_from(kind).is_ok_and(|kind| [EXT, XFS, TMPFS].contains(&kind)))
    }

    #[cfg(not(target_os = "linux"))]
    fn overwrites_in_place(&self, _path: &Path) -> io::Result<bool> {
        // APFS copies on write.
        Ok(false)
    }

    #[cfg(target_os = "linux")]
    fn cache_identity(&self, path: &Path) -> CacheIdentity {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot = boot.ok().and_then(|text| parse_boot_id(&text)).unwrap_or_default();
        CacheIdentity { boot, mount: unique_mount(path).unwrap_or(0) }
    }

    #[cfg(not(target_os = "linux"))]
    fn cache_identity(&self, _path: &Path) -> CacheIdentity {
        CacheIdentity::default()
    }

    #[cfg(target_os = "linux")]
    #[inline]
    fn now(&self) -> u64 {
        use rustix::time::{ClockId, clock_gettime};
        // The kernel's clock of its last tick: no instruction that waits for a counter, a few nanoseconds in all.
        let time = clock_gettime(ClockId::RealtimeCoarse);
        let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
        seconds * 1000 + nanos / 1_000_000
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0))
    }

    fn random(&self) -> u128 {
        // Every `RandomState` has keys of its own from the system; the time and the process make a repeat unlikelier.
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let half = || u128::from(RandomState::new().hash_one((time, std::process::id())));
        half() << 64 | half()
    }

    fn spawn(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> io::Result<bool> {
        std::thread::Builder::new().name(name.to_owned()).spawn(job).map(|_| true)
    }

    fn sleep(&self, longest: Duration) {
        std::thread::sleep(longest);
    }
}

fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

fn kind_of(kind: fs::FileType) -> Kind {
    if kind.is_file() {
        Kind::File
    } else if kind.is_dir() {
        Kind::Directory
    } else {
        Kind::Other
    }
}

#[cfg(target_os = "linux")]
fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten().map(u128::to_be_bytes)
}

/// The id that no other mount of this boot has, where the kernel gives one.
#[cfg(target_os = "linux")]
fn unique_mount(path: &Path) -> Option<u64> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let wanted = StatxFlags::from_bits_retain(0x4000);
    let found = statx(CWD, path, AtFlags::empty(), wanted).ok()?;
    (found.stx_mask & wanted.bits() != 0).then_some(found.stx_mnt_id)
}

#[derive(Debug)]
struct DiskLock {
    file: fs::File,
}

impl Lock for DiskLock {}

impl Drop for DiskLock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child process that is between fork and exec, and has the descriptor too.
        let _ = self.file.unlock();
    }
}

#[derive(Debug)]
struct DiskFile {
    file: fs::File,
    path: PathBuf,
}

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        if len <= from {
            return Ok(());
        }
        loop {
            match fallocate(&self.file, FallocateFlags::empty(), from, len - from) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn allocate(&self, _from: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn forget(&self, from: u64) {
        use rustix::fs::{Advice, fadvise};
        // Advice that is not taken costs speed, nothing else.
        let _ = fadvise(&self.file, 0, None, Advice::Random);
        let _ = fadvise(&self.file, from, None, Advice::DontNeed);
    }

    #[cfg(not(target_os = "linux"))]
    fn forget(&self, _from: u64) {}

    fn map(&self, len: usize, writable: bool) -> io::Result<Map> {
        let mut options = MmapOptions::new();
        options.len(len);
        let mapping: MmapRaw =
            if writable { options.map_raw(&self.file)? } else { options.map_raw_read_only(&self.file)? };
        Ok(Map::of_file(mapping, writable))
    }
}

