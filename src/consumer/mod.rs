//! Members of groups: poll, process, settle.

mod ahead;
mod attempts;
mod batch;
mod builder;
mod entries;
mod group;
mod mode;
mod reset;
mod run;
mod subscription;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use batch::checked as checked_metadata;
pub use batch::{Batch, Placemark};
pub use builder::ConsumerBuilder;
pub use group::{Group, GroupMember, GroupPlacemark};
pub use mode::{AtLeastOnce, AtMostOnce, ExactlyOnce, ExactlyOnceFrom};
pub use reset::{Reset, ResetPlan};

use crate::broken::broken;
use crate::group::{Fetch, Fetched, MemberId, Mode, Picked, Sight};
use crate::partition::Cursor;
use crate::storage::{Deadline, Signal};
use crate::store::{Handle, LogCore};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::types::Millis;
use crate::{Error, Result, StartAt};
use ahead::Ahead;
use attempts::{Attempts, Limits};
use entries::Entries;
use subscription::{Subscription, not_assigned, resolve};

/// What was chosen for a consumer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choices {
    start_at: StartAt,
    /// Whether the group must be known.
    existing: bool,
    max_poll_records: usize,
    processing_timeout: Option<Duration>,
    max_in_flight: Option<usize>,
    by_key: bool,
    /// Whether attempts are counted.
    counted: bool,
    /// How long a partition rests after a first failure, and at most.
    backoff: (Duration, Duration),
    mode: Mode,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            start_at: StartAt::Earliest,
            existing: false,
            max_poll_records: 500,
            processing_timeout: None,
            max_in_flight: None,
            by_key: false,
            counted: false,
            backoff: (Duration::from_millis(100), Duration::from_secs(10)),
            mode: Mode::AtLeastOnce,
        }
    }
}

/// A member of a group, in one of the modes [`AtMostOnce`], [`AtLeastOnce`] and [`ExactlyOnce`].
///
/// Consumers of one group share a log's partitions. All members live in this process: joining and leaving are calls, and
/// dropping a consumer is leaving. A partition changes hands when its batches in flight are settled, dropped, or past
/// their processing timeout.
///
/// ```
/// # fn main() -> placemark::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use std::time::Duration;
/// use placemark::Store;
///
/// let store = Store::open(dir.path())?;
/// let orders = store.log("orders")?;
/// orders.append_batch(["order 1", "order 2"])?;
///
/// let mut billing = orders.consumer("billing").at_least_once()?;
/// while let Some(batch) = billing.poll(Duration::ZERO)? {
///     for entry in &batch {
///         println!("charge {}", String::from_utf8_lossy(entry.value()));
///     }
///     batch.commit()?;
/// }
/// assert_eq!(billing.committed(0), Some(2));
/// # Ok(())
/// # }
/// ```
pub struct Consumer<M> {
    subscription: Arc<Subscription>,
    member: MemberId,
    choices: Choices,
    cursors: BTreeMap<u32, Cursor>,
    /// Where records of one key go one after the other: what was read ahead.
    ahead: BTreeMap<u32, Ahead>,
    /// Records that were gone before they could be read, until a batch says so.
    skipped: BTreeMap<u32, u64>,
    stop: Arc<AtomicBool>,
    closed: bool,
    load: Option<Load>,
    attempts: Option<Attempts>,
    /// Partitions where a record has failed under [`run`](Consumer::run).
    rests: BTreeMap<u32, run::Rest>,
    /// Keeps the store open.
    handle: Handle,
    mode: PhantomData<fn() -> M>,
}

/// Ends a blocked poll from another thread. See [`Consumer::stopper`].
#[derive(Debug, Clone)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    signal: Arc<Signal>,
}

impl Stopper {
    /// Ends the poll that is blocked now, or else the next one, once, with `Ok(None)`. Polling may go on after it, and
    /// nothing is lost.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.signal.notify();
    }
}

