//! What a store shows, and how that is held against the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use placemark::{Entry, Error, StartAt, Store};

use crate::letters::{self, LETTERS, Letter};
use crate::model::{GivenUp, Id, Inc, Loss, Model, Note, Rec, Status};
use crate::notes;
use crate::produce::check_producer;

/// Everything that a store shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    pub(crate) logs: BTreeMap<String, Vec<SeenPart>>,
    pub(crate) groups: BTreeSet<String>,
    /// Placemarks by group, log and partition.
    pub(crate) marks: BTreeMap<(String, String, u32), (u64, Note)>,
    /// Records that could not be processed.
    pub(crate) letters: Option<Vec<Letter>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenPart {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) records: Vec<(u64, Id)>,
}

/// The number that a record carries.
pub(crate) fn id_of(entry: &Entry) -> Option<Id> {
    let bytes = if entry.is_tombstone() { entry.header("id")? } else { entry.value() };
    usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()
}

/// Whether an entry is the record that it says it is, as it was written.
pub(crate) fn check_entry(model: &Model, entry: &Entry) -> Result<Id, String> {
    let place = || format!("partition {} offset {}", entry.partition(), entry.offset());
    let id = id_of(entry).ok_or_else(|| format!("a record without a number at {}", place()))?;
    let rec = model.records.get(id).ok_or_else(|| format!("record {id} at {} was never appended", place()))?;
    let same = match &rec.value {
        Some(value) => !entry.is_tombstone() && entry.value() == &value[..],
        None => entry.is_tombstone(),
    };
    if !same || entry.key() != rec.key.as_deref() {
        return Err(format!("record {id} at {} does not read as it was written", place()));
    }
    if entry.header("h").is_some() != rec.header {
        return Err(format!("record {id} at {} has other headers", place()));
    }
    if entry.timestamp() != UNIX_EPOCH + Duration::from_millis(rec.time) {
        return Err(format!("record {id} at {} has time {:?}, not {}", place(), entry.timestamp(), rec.time));
    }
    Ok(id)
}

/// Why it cannot be said what a store shows.
#[derive(Debug)]
pub(crate) enum Trouble {
    Failed(&'static str, Error),
    Wrong(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(what, error) => write!(f, "{what}: {error}"),
            Self::Wrong(wrong) => write!(f, "{wrong}"),
        }
    }
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        trouble.to_string()
    }
}

impl Seen {
    /// Opens every log of a store, and reads all there is.
    pub(crate) fn of(store: &Store, model: &Model) -> Result<Self, Trouble> {
        let say = |what: &'static str| move |error: Error| Trouble::Failed(what, error);
        let mut seen = Self::default();
        let mut opened = BTreeMap::new();
        for name in store.logs().map_err(say("logs"))? {
            let log = store.open_log(&name).map_err(say("open_log"))?;
            if name == LETTERS {
                seen.letters = Some(letters::read(&log, model)?);
                continue;
            }
            let mut parts = Vec::new();
            for number in 0..log.partitions() {
                let partition = log.partition(number).map_err(say("partition"))?;
                let mut records = Vec::new();
                for entry in partition.read(StartAt::Earliest).map_err(say("read"))? {
                    let entry = entry.map_err(say("next"))?;
                    let id =
                        check_entry(model, &entry).map_err(|wrong| Trouble::Wrong(format!("log {name}: {wrong}")))?;
                    records.push((entry.offset(), id));
                }
                parts.push(SeenPart { start: partition.start_offset(), end: partition.end_offset(), records });
            }
            seen.logs.insert(name.clone(), parts);
            opened.insert(name, log);
        }
        seen.groups = store.groups().map_err(say("groups"))?.into_iter().collect();
        for group in &seen.groups {
            let group_of = store.group(group);
            for mark in group_of.placemarks().map_err(say("placemarks"))? {
                let metadata = group_of.metadata(&opened[&mark.log], mark.partition).map_err(say("metadata"))?;
                let note = metadata.map(|bytes| notes::read(&bytes)).transpose().map_err(Trouble::Wrong)?;
                seen.marks.insert((group.clone(), mark.log, mark.partition), (mark.offset, note));
            }
        }
        Ok(seen)
    }

