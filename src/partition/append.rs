//! The path of an append: room, frame, publication, durability.

use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::format::{
    MAX_FRAME_RECORDS, encode_keyed, encode_record, encode_value, frame_len, keyed_len, record_len, value_len,
};
use crate::partition::background::Chore;
use crate::partition::roll::Next;
use crate::partition::{Appender, Author, PartitionCore, lock};
use crate::record::Record;
use crate::segment::{FIRST_FRAME, Placed};
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;
use crate::types::Millis;
use crate::{Durability, Error, Result};

/// What a frame needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    pub(super) bytes: usize,
    /// Offsets that it takes.
    pub(super) span: u32,
}

/// How far an append came, and what its caller is to wait for.
#[derive(Debug, Clone, Copy)]
#[must_use = "an append is as durable as it should be only after the wait"]
pub(crate) struct Appended {
    pub(crate) base: u64,
    pub(crate) end: u64,
    durability: Durability,
}

impl Appended {
    /// Whether it is as durable as it should be by now: nothing is to be waited for.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.durability != Durability::Sync
    }
}

impl PartitionCore {
    /// Appends one record as a frame of its own, and waits as the durability says.
    #[inline]
    pub(crate) fn append(self: &Arc<Self>, record: &Record<'_>) -> Result<u64> {
        let appended = self.append_unsynced(record)?;
        self.settle(&appended)?;
        Ok(appended.base)
    }

    /// The same for a record of this value and nothing else.
    pub(crate) fn append_value(self: &Arc<Self>, value: &[u8]) -> Result<u64> {
        let appended = self.append_plain(value, None)?;
        self.settle(&appended)?;
        Ok(appended.base)
    }

    /// The same, by a producer or by anyone, without waiting.
    #[inline]
    pub(crate) fn append_plain(self: &Arc<Self>, value: &[u8], author: Option<Author<'_>>) -> Result<Appended> {
        let bytes = value_len(value)?;
        let producer = author.as_ref().map(|author| author.stamp);
        let placed = Placed { count: 1, span: 1, timestamp: self.now(), producer };
        self.write_frame(bytes, bytes, &placed, author, |frame| {
            if let Some(space) = frame.get_mut(frame_len(0, producer.is_some())..) {
                encode_value(value, 0, space);
            }
        })
    }

    /// The same as [`append`](Self::append) without waiting: [`settle`](Self::settle) does that.
    #[inline]
    pub(crate) fn append_unsynced(self: &Arc<Self>, record: &Record<'_>) -> Result<Appended> {
        self.append_one(record, None)
    }

    /// The same for a record of this key, value and time and nothing else.
    #[inline]
    pub(crate) fn append_keyed(self: &Arc<Self>, key: &[u8], value: &[u8], time: Millis) -> Result<Appended> {
        let bytes = keyed_len(key, value)?;
        let placed = Placed { count: 1, span: 1, timestamp: time, producer: None };
        self.write_frame(bytes, bytes, &placed, None, |frame| {
            if let Some(space) = frame.get_mut(frame_len(0, false)..) {
                encode_keyed(key, value, 0, space);
            }
        })
    }

    /// Appends one record, by a producer or by anyone, without waiting.
    #[inline]
    pub(crate) fn append_one(self: &Arc<Self>, record: &Record<'_>, author: Option<Author<'_>>) -> Result<Appended> {
        let bytes = record_len(record)?;
        let time = match record.timestamp {
            None => self.now(),
            Some(time) => Millis::from_time(time)?,
        };
        let producer = author.as_ref().map(|author| author.stamp);
        let placed = Placed { count: 1, span: 1, timestamp: time, producer };
        self.write_frame(bytes, bytes, &placed, author, |frame| {
            if let Some(space) = frame.get_mut(frame_len(0, producer.is_some())..) {
                encode_record(record, 0, None, space);
            }
        })
    }

