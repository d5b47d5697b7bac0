//! One segment: a file of frames, its sparse index, and what readers and the appender share of it.

mod entry;
mod frames;
mod index;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

pub use entry::{Entry, Headers};
pub(crate) use frames::{Frame, FrameReader, find_frame, frame_at};
pub(crate) use index::Index;
pub(crate) use writer::{Placed, Rolled, Writer, WriterShape};

use crate::error::At;
use crate::format::{HeaderFault, Ident, SealedSegment, Seed, SegmentHeader};
use crate::storage::{Map, Mode, Storage, replace};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::types::{Millis, Pos};
use crate::{Error, RecoveryMode, Result};

/// Where the first frame begins.
pub(crate) const FIRST_FRAME: Pos = Pos(64);

const _: () = assert!(FIRST_FRAME.index() == SegmentHeader::LEN);

/// What is known of a segment, shared by the appender and the readers.
///
/// The positions only grow. The appender stores them under its lock; a reader that loads `readable` sees every byte
/// below it (release and acquire).
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) ident: Ident,
    pub(crate) base: u64,
    pub(crate) generation: u32,
    pub(crate) created: Millis,
    pub(crate) path: PathBuf,
    pub(crate) seed: Seed,
    /// Frames below are readable.
    readable: AtomicU32,
    /// Frames below are known to be durable, and so is every earlier segment; 0 when not even those are.
    durable: AtomicU32,
    /// Where the last frame ends, once nothing more is appended; 0 before.
    last: AtomicU32,
    /// The offset that follows the last frame.
    end: AtomicU64,
    /// Records in it.
    records: AtomicU64,
    /// Newest timestamp in it.
    newest: AtomicU64,
    /// What readers hold now. Protects only the mapping of this file.
    view: Mutex<Weak<View>>,
}

/// A segment mapped for reading.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) map: Arc<Map>,
    pub(crate) index: Arc<Index>,
}

impl View {
    /// Its bytes up to `limit`, or as far as the mapping goes.
    #[inline]
    pub(crate) fn bytes(&self, limit: Pos) -> &[u8] {
        self.map.bytes(0..limit.index().min(self.map.filled())).unwrap_or_default()
    }
}

/// A view kept for the next reader.
#[derive(Debug)]
pub(crate) struct Recent {
    segment: Weak<Segment>,
    view: Arc<View>,
}

impl Recent {
    pub(crate) fn is_for(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.view, &other.view)
    }

    pub(crate) fn is_of(&self, segment: &Segment) -> bool {
        std::ptr::eq(self.segment.as_ptr(), segment)
    }
}

/// The name of a segment's file: its first offset, and how often compaction has rewritten it.
pub(crate) fn segment_name(base: u64, generation: u32) -> String {
    match generation {
        0 => format!("{base:020}.log"),
        generation => format!("{base:020}.{generation}.log"),
    }
}

/// The base and generation in the name of a segment's file, if it is one.
pub(crate) fn parse_segment_name(name: &str) -> Option<(u64, u32)> {
    let stem = name.strip_suffix(".log")?;
    let (base, generation) = match stem.split_once('.') {
        Some((base, generation)) => (base, generation.parse().ok()?),
        None => (stem, 0),
    };
    let base = base.parse().ok()?;
    (segment_name(base, generation) == name).then_some((base, generation))
}

/// The name of the index beside a segment.
pub(crate) fn index_path(segment: &Path) -> PathBuf {
    segment.with_extension("index")
}

/// Whether it is the name of a segment's index.
pub(crate) fn is_index_name(name: &str) -> bool {
    name.strip_suffix("index").is_some_and(|stem| parse_segment_name(&format!("{stem}log")).is_some())
}

impl Segment {
    /// A segment of which nothing is readable yet.
    pub(crate) fn new(dir: &Path, ident: Ident, base: u64, generation: u32, created: Millis) -> Self {
        Self {
            ident,
            base,
            generation,
            created,
            path: dir.join(segment_name(base, generation)),
            seed: Seed::new(&ident, base),
            readable: AtomicU32::new(0),
            durable: AtomicU32::new(0),
            last: AtomicU32::new(0),
            end: AtomicU64::new(base),
            records: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            view: Mutex::default(),
        }
    }

    /// A segment that the manifest lists as sealed.
    pub(crate) fn sealed(dir: &Path, ident: Ident, entry: &SealedSegment) -> Self {
        let segment = Self::new(dir, ident, entry.base, entry.generation, entry.created);
        segment.set_extent(&Extent {
            pos: Pos(entry.len),
            end: entry.end,
            records: entry.records,
            newest: entry.newest,
        });
        segment.set_durable(Pos(entry.len));
        segment.set_readable(Pos(entry.len));
        segment.set_last(Pos(entry.len));
        segment
    }

    pub(crate) fn readable(&self) -> Pos {
        Pos(self.readable.load(Ordering::Acquire))
    }

    pub(crate) fn set_readable(&self, pos: Pos) {
        self.readable.store(pos.0, Ordering::Release);
    }

    pub(crate) fn durable(&self) -> Pos {
        Pos(self.durable.load(Ordering::Relaxed))
    }

    pub(crate) fn set_durable(&self, pos: Pos) {
        self.durable.store(pos.0, Ordering::Relaxed);
    }

