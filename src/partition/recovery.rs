//! Opening what was not closed: the tail is walked from the recovery point, and what is bad there is told apart.
//!
//! Every frame says how far its segment was durable when it was written. A bad frame whose start a later intact frame
//! vouches for was durable: that is corruption, and nothing is cut. One that nothing vouches for is a torn tail: it was
//! never promised, and is cut. Pages reach the disk in any order, so the search for vouchers goes on behind a bad frame
//! to the end of the last file.
//!
//! What is kept behind the last voucher may be in the page cache only (after a kill), or not even be dirty there though
//! the disk never got it (after a failed sync). So it is written again and synced before anyone reads it or appends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::broken::broken;
use crate::error::At;
use crate::format::{DecodeError, Ident, Manifest, State, frame_len};
use crate::partition::producers::Producers;
use crate::partition::roll::{MANIFEST, point};
use crate::partition::snapshots::{self, parse_snapshot_name};
use crate::partition::{Env, Floor, Settings, extent_of};
use crate::segment::{
    Extent, FIRST_FRAME, FrameReader, Index, Placed, Rolled, Segment, Writer, WriterShape, index_path, is_index_name,
    parse_segment_name, segment_name,
};
use crate::storage::{File, Mode, Storage, replace};
use crate::types::{CacheIdentity, Millis, Pos};
use crate::{Error, RecoveryMode, Result};

/// Makes a partition whole, and returns its manifest as a clean one, and what is known of its producers.
pub(super) fn recover(
    env: &Env,
    ident: Ident,
    dir: &Path,
    floor: &Floor,
    settings: &Settings,
) -> Result<(Manifest, Producers)> {
    let mut manifest = read_manifest(env, ident, dir)?;
    let tail = tidy(env, dir, &manifest)?;
    let open = match manifest.state {
        State::Clean => ends_early(env, dir, &manifest, !floor.parts.is_empty())?,
        State::Open(identity) => Some(identity),
    };
    let named = manifest.producers.snapshots.clone();
    let mut producers = snapshots::load(env, ident, dir, &mut manifest)?;
    let mut changed = false;
    if let Some(identity) = open {
        let walked = Walk { env, ident, dir, tail: &tail }.run(&mut manifest, &mut producers)?;
        env.report.recovered();
        let survived = env.identity.survives(&identity) && !walked.torn;
        replay(env, ident, dir, floor, settings, &mut manifest, &mut producers)?;
        if let (Some(ceiling), false) = (manifest.ceiling, survived || broken("ceiling ignored")) {
            manifest.recovery.next = manifest.recovery.next.max(ceiling);
        }
        changed = true;
    } else if !floor.parts.is_empty() {
        changed = replay(env, ident, dir, floor, settings, &mut manifest, &mut producers)?;
    }
    if manifest.recovery.next < floor.least_end {
        manifest.recovery.next = floor.least_end;
        changed = true;
    }
    manifest.state = State::Clean;
    manifest.ceiling = None;
    changed |= snapshots::settle(env, ident, dir, &mut manifest, &mut producers);
    if changed {
        // All that it speaks of is synced by now. A crash before this leaves the old manifest, and the same work.
        replace(env.storage.as_ref(), &dir.join(MANIFEST), &manifest.encode())?;
        env.storage.sync_dir(dir).at(dir)?;
        snapshots::drop_unnamed(env.storage.as_ref(), dir, &named, &manifest);
    }
    Ok((manifest, producers))
}

/// Whether something is behind the end that the manifest of a closed partition knows. Closing cuts the segment there, so
/// that at most zeros follow, allocated ahead of a first append: the manifest is one of an earlier time, put back. That is
/// an error; salvage is to walk what is there, as if it had not been closed. It is no damage where a `replay` was cut short
/// before the manifest knew of it.
fn ends_early(env: &Env, dir: &Path, manifest: &Manifest, replay: bool) -> Result<Option<CacheIdentity>> {
    let path = dir.join(segment_name(manifest.active, 0));
    let file = env.storage.open(&path, Mode::Read).at(&path)?;
    let end = manifest.recovery.pos;
    if file.len().at(&path)? <= u64::from(end.0) || FrameReader::new(file.as_ref(), &path)?.last_written(end)? == end {
        return Ok(None);
    }
    if env.recovery_mode == RecoveryMode::Strict && !replay {
        let reason = "the partition was closed, and its manifest does not know what is here";
        return Err(Error::corrupt(&path, u64::from(end.0), reason));
    }
    Ok(Some(CacheIdentity::default()))
}

