//! What all handles of one store share: opened once, closed once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::{Decision, Part, StoreFile};
use crate::journal::{Journal, SEGMENT_BYTES};
use crate::partition::{Env, Floor, PartitionCore, Settings, lock};
use crate::placemarks::SideLog;
use crate::storage::{Lock, Signal};
use crate::store::{LogCore, StoreOptions, directory};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::types::{LogId, Millis};
use crate::{Durability, Error, Result};

/// An open store.
#[derive(Debug)]
pub(crate) struct StoreCore {
    dir: PathBuf,
    env: Arc<Env>,
    durability: Durability,
    side: Arc<SideLog>,
    journal: Arc<Journal>,
    /// The logs that were asked for. Held for moments; opening one is done under the lock of its slot.
    logs: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// What transactions had decided before this opening, for partitions that were not opened since.
    unapplied: Mutex<Unapplied>,
    /// Whether logs that are not open have nothing that is not on the disk.
    others_synced: AtomicBool,
    closed: AtomicBool,
    /// Given back when the store has been closed. Held over the closing, so that a second one waits for the first.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

/// Where a log is, once it is open. Its lock is held while the log is made, opened, changed or deleted; logs do not wait
/// for one another.
pub(super) type Slot = Mutex<Option<Arc<LogCore>>>;

/// Parts of decided transactions, by the partition that they belong to.
type Unapplied = BTreeMap<(LogId, u32), Vec<Part>>;

impl StoreCore {
    /// Opens the store at `path`, and makes what is missing.
    pub(super) fn open(options: &StoreOptions, path: &Path) -> Result<Arc<Self>> {
        let storage = options.storage.as_ref();
        let dir = directory::prepare(storage, path)?;
        let lock = directory::lock(storage, &dir)?;
        let known = directory::read(storage, &dir)?;
        let file = known.unwrap_or_else(|| StoreFile { store: storage.random(), created: Millis(storage.now()) });
        let storage = Arc::clone(&options.storage);
        let env = Env::new(storage, file.store, &dir, options.recovery_mode, options.write_mode);
        if known.is_none() {
            directory::create(&env, &dir, &file)?;
        }
        let side = SideLog::open(&env, &directory::placemarks(&dir), options.durability)?;
        let journal = open_journal(&env, &dir)?;
        let core = Arc::new(Self {
            journal: Journal::new(Arc::clone(&journal), Arc::clone(&side)),
            dir,
            env,
            durability: options.durability,
            side,
            logs: Mutex::default(),
            unapplied: Mutex::default(),
            others_synced: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        });
        let ready = core.finish_leftovers().and_then(|()| core.replay(&journal));
        if ready.is_err() {
            core.env.background.stop();
        }
        ready.map(|()| core)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn env(&self) -> &Arc<Env> {
        &self.env
    }

    /// The store's durability: that of placemarks, and of logs that have none of their own.
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    pub(crate) fn side(&self) -> &Arc<SideLog> {
        &self.side
    }

    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    /// The slot of a log, which need not exist.
    pub(super) fn slot(&self, name: &str) -> Arc<Slot> {
        let mut logs = lock(&self.logs);
        if let Some(slot) = logs.get(name) {
            return Arc::clone(slot);
        }
        Arc::clone(logs.entry(name.to_owned()).or_default())
    }

    /// The logs that are open now.
    pub(crate) fn open_logs(&self) -> Vec<Arc<LogCore>> {
        let slots: Vec<Arc<Slot>> = lock(&self.logs).values().map(Arc::clone).collect();
        slots.iter().filter_map(|slot| lock(slot).as_ref().map(Arc::clone)).collect()
    }

    /// What opening a partition must respect. The parts are the caller's to give back when it cannot open it.
    pub(super) fn floor(&self, log: LogId, partition: u32) -> Floor {
        Floor {
            parts: lock(&self.unapplied).remove(&(log, partition)).unwrap_or_default(),
            least_end: self.side.least_end(log, partition),
        }
    }

    /// Takes back what could not be applied.
    pub(super) fn keep_unapplied(&self, log: LogId, partition: u32, floor: Floor) {
        if !floor.parts.is_empty() {
            lock(&self.unapplied).insert((log, partition), floor.parts);
        }
    }

    /// A deleted log needs nothing applied.
    pub(super) fn forget_unapplied(&self, log: LogId) {
        lock(&self.unapplied).retain(|place, _| place.0 != log);
    }

    /// Whether the journal still has what is missing in a log, because that could not be opened.
    pub(crate) fn has_unapplied(&self) -> bool {
        !lock(&self.unapplied).is_empty()
    }

    /// Applies what transactions had decided before this opening, where it is missing.
    fn replay(&self, journal: &Arc<PartitionCore>) -> Result<()> {
        let mut transactions = 0;
        let mut cursor = journal.cursor(journal.start())?;
        while let Some(entry) = cursor.next()? {
            let Some(decision) = Decision::decode(entry.value()) else {
                let reason = format!("the transaction at offset {} does not decode", entry.offset());
                return Err(Error::corrupt(journal.dir(), 0, reason));
            };
            transactions += 1;
            for part in decision.parts {
                // What was decided for a log that was deleted later went with it.
                if self.side.log_name(part.log).is_some() {
                    lock(&self.unapplied).entry((part.log, part.partition)).or_default().push(part);
                }
            }
            for placemark in &decision.placemarks {
                self.side.decided(placemark)?;
            }
        }
        self.env.report.replayed(transactions);
        let concerned: Vec<LogId> = lock(&self.unapplied).keys().map(|place| place.0).collect();
        for name in concerned.into_iter().filter_map(|log| self.side.log_name(log)) {
            // Opening applies it. A log that cannot be opened does not keep the others from it: whoever asks for that
            // log learns why, and the journal keeps what it needs.
            let _ = self.existing_log(&name);
        }
        self.journal.set_needed(self.has_unapplied());
        Ok(())
    }

    /// Makes everything written so far durable. All is tried, also after a failure; the first one is returned.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_open()?;
        let mut outcome = Ok(());
        if !self.others_synced.load(Ordering::Acquire) {
            outcome = self.open_left_open();
            self.others_synced.store(outcome.is_ok(), Ordering::Release);
        }
        for log in self.open_logs() {
            for partition in log.partitions() {
                match partition.sync() {
                    // Deleted meanwhile.
                    Err(Error::Closed) if log.is_deleted() => {}
                    synced => outcome = outcome.and(synced),
                }
            }
        }
        let outcome = outcome.and(self.side.sync()).and(self.journal.partition().sync());
        self.env.background.lend_a_hand();
        outcome
    }

