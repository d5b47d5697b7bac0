//! A batch of which a part may have been appended before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::format::ProducerStamp;
use crate::journal::{Gathered, Work};
use crate::partition::{Author, PartitionCore};
use crate::producer::{Appended, Producer, doubt, place};
use crate::record::Record;
use crate::types::Millis;
use crate::{Durability, Error, Position, Result};

/// Records with consecutive sequences for one partition: what one stamp speaks of.
struct Run<'a> {
    partition: u32,
    first: u64,
    /// Where in the batch each record stood.
    places: Vec<usize>,
    records: Vec<Record<'a>>,
}

impl Run<'_> {
    fn last(&self) -> u64 {
        self.first + (self.records.len() as u64).saturating_sub(1)
    }
}

impl Producer {
    /// Appends records with consecutive sequences, the first of which is given. What was appended before is not written
    /// again; what is new is written whole or not at all, also across partitions. Returns what became of each, in their
    /// order. Over several partitions that holds after a crash of the process whatever the durability, and after power
    /// loss under [`Sync`](crate::Durability::Sync).
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use placemark::{Appended, Log};
    ///
    /// let lines = Log::open(dir.path())?;
    /// let mut importer = lines.producer("importer")?;
    /// importer.append_batch(10, ["ten", "eleven"])?;
    /// let again = importer.append_batch(10, ["ten", "eleven", "twelve"])?;
    /// assert!(matches!(again[..], [Appended::Duplicate(_), Appended::Duplicate(_), Appended::New(at)] if at.offset == 2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append); a batch of which the new part does not fit in a segment is refused whole.
    pub fn append_batch<'a, I>(&mut self, first_sequence: u64, records: I) -> Result<Vec<Appended>>
    where
        I: IntoIterator,
        I::Item: Into<Record<'a>>,
    {
        let records: Vec<Record<'a>> = records.into_iter().map(Into::into).collect();
        let appended = self.append_records(first_sequence, records);
        self.handle.store().env().background.lend_a_hand();
        appended.map_err(|error| self.log.explain(error))
    }

    fn append_records(&mut self, first: u64, records: Vec<Record<'_>>) -> Result<Vec<Appended>> {
        self.check_in_doubt()?;
        self.handle.core()?;
        self.fence.check(self.id.epoch)?;
        for (place, record) in records.iter().enumerate() {
            self.log.check_key(record.key_bytes().is_some(), place)?;
        }
        if first.checked_add((records.len() as u64).saturating_sub(1)).is_none() {
            return Err(Error::option("first_sequence", "is so large that the batch's sequences pass 2^64 - 1"));
        }
        let mut outcome = vec![Appended::Duplicate(None); records.len()];
        let runs = self.new_runs(first, records, &mut outcome)?;
        let written = match runs.as_slice() {
            [] => Ok(Vec::new()),
            [run] => self.append_run(run).map(|base| vec![base]),
            runs => self.append_across(runs),
        };
        let bases = match written {
            Ok(bases) => bases,
            Err(error) => {
                let mut partitions = runs.iter().filter_map(|run| self.log.partition(run.partition).ok());
                self.in_doubt = partitions.find_map(|partition| doubt(partition));
                return Err(error);
            }
        };
        for (run, base) in runs.iter().zip(bases) {
            let place = place(&mut self.places, run.partition)?;
            place.newest = place.newest.max(Some(run.last()));
            self.largest = self.largest.max(Some(run.last()));
            for (at, offset) in run.places.iter().zip(base..) {
                if let Some(outcome) = outcome.get_mut(*at) {
                    *outcome = Appended::New(Position { partition: run.partition, offset });
                }
            }
        }
        Ok(outcome)
    }

    /// What of a batch is new, by partition; `outcome` learns where the rest is.
    fn new_runs<'a>(&mut self, first: u64, records: Vec<Record<'a>>, outcome: &mut [Appended]) -> Result<Vec<Run<'a>>> {
        let mut runs: BTreeMap<u32, Vec<Run<'a>>> = BTreeMap::new();
        let mut unkeyed = None;
        for (((at, record), sequence), outcome) in records.into_iter().enumerate().zip(first..=u64::MAX).zip(outcome) {
            let keyed = record.key_bytes().is_some();
            if !keyed && self.largest.is_some_and(|largest| largest >= sequence) {
                *outcome = self.duplicate(sequence, None)?;
                continue;
            }
            // Records without a key stay together, as those of any batch do.
            let turn = if keyed { None } else { Some(*unkeyed.get_or_insert_with(|| self.log.next_turn())) };
            let partition = self.log.choose(&record, turn)?.ident().partition;
            if place(&mut self.places, partition)?.has(sequence) {
                *outcome = self.duplicate(sequence, Some(partition))?;
                continue;
            }
            let runs = runs.entry(partition).or_default();
            match runs.last_mut().filter(|run| run.last() + 1 == sequence) {
                Some(run) => {
                    run.places.push(at);
                    run.records.push(record);
                }
                None => runs.push(Run { partition, first: sequence, places: vec![at], records: vec![record] }),
            }
        }
        Ok(runs.into_values().flatten().collect())
    }

    fn stamp(&self, run: &Run<'_>) -> ProducerStamp {
        ProducerStamp { id: self.id.number, epoch: self.id.epoch, sequence: run.first }
    }

    /// Appends one run, as one frame.
    fn append_run(&mut self, run: &Run<'_>) -> Result<u64> {
        let stamp = self.stamp(run);
        let partition: &Arc<PartitionCore> = self.log.partition(run.partition)?;
        let slot = &mut place(&mut self.places, run.partition)?.slot;
        let appended = partition.append_together(&run.records, Some(Author { stamp, fence: &self.fence, slot }))?;
        partition.settle(&appended)?;
        Ok(appended.base)
    }

    /// Appends several, all or none: decided by one record of the journal, with the log's own durability.
    fn append_across(&self, runs: &[Run<'_>]) -> Result<Vec<u64>> {
        let store = self.handle.core()?;
        let now = Millis(store.env().storage.now());
        let producer = Some((Arc::clone(&self.fence), self.id.epoch));
        let durable = self.log.durability() == Durability::Sync;
        let mut work = Work { durable, producer, ..Work::default() };
        for run in runs {
            let partition = self.log.partition(run.partition)?;
            let mut gathered = Gathered::default();
            for record in &run.records {
                partition.check_record(record)?;
                gathered.push(record)?;
            }
            let encoded = gathered.finish(now);
            work.parts.push((
                Arc::clone(partition),
                crate::partition::Encoded { producer: Some(self.stamp(run)), ..encoded },
            ));
        }
        store.journal().commit(work)
    }
}
