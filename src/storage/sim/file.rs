//! An open file of the simulated disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::content::{Content, PAGE};
use super::tree::Inode;
use super::{Lie, Operation, SimDisk};
use crate::storage::{File, Map};

#[derive(Debug)]
pub(super) struct SimFile {
    disk: SimDisk,
    inode: Arc<Inode>,
    path: String,
    writable: bool,
}

impl SimFile {
    pub(super) fn new(disk: SimDisk, inode: Arc<Inode>, path: String, writable: bool) -> Self {
        inode.handles.fetch_add(1, Ordering::Relaxed);
        Self { disk, inode, path, writable }
    }

    /// Does something with the content, unless it has to fail. `more` says how many more pages it wants, of which so
    /// many are left.
    fn change<T>(
        &self,
        operation: Operation,
        change: impl FnOnce(&mut Content, usize) -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut world = self.disk.world();
        world.begin(operation, &self.path)?;
        let available = world.available() / PAGE;
        change(&mut self.inode.content(), available)
    }

    fn look<T>(&self, look: impl FnOnce(&Content) -> T) -> io::Result<T> {
        let mut world = self.disk.world();
        world.begin(Operation::Read, &self.path)?;
        Ok(look(&self.inode.content()))
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.look(|content| content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let at = index(at)?;
        self.look(|content| content.read_at(buffer, at))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = index(at)?;
        self.change(Operation::Write, |content, available| {
            // On a full disk the kernel writes what fits.
            let fitting = content.fitting(at, bytes.len(), available);
            content.write_at(bytes.get(..fitting).unwrap_or(bytes), at)?;
            if fitting < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        let (from, len) = (index(from)?, index(len)?);
        self.change(Operation::Allocate, |content, available| {
            if len <= from {
                return Ok(());
            }
            if content.fitting(from, len - from, available) < len - from {
                return Err(io::ErrorKind::StorageFull.into());
            }
            content.allocate(from, len)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = index(len)?;
        self.change(Operation::SetLen, |content, _| content.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let begun = world.begin(Operation::Sync, &self.path);
        if begun.is_ok() && world.faults.lies(Lie::FileSynced) {
            return Ok(());
        }
        if begun.is_ok() {
            self.inode.content().sync();
        } else if !world.power_lost() {
            self.inode.content().fail_sync();
        }
        begun
    }

    fn forget(&self, from: u64) {
        let world = self.disk.world();
        if let (false, Ok(from)) = (world.power_lost(), index(from)) {
            self.inode.content().forget(from);
        }
    }

    fn map(&self, len: usize, writable: bool) -> io::Result<Map> {
        if writable && !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut world = self.disk.world();
        world.begin(Operation::Map, &self.path)?;
        self.inode.content().map(len, writable)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.inode.handles.fetch_sub(1, Ordering::Relaxed);
    }
}

fn index(at: u64) -> io::Result<usize> {
    usize::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