    /// Closes everything and gives back the lock, whoever still holds handles. All is tried, also after a failure; the
    /// first one is returned. A second call waits for the first, and returns `Ok`.
    ///
    /// The partitions go first: what the side log says of them must be there, and what the journal has for them is not
    /// needed once they are closed.
    pub(crate) fn close(&self) -> Result<()> {
        let mut held = lock(&self.lock);
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.env.background.stop();
        let mut outcome = Ok(());
        for log in self.open_logs() {
            for partition in log.partitions() {
                outcome = outcome.and(partition.close());
            }
            log.signal().notify();
        }
        let unapplied = self.has_unapplied() || outcome.is_err();
        let side = self.side.close();
        let journal = self.journal.close(unapplied || side.is_err());
        outcome = outcome.and(side).and(journal);
        self.env.forget_all();
        held.take();
        outcome
    }
}

fn open_journal(env: &Arc<Env>, dir: &Path) -> Result<Arc<PartitionCore>> {
    let settings = Settings {
        durability: Durability::Os,
        segment_bytes: SEGMENT_BYTES,
        segment_age: None,
        record_limit: SEGMENT_BYTES,
        unsealed: 0,
    };
    let (ident, dir) = (directory::journal_ident(env), directory::transactions(dir));
    PartitionCore::open(env, ident, &dir, settings, Arc::new(Signal::default()), &Floor::default())
}