/// Whether a partition that is not open was not closed by whoever had it open: what was written then may not be on the
/// disk. Opening it sees to that.
pub(crate) fn is_left_open(env: &Env, ident: Ident, dir: &Path) -> Result<bool> {
    Ok(!matches!(read_manifest(env, ident, dir)?.state, State::Clean))
}

fn read_manifest(env: &Env, ident: Ident, dir: &Path) -> Result<Manifest> {
    let path = dir.join(MANIFEST);
    let bytes = read_small(env.storage.as_ref(), &path, Manifest::LONGEST)?
        .ok_or_else(|| Error::corrupt(&path, 0, "the manifest is missing"))?;
    let manifest = Manifest::decode(&bytes).map_err(|error| error.at(&path))?;
    if manifest.ident.store != ident.store {
        return Err(Error::IncompatibleFormat {
            path,
            found: format!("store {:032x}", manifest.ident.store),
            expected: format!("store {:032x}", ident.store),
        });
    }
    if manifest.ident != ident {
        return Err(Error::corrupt(&path, 0, "the manifest is that of another log or partition"));
    }
    Ok(manifest)
}

/// Reads a whole file of ours that is never longer than `longest`; `None` when it is missing.
pub(crate) fn read_small(storage: &dyn Storage, path: &Path, longest: usize) -> Result<Option<Vec<u8>>> {
    let file = match storage.open(path, Mode::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.at(path)?,
    };
    let len = usize::try_from(file.len().at(path)?).unwrap_or(usize::MAX);
    if len > longest {
        return Err(Error::corrupt(path, longest as u64, "the file is longer than it can be"));
    }
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, 0).at(path)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

impl DecodeError {
    /// As an error of the file at `path`.
    pub(crate) fn at(self, path: &Path) -> Error {
        match self {
            Self::Version { found } => Error::IncompatibleFormat {
                path: path.to_path_buf(),
                found: format!("version {found}"),
                expected: format!("version {}", crate::format::VERSION),
            },
            Self::Damaged { position, reason } => Error::corrupt(path, position, reason),
        }
    }
}

/// Finishes what a crash left of rolls, compactions and deletions, refuses holes, leaves foreign files alone. Returns
/// the segments from the active one on, by base.
fn tidy(env: &Env, dir: &Path, manifest: &Manifest) -> Result<BTreeMap<u64, PathBuf>> {
    let storage = env.storage.as_ref();
    let listed = storage.list(dir).at(dir)?;
    let mut missing: BTreeMap<String, u64> =
        manifest.sealed.iter().map(|entry| (segment_name(entry.base, entry.generation), entry.base)).collect();
    let mut tail = BTreeMap::new();
    let (mut indexes, mut superseded) = (Vec::new(), Vec::new());
    let mut kept = BTreeSet::new();
    for name in listed.iter().map(|entry| entry.name.as_str()) {
        let path = dir.join(name);
        if let Some((base, generation)) = parse_segment_name(name) {
            if missing.remove(name).is_some() {
                kept.insert(index_path(&path));
            } else if generation == 0 && base >= manifest.active {
                kept.insert(index_path(&path));
                tail.insert(base, path);
            } else {
                // Superseded by what the manifest lists, or given up: it only lived until it could be removed.
                superseded.push(path);
            }
        } else if is_index_name(name) {
            indexes.push(path);
        } else if let Some(offset) = parse_snapshot_name(name) {
            if !manifest.producers.snapshots.contains(&offset) {
                storage.remove_file(&path).at(&path)?;
            }
        } else if name.strip_suffix(".new").is_some_and(is_replaced) {
            storage.remove_file(&path).at(&path)?;
        }
    }
    if !superseded.is_empty() && !broken("left over removed early") {
        // A process that died may have left the manifest's name unsynced. Were these gone, and power loss brought back the
        // manifest that lists them, they would be missing.
        storage.sync_dir(dir).at(dir)?;
    }
    for path in superseded {
        storage.remove_file(&path).at(&path)?;
    }
    // An index without its segment would be taken for that of a later one of the same name.
    for path in indexes.iter().filter(|path| !kept.contains(*path)) {
        storage.remove_file(path).at(path)?;
    }
    if env.recovery_mode == RecoveryMode::Strict
        && let Some(name) = missing.keys().next()
    {
        return Err(Error::corrupt(&dir.join(name), 0, "the segment is missing"));
    }
    if !tail.contains_key(&manifest.active) {
        return Err(Error::corrupt(&dir.join(segment_name(manifest.active, 0)), 0, "the active segment is missing"));
    }
    if matches!(manifest.state, State::Clean) {
        for path in tail.values().skip(1) {
            // A closed partition has none behind its active one: what never got a header was never begun.
            if !is_unbegun(storage, path)? {
                let reason = "the partition was closed, and its manifest does not know this segment";
                return Err(Error::corrupt(path, 0, reason));
            }
            storage.remove_file(path).at(path)?;
        }
    }
    Ok(tail)
}

