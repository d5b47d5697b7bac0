//! Logs are made, opened, changed and deleted, each in an order that leaves the old state or the new one at a crash.
//!
//! A log is made under another name, and renamed when it is whole; then its name is registered. A crash before the
//! rename leaves what the next opening removes; one before the registration leaves a whole log, which it adopts.
//! A log is deleted by renaming it, then forgotten by the side log, then removed; the next opening goes on from there.
//! So a name that is registered and has no directory is damage, and never an accident of ours.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::At;
use crate::format::{Ident, LogFile};
use crate::partition::{PartitionCore, is_left_open, lock, read_small};
use crate::storage::replace;
use crate::storage::{Kind, Listed, Signal};
use crate::store::{LogCore, StoreCore, directory};
use crate::types::{LogId, check_name};
use crate::{Compaction, Error, LogOptions, Result};

/// Directories of logs that are not whole yet begin with this; names of logs cannot.
const NEW: &str = "~new.";
/// Directories of logs that were deleted and are being removed.
const GONE: &str = "~gone.";

/// What to do about a log that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    Refuse,
}

impl StoreCore {
    /// The log of this name, opened now if it was not yet; with these options, where they are set.
    pub(crate) fn log(&self, name: &str, options: &LogOptions, missing: Missing) -> Result<Arc<LogCore>> {
        check_name(name)?;
        options.check()?;
        self.check_open()?;
        if missing == Missing::Refuse && self.side().log_id(name).is_none() {
            return Err(self.why_missing(name));
        }
        let slot = self.slot(name);
        let mut open = lock(&slot);
        // Whoever closes the store looks into every slot afterwards.
        self.check_open()?;
        let log = if let Some(log) = open.as_ref() {
            Arc::clone(log)
        } else {
            let id = match self.side().log_id(name) {
                Some(id) => id,
                None if missing == Missing::Refuse => return Err(self.why_missing(name)),
                None => self.create_log(name, options)?,
            };
            let log = Arc::new(self.open_log(name, id)?);
            *open = Some(Arc::clone(&log));
            log
        };
        self.change_options(&log, options)?;
        Ok(log)
    }

    /// Why a name is not known: one whose log lost its registration, and could not be adopted because its LOG file is
    /// damaged, is not one that never was.
    fn why_missing(&self, name: &str) -> Error {
        match self.read_log_file(&directory::logs(self.dir()).join(name)) {
            Err(damaged @ Error::Corrupt { .. }) => damaged,
            _ => Error::NoSuchLog { name: name.to_owned() },
        }
    }

    /// A log that exists, as it is.
    pub(crate) fn existing_log(&self, name: &str) -> Result<Arc<LogCore>> {
        self.log(name, &LogOptions::new(), Missing::Refuse)
    }

    /// Makes a log and registers it, or registers the one that a crash kept from it.
    fn create_log(&self, name: &str, options: &LogOptions) -> Result<LogId> {
        let storage = self.env().storage.as_ref();
        let logs = directory::logs(self.dir());
        let dir = logs.join(name);
        if storage.kind(&dir).at(&dir)?.is_some() {
            return self.adopt(name, &dir);
        }
        let id = self.side().take_log_id()?;
        let unfinished = logs.join(format!("{NEW}{}", id.0));
        let made = self.write_log(&unfinished, id, options);
        if made.is_err() {
            // As far as it goes: the next opening removes the rest.
            let _ = directory::remove_tree(storage, &unfinished);
        }
        made?;
        storage.rename(&unfinished, &dir).at(&dir)?;
        storage.sync_dir(&logs).at(&logs)?;
        self.side().register_log(name, id)?;
        Ok(id)
    }

    /// Writes a whole log into a new directory, durable but for the directory's own name.
    fn write_log(&self, dir: &Path, id: LogId, options: &LogOptions) -> Result<()> {
        let storage = self.env().storage.as_ref();
        let count = options.partition_count();
        let compaction = options.compaction.unwrap_or(Compaction::None);
        let options = options.partitions(count).compaction(compaction);
        storage.create_dir(dir).at(dir)?;
        for partition in 0..count {
            PartitionCore::create(self.env(), self.ident(id, partition), &dir.join(partition.to_string()))?;
        }
        self.write_log_file(dir, id, options)
    }

    fn write_log_file(&self, dir: &Path, id: LogId, options: LogOptions) -> Result<()> {
        let storage = self.env().storage.as_ref();
        let file = LogFile { store: self.env().store, id, options };
        replace(storage, &dir.join(directory::LOG), &file.encode())?;
        storage.sync_dir(dir).at(dir)
    }

