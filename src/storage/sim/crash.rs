//! The disk that a crash leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::Content;
use super::random::Random;
use super::tree::{Change, Directory, Entries, Inode, Node, Tree, apply};

/// How the power fails.
///
/// What was synced is kept. Of the rest some survives: each sector of a file by itself, of a length that grew any part,
/// and of the names of a directory any set of changes that could have been made in the order they were. A rename within
/// a directory is made whole or not at all, one from a directory to another is a change to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Crash {
    /// Chooses what survives, and the next boot's id.
    pub seed: u64,
    /// Bytes that survive together or not at all: 512 or 4096.
    pub sector: usize,
    /// How much survives.
    pub keep: Keep,
    /// Whether the kernel lives on, and only the disk was gone for a moment: then the mount is another one.
    pub same_boot: bool,
}

/// How much of what was not synced survives a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Everything that was still to be written; not what a failed sync has dropped.
    Everything,
    /// Some of it, chosen by the seed, as is how much.
    Random,
}

impl Crash {
    /// A random choice of sectors of 512 bytes survives.
    pub fn new(seed: u64) -> Self {
        Self { seed, sector: 512, keep: Keep::Random, same_boot: false }
    }

    /// The size in which bytes survive: 512 or 4096.
    ///
    /// # Panics
    ///
    /// When it is neither.
    #[must_use]
    pub fn sector(mut self, bytes: usize) -> Self {
        assert!(matches!(bytes, 512 | 4096), "sectors have 512 or 4096 bytes, not {bytes}");
        self.sector = bytes;
        self
    }

    /// The disk alone lost its power: the kernel is the same, and mounts it again.
    #[must_use]
    pub fn same_boot(mut self) -> Self {
        self.same_boot = true;
        self
    }

    /// How much survives.
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }
}

/// Files of the new disk, by the old ones they come from: a file with two names stays one.
type Moved = BTreeMap<usize, Arc<Inode>>;

impl Tree {
    /// The same disk, on its own.
    pub(super) fn copy(&self) -> Self {
        let mut moved = Moved::new();
        let mut entries = |entries: &Entries| {
            let copy = |(name, node): (&String, &Node)| (name.clone(), moved_node(&mut moved, node, Content::copy));
            entries.iter().map(copy).collect::<Entries>()
        };
        let halves: Vec<_> = self.directories.iter().map(|old| (entries(&old.live), entries(&old.durable))).collect();
        let mut change = |change: &Change| -> Change {
            let mut copy = |node: &Option<Node>| node.as_ref().map(|node| moved_node(&mut moved, node, Content::copy));
            change.iter().map(|(name, node)| (name.clone(), copy(node))).collect()
        };
        let directories = halves.into_iter().zip(&self.directories).map(|((live, durable), old)| Directory {
            live,
            durable,
            pending: old.pending.iter().map(&mut change).collect(),
        });
        Self::new(directories.collect())
    }

    /// What a power loss leaves of it; all of that is durable.
    pub(super) fn crash(&self, crash: &Crash) -> Self {
        let mut random = Random::new(crash.seed);
        // Little, half or most of it: with an even chance everywhere, whole files would never survive.
        let chance = 1 + 3 * random.below(3);
        let mut left = Left { old: self, new: Vec::new(), moved: Moved::new(), crash, chance, random };
        left.directory(0);
        Self::new(left.new)
    }
}

/// A disk being put together from what a crash left.
struct Left<'a> {
    old: &'a Tree,
    new: Vec<Directory>,
    moved: Moved,
    crash: &'a Crash,
    chance: usize,
    random: Random,
}

impl Left<'_> {
    /// Takes over a directory with what is below it, and says which one it has become.
    fn directory(&mut self, id: usize) -> usize {
        let new = self.new.len();
        self.new.push(Directory::default());
        let survivors = self.old.directories.get(id).map(|old| self.entries(old)).unwrap_or_default();
        let mut entries = Entries::new();
        for (name, node) in survivors {
            let node = match &node {
                Node::Directory(id) => Node::Directory(self.directory(*id)),
                Node::File(_) => {
                    let (crash, chance, random) = (self.crash, self.chance, &mut self.random);
                    moved_node(&mut self.moved, &node, |content| content.crash(crash, chance, random))
                }
            };
            entries.insert(name, node);
        }
        if let Some(directory) = self.new.get_mut(new) {
            directory.durable = entries.clone();
            directory.live = entries;
        }
        new
    }

    /// The names that survive in a directory. A change needs those before it that concern the same names.
    fn entries(&mut self, directory: &Directory) -> Entries {
        let mut entries = directory.durable.clone();
        let mut lost = BTreeSet::new();
        for change in &directory.pending {
            let made = match self.crash.keep {
                Keep::Nothing => false,
                Keep::Everything => true,
                Keep::Random => self.random.eighths(self.chance),
            };
            if made && !change.iter().any(|(name, _)| lost.contains(name)) {
                apply(&mut entries, change);
            } else {
                lost.extend(change.iter().map(|(name, _)| name));
            }
        }
        entries
    }
}

/// The node in the new disk, with what `content` makes of a file's content the first time it is met.
fn moved_node(moved: &mut Moved, node: &Node, content: impl FnOnce(&Content) -> Content) -> Node {
    match node {
        Node::Directory(id) => Node::Directory(*id),
        Node::File(file) => {
            let place = Arc::as_ptr(file).addr();
            let file = moved.entry(place).or_insert_with(|| Inode::new(content(&file.content())));
            Node::File(Arc::clone(file))
        }
    }
}
