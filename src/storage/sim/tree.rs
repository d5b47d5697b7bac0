//! Names: the directories of a simulated disk, as the processes see them and as the disk does.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::content::{Content, PAGE};
use crate::storage::{Kind, Listed};

/// A file, whatever names it has.
#[derive(Debug)]
pub(super) struct Inode {
    content: Mutex<Content>,
    /// Handles to it, which keep its blocks when it has lost its name.
    pub(super) handles: AtomicUsize,
}

impl Inode {
    pub(super) fn new(content: Content) -> Arc<Self> {
        Arc::new(Self { content: Mutex::new(content), handles: AtomicUsize::new(0) })
    }

    /// Its content. Whoever asks holds the whole disk, so that nobody waits.
    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub(super) enum Node {
    File(Arc<Inode>),
    Directory(usize),
}

pub(super) type Entries = BTreeMap<String, Node>;

/// What one operation did to a directory, all of it or nothing: the names it set, or took away.
pub(super) type Change = Vec<(String, Option<Node>)>;

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) live: Entries,
    pub(super) durable: Entries,
    /// What leads from `durable` to `live`.
    pub(super) pending: Vec<Change>,
}

impl Directory {
    fn change(&mut self, change: Change) {
        apply(&mut self.live, &change);
        self.pending.push(change);
    }
}

pub(super) fn apply(entries: &mut Entries, change: &Change) {
    for (name, node) in change {
        match node {
            Some(node) => drop(entries.insert(name.clone(), node.clone())),
            None => drop(entries.remove(name)),
        }
    }
}

/// All directories; the first is the root.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) directories: Vec<Directory>,
    /// Files that have lost their names and may still be open.
    orphans: Vec<Weak<Inode>>,
}

impl Tree {
    const ROOT: usize = 0;

