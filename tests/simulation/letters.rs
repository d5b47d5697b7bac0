//! Records that cannot be processed: one in four, by its number. Their attempts are counted, and then they are passed:
//! by one group to a log of dead letters, by another to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use placemark::{AtLeastOnce, Batch, Consumer, Entry, Log, LogOptions, StartAt};

use crate::model::{GivenUp, Id, Inc, Model, Status};
use crate::run::Run;
use crate::seen::{Seen, Trouble, check_entry};

/// Where dead letters go.
pub(crate) const LETTERS: &str = "letters";

/// So often a record may fail.
const ATTEMPTS: u32 = 2;

const REASON: &str = "one in four";

/// A dead letter: where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    id: Id,
    log: String,
    partition: u32,
    offset: u64,
}

pub(crate) struct Failing {
    consumer: Consumer<AtLeastOnce>,
    /// By partition, where the group is.
    at: BTreeMap<u32, u64>,
}

/// Whether records fail in a group of this name.
pub(crate) fn is_failing(group: &str) -> bool {
    group.starts_with("failing") || group.starts_with("skipping")
}

/// Whether a record fails whenever it is handed out.
fn fails(id: Id) -> bool {
    id.is_multiple_of(4)
}

/// What a log of dead letters has.
pub(crate) fn read(log: &Log, model: &Model) -> Result<Vec<Letter>, Trouble> {
    let mut letters = Vec::new();
    for number in 0..log.partitions() {
        let partition = log.partition(number).map_err(|error| Trouble::Failed("partition", error))?;
        for entry in partition.read(StartAt::Earliest).map_err(|error| Trouble::Failed("read", error))? {
            let entry = entry.map_err(|error| Trouble::Failed("next", error))?;
            letters.push(letter(model, &entry).map_err(Trouble::Wrong)?);
        }
    }
    Ok(letters)
}

fn letter(model: &Model, entry: &Entry) -> Result<Letter, String> {
    let at = format!("letter {}:{}", entry.partition(), entry.offset());
    let text = |name: &str| {
        let value = entry.header(name).map(String::from_utf8_lossy);
        value.ok_or_else(|| format!("{at} has no {name}"))
    };
    let number = |name: &str| text(name)?.parse::<u64>().map_err(|error| format!("{name} of {at}: {error}"));
    let id = crate::seen::id_of(entry).filter(|id| *id < model.records.len());
    let id = id.ok_or_else(|| format!("{at} is none of any record"))?;
    let rec = &model.records[id];
    let value = if entry.is_tombstone() { None } else { Some(entry.value()) };
    if value != rec.value.as_deref() || entry.key() != rec.key.as_deref() || entry.header("h").is_some() != rec.header {
        return Err(format!("{at} does not have what record {id} has"));
    }
    let attempts = number("placemark-attempts")?;
    if attempts < u64::from(ATTEMPTS) || text("placemark-reason")?.is_empty() {
        return Err(format!("{at}, of record {id}, was passed after {attempts} attempts"));
    }
    let partition = u32::try_from(number("placemark-partition")?).map_err(|error| format!("{at}: {error}"))?;
    Ok(Letter { id, log: text("placemark-log")?.into_owned(), partition, offset: number("placemark-offset")? })
}

