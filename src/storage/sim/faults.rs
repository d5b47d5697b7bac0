//! What fails, and when.

use std::io;

/// A kind of operation of the simulated disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Opening an existing file, and taking a lock that has its file.
    Open,
    /// Making a file.
    Create,
    /// Writing to a file; stores through a mapping are no operation.
    Write,
    /// Making a file durable.
    Sync,
    /// Allocating blocks.
    Allocate,
    /// Setting a file's length.
    SetLen,
    /// Mapping a file.
    Map,
    /// Renaming a file or directory.
    Rename,
    /// Removing a file or directory.
    Remove,
    /// Making a directory.
    CreateDir,
    /// Making a directory's names durable.
    SyncDir,
    /// Looking at names.
    List,
    /// Reading a file, or its length.
    Read,
}

impl Operation {
    /// Whether a crash before it and one behind it can leave different disks, so that it counts.
    pub(super) fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Map | Self::List | Self::Read)
    }
}

/// What a broken disk says and does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lie {
    /// A file is durable.
    FileSynced,
    /// A directory's names are durable.
    DirectorySynced,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Once; then all is well again.
    Once,
    /// From then on every time.
    Forever,
}

/// An operation that is to fail, before it has any effect. Only a sync has one: what it was to write counts as clean
/// from then on, without being durable, as Linux has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// What fails.
    pub operation: Operation,
    /// Which of them, counted from when the fault is injected; the next one is 1.
    pub nth: u64,
    /// The error it fails with.
    pub error: io::ErrorKind,
    /// Whether those behind it fail as well.
    pub times: Times,
    /// Counts and strikes only at paths that contain this.
    pub path: Option<String>,
}

impl Fault {
    /// The next such operation fails, once.
    pub fn new(operation: Operation, error: io::ErrorKind) -> Self {
        Self { operation, nth: 1, error, times: Times::Once, path: None }
    }

    /// The `nth` fails instead; the next one is 1.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = nth;
        self
    }

    /// Those behind it fail as well.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.times = Times::Forever;
        self
    }

    /// Only operations at paths that contain `fragment` count and fail.
    #[must_use]
    pub fn at(mut self, fragment: impl Into<String>) -> Self {
        self.path = Some(fragment.into());
        self
    }

    fn concerns(&self, operation: Operation, path: &str) -> bool {
        self.operation == operation && self.path.as_ref().is_none_or(|fragment| path.contains(fragment))
    }
}

/// The faults that wait for their moment.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Armed>,
    lies: Vec<Lie>,
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
}

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.armed.push(Armed { fault, seen: 0 });
    }

    pub(super) fn lie(&mut self, lie: Lie) {
        self.lies.push(lie);
    }

    pub(super) fn lies(&self, lie: Lie) -> bool {
        self.lies.contains(&lie)
    }

    pub(super) fn clear(&mut self) {
        self.armed.clear();
        self.lies.clear();
    }

    /// Counts an operation, and says how it fails, if it does.
    pub(super) fn strike(&mut self, operation: Operation, path: &str) -> io::Result<()> {
        let mut struck = None;
        self.armed.retain_mut(|armed| {
            if !armed.fault.concerns(operation, path) {
                return true;
            }
            armed.seen += 1;
            if armed.seen < armed.fault.nth {
                return true;
            }
            struck.get_or_insert(armed.fault.error);
            armed.fault.times == Times::Forever
        });
        struck.map_or(Ok(()), |kind| Err(io::Error::new(kind, format!("injected into {operation:?}"))))
    }
}
