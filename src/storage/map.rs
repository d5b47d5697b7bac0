//! Mapped memory, the one place with `unsafe`.
//!
//! A segment is mapped once, whole, over raw memory: a shared mapping of its file, or, on the simulated disk, a [`Heap`]
//! that stands for the page cache. Three marks divide it: bytes below `filled` never change again and are handed out as
//! plain slices; bytes from there to `allocated` belong to the one [`MapWriter`]; bytes above are not touched at all,
//! since there may be no file, or no block, behind them. So no reference ever covers a byte that someone else writes.
//!
//! What this cannot see, and what the user of this crate is told: another process that writes or truncates the file.

#![expect(unsafe_code, reason = "mapped memory has no owner that the compiler could check")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::MmapRaw;

use crate::sync::atomic::AtomicUsize;

/// A mapped file: readable up to where it has been filled.
pub struct Map {
    start: NonNull<u8>,
    len: usize,
    writable: bool,
    filled: AtomicUsize,
    /// Whether there is a writer.
    taken: AtomicBool,
    region: Region,
}

/// What keeps the memory of a map alive.
enum Region {
    File(MmapRaw),
    Heap(Arc<Heap>),
}

// SAFETY: a `Map` owns its region, or shares in it, so the memory lives as long as the `Map`, in any thread; a mapping
// and a heap allocation belong to the process and not to a thread.
unsafe impl Send for Map {}
// SAFETY: through `&Map` bytes are only read, and only those below `filled`. These were written before the store
// (`Release`) that moved `filled` over them, which the reader's load (`Acquire`) has seen, and are never written again.
unsafe impl Sync for Map {}

impl Map {
    /// A map over a mapping of a file.
    pub(super) fn of_file(region: MmapRaw, len: usize, writable: bool) -> io::Result<Self> {
        let start = NonNull::new(region.as_mut_ptr()).filter(|_| region.len() >= len);
        let start = start.ok_or_else(|| io::Error::other("the kernel mapped less than was asked for"))?;
        Ok(Self::over(Region::File(region), start, len, writable))
    }

    /// A map over memory that stands for a file; `None` where the memory is too short.
    pub(super) fn of_heap(heap: &Arc<Heap>, len: usize, writable: bool) -> Option<Self> {
        if len > heap.capacity() {
            return None;
        }
        heap.gate().maps += 1;
        Some(Self::over(Region::Heap(Arc::clone(heap)), heap.memory.start, len, writable))
    }

    fn over(region: Region, start: NonNull<u8>, len: usize, writable: bool) -> Self {
        Self { start, len, writable, filled: AtomicUsize::new(0), taken: AtomicBool::new(false), region }
    }

    /// How many bytes, from the first, can be read, and never change again.
    #[inline]
    pub fn filled(&self) -> usize {
        self.filled.load(Ordering::Acquire)
    }