    /// Where its last frame ends, once it is full.
    pub(crate) fn last(&self) -> Option<Pos> {
        Some(Pos(self.last.load(Ordering::Acquire))).filter(|last| last.0 > 0)
    }

    pub(crate) fn set_last(&self, pos: Pos) {
        self.last.store(pos.0, Ordering::Release);
    }

    pub(crate) fn set_extent(&self, extent: &Extent) {
        self.end.store(extent.end, Ordering::Relaxed);
        self.records.store(extent.records, Ordering::Relaxed);
        self.newest.store(extent.newest.0, Ordering::Relaxed);
    }

    /// The offset that follows its last frame; final once it is full.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub(crate) fn newest(&self) -> Millis {
        Millis(self.newest.load(Ordering::Relaxed))
    }

    /// How the manifest lists it, once it is full.
    pub(crate) fn entry(&self, last: Pos) -> SealedSegment {
        SealedSegment {
            base: self.base,
            end: self.end(),
            len: last.0,
            records: self.records(),
            newest: self.newest(),
            created: self.created,
            generation: self.generation,
        }
    }

    /// Gives readers the mapping that the appender writes through.
    pub(crate) fn show(&self, view: &Arc<View>) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(view);
    }

    /// The segment mapped for reading, up to what is readable now.
    ///
    /// The mapping is made on demand, and `keep` is told of a new one, which goes when no one holds it any more.
    pub(crate) fn view(
        self: &Arc<Self>,
        storage: &dyn Storage,
        mode: RecoveryMode,
        keep: impl FnOnce(Recent),
    ) -> Result<Arc<View>> {
        let mut slot = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let readable = self.readable();
        if let Some(view) = slot.upgrade().filter(|view| view.map.filled() >= readable.index()) {
            return Ok(view);
        }
        let view = Arc::new(self.open_view(storage, mode, readable)?);
        *slot = Arc::downgrade(&view);
        drop(slot);
        keep(Recent { segment: Arc::downgrade(self), view: Arc::clone(&view) });
        Ok(view)
    }

    /// In salvage a file that has been cut is mapped as far as it goes; elsewhere it is an error.
    fn open_view(&self, storage: &dyn Storage, mode: RecoveryMode, readable: Pos) -> Result<View> {
        let file = match storage.open(&self.path, Mode::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::corrupt(&self.path, 0, "the segment is missing"));
            }
            opened => opened.at(&self.path)?,
        };
        let len = file.len().at(&self.path)?;
        let there = Pos(u32::try_from(len).map_or(readable.0, |len| len.min(readable.0)));
        if there < readable && mode == RecoveryMode::Strict {
            let reason = format!("the segment has {len} bytes and had {}", readable.0);
            return Err(Error::corrupt(&self.path, len, reason));
        }
        self.check_header(file.as_ref())?;
        // Bytes below `readable` were complete when it was stored, and are never written again.
        let map = file.map(there.index(), false).at(&self.path)?;
        map.fill(there.index());
        let bytes = map.bytes(0..there.index()).unwrap_or_default();
        let index = match Index::load(storage, self, readable) {
            Some(index) => index,
            None => self.mend_index(storage, there, bytes),
        };
        Ok(View { map: Arc::new(map), index: Arc::new(index) })
    }

    /// Makes the index again, and its file, if the segment is full. That file need not be there: one that cannot be
    /// written is no reason not to read.
    fn mend_index(&self, storage: &dyn Storage, readable: Pos, bytes: &[u8]) -> Index {
        let index = Index::rebuild(self, bytes);
        if self.last() == Some(readable) {
            let _ = replace(storage, &index_path(&self.path), &index.encode(self, readable));
        }
        index
    }

    /// Reads the header from the disk and holds it against what this segment should be. Returns when it was made.
    pub(crate) fn check_header(&self, file: &dyn crate::storage::File) -> Result<Millis> {
        let mut bytes = [0; SegmentHeader::LEN];
        let read = file.read_at(&mut bytes, 0).at(&self.path)?;
        match SegmentHeader::decode(bytes.get(..read).unwrap_or_default()) {
            Ok(header) if header.ident.store != self.ident.store => Err(Error::IncompatibleFormat {
                path: self.path.clone(),
                found: format!("store {:032x}", header.ident.store),
                expected: format!("store {:032x}", self.ident.store),
            }),
            Ok(header) if header.ident == self.ident && header.base == self.base => Ok(header.created),
            Ok(header) => Err(Error::corrupt(
                &self.path,
                0,
                format!(
                    "the header is that of log {} partition {} offset {}",
                    header.ident.log.0, header.ident.partition, header.base
                ),
            )),
            Err(HeaderFault::Version(found)) => Err(Error::IncompatibleFormat {
                path: self.path.clone(),
                found: format!("version {found}"),
                expected: format!("version {}", crate::format::VERSION),
            }),
            Err(fault) => Err(Error::corrupt(&self.path, 0, format!("the segment's header is {fault}"))),
        }
    }
}

/// How far a segment reaches.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extent {
    /// Where the last frame ends.
    pub(crate) pos: Pos,
    /// The offset that follows it.
    pub(crate) end: u64,
    /// Records up to there.
    pub(crate) records: u64,
    /// Their newest timestamp.
    pub(crate) newest: Millis,
}
