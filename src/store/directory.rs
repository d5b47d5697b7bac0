//! The directory of a store: made, locked, recognised.
//!
//! A store is made in an order that leaves, at a crash anywhere, either a directory that is made again by the next
//! opening or a whole store: everything in it is durable before the STORE file gets its name.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::At;
use crate::format::{Ident, LogFile, StoreFile};
use crate::partition::{Env, PartitionCore, read_small};
use crate::placemarks::SideLog;
use crate::storage::replace;
use crate::storage::{Kind, Listed, Lock, Storage};
use crate::types::LogId;
use crate::{Error, Result};

const LOCK: &str = "LOCK";
const STORE: &str = "STORE";
const LOGS: &str = "logs";
const PLACEMARKS: &str = "placemarks";
const TRANSACTIONS: &str = "transactions";

/// Room for STORE and LOG files of later versions, so that these are recognised as such.
pub(super) const SMALL: usize = 4096;

const _: () = assert!(StoreFile::LEN <= SMALL && LogFile::LEN <= SMALL);

/// Name of the file in a log's directory that says which log it is.
pub(super) const LOG: &str = "LOG";

pub(super) fn logs(store: &Path) -> PathBuf {
    store.join(LOGS)
}

pub(super) fn placemarks(store: &Path) -> PathBuf {
    store.join(PLACEMARKS)
}

pub(super) fn transactions(store: &Path) -> PathBuf {
    store.join(TRANSACTIONS)
}

/// The journal's partition.
pub(super) fn journal_ident(env: &Env) -> Ident {
    Ident { store: env.store, log: LogId::JOURNAL, partition: 0 }
}

/// Sees to it that `path`, from here on absolute, is a directory, made durable with its parents when it is new. A symbolic link is refused: what
/// it points to could change while the store is open.
pub(super) fn prepare(storage: &dyn Storage, path: &Path) -> Result<PathBuf> {
    let wanted = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let dir: PathBuf = storage.absolute(wanted).at(wanted)?.components().collect();
    match storage.kind(&dir).at(&dir)? {
        Some(Kind::Directory) => {}
        Some(Kind::File) => {
            return Err(refused(&dir, io::ErrorKind::NotADirectory, "a file, where a store is a directory"));
        }
        Some(Kind::Other) => {
            let reason = "a symbolic link or device: open the directory itself";
            return Err(refused(&dir, io::ErrorKind::InvalidInput, reason));
        }
        None => make_directories(storage, &dir)?,
    }
    Ok(dir)
}

fn refused(path: &Path, kind: io::ErrorKind, reason: &'static str) -> Error {
    Error::Io { path: path.to_path_buf(), source: io::Error::new(kind, reason) }
}

fn make_directories(storage: &dyn Storage, dir: &Path) -> Result<()> {
    let mut missing = vec![dir.to_path_buf()];
    let mut parent = parent_of(dir);
    while storage.kind(&parent).at(&parent)?.is_none() {
        let above = parent_of(&parent);
        if above == parent {
            break;
        }
        missing.push(std::mem::replace(&mut parent, above));
    }
    // The first that is there may have been made by a process that died before it had synced the name.
    sync_names(storage, &parent_of(&parent))?;
    for dir in missing.iter().rev() {
        match storage.create_dir(dir) {
            // Someone else may be making it at the same time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.at(dir)?,
        }
        let parent = parent_of(dir);
        storage.sync_dir(&parent).at(&parent)?;
    }
    Ok(())
}

fn parent_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_path_buf()
}

/// Locks the store, against other processes and against this one.
pub(super) fn lock(storage: &dyn Storage, dir: &Path) -> Result<Box<dyn Lock>> {
    let path = dir.join(LOCK);
    storage.lock(&path).at(&path)?.ok_or_else(|| Error::Locked { path: dir.to_path_buf() })
}

/// Which store it is; `None` when there is none yet.
pub(super) fn read(storage: &dyn Storage, dir: &Path) -> Result<Option<StoreFile>> {
    let path = dir.join(STORE);
    let Some(bytes) = read_small(storage, &path, SMALL)? else { return Ok(None) };
    StoreFile::decode(&bytes).map(Some).map_err(|error| error.at(&path))
}

/// Makes a store. With the lock held.
pub(super) fn create(env: &Env, dir: &Path, file: &StoreFile) -> Result<()> {
    let storage = env.storage.as_ref();
    let logs = logs(dir);
    match storage.kind(&logs).at(&logs)? {
        None => storage.create_dir(&logs).at(&logs)?,
        Some(_) if has_logs(storage, &logs)? => {
            return Err(Error::corrupt(&dir.join(STORE), 0, "the file is missing, and there are logs of a store"));
        }
        Some(_) => {}
    }
    let (placemarks, transactions) = (placemarks(dir), transactions(dir));
    for unfinished in [&placemarks, &transactions] {
        remove_partition(storage, unfinished)?;
    }
    SideLog::create(env, &placemarks)?;
    PartitionCore::create(env, journal_ident(env), &transactions)?;
    storage.sync_dir(dir).at(dir)?;
    // An earlier attempt may have made the directory and crashed before its name was durable: that comes before the STORE
    // file, which says that all is there.
    sync_names(storage, &parent_of(dir))?;
    replace(storage, &dir.join(STORE), &file.encode())?;
    storage.sync_dir(dir).at(dir)
}

/// Makes the names in a directory outside of the store durable, if we made any. One that we may not open has none of ours.
fn sync_names(storage: &dyn Storage, dir: &Path) -> Result<()> {
    match storage.sync_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.at(dir),
    }
}

/// Whether a directory has logs in it. Other things in a directory of that name are foreign.
fn has_logs(storage: &dyn Storage, logs: &Path) -> Result<bool> {
    for Listed { name, kind } in storage.list(logs).at(logs)? {
        let file = logs.join(name).join(LOG);
        if kind == Kind::Directory && storage.kind(&file).at(&file)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes the directory of a partition that never came into use. What is not ours stays, and with it the directory,
/// which is an error that names it.
pub(super) fn remove_partition(storage: &dyn Storage, dir: &Path) -> Result<()> {
    if storage.kind(dir).at(dir)?.is_none() {
        return Ok(());
    }
    for Listed { name, kind } in storage.list(dir).at(dir)? {
        if kind == Kind::File && is_ours(&name) {
            let path = dir.join(name);
            storage.remove_file(&path).at(&path)?;
        }
    }
    storage.remove_dir(dir).at(dir)
}

fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".new").unwrap_or(name);
    let kinds = [".log", ".index", ".producers"];
    let segment = kinds.iter().find_map(|kind| name.strip_suffix(kind));
    name == "MANIFEST" || segment.is_some_and(|stem| stem.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// Removes a directory of ours with all that is in it.
pub(super) fn remove_tree(storage: &dyn Storage, dir: &Path) -> Result<()> {
    for Listed { name, kind } in storage.list(dir).at(dir)? {
        let path = dir.join(name);
        match kind {
            Kind::Directory => remove_tree(storage, &path)?,
            Kind::File | Kind::Other => storage.remove_file(&path).at(&path)?,
        }
    }
    storage.remove_dir(dir).at(dir)
}