    fn inc(&self, model: &Model, name: &str) -> Result<Option<Inc>, String> {
        let none = vec![None];
        let may = model.names.get(name).unwrap_or(&none);
        let Some(parts) = self.logs.get(name) else {
            return if may.contains(&None) { Ok(None) } else { Err(format!("log {name} is gone")) };
        };
        // Where an older and a newer log may stand under the name, what is in it tells.
        let first = parts.iter().flat_map(|part| &part.records).next();
        let inc = match first {
            Some((_, id)) => Some(model.records[*id].inc),
            None => may.iter().rev().flatten().next().copied(),
        };
        match inc {
            Some(inc) if may.contains(&Some(inc)) => Ok(Some(inc)),
            _ => Err(format!("log {name} should not be there, or not with what is in it")),
        }
    }
}

/// Holds what is seen after a crash against the model.
pub(crate) fn verify(model: &Model, seen: &Seen, loss: Loss) -> Result<(), String> {
    if let Some(name) = seen.logs.keys().find(|name| !model.names.contains_key(*name)) {
        return Err(format!("log {name} was never made"));
    }
    let mut present: BTreeMap<Id, (u32, u64)> = BTreeMap::new();
    let mut incs: BTreeMap<Inc, &str> = BTreeMap::new();
    for name in model.names.keys() {
        if let Some(inc) = seen.inc(model, name)? {
            incs.insert(inc, name);
            verify_log(model, seen, inc, &mut present, loss).map_err(|wrong| format!("log {name}: {wrong}"))?;
        }
    }
    let mut made = BTreeSet::new();
    for id in present.keys() {
        let source = model.records[*id].source;
        if source.is_some_and(|source| !made.insert(source)) {
            return Err(format!("record {id} was made from {source:?}, and so was another"));
        }
    }
    for name in &seen.groups {
        let known = incs.keys().any(|inc| model.logs[*inc].groups.contains_key(name));
        if !known {
            return Err(format!("group {name} should not be there"));
        }
    }
    for (inc, name) in &incs {
        verify_groups(model, seen, *inc, name, loss).map_err(|wrong| format!("log {name}: {wrong}"))?;
    }
    if model.unfinished {
        return Ok(());
    }
    for unit in &model.units {
        verify_unit(model, seen, unit, &incs, &present, loss)?;
    }
    letters::verify(model, seen, &incs)
}

fn verify_log(
    model: &Model,
    seen: &Seen,
    inc: Inc,
    present: &mut BTreeMap<Id, (u32, u64)>,
    loss: Loss,
) -> Result<(), String> {
    let log = &model.logs[inc];
    let parts = &seen.logs[&log.name];
    if !log.partitions.iter().any(|count| *count as usize == parts.len()) {
        return Err(format!("has {} partitions, not {:?}", parts.len(), log.partitions));
    }
    for (number, part) in (0_u32..).zip(parts) {
        let mut before: Option<(u64, Id)> = None;
        for &(offset, id) in &part.records {
            let rec = &model.records[id];
            let at = format!("record {id} at {number}:{offset}");
            if rec.inc != inc || rec.partition.is_some_and(|known| known != number) {
                return Err(format!("{at} belongs to {}:{:?}", model.logs[rec.inc].name, rec.partition));
            }
            if rec.offset.is_some_and(|known| known != offset) {
                return Err(format!("{at} was acknowledged at {:?}", rec.offset));
            }
            if rec.status == Status::Gone {
                return Err(format!("{at} was gone, and is back"));
            }
            if let Some((previous, earlier)) =
                before.filter(|(previous, earlier)| *previous >= offset || *earlier >= id)
            {
                return Err(format!("{at} comes behind {previous}, record {earlier}"));
            }
            if offset < part.start || offset >= part.end {
                return Err(format!("{at} is outside {}..{}", part.start, part.end));
            }
            if present.insert(id, (number, offset)).is_some() {
                return Err(format!("{at} is there twice"));
            }
            before = Some((offset, id));
        }
        let least = log.least_next.get(&number).copied().unwrap_or(0);
        if part.end < least {
            return Err(format!("partition {number} ends at {}, and offsets below {least} were given out", part.end));
        }
    }
    for (number, part) in (0_u32..).zip(parts) {
        let least = log.least_start.get(&number).copied().unwrap_or(0);
        if part.start < least {
            return Err(format!("partition {number} starts at {}, and what is below {least} was given up", part.start));
        }
    }
    verify_records(model, inc, parts, present, loss)
}

