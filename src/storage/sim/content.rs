//! What a simulated file holds: once as the processes see it, once as the disk does.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::crash::{Crash, Keep};
use super::random::Random;
use crate::storage::Map;
use crate::storage::map::{Heap, View};

pub(super) const PAGE: usize = Heap::PAGE;

type Page = [u8; PAGE];

static ZERO: Page = [0; PAGE];

/// Pages that never change, so that copies of a disk share them. `None`, and what is past the end, is all zeros.
type Pages = Vec<Option<Arc<Page>>>;

/// A file's bytes, length and blocks, live and durable.
///
/// What differs between the two is found by comparison, so that a store through a mapping needs to tell nobody. Bytes
/// past the length are zero on either side.
#[derive(Debug)]
pub(super) struct Content {
    live: Live,
    len: usize,
    blocks: Blocks,
    durable: Pages,
    durable_len: usize,
    durable_blocks: Blocks,
    /// What pages held when a sync failed: as long as they still do, they are clean, and no sync writes them.
    dropped: BTreeMap<usize, Arc<Page>>,
}

#[derive(Debug)]
enum Live {
    /// Never written or mapped since this disk came to be.
    Pages(Pages),
    Heap(Arc<Heap>),
}

/// A page that differs from the durable one, as it is live.
type Changed = (usize, Option<Arc<Page>>);

