//! The same for producers, whose sequences are appended once, and for records that are given up by hand.

use placemark::{Appended, Error, Producer, Record};

use crate::model::{GivenUp, Id, Inc, Model, Status};
use crate::run::Run;
use crate::steps::build;

const PRODUCERS: [&str; 2] = ["importer", "other"];

/// So many of a producer's newest sequences in a partition have a position that is known.
const KNOWN: usize = 5;

impl Run<'_> {
    pub(crate) fn produce(&mut self, inc: Inc) -> Result<(), String> {
        let name = PRODUCERS[self.rng.below(PRODUCERS.len())];
        if !self.live.as_ref().unwrap().producers.contains_key(&(inc, name)) {
            return self.open_producer(inc, name);
        }
        match self.rng.below(10) {
            0 => self.fence(inc, name),
            1 => {
                self.note(format!("{name} leaves"));
                self.live.as_mut().unwrap().producers.remove(&(inc, name));
                Ok(())
            }
            2..4 => self.append_again(inc, name),
            4..7 => self.append_sequences(inc, name),
            _ => self.append_sequence(inc, name),
        }
    }

    fn open_producer(&mut self, inc: Inc, name: &'static str) -> Result<(), String> {
        let opened = self.act(format!("producer {name} of {}", self.model.logs[inc].name), |live, _| {
            let live = live.as_mut().unwrap();
            let producer = live.logs[&inc].producer(name)?;
            let last = producer.last_sequence();
            live.producers.insert((inc, name), producer);
            Ok(last)
        })?;
        let Some(last) = opened else { return Ok(()) };
        let expected = self.model.last_sequence(inc, name);
        if self.failed.is_none() && last != expected {
            return Err(format!("producer {name} goes on behind {last:?}, and {expected:?} was its last"));
        }
        Ok(())
    }

    /// Opens the name once more: who had it before appends nothing, and learns why.
    fn fence(&mut self, inc: Inc, name: &'static str) -> Result<(), String> {
        let mut old = self.live.as_mut().unwrap().producers.remove(&(inc, name)).unwrap();
        self.open_producer(inc, name)?;
        if self.failed.is_some() || !self.live.as_ref().unwrap().producers.contains_key(&(inc, name)) {
            return Ok(());
        }
        let sequence = self.model.last_sequence(inc, name).map_or(0, |last| last + self.rng.next() % 2);
        let answered =
            self.act(format!("{name}, fenced, appends {sequence}"), |_, _| match old.append(sequence, b"late") {
                Err(Error::Fenced) => Ok(true),
                Err(error) => Err(error),
                Ok(_) => Ok(false),
            })?;
        if answered == Some(false) { Err(format!("producer {name} was not fenced")) } else { Ok(()) }
    }

    fn next_sequence(&mut self, inc: Inc, name: &str) -> u64 {
        let gap = if self.rng.one_in(3) { self.rng.next() % 4 } else { 0 };
        self.model.last_tried(inc, name).map_or(0, |last| last + 1) + gap
    }

    fn sequenced(&mut self, inc: Inc, unit: usize, journaled: bool, name: &'static str, sequence: u64) -> Id {
        let keyed = self.rng.one_in(2);
        let id = self.record(inc, None, unit, journaled, keyed);
        self.model.records[id].producer = Some((name, sequence));
        id
    }

    fn append_sequence(&mut self, inc: Inc, name: &'static str) -> Result<(), String> {
        let sequence = self.next_sequence(inc, name);
        let unit = self.model.unit(true);
        let id = self.sequenced(inc, unit, false, name, sequence);
        let (record, ends) = (build(&self.model, id), self.ends(inc));
        let appended = self.act(format!("{name} appends {id} as {sequence}"), |live, _| {
            live.as_mut().unwrap().producers.get_mut(&(inc, name)).unwrap().append(sequence, record)
        })?;
        match appended {
            None => Ok(()),
            Some(Appended::New(at)) => self.answered(inc, &[(id, at.partition, at.offset)], &ends),
            Some(Appended::Duplicate(at)) => Err(format!("{name} {sequence} is new, and was called one of {at:?}")),
        }
    }

    /// A batch, the first of which may have been appended before.
    fn append_sequences(&mut self, inc: Inc, name: &'static str) -> Result<(), String> {
        let again = self.rng.one_in(3).then(|| self.model.last_appended(inc, name)).flatten();
        let again = again.filter(|id| self.repeats(inc, *id) && Some(*id) == self.model.last_one_tried(inc, name));
        let first = match again {
            Some(id) => self.model.records[id].producer.map_or(0, |(_, sequence)| sequence),
            None => self.next_sequence(inc, name),
        };
        let lossy = self.model.logs[inc].durability != placemark::Durability::Sync;
        let unit = self.model.unit(!lossy);
        let journaled = self.model.logs[inc].count() != 1;
        let mut ids: Vec<Id> = again.into_iter().collect();
        let next = first + ids.len() as u64;
        let count = 1 + self.rng.below(4) as u64;
        ids.extend((next..next + count).map(|sequence| self.sequenced(inc, unit, journaled, name, sequence)));
        let records: Vec<Record<'static>> = ids.iter().map(|id| build(&self.model, *id)).collect();
        let ends = self.ends(inc);
        let appended = self.act(format!("{name} appends {ids:?} from {first}"), |live, _| {
            live.as_mut().unwrap().producers.get_mut(&(inc, name)).unwrap().append_batch(first, records)
        })?;
        let Some(appended) = appended else { return Ok(()) };
        let mut new = Vec::new();
        for (id, appended) in ids.iter().zip(appended) {
            match appended {
                Appended::New(at) if Some(*id) != again => new.push((*id, at.partition, at.offset)),
                Appended::Duplicate(at) if Some(*id) == again => self.is_duplicate(*id, at)?,
                other => return Err(format!("{name} appended {id}, and is told {other:?}")),
            }
        }
        if new.iter().all(|(_, partition, _)| *partition == new[0].1) {
            self.model.units[unit].whole = true;
            for (id, ..) in &new {
                self.model.records[*id].journaled = false;
            }
        } else if lossy {
            self.model.split(unit, &new);
        }
        self.answered(inc, &new, &ends)
    }

    /// What was appended before is a duplicate, and writes nothing.
    fn append_again(&mut self, inc: Inc, name: &'static str) -> Result<(), String> {
        let sure: Vec<Id> = self.model.sequences(inc, name).filter(|id| self.repeats(inc, *id)).collect();
        let Some(id) = self.rng.pick(&sure).copied() else { return Ok(()) };
        let Some((_, sequence)) = self.model.records[id].producer else { return Ok(()) };
        let (record, ends) = (build(&self.model, id), self.ends(inc));
        let appended = self.act(format!("{name} appends {id} again, as {sequence}"), |live, _| {
            live.as_mut().unwrap().producers.get_mut(&(inc, name)).unwrap().append(sequence, record)
        })?;
        match appended {
            None => Ok(()),
            Some(Appended::New(at)) => Err(format!("record {id}, {name} {sequence}, was appended twice: {at:?}")),
            Some(Appended::Duplicate(_)) if self.ends(inc) != ends => Err(format!("a duplicate of {id} was written")),
            Some(Appended::Duplicate(at)) => self.is_duplicate(id, at),
        }
    }

    /// Whether appending it again goes where it went before: a log that has grown may send its key elsewhere.
    fn repeats(&self, inc: Inc, id: Id) -> bool {
        let rec = &self.model.records[id];
        rec.key.is_none() || self.model.logs[inc].partitions == [rec.partitions]
    }

    fn is_duplicate(&self, id: Id, at: Option<placemark::Position>) -> Result<(), String> {
        duplicate_is(&self.model, id, at)
    }

    pub(crate) fn trim(&mut self, inc: Inc) -> Result<(), String> {
        let count = self.model.logs[inc].count();
        let number = u32::try_from(self.rng.below(count as usize)).unwrap();
        let end = self.ends(inc)[number as usize];
        let offset = match self.rng.below(4) {
            0 => end,
            1 => u64::MAX,
            _ => end.saturating_sub(self.rng.below(8) as u64),
        };
        for rec in self.model.records.iter_mut().filter(|rec| rec.inc == inc && rec.partition == Some(number)) {
            if rec.given_up == GivenUp::No && rec.offset.is_some_and(|at| at < offset.min(end)) {
                rec.given_up = GivenUp::Asked;
            }
        }
        let what = format!("trim {}:{number}, which ends at {end}, before {offset}", self.model.logs[inc].name);
        let before = self.starts(inc)[number as usize];
        let start = self.act(what, |live, _| {
            let partition = live.as_ref().unwrap().logs[&inc].partition(number)?;
            partition.trim_before(offset)?;
            Ok(partition.start_offset())
        })?;
        let Some(start) = start else { return Ok(()) };
        self.model.trimmed(inc, number, start);
        // Where no record is, there is nothing to be given up.
        let kept = self.model.of_partition(inc, number).next().map(|(id, _)| id);
        if start > offset.min(end).max(before) || offset >= end && kept.is_some() && self.failed.is_none() {
            return Err(format!("partition {number} starts at {start} then, and has record {kept:?}"));
        }
        Ok(())
    }
}