/// Whether a record was given up, or was asked to be and is.
fn given_up(rec: &Rec, parts: &[SeenPart]) -> bool {
    let start = rec.partition.and_then(|number| parts.get(number as usize)).map_or(0, |part| part.start);
    rec.given_up == GivenUp::Yes || rec.given_up == GivenUp::Asked && rec.offset.is_some_and(|offset| offset < start)
}

fn verify_records(
    model: &Model,
    inc: Inc,
    parts: &[SeenPart],
    present: &BTreeMap<Id, (u32, u64)>,
    loss: Loss,
) -> Result<(), String> {
    let mut cut: BTreeMap<u32, Id> = BTreeMap::new();
    let of_log = model.records.iter().enumerate().filter(|(_, rec)| rec.inc == inc && !given_up(rec, parts));
    for (id, rec) in of_log {
        let there = present.contains_key(&id);
        if rec.status.holds(loss) && !there {
            return Err(format!("record {id} at {:?}:{:?} is lost ({:?})", rec.partition, rec.offset, rec.status));
        }
        let Some(partition) = rec.partition else { continue };
        if there && !rec.journaled {
            if let Some(lost) = cut.get(&partition) {
                return Err(format!("record {id} is there, and {lost} before it in partition {partition} is lost"));
            }
        } else if !there && matches!(rec.status, Status::Cached | Status::Durable) {
            cut.insert(partition, id);
        }
    }
    Ok(())
}

fn verify_groups(model: &Model, seen: &Seen, inc: Inc, log: &str, loss: Loss) -> Result<(), String> {
    for (name, group) in &model.logs[inc].groups {
        let there = seen.groups.contains(name);
        // What was decided with a transaction is there, and with it the group that it is of.
        let decided = group.marks.values().any(|history| history.0.iter().any(|mark| mark.status.holds(loss)));
        let must = (group.status.holds(loss) || decided) && group.leaving.is_none();
        let must_not = group.leaving.is_some_and(|leaving| leaving.holds(loss));
        if must && !there {
            return Err(format!("group {name} is forgotten"));
        }
        if must_not && there {
            return Err(format!("group {name} was deleted, and is back"));
        }
        if !there {
            continue;
        }
        let parts = &seen.logs[log];
        for (number, part) in (0_u32..).zip(parts) {
            let found = seen.marks.get(&(name.clone(), log.to_owned(), number)).copied();
            let none = crate::model::History::default();
            let history = group.marks.get(&number).unwrap_or(&none);
            let empty = |from, to| !part.records.iter().any(|(at, _)| (from..to).contains(at));
            if !history.allows(found, loss, empty) {
                return Err(format!("group {name} is at {found:?} in partition {number}, not {:?}", history.0));
            }
            if group.forked && found.is_none() && !history.0.is_empty() {
                return Err(format!("group {name} was made with its placemarks, and has none in partition {number}"));
            }
            if found.is_some_and(|(mark, _)| mark > part.end) {
                return Err(format!("group {name} is at {found:?} in partition {number}, which ends at {}", part.end));
            }
        }
    }
    Ok(())
}

/// Holds what producers find after a crash against the records that are there.
pub(crate) fn verify_producers(model: &Model, store: &Store, seen: &Seen) -> Result<(), String> {
    for (name, parts) in &seen.logs {
        let Some(inc) = seen.inc(model, name)? else { continue };
        let present: BTreeSet<Id> = parts.iter().flat_map(|part| &part.records).map(|(_, id)| *id).collect();
        let log = store.open_log(name).map_err(|error| format!("open_log: {error}"))?;
        let known: BTreeSet<&str> = model
            .records
            .iter()
            .filter(|rec| rec.inc == inc)
            .filter_map(|rec| rec.producer.map(|(name, _)| name))
            .collect();
        for producer in known {
            let mut opened = log.producer(producer).map_err(|error| format!("producer {producer}: {error}"))?;
            let there = |id: Id| present.contains(&id) || given_up(&model.records[id], parts);
            check_producer(model, &mut opened, inc, producer, there)?;
        }
    }
    Ok(())
}

