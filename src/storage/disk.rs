//! The real disk: std's files, and rustix for what std has not.

use std::fmt;
use std::fs::{self, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memmap2::MmapOptions;
use rustix::fs::OFlags;

use super::{CacheIdentity, File, Kind, Listed, Lock, Map, Mode, Storage};

/// The file system of the machine.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    clock: Clock,
}

impl Disk {
    /// The file system of the machine.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Storage for Disk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        match mode {
            Mode::Read => options.read(true),
            Mode::Write => options.read(true).write(true),
            Mode::Create => options.read(true).write(true).create_new(true),
        };
        Ok(Arc::new(DiskFile { file: open_regular(&mut options, path)? }))
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        match fs::symlink_metadata(path) {
            Ok(found) => Ok(Some(kind_of(found.file_type()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            names.push(Listed { name, kind: kind_of(entry.file_type()?) });
        }
        names.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(names)
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
        let file = open_regular(OpenOptions::new().read(true).write(true).create(true).truncate(false), path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(DiskLock { file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn overwrites_in_place(&self, path: &Path) -> io::Result<bool> {
        overwrites_in_place(path)
    }

    fn cache_identity(&self, path: &Path) -> CacheIdentity {
        cache_identity(path)
    }

    fn now(&self) -> u64 {
        self.clock.millis()
    }

    fn random(&self) -> u128 {
        // std's hash keys come from the system's random source, once a thread, which makes the hash unpredictable; the
        // rest keeps apart what a fork or a copied machine would start from the same keys.
        static GIVEN: AtomicU64 = AtomicU64::new(0);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let unique = (GIVEN.fetch_add(1, Ordering::Relaxed), process::id(), time);
        let [high, low] = [0_u8, 1].map(|half| RandomState::new().hash_one((unique, half)));
        (u128::from(high) << 64) | u128::from(low)
    }

    fn spawn(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> io::Result<bool> {
        thread::Builder::new().name(name.to_owned()).spawn(job)?;
        Ok(true)
    }

    fn sleep(&self, longest: Duration) {
        thread::sleep(longest);
    }
}

/// Opens a regular file, closed on exec as std does it. A symbolic link at its name is refused, and a pipe does not
/// block the opening before it is refused as well.
fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<fs::File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = options.custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

fn kind_of(found: fs::FileType) -> Kind {
    if found.is_file() {
        Kind::File
    } else if found.is_dir() {
        Kind::Directory
    } else {
        Kind::Other
    }
}

/// Known to overwrite allocated blocks where they are: ext2 to ext4, xfs (without reflinked files), tmpfs. Copy-on-write
/// file systems do not, of layered and remote ones it is not known.
#[cfg(target_os = "linux")]
fn overwrites_in_place(path: &Path) -> io::Result<bool> {
    const EXT: u32 = 0xEF53;
    const XFS: u32 = 0x5846_5342;
    const TMPFS: u32 = 0x0102_1994;
    let kind = u32::try_from(rustix::fs::statfs(path)?.f_type).unwrap_or(0);
    Ok(matches!(kind, EXT | XFS | TMPFS))
}

/// APFS copies on write.
#[cfg(not(target_os = "linux"))]
fn overwrites_in_place(path: &Path) -> io::Result<bool> {
    fs::metadata(path).map(|_| false)
}

#[cfg(target_os = "linux")]
fn cache_identity(path: &Path) -> CacheIdentity {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().and_then(|text| parse_uuid(&text));
    CacheIdentity { boot: boot.unwrap_or_default(), mount: unique_mount(path).unwrap_or(0) }
}

/// No boot id is known, which proves nothing.
#[cfg(not(target_os = "linux"))]
fn cache_identity(_path: &Path) -> CacheIdentity {
    CacheIdentity::default()
}

/// The id that the kernel (since 6.8) gives to no second mount; the older `STATX_MNT_ID` is used again.
#[cfg(target_os = "linux")]
fn unique_mount(path: &Path) -> Option<u64> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let unique = StatxFlags::from_bits_retain(0x4000); // STATX_MNT_ID_UNIQUE, which rustix has no name for
    let found = statx(CWD, path, AtFlags::empty(), unique).ok()?;
    (found.stx_mask & unique.bits() != 0).then_some(found.stx_mnt_id)
}

#[cfg(any(target_os = "linux", test))]
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|digit| *digit != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    (digits.len() == 32).then(|| number.to_be_bytes())
}

/// Wall time: the kernel's coarse clock, which costs a few nanoseconds, where it ticks often enough.
#[derive(Debug, Clone)]
struct Clock {
    #[cfg(target_os = "linux")]
    coarse: bool,
}

impl Clock {
    #[cfg(target_os = "linux")]
    fn new() -> Self {
        let tick = rustix::time::clock_getres(rustix::time::ClockId::RealtimeCoarse);
        Self { coarse: tick.tv_sec == 0 && tick.tv_nsec <= 10_000_000 }
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> Self {
        Self {}
    }

    #[inline]
    fn millis(&self) -> u64 {
        #[cfg(target_os = "linux")]
        if self.coarse {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
            let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
            return seconds.unwrap_or(0) * 1000 + nanos.unwrap_or(0) / 1_000_000;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The kernel's lock on an open file, which goes with it.
struct DiskLock {
    file: fs::File,
}

impl Lock for DiskLock {}

impl Drop for DiskLock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child process between fork and exec, which has the descriptor too.
        let _ = self.file.unlock();
    }
}

impl fmt::Debug for DiskLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskLock").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct DiskFile {
    file: fs::File,
}

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        if len <= from { Ok(()) } else { allocate(&self.file, from, len - from) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn forget(&self, from: u64) {
        forget(&self.file, from);
    }

    fn map(&self, len: usize, writable: bool) -> io::Result<Map> {
        let mut options = MmapOptions::new();
        options.len(len);
        let region = if writable { options.map_raw(&self.file)? } else { options.map_raw_read_only(&self.file)? };
        Map::of_file(region, len, writable)
    }

    /// On Linux only: elsewhere `msync` may promise less than [`sync`](File::sync) does.
    fn kept_by(&self, map: &Arc<Map>, path: &Path, from: usize) -> Option<Arc<dyn File>> {
        let identity = identity(&self.file).ok().filter(|_| cfg!(target_os = "linux"))?;
        Some(Arc::new(MappedFile { map: Arc::clone(map), path: path.to_owned(), from, identity }))
    }
}

/// A file that a mapping keeps open.
#[derive(Debug)]
struct MappedFile {
    map: Arc<Map>,
    path: PathBuf,
    /// Where syncs begin. The mapping is in two pieces there when the kernel was advised on what is behind it, and would
    /// sync the file once for each.
    from: usize,
    identity: (u64, u64),
}

impl MappedFile {
    /// The file with a descriptor. Not for a sync: it knows of no write-back error before this opening.
    ///
    /// Another file that someone has put in its place is refused: blocks allocated there are not behind the mapping.
    fn file(&self) -> io::Result<DiskFile> {
        let file = open_regular(OpenOptions::new().read(true).write(true), &self.path)?;
        if identity(&file)? == self.identity {
            Ok(DiskFile { file })
        } else {
            Err(io::Error::other("another file has been put in the place of the one that is open"))
        }
    }
}

/// What tells a file from every other that exists.
fn identity(file: &fs::File) -> io::Result<(u64, u64)> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino()))
}

impl File for MappedFile {
    fn len(&self) -> io::Result<u64> {
        self.file()?.len()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file()?.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file()?.write_at(bytes, at)
    }

    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        self.file()?.allocate(from, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file()?.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.map.sync(self.from)
    }

    fn forget(&self, from: u64) {
        if let Ok(file) = self.file() {
            file.forget(from);
        }
    }

    fn map(&self, len: usize, writable: bool) -> io::Result<Map> {
        self.file()?.map(len, writable)
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &fs::File, from: u64, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    loop {
        return match fallocate(file, FallocateFlags::empty(), from, len) {
            Err(Errno::INTR) => continue,
            Err(error @ (Errno::OPNOTSUPP | Errno::NOSYS)) => Err(io::Error::new(io::ErrorKind::Unsupported, error)),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(()),
        };
    }
}

/// There is `F_PREALLOCATE`, but on a file system that copies on write it promises nothing about a later store.
#[cfg(not(target_os = "linux"))]
fn allocate(_file: &fs::File, _from: u64, _len: u64) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "allocated blocks are not overwritten in place here"))
}