/// How far a consumer is behind in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Number of the partition.
    pub partition: u32,
    /// Records that are still to be delivered.
    pub records: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Age of the oldest of them; zero when there is none, or when it is damaged.
    pub age: Duration,
}

/// Asks the application where it is in a partition.
type Load = Box<dyn FnMut(u32) -> Result<Option<u64>, Box<dyn std::error::Error + Send + Sync>> + Send>;

/// Why a poll has no batch.
#[derive(Debug, Default)]
struct Idle {
    stopped: bool,
    /// Nothing comes of itself before this moment, if any.
    until: Option<Deadline>,
}

/// What a read brought.
struct Filled {
    entries: Entries,
    /// From where the read began to behind its last record, gaps included.
    range: Range<u64>,
    /// What of that was chosen, where records of one key go one after the other.
    picked: Option<Box<Picked>>,
    skipped: u64,
}

impl<M> Consumer<M> {
    fn join(handle: &Handle, log: &Arc<LogCore>, group: &str, name: Option<String>, choices: Choices) -> Result<Self> {
        let (subscription, member) = Subscription::join(handle.core()?, log, group, name, &choices)?;
        Ok(Self {
            subscription: Arc::new(subscription),
            member,
            choices,
            cursors: BTreeMap::new(),
            ahead: BTreeMap::new(),
            skipped: BTreeMap::new(),
            stop: Arc::default(),
            closed: false,
            load: None,
            attempts: None,
            rests: BTreeMap::new(),
            handle: handle.clone(),
            mode: PhantomData,
        })
    }

    /// The next batch, waited for for at most `wait`; `None` when none came, or when it was [stopped](Self::stopper).
    /// With a `wait` of zero it answers at once with what is there.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] when a placemark points past the end of its partition, [`Error::Corrupt`] when a
    /// record is damaged, [`Error::Closed`], [`Error::Failed`] when a placemark cannot be written at most once. What was
    /// not returned is delivered by a later poll; at most once, what a failed poll had taken may be lost.
    pub fn poll(&mut self, wait: Duration) -> Result<Option<Batch<M>>> {
        self.next(wait, &mut Idle::default())
    }

    fn next(&mut self, wait: Duration, idle: &mut Idle) -> Result<Option<Batch<M>>> {
        let found = self.look(idle);
        // The clock is asked only where nothing is there.
        if idle.stopped || wait.is_zero() || !matches!(found, Ok(None)) {
            return found;
        }
        self.wait(Deadline::after(wait), idle)
    }

    fn wait(&mut self, deadline: Deadline, idle: &mut Idle) -> Result<Option<Batch<M>>> {
        let signal = Arc::clone(self.subscription.log.signal());
        // What happened before listening began is looked for once more.
        let mut listener = signal.listen();
        loop {
            let found = self.look(idle);
            if idle.stopped || !matches!(found, Ok(None)) || deadline.passed() {
                return found;
            }
            listener.wait(&idle.until.map_or(deadline, |until| deadline.or_earlier(until)));
        }
    }

    /// A batch of what is there; `None` when nothing is.
    fn look(&mut self, idle: &mut Idle) -> Result<Option<Batch<M>>> {
        // Most polls are not stopped, and then nothing is written.
        if self.stop.load(Ordering::SeqCst) && self.stop.swap(false, Ordering::SeqCst) {
            idle.stopped = true;
            return Ok(None);
        }
        self.check_open()?;
        self.subscription.store.env().background.lend_a_hand();
        let rested = self.wake();
        loop {
            let fetch = match self.begin_fetch() {
                Ok(fetch) => fetch,
                Err(late) => {
                    let late = late.map(Deadline::after);
                    idle.until =
                        rested.map_or(late, |rested| Some(late.map_or(rested, |late| rested.or_earlier(late))));
                    return Ok(None);
                }
            };
            let found = self.fetch(fetch);
            if !matches!(found, Ok(None)) {
                return found;
            }
        }
    }