    /// Appends records as one frame, with consecutive offsets: all of them or none.
    pub(crate) fn append_batch(self: &Arc<Self>, records: &[Record<'_>]) -> Result<Range<u64>> {
        if records.is_empty() {
            self.check_usable()?;
            let next = self.lock_appender().next;
            return Ok(next..next);
        }
        let appended = self.append_together(records, None)?;
        self.settle(&appended)?;
        Ok(appended.base..appended.end)
    }

    /// The same, by a producer or by anyone, without waiting; of at least one record.
    pub(crate) fn append_together(
        self: &Arc<Self>,
        records: &[Record<'_>],
        author: Option<Author<'_>>,
    ) -> Result<Appended> {
        let (mut bytes, mut largest) = (0_usize, 0);
        let mut newest = None;
        let now = self.now();
        for record in records {
            let len = record_len(record)?;
            largest = largest.max(len);
            bytes = bytes.saturating_add(len);
            let time = match record.timestamp {
                None => now,
                Some(time) => Millis::from_time(time)?,
            };
            // A record whose time differs from the frame's carries its own.
            newest = newest.max(Some(time));
        }
        let timestamp = newest.unwrap_or(now);
        bytes += own_times(records, now, timestamp) * 8;
        let count = u32::try_from(records.len()).ok().filter(|count| *count <= MAX_FRAME_RECORDS).ok_or_else(|| {
            Error::option("records", format!("are {}: one batch takes at most {MAX_FRAME_RECORDS}", records.len()))
        })?;
        let producer = author.as_ref().map(|author| author.stamp);
        let placed = Placed { count, span: count, timestamp, producer };
        self.write_frame(bytes, largest, &placed, author, |frame| {
            let mut rest = frame.get_mut(frame_len(0, producer.is_some())..).unwrap_or_default();
            for (delta, record) in (0_u32..).zip(records) {
                let own = own_time(record, now).filter(|time| *time != timestamp);
                let written = encode_record(record, delta, own, rest);
                rest = rest.get_mut(written..).unwrap_or_default();
            }
        })
    }

    /// Waits until what was appended is as durable as the log's durability promises.
    #[inline]
    pub(crate) fn settle(&self, appended: &Appended) -> Result<()> {
        match appended.durability {
            Durability::Sync => self.wait_durable(appended.end),
            Durability::Interval(_) | Durability::Os => Ok(()),
        }
    }

    /// Stores one frame: `largest` is the size of its largest record, which is held against the limit.
    #[inline]
    fn write_frame(
        self: &Arc<Self>,
        bytes: usize,
        largest: usize,
        placed: &Placed,
        author: Option<Author<'_>>,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Appended> {
        let len = frame_len(bytes, placed.producer.is_some());
        let need = Need { bytes: len, span: placed.span };
        let mut appender = self.room(&need, largest)?;
        if let Some(author) = &author {
            author.fence.check(author.stamp.epoch)?;
        }
        let base = appender.next;
        let durability = appender.settings.durability;
        let Some(writer) = &mut appender.writer else { return Err(Error::Closed) };
        if let Err(error) = writer.put(len, base, placed, fill) {
            let path = writer.segment.path.clone();
            drop(appender);
            return Err(self.fail(&path, error));
        }
        appender.next = base + u64::from(placed.span);
        let end = appender.next;
        if let Some(author) = author {
            appender.producers.append(author.slot, &author.stamp, base, placed.count);
        }
        // Under `Sync` the leader of the next sync publishes it.
        if durability != Durability::Sync {
            self.publish(&appender);
        }
        let near_ceiling = appender.ceiling - end < super::lifecycle::CEILING_STEP / 2;
        let waiting = appender.to_seal();
        drop(appender);
        if let Durability::Interval(interval) = durability {
            self.arm_interval(interval);
        }
        if near_ceiling || waiting > 0 {
            self.after_append(near_ceiling, waiting)?;
        }
        Ok(Appended { base, end, durability })
    }

    /// What an append leaves to the background, once its lock is free.
    #[cold]
    fn after_append(self: &Arc<Self>, near_ceiling: bool, waiting: usize) -> Result<()> {
        if near_ceiling && !self.raising.swap(true, Ordering::AcqRel) {
            let partition = Arc::downgrade(self);
            self.env.background.submit(move || {
                if let Some(partition) = partition.upgrade() {
                    // A failure is kept by the latch, where the next append finds it.
                    let _ = partition.raise_ceiling();
                    partition.raising.store(false, Ordering::Release);
                }
            });
        }
        if waiting > 0 { self.seal_soon(waiting) } else { Ok(()) }
    }

    /// Takes the append lock with room for a frame: space allocated, offsets below the ceiling.
    #[inline]
    pub(super) fn room(self: &Arc<Self>, need: &Need, largest: usize) -> Result<MutexGuard<'_, Appender>> {
        let appender = self.lock_appender();
        if self.has_room(&appender, need, largest) {
            return Ok(appender);
        }
        drop(appender);
        self.make_room(need, largest)
    }

    /// Whether nothing has to be done before the frame can be stored.
    #[inline]
    fn has_room(&self, appender: &Appender, need: &Need, largest: usize) -> bool {
        let end = appender.next + u64::from(need.span);
        let Some(writer) = &appender.writer else { return false };
        end <= appender.ceiling
            && largest as u64 <= appender.settings.record_limit
            && writer.fits(need.bytes, end)
            && writer.has_ready(need.bytes)
            && appender.settings.segment_age.is_none_or(|_| !self.is_old(appender))
            && !self.latch.is_closed()
    }

    #[cold]
    fn make_room(self: &Arc<Self>, need: &Need, largest: usize) -> Result<MutexGuard<'_, Appender>> {
        loop {
            let mut appender = self.lock_appender();
            self.check_usable()?;
            check_size(need, largest, &appender)?;
            if appender.writer.is_none() {
                drop(appender);
                self.activate()?;
                continue;
            }
            let end = appender.next + u64::from(need.span);
            if end > appender.ceiling {
                drop(appender);
                self.raise_ceiling()?;
                continue;
            }
            let made = self.make_space(&mut appender, need, end);
            match made {
                Ok(()) => return Ok(appender),
                Err((path, error)) => {
                    drop(appender);
                    return Err(self.fail(&path, error));
                }
            }
        }
    }

