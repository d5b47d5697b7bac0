//! The journal: where a transaction over several partitions and placemarks is decided, by one record.
//!
//! The order that is safe:
//!
//! 1. A leader takes the transactions that wait, so that many threads share one sync.
//! 2. It holds the partitions in the order of their ids, with the space allocated, and assigns the offsets. Under `Sync`
//!    what stands ahead of them is synced.
//! 3. One record for each transaction goes into the journal, and one `fdatasync` makes them durable: that is the
//!    decision. A crash before it leaves nothing of them; after it, the next opening puts back what is missing.
//! 4. Everything is applied, in each partition with one publication; then the placemarks.
//!
//! A failure in step 3 leaves it open whether the record is on the disk, and one in step 4 leaves a part of a decided
//! transaction unapplied. Both latch every partition that was held, the journal, and with it every later transaction:
//! the next opening finds out, and finishes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};

use crate::broken::broken;
use crate::format::{DecidedPlacemark, Decision, Metadata, Part};
use crate::partition::{Encoded, Fence, Held, PartitionCore, lock};
use crate::placemarks::{PlacemarkKey, SideLog};
use crate::record::Record;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::types::LogId;
use crate::{Error, Result};

/// The journal's segments. A transaction fits in one.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;

/// Decides transactions.
#[derive(Debug)]
pub(crate) struct Journal {
    partition: Arc<PartitionCore>,
    side: Arc<SideLog>,
    /// Protects the queue. Nothing else is locked under it.
    queue: Mutex<Queue>,
    turned: Condvar,
    /// Partitions that decisions since the last clean-up went to. Nothing else is locked under it.
    touched: Mutex<Touched>,
    /// Whether earlier decisions wait for a log that could not be opened: then nothing is given up.
    needed: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<Waiting>>,
    leading: bool,
}

type Place = (LogId, u32);

#[derive(Debug, Default)]
struct Touched {
    partitions: BTreeMap<Place, Arc<PartitionCore>>,
    /// Everything in the journal below this has been applied.
    applied: u64,
    cleaning: bool,
}

/// What one transaction wants.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) parts: Vec<(Arc<PartitionCore>, Encoded)>,
    pub(crate) placemarks: Vec<Move>,
    /// Whether the decision waits for the disk.
    pub(crate) durable: bool,
    /// The producer whose records they are, by its fence and epoch: asked when the partitions are held.
    pub(crate) producer: Option<(Arc<Fence>, u32)>,
}

/// A placemark that moves with a transaction.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub(crate) key: PlacemarkKey,
    pub(crate) offset: u64,
    pub(crate) metadata: Option<Metadata>,
}

/// A transaction in the queue.
#[derive(Debug)]
struct Waiting {
    work: Work,
    /// The first offset of each part, once it is done.
    outcome: Mutex<Option<Result<Vec<u64>>>>,
}

impl Waiting {
    fn end(&self, outcome: Result<Vec<u64>>) {
        let mut slot = lock(&self.outcome);
        if slot.is_none() {
            *slot = Some(outcome);
        }
    }

    /// Whether its producer has a newer handle by now, or a group whose placemark it moves is not there any more, since it
    /// or its log was deleted.
    fn is_fenced(&self, side: &SideLog) -> bool {
        self.work.producer.as_ref().is_some_and(|(fence, epoch)| fence.check(*epoch).is_err())
            || self.work.placemarks.iter().any(|placemark| !side.has_group(placemark.key))
    }

    fn has_ended(&self) -> bool {
        lock(&self.outcome).is_some()
    }
}

impl Journal {
    pub(crate) fn new(partition: Arc<PartitionCore>, side: Arc<SideLog>) -> Arc<Self> {
        Arc::new(Self {
            partition,
            side,
            queue: Mutex::default(),
            turned: Condvar::new(),
            touched: Mutex::default(),
            needed: AtomicBool::new(false),
        })
    }