    /// The bytes in `range`; `None` unless all of them are filled.
    #[inline]
    pub fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.filled() {
            return None;
        }
        // SAFETY: start <= end <= filled <= len, so all of it is mapped, and `fill` and `publish` let `filled` pass only
        // over bytes that stand in the file (or the heap). Nobody writes below `filled` any more: a `MapWriter` gives
        // out nothing below it, and who called `fill` has promised it for other ways to the file. The slice borrows
        // `self`, which keeps the region.
        Some(unsafe { slice::from_raw_parts(self.start.as_ptr().add(range.start), range.end - range.start) })
    }

    /// Lets readers at the bytes below `to`: the caller knows that they stand in the file, and that nobody writes or
    /// cuts them while this map exists. Never takes anything back.
    pub(crate) fn fill(&self, to: usize) {
        assert!(to <= self.len, "cannot fill {to} of {} bytes", self.len);
        if let Region::Heap(heap) = &self.region {
            heap.hand_out(to);
        }
        self.filled.fetch_max(to, Ordering::AcqRel);
    }

    /// The writer of this map, which begins behind `filled` and may go up to `allocated`; bytes below `filled` are
    /// readable at once. `None` while there is one, for a map that is read-only, or where the numbers do not fit.
    pub(crate) fn writer(self: &Arc<Self>, filled: usize, allocated: usize) -> Option<MapWriter> {
        if !self.writable || filled > allocated || allocated > self.len || filled < self.filled() {
            return None;
        }
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        if let Region::Heap(heap) = &self.region
            && !heap.take_writer()
        {
            self.taken.store(false, Ordering::Release);
            return None;
        }
        let writer = MapWriter { map: Arc::clone(self), allocated };
        self.fill(filled);
        Some(writer)
    }

    /// Asks for large pages in the page cache, as far as the file reaches: a third of the page faults' cost when frames
    /// are stored one after the other. Only where frames are not synced one by one, since a sync writes a dirty page
    /// whole. Advice, which a kernel may not know.
    pub(crate) fn prefer_large_pages(&self) {
        #[cfg(target_os = "linux")]
        if let Region::File(mapping) = &self.region {
            let _ = mapping.advise(memmap2::Advice::HugePage);
        }
    }

    /// Asks for small pages in the page cache behind `from`: the kernel is not to bring in what surrounds a page that is
    /// stored into for the first time, which it does in pieces that it later writes whole. Only advice.
    pub(crate) fn prefer_small_pages(&self, from: usize) {
        #[cfg(target_os = "linux")]
        if let Region::File(mapping) = &self.region {
            let start = from / Heap::PAGE * Heap::PAGE;
            let _ = mapping.advise_range(memmap2::Advice::Random, start, self.len.saturating_sub(start));
        }
    }

    /// `msync`: makes the bytes from the page of `from` on and the file's length durable; the kernel does the same as for
    /// `fdatasync`. A mapping keeps the open file that it was made of, also when its descriptor is closed, and with it
    /// the mark of the write-back errors that were reported: what failed since that opening is an error here.
    pub(super) fn sync(&self, from: usize) -> io::Result<()> {
        let Region::File(mapping) = &self.region else { return Err(io::ErrorKind::Unsupported.into()) };
        let start = (from / Heap::PAGE * Heap::PAGE).min(self.len);
        loop {
            match mapping.flush_range(start, self.len - start) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                flushed => return flushed,
            }
        }
    }

    /// Has the pages in `range` ready to be stored into, so that the appender meets no page fault there. Changes no
    /// byte, and waits for the kernel: for a background thread. The pages count as dirty. Advice: where a kernel does
    /// not know it (Linux before 5.14), or the file has been cut meanwhile, the first store makes its page ready.
    pub(crate) fn populate(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        if let Region::File(mapping) = &self.region
            && range.start < range.end
            && range.end <= self.len
        {
            let start = range.start / Heap::PAGE * Heap::PAGE;
            let _ = mapping.advise_range(memmap2::Advice::PopulateWrite, start, range.end - start);
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if let Region::Heap(heap) = &self.region {
            let mut gate = heap.gate();
            gate.maps -= 1;
            if gate.maps == 0 {
                gate.readable = 0;
            }
        }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("len", &self.len).field("filled", &self.filled()).finish_non_exhaustive()
    }
}

/// A share in a [`Map`], which keeps it alive: an `Arc` whose references are taken many at a time, since counting atomically
/// is a third of what it takes to hand out a record.
pub(crate) struct Share(Counted);

/// Hands out shares.
pub(crate) struct Shares {
    lease: Counted,
    /// Those counted and not handed out; at least one, for this itself.
    left: usize,
}

struct Lease {
    map: Arc<Map>,
    /// How many shares there are, those not handed out included.
    count: std::sync::atomic::AtomicUsize,
}

/// A lease in which whoever has this has a share.
#[derive(Clone, Copy)]
struct Counted(NonNull<Lease>);

/// So many shares are taken at a time.
const STOCK: usize = 1 << 10;

// SAFETY: it gives out `&Map`, in any thread, and `Map` is `Sync`; whoever gives the last share back drops the `Arc<Map>`,
// which is `Send`.
unsafe impl Send for Counted {}
// SAFETY: as above; through `&Counted` only the count changes, atomically.
unsafe impl Sync for Counted {}

impl Counted {
    #[inline]
    fn lease(&self) -> &Lease {
        // SAFETY: made by `Box::leak`, and not freed before the share that is behind this has been given back.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn add(self, shares: usize) {
        // Nothing need be ordered: whoever has a share can see it already.
        let before = self.lease().count.fetch_add(shares, Ordering::Relaxed);
        // Shares that are forgotten stay counted. The count must not wrap, which would free a lease in use.
        assert!(before < usize::MAX / 2, "too many shares in a map");
    }