    /// Reads the LOG file in a log's directory; `None` when there is none. One of another store is refused.
    fn read_log_file(&self, dir: &Path) -> Result<Option<LogFile>> {
        let path = dir.join(directory::LOG);
        let Some(bytes) = read_small(self.env().storage.as_ref(), &path, directory::SMALL)? else { return Ok(None) };
        let file = LogFile::decode(&bytes).map_err(|error| error.at(&path))?;
        if file.store != self.env().store {
            return Err(Error::IncompatibleFormat {
                path,
                found: format!("store {:032x}", file.store),
                expected: format!("store {:032x}", self.env().store),
            });
        }
        Ok(Some(file))
    }

    /// Registers a log that is whole and has no name in the side log.
    fn adopt(&self, name: &str, dir: &Path) -> Result<LogId> {
        let Some(file) = self.read_log_file(dir)? else {
            let source =
                io::Error::new(io::ErrorKind::AlreadyExists, "in the way of a log of this name, and not a log");
            return Err(Error::Io { path: dir.to_path_buf(), source });
        };
        if let Some(known) = self.side().log_name(file.id) {
            let reason = format!("it is a copy of log {known:?}: remove one of them");
            return Err(Error::corrupt(&dir.join(directory::LOG), 0, reason));
        }
        // The process may have died between the rename and this: what is registered must be where it is.
        let logs = directory::logs(self.dir());
        self.env().storage.sync_dir(&logs).at(&logs)?;
        self.side().register_log(name, file.id)?;
        Ok(file.id)
    }

    /// Opens a registered log with all its partitions.
    fn open_log(&self, name: &str, id: LogId) -> Result<LogCore> {
        let storage = self.env().storage.as_ref();
        let dir = directory::logs(self.dir()).join(name);
        if storage.kind(&dir).at(&dir)? != Some(Kind::Directory) {
            return Err(Error::corrupt(&dir, 0, format!("the directory of log {name:?} is missing")));
        }
        let path = dir.join(directory::LOG);
        let file = self.read_log_file(&dir)?.ok_or_else(|| Error::corrupt(&path, 0, "the file is missing"))?;
        if file.id != id {
            let reason = format!("it belongs to log number {}, and {name:?} is number {}", file.id.0, id.0);
            return Err(Error::corrupt(&path, 0, reason));
        }
        let signal = Arc::new(Signal::default());
        let count = file.options.partition_count();
        let partitions = self.open_partitions(&dir, &file, 0..count, &signal)?;
        Ok(LogCore::new(id, name, dir, file.options, self.durability(), partitions, signal))
    }

    /// Opens the logs that an earlier process left open, and that no one has asked for since: what it wrote there is on
    /// the disk then. All are tried, also after a failure; the first one is returned.
    pub(super) fn open_left_open(&self) -> Result<()> {
        let mut outcome = Ok(());
        for (name, id) in self.side().logs() {
            let left_open = if lock(&self.slot(&name)).is_some() { Ok(false) } else { self.is_left_open(&name, id) };
            outcome = outcome.and(match left_open {
                Ok(false) => Ok(()),
                Ok(true) | Err(_) => match self.existing_log(&name) {
                    // Deleted meanwhile.
                    Ok(_) | Err(Error::NoSuchLog { .. }) => Ok(()),
                    Err(error) => Err(error),
                },
            });
        }
        outcome
    }