    /// The partitions this consumer reads now, sorted.
    pub fn assignment(&self) -> Vec<u32> {
        self.subscription.follow_growth();
        self.subscription.members().owned(self.member)
    }

    /// The next offset that will be delivered from a partition; `None` when it is not assigned to this consumer.
    pub fn position(&self, partition: u32) -> Option<u64> {
        let members = self.subscription.members();
        members.position(partition).filter(|_| members.owns(self.member, partition))
    }

    /// The group's placemark in a partition; `None` when it has none.
    pub fn committed(&self, partition: u32) -> Option<u64> {
        let placemark = self.subscription.store.side().placemark(self.subscription.key(partition));
        placemark.map(|placemark| placemark.offset)
    }

    /// What was [committed with](Batch::<AtLeastOnce>::commit_with_metadata) the group's placemark in a partition.
    pub fn metadata(&self, partition: u32) -> Option<Vec<u8>> {
        self.subscription.metadata(partition).map(|metadata| metadata.to_vec())
    }

    /// How far this consumer is behind, for each partition assigned to it: what is still to be delivered, for the first
    /// time or again.
    pub fn lag(&self) -> Result<Vec<Lag>> {
        self.check_open()?;
        let mut all = Vec::new();
        for number in self.assignment() {
            let undelivered = self.subscription.members().undelivered(number);
            let partition = self.subscription.log.partition(number)?;
            let mut lag = Lag { partition: number, records: 0, bytes: 0, age: Duration::ZERO };
            let now = Millis(self.subscription.store.env().storage.now());
            for range in undelivered {
                let backlog = partition.backlog(range)?;
                lag.records += backlog.records;
                lag.bytes += backlog.bytes;
                let age = backlog.oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0));
                lag.age = lag.age.max(Duration::from_millis(age));
            }
            all.push(lag);
        }
        Ok(all)
    }

    /// Goes on reading a partition from here. That moves no placemark: the gapless prefix counts from here on, and what
    /// was dropped before is forgotten. Exactly once, a batch in flight is fenced.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`], and [`Error::InvalidOption`] when the partition is not assigned to this consumer.
    pub fn seek(&self, partition: u32, to: StartAt) -> Result<()> {
        self.check_open()?;
        let offset = resolve(self.subscription.log.partition(partition)?, to)?;
        let mut members = self.subscription.group.members();
        members.seek(self.member, partition, offset).map_err(|_| not_assigned(partition))?;
        members.ahead().forget(partition);
        Ok(())
    }

    /// Delivers nothing from a partition until it is resumed, or assigned to another member.
    pub fn pause(&self, partition: u32) -> Result<()> {
        self.set_paused(partition, true)
    }

    /// Delivers from a paused partition again.
    pub fn resume(&self, partition: u32) -> Result<()> {
        self.set_paused(partition, false)
    }

    /// Counts the changes of the group's membership.
    pub fn generation(&self) -> u64 {
        self.subscription.group.members().generation()
    }

    /// A handle that ends a blocked [`poll`](Self::poll) from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: Arc::clone(&self.stop), signal: Arc::clone(self.subscription.log.signal()) }
    }

    /// Leaves the group. Batches in flight may still be settled. Dropping does the same.
    pub fn close(&mut self) -> Result<()> {
        self.leave();
        Ok(())
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.subscription.group.members().leave(self.member);
            self.cursors.clear();
            self.ahead.clear();
            self.subscription.log.signal().notify();
        }
    }

    fn set_paused(&self, partition: u32, paused: bool) -> Result<()> {
        self.check_open()?;
        let mut members = self.subscription.group.members();
        let set = if paused { members.pause(self.member, partition) } else { members.resume(self.member, partition) };
        drop(members);
        self.subscription.log.signal().notify();
        set.map_err(|_| not_assigned(partition))
    }

    #[inline]
    fn check_open(&self) -> Result<()> {
        if self.closed || self.handle.is_closed() {
            return Err(Error::Closed);
        }
        self.subscription.log.check_exists()
    }

    /// Leave to read what comes next. Where there is nothing, how long it is until a batch in flight, of any member, is
    /// to be taken back.
    ///
    /// All that a poll asks the group is asked at once: its lock is taken here, and once more to hand out.
    #[inline]
    fn begin_fetch(&self) -> Result<Fetch, Option<Duration>> {
        let (group, log) = (&self.subscription.group, &self.subscription.log);
        let mut members = group.members();
        let mut news = self.subscription.take_in_growth(&mut members);
        let mut late = members.next_deadline();
        if late.is_some() {
            let now = group.now();
            news |= members.expire(now);
            late = members.next_deadline().map(|deadline| deadline.saturating_sub(now));
        }
        // Something is to be read unless the position is the end; a position past it is an error to be met.
        let ready = |number, from| log.partition(number).is_ok_and(|partition| partition.end() != from);
        let fetch = members.begin_fetch(self.member, ready);
        drop(members);
        if news {
            log.signal().notify();
        }
        fetch.ok_or(late)
    }

    /// A batch of what may be read; `None` when nothing came of it, and it is to be looked again.
    #[inline]
    fn fetch(&mut self, fetch: Fetch) -> Result<Option<Batch<M>>> {
        let Some(mut fetch) = self.ask_where(fetch)? else { return Ok(None) };
        // A read that fails is forgotten: the next one begins at the same place.
        let filled = match fetch.sight.take() {
            Some(sight) => self.read_by_key(fetch.partition, *sight)?,
            None => self.read(&fetch, self.limits(&fetch))?,
        };
        if let Some(failed) = self.spent(fetch.partition, &filled.entries) {
            self.pass(fetch, &filled, failed)?;
            return Ok(None);
        }
        self.hand_out(fetch, filled)
    }

    fn load_from(&mut self, load: Load) {
        self.load = Some(load);
    }

    /// Asks the application where it is, if that is due; `None` when the partition was given away meanwhile.
    fn ask_where(&mut self, fetch: Fetch) -> Result<Option<Fetch>> {
        let Some(load) = self.load.as_mut().filter(|_| fetch.load) else { return Ok(Some(fetch)) };
        let partition = self.subscription.log.partition(fetch.partition)?;
        let answer = load(fetch.partition).map_err(|source| Error::Application { what: "loader", source })?;
        let position = match answer {
            Some(position) => partition.check_offset(position).map(|()| position)?,
            // Nothing was processed: where the group began counts. What is not kept any more is counted as skipped.
            None => self.subscription.began_at(fetch.partition),
        };
        let loaded = self.subscription.group.members().loaded(fetch, position);
        // Nothing may be there: then the next look at the partition finds its position known.
        Ok(loaded.filter(|fetch| fetch.from != partition.end()))
    }

    /// Reads what is to be delivered next, without the group's lock.
    fn read(&mut self, fetch: &Fetch, limits: Limits) -> Result<Filled> {
        let partition = self.subscription.log.partition(fetch.partition)?;
        let wanted = fetch.from;
        let (start, end) = (partition.start(), partition.end());
        if wanted > end {
            return Err(Error::OffsetOutOfRange { requested: wanted, start, end });
        }
        let from = wanted.max(start);
        let cursor = match self.cursors.entry(fetch.partition) {
            Entry::Vacant(place) => place.insert(partition.cursor(from)?),
            Entry::Occupied(known) => known.into_mut(),
        };
        if cursor.position() != from {
            *cursor = partition.cursor(from)?;
        }
        let skipped_before = cursor.skipped();
        let Limits { records, until } = limits;
        let mut entries = Entries::default();
        // What has no record up to here is a gap, if all that is there is read.
        let mut reached = end.min(until).max(from);
        while cursor.position() < until {
            if entries.len() >= records {
                reached = cursor.position();
                break;
            }
            match cursor.next() {
                Ok(Some(entry)) if entry.offset() < until => {
                    reached = reached.max(entry.offset() + 1);
                    entries.push(entry);
                }
                Ok(_) => break,
                Err(error) if entries.is_empty() => return Err(error),
                Err(_) => {
                    // What was read before the damage is delivered first; the next poll meets it again.
                    reached = cursor.position();
                    break;
                }
            }
        }
        let skipped = (from - wanted) + (cursor.skipped() - skipped_before);
        Ok(Filled { entries, range: wanted..reached, picked: None, skipped })
    }

    /// Reads what is to be delivered next, and leaves out what waits for others of its key.
    fn read_by_key(&mut self, number: u32, sight: Sight) -> Result<Filled> {
        let partition = self.subscription.log.partition(number)?;
        let (start, end) = (partition.start(), partition.end());
        let wanted = sight.undelivered.first().map_or(start, |range| range.start);
        if wanted > end {
            return Err(Error::OffsetOutOfRange { requested: wanted, start, end });
        }
        let gone: u64 = sight.undelivered.iter().map(|range| range.end.min(start).saturating_sub(range.start)).sum();
        let mut ahead = Ahead::from(wanted.max(start), self.ahead.remove(&number), partition)?;
        let skipped_before = ahead.skipped();
        let (entries, picked) = ahead.choose(sight, self.choices.max_poll_records, end)?;
        let skipped = gone + (ahead.skipped() - skipped_before);
        self.ahead.insert(number, ahead);
        let range = wanted..picked.pieces.last().map_or(wanted, |last| last.end);
        Ok(Filled { entries, range, picked: Some(Box::new(picked)), skipped })
    }

    /// Notes what was read as delivered, unless the partition was sought, paused or given away meanwhile.
    #[inline]
    fn hand_out(&mut self, fetch: Fetch, filled: Filled) -> Result<Option<Batch<M>>> {
        let Filled { entries, range, picked, skipped } = filled;
        let partition = fetch.partition;
        // A timeout that is too long to be told never comes.
        let deadline =
            self.choices.processing_timeout.and_then(|timeout| self.subscription.group.now().checked_add(timeout));
        let fetched = match picked {
            Some(picked) => Fetched::Picked { picked, deadline },
            None if range.is_empty() => return Ok(None),
            None if entries.is_empty() => Fetched::Gap { end: range.end },
            None => Fetched::Records { end: range.end, deadline },
        };
        let mut members = self.subscription.group.members();
        let Some(delivered) = members.end_fetch(fetch, fetched) else { return Ok(None) };
        if skipped > 0 {
            *self.skipped.entry(partition).or_default() += skipped;
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let first = delivered.batch.is_none();
        let floor = delivered.floor.filter(|_| first);
        // Under the group's lock, so that placemarks are written in the order in which they move.
        let key = self.subscription.key(partition);
        let commit = floor.map(|floor| self.subscription.store.side().commit(key, floor, None)).transpose()?;
        let noted = delivered.batch.and_then(|batch| Some((batch, self.note(partition, &entries, range.end)?)));
        drop(members);
        if let Some(commit) = commit {
            // Before the application sees it: from here on a crash loses it rather than repeat it.
            if !broken("handed out early") {
                commit.wait()?;
            }
        }
        let mut tried = None;
        if let Some((batch, noted)) = noted {
            // Before the application sees it too: an attempt counts even if the process does not survive it.
            let waited = noted.and_then(|(noted, tried)| noted.wait().map(|()| tried));
            tried = Some(waited.inspect_err(|_| self.subscription.drop_batch(partition, batch))?);
            if let [entry] = &entries[..] {
                let late = "it was held past its processing timeout".to_owned();
                self.subscription.group.set_reason(partition, entry.offset(), late);
            }
        }
        let skipped = self.skipped.remove(&partition).unwrap_or_default();
        Ok(Some(Batch::new(&self.subscription, partition, delivered.batch, entries, range, skipped, tried)))
    }
}

impl<M> Drop for Consumer<M> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<M> fmt::Debug for Consumer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.subscription.group.name)
            .field("log", &self.subscription.log.name())
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}