    /// The end of these shares, which their owner does not use again.
    #[inline]
    fn give_back(self, shares: usize) {
        if self.lease().count.fetch_sub(shares, Ordering::Release) == shares {
            // What others did with the map comes before its end: they gave their shares back by a `Release`.
            fence(Ordering::Acquire);
            // SAFETY: made by `Box::leak`, and freed only here, by the one who gave the last share back.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl Shares {
    pub(crate) fn of(map: &Arc<Map>) -> Self {
        let lease = Box::new(Lease { map: Arc::clone(map), count: STOCK.into() });
        Self { lease: Counted(NonNull::from(Box::leak(lease))), left: STOCK }
    }

    /// One more share.
    #[inline]
    pub(crate) fn take(&mut self) -> Share {
        if self.left == 1 {
            self.lease.add(STOCK);
            self.left += STOCK;
        }
        self.left -= 1;
        Share(self.lease)
    }
}

impl Deref for Share {
    type Target = Map;

    #[inline]
    fn deref(&self) -> &Map {
        &self.0.lease().map
    }
}

impl Clone for Share {
    fn clone(&self) -> Self {
        self.0.add(1);
        Self(self.0)
    }
}

impl Drop for Share {
    #[inline]
    fn drop(&mut self) {
        self.0.give_back(1);
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        self.lease.give_back(self.left);
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares").field("left", &self.left).finish_non_exhaustive()
    }
}

/// The one writer of a [`Map`]: fills it from the front.
pub(crate) struct MapWriter {
    map: Arc<Map>,
    allocated: usize,
}

impl MapWriter {
    /// The bytes to write `len` bytes at `at` into, which nobody else sees before they are published. `None` unless
    /// they are behind what is filled and allocated. On the simulated disk they count as written at the next call of
    /// this writer.
    #[inline]
    pub(crate) fn slot(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        let end = at.checked_add(len)?;
        if at < self.map.filled() || end > self.allocated {
            return None;
        }
        if let Region::Heap(heap) = &self.map.region {
            heap.open_slot(at..end);
        }
        // SAFETY: filled <= at, end <= allocated <= len, so the bytes are mapped and, as whoever made or grew this
        // writer said, backed by blocks. No other reference covers them: `Map::bytes` ends at `filled`, which only this
        // writer and `fill` move; there is no second writer of the map; and the slice borrows this one mutably. On the
        // simulated disk the heap keeps everyone out of the open slot.
        Some(unsafe { slice::from_raw_parts_mut(self.map.start.as_ptr().add(at), len) })
    }

    /// Stores the length that makes a frame one, behind everything written to its slot before. `at` is a multiple of
    /// four, behind what is filled, and allocated.
    #[inline]
    pub(crate) fn store_length(&mut self, at: usize, length: u32) {
        let fits = at.checked_add(4).is_some_and(|end| end <= self.allocated);
        assert!(fits && at.is_multiple_of(4) && at >= self.map.filled(), "no place for a length at {at}");
        let guard = match &self.map.region {
            Region::File(_) => None,
            Region::Heap(heap) => Some(heap.close_slot()),
        };
        // SAFETY: filled <= at and at + 4 <= allocated, so the bytes are mapped, backed, and covered by no reference (as
        // argued in `slot`, and `&mut self` has ended the last slot). A region begins at a page, so that they are
        // aligned. The reference to the atomic ends with this statement.
        let word = unsafe {
            #[expect(clippy::cast_ptr_alignment, reason = "a page's address plus a multiple of four")]
            AtomicU32::from_ptr(self.map.start.as_ptr().add(at).cast::<u32>())
        };
        word.store(length.to_le(), Ordering::Release);
        drop(guard);
    }

    /// Lets readers at everything below `end`, which from then on never changes.
    #[inline]
    pub(crate) fn publish(&mut self, end: usize) {
        assert!(end <= self.allocated, "cannot publish {end} of {} bytes", self.allocated);
        if let Region::Heap(heap) = &self.map.region {
            drop(heap.close_slot());
            heap.hand_out(end);
        }
        // There is one writer, so that a plain store takes nothing back.
        if end > self.map.filled.load(Ordering::Relaxed) {
            self.map.filled.store(end, Ordering::Release);
        }
    }

    /// Takes over blocks that the caller has just allocated, up to `allocated`.
    pub(crate) fn grow(&mut self, allocated: usize) {
        assert!(allocated <= self.map.len, "cannot grow to {allocated} of {} bytes", self.map.len);
        self.allocated = self.allocated.max(allocated);
        if let Region::Heap(heap) = &self.map.region {
            drop(heap.close_slot());
        }
    }
}

impl Drop for MapWriter {
    fn drop(&mut self) {
        if let Region::Heap(heap) = &self.map.region {
            heap.close_slot().writer = false;
        }
        self.map.taken.store(false, Ordering::Release);
    }
}

impl fmt::Debug for MapWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapWriter").field("map", &self.map).field("allocated", &self.allocated).finish()
    }
}