    /// Whether the segment has reached the age at which it is full.
    fn is_old(&self, appender: &Appender) -> bool {
        let (Some(age), Some(writer)) = (appender.settings.segment_age, &appender.writer) else { return false };
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        !writer.is_empty() && self.now().0.saturating_sub(writer.segment.created.0) >= age
    }

    /// Rolls when the segment is full or old, then allocates.
    fn make_space(
        self: &Arc<Self>,
        appender: &mut Appender,
        need: &Need,
        end: u64,
    ) -> Result<(), (std::path::PathBuf, Error)> {
        let fits = appender.writer.as_ref().is_some_and(|writer| writer.fits(need.bytes, end));
        if !fits || self.is_old(appender) {
            self.roll_locked(appender, Next::Filled).map_err(|error| (self.dir.clone(), error))?;
        }
        match &mut appender.writer {
            Some(writer) => {
                if writer.runs_short(need.bytes) {
                    let chore: Weak<Self> = Arc::downgrade(self);
                    self.env.background.ask(chore);
                }
                writer.reserve(need.bytes).map_err(|error| (writer.segment.path.clone(), error))
            }
            None => Err((self.dir.clone(), Error::Closed)),
        }
    }
}

/// Allocates space ahead of the appender, and makes its pages ready.
impl Chore for PartitionCore {
    fn run(&self) {
        // Held so that nobody trims, seals or closes the file meanwhile.
        let manifest = lock(&self.manifest);
        if self.check_usable().is_err() {
            return;
        }
        let now = self.now();
        let ahead = self.lock_appender().writer.as_mut().and_then(|writer| writer.ahead(now));
        let Some(ahead) = ahead else { return };
        // Where it is refused, the appender that gets there meets the refusal itself.
        if ahead.allocate().is_ok() {
            if let Some(writer) = &mut self.lock_appender().writer {
                writer.extend(&ahead);
            }
            drop(manifest);
            ahead.populate();
        }
    }
}

/// Refuses what is over the log's limit, or over what fits in any of its segments.
fn check_size(need: &Need, largest: usize, appender: &Appender) -> Result<()> {
    let max = appender.settings.record_limit;
    if largest as u64 > max.saturating_add(RECORD_OVERHEAD) {
        return Err(Error::RecordTooLarge { size: largest as u64, max });
    }
    let max = u64::from(appender.settings.capacity() - FIRST_FRAME.0);
    if need.bytes as u64 > max {
        return Err(Error::RecordTooLarge { size: need.bytes as u64, max });
    }
    Ok(())
}

fn own_time(record: &Record<'_>, now: Millis) -> Option<Millis> {
    // Checked before: a time that cannot be was refused.
    record.timestamp.map_or(Some(now), |time| Millis::from_time(time).ok())
}

/// How many records carry a time of their own in a frame of this time.
fn own_times(records: &[Record<'_>], now: Millis, frame: Millis) -> usize {
    records.iter().filter(|record| own_time(record, now) != Some(frame)).count()
}

/// What stands around a record's parts and does not count against `max_record_bytes`.
pub(super) const RECORD_OVERHEAD: u64 = 8;
