//! Mapped files. The one file with `unsafe` code: everything that could go wrong with a mapping is kept here.
//!
//! The rule that makes it sound: a mapping has a *filled* end, which only grows. Bytes below it are never written again,
//! by anyone, so that references to them may be handed out and shared. Bytes at or above it belong to the one
//! [`MapWriter`] of the mapping, and only as far as blocks are allocated for them. No reference ever covers bytes that
//! someone else may still write.
//!
//! What remains outside our power: another process that truncates or overwrites the file, and a bad sector under a
//! page that has to be read again. Both end the process (SIGBUS), or show other bytes, which the checksums find.
#![expect(unsafe_code, reason = "a shared mapping is raw memory; this file wraps it so that no other needs to")]

use std::alloc::Layout;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use memmap2::MmapRaw;

/// A file in memory, shared with the page cache, or with a simulated disk.
pub struct Map {
    memory: Memory,
    /// Bytes below are complete and never change again.
    filled: AtomicUsize,
    writable: bool,
    /// Whether a writer was handed out.
    taken: AtomicBool,
}

enum Memory {
    Mapped(MmapRaw),
    Heap { region: Arc<Region>, len: usize },
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("len", &self.len()).field("filled", &self.filled()).finish_non_exhaustive()
    }
}

impl Map {
    pub(super) fn of_file(mapping: MmapRaw, writable: bool) -> Self {
        Self::over(Memory::Mapped(mapping), writable)
    }

    /// The first `len` bytes of a region on the heap; `None` when it has fewer.
    pub(super) fn of_region(region: Arc<Region>, len: usize, writable: bool) -> Option<Self> {
        (len <= region.len()).then(|| Self::over(Memory::Heap { region, len }, writable))
    }

    fn over(memory: Memory, writable: bool) -> Self {
        Self { memory, filled: AtomicUsize::new(0), writable, taken: AtomicBool::new(false) }
    }

    /// Length of the mapping in bytes; the file may be shorter.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.memory {
            Memory::Mapped(mapping) => mapping.len(),
            Memory::Heap { len, .. } => *len,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The end of what is complete.
    #[inline]
    pub fn filled(&self) -> usize {
        self.filled.load(Ordering::Acquire)
    }

    /// Bytes that are complete; `None` when the range reaches past them.
    #[inline]
    pub fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        let len = range.end.checked_sub(range.start)?;
        if range.end > self.filled() {
            return None;
        }
        // SAFETY: `filled` is at most the length of the mapping (`fill` and `publish` see to it), so that the range lies
        // within it. Bytes below `filled` are never written again through this mapping: a writer only hands out slots
        // at or above it, and it never shrinks. The acquiring load above pairs with the releasing store that followed
        // the last write to them. The memory lives as long as `self`. Bytes below `filled` lie within the file, whose
        // blocks were allocated before anything was stored there.
        Some(unsafe { std::slice::from_raw_parts(self.pointer().add(range.start), len) })
    }

    /// Says that the bytes below `to` are in the file and will never change. It never moves back.
    pub(crate) fn fill(&self, to: usize) {
        self.filled.fetch_max(to.min(self.len()), Ordering::AcqRel);
    }

    /// The writer of everything behind `filled`, as far as blocks are allocated. `None` when the mapping cannot be
    /// written, or has a writer.
    pub(crate) fn writer(self: &Arc<Self>, filled: usize, allocated: usize) -> Option<MapWriter> {
        if !self.writable || filled > allocated || allocated > self.len() || filled < self.filled() {
            return None;
        }
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        self.fill(filled);
        Some(MapWriter { map: Arc::clone(self), allocated })
    }

    /// Asks for large pages in the page cache, as far as the file reaches: a third of the page faults' cost when frames
    /// are stored one after the other. Only where frames are not synced one by one, since a sync writes a dirty page
    /// whole. Advice, which a kernel may not know.
    pub(crate) fn prefer_large_pages(&self) {
        #[cfg(target_os = "linux")]
        if let Memory::Mapped(mapping) = &self.memory {
            let _ = mapping.advise(memmap2::Advice::HugePage);
        }
    }

    #[inline]
    fn pointer(&self) -> *mut u8 {
        match &self.memory {
            Memory::Mapped(mapping) => mapping.as_mut_ptr(),
            Memory::Heap { region, .. } => region.start.as_ptr(),
        }
    }
}