    fn is_left_open(&self, name: &str, id: LogId) -> Result<bool> {
        let dir = directory::logs(self.dir()).join(name);
        let count = self.read_log_file(&dir)?.map_or(0, |file| file.options.partition_count());
        let left_open = |number: u32| is_left_open(self.env(), self.ident(id, number), &dir.join(number.to_string()));
        for number in 0..count {
            if left_open(number)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn open_partitions(
        &self,
        dir: &Path,
        file: &LogFile,
        numbers: std::ops::Range<u32>,
        signal: &Arc<Signal>,
    ) -> Result<Vec<Arc<PartitionCore>>> {
        let settings = crate::partition::Settings::of(&file.options, self.durability());
        let open = |number: u32| {
            let floor = self.floor(file.id, number);
            let (ident, dir) = (self.ident(file.id, number), dir.join(number.to_string()));
            let opened = PartitionCore::open(self.env(), ident, &dir, settings, Arc::clone(signal), &floor);
            if opened.is_err() {
                self.keep_unapplied(file.id, number, floor);
            }
            opened
        };
        numbers.map(open).collect()
    }

    fn ident(&self, log: LogId, partition: u32) -> Ident {
        Ident { store: self.env().store, log, partition }
    }

    /// Changes what is set and differs, durably, then for the partitions as they run. With the log's slot held.
    fn change_options(&self, log: &LogCore, wanted: &LogOptions) -> Result<()> {
        let stored = log.options();
        let merged = wanted.or(stored);
        if merged == stored {
            return Ok(());
        }
        let (before, count) = (stored.partition_count(), merged.partition_count());
        if count < before {
            let reason = format!("are {before} and cannot become {count}: a log never has fewer than it had");
            return Err(Error::option("partitions", reason));
        }
        if merged.compaction != stored.compaction {
            return Err(Error::option(
                "compaction",
                "is fixed when a log is made: make another log, and copy the records",
            ));
        }
        let file = LogFile { store: self.env().store, id: log.id(), options: merged };
        for number in before..count {
            let dir = log.dir().join(number.to_string());
            // An earlier attempt may have come so far; nothing was ever appended there.
            directory::remove_partition(self.env().storage.as_ref(), &dir)?;
            PartitionCore::create(self.env(), self.ident(log.id(), number), &dir)?;
        }
        self.env().storage.sync_dir(log.dir()).at(log.dir())?;
        let more = self.open_partitions(log.dir(), &file, before..count, log.signal())?;
        self.write_log_file(log.dir(), log.id(), merged)?;
        *log.lock_options() = merged;
        let settings = log.settings(&merged);
        for partition in log.partitions() {
            partition.configure(settings)?;
        }
        if !more.is_empty() {
            log.grow(more);
        }
        Ok(())
    }

    /// Deletes a log, with its groups and placemarks. Handles of it answer that it is gone; entries stay readable.
    pub(crate) fn delete_log(&self, name: &str) -> Result<()> {
        check_name(name)?;
        self.check_open()?;
        let slot = self.slot(name);
        let mut open = lock(&slot);
        self.check_open()?;
        let id = self.side().log_id(name).ok_or_else(|| Error::NoSuchLog { name: name.to_owned() })?;
        let open = open.take();
        let exists = match &open {
            None => self.set_aside(name, id)?,
            Some(log) => {
                // Before anyone finds its partitions closed, and asks why.
                log.set_deleted(true);
                for partition in log.partitions() {
                    // What cannot be closed cleanly is deleted all the same.
                    let _ = partition.close();
                }
                log.signal().notify();
                self.set_aside(name, id).inspect_err(|_| log.set_deleted(false))?
            }
        };
        self.side().forget_log(id)?;
        self.forget_unapplied(id);
        if exists { directory::remove_tree(self.env().storage.as_ref(), &self.gone(id)) } else { Ok(()) }
    }

    /// Takes a log's directory out of its place, durably: from here on the log is deleted. False when it was missing.
    fn set_aside(&self, name: &str, id: LogId) -> Result<bool> {
        let storage = self.env().storage.as_ref();
        let logs = directory::logs(self.dir());
        let dir = logs.join(name);
        if storage.kind(&dir).at(&dir)?.is_none() {
            return Ok(false);
        }
        storage.rename(&dir, &self.gone(id)).at(&dir)?;
        storage.sync_dir(&logs).at(&logs)?;
        Ok(true)
    }

    /// Where a deleted log is while it is being removed.
    fn gone(&self, id: LogId) -> PathBuf {
        directory::logs(self.dir()).join(format!("{GONE}{}", id.0))
    }

    /// Finishes what a crash left of making and deleting logs.
    pub(super) fn finish_leftovers(&self) -> Result<()> {
        let storage = self.env().storage.as_ref();
        let logs = directory::logs(self.dir());
        if storage.kind(&logs).at(&logs)? != Some(Kind::Directory) {
            return Err(Error::corrupt(&logs, 0, "the directory of the logs is missing"));
        }
        let listed = storage.list(&logs).at(&logs)?;
        let directories = || listed.iter().filter(|listed| listed.kind == Kind::Directory);
        for Listed { name, .. } in directories() {
            if number_behind(NEW, name).is_some() {
                directory::remove_tree(storage, &logs.join(name))?;
            } else if let Some(id) = number_behind(GONE, name) {
                // A log that came back under its name after it was forgotten would be adopted.
                storage.sync_dir(&logs).at(&logs)?;
                self.side().forget_log(id)?;
                directory::remove_tree(storage, &logs.join(name))?;
            }
        }
        for Listed { name, .. } in directories() {
            if check_name(name).is_ok() && self.side().log_id(name).is_none() {
                // What is not a log of ours is foreign; whoever asks for a log of that name learns about it.
                let _ = self.adopt(name, &logs.join(name));
            }
        }
        Ok(())
    }
}

fn number_behind(prefix: &str, name: &str) -> Option<LogId> {
    name.strip_prefix(prefix)?.parse().ok().map(LogId)
}
