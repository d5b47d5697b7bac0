//! The simulated disk.
//!
//! It keeps what processes see (names, bytes, lengths) apart from what is durable. A mapping is memory that it shares
//! with the file, and what is not durable yet is found by comparison, at a sync and at a crash, so that no store
//! escapes it. A crash makes a new disk from this one, with what survived; operations fail where they are told to.
//! Everything is chosen by seeds: the same calls give the same disk.
//!
//! Mistakes that a real disk would answer with a signal or with lost data are panics here: touching a mapping past
//! the file or its blocks, and changing or cutting bytes that have been handed out.

mod content;
mod crash;
mod faults;
mod file;
mod moments;
mod random;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

pub use crash::{Crash, Keep};
pub use faults::{Fault, Lie, Operation, Times};
pub use moments::Moment;

use super::{CacheIdentity, File, Kind, Listed, Lock, Mode, Storage};
use faults::Faults;
use file::SimFile;
use moments::Watch;
use random::Random;
use tree::{Directory, Tree, normal};

/// A disk in memory that loses what was not synced, and fails where it is told to.
///
/// Clones are the same disk. Paths begin at its root, whether they are written so or not.
///
/// ```
/// use std::path::Path;
/// use placemark::storage::{Crash, Keep, Mode, SimDisk, Storage};
///
/// let disk = SimDisk::new(1);
/// let file = disk.open(Path::new("/note"), Mode::Create)?;
/// file.write_at(b"synced", 0)?;
/// file.sync()?;
/// disk.sync_dir(Path::new("/"))?;
/// file.write_at(b"not yet", 0)?;
///
/// let after = disk.crash(Crash::new(2).keep(Keep::Nothing));
/// assert_eq!(after.read_file("/note").unwrap(), b"synced");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

struct Shared {
    world: Mutex<World>,
    now: AtomicU64,
    boot: u128,
    mount: u64,
    threads: AtomicBool,
    copy_on_write: AtomicBool,
}

/// The disk itself. Whoever does something to it holds all of it, so that a power loss comes between two operations.
#[derive(Debug)]
struct World {
    tree: Tree,
    locks: BTreeSet<String>,
    faults: Faults,
    operations: u64,
    crash_after: Option<u64>,
    /// The disk at the moment the power was lost; nothing that is stored later through a mapping is in it.
    frozen: Option<Tree>,
    capacity: Option<u64>,
    random: Random,
    watch: Watch,
}

impl SimDisk {
    /// When the clock of a new disk starts: 2026-01-01, in milliseconds since 1970.
    pub const START: u64 = 1_767_225_600_000;