/// The only one who writes to a mapping.
#[derive(Debug)]
pub(crate) struct MapWriter {
    map: Arc<Map>,
    allocated: usize,
}

impl MapWriter {
    /// Space to write into; `None` unless it lies between the filled end and the allocated one.
    #[inline]
    pub(crate) fn slot(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        let end = at.checked_add(len)?;
        if at < self.map.filled.load(Ordering::Relaxed) || end > self.allocated {
            return None;
        }
        // SAFETY: `allocated` is at most the mapping's length, so that the slot lies within it, and blocks are there for
        // all of it. No one else refers to these bytes: `Map::bytes` stops at `filled`, which this slot is not below
        // and which only this writer moves (`fill` on a mapping with a writer is only called by its owner before the
        // writer exists); there is one writer a mapping; and the slot borrows it exclusively. Whatever the bytes are,
        // they are initialised: the file system reads unwritten blocks as zeros.
        Some(unsafe { std::slice::from_raw_parts_mut(self.map.pointer().add(at), len) })
    }

    /// Stores the length of a frame, as the last of its stores. `at` is a multiple of four, in the current slot.
    #[inline]
    pub(crate) fn store_length(&mut self, at: usize, length: u32) {
        let inside = at >= self.map.filled.load(Ordering::Relaxed) && at + 4 <= self.allocated;
        if !inside || !at.is_multiple_of(4) {
            return;
        }
        // SAFETY: the four bytes lie in what this writer alone may touch, as for `slot`; mappings begin at a page and
        // regions are aligned like one, so that a multiple of four is aligned for an `AtomicU32`.
        #[expect(clippy::cast_ptr_alignment, reason = "checked above: pages are aligned, and so is `at`")]
        let field = unsafe { AtomicU32::from_ptr(self.map.pointer().add(at).cast::<u32>()) };
        field.store(length.to_le(), Ordering::Release);
    }

    /// Lets everyone read what lies below `end`, and gives up writing there.
    #[inline]
    pub(crate) fn publish(&mut self, end: usize) {
        debug_assert!(end <= self.allocated, "published {end} of {} allocated bytes", self.allocated);
        // There is one writer, so that a plain store cannot take back what another has published.
        if end > self.map.filled.load(Ordering::Relaxed) && end <= self.allocated {
            self.map.filled.store(end, Ordering::Release);
        }
    }

    /// The caller has allocated blocks up to there.
    pub(crate) fn grow(&mut self, allocated: usize) {
        self.allocated = allocated.min(self.map.len()).max(self.allocated);
    }
}

/// Memory of a simulated file, aligned like a page, zero at first.
pub(super) struct Region {
    start: NonNull<u8>,
    layout: Layout,
}

impl Region {
    /// A region of at least `len` bytes.
    pub(super) fn new(len: usize) -> Self {
        let size = len.max(1).next_multiple_of(4096);
        let Ok(layout) = Layout::from_size_align(size, 4096) else {
            // Larger than the address space: the allocator's own answer to that.
            std::alloc::handle_alloc_error(Layout::new::<u8>())
        };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Self { start, layout },
            None => std::alloc::handle_alloc_error(layout),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.layout.size()
    }

    /// Copies bytes out; what lies past the end is left alone.
    pub(super) fn read(&self, at: usize, out: &mut [u8]) {
        let len = out.len().min(self.len().saturating_sub(at));
        // SAFETY: the range lies within the region, `out` is memory of the caller's. A simulated disk reads a file while
        // nobody stores into it: its operations and the appender's alternate on one thread, or the appender's lock is
        // held by who asks for the sync. Where a test runs threads all the same, a torn read is what a disk may see.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr().add(at), out.as_mut_ptr(), len) }
    }

    /// Copies bytes in; what does not fit is left out.
    pub(super) fn write(&self, at: usize, bytes: &[u8]) {
        let len = bytes.len().min(self.len().saturating_sub(at));
        // SAFETY: as for `read`. Written are bytes that `pwrite` would write: those above every mapping's filled end,
        // or those below it with what they are already.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(at), len) }
    }
}

// SAFETY: a region is plain memory. It is read and written through `read` and `write`, which take every word atomically,
// and through a `Map`, which keeps the rule above; nothing in it belongs to a thread.
unsafe impl Send for Region {}
// SAFETY: as for `Send`.
unsafe impl Sync for Region {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed only here.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}
