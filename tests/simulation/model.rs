//! What a store must hold: everything that was asked of it, and what was answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use placemark::Durability;

/// A record, by the number that it carries in its value.
pub(crate) type Id = usize;

/// A log from its creation to its deletion; one made again under the name is another.
pub(crate) type Inc = usize;

/// How much is known of whether something is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Status {
    /// Asked for and not answered yet, or answered with an error.
    #[default]
    Open,
    /// Acknowledged from the page cache: power loss may take it.
    Cached,
    /// Acknowledged as durable, or found after a crash.
    Durable,
    /// Not there, for ever.
    Gone,
}

/// What was lost at a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The process.
    Process,
    /// The page cache.
    Power,
}

impl Status {
    /// Whether it must be there after such a crash.
    pub(crate) fn holds(self, loss: Loss) -> bool {
        self == Self::Durable || self == Self::Cached && loss == Loss::Process
    }
}

/// Whether a record was given up by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenUp {
    No,
    /// It was asked for: it may be there or not.
    Asked,
    Yes,
}

/// What says that a record was durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Vouched {
    Nothing,
    /// A frame behind it, which was written when it was durable.
    Frame,
    /// The store was closed or synced since.
    Store,
}

#[derive(Debug, Clone)]
pub(crate) struct Rec {
    pub(crate) inc: Inc,
    pub(crate) partition: Option<u32>,
    pub(crate) offset: Option<u64>,
    pub(crate) key: Option<Vec<u8>>,
    /// `None` for a tombstone.
    pub(crate) value: Option<Arc<[u8]>>,
    pub(crate) header: bool,
    pub(crate) time: u64,
    pub(crate) unit: usize,
    pub(crate) status: Status,
    pub(crate) vouched: Vouched,
    /// Who wrote it, if it was a producer, and as which number.
    pub(crate) producer: Option<(&'static str, u64)>,
    /// How many partitions the log had then.
    pub(crate) partitions: u32,
    pub(crate) given_up: GivenUp,
    /// The record that it was made from exactly once, and how often their group had been moved by then.
    pub(crate) source: Option<(Id, u32)>,
    /// Whether it went through the journal, so that it may be there without what was written before it.
    pub(crate) journaled: bool,
}

impl Rec {
    /// What was asked is answered: what is there is not given up.
    pub(crate) fn not_given_up(&mut self) {
        if self.given_up == GivenUp::Asked {
            self.given_up = GivenUp::No;
        }
    }
}

/// Records and placemarks that are there together or not at all.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) records: Vec<Id>,
    pub(crate) marks: Vec<(Inc, String, u32, (u64, Note))>,
    /// Whether power loss, too, must leave it whole over all partitions; else it does so in each.
    pub(crate) whole: bool,
}

/// What the application committed with a placemark, by a number that stands for the bytes.
pub(crate) type Note = Option<u64>;

/// A place that a group had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) at: u64,
    pub(crate) note: Note,
    pub(crate) status: Status,
}

/// Places that a group had, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(pub(crate) Vec<Mark>);

impl History {
    /// What may be found: the last place that must be there, and what came after it. Offsets that are `empty`, from one
    /// to another, may have been stepped over.
    pub(crate) fn allows(&self, found: Option<(u64, Note)>, loss: Loss, empty: impl Fn(u64, u64) -> bool) -> bool {
        let required = self.0.iter().rposition(|mark| mark.status.holds(loss));
        let Some((at, note)) = found else { return required.is_none() };
        let mut may = self.0.iter().skip(required.unwrap_or(0));
        may.any(|mark| mark.note == note && (mark.at == at || mark.at < at && empty(mark.at, at)))
    }

    pub(crate) fn push(&mut self, at: u64, note: Note, status: Status) {
        self.0.push(Mark { at, note, status });
    }

    /// What is known to be so, last.
    pub(crate) fn last(&self) -> Option<Mark> {
        self.0.iter().rev().find(|mark| mark.status != Status::Open).copied()
    }

    pub(crate) fn settle(&mut self, status: Status) {
        if let Some(last) = self.0.last_mut() {
            last.status = status;
        }
    }

    pub(crate) fn harden(&mut self) {
        self.0.retain(|mark| mark.status != Status::Gone);
        for mark in &mut self.0 {
            if mark.status == Status::Cached {
                mark.status = Status::Durable;
            }
        }
    }