    /// An empty disk: only the root exists.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let boot = random.wide();
        let world = World::new(Tree::new(vec![Directory::default()]), random, None);
        let shared = Shared {
            world: Mutex::new(world),
            now: AtomicU64::new(Self::START),
            boot,
            mount: 1,
            threads: AtomicBool::new(false),
            copy_on_write: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same, with real threads for background work; then a run does not repeat exactly.
    #[must_use]
    pub fn with_threads(self) -> Self {
        self.shared.threads.store(true, Ordering::Relaxed);
        self
    }

    /// The same, as if it did not overwrite allocated blocks in place.
    #[must_use]
    pub fn copy_on_write(self) -> Self {
        self.shared.copy_on_write.store(true, Ordering::Relaxed);
        self
    }

    /// How many operations there were that change what a crash could leave: all but opening, reading, listing and
    /// mapping.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Loses the power when so many operations, from the first of this disk, have been done: the next one fails without
    /// effect, and so does everything from then on. What [`crash`](Self::crash) and [`kill`](Self::kill) start from is
    /// the disk of that moment.
    pub fn crash_after(&self, operations: u64) {
        self.world().crash_after = Some(operations);
    }

    /// Whether the power was lost as [`crash_after`](Self::crash_after) wanted.
    pub fn power_lost(&self) -> bool {
        self.world().power_lost()
    }

    /// The disk after a power loss, at this moment or when the power was lost: all that it has is durable, the kernel is
    /// a new one, no lock is held and no fault waits. This disk goes on as if nothing had happened.
    #[must_use]
    pub fn crash(&self, crash: Crash) -> Self {
        let world = self.world();
        let mut random = Random::new(world.random.clone().next() ^ Random::new(crash.seed).next());
        let boot = random.wide();
        let left = World::new(world.now().crash(&crash), random, world.capacity);
        // A disk that was pulled out is mounted anew, by the same kernel.
        if crash.same_boot {
            self.next(left, self.shared.boot, self.shared.mount + 1)
        } else {
            self.next(left, boot, 1)
        }
    }

    /// The disk after the process died, at this moment or when the power was lost: what it wrote is there, synced or
    /// not, the kernel is the same, no lock is held and no fault waits. What the old handles do from now on reaches
    /// only the old disk.
    #[must_use]
    pub fn kill(&self) -> Self {
        let world = self.world();
        let random = Random::new(world.random.clone().next());
        self.next(World::new(world.now().copy(), random, world.capacity), self.shared.boot, self.shared.mount)
    }

    /// Makes an operation fail.
    pub fn inject(&self, fault: Fault) {
        self.world().faults.inject(fault);
    }

    /// From now on lies about something, as a disk that is broken would, to show that a test finds out.
    pub fn lie(&self, lie: Lie) {
        self.world().faults.lie(lie);
    }

    /// Takes back every fault.
    pub fn clear_faults(&self) {
        self.world().faults.clear();
    }

    /// Limits the disk to so many bytes, counted in pages of 4096, of which what is there may be more already. Beyond
    /// that creating, writing and allocating fail with [`StorageFull`](io::ErrorKind::StorageFull); a write writes what
    /// still fits before.
    pub fn capacity(&self, bytes: u64) {
        self.world().capacity = Some(bytes);
    }

    /// Bytes of blocks in use, also by files that have lost their name and are open or mapped.
    pub fn used(&self) -> u64 {
        self.world().tree.used() as u64
    }

    /// Sets the clock, in milliseconds since 1970.
    pub fn set_now(&self, millis: u64) {
        self.shared.now.store(millis, Ordering::Relaxed);
    }

    /// Moves the clock on.
    pub fn advance(&self, time: Duration) {
        self.shared.now.fetch_add(u64::try_from(time.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }

    /// What a file holds, as processes see it; no operation.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let file = self.world().tree.file(path.as_ref()).ok()?;
        let bytes = file.content().bytes();
        Some(bytes)
    }

    /// Gives a file these bytes, live and durable, and makes it, and the directories that lead to it, where they are
    /// missing; no operation. Maps that exist keep what they have, as a page cache does when the disk below is damaged.
    ///
    /// # Panics
    ///
    /// Where a directory or a file stands in the way.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        let path = path.as_ref();
        let placed = self.world().tree.place(path, bytes);
        assert!(placed.is_ok(), "cannot place {}: {placed:?}", path.display());
    }

    /// Every file that has a name, as a path from the root, sorted; no operation.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = self.world().tree.files().into_iter().map(|(path, _)| path).collect();
        paths.sort();
        paths
    }

    fn next(&self, world: World, boot: u128, mount: u64) -> Self {
        let flag = |flag: &AtomicBool| AtomicBool::new(flag.load(Ordering::Relaxed));
        let shared = Shared {
            world: Mutex::new(world),
            now: AtomicU64::new(self.now()),
            boot,
            mount,
            threads: flag(&self.shared.threads),
            copy_on_write: flag(&self.shared.copy_on_write),
        };
        Self { shared: Arc::new(shared) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk")
            .field("boot", &self.shared.boot)
            .field("now", &self.shared.now)
            .finish_non_exhaustive()
    }
}

impl World {
    fn new(tree: Tree, random: Random, capacity: Option<u64>) -> Self {
        Self {
            tree,
            locks: BTreeSet::new(),
            faults: Faults::default(),
            operations: 0,
            crash_after: None,
            frozen: None,
            capacity,
            random,
            watch: Watch::default(),
        }
    }

