//! The same for groups: each mode has its own of every log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use placemark::{Batch, Durability, Entry, Record, StartAt};

use crate::model::{History, Id, Inc, Model, Note, Status};
use crate::notes;
use crate::run::{AnyConsumer, Live, Member, Pending, Run};
use crate::seen::{check_entry, id_of};
use crate::steps::build;

const MODES: [&str; 5] = ["once", "least", "exactly", "database", "late"];

/// Most records of a batch.
const MOST: usize = 3;

impl Run<'_> {
    pub(crate) fn consume(&mut self, inc: Inc) -> Result<(), String> {
        let mode = MODES[self.rng.below(MODES.len())];
        if mode == "database" && self.model.logs[inc].durability != Durability::Sync {
            // What the database knows must not be lost here.
            return Ok(());
        }
        let own = format!("{mode}-{}", self.model.logs[inc].name);
        let copied = if mode == "least" && self.rng.one_in(2) { self.some_fork(inc) } else { None };
        let group = copied.unwrap_or(own);
        if self.model.logs[inc].groups.get(&group).is_some_and(|known| known.leaving.is_some()) {
            return Ok(());
        }
        if mode == "database" {
            self.skip_trimmed(inc, &group);
        }
        if !self.live.as_ref().unwrap().members.contains_key(&(inc, group.clone())) {
            self.join(inc, mode, &group)?;
            if !self.live.as_ref().unwrap().members.contains_key(&(inc, group.clone())) {
                return Ok(());
            }
            self.examine_now()?;
        }
        match mode {
            "once" => self.poll_once(inc, &group),
            "exactly" => self.poll_exactly(inc, &group),
            "database" => self.poll_database(inc, &group),
            _ => {
                // Several in a row, so that some are in hand at the same time.
                for _ in 0..=self.rng.below(6) {
                    self.poll_least(inc, &group)?;
                }
                Ok(())
            }
        }
    }

    /// The application goes on behind what was given up: a position before it would be refused.
    fn skip_trimmed(&mut self, inc: Inc, group: &str) {
        let starts = self.starts(inc);
        let known = self.model.logs[inc].groups.entry(group.to_owned()).or_default();
        let member = self.live.as_mut().unwrap().members.get_mut(&(inc, group.to_owned()));
        for (number, at) in &mut known.database {
            *at = starts.get(*number as usize).copied().unwrap_or(0).max(*at);
        }
        if let Some(member) = member {
            member.database.lock().unwrap().clone_from(&known.database);
        }
    }

    fn join(&mut self, inc: Inc, mode: &str, group: &str) -> Result<(), String> {
        self.will_begin(inc, mode, group);
        let known = &self.model.logs[inc].groups[group];
        let database = Arc::new(Mutex::new(known.database.clone()));
        let joined = self.act(format!("join {group}"), |live, _| {
            let live = live.as_mut().unwrap();
            let consumer = consumer(live, inc, mode, group, &database)?;
            live.members.insert((inc, group.to_owned()), Member::new(consumer, database));
            Ok(())
        })?;
        if joined.is_none() {
            return Ok(());
        }
        for number in 0..self.model.logs[inc].count() {
            let position = self.member(inc, group).consumer.position(number);
            let position = self.begins(inc, group, number, position)?;
            let known = self.model.logs[inc].groups.get_mut(group).unwrap();
            let from = known.database.get(&number).copied().filter(|_| mode == "database").unwrap_or(position);
            let member = self.member(inc, group);
            member.next.insert(number, from);
            member.floor.insert(number, position);
        }
        Ok(())
    }

    /// A group is about to be joined: where it may begin, if it has not begun.
    pub(crate) fn will_begin(&mut self, inc: Inc, mode: &str, group: &str) {
        let count = self.model.logs[inc].count();
        let (starts, ends) = (self.starts(inc), self.ends(inc));
        let known = self.model.logs[inc].groups.entry(group.to_owned()).or_default();
        let begun = known.marks.values().chain(known.starts.values()).any(|history| history.last().is_some());
        // What only the page cache had may have outlived a power loss: then this is no new group, and partitions that were
        // added since are read from their first record.
        let perhaps = known.starts.values().any(|history| !history.0.is_empty());
        for number in (0..count).filter(|_| !begun) {
            if perhaps && known.starts.get(&number).is_none_or(|history| history.0.is_empty()) {
                known.starts.entry(number).or_default().push(0, None, Status::Open);
            }
            let start = if mode == "late" { ends[number as usize] } else { starts[number as usize] };
            known.starts.entry(number).or_default().push(start, None, Status::Open);
        }
    }

    /// Where a group that was joined begins in a partition: at its placemark, or where it started.
    pub(crate) fn begins(&mut self, inc: Inc, group: &str, number: u32, position: Option<u64>) -> Result<u64, String> {
        let acked = Model::acked(self.model.durability);
        // Offsets without a record may have been stepped over.
        let there: BTreeSet<u64> = self.model.of_partition(inc, number).filter_map(|(_, rec)| rec.offset).collect();
        let known = self.model.logs[inc].groups.get_mut(group).unwrap();
        if known.status == Status::Open {
            known.status = Status::Durable;
        }
        let mark = known.marks.get(&number).and_then(History::last).map(|mark| mark.at);
        let starts = known.starts.entry(number).or_default();
        let mut allowed: Vec<u64> = mark.into_iter().collect();
        if mark.is_none() {
            let sure = starts.0.iter().rposition(|mark| mark.status == Status::Durable).unwrap_or(0);
            allowed.extend(starts.0.iter().skip(sure).map(|mark| mark.at));
            // A partition that came later is read from its first record.
            allowed.extend(starts.0.is_empty().then_some(0));
        }
        let may =
            |at: &u64| allowed.iter().any(|from| from == at || from < at && there.range(from..at).next().is_none());
        let Some(position) = position.filter(may) else {
            return Err(format!("group {group} begins partition {number} at {position:?}, not {allowed:?}"));
        };
        if mark.is_none() {
            starts.0.clear();
            starts.push(position, None, acked);
        }
        Ok(position)
    }

    fn member(&mut self, inc: Inc, group: &str) -> &mut Member {
        self.live.as_mut().unwrap().members.get_mut(&(inc, group.to_owned())).unwrap()
    }

    /// Holds what a poll delivered against what is next: nothing skipped, nothing that is not there.
    fn delivered(&mut self, inc: Inc, group: &str, entries: &[Entry], end: u64) -> Result<u64, String> {
        let partition = entries[0].partition();
        let from = self.member(inc, group).next.get(&partition).copied().unwrap_or(0);
        let mut ids = Vec::new();
        for entry in entries {
            let id = check_entry(&self.model, entry).map_err(|wrong| format!("group {group}: {wrong}"))?;
            // A batch whose commit failed is delivered again.
            let behind = entry.offset() < from && self.failed.is_none();
            if behind || self.model.records[id].inc != inc {
                return Err(format!("group {group} got record {id} at {partition}:{} behind {from}", entry.offset()));
            }
            ids.push(id);
        }
        let last = entries.last().map_or(from, Entry::offset);
        let missed = self.model.of_partition(inc, partition).find(|(id, rec)| {
            rec.offset.is_some_and(|offset| offset >= from && offset <= last)
                && rec.status != Status::Open
                && !ids.contains(id)
        });
        if let Some((id, rec)) = missed {
            return Err(format!("group {group} got {ids:?} and not record {id} at {partition}:{:?}", rec.offset));
        }
        self.member(inc, group).next.insert(partition, end);
        Ok(from)
    }

    /// Nothing was delivered: then nothing is there.
    fn nothing(&mut self, inc: Inc, group: &str) -> Result<(), String> {
        let held = self.live.as_ref().unwrap().pending.iter().any(|p| p.inc == inc && p.group == group);
        // Only so much is in hand at a time.
        if self.failed.is_some() || held {
            return Ok(());
        }
        let next = self.member(inc, group).next.clone();
        for number in 0..self.model.logs[inc].count() {
            let from = next.get(&number).copied().unwrap_or(0);
            let waiting = self.model.of_partition(inc, number).find(|(_, rec)| rec.offset.is_some_and(|at| at >= from));
            if let Some((id, rec)) = waiting {
                return Err(format!("group {group} gets nothing, and record {id} at {number}:{:?} waits", rec.offset));
            }
        }
        Ok(())
    }

    /// Where a batch would end that is read from each partition now.
    fn batch_ends(&mut self, inc: Inc, group: &str) -> Vec<(u32, u64)> {
        let ends = self.ends(inc);
        let next = self.member(inc, group).next.clone();
        let mut all = Vec::new();
        for (number, end) in (0_u32..).zip(ends) {
            let from = next.get(&number).copied().unwrap_or(0);
            let wanted: Vec<u64> = self
                .model
                .of_partition(inc, number)
                .filter_map(|(_, rec)| rec.offset)
                .filter(|at| *at >= from)
                .collect();
            match wanted.get(..MOST) {
                Some(batch) => all.push((number, batch[MOST - 1] + 1)),
                None if wanted.is_empty() => {}
                None => all.push((number, end)),
            }
        }
        all
    }

    pub(crate) fn mark(&mut self, inc: Inc, group: &str, partition: u32, at: u64, note: Note) {
        let known = self.model.logs[inc].groups.get_mut(group).unwrap();
        known.marks.entry(partition).or_default().push(at, note, Status::Open);
    }

    pub(crate) fn settle_mark(&mut self, inc: Inc, group: &str, partition: u32, status: Status) {
        let known = self.model.logs[inc].groups.get_mut(group).unwrap();
        known.marks.entry(partition).or_default().settle(status);
    }

    fn poll_once(&mut self, inc: Inc, group: &str) -> Result<(), String> {
        let may = self.batch_ends(inc, group);
        for (partition, end) in &may {
            self.mark(inc, group, *partition, *end, None);
        }
        let polled = self.act(format!("poll {group}"), |live, _| {
            let AnyConsumer::AtMostOnce(consumer) = &mut of(live.as_mut().unwrap(), inc, group).consumer else {
                unreachable!()
            };
            consumer.poll(Duration::ZERO)
        })?;
        let Some(polled) = polled else { return Ok(()) };
        let took = polled.as_ref().map(Batch::partition);
        for (partition, _) in may.iter().filter(|(partition, _)| Some(*partition) != took) {
            self.model.logs[inc].groups.get_mut(group).unwrap().marks.get_mut(partition).unwrap().0.pop();
        }
        let Some(batch) = polled else { return self.nothing(inc, group) };
        let entries: Vec<Entry> = batch.iter().cloned().collect();
        let end = batch.placemark().offset;
        self.delivered(inc, group, &entries, end)?;
        let partition = batch.partition();
        if !may.contains(&(partition, end)) && !self.faulty {
            return Err(format!("group {group} took {partition} up to {end}, not {may:?}"));
        }
        self.mark(inc, group, partition, end, None);
        let acked = Model::acked(self.model.durability);
        self.settle_mark(inc, group, partition, acked);
        Ok(())
    }

    fn poll_least(&mut self, inc: Inc, group: &str) -> Result<(), String> {
        let held = self.live.as_ref().unwrap().pending.iter().filter(|p| p.inc == inc && p.group == group).count();
        if held >= 4 || held > 0 && self.rng.one_in(3) {
            return self.settle_one(inc, group);
        }
        let polled = self.act(format!("poll {group}"), |live, _| {
            let AnyConsumer::AtLeastOnce(consumer) = &mut of(live.as_mut().unwrap(), inc, group).consumer else {
                unreachable!()
            };
            consumer.poll(Duration::ZERO)
        })?;
        let Some(polled) = polled else { return Ok(()) };
        let Some(batch) = polled else { return self.nothing(inc, group) };
        let entries: Vec<Entry> = batch.iter().cloned().collect();
        let from = self.delivered(inc, group, &entries, batch.placemark().offset)?;
        self.live.as_mut().unwrap().pending.push(Pending { inc, group: group.to_owned(), from, batch });
        Ok(())
    }

    /// Commits one of the batches in hand, or drops it.
    fn settle_one(&mut self, inc: Inc, group: &str) -> Result<(), String> {
        let live = self.live.as_mut().unwrap();
        let held: Vec<usize> = (0..live.pending.len())
            .filter(|at| live.pending[*at].inc == inc && live.pending[*at].group == group)
            .collect();
        let Some(at) = self.rng.pick(&held).copied() else { return Ok(()) };
        let live = self.live.as_mut().unwrap();
        let Pending { from, batch, .. } = live.pending.remove(at);
        let (partition, end) = (batch.partition(), batch.placemark().offset);
        let others = live.pending.iter().any(|p| p.inc == inc && p.group == group && p.batch.partition() == partition);
        if !others && self.rng.one_in(6) {
            self.note(format!("drop a batch of {group} {partition}:{from}..{end}"));
            drop(batch);
            let member = self.member(inc, group);
            member.next.insert(partition, from);
            return Ok(());
        }
        let member = self.member(inc, group);
        let floor = member.floor.get(&partition).copied().unwrap_or(0);
        let note = notes::some(&mut self.rng);
        let member = self.member(inc, group);
        member.above.insert((partition, from, end, note));
        let (mut reached, mut noted) = (floor, None);
        while let Some(next) =
            member.above.iter().find(|(of, from, end, _)| *of == partition && *from <= reached && *end > reached)
        {
            (reached, noted) = (next.2, next.3);
        }
        member.floor.insert(partition, reached);
        if reached > floor {
            self.mark(inc, group, partition, reached, noted);
        }
        let done = self.act(format!("commit {group} {partition}:{from}..{end} {note:?}"), |_, _| match note {
            Some(note) => batch.commit_with_metadata(notes::bytes(note)),
            None => batch.commit(),
        })?;
        if done.is_none() {
            let member = self.member(inc, group);
            member.floor.insert(partition, floor);
            member.above.remove(&(partition, from, end, note));
        } else if reached > floor {
            let acked = Model::acked(self.model.durability);
            self.settle_mark(inc, group, partition, acked);
        }
        Ok(())
    }

    fn poll_exactly(&mut self, inc: Inc, group: &str) -> Result<(), String> {
        let polled = self.act(format!("poll {group}"), |live, _| {
            let AnyConsumer::ExactlyOnce(consumer) = &mut of(live.as_mut().unwrap(), inc, group).consumer else {
                unreachable!()
            };
            consumer.poll(Duration::ZERO)
        })?;
        let Some(polled) = polled else { return Ok(()) };
        let Some(batch) = polled else { return self.nothing(inc, group) };
        let entries: Vec<Entry> = batch.iter().cloned().collect();
        let (partition, end) = (batch.partition(), batch.placemark().offset);
        let from = self.delivered(inc, group, &entries, end)?;
        if self.rng.one_in(8) {
            self.note("drop it");
            self.member(inc, group).next.insert(partition, from);
            return Ok(());
        }
        self.examine_now()?;
        let open: Vec<Inc> = self.live.as_ref().unwrap().logs.keys().copied().filter(|out| *out != inc).collect();
        let unit = self.model.unit(true);
        let ids: Vec<Id> = match self.rng.pick(&open).copied() {
            Some(out) => entries.iter().map(|entry| self.output(out, unit, inc, group, entry)).collect(),
            None => Vec::new(),
        };
        let note = notes::some(&mut self.rng);
        self.mark(inc, group, partition, end, note);
        if self.failed.is_none() {
            // When it is tried again, what is found may be of the first time or of this one.
            self.model.units[unit].marks.push((inc, group.to_owned(), partition, (end, note)));
        }
        let ends: Vec<(Inc, Vec<u64>)> = open.iter().map(|inc| (*inc, self.ends(*inc))).collect();
        let records: Vec<(Inc, Record<'static>)> =
            ids.iter().map(|id| (self.model.records[*id].inc, build(&self.model, *id))).collect();
        let done = self.act(format!("commit {group} {partition}:{from}..{end} with {ids:?}"), |live, _| {
            let live = live.as_ref().unwrap();
            let mut txn = live.store.transaction();
            for (inc, record) in records {
                txn.append(&live.logs[&inc], record)?;
            }
            match note {
                Some(note) => txn.commit_with_metadata(batch, notes::bytes(note)),
                None => txn.commit_with(batch),
            }
        })?;
        if done.is_none() {
            // A program may well try again.
            return if self.rng.one_in(3) { Ok(()) } else { self.poll_exactly(inc, group) };
        }
        self.settle_mark(inc, group, partition, Status::Durable);
        // It is decided: a later placemark of the same value is another.
        self.model.units[unit].marks.clear();
        self.committed(&ids, &ends)?;
        // What comes after a decision must not be undone when the decision is made good by the next opening.
        if self.failed.is_none() && self.rng.one_in(4) { self.reset_group(inc, group) } else { Ok(()) }
    }

    fn poll_database(&mut self, inc: Inc, group: &str) -> Result<(), String> {
        let polled = self.act(format!("poll {group}"), |live, _| {
            let AnyConsumer::ExactlyOnceFrom(consumer) = &mut of(live.as_mut().unwrap(), inc, group).consumer else {
                unreachable!()
            };
            consumer.poll(Duration::ZERO)
        })?;
        let Some(polled) = polled else { return Ok(()) };
        let Some(batch) = polled else { return self.nothing(inc, group) };
        let entries: Vec<Entry> = batch.iter().cloned().collect();
        let (partition, end) = (batch.partition(), batch.placemark().offset);
        let from = self.delivered(inc, group, &entries, end)?;
        if self.rng.one_in(4) {
            self.note("drop it");
            self.member(inc, group).next.insert(partition, from);
            return Ok(());
        }
        // The database's own transaction.
        self.member(inc, group).database.lock().unwrap().insert(partition, end);
        self.model.logs[inc].groups.get_mut(group).unwrap().database.insert(partition, end);
        let note = notes::some(&mut self.rng);
        self.mark(inc, group, partition, end, note);
        let done = self.act(format!("commit {group} {partition}:{from}..{end} {note:?}"), |_, _| match note {
            Some(note) => batch.commit_with_metadata(notes::bytes(note)),
            None => batch.commit(),
        })?;
        if done.is_some() {
            let acked = Model::acked(self.model.durability);
            self.settle_mark(inc, group, partition, acked);
        }
        Ok(())
    }

    /// A record that is made from another one, once.
    fn output(&mut self, out: Inc, unit: usize, inc: Inc, group: &str, from: &Entry) -> Id {
        let keyed = self.rng.one_in(2);
        let id = self.record(out, None, unit, true, keyed);
        let moved = self.model.logs[inc].moved.get(group).copied().unwrap_or(0);
        self.model.records[id].source = id_of(from).map(|source| (source, moved));
        id
    }
}