    pub(crate) fn found(&mut self, found: Option<(u64, Note)>) {
        self.0 = found.map(|(at, note)| Mark { at, note, status: Status::Durable }).into_iter().collect();
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct GroupModel {
    pub(crate) status: Status,
    /// Asked to be deleted, and how that was answered.
    pub(crate) leaving: Option<Status>,
    pub(crate) marks: BTreeMap<u32, History>,
    pub(crate) starts: BTreeMap<u32, History>,
    /// What the application's own database says, for the mode in which it is asked.
    pub(crate) database: BTreeMap<u32, u64>,
    /// It was made at once with the placemarks that it has.
    pub(crate) forked: bool,
    /// Records that were asked to be settled, where those that fail are passed.
    pub(crate) settled: BTreeSet<Id>,
    /// Records whose attempts were counted though they would have been processed.
    pub(crate) suspects: BTreeSet<Id>,
}

#[derive(Debug, Clone)]
pub(crate) struct LogModel {
    pub(crate) name: String,
    pub(crate) durability: Durability,
    /// How many there may be: one number, or two while it grows.
    pub(crate) partitions: Vec<u32>,
    pub(crate) groups: BTreeMap<String, GroupModel>,
    /// How often each group was moved or deleted.
    pub(crate) moved: BTreeMap<String, u32>,
    /// By partition, the lowest offset that may be given to the next record.
    pub(crate) least_next: BTreeMap<u32, u64>,
    /// By partition, what was given up: everything below.
    pub(crate) least_start: BTreeMap<u32, u64>,
}

impl LogModel {
    /// How many partitions it has as far as the program knows.
    pub(crate) fn count(&self) -> u32 {
        self.partitions.last().copied().unwrap()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) durability: Durability,
    pub(crate) records: Vec<Rec>,
    pub(crate) units: Vec<Unit>,
    pub(crate) logs: Vec<LogModel>,
    /// What may stand under each name.
    pub(crate) names: BTreeMap<String, Vec<Option<Inc>>>,
    /// The store was made, or may have been.
    pub(crate) made: bool,
    /// Whether the log for records that cannot be processed is certain to be there; `None` when it was not asked for.
    pub(crate) letters: Option<bool>,
    /// How often it crashed.
    pub(crate) crashes: u32,
    /// After a failure: what was decided and could not be applied is finished by the next opening.
    pub(crate) unfinished: bool,
}

impl Model {
    pub(crate) fn new(durability: Durability) -> Self {
        Self {
            durability,
            records: Vec::new(),
            units: Vec::new(),
            logs: Vec::new(),
            names: BTreeMap::new(),
            made: false,
            letters: None,
            crashes: 0,
            unfinished: false,
        }
    }

    /// How an acknowledgement under a durability counts.
    pub(crate) fn acked(durability: Durability) -> Status {
        if durability == Durability::Sync { Status::Durable } else { Status::Cached }
    }

    /// The logs that are certain to be there.
    pub(crate) fn present(&self) -> Vec<Inc> {
        self.names.values().filter_map(|may| if let [Some(inc)] = may[..] { Some(inc) } else { None }).collect()
    }

    pub(crate) fn unit(&mut self, whole: bool) -> usize {
        self.units.push(Unit { records: Vec::new(), marks: Vec::new(), whole });
        self.units.len() - 1
    }

    /// Takes a producer's batch apart into what is together without the journal: sequences that follow one another in a
    /// partition.
    pub(crate) fn split(&mut self, unit: usize, places: &[(Id, u32, u64)]) {
        self.units[unit].records.clear();
        let mut places = places.to_vec();
        places.sort_by_key(|(id, partition, _)| (*partition, *id));
        let mut before = None;
        let mut unit = unit;
        for (id, partition, _) in places {
            if before.is_some_and(|before| before != (partition, id - 1)) {
                unit = self.unit(false);
            }
            before = Some((partition, id));
            self.units[unit].records.push(id);
        }
    }

    pub(crate) fn add(&mut self, rec: Rec) -> Id {
        let id = self.records.len();
        self.units[rec.unit].records.push(id);
        self.records.push(rec);
        id
    }

    /// A record was acknowledged, where it says.
    pub(crate) fn ack(&mut self, id: Id, partition: u32, offset: u64, status: Status) {
        let (inc, unit) = (self.records[id].inc, self.records[id].unit);
        // A batch is one frame, which speaks of what was durable before it.
        let own = |rec: &Rec| rec.unit == unit && rec.partition == Some(partition) && rec.status != Status::Open;
        let first = !self.records.iter().any(own);
        for earlier in self.records[..id].iter_mut().filter(|_| first) {
            let here = earlier.inc == inc && earlier.partition == Some(partition);
            if here && earlier.status == Status::Durable && !earlier.journaled {
                earlier.vouched = earlier.vouched.max(Vouched::Frame);
            }
        }
        let rec = &mut self.records[id];
        (rec.partition, rec.offset, rec.status) = (Some(partition), Some(offset), status);
        let next = self.logs[inc].least_next.entry(partition).or_default();
        *next = (*next).max(offset + 1);
        self.logs[inc].partitions.retain(|count| *count > partition);
        if status == Status::Durable && !self.records[id].journaled {
            // The sync that made it durable took what stood before it along.
            for earlier in &mut self.records[..id] {
                if earlier.inc == inc && earlier.partition == Some(partition) && earlier.status == Status::Cached {
                    earlier.status = Status::Durable;
                }
            }
        }
    }

    /// Records of a partition that may be there, in the order of their offsets.
    pub(crate) fn of_partition(&self, inc: Inc, partition: u32) -> impl Iterator<Item = (Id, &Rec)> {
        self.records.iter().enumerate().filter(move |(_, rec)| {
            rec.inc == inc && rec.partition == Some(partition) && rec.status != Status::Gone && rec.offset.is_some()
        })
    }

    /// Records of a producer that are certain to be there, or were until they were given up.
    pub(crate) fn sequences(&self, inc: Inc, name: &str) -> impl Iterator<Item = Id> {
        let of_it = self.records.iter().enumerate().filter(move |(_, rec)| rec.inc == inc);
        let of_it = of_it.filter(move |(_, rec)| rec.producer.is_some_and(|(of, _)| of == name));
        let sure = of_it
            .filter(|(_, rec)| matches!(rec.status, Status::Cached | Status::Durable) || rec.given_up == GivenUp::Yes);
        sure.map(|(id, _)| id)
    }

    pub(crate) fn last_sequence(&self, inc: Inc, name: &str) -> Option<u64> {
        self.sequences(inc, name).filter_map(|id| self.records[id].producer.map(|(_, sequence)| sequence)).max()
    }

    pub(crate) fn last_appended(&self, inc: Inc, name: &str) -> Option<Id> {
        self.sequences(inc, name).max_by_key(|id| self.records[*id].producer.map(|(_, sequence)| sequence))
    }

    /// The record with the largest sequence, whatever became of it.
    pub(crate) fn last_one_tried(&self, inc: Inc, name: &str) -> Option<Id> {
        let of_it = self.records.iter().enumerate().filter(|(_, rec)| rec.inc == inc);
        let of_it = of_it.filter(|(_, rec)| rec.producer.is_some_and(|(of, _)| of == name));
        of_it.max_by_key(|(_, rec)| rec.producer.map(|(_, sequence)| sequence)).map(|(id, _)| id)
    }

    pub(crate) fn last_tried(&self, inc: Inc, name: &str) -> Option<u64> {
        self.last_one_tried(inc, name).and_then(|id| self.records[id].producer.map(|(_, sequence)| sequence))
    }

    /// What is below `start` was given up.
    pub(crate) fn trimmed(&mut self, inc: Inc, partition: u32, start: u64) {
        for rec in self.records.iter_mut().filter(|rec| rec.inc == inc && rec.partition == Some(partition)) {
            if rec.status != Status::Gone && rec.offset.is_some_and(|offset| offset < start) {
                (rec.status, rec.given_up) = (Status::Gone, GivenUp::Yes);
            }
            rec.not_given_up();
        }
        self.logs[inc].least_start.insert(partition, start);
    }

    /// Everything acknowledged is durable now.
    pub(crate) fn harden(&mut self) {
        for rec in &mut self.records {
            if rec.status == Status::Cached {
                rec.status = Status::Durable;
            }
            if rec.status == Status::Durable {
                rec.vouched = Vouched::Store;
            }
        }
        for group in self.logs.iter_mut().flat_map(|log| log.groups.values_mut()) {
            if group.status == Status::Cached {
                group.status = Status::Durable;
            }
            if group.leaving == Some(Status::Cached) {
                group.leaving = Some(Status::Durable);
            }
            group.marks.values_mut().for_each(History::harden);
            group.starts.values_mut().for_each(History::harden);
        }
        for log in &mut self.logs {
            log.groups.retain(|_, group| group.leaving != Some(Status::Durable));
        }
    }
}