/// Memory that stands for a file's page cache on the simulated disk, shared by the file and its maps, so that a store
/// through a map is in the file at once.
///
/// Where a real mapping would be torn, lost or killed by a signal, this one panics: it is there to find mistakes.
pub(super) struct Heap {
    memory: Memory,
    gate: Mutex<Gate>,
}

/// Memory that begins at a page; whoever holds this has it for himself.
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    /// What was allocated: more than `capacity`, so that `start` can be at a page.
    base: NonNull<u8>,
    layout: Layout,
}

/// Memory that is zero again, for the next file: to ask the system for it, and to touch it first, costs more than all
/// else that a simulated file does.
static SPARE: Mutex<Vec<Memory>> = Mutex::new(Vec::new());

/// Who may touch which bytes of a [`Heap`]. Whoever holds it, and keeps off `slot`, has the bytes for himself, but for
/// readers of those below `readable`.
#[derive(Debug, Default)]
struct Gate {
    /// How long the file is, and how far its blocks reach without a gap.
    len: usize,
    allocated: usize,
    /// What maps have handed out; never written again while there are maps.
    readable: usize,
    /// How far bytes may have been written.
    touched: usize,
    maps: usize,
    writer: bool,
    /// What the writer is filling at this moment, by a reference that nobody else knows of.
    slot: Range<usize>,
}

// SAFETY: whoever holds it has the memory for himself, and it belongs to no thread.
unsafe impl Send for Memory {}
// SAFETY: through `&Memory` nothing is touched but by a `Heap`: with the gate held, outside the open slot, and written
// only where no map has handed out the bytes.
unsafe impl Sync for Memory {}

impl Heap {
    pub(super) const PAGE: usize = 4096;

    /// What every memory has at least: more than the segments of a test. What is never touched costs nothing.
    const ROOM: usize = 256 << 20;

    /// So much of a memory may have been used for it to be cleared and kept, and so many are kept.
    const SPARE_TOUCHED: usize = 4 << 20;
    const MOST_SPARE: usize = 512;

    /// Zeroed memory of at least this capacity.
    pub(super) fn new(capacity: usize) -> io::Result<Arc<Self>> {
        let spare = (capacity <= Self::ROOM).then(|| Self::spare().pop()).flatten();
        let memory = match spare {
            Some(memory) => memory,
            None => Memory::new(capacity.max(Self::ROOM))?,
        };
        Ok(Arc::new(Self { memory, gate: Mutex::default() }))
    }

    fn spare() -> MutexGuard<'static, Vec<Memory>> {
        SPARE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// Whether a map of it exists.
    pub(super) fn mapped(&self) -> bool {
        self.gate().maps > 0
    }

    /// Says how long the file is, and how far its blocks reach.
    pub(super) fn bound(&self, len: usize, allocated: usize) {
        let mut gate = self.gate();
        assert!(len >= gate.readable, "a file is cut to {len} bytes of which {} have been handed out", gate.readable);
        gate.len = len;
        gate.allocated = allocated;
        gate.touched = gate.touched.max(len);
    }

    /// Writes as `write(2)` does.
    pub(super) fn write(&self, at: usize, bytes: &[u8]) {
        let mut gate = self.gate();
        let end = at.checked_add(bytes.len()).filter(|end| *end <= self.memory.capacity);
        let range = at..end.unwrap_or_else(|| panic!("no room for {} bytes at {at}", bytes.len()));
        gate.touched = gate.touched.max(range.end);
        assert!(!overlap(&gate.slot, &range), "{range:?} is written while a map's writer fills {:?}", gate.slot);
        // What was handed out must not be touched, though writing the bytes that are there is no change.
        let kept = gate.readable.clamp(range.start, range.end) - range.start;
        let (old, new) = bytes.split_at(kept);
        let view = View { heap: self, gate };
        assert!(view.bytes(at..at + kept) == Some(old), "bytes at {at} are changed after they were handed out");
        // SAFETY: the range is inside the capacity. The gate is held and the range touches no open slot, so no writer
        // has a reference to it, nobody else reads or writes it, and no map has handed out what lies behind `kept`.
        // The source is a slice, which cannot overlap memory that no reference covers.
        unsafe { self.memory.start.as_ptr().add(at + kept).copy_from_nonoverlapping(new.as_ptr(), new.len()) };
    }