    /// Commits a transaction: all of it or none. Returns the first offset of each part.
    pub(crate) fn commit(self: &Arc<Self>, work: Work) -> Result<Vec<u64>> {
        self.partition.check_usable()?;
        if !work.placemarks.is_empty() && !broken("decided again") {
            // What cannot be shown is better not decided.
            self.side.check_usable()?;
        }
        let waiting = Arc::new(Waiting { work, outcome: Mutex::default() });
        lock(&self.queue).waiting.push_back(Arc::clone(&waiting));
        loop {
            let mut queue = lock(&self.queue);
            while queue.leading && !waiting.has_ended() {
                queue = self.turned.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if let Some(outcome) = lock(&waiting.outcome).take() {
                return outcome;
            }
            queue.leading = true;
            let turn = take_turn(&mut queue.waiting);
            drop(queue);
            self.lead(&turn);
            lock(&self.queue).leading = false;
            self.turned.notify_all();
            self.clean_up_soon();
        }
    }

    /// Decides those that can be; one that cannot does not keep the others.
    fn lead(&self, turn: &[Arc<Waiting>]) {
        let mut rest: Vec<Arc<Waiting>> = turn.to_vec();
        while !rest.is_empty() {
            match self.try_turn(&rest) {
                Ok(true) => return,
                Ok(false) => rest.retain(|waiting| {
                    let fenced = waiting.is_fenced(&self.side);
                    if fenced {
                        waiting.end(Err(Error::Fenced));
                    }
                    !fenced
                }),
                Err(Refused { partition: Some(place), error }) => {
                    let concerns =
                        |waiting: &Arc<Waiting>| waiting.work.parts.iter().any(|(core, _)| place_of(core) == place);
                    let (concerned, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(concerns);
                    match concerned.as_slice() {
                        [alone] => alone.end(Err(error)),
                        // Which of them it cannot take, and why, each finds out by itself.
                        several => several.iter().for_each(|one| self.lead(std::slice::from_ref(one))),
                    }
                    rest = others;
                }
                Err(Refused { partition: None, error }) => {
                    let mut error = Some(error);
                    for waiting in &rest {
                        let failed = || self.partition.check_usable().err().unwrap_or(Error::Closed);
                        waiting.end(Err(error.take().unwrap_or_else(failed)));
                    }
                    return;
                }
            }
        }
    }

    /// False when one of them is fenced: nothing was decided.
    fn try_turn(&self, turn: &[Arc<Waiting>]) -> Result<bool, Refused> {
        let mut by_place: BTreeMap<Place, (&Arc<PartitionCore>, Vec<&Encoded>)> = BTreeMap::new();
        for (core, encoded) in turn.iter().flat_map(|waiting| &waiting.work.parts) {
            by_place.entry(place_of(core)).or_insert_with(|| (core, Vec::new())).1.push(encoded);
        }
        let mut held: BTreeMap<Place, Held<'_>> = BTreeMap::new();
        for (place, (core, frames)) in &by_place {
            let refused = |error| Refused { partition: Some(*place), error };
            let mut place_held = core.hold(frames).map_err(refused)?;
            place_held.sync_ahead().map_err(refused)?;
            held.insert(*place, place_held);
        }
        if turn.iter().any(|waiting| waiting.is_fenced(&self.side)) {
            return Ok(false);
        }
        self.partition.check_usable().map_err(|error| Refused { partition: None, error })?;
        let decisions = self.assign(turn, &held);
        let bases: Vec<Vec<u64>> =
            decisions.iter().map(|decision| decision.parts.iter().map(|part| part.base).collect()).collect();
        if broken("placemark before decision") {
            let _ = decisions.iter().flat_map(|it| &it.placemarks).try_for_each(|it| self.side.decided(it));
        }
        let durable = turn.iter().any(|waiting| waiting.work.durable) && !broken("decision unsynced");
        if let Err(error) = self.decide(&decisions, durable).and_then(|()| apply(turn, &mut held)) {
            return Err(Refused { partition: None, error: self.latch(held, error) });
        }
        self.note_touched(&by_place);
        let mut shown = Ok(());
        for (_, hold) in held {
            shown = shown.and(hold.publish());
        }
        for decided in decisions.iter().flat_map(|decision| &decision.placemarks) {
            shown = shown.and(self.side.decided(decided));
        }
        self.note_applied();
        // What failed now was decided, and the next opening finishes it. Its caller is told that it failed, and may try
        // again, by a batch that comes again or in another partition: were that decided too, it would be there twice.
        if let Err(error) = shown {
            if !broken("decided again") {
                self.partition.close_latch(&self.unfinished(&error));
            }
            return Err(Refused { partition: None, error });
        }
        for (waiting, bases) in turn.iter().zip(bases) {
            waiting.end(Ok(bases));
        }
        Ok(true)
    }

    /// Gives every part its offsets, and every placemark its version.
    fn assign(&self, turn: &[Arc<Waiting>], held: &BTreeMap<Place, Held<'_>>) -> Vec<Decision> {
        let mut next: BTreeMap<Place, u64> = held.iter().map(|(place, hold)| (*place, hold.next())).collect();
        let assign = |waiting: &Arc<Waiting>| {
            let parts = waiting.work.parts.iter().map(|(core, encoded)| {
                let place = place_of(core);
                let slot = next.entry(place).or_default();
                let base = *slot;
                *slot += u64::from(encoded.count);
                Part {
                    log: place.0,
                    partition: place.1,
                    base,
                    timestamp: encoded.timestamp,
                    count: encoded.count,
                    producer: encoded.producer,
                    records: encoded.bytes.clone(),
                }
            });
            let parts = parts.collect();
            let placemarks = waiting.work.placemarks.iter().map(|Move { key, offset, metadata }| DecidedPlacemark {
                group: key.group,
                log: key.log,
                partition: key.partition,
                offset: *offset,
                version: self.side.next_version(*key),
                metadata: metadata.clone(),
            });
            Decision { parts, placemarks: placemarks.collect() }
        };
        turn.iter().map(assign).collect()
    }

    /// The decision: one record each, one sync for all.
    fn decide(&self, decisions: &[Decision], durable: bool) -> Result<()> {
        let mut last = None;
        for decision in decisions.iter().filter(|_| !broken("no decision")) {
            last = Some(self.partition.append_unsynced(&Record::new(decision.encode()))?);
        }
        match last {
            Some(last) if durable => self.partition.wait_durable(last.end),
            _ => Ok(()),
        }
    }

    /// Whether the transactions of this turn are decided is for the next opening to find out: nothing may be given
    /// the offsets that they were assigned.
    fn latch(&self, held: BTreeMap<Place, Held<'_>>, error: Error) -> Error {
        let reason = self.unfinished(&error);
        for (_, hold) in held {
            let core = Arc::clone(hold.partition());
            core.close_latch(&reason);
            drop(hold);
            core.fail(core.dir(), self.unfinished(&error));
        }
        self.partition.close_latch(&reason);
        self.side.close_latch(&reason);
        error
    }

    /// Why nothing more is decided.
    fn unfinished(&self, error: &Error) -> Error {
        Error::Failed {
            path: self.partition.dir().to_path_buf(),
            reason: format!("a transaction could not be finished ({error}); the next opening finishes it"),
        }
    }

    fn note_touched(&self, by_place: &BTreeMap<Place, (&Arc<PartitionCore>, Vec<&Encoded>)>) {
        let mut touched = lock(&self.touched);
        for (place, (core, _)) in by_place {
            touched.partitions.entry(*place).or_insert_with(|| Arc::clone(core));
        }
    }

    fn note_applied(&self) {
        // Only the leader appends to the journal, and all that it has appended is applied by now.
        lock(&self.touched).applied = self.partition.written_end();
    }

    /// Says whether what it has is still needed by a log that could not be opened.
    pub(crate) fn set_needed(&self, needed: bool) {
        self.needed.store(needed, Ordering::Release);
    }

    fn clean_up_soon(self: &Arc<Self>) {
        let needed = self.needed.load(Ordering::Acquire);
        if needed || !self.partition.has_rolled() || std::mem::replace(&mut lock(&self.touched).cleaning, true) {
            return;
        }
        let journal = Arc::clone(self);
        self.partition.env().background.submit(move || {
            // A failure is kept by the latch of the partition where it happened; the journal keeps its records.
            let _ = journal.clean_up();
            lock(&journal.touched).cleaning = false;
        });
    }

    /// Removes segments of decisions all of which are durable where they were applied.
    pub(crate) fn clean_up(&self) -> Result<()> {
        let (partitions, applied) = {
            let mut touched = lock(&self.touched);
            (std::mem::take(&mut touched.partitions), touched.applied)
        };
        let synced = self.sync_all(partitions.values());
        if synced.is_err() {
            lock(&self.touched).partitions.extend(partitions);
        }
        synced?;
        self.partition.drop_before(applied)
    }

    fn sync_all<'a>(&self, partitions: impl Iterator<Item = &'a Arc<PartitionCore>>) -> Result<()> {
        for partition in partitions {
            match partition.sync() {
                // Closed: its log was deleted, or the store is being closed, which syncs it.
                Ok(()) | Err(Error::Closed) => {}
                Err(error) => return Err(error),
            }
        }
        self.side.sync()
    }

    /// Every partition and the side log have been closed cleanly: nothing in the journal is needed any more, unless
    /// `unapplied` parts wait for a log that could not be opened.
    pub(crate) fn close(&self, unapplied: bool) -> Result<()> {
        if !unapplied && self.partition.written_end() > self.partition.start() && self.partition.check_usable().is_ok()
        {
            self.partition.roll()?;
            self.partition.drop_before(u64::MAX)?;
        }
        self.partition.close()
    }

    pub(crate) fn partition(&self) -> &Arc<PartitionCore> {
        &self.partition
    }
}

/// Why a turn was not decided.
struct Refused {
    /// The partition that cannot take its part; `None` when it concerns all.
    partition: Option<Place>,
    error: Error,
}

fn place_of(core: &PartitionCore) -> Place {
    (core.ident().log, core.ident().partition)
}

/// As many as fit in the partitions' segments together; at least one.
fn take_turn(waiting: &mut VecDeque<Arc<Waiting>>) -> Vec<Arc<Waiting>> {
    let mut sizes: BTreeMap<Place, u64> = BTreeMap::new();
    let mut total = 0;
    let mut turn = Vec::new();
    while let Some(next) = waiting.front() {
        let mut fits = true;
        for (core, encoded) in &next.work.parts {
            let size = sizes.entry(place_of(core)).or_default();
            *size += encoded.bytes.len() as u64 + 64;
            total += encoded.bytes.len() as u64 + 64;
            fits &= *size <= core.frame_limit();
        }
        if !turn.is_empty() && (!fits || total > SEGMENT_BYTES / 2) {
            break;
        }
        turn.extend(waiting.pop_front());
    }
    turn
}

fn apply(turn: &[Arc<Waiting>], held: &mut BTreeMap<Place, Held<'_>>) -> Result<()> {
    for (core, encoded) in turn.iter().flat_map(|waiting| &waiting.work.parts) {
        if let Some(hold) = held.get_mut(&place_of(core)) {
            hold.apply(encoded)?;
        }
    }
    Ok(())
}