impl Content {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let pages: Pages = bytes
            .chunks(PAGE)
            .map(|chunk| {
                let mut page = ZERO;
                page.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
                keep(&page)
            })
            .collect();
        Self::settled(pages, bytes.len(), Blocks::first(pages_of(bytes.len())))
    }

    /// Content of which live and durable are the same.
    fn settled(pages: Pages, len: usize, blocks: Blocks) -> Self {
        Self {
            live: Live::Pages(pages.clone()),
            len,
            durable: pages,
            durable_len: len,
            durable_blocks: blocks.clone(),
            blocks,
            dropped: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Pages that have blocks.
    pub(super) fn allocated(&self) -> usize {
        self.blocks.count
    }

    pub(super) fn mapped(&self) -> bool {
        matches!(&self.live, Live::Heap(heap) if heap.mapped())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read_at(&mut bytes, 0);
        bytes
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], at: usize) -> usize {
        let count = self.len.saturating_sub(at).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..count) else { return 0 };
        let view = match &self.live {
            Live::Pages(pages) => {
                copy_out(pages, buffer, at);
                return count;
            }
            Live::Heap(heap) => heap.view(),
        };
        buffer.fill(0); // for what a writer is storing at this moment
        view.read(at, buffer);
        count
    }

    /// How many of `len` bytes at `at` can be written when so many pages are left.
    pub(super) fn fitting(&self, at: usize, len: usize, mut available: usize) -> usize {
        let mut fitting = 0;
        while fitting < len {
            let page = (at + fitting) / PAGE;
            if !self.blocks.has(page) {
                let Some(left) = available.checked_sub(1) else { break };
                available = left;
            }
            fitting = ((page + 1) * PAGE - at).min(len);
        }
        fitting
    }

    pub(super) fn write_at(&mut self, bytes: &[u8], at: usize) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = at.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        let heap = self.heap(end)?;
        self.blocks.add(at / PAGE, pages_of(end));
        self.len = self.len.max(end);
        heap.bound(self.len, self.blocks.prefix * PAGE);
        heap.write(at, bytes);
        // Written again, whatever with, a page is dirty again.
        (at / PAGE..pages_of(end)).for_each(|page| drop(self.dropped.remove(&page)));
        Ok(())
    }

    pub(super) fn allocate(&mut self, from: usize, len: usize) -> io::Result<()> {
        if let Live::Heap(heap) = &self.live
            && len > heap.capacity()
        {
            self.heap(len)?;
        }
        self.blocks.add(from / PAGE, pages_of(len));
        self.len = self.len.max(len);
        self.bound();
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: usize) -> io::Result<()> {
        if len > self.len {
            if matches!(self.live, Live::Heap(_)) {
                self.heap(len)?;
            }
        } else {
            // Before the length: it is this that finds out whether someone still reads there.
            if let Live::Heap(heap) = &self.live {
                heap.bound(len, self.blocks.prefix * PAGE);
            }
            match &mut self.live {
                Live::Pages(pages) => cut(pages, len),
                Live::Heap(heap) => heap.write(len, &vec![0; self.len - len]),
            }
            self.blocks.cut(pages_of(len));
            self.dropped.split_off(&(len / PAGE));
        }
        self.len = len;
        self.bound();
        Ok(())
    }

    /// Makes everything durable but for what an earlier, failed sync has dropped.
    pub(super) fn sync(&mut self) {
        let mut dropped = std::mem::take(&mut self.dropped);
        for (index, page) in self.changed() {
            if clean(&dropped, index, page.as_ref()) {
                self.dropped.extend(dropped.remove_entry(&index));
            } else {
                put(&mut self.durable, index, page);
            }
        }
        cut(&mut self.durable, self.len);
        self.durable_len = self.len;
        self.durable_blocks = self.blocks.clone();
    }

    /// Lets what a sync was to write count as clean.
    pub(super) fn fail_sync(&mut self) {
        for (index, page) in self.changed() {
            self.dropped.insert(index, page.unwrap_or_else(|| Arc::new(ZERO)));
        }
    }

    /// Drops clean pages from `from` on: those that a failed sync left then read as the disk has them.
    pub(super) fn forget(&mut self, from: usize) {
        if self.mapped() {
            return;
        }
        let dropped = self.dropped.split_off(&from.div_ceil(PAGE));
        for (index, page) in self.changed() {
            if !clean(&dropped, index, page.as_ref()) {
                continue;
            }
            let durable = self.durable.get(index).cloned().flatten();
            match &mut self.live {
                Live::Heap(heap) => heap.write(index * PAGE, &durable.as_deref().unwrap_or(&ZERO)[..]),
                Live::Pages(pages) => put(pages, index, durable),
            }
        }
    }

    pub(super) fn map(&mut self, len: usize, writable: bool) -> io::Result<Map> {
        // A file that is mapped short may grow, and be mapped longer, while the first map is in use: a heap has the room.
        let heap = self.heap(len.max(self.len))?;
        self.bound();
        Map::of_heap(&heap, len, writable).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// The same, for a disk of its own.
    pub(super) fn copy(&self) -> Self {
        let mut live = self.durable.clone();
        live.truncate(pages_of(self.len));
        self.changed().into_iter().for_each(|(index, page)| put(&mut live, index, page));
        Self {
            live: Live::Pages(live),
            len: self.len,
            blocks: self.blocks.clone(),
            durable: self.durable.clone(),
            durable_len: self.durable_len,
            durable_blocks: self.durable_blocks.clone(),
            dropped: self.dropped.clone(),
        }
    }

    /// What is left of it after a power loss.
    pub(super) fn crash(&self, crash: &Crash, chance: usize, random: &mut Random) -> Self {
        let len = match crash.keep {
            Keep::Nothing => self.durable_len,
            Keep::Everything => self.len,
            Keep::Random => self.crashed_len(crash.sector, random),
        };
        let mut blocks = self.durable_blocks.clone();
        // New blocks come with the length that they were allocated for; those in a hole may come or not.
        if crash.keep == Keep::Everything || (crash.keep == Keep::Random && random.eighths(chance)) {
            blocks.join(&self.blocks, 0);
        } else {
            blocks.join(&self.blocks, pages_of(self.durable_len));
        }
        let mut pages = self.durable.clone();
        for (index, live) in self.changed() {
            let survivor = match crash.keep {
                Keep::Nothing => continue,
                Keep::Everything if clean(&self.dropped, index, live.as_ref()) => continue,
                Keep::Everything => live,
                Keep::Random => {
                    mix(self.durable.get(index).and_then(Option::as_ref), live.as_ref(), crash.sector, || {
                        random.eighths(chance)
                    })
                }
            };
            if !same(survivor.as_ref(), self.durable.get(index).and_then(Option::as_ref)) {
                blocks.add(index, index + 1);
            }
            put(&mut pages, index, survivor);
        }
        cut(&mut pages, len);
        blocks.cut(pages_of(len));
        Self::settled(pages, len, blocks)
    }

    /// A cut is made or not; of a growth any part may have been.
    fn crashed_len(&self, sector: usize, random: &mut Random) -> usize {
        let (old, new) = (self.durable_len, self.len);
        match random.below(4) {
            0 => old,
            1 => new,
            2 if new > old => old + random.below(new - old + 1),
            3 if new > old => (old + random.below(new - old + 1)).next_multiple_of(sector).min(new),
            half => [old, new].into_iter().nth(half - 2).unwrap_or(new),
        }
    }

    /// The pages whose live bytes are not the durable ones.
    fn changed(&self) -> Vec<Changed> {
        let mut changed = Vec::new();
        let view = match &self.live {
            Live::Heap(heap) => Some(heap.view()),
            Live::Pages(_) => None,
        };
        for index in 0..pages_of(self.len) {
            let durable = self.durable.get(index).and_then(Option::as_ref);
            match (&self.live, &view) {
                (Live::Heap(_), Some(view)) => changed.extend(compare(view, index, durable)),
                (Live::Pages(pages), _) => {
                    let live = pages.get(index).and_then(Option::as_ref);
                    changed.extend((!same(live, durable)).then(|| (index, live.cloned())));
                }
                (Live::Heap(_), None) => {}
            }
        }
        changed
    }

    /// The live bytes as memory that can be written and mapped, with room for at least `capacity` bytes.
    fn heap(&mut self, capacity: usize) -> io::Result<Arc<Heap>> {
        let heap = match &self.live {
            Live::Heap(heap) if heap.capacity() >= capacity => return Ok(Arc::clone(heap)),
            Live::Heap(heap) if heap.mapped() => {
                let reason = "a simulated file cannot grow past the longest of its maps and what it was when mapped";
                return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
            }
            Live::Heap(old) => {
                // Without a map there is no writer, so that all of it can be seen.
                let heap = Heap::new(capacity.max(old.capacity() * 2))?;
                heap.write(0, old.view().bytes(0..self.len).unwrap_or_default());
                heap
            }
            Live::Pages(pages) => {
                let heap = Heap::new(capacity.max(self.len))?;
                for (index, page) in pages.iter().enumerate() {
                    if let Some(page) = page {
                        heap.write(index * PAGE, &page[..]);
                    }
                }
                heap
            }
        };
        self.live = Live::Heap(Arc::clone(&heap));
        self.bound();
        Ok(heap)
    }

    fn bound(&self) {
        if let Live::Heap(heap) = &self.live {
            heap.bound(self.len, self.blocks.prefix * PAGE);
        }
    }
}