/// Holds dead letters against the placemarks of the groups that wrote them: one was written if and only if its record
/// was passed, and a record that was neither processed nor written there was not passed.
pub(crate) fn verify(model: &Model, seen: &Seen, incs: &BTreeMap<Inc, &str>) -> Result<(), String> {
    if seen.letters.is_none() && model.letters == Some(true) {
        return Err("the log of dead letters is gone".to_owned());
    }
    let none = Vec::new();
    let letters = seen.letters.as_ref().unwrap_or(&none);
    let mut written: BTreeSet<Id> = BTreeSet::new();
    for letter in letters {
        let rec = &model.records[letter.id];
        let Some(log) = incs.get(&rec.inc) else { continue };
        let place = (letter.log.as_str(), Some(letter.partition), Some(letter.offset));
        let known = (*log, rec.partition.or(place.1), rec.offset.or(place.2));
        if place != known {
            return Err(format!("a letter of record {} says that it was at {place:?}, not {known:?}", letter.id));
        }
        if !written.insert(letter.id) {
            return Err(format!("record {} was passed to the dead letters twice", letter.id));
        }
        let group = format!("failing-{log}");
        let at = seen.marks.get(&(group.clone(), (*log).to_owned(), letter.partition));
        if at.is_none_or(|(at, _)| *at <= letter.offset) {
            return Err(format!("{letter:?} was written, and {group} is at {at:?}"));
        }
        if !fails(letter.id) && !may_fail(model, &group, rec.inc, letter.id) {
            return Err(format!("record {} has never failed, and was passed to the dead letters", letter.id));
        }
    }
    for (inc, log) in incs {
        for (name, group) in model.logs[*inc].groups.iter().filter(|(name, _)| is_failing(name)) {
            for (id, rec) in model.records.iter().enumerate().filter(|(_, rec)| rec.inc == *inc) {
                let (Some(partition), Some(offset)) = (rec.partition, rec.offset) else { continue };
                let at = seen.marks.get(&(name.clone(), (*log).to_owned(), partition));
                let passed = at.is_some_and(|(at, _)| *at > offset);
                let sure = matches!(rec.status, Status::Cached | Status::Durable) && rec.given_up == GivenUp::No;
                if !passed || !sure || group.settled.contains(&id) || written.contains(&id) {
                    continue;
                }
                let skipped = name.starts_with("skipping") && (fails(id) || may_fail(model, name, *inc, id));
                if !skipped {
                    return Err(format!("{name} is at {at:?}, and record {id} at {partition}:{offset} is nowhere"));
                }
            }
        }
    }
    Ok(())
}

/// Whether attempts of a record that can be processed may have been counted as often as they may be: it was dropped, or in
/// hand at crashes.
fn may_fail(model: &Model, group: &str, inc: Inc, id: Id) -> bool {
    model.crashes >= ATTEMPTS || model.logs[inc].groups.get(group).is_some_and(|known| known.suspects.contains(&id))
}