/// Whether a file of this name is replaced whole, so that a crash may leave its successor beside it.
fn is_replaced(name: &str) -> bool {
    name == MANIFEST || is_index_name(name) || parse_snapshot_name(name).is_some()
}

/// Whether a segment's file has not even a header.
fn is_unbegun(storage: &dyn Storage, path: &Path) -> Result<bool> {
    let file = storage.open(path, Mode::Read).at(path)?;
    Ok(FrameReader::new(file.as_ref(), path)?.last_written(Pos(0))? == Pos(0))
}

/// One segment of the tail, as far as it was walked.
struct Walked {
    segment: Segment,
    file: Arc<dyn File>,
    extent: Extent,
    /// How far a frame in it says that it was durable; 0 when none does.
    vouched: Pos,
    /// Whether something else than zeros stands behind its last frame.
    bad: bool,
}

/// The walk through the tail.
struct Walk<'a> {
    env: &'a Env,
    ident: Ident,
    dir: &'a Path,
    tail: &'a BTreeMap<u64, PathBuf>,
}

struct Outcome {
    /// Whether a page was lost, so that the page cache cannot be the one that was written to.
    torn: bool,
}

/// What stands behind the end of the walk.
struct Behind {
    /// Whether an intact frame says that the end was durable.
    vouched: bool,
    /// The first intact frame that could follow.
    intact: Option<(u64, Extent)>,
}