/// Which pages of a file have blocks.
#[derive(Debug, Clone, Default)]
struct Blocks {
    pages: Vec<bool>,
    count: usize,
    /// How many have, from the first, without a gap.
    prefix: usize,
}

impl Blocks {
    fn first(count: usize) -> Self {
        Self { pages: vec![true; count], count, prefix: count }
    }

    fn has(&self, page: usize) -> bool {
        self.pages.get(page).is_some_and(|has| *has)
    }

    fn add(&mut self, from: usize, to: usize) {
        if self.pages.len() < to {
            self.pages.resize(to, false);
        }
        for has in self.pages.get_mut(from..to).into_iter().flatten() {
            self.count += usize::from(!std::mem::replace(has, true));
        }
        self.measure();
    }

    fn cut(&mut self, to: usize) {
        self.count -= self.pages.get(to..).into_iter().flatten().filter(|has| **has).count();
        self.pages.truncate(to);
        self.prefix = self.prefix.min(to);
    }

    /// Adds those of `other` from page `from` on.
    fn join(&mut self, other: &Self, from: usize) {
        for page in (from..other.pages.len()).filter(|page| other.has(*page)) {
            self.add(page, page + 1);
        }
    }

    fn measure(&mut self) {
        while self.has(self.prefix) {
            self.prefix += 1;
        }
    }
}

fn pages_of(len: usize) -> usize {
    len.div_ceil(PAGE)
}

fn keep(page: &Page) -> Option<Arc<Page>> {
    (*page != ZERO).then(|| Arc::new(*page))
}

fn same(left: Option<&Arc<Page>>, right: Option<&Arc<Page>>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => Arc::ptr_eq(left, right) || left == right,
        (Some(page), None) | (None, Some(page)) => **page == ZERO,
        (None, None) => true,
    }
}

/// Whether a failed sync has left this page clean.
fn clean(dropped: &BTreeMap<usize, Arc<Page>>, index: usize, page: Option<&Arc<Page>>) -> bool {
    dropped.get(&index).is_some_and(|dropped| same(Some(dropped), page))
}

fn put(pages: &mut Pages, index: usize, page: Option<Arc<Page>>) {
    if pages.len() <= index {
        pages.resize(index + 1, None);
    }
    if let Some(place) = pages.get_mut(index) {
        *place = page;
    }
}

/// Leaves `len` bytes; what is left of the last page is zero.
fn cut(pages: &mut Pages, len: usize) {
    pages.truncate(pages_of(len));
    let rest = len % PAGE;
    if let Some(Some(last)) = pages.get_mut(len / PAGE)
        && last.get(rest..) != ZERO.get(rest..)
        && let Some(bytes) = Arc::make_mut(last).get_mut(rest..)
    {
        bytes.fill(0);
    }
}

fn copy_out(pages: &Pages, buffer: &mut [u8], at: usize) {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let page = pages.get((at + done) / PAGE).and_then(Option::as_ref).map_or(&ZERO, |page| &**page);
        let source = page.get((at + done) % PAGE..).unwrap_or_default();
        let count = source.len().min(rest.len());
        rest.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
        done += count;
    }
}

/// The page `index` of a heap, if it is not the durable one. What a writer is storing at this moment is as it was.
fn compare(view: &View<'_>, index: usize, durable: Option<&Arc<Page>>) -> Option<Changed> {
    let before = durable.map_or(&ZERO, |page| &**page);
    let start = index * PAGE;
    let mut page;
    let live = if let Some(live) = view.bytes(start..start + PAGE) {
        live
    } else {
        page = *before;
        view.read(start, &mut page);
        &page[..]
    };
    if live == before {
        return None;
    }
    let live: &Page = live.try_into().ok()?; // it is a page long
    Some((index, keep(live)))
}

/// The old page with some sectors of the new one.
fn mix(
    old: Option<&Arc<Page>>,
    new: Option<&Arc<Page>>,
    sector: usize,
    mut keeps: impl FnMut() -> bool,
) -> Option<Arc<Page>> {
    let mut page = *old.map_or(&ZERO, |page| &**page);
    let new = new.map_or(&ZERO, |page| &**page);
    for (to, from) in page.chunks_mut(sector).zip(new.chunks(sector)) {
        if to != from && keeps() {
            to.copy_from_slice(from);
        }
    }
    keep(&page)
}