fn verify_unit(
    model: &Model,
    seen: &Seen,
    unit: &crate::model::Unit,
    incs: &BTreeMap<Inc, &str>,
    present: &BTreeMap<Id, (u32, u64)>,
    loss: Loss,
) -> Result<(), String> {
    let mut outcomes: Vec<(u32, bool, String)> = Vec::new();
    let kept = |id: &&Id| {
        let rec = &model.records[**id];
        incs.get(&rec.inc).is_some_and(|log| !given_up(rec, &seen.logs[*log]))
    };
    for id in unit.records.iter().filter(kept) {
        let place = present.get(id);
        // A part that is not there stands nowhere: a batch in one partition is whole all the same.
        let partition = model.records[*id].partition.or(place.map(|place| place.0));
        let what = format!("record {id} of {partition:?}:{:?}", model.records[*id].offset);
        outcomes.push((partition.unwrap_or(u32::MAX), place.is_some(), what));
    }
    let whole = unit.whole || loss == Loss::Process;
    for (inc, group, partition, mark) in &unit.marks {
        let Some(log) = incs.get(inc) else { continue };
        let open = model.logs[*inc]
            .groups
            .get(group)
            .and_then(|group| group.marks.get(partition))
            .and_then(|history| history.0.last())
            .is_some_and(|last| (last.at, last.note) == *mark && last.status == Status::Open);
        if open {
            let found = seen.marks.get(&(group.clone(), (*log).to_owned(), *partition));
            outcomes.push((u32::MAX, found == Some(mark), format!("placemark {mark:?} of {group}")));
        }
    }
    for (partition, there, what) in &outcomes {
        let other = outcomes.iter().find(|(other, also, _)| (whole || other == partition) && also != there);
        if let Some((_, _, other)) = other {
            let (there, missing) = if *there { (what, other) } else { (other, what) };
            return Err(format!("{there} is there, and {missing} of the same unit is not"));
        }
    }
    Ok(())
}

/// Takes what was found as what is: it is durable, and what was not found never comes back.
pub(crate) fn resolve(model: &mut Model, seen: &Seen, loss: Loss) -> Result<(), String> {
    let mut present: BTreeMap<Id, (u32, u64)> = BTreeMap::new();
    model.crashes += 1;
    model.letters = seen.letters.as_ref().map(|_| true);
    let names: Vec<String> = model.names.keys().cloned().collect();
    for name in names {
        let inc = seen.inc(model, &name)?;
        model.names.insert(name.clone(), vec![inc]);
        let Some(inc) = inc else { continue };
        let parts = &seen.logs[&name];
        let log = &mut model.logs[inc];
        let count = u32::try_from(parts.len()).unwrap();
        // What only the page cache says may be undone by a power loss, as long as nobody relies on it.
        log.partitions.retain(|may| *may < count && loss == Loss::Process);
        log.partitions.push(count);
        for (number, part) in (0_u32..).zip(parts) {
            log.least_next.insert(number, part.end);
            log.least_start.insert(number, part.start);
            present.extend(part.records.iter().map(|(offset, id)| (*id, (number, *offset))));
        }
        log.groups.retain(|group, _| seen.groups.contains(group));
        for (group, known) in &mut log.groups {
            known.status = Status::Durable;
            known.leaving = None;
            known.forked = false;
            for number in 0..count {
                let found = seen.marks.get(&(group.clone(), name.clone(), number)).copied();
                known.marks.entry(number).or_default().found(found);
            }
            // Starting points do not show: they are found out when the group is joined.
            for history in known.starts.values_mut() {
                for mark in &mut history.0 {
                    mark.status = if mark.status.holds(loss) { Status::Durable } else { Status::Open };
                }
            }
        }
    }
    for (id, rec) in model.records.iter_mut().enumerate() {
        if let Some((partition, offset)) = present.get(&id) {
            (rec.partition, rec.offset, rec.status) = (Some(*partition), Some(*offset), Status::Durable);
        } else {
            let parts = model.logs.get(rec.inc).and_then(|log| seen.logs.get(&log.name));
            if parts.is_some_and(|parts| given_up(rec, parts)) {
                rec.given_up = GivenUp::Yes;
            }
            rec.status = Status::Gone;
        }
        rec.not_given_up();
    }
    model.units.iter_mut().for_each(|unit| {
        unit.records.clear();
        unit.marks.clear();
    });
    Ok(())
}
