//! The public handle of a log: where the partitioner meets the partitions.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::journal::{Gathered, Work};
use crate::partition::PartitionCore;
use crate::record::Record;
use crate::store::{Handle, LogCore, Partition, Reader, Store};
use crate::types::Millis;
use crate::{Durability, Position, Result, StartAt};

/// A log: records in one or more partitions, each in the order of their offsets.
///
/// It is cheap to clone, all clones share one state, and it keeps its store open.
#[derive(Clone)]
pub struct Log {
    handle: Handle,
    core: Arc<LogCore>,
}

impl Log {
    /// Opens a store of one log, for those who need no more. The store in this directory has a log named `log`.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("orders");
    /// let orders = placemark::Log::open(&path)?;
    /// assert_eq!(orders.append("order 1")?.offset, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`] and [`Store::log`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Store::open(path)?.log("log")
    }

    pub(super) fn new(handle: Handle, core: Arc<LogCore>) -> Self {
        Self { handle, core }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// How many partitions it has now.
    pub fn partitions(&self) -> u32 {
        self.core.partition_count()
    }

    /// One of its partitions, numbered from 0.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPartition`](crate::Error::NoSuchPartition).
    pub fn partition(&self, number: u32) -> Result<Partition> {
        let core = self.core.partition(number)?;
        Ok(Partition::new(self.handle.clone(), Arc::clone(&self.core), Arc::clone(core)))
    }

    /// Appends a record, and returns where it stands once it is as durable as the log's durability promises.
    ///
    /// A record with a key goes to the partition of its key, as Kafka's default partitioner would choose it; one without
    /// goes to the partitions in turn.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use placemark::{Log, Record};
    ///
    /// let orders = Log::open(dir.path())?;
    /// orders.append("order 1")?;
    /// orders.append(format!("order {}", 2))?;
    /// let at = orders.append(Record::new("order 3").key("customer-7").header("trace", "ab12"))?;
    /// assert_eq!((at.partition, at.offset), (0, 2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::RecordTooLarge`], and [`Error::InvalidOption`] for a record without a key in a log that is compacted by
    /// key: nothing was written, and the next append works. After [`Error::Failed`] and [`Error::Io`] the record may or
    /// may not be there: the partition refuses further appends until the store is opened again.
    ///
    /// [`Error::RecordTooLarge`]: crate::Error::RecordTooLarge
    /// [`Error::InvalidOption`]: crate::Error::InvalidOption
    /// [`Error::Failed`]: crate::Error::Failed
    /// [`Error::Io`]: crate::Error::Io
    #[inline]
    pub fn append<'a>(&self, record: impl Into<Record<'a>>) -> Result<Position> {
        match record.into().into_plain() {
            Ok(value) => self.append_value(value.as_slice()),
            Err(record) => self.append_record(&record),
        }
    }

    /// The most common record by a shorter way: the compiler sees that of a record made from a value nothing else is
    /// left, and makes none.
    fn append_value(&self, value: &[u8]) -> Result<Position> {
        let partition = self.core.choose_unkeyed()?;
        let appended = partition.append_value(value);
        self.appended(partition, appended)
    }

    fn append_record(&self, record: &Record<'_>) -> Result<Position> {
        let partition = self.core.choose(record, None)?;
        let appended = partition.append(record);
        self.appended(partition, appended)
    }

    #[inline]
    fn appended(&self, partition: &PartitionCore, appended: Result<u64>) -> Result<Position> {
        partition.env().background.lend_a_hand();
        match appended {
            Ok(offset) => Ok(Position { partition: partition.ident().partition, offset }),
            Err(error) => Err(self.core.explain(error)),
        }
    }

    /// Appends records together: all of them or none, also across partitions. Returns where each stands, in their order.
    /// Over several partitions that holds after a crash of the process whatever the durability, and after power loss under
    /// [`Sync`](crate::Durability::Sync).
    ///
    /// Those without a key go to one partition together; which one changes from batch to batch.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let orders = placemark::Log::open(dir.path())?;
    /// let at = orders.append_batch(["order 1", "order 2"])?;
    /// assert_eq!(at.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`append`](Self::append); a batch that does not fit in a segment is refused whole.
    pub fn append_batch<'a, I>(&self, records: I) -> Result<Vec<Position>>
    where
        I: IntoIterator,
        I::Item: Into<Record<'a>>,
    {
        let records: Vec<Record<'a>> = records.into_iter().map(Into::into).collect();
        let appended = self.append_records(records);
        self.handle.store().env().background.lend_a_hand();
        appended.map_err(|error| self.core.explain(error))
    }

    fn append_records(&self, records: Vec<Record<'_>>) -> Result<Vec<Position>> {
        for (place, record) in records.iter().enumerate() {
            self.core.check_key(record.key_bytes().is_some(), place)?;
        }
        if records.is_empty() {
            self.handle.core()?;
            return Ok(Vec::new());
        }
        if self.core.partition_count() == 1 {
            return positions_in(self.core.partition(0)?, &records);
        }
        let mut unkeyed = None;
        let mut parts: BTreeMap<u32, Part<'_>> = BTreeMap::new();
        for (place, record) in records.into_iter().enumerate() {
            let turn = match record.key_bytes() {
                Some(_) => None,
                None => Some(*unkeyed.get_or_insert_with(|| self.core.next_turn())),
            };
            let number = self.core.choose(&record, turn)?.ident().partition;
            let part = parts.entry(number).or_default();
            part.places.push(place);
            part.records.push(record);
        }
        match parts.first_key_value() {
            Some((number, part)) if parts.len() == 1 => positions_in(self.core.partition(*number)?, &part.records),
            _ => self.append_across(&parts),
        }
    }

    /// Appends a batch that goes to several partitions: decided by one record of the journal, as a transaction is, with
    /// the log's own durability.
    fn append_across(&self, parts: &BTreeMap<u32, Part<'_>>) -> Result<Vec<Position>> {
        let store = self.handle.core()?;
        let now = Millis(store.env().storage.now());
        let durable = self.core.durability() == Durability::Sync;
        let mut work = Work { durable, ..Work::default() };
        for (number, part) in parts {
            let partition = self.core.partition(*number)?;
            let mut gathered = Gathered::default();
            for record in &part.records {
                partition.check_record(record)?;
                gathered.push(record)?;
            }
            work.parts.push((Arc::clone(partition), gathered.finish(now)));
        }
        let bases = store.journal().commit(work)?;
        let mut all: Vec<(usize, Position)> = Vec::new();
        for ((number, part), base) in parts.iter().zip(bases) {
            let positions = (base..).map(|offset| Position { partition: *number, offset });
            all.extend(part.places.iter().copied().zip(positions));
        }
        all.sort_unstable_by_key(|(place, _)| *place);
        Ok(all.into_iter().map(|(_, position)| position).collect())
    }

    /// Reads all partitions, each in the order of its offsets, one after the other. At the end it may be asked again for
    /// what has come since.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use placemark::{Log, StartAt};
    ///
    /// let orders = Log::open(dir.path())?;
    /// orders.append_batch(["order 1", "order 2"])?;
    /// let mut reader = orders.read(StartAt::Offset(1))?;
    /// assert_eq!(reader.next().unwrap()?.value(), b"order 2");
    /// assert!(reader.next().is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange) for an offset that is outside `start..=end` of any
    /// of its partitions.
    pub fn read(&self, start: StartAt) -> Result<Reader> {
        Reader::over_log(self.handle.clone(), Arc::clone(&self.core), start).map_err(|error| self.core.explain(error))
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn core(&self) -> &Arc<LogCore> {
        &self.core
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("name", &self.name())
            .field("partitions", &self.partitions())
            .finish_non_exhaustive()
    }
}

/// What of a batch goes to one partition, and where in the batch it stood.
#[derive(Default)]
struct Part<'a> {
    places: Vec<usize>,
    records: Vec<Record<'a>>,
}

fn positions_in(partition: &Arc<PartitionCore>, records: &[Record<'_>]) -> Result<Vec<Position>> {
    let number = partition.ident().partition;
    let offsets = partition.append_batch(records)?;
    Ok(offsets.map(|offset| Position { partition: number, offset }).collect())
}