#[cfg(target_os = "linux")]
fn forget(file: &fs::File, from: u64) {
    use rustix::fs::{Advice, fadvise};
    // Only advice, so it does not matter when it is refused.
    let _ = fadvise(file, 0, None, Advice::Random);
    let _ = fadvise(file, from, None, Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn forget(_file: &fs::File, _from: u64) {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn symbolic_links_are_seen_as_such_and_not_opened() {
        let scratch = tempfile::tempdir().unwrap();
        let (file, link) = (scratch.path().join("file"), scratch.path().join("link"));
        fs::write(&file, b"abc").unwrap();
        symlink(&file, &link).unwrap();
        let disk = Disk::new();
        assert_eq!(disk.kind(&link).unwrap(), Some(Kind::Other));
        assert!(disk.open(&link, Mode::Read).is_err());
        assert!(disk.open(&link, Mode::Write).is_err());
        assert!(disk.open(&link, Mode::Create).is_err());
        assert!(disk.lock(&link).is_err());
        let listed = disk.list(scratch.path()).unwrap();
        assert_eq!(listed.iter().map(|listed| listed.kind).collect::<Vec<_>>(), [Kind::File, Kind::Other]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pipe_is_refused_and_blocks_nobody() {
        use rustix::fs::{CWD, FileType, mknodat};
        let scratch = tempfile::tempdir().unwrap();
        let pipe = scratch.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
        let (done, waiting) = mpsc::channel();
        thread::spawn(move || done.send(Disk::new().open(&pipe, Mode::Read).is_err()));
        assert!(waiting.recv_timeout(Duration::from_secs(60)).expect("the opening blocks"));
    }

    #[test]
    fn the_clock_is_the_wall_clock() {
        let disk = Disk::new();
        let exact = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let (before, now, after) = (exact(), disk.now(), exact());
        assert!(now + 10 >= before && now <= after, "{before} <= {now} + 10, {now} <= {after}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_page_cache_is_known_to_be_the_same_within_a_boot() {
        let scratch = tempfile::tempdir().unwrap();
        let disk = Disk::new();
        let identity = disk.cache_identity(scratch.path());
        assert_eq!(identity, disk.cache_identity(scratch.path()));
        assert!(identity.survives(&identity), "no boot id: {identity:?}");
        assert!(!CacheIdentity::default().survives(&CacheIdentity::default()));
    }

    #[test]
    fn a_boot_id_is_read_whole_or_not_at_all() {
        let parsed = parse_uuid("00112233-4455-6677-8899-aabbccddeeff\n");
        let expected = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
        assert_eq!(parsed, Some(expected));
        assert_eq!(parse_uuid("0011"), None);
        assert_eq!(parse_uuid("zz112233-4455-6677-8899-aabbccddeeff"), None);
        assert_eq!(parse_uuid(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn file_systems_that_copy_on_write_are_told_apart() {
        let disk = Disk::new();
        assert!(!disk.overwrites_in_place(Path::new("/proc")).unwrap());
        assert!(disk.overwrites_in_place(Path::new("/does/not/exist")).is_err());
        let shared_memory = Path::new("/dev/shm"); // a tmpfs, where there is one
        if disk.kind(shared_memory).unwrap() == Some(Kind::Directory) {
            assert!(disk.overwrites_in_place(shared_memory).unwrap());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn allocated_blocks_are_really_there() {
        use std::os::unix::fs::MetadataExt;
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        let file = Disk::new().open(&path, Mode::Create).unwrap();
        if file.allocate(0, 1 << 20).is_ok() {
            assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_kept_by_its_mapping_is_no_other_file_of_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        let file = Disk::new().open(&path, Mode::Create).unwrap();
        file.set_len(8192).unwrap();
        let map = Arc::new(file.map(8192, true).unwrap());
        let kept = file.kept_by(&map, &path, 0).unwrap();
        drop(file);
        kept.set_len(4096).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 4096);
        assert!(kept.sync().is_ok());
        fs::rename(&path, scratch.path().join("moved")).unwrap();
        assert_eq!(kept.set_len(0).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, [1; 8192]).unwrap();
        assert!(kept.set_len(0).is_err() && kept.write_at(b"x", 0).is_err() && kept.allocate(0, 100_000).is_err());
        assert_eq!(fs::read(&path).unwrap(), [1; 8192]);
        assert!(kept.sync().is_ok(), "the file itself is still there");
    }

    #[test]
    fn jobs_run_on_a_thread_of_their_name() {
        let (done, waiting) = mpsc::channel();
        let job = Box::new(move || done.send(thread::current().name().map(str::to_owned)).unwrap());
        assert!(Disk::new().spawn("seal", job).unwrap());
        assert_eq!(waiting.recv_timeout(Duration::from_secs(60)).unwrap().as_deref(), Some("seal"));
    }
}