impl Walk<'_> {
    fn run(&self, manifest: &mut Manifest, producers: &mut Producers) -> Result<Outcome> {
        let mut walked: Vec<Walked> = Vec::new();
        let mut start = (manifest.active, extent_of(manifest));
        let torn = loop {
            let mut this = self.open(start.0, start.1, manifest)?;
            if let Some(before) = walked.pop_if(|before| before.segment.base == this.segment.base) {
                // Salvage goes on behind damage in the same file.
                this.vouched = this.vouched.max(before.vouched);
            }
            this.bad = !Self::walk(&mut this, producers)?;
            let next_base = this.extent.end;
            let follows = next_base > this.segment.base && self.tail.contains_key(&next_base);
            if !this.bad && follows && self.begins_well(next_base)? {
                start = (next_base, fresh(next_base));
                walked.push(this);
                continue;
            }
            let verdict = self.judge(&this)?;
            walked.push(this);
            match verdict {
                Verdict::End { torn } => break torn,
                Verdict::Skip { segment, extent } => {
                    if let Some(before) = walked.last_mut().filter(|before| before.segment.base != segment) {
                        leave_damage(before, segment)?;
                    }
                    start = (segment, extent);
                }
            }
        };
        self.make_durable(&walked, manifest)?;
        self.settle(walked, manifest)?;
        Ok(Outcome { torn })
    }

    fn open(&self, base: u64, extent: Extent, manifest: &Manifest) -> Result<Walked> {
        let path = self.dir.join(segment_name(base, 0));
        let file = self.env.storage.open(&path, Mode::Write).at(&path)?;
        let len = file.len().at(&path)?;
        if len < u64::from(extent.pos.0) && self.env.recovery_mode == RecoveryMode::Strict {
            let reason = format!("the segment has {len} bytes, and {} were durable", extent.pos.0);
            return Err(Error::corrupt(&path, len, reason));
        }
        let created = self.segment(base, Millis::default()).check_header(file.as_ref())?;
        let vouched = if base == manifest.active { extent.pos } else { Pos(0) };
        Ok(Walked { segment: self.segment(base, created), file, extent, vouched, bad: false })
    }

    fn segment(&self, base: u64, created: Millis) -> Segment {
        Segment::new(self.dir, self.ident, base, 0, created)
    }

    /// Whether the segment that should follow was made: its header may never have reached the disk.
    fn begins_well(&self, base: u64) -> Result<bool> {
        let segment = self.segment(base, Millis::default());
        let file = self.env.storage.open(&segment.path, Mode::Read).at(&segment.path)?;
        match segment.check_header(file.as_ref()) {
            Ok(_) => Ok(true),
            Err(Error::Corrupt { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Frame after frame, as long as each is intact and follows the one before it. Whether only zeros are behind them.
    fn walk(this: &mut Walked, producers: &mut Producers) -> Result<bool> {
        let segment = &this.segment;
        let mut reader = FrameReader::new(this.file.as_ref(), &segment.path)?;
        loop {
            let at = this.extent.pos;
            let frame = reader
                .frame_at(segment.seed, at)?
                .filter(|frame| frame.base(segment.base) == this.extent.end && frame.is_intact(segment.seed));
            let Some(frame) = frame else { break };
            this.vouched = this.vouched.max(Pos(frame.header.durable));
            if let Some(stamp) = frame.header.producer(frame.bytes).filter(|_| !broken("stamps ignored")) {
                producers.found(&stamp, this.extent.end, frame.header.span);
            }
            this.extent = Extent {
                pos: frame.next(),
                end: frame.end(segment.base),
                records: this.extent.records + u64::from(frame.header.count),
                newest: this.extent.newest.max(frame.header.timestamp),
            };
        }
        Ok(reader.last_written(this.extent.pos)? == this.extent.pos)
    }

    /// What it means that the walk ended here.
    fn judge(&self, this: &Walked) -> Result<Verdict> {
        let here = this.extent.pos;
        let later: Vec<(&u64, &PathBuf)> = self.tail.range(this.segment.base + 1..).collect();
        if !this.bad && later.is_empty() {
            return Ok(Verdict::End { torn: false });
        }
        let behind = self.look_behind(this, &later)?;
        if !behind.vouched || broken("vouchers ignored") {
            self.report_cut(this, here, &later)?;
            // A process that dies leaves at most its last frame unfinished; an intact one behind it means that a page
            // was lost.
            return Ok(Verdict::End { torn: behind.intact.is_some() });
        }
        let path = &this.segment.path;
        if self.env.recovery_mode == RecoveryMode::Strict {
            return Err(Error::corrupt(path, u64::from(here.0), "what was durable here does not read back"));
        }
        let Some((segment, extent)) = behind.intact else { return Ok(Verdict::End { torn: true }) };
        let same = segment == this.segment.base;
        let bytes = if same { extent.pos.0 - here.0 } else { 0 };
        self.env.report.damaged(path, u64::from(here.0), u64::from(bytes), this.extent.end..extent.end);
        Ok(Verdict::Skip { segment, extent })
    }

    /// Searches what lies behind the place where the walk ended: for the first intact frame that could follow, and for
    /// one that says that this place was durable.
    fn look_behind(&self, this: &Walked, later: &[(&u64, &PathBuf)]) -> Result<Behind> {
        let mut behind = Behind { vouched: this.vouched > this.extent.pos, intact: None };
        let mut reader = FrameReader::new(this.file.as_ref(), &this.segment.path)?;
        let mut from = this.extent.pos;
        while let Some(frame) = reader.find_frame(this.segment.seed, from)? {
            let base = frame.base(this.segment.base);
            if behind.intact.is_none() && base >= this.extent.end {
                let extent = Extent { pos: frame.pos, end: base, ..this.extent };
                behind.intact = Some((this.segment.base, extent));
            }
            behind.vouched |= frame.header.durable > this.extent.pos.0;
            if behind.vouched && behind.intact.is_some() {
                return Ok(behind);
            }
            from = frame.next();
        }
        for (base, path) in later {
            let file = self.env.storage.open(path, Mode::Read).at(path)?;
            let mut reader = FrameReader::new(file.as_ref(), path)?;
            let seed = self.segment(**base, Millis::default()).seed;
            let mut from = FIRST_FRAME;
            while let Some(frame) = reader.find_frame(seed, from)? {
                if behind.intact.is_none() && **base >= this.extent.end {
                    behind.intact = Some((**base, fresh(**base)));
                }
                // Any mark in a later segment says that every earlier one is durable whole.
                behind.vouched |= frame.header.durable >= FIRST_FRAME.0;
                if behind.vouched && behind.intact.is_some() {
                    return Ok(behind);
                }
                from = frame.next();
            }
        }
        Ok(behind)
    }

    fn report_cut(&self, this: &Walked, here: Pos, later: &[(&u64, &PathBuf)]) -> Result<()> {
        let written = FrameReader::new(this.file.as_ref(), &this.segment.path)?.last_written(here)?;
        self.env.report.cut(&this.segment.path, u64::from(here.0), u64::from(written.0 - here.0));
        for (_, path) in later {
            let file = self.env.storage.open(path, Mode::Read).at(path)?;
            let written = FrameReader::new(file.as_ref(), path)?.last_written(Pos(0))?;
            self.env.report.cut(path, 0, u64::from(written.0));
        }
        Ok(())
    }

    /// Writes again what no voucher covers, and syncs it with the names of its files.
    fn make_durable(&self, walked: &[Walked], manifest: &Manifest) -> Result<()> {
        let last_vouched = walked.iter().rposition(|this| this.vouched >= FIRST_FRAME);
        for (at, this) in walked.iter().enumerate() {
            let path = &this.segment.path;
            if (at + 1 == walked.len() || !this.bad) && !broken("tail left") {
                // What lies behind the last frame is gone, durably, before anything is appended there. What salvage
                // stepped over stays.
                this.file.set_len(u64::from(this.extent.pos.0)).at(path)?;
            }
            let from = match last_vouched {
                Some(last) if at < last => this.extent.pos,
                _ => this.vouched,
            };
            let from = if this.segment.base == manifest.active { from.max(manifest.recovery.pos) } else { from };
            if broken("tail not rewritten") {
                continue;
            }
            rewrite(this.file.as_ref(), path, from, this.extent.pos)?;
            this.file.sync().at(path)?;
        }
        self.env.storage.sync_dir(self.dir).at(self.dir)
    }

    /// Lists full segments as sealed, and removes files of the tail that nothing vouched for.
    fn settle(&self, walked: Vec<Walked>, manifest: &mut Manifest) -> Result<()> {
        let storage = self.env.storage.as_ref();
        let last = walked.last().map(|this| this.segment.base);
        let mut removed = false;
        for (base, path) in self.tail {
            if !walked.iter().any(|this| this.segment.base == *base) {
                storage.remove_file(path).at(path)?;
                remove_index(storage, path)?;
                removed = true;
            }
        }
        if removed && !broken("given up unsynced") {
            // Were they to come back beside the clean manifest that follows, they would be segments it does not know.
            storage.sync_dir(self.dir).at(self.dir)?;
        }
        for this in walked {
            let base = this.segment.base;
            this.segment.set_extent(&this.extent);
            if Some(base) == last {
                manifest.active = base;
                manifest.active_created = this.segment.created;
                manifest.recovery = point(&this.segment, &this.extent);
            } else {
                manifest.sealed.push(this.segment.entry(this.extent.pos));
            }
        }
        Ok(())
    }
}

/// Removes the index beside a segment, where there is one: else it would be taken for that of a later segment that
/// begins at the same offset.
fn remove_index(storage: &dyn Storage, segment: &Path) -> Result<()> {
    let path = index_path(segment);
    if storage.kind(&path).at(&path)?.is_some() {
        storage.remove_file(&path).at(&path)?;
    }
    Ok(())
}

/// Salvage goes on in a later segment: this one is sealed with the damage at its end, so that every reader meets it.
fn leave_damage(this: &mut Walked, next: u64) -> Result<()> {
    let path = &this.segment.path;
    let written = FrameReader::new(this.file.as_ref(), path)?.last_written(this.extent.pos)?;
    // Where nothing is left of what was there, zeros stand for it.
    let pos = Pos(written.0.max(this.extent.pos.0.saturating_add(1))).aligned();
    if this.file.len().at(path)? < u64::from(pos.0) {
        this.file.set_len(u64::from(pos.0)).at(path)?;
    }
    this.extent = Extent { pos, end: next, ..this.extent };
    Ok(())
}

enum Verdict {
    /// The log ends here.
    End { torn: bool },
    /// Salvage goes on there.
    Skip { segment: u64, extent: Extent },
}

fn fresh(base: u64) -> Extent {
    Extent { pos: FIRST_FRAME, end: base, ..Extent::default() }
}

/// Reads and writes back the same bytes, so that they are dirty again and the next sync takes them to the disk.
fn rewrite(file: &dyn File, path: &Path, from: Pos, to: Pos) -> Result<()> {
    let mut reader = FrameReader::new(file, path)?;
    let mut at = from;
    while at < to {
        let piece = reader.bytes(at, (to.0 - at.0).min(1 << 20) as usize)?;
        if piece.is_empty() {
            return Err(Error::corrupt(path, u64::from(at.0), "the file ends before its frames do"));
        }
        file.write_at(piece, u64::from(at.0)).at(path)?;
        at = Pos(at.0 + u32::try_from(piece.len()).unwrap_or(u32::MAX));
    }
    Ok(())
}

/// Puts back what decided transactions had written here, at its recorded offsets. Says whether anything was missing.
///
/// The journal has it until the partition is synced, so that a crash in between leaves the same work.
fn replay(
    env: &Env,
    ident: Ident,
    dir: &Path,
    floor: &Floor,
    settings: &Settings,
    manifest: &mut Manifest,
    producers: &mut Producers,
) -> Result<bool> {
    let missing = floor.parts.iter().filter(|part| part.base >= manifest.recovery.next).collect::<Vec<_>>();
    if missing.is_empty() || broken("journal not replayed") {
        return Ok(false);
    }
    let storage = env.storage.as_ref();
    let shape = WriterShape { storage, dir, ident, capacity: settings.capacity(), mapped: env.mapped, synced: true };
    let segment = Arc::new(Segment::new(dir, ident, manifest.active, 0, manifest.active_created));
    let extent = extent_of(manifest);
    segment.set_durable(extent.pos);
    // Its own index is made again when it is needed: it covers more than it did.
    let mut writer = Writer::resume(&shape, segment, Arc::new(Index::new()), &extent)?;
    let mut full: Vec<Rolled> = Vec::new();
    let (mut next, mut lost) = (manifest.recovery.next, false);
    for part in missing {
        // Power loss has taken what stood before it, which no one was promised to keep. A producer's sequences are lost
        // from the newest on, or its retries would be taken for duplicates of what is gone: so this goes with it.
        lost |= part.base > next;
        if lost && part.producer.is_some() {
            continue;
        }
        next = part.base.saturating_add(u64::from(part.count));
        let len = frame_len(part.records.len(), part.producer.is_some());
        if !writer.fits(len.next_multiple_of(8), next) && !writer.is_empty() {
            let next = Writer::create(&shape, part.base, Millis(storage.now()), true)?;
            full.push(std::mem::replace(&mut writer, next).finish());
        }
        writer.reserve(len.next_multiple_of(8))?;
        let placed = Placed { count: part.count, span: part.count, timestamp: part.timestamp, producer: part.producer };
        writer.put(len, part.base, &placed, |frame| {
            if let Some(space) = frame.get_mut(len - part.records.len()..) {
                space.copy_from_slice(&part.records);
            }
        })?;
        if let Some(stamp) = &part.producer {
            producers.found(stamp, part.base, part.count);
        }
    }
    for rolled in full {
        rolled.file.set_len(u64::from(rolled.last.0)).at(&rolled.segment.path)?;
        rolled.file.sync().at(&rolled.segment.path)?;
        manifest.sealed.push(rolled.segment.entry(rolled.last));
    }
    let (segment, extent) = (Arc::clone(&writer.segment), writer.extent());
    writer.file.set_len(u64::from(extent.pos.0)).at(&segment.path)?;
    writer.file.sync().at(&segment.path)?;
    storage.sync_dir(dir).at(dir)?;
    remove_index(storage, &segment.path)?;
    manifest.active = segment.base;
    manifest.active_created = segment.created;
    manifest.recovery = point(&segment, &extent);
    Ok(true)
}