/// Holds what is said of a duplicate against the record that it is one of.
fn duplicate_is(model: &Model, id: Id, at: Option<placemark::Position>) -> Result<(), String> {
    let rec = &model.records[id];
    let Some((name, sequence)) = rec.producer else { return Ok(()) };
    if let Some(at) = at {
        let right = rec.partition == Some(at.partition) && rec.offset == Some(at.offset);
        return if right { Ok(()) } else { Err(format!("a duplicate of {id} is said to be at {at:?}")) };
    }
    let newer = model.sequences(rec.inc, name).filter(|other| {
        let other = &model.records[*other];
        other.partition == rec.partition && other.producer.is_some_and(|(_, newer)| newer > sequence)
    });
    if newer.count() < KNOWN && rec.status != Status::Gone {
        return Err(format!("where record {id} is, one of the last of {name} in its partition, is not known"));
    }
    Ok(())
}

/// Opens a producer on what a crash left: it goes on behind the last that is there, which is a duplicate.
pub(crate) fn check_producer(
    model: &Model,
    producer: &mut Producer,
    inc: Inc,
    name: &str,
    there: impl Fn(Id) -> bool,
) -> Result<(), String> {
    let of_it = model.records.iter().enumerate().filter(|(_, rec)| rec.inc == inc);
    let of_it = of_it.filter_map(|(id, rec)| rec.producer.filter(|(of, _)| *of == name).map(|it| (id, it.1)));
    let found: Vec<(Id, u64)> = of_it.filter(|(id, _)| there(*id)).collect();
    let (last, expected) = (producer.last_sequence(), found.iter().map(|(_, sequence)| *sequence).max());
    if last != expected {
        return Err(format!("producer {name} goes on behind {last:?}, and the last that is there is {expected:?}"));
    }
    let Some((id, sequence)) = found.iter().max_by_key(|(_, sequence)| *sequence) else { return Ok(()) };
    let rec = &model.records[*id];
    if rec.key.is_some() && model.logs[inc].partitions != [rec.partitions] {
        return Ok(());
    }
    match producer.append(*sequence, build(model, *id)) {
        Ok(Appended::Duplicate(_)) => Ok(()),
        Ok(Appended::New(at)) => Err(format!("record {id}, {name} {sequence}, is appended again, at {at:?}")),
        Err(error) => Err(format!("producer {name}: {error}")),
    }
}