pub(crate) fn of<'a>(live: &'a mut Live, inc: Inc, group: &str) -> &'a mut Member {
    live.members.get_mut(&(inc, group.to_owned())).unwrap()
}

impl Member {
    fn new(consumer: AnyConsumer, database: Arc<Mutex<BTreeMap<u32, u64>>>) -> Self {
        Self { consumer, next: BTreeMap::new(), floor: BTreeMap::new(), above: BTreeSet::new(), database }
    }
}

impl AnyConsumer {
    pub(crate) fn position(&self, partition: u32) -> Option<u64> {
        match self {
            Self::AtMostOnce(consumer) => consumer.position(partition),
            Self::AtLeastOnce(consumer) => consumer.position(partition),
            Self::ExactlyOnce(consumer) => consumer.position(partition),
            Self::ExactlyOnceFrom(consumer) => consumer.position(partition),
        }
    }
}

fn consumer(
    live: &Live,
    inc: Inc,
    mode: &str,
    group: &str,
    database: &Arc<Mutex<BTreeMap<u32, u64>>>,
) -> placemark::Result<AnyConsumer> {
    let start = if mode == "late" { StartAt::Latest } else { StartAt::Earliest };
    // Small ones where several are in hand at a time.
    let most = if matches!(mode, "least" | "late") { 1 } else { MOST };
    let builder = live.logs[&inc].consumer(group).start_at(start).max_poll_records(most);
    let database = Arc::clone(database);
    let load =
        move |partition: u32| Ok::<_, std::convert::Infallible>(database.lock().unwrap().get(&partition).copied());
    Ok(match mode {
        "once" => AnyConsumer::AtMostOnce(builder.at_most_once()?),
        "exactly" => AnyConsumer::ExactlyOnce(builder.exactly_once()?),
        "database" => AnyConsumer::ExactlyOnceFrom(builder.exactly_once_from(load)?),
        _ => AnyConsumer::AtLeastOnce(builder.at_least_once()?),
    })
}