    /// Counts an operation, and fails it where it has to.
    fn begin(&mut self, operation: Operation, path: &str) -> io::Result<()> {
        if operation.changes() && self.frozen.is_none() {
            if self.crash_after.is_some_and(|last| self.operations >= last) {
                self.frozen = Some(self.tree.copy());
            } else {
                self.operations += 1;
            }
        }
        if self.power_lost() {
            return Err(io::Error::other("power lost"));
        }
        self.watch.see(operation, path, self.operations, &self.tree, &self.random);
        self.faults.strike(operation, path)
    }

    fn power_lost(&self) -> bool {
        self.frozen.is_some()
    }

    /// The disk as a crash finds it.
    fn now(&self) -> &Tree {
        self.frozen.as_ref().unwrap_or(&self.tree)
    }

    /// Bytes that can still be allocated.
    fn available(&mut self) -> usize {
        let Some(capacity) = self.capacity else { return usize::MAX };
        usize::try_from(capacity).unwrap_or(usize::MAX).saturating_sub(self.tree.used())
    }

    /// Refuses a new name on a full disk.
    fn room(&mut self) -> io::Result<()> {
        if self.available() == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Storage for SimDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let name = normal(path)?;
        let mut world = self.world();
        let inode = if mode == Mode::Create {
            world.begin(Operation::Create, &name)?;
            world.room()?;
            world.tree.create_file(path)?
        } else {
            world.begin(Operation::Open, &name)?;
            world.tree.file(path)?
        };
        Ok(Arc::new(SimFile::new(self.clone(), inode, name, mode != Mode::Read)))
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        let mut world = self.world();
        world.begin(Operation::List, &normal(path)?)?;
        world.tree.kind(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        let mut world = self.world();
        world.begin(Operation::List, &normal(path)?)?;
        world.tree.list(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.begin(Operation::CreateDir, &normal(path)?)?;
        world.room()?;
        world.tree.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.begin(Operation::Rename, &normal(from)?)?;
        world.tree.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.begin(Operation::Remove, &normal(path)?)?;
        world.tree.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.begin(Operation::Remove, &normal(path)?)?;
        world.tree.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.begin(Operation::SyncDir, &normal(path)?)?;
        if world.faults.lies(Lie::DirectorySynced) {
            return Ok(());
        }
        world.tree.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let name = normal(path)?;
        let mut world = self.world();
        if world.tree.kind(path)?.is_none() {
            world.begin(Operation::Create, &name)?;
            world.room()?;
            world.tree.create_file(path)?;
        } else {
            world.begin(Operation::Open, &name)?;
            world.tree.file(path)?;
        }
        let free = world.locks.insert(name.clone());
        Ok(free.then(|| Box::new(SimLock { disk: self.clone(), name }) as Box<dyn Lock>))
    }

    fn overwrites_in_place(&self, path: &Path) -> io::Result<bool> {
        self.world().tree.find(path).map(|_| !self.shared.copy_on_write.load(Ordering::Relaxed))
    }

    fn cache_identity(&self, _path: &Path) -> CacheIdentity {
        CacheIdentity { boot: self.shared.boot.to_be_bytes(), mount: self.shared.mount }
    }

    fn now(&self) -> u64 {
        self.shared.now.load(Ordering::Relaxed)
    }

    fn random(&self) -> u128 {
        self.world().random.wide()
    }

    fn spawn(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> io::Result<bool> {
        let threads = self.shared.threads.load(Ordering::Relaxed);
        if threads {
            thread::Builder::new().name(name.to_owned()).spawn(job)?;
        }
        Ok(threads)
    }

    fn sleep(&self, longest: Duration) {
        self.advance(longest);
        if self.shared.threads.load(Ordering::Relaxed) {
            // A thread that sleeps in a loop would otherwise race through the years.
            thread::sleep(longest.min(Duration::from_millis(1)));
        }
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    name: String,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.world().locks.remove(&self.name);
    }
}