impl Run<'_> {
    pub(crate) fn failing(&mut self, inc: Inc) -> Result<(), String> {
        if self.live.as_ref().unwrap().letters.is_none() {
            self.make_letters()?;
            if self.live.as_ref().unwrap().letters.is_none() {
                return Ok(());
            }
        }
        let kind = if self.rng.one_in(3) { "skipping" } else { "failing" };
        let of = (inc, format!("{kind}-{}", self.model.logs[inc].name));
        if !self.live.as_ref().unwrap().failing.contains_key(&of) {
            self.failing_begins(&of)?;
        }
        for _ in 0..=self.rng.below(10) {
            if !self.live.as_ref().unwrap().failing.contains_key(&of) {
                return Ok(());
            }
            match self.rng.below(12) {
                0 => {
                    self.note(format!("{} leaves", of.1));
                    self.live.as_mut().unwrap().failing.remove(&of);
                }
                1 if self.can_run(&of) => self.run_failing(&of)?,
                _ => self.poll_failing(&of)?,
            }
        }
        Ok(())
    }

    fn make_letters(&mut self) -> Result<(), String> {
        self.model.letters.get_or_insert(false);
        let partitions = 1 + u32::try_from(self.rng.below(2)).unwrap();
        let options =
            if self.model.letters == Some(true) { LogOptions::new() } else { LogOptions::new().partitions(partitions) };
        let made = self.act("open the dead letters", |live, _| {
            let live = live.as_mut().unwrap();
            live.letters = Some(live.store.log_with(LETTERS, options.segment_bytes(64 << 10))?);
            Ok(())
        })?;
        if made.is_some() {
            self.model.letters = Some(true);
        }
        Ok(())
    }

    fn failing_begins(&mut self, of: &(Inc, String)) -> Result<(), String> {
        self.will_begin(of.0, "failing", &of.1);
        let joined = self.act(format!("join {}", of.1), |live, _| {
            let live = live.as_mut().unwrap();
            let builder = live.logs[&of.0].consumer(&of.1).max_poll_records(3).max_attempts(ATTEMPTS);
            let builder = builder.backoff(Duration::from_nanos(1), Duration::from_nanos(1));
            let builder = match &live.letters {
                Some(letters) if of.1.starts_with("failing") => builder.dead_letter(letters),
                _ => builder.skip(),
            };
            let failing = Failing { consumer: builder.at_least_once()?, at: BTreeMap::new() };
            live.failing.insert(of.clone(), failing);
            Ok(())
        })?;
        if joined.is_none() {
            return Ok(());
        }
        for number in 0..self.model.logs[of.0].count() {
            let position = self.failing_of(of).consumer.position(number);
            let position = self.begins(of.0, &of.1, number, position)?;
            self.failing_of(of).at.insert(number, position);
        }
        Ok(())
    }

    fn failing_of(&mut self, of: &(Inc, String)) -> &mut Failing {
        self.live.as_mut().unwrap().failing.get_mut(of).unwrap()
    }

    fn known(&mut self, of: &(Inc, String)) -> &mut crate::model::GroupModel {
        self.model.logs[of.0].groups.get_mut(&of.1).unwrap()
    }

    /// By partition, the records from where the group is.
    fn ahead(&self, of: &(Inc, String)) -> BTreeMap<u32, Vec<(u64, Id)>> {
        let failing = &self.live.as_ref().unwrap().failing[of];
        let mut all = BTreeMap::new();
        for number in 0..self.model.logs[of.0].count() {
            let from = failing.at.get(&number).copied().unwrap_or(0);
            let of_it = self.model.of_partition(of.0, number).filter_map(|(id, rec)| Some((rec.offset?, id)));
            let mut ahead: Vec<(u64, Id)> = of_it.filter(|(at, _)| *at >= from).collect();
            ahead.sort_unstable();
            all.insert(number, ahead);
        }
        all
    }

    /// Makes a call that may move the placemarks of a group over what it settles and passes, and takes in where they are.
    fn moves<T>(
        &mut self,
        of: &(Inc, String),
        what: String,
        call: impl FnOnce(&mut Consumer<AtLeastOnce>) -> placemark::Result<T>,
    ) -> Result<Option<T>, String> {
        let ahead = self.ahead(of);
        let before = self.known(of).marks.clone();
        for (number, records) in &ahead {
            for (offset, _) in records {
                // What is before a record that fails is settled, also where that is nothing.
                self.mark(of.0, &of.1, *number, *offset, None);
                self.mark(of.0, &of.1, *number, offset + 1, None);
            }
        }
        let done = self.act(what, |live, _| call(&mut live.as_mut().unwrap().failing.get_mut(of).unwrap().consumer))?;
        if done.is_none() {
            return Ok(None);
        }
        self.known(of).marks = before;
        let acked = Model::acked(self.model.durability);
        for (number, records) in ahead {
            let failing = self.failing_of(of);
            let from = failing.at.get(&number).copied().unwrap_or(0);
            let to = failing.consumer.committed(number).filter(|to| *to > from);
            let Some(to) = to else { continue };
            failing.at.insert(number, to);
            // It got there step by step, and power loss may leave any of them.
            for offset in records.iter().flat_map(|(offset, _)| [*offset, offset + 1]).filter(|offset| *offset < to) {
                self.mark(of.0, &of.1, number, offset, None);
            }
            self.mark(of.0, &of.1, number, to, None);
            // What was passed to the dead letters is decided, and stays so.
            let last = records.iter().rev().find(|(at, _)| *at < to).map(|(_, id)| *id);
            let decided = of.1.starts_with("failing") && last.is_some_and(|id| !self.known(of).settled.contains(&id));
            self.settle_mark(of.0, &of.1, number, if decided { Status::Durable } else { acked });
        }
        Ok(done)
    }

    fn poll_failing(&mut self, of: &(Inc, String)) -> Result<(), String> {
        let polled = self.moves(of, format!("poll {}", of.1), |consumer| consumer.poll(Duration::ZERO))?;
        let Some(polled) = polled else { return Ok(()) };
        let Some(batch) = polled else { return self.nothing_fails(of) };
        let ids = self.in_order(of, &batch)?;
        let bad = ids.iter().position(|id| fails(*id));
        match (bad, self.rng.below(6)) {
            (_, 0) => {
                self.note(format!("drop {ids:?}"));
                self.known(of).suspects.extend(ids);
                drop(batch);
                Ok(())
            }
            (Some(bad), _) => {
                let offset = batch.iter().nth(bad).unwrap().offset();
                self.known(of).settled.extend(&ids[..bad]);
                let what = format!("{:?} fails in {ids:?}", ids[bad]);
                self.moves(of, what, |_| batch.fail(offset, REASON))?;
                Ok(())
            }
            (None, _) => {
                self.known(of).settled.extend(&ids);
                self.moves(of, format!("commit {ids:?}"), |_| batch.commit())?;
                Ok(())
            }
        }
    }

    /// The numbers of a batch's records, which begin where the group is and leave nothing out.
    fn in_order(&mut self, of: &(Inc, String), batch: &Batch<AtLeastOnce>) -> Result<Vec<Id>, String> {
        let mut ids = Vec::new();
        for entry in batch {
            ids.push(check_entry(&self.model, entry).map_err(|wrong| format!("{}: {wrong}", of.1))?);
        }
        let ahead = self.ahead(of).remove(&batch.partition()).unwrap_or_default();
        let expected: Vec<Id> = ahead.iter().map(|(_, id)| *id).take(ids.len()).collect();
        // Of what was asked for and not answered it is not known where it is.
        if ids != expected && self.failed.is_none() {
            return Err(format!("{} got {ids:?}, and {expected:?} are next", of.1));
        }
        Ok(ids)
    }

    fn nothing_fails(&mut self, of: &(Inc, String)) -> Result<(), String> {
        let waits = self.ahead(of).into_iter().find(|(_, records)| !records.is_empty());
        match waits.filter(|_| self.failed.is_none()) {
            Some(waits) => Err(format!("{} gets nothing, and {waits:?} wait", of.1)),
            None => Ok(()),
        }
    }

    /// Whether a record waits that is handed out whatever was counted, so that a run comes to its end.
    fn can_run(&self, of: &(Inc, String)) -> bool {
        self.last_good(of).is_some() && self.failed.is_none() && self.model.crashes < ATTEMPTS
    }

    fn last_good(&self, of: &(Inc, String)) -> Option<Id> {
        let suspects = &self.model.logs[of.0].groups[&of.1].suspects;
        let good = |id: &Id| !fails(*id) && !suspects.contains(id);
        self.ahead(of).into_values().flatten().map(|(_, id)| id).filter(good).max()
    }

    /// Hands records to a closure until one that waits has come.
    fn run_failing(&mut self, of: &(Inc, String)) -> Result<(), String> {
        let Some(until) = self.last_good(of) else { return Ok(()) };
        let asked: Vec<Id> =
            self.ahead(of).into_values().flatten().map(|(_, id)| id).filter(|id| !fails(*id)).collect();
        let before = self.known(of).settled.clone();
        self.known(of).settled.extend(asked);
        let mut came: Vec<Id> = Vec::new();
        let run = self.moves(of, format!("run {} until {until}", of.1), |consumer| {
            let stopper = consumer.stopper();
            consumer.run(|entry| {
                let id = crate::seen::id_of(entry).unwrap_or(Id::MAX);
                if id == until {
                    stopper.stop();
                }
                if fails(id) {
                    return Err(REASON);
                }
                came.push(id);
                Ok(())
            })
        })?;
        if run.is_none() {
            return Ok(());
        }
        let once: BTreeSet<Id> = came.iter().copied().collect();
        if once.len() != came.len() || !once.contains(&until) {
            return Err(format!("{} ran until {until}, and {came:?} came", of.1));
        }
        let known = self.known(of);
        known.settled = before;
        known.settled.extend(&once);
        let left = self.ahead(of).into_values().flatten().find(|(_, id)| once.contains(id));
        match left.filter(|_| self.failed.is_none()) {
            Some((offset, id)) => Err(format!("{} has processed record {id} at {offset}, and not passed it", of.1)),
            None => Ok(()),
        }
    }
}
