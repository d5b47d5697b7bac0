//! What a program does with a store: one step after the other, chosen by the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use placemark::storage::Storage;
use placemark::{Durability, Log, LogOptions, Record, StartAt};

use crate::model::{GivenUp, Id, Inc, LogModel, Model, Rec, Status, Vouched};
use crate::run::{Live, Run, durability, open};
use crate::seen::check_entry;

const NAMES: [&str; 3] = ["a", "b", "out"];

impl Run<'_> {
    /// So many steps; fewer when a fault ends them.
    pub(crate) fn work(&mut self, steps: usize) -> Result<(), String> {
        let mut left = None;
        for _ in 0..steps {
            if left == Some(0) {
                break;
            }
            self.examine_now()?;
            self.step()?;
            if self.failed.is_some() {
                // A program may go on for a while before it notices.
                left = Some(left.unwrap_or(4) - 1);
            }
        }
        self.examine_now()?;
        self.look()
    }

    fn step(&mut self) -> Result<(), String> {
        if self.live.is_none() {
            return self.open_store();
        }
        let present = self.model.present();
        let absent: Vec<&str> = NAMES
            .into_iter()
            .filter(|name| matches!(self.model.names.get(*name).map(Vec::as_slice), None | Some([None])))
            .collect();
        if !absent.is_empty() && (present.is_empty() || self.rng.one_in(3)) {
            let name = absent[self.rng.below(absent.len())];
            return self.create_log(name);
        }
        let Some(inc) = self.rng.pick(&present).copied() else { return Ok(()) };
        if !self.live.as_ref().unwrap().logs.contains_key(&inc) {
            return self.open_log(inc);
        }
        match self.rng.below(62) {
            0..8 => self.append(inc),
            8..11 => self.append_batch(inc),
            11..14 => self.partition_batch(inc),
            14..17 => self.transact(),
            17..28 => self.consume(inc),
            28..34 => self.produce(inc),
            34 => self.sync(),
            35..37 => self.reopen(),
            37 => self.delete_log(inc),
            38 => self.grow(inc),
            39 => {
                self.advance();
                Ok(())
            }
            40..43 => self.reset(inc),
            43 => self.delete_group(inc),
            44..46 => self.fill(inc),
            46 => self.configure(inc),
            47..49 => self.trim(inc),
            49 => self.depart(inc),
            50..52 => self.seek(inc),
            52..56 => self.crew(inc),
            56..60 => self.failing(inc),
            60 => self.fork(inc),
            // Thousands of operations: too many to fail each of them.
            61 if self.crashes && self.rng.one_in(4) => self.churn(inc),
            _ => self.look(),
        }
    }

    pub(crate) fn open_store(&mut self) -> Result<(), String> {
        let (durability, mut rng) = (self.model.durability, self.rng.clone());
        self.rng.next();
        let opened = self.act("open", |live, disk| {
            *live = Some(Live::of(open(disk, durability, &mut rng)?));
            Ok(())
        })?;
        self.model.made |= opened.is_some();
        Ok(())
    }

    pub(crate) fn reopen(&mut self) -> Result<(), String> {
        let closed = self.act("close", |live, _| live.as_ref().unwrap().store.close())?;
        self.live = None;
        if closed.is_some() {
            self.model.harden();
        }
        self.examine_now()?;
        if self.failed.is_none() {
            self.open_store()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), String> {
        // What belongs to logs that are not open here was durable before.
        if self.act("sync", |live, _| live.as_ref().unwrap().store.sync())?.is_some() {
            self.model.harden();
        }
        Ok(())
    }

    fn advance(&mut self) {
        let by = [1, 60, 2000][self.rng.below(3)];
        self.note(format!("{by} ms pass"));
        self.disk.advance(Duration::from_millis(by));
    }

    fn create_log(&mut self, name: &str) -> Result<(), String> {
        let partitions = u32::try_from(1 + self.rng.below(3)).unwrap();
        let own = self.rng.one_in(2).then(|| durability(&mut self.rng));
        let segment_age = self.rng.one_in(4);
        let inc = self.model.logs.len();
        self.model.logs.push(LogModel {
            name: name.to_owned(),
            durability: own.unwrap_or(self.model.durability),
            partitions: vec![partitions],
            groups: BTreeMap::new(),
            moved: BTreeMap::new(),
            least_next: BTreeMap::new(),
            least_start: BTreeMap::new(),
        });
        self.model.names.insert(name.to_owned(), vec![None, Some(inc)]);
        let mut options = LogOptions::new().partitions(partitions).segment_bytes(64 << 10);
        if let Some(own) = own {
            options = options.durability(own);
        }
        if segment_age {
            options = options.segment_age(Duration::from_secs(1));
        }
        let made = self.act(format!("create {name}, {partitions} partitions, {own:?}"), |live, _| {
            let live = live.as_mut().unwrap();
            let log = live.store.log_with(name, options)?;
            live.logs.insert(inc, log);
            Ok(())
        })?;
        if made.is_some() {
            self.model.names.insert(name.to_owned(), vec![Some(inc)]);
        }
        Ok(())
    }

    fn open_log(&mut self, inc: Inc) -> Result<(), String> {
        let name = self.model.logs[inc].name.clone();
        self.act(format!("open {name}"), |live, _| {
            let live = live.as_mut().unwrap();
            let log = live.store.open_log(&name)?;
            live.logs.insert(inc, log);
            Ok(())
        })?;
        Ok(())
    }

    fn delete_log(&mut self, inc: Inc) -> Result<(), String> {
        let name = self.model.logs[inc].name.clone();
        self.model.names.insert(name.clone(), vec![Some(inc), None]);
        let gone = self.act(format!("delete {name}"), |live, _| {
            let live = live.as_mut().unwrap();
            live.store.delete_log(&name)?;
            Ok(())
        })?;
        let live = self.live.as_mut().unwrap();
        live.logs.remove(&inc);
        live.members.retain(|(of, _), _| *of != inc);
        live.pending.retain(|pending| pending.inc != inc);
        live.crews.retain(|(of, _), _| *of != inc);
        live.failing.retain(|(of, _), _| *of != inc);
        live.producers.retain(|(of, _), _| *of != inc);
        if gone.is_some() {
            self.model.names.insert(name, vec![None]);
        }
        Ok(())
    }

    fn grow(&mut self, inc: Inc) -> Result<(), String> {
        let log = &mut self.model.logs[inc];
        let before = log.count();
        if before >= 5 {
            return Ok(());
        }
        let more = before + 1 + u32::try_from(self.rng.below(2)).unwrap();
        log.partitions.push(more);
        let name = log.name.clone();
        let grown = self.act(format!("grow {name} to {more}"), |live, _| {
            live.as_ref().unwrap().store.log_with(&name, LogOptions::new().partitions(more)).map(drop)
        })?;
        // When it failed there may be more, which the program does not know.
        self.model.logs[inc].partitions = if grown.is_some() { vec![more] } else { vec![more, before] };
        Ok(())
    }

    fn configure(&mut self, inc: Inc) -> Result<(), String> {
        let (to, name) = (durability(&mut self.rng), self.model.logs[inc].name.clone());
        if to != Durability::Sync {
            // Whoever goes on from within this call finds the one or the other: no more is counted on.
            self.model.logs[inc].durability = to;
        }
        let set = self.act(format!("configure {name} {to:?}"), |live, _| {
            live.as_ref().unwrap().store.log_with(&name, LogOptions::new().durability(to)).map(drop)
        })?;
        if set.is_some() {
            self.model.logs[inc].durability = to;
        } else {
            // The log has one or the other.
            self.model.names.insert(name, vec![Some(inc), Some(inc)]);
        }
        Ok(())
    }

    /// A record in the model; `partition` where it is known beforehand.
    pub(crate) fn record(&mut self, inc: Inc, partition: Option<u32>, unit: usize, journaled: bool, keyed: bool) -> Id {
        let id = self.model.records.len();
        let len = match self.rng.below(12) {
            0 => 9000 + self.rng.below(12_000),
            1 => 400 + self.rng.below(3000),
            2 => 0,
            _ => self.rng.below(120),
        };
        let key = keyed.then(|| format!("key-{}", self.rng.below(6)).into_bytes());
        let tombstone = keyed && self.rng.one_in(6);
        let mut value = (id as u64).to_le_bytes().to_vec();
        if self.rng.one_in(20) {
            // A record that holds the bytes of a segment is no segment.
            let files = self.disk.files();
            let path = self.rng.pick(&files).cloned();
            let bytes = path.and_then(|path| self.disk.read_file(path)).unwrap_or_default();
            value.extend(bytes.into_iter().take(8000));
        } else {
            value.extend(self.rng.bytes(len));
        }
        self.model.add(Rec {
            inc,
            partition,
            offset: None,
            key,
            value: (!tombstone).then(|| Arc::from(value)),
            header: self.rng.one_in(5),
            time: self.disk.now(),
            unit,
            status: Status::Open,
            vouched: Vouched::Nothing,
            producer: None,
            partitions: self.model.logs[inc].count(),
            given_up: GivenUp::No,
            source: None,
            journaled,
        })
    }

    fn append(&mut self, inc: Inc) -> Result<(), String> {
        let unit = self.model.unit(true);
        let keyed = self.rng.one_in(2);
        let id = self.record(inc, None, unit, false, keyed);
        self.append_one(inc, id)
    }

    /// Records that fill segments.
    fn fill(&mut self, inc: Inc) -> Result<(), String> {
        for _ in 0..2 {
            let unit = self.model.unit(true);
            let id = self.record(inc, None, unit, false, false);
            let mut value = (id as u64).to_le_bytes().to_vec();
            value.extend(self.rng.bytes(24_000));
            self.model.records[id].value = Some(Arc::from(value));
            self.append_one(inc, id)?;
        }
        Ok(())
    }

    fn append_one(&mut self, inc: Inc, id: Id) -> Result<(), String> {
        let record = build(&self.model, id);
        let ends = self.ends(inc);
        let what = format!("append {id} to {}", self.model.logs[inc].name);
        let at = self.act(what, |live, _| live.as_ref().unwrap().logs[&inc].append(record))?;
        if let Some(at) = at {
            self.answered(inc, &[(id, at.partition, at.offset)], &ends)?;
        }
        Ok(())
    }

    fn append_batch(&mut self, inc: Inc) -> Result<(), String> {
        let lossy = self.model.logs[inc].durability != Durability::Sync;
        let unit = self.model.unit(!lossy);
        let count = 2 + self.rng.below(4);
        // In a log of several partitions the parts are decided together, in the journal.
        let journaled = self.model.logs[inc].count() != 1;
        let ids: Vec<Id> = (0..count)
            .map(|_| {
                let keyed = self.rng.one_in(2);
                self.record(inc, None, unit, journaled, keyed)
            })
            .collect();
        let records: Vec<Record<'static>> = ids.iter().map(|id| build(&self.model, *id)).collect();
        let ends = self.ends(inc);
        let what = format!("append batch {ids:?} to {}", self.model.logs[inc].name);
        let at = self.act(what, |live, _| live.as_ref().unwrap().logs[&inc].append_batch(records))?;
        if let Some(at) = at {
            let at: Vec<_> = ids.iter().zip(at).map(|(id, at)| (*id, at.partition, at.offset)).collect();
            let one = at.iter().all(|(_, partition, _)| *partition == at[0].1);
            if one {
                self.model.units[unit].whole = true;
                for id in &ids {
                    self.model.records[*id].journaled = false;
                }
            }
            self.answered(inc, &at, &ends)?;
        }
        Ok(())
    }

    fn partition_batch(&mut self, inc: Inc) -> Result<(), String> {
        let count = self.model.logs[inc].count();
        let partition = u32::try_from(self.rng.below(count as usize)).unwrap();
        let unit = self.model.unit(true);
        let count = 1 + self.rng.below(5);
        let ids: Vec<Id> = (0..count)
            .map(|_| {
                let keyed = self.rng.one_in(2);
                self.record(inc, Some(partition), unit, false, keyed)
            })
            .collect();
        let records: Vec<Record<'static>> = ids.iter().map(|id| build(&self.model, *id)).collect();
        let ends = self.ends(inc);
        let what = format!("append batch {ids:?} to {}:{partition}", self.model.logs[inc].name);
        let at =
            self.act(what, |live, _| live.as_ref().unwrap().logs[&inc].partition(partition)?.append_batch(records))?;
        if let Some(at) = at {
            let at: Vec<_> = ids.iter().zip(at).map(|(id, offset)| (*id, partition, offset)).collect();
            self.answered(inc, &at, &ends)?;
        }
        Ok(())
    }

    /// Where each partition of a log ends now.
    pub(crate) fn ends(&self, inc: Inc) -> Vec<u64> {
        let log = &self.live.as_ref().unwrap().logs[&inc];
        (0..log.partitions()).map(|number| log.partition(number).unwrap().end_offset()).collect()
    }

    /// Where each partition of a log starts now.
    pub(crate) fn starts(&self, inc: Inc) -> Vec<u64> {
        let log = &self.live.as_ref().unwrap().logs[&inc];
        (0..log.partitions()).map(|number| log.partition(number).unwrap().start_offset()).collect()
    }

    /// Takes in what an append answered: the offsets follow one another, from where the partition ended.
    pub(crate) fn answered(&mut self, inc: Inc, at: &[(Id, u32, u64)], ends: &[u64]) -> Result<(), String> {
        let status = Model::acked(self.model.logs[inc].durability);
        let mut next = ends.to_vec();
        for &(id, partition, offset) in at {
            let expected = &mut next[partition as usize];
            if offset != *expected && self.failed.is_none() {
                return Err(format!("record {id} went to {partition}:{offset}, and {expected} was next"));
            }
            let least = self.model.logs[inc].least_next.get(&partition).copied().unwrap_or(0);
            if offset < least {
                return Err(format!("record {id} got offset {partition}:{offset}, below {least}"));
            }
            *expected = offset + 1;
            self.model.ack(id, partition, offset, status);
        }
        Ok(())
    }

    fn transact(&mut self) -> Result<(), String> {
        let open: Vec<Inc> = self.live.as_ref().unwrap().logs.keys().copied().collect();
        if open.is_empty() {
            return Ok(());
        }
        let unit = self.model.unit(true);
        let ids: Vec<Id> = (0..=self.rng.below(5))
            .map(|_| {
                let inc = open[self.rng.below(open.len())];
                let keyed = self.rng.one_in(2);
                self.record(inc, None, unit, true, keyed)
            })
            .collect();
        let ends: Vec<(Inc, Vec<u64>)> = open.iter().map(|inc| (*inc, self.ends(*inc))).collect();
        let records: Vec<(Inc, Record<'static>)> =
            ids.iter().map(|id| (self.model.records[*id].inc, build(&self.model, *id))).collect();
        let done = self.act(format!("transaction {ids:?}"), |live, _| {
            let live = live.as_ref().unwrap();
            let mut txn = live.store.transaction();
            for (inc, record) in records {
                txn.append(&live.logs[&inc], record)?;
            }
            txn.commit()
        })?;
        if done.is_some() { self.committed(&ids, &ends) } else { Ok(()) }
    }

    /// Takes in a transaction that was committed: its records are readable, and durable.
    pub(crate) fn committed(&mut self, ids: &[Id], ends: &[(Inc, Vec<u64>)]) -> Result<(), String> {
        let mut found = BTreeSet::new();
        for (inc, ends) in ends {
            let log = self.live.as_ref().unwrap().logs[inc].clone();
            for (number, end) in (0_u32..).zip(ends) {
                let Some(entries) = self.read_from(&log, number, *end)? else {
                    for id in ids {
                        self.model.records[*id].status = Status::Durable;
                    }
                    return Ok(());
                };
                for (id, offset) in entries {
                    if !ids.contains(&id) || self.model.records[id].inc != *inc {
                        return Err(format!("record {id} appeared with transaction {ids:?}"));
                    }
                    found.insert(id);
                    self.model.ack(id, number, offset, Status::Durable);
                }
            }
        }
        match ids.iter().find(|id| !found.contains(id)) {
            None => Ok(()),
            Some(missing) => Err(format!("record {missing} of a committed transaction is not readable")),
        }
    }

    /// What a partition has from an offset on; `None` when reading failed, where it may.
    fn read_from(&mut self, log: &Log, number: u32, from: u64) -> Result<Option<Vec<(Id, u64)>>, String> {
        let read = || -> placemark::Result<Vec<placemark::Entry>> {
            log.partition(number)?.read(StartAt::Offset(from))?.collect()
        };
        match read() {
            Ok(entries) => {
                let check = |entry: &placemark::Entry| Ok((check_entry(&self.model, entry)?, entry.offset()));
                entries.iter().map(check).collect::<Result<Vec<_>, String>>().map(Some)
            }
            Err(error) if self.faulty => {
                self.failed.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(format!("reading from {number}:{from}: {error}")),
        }
    }
}

/// The record of the model, to be appended.
pub(crate) fn build(model: &Model, id: Id) -> Record<'static> {
    let rec = &model.records[id];
    let mut record = match &rec.value {
        Some(value) => Record::new(value.to_vec()),
        None => Record::tombstone(rec.key.clone().unwrap_or_default()).header("id", (id as u64).to_le_bytes().to_vec()),
    };
    if let (Some(key), Some(_)) = (&rec.key, &rec.value) {
        record = record.key(key.clone());
    }
    if rec.header {
        record = record.header("h", b"header".to_vec());
    }
    record
}