    /// Looks at it as it is now. Stores through maps wait meanwhile.
    pub(super) fn view(&self) -> View<'_> {
        View { heap: self, gate: self.gate() }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_writer(&self) -> bool {
        !std::mem::replace(&mut self.gate().writer, true)
    }

    fn open_slot(&self, range: Range<usize>) {
        let mut gate = self.gate();
        assert!(range.end <= gate.len, "SIGBUS: {range:?} is mapped, but the file has only {} bytes", gate.len);
        assert!(range.end <= gate.allocated, "SIGBUS: {range:?} has blocks only up to {}", gate.allocated);
        assert!(range.start >= gate.readable, "{range:?} is filled again after {} was handed out", gate.readable);
        gate.slot = range;
    }

    fn close_slot(&self) -> MutexGuard<'_, Gate> {
        let mut gate = self.gate();
        gate.slot = 0..0;
        gate
    }

    fn hand_out(&self, to: usize) {
        let mut gate = self.gate();
        assert!(to <= gate.len, "SIGBUS: {to} bytes are read of a file of {}", gate.len);
        assert!(!overlap(&gate.slot, &(0..to)), "bytes below {to} are handed out while {:?} is filled", gate.slot);
        gate.readable = gate.readable.max(to);
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let touched = self.gate().touched;
        let Memory { start, capacity, base, layout } = self.memory;
        let mut spare = Self::spare();
        if capacity == Self::ROOM && touched <= Self::SPARE_TOUCHED && spare.len() < Self::MOST_SPARE {
            // SAFETY: the bytes are inside the capacity, and this is the last owner: maps hold an `Arc` of it.
            unsafe { start.as_ptr().write_bytes(0, touched) };
            spare.push(Memory { start, capacity, base, layout });
        } else {
            // SAFETY: allocated in `Memory::new` with this layout, and given to nobody else; maps hold an `Arc` of this.
            unsafe { dealloc(base.as_ptr(), layout) };
        }
    }
}

impl Memory {
    /// Zeroed memory, lazily: `calloc` clears nothing that the system gives out cleared, but only for the alignment it
    /// has itself, so the page boundary is sought inside a larger piece.
    fn new(capacity: usize) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let capacity = capacity.checked_next_multiple_of(Heap::PAGE).ok_or_else(too_large)?;
        let size = capacity.checked_add(Heap::PAGE).ok_or_else(too_large)?;
        let layout = Layout::from_size_align(size, 16).map_err(|_| too_large())?;
        // SAFETY: the size is not zero, since a page was added.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(too_large)?;
        let skip = base.as_ptr().align_offset(Heap::PAGE);
        assert!(skip < Heap::PAGE, "there is a page boundary in any page of memory");
        // SAFETY: skip < PAGE, and capacity + PAGE bytes were allocated, so it stays inside and is not null.
        let start = unsafe { base.add(skip) };
        Ok(Self { start, capacity, base, layout })
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("capacity", &self.memory.capacity)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

fn overlap(left: &Range<usize>, right: &Range<usize>) -> bool {
    left.start.max(right.start) < left.end.min(right.end)
}

/// A [`Heap`] at one moment.
pub(super) struct View<'a> {
    heap: &'a Heap,
    gate: MutexGuard<'a, Gate>,
}

impl View<'_> {
    /// The bytes in `range`; `None` where a writer is filling some of them, or past the memory's end.
    pub(super) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        let inside = range.start <= range.end && range.end <= self.heap.capacity();
        if !inside || overlap(&self.gate.slot, &range) {
            return None;
        }
        // SAFETY: inside the capacity, and initialised, since it was allocated zeroed. While the gate is held, as it is
        // for as long as the slice lives, nobody writes outside the open slot, which this does not touch.
        Some(unsafe {
            slice::from_raw_parts(self.heap.memory.start.as_ptr().add(range.start), range.end - range.start)
        })
    }

    /// Copies what stands at `at` into `buffer`, but for bytes that a writer is filling, which are left as they are.
    pub(super) fn read(&self, at: usize, buffer: &mut [u8]) {
        let end = at + buffer.len();
        let (from, to) = (self.gate.slot.start.clamp(at, end), self.gate.slot.end.clamp(at, end));
        for piece in [at..from, to..end] {
            let target = buffer.get_mut(piece.start - at..piece.end.max(piece.start) - at);
            if let (Some(target), Some(bytes)) = (target, self.bytes(piece)) {
                target.copy_from_slice(bytes);
            }
        }
    }
}