    pub(super) fn new(directories: Vec<Directory>) -> Self {
        Self { directories, orphans: Vec::new() }
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Node> {
        let mut node = Node::Directory(Self::ROOT);
        for name in names(path)? {
            node = self.live(self.inside(&node)?)?.get(&name).cloned().ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Arc<Inode>> {
        match self.find(path)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        match self.find(path) {
            Ok(node) => Ok(Some(node.kind())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        let entries = self.live(self.inside(&self.find(path)?)?)?;
        Ok(entries.iter().map(|(name, node)| Listed { name: name.clone(), kind: node.kind() }).collect())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Arc<Inode>> {
        let file = Inode::new(Content::new(&[]));
        self.create(path, Node::File(Arc::clone(&file)))?;
        Ok(file)
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.directories.len();
        self.create(path, Node::Directory(id))?;
        self.directories.push(Directory::default());
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        let ((source, old), (target, new)) = (self.parent(from)?, self.parent(to)?);
        if (source, &old) == (target, &new) {
            return Ok(());
        }
        if names(to)?.starts_with(&names(from)?) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match (&node, self.live(target)?.get(&new).cloned()) {
            (_, None) => {}
            (Node::File(_), Some(Node::File(replaced))) => self.orphans.push(Arc::downgrade(&replaced)),
            (Node::File(_), Some(Node::Directory(_))) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::Directory(_), Some(Node::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
            (Node::Directory(_), Some(Node::Directory(replaced))) => self.must_be_empty(replaced)?,
        }
        if source == target {
            self.change(source, vec![(old, None), (new, Some(node))])
        } else {
            // Two directories become durable each for itself.
            self.change(source, vec![(old, None)])?;
            self.change(target, vec![(new, Some(node))])
        }
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let file = self.file(path)?;
        let (directory, name) = self.parent(path)?;
        self.orphans.push(Arc::downgrade(&file));
        self.change(directory, vec![(name, None)])
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        self.must_be_empty(self.inside(&self.find(path)?)?)?;
        let (directory, name) = self.parent(path)?;
        self.change(directory, vec![(name, None)])
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.inside(&self.find(path)?)?;
        let directory = self.directories.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
        directory.pending.clear();
        directory.durable = directory.live.clone();
        Ok(())
    }

    /// Puts a file with this content where it is told, live and durable, and the directories that lead to it as well.
    pub(super) fn place(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut walked = PathBuf::new();
        for name in names(path.parent().unwrap_or(Path::new("")))? {
            walked.push(name);
            if self.kind(&walked)?.is_none() {
                self.create_dir(&walked)?;
            }
            self.settle(&walked)?;
        }
        if self.kind(path)?.is_none() {
            self.create_file(path)?;
        }
        self.settle(path)?;
        *self.file(path)?.content() = Content::new(bytes);
        Ok(())
    }

    /// Makes one name durable.
    fn settle(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find(path)?;
        let (directory, name) = self.parent(path)?;
        let directory = self.directories.get_mut(directory).ok_or(io::ErrorKind::NotFound)?;
        directory.pending.iter_mut().for_each(|change| change.retain(|(changed, _)| *changed != name));
        directory.durable.insert(name, node);
        Ok(())
    }

    /// Every file that has a name.
    pub(super) fn files(&self) -> Vec<(PathBuf, Arc<Inode>)> {
        let mut files = Vec::new();
        self.collect(Self::ROOT, Path::new("/"), &mut files);
        files
    }

    /// Bytes of blocks in use: those of files that have a name, or are open or mapped.
    pub(super) fn used(&mut self) -> usize {
        self.orphans.retain(|orphan| {
            let held = |file: Arc<Inode>| file.handles.load(Ordering::Relaxed) > 0 || file.content().mapped();
            orphan.upgrade().is_some_and(held)
        });
        let orphans = self.orphans.iter().filter_map(Weak::upgrade).map(|file| file.content().allocated());
        let named = self.files().into_iter().map(|(_, file)| file.content().allocated());
        orphans.chain(named).sum::<usize>() * PAGE
    }

    fn collect(&self, directory: usize, path: &Path, files: &mut Vec<(PathBuf, Arc<Inode>)>) {
        for (name, node) in self.live(directory).into_iter().flatten() {
            match node {
                Node::File(file) => files.push((path.join(name), Arc::clone(file))),
                Node::Directory(id) => self.collect(*id, &path.join(name), files),
            }
        }
    }

    fn create(&mut self, path: &Path, node: Node) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        if self.live(directory)?.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(directory, vec![(name, Some(node))])
    }

    fn change(&mut self, directory: usize, change: Change) -> io::Result<()> {
        self.directories.get_mut(directory).ok_or(io::ErrorKind::NotFound)?.change(change);
        Ok(())
    }

    fn must_be_empty(&self, directory: usize) -> io::Result<()> {
        if self.live(directory)?.is_empty() { Ok(()) } else { Err(io::ErrorKind::DirectoryNotEmpty.into()) }
    }

    /// The directory that a path's last name is in, and that name.
    fn parent(&self, path: &Path) -> io::Result<(usize, String)> {
        let mut names = names(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.inside(&self.find(&names.iter().collect::<PathBuf>())?)?;
        Ok((directory, name))
    }

    fn inside(&self, node: &Node) -> io::Result<usize> {
        match node {
            Node::Directory(id) if *id < self.directories.len() => Ok(*id),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn live(&self, directory: usize) -> io::Result<&Entries> {
        Ok(&self.directories.get(directory).ok_or(io::ErrorKind::NotFound)?.live)
    }
}

impl Node {
    fn kind(&self) -> Kind {
        match self {
            Self::File(_) => Kind::File,
            Self::Directory(_) => Kind::Directory,
        }
    }
}

/// The names on the way from the root; a path that does not begin there is taken as if it did.
fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}

/// One spelling for each path.
pub(super) fn normal(path: &Path) -> io::Result<String> {
    Ok(names(path)?.iter().fold(String::new(), |path, name| path + "/" + name))
}
