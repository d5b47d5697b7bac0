//! Appending once, however often it is tried.

mod batch;

use std::fmt;
use std::sync::Arc;

use crate::format::ProducerStamp;
use crate::partition::{Author, Fence, PartitionCore};
use crate::record::Record;
use crate::store::{Handle, LogCore};
use crate::types::{ProducerId, check_name};
use crate::{Error, Log, Position, Result};

/// What became of a record that a [`Producer`] appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It was written, here.
    New(Position),
    /// It had been written before, and nothing was now. Where it is, if it is one of the newest: the last five of each
    /// partition at least are known.
    Duplicate(Option<Position>),
}

/// Appends records that bear a number of the application's own, each of them once: a line of a file, an offset in
/// another system, a counter.
///
/// A producer belongs to one log, and is known by its name. Every record that it appends has a sequence; sequences only
/// increase, and may have gaps. One that was appended before is a [`Duplicate`](Appended::Duplicate), and writes
/// nothing: also after a crash, however often the store was opened since, and whatever retention has removed. So after
/// a failure of any kind the last record is simply appended again, and after a restart an importer goes on behind
/// [`last_sequence`](Self::last_sequence).
///
/// Opening a name again fences the handle that had it: its next append is [`Error::Fenced`], so that an importer that
/// was thought dead cannot write beside the one that took its place. Names do not influence one another.
///
/// ```
/// # fn main() -> placemark::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use placemark::{Appended, Log};
///
/// let lines = Log::open(dir.path())?;
/// let input = ["first line", "second line"];
/// for _ in 0..2 {
///     let mut importer = lines.producer("importer")?;
///     let next = importer.last_sequence().map_or(0, |last| last + 1);
///     for (number, line) in (0..).zip(input).skip(usize::try_from(next).unwrap()) {
///         importer.append(number, line)?;
///     }
/// }
/// // The second round found everything there. So does whoever tries again:
/// let mut importer = lines.producer("importer")?;
/// assert!(matches!(importer.append(1, "second line")?, Appended::Duplicate(Some(at)) if at.offset == 1));
/// assert_eq!(lines.partition(0)?.end_offset(), 2);
/// # Ok(())
/// # }
/// ```
///
/// # What a sequence is compared with
///
/// A record with a key goes to the partition of its key, and its sequence is compared with the newest of this producer
/// there. One without a key may have gone to any partition, and is compared with the largest anywhere. A log that is
/// given more partitions sends some keys elsewhere: what was in hand then may be appended twice.
///
/// The answer is as sure as the log's durability: under [`Durability::Sync`](crate::Durability::Sync) a duplicate is
/// one of a record that is on the disk; under the others power loss may take the newest records, and their sequences
/// with them, so that they can be appended again.
///
/// *(The idea is Kafka's idempotent producer, KIP-98, where the numbers are the client library's own and do not outlive
/// it. Here they are the application's, as in the source offsets of Kafka Connect, so that they survive a restart.)*
pub struct Producer {
    handle: Handle,
    log: Arc<LogCore>,
    name: String,
    id: ProducerId,
    fence: Arc<Fence>,
    /// What it has appended to each partition. No one else appends in its name while it is not fenced.
    places: Vec<Place>,
    largest: Option<u64>,
    /// A partition that failed while a record was on its way there: whether it arrived is for the next opening to say,
    /// and until then nothing may be appended that could stand for it.
    in_doubt: Option<u32>,
}

/// What a producer has appended to one partition.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    newest: Option<u64>,
    slot: Option<u32>,
}

impl Place {
    /// Whether this sequence, or a later one, was appended here.
    #[inline]
    fn has(&self, sequence: u64) -> bool {
        self.newest.is_some_and(|newest| newest >= sequence)
    }
}

impl Log {
    /// Opens the producer of this name, and fences whoever had it before.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use placemark::{Error, Log};
    ///
    /// let log = Log::open(dir.path())?;
    /// let mut old = log.producer("importer")?;
    /// old.append(7, "seven")?;
    /// let new = log.producer("importer")?;
    /// assert_eq!(new.last_sequence(), Some(7));
    /// assert!(matches!(old.append(8, "eight"), Err(Error::Fenced)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::NoSuchLog`] when the log was deleted, and [`Error::Failed`] when a partition is
    /// failed: what the producer had in hand there is known after the store has been opened again.
    pub fn producer(&self, name: &str) -> Result<Producer> {
        check_name(name)?;
        let producer = self.open_producer(name).map_err(|error| self.core().explain(error));
        self.handle().store().env().background.lend_a_hand();
        producer
    }

    fn open_producer(&self, name: &str) -> Result<Producer> {
        let (store, log) = (self.handle().core()?, self.core());
        let id = match store.side().take_producer(log.id(), name) {
            Err(Error::Fenced) => return Err(log.gone()),
            taken => taken?,
        };
        let fence = log.fence(id.number);
        fence.raise(id.epoch);
        let mut producer = Producer {
            handle: self.handle().clone(),
            log: Arc::clone(log),
            name: name.to_owned(),
            id,
            fence,
            places: Vec::new(),
            largest: None,
            in_doubt: None,
        };
        // From here on nothing gets in behind what is read now.
        for partition in log.partitions() {
            let newest = partition.take_over(id.number)?;
            producer.places.push(Place { newest, slot: None });
            producer.largest = producer.largest.max(newest);
        }
        Ok(producer)
    }
}

impl Producer {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The largest sequence that it has appended, in any partition; `None` as long as there is none.
    pub fn last_sequence(&self) -> Option<u64> {
        self.largest
    }

    /// Appends a record, unless its sequence was appended before. On return it is as durable as the log's durability
    /// promises, whether it was written now or earlier.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when the name has been opened again, for duplicates too. [`Error::RecordTooLarge`] and
    /// [`Error::InvalidOption`]: nothing was written. After [`Error::Failed`] and [`Error::Io`] open the store again:
    /// [`last_sequence`](Self::last_sequence) then says whether the record is there, and appending it again does no
    /// harm.
    #[inline]
    pub fn append<'a>(&mut self, sequence: u64, record: impl Into<Record<'a>>) -> Result<Appended> {
        match record.into().into_plain() {
            Ok(value) => self.append_value(sequence, value.as_slice()),
            Err(record) => self.append_record(sequence, &record),
        }
    }

    /// The most common record by the short way of [`Log::append`].
    fn append_value(&mut self, sequence: u64, value: &[u8]) -> Result<Appended> {
        self.append_to(sequence, None, |partition, author| partition.append_plain(value, Some(author)))
    }

    fn append_record(&mut self, sequence: u64, record: &Record<'_>) -> Result<Appended> {
        self.append_to(sequence, Some(record), |partition, author| partition.append_one(record, Some(author)))
    }

    #[inline]
    fn append_to(
        &mut self,
        sequence: u64,
        record: Option<&Record<'_>>,
        append: impl FnOnce(&Arc<PartitionCore>, Author<'_>) -> Result<crate::partition::Appended>,
    ) -> Result<Appended> {
        let appended = self.judge(sequence, record, append);
        self.handle.store().env().background.lend_a_hand();
        appended.map_err(|error| self.log.explain(error))
    }

    /// Appends what is new.
    #[inline]
    fn judge(
        &mut self,
        sequence: u64,
        record: Option<&Record<'_>>,
        append: impl FnOnce(&Arc<PartitionCore>, Author<'_>) -> Result<crate::partition::Appended>,
    ) -> Result<Appended> {
        if self.in_doubt.is_some() {
            self.check_in_doubt()?;
        }
        let keyed = record.filter(|record| record.key_bytes().is_some());
        if keyed.is_none() && self.largest.is_some_and(|largest| largest >= sequence) {
            self.log.check_key(false, 0)?;
            return self.duplicate(sequence, None);
        }
        let partition = match keyed {
            Some(record) => self.log.choose(record, None)?,
            None => self.log.choose_unkeyed()?,
        };
        let number = partition.ident().partition;
        let place = place(&mut self.places, number)?;
        if place.has(sequence) {
            return self.duplicate(sequence, Some(number));
        }
        let stamp = ProducerStamp { id: self.id.number, epoch: self.id.epoch, sequence };
        let author = Author { stamp, fence: &self.fence, slot: &mut place.slot };
        let appended = append(partition, author);
        match appended.and_then(|appended| partition.settle(&appended).map(|()| appended.base)) {
            Ok(offset) => {
                place.newest = Some(sequence);
                self.largest = self.largest.max(Some(sequence));
                Ok(Appended::New(Position { partition: number, offset }))
            }
            Err(error) => {
                self.in_doubt = doubt(partition);
                Err(error)
            }
        }
    }

    /// Where a partition failed with a record on its way there, so it stays until the store is opened again.
    #[cold]
    fn check_in_doubt(&self) -> Result<()> {
        match self.in_doubt {
            Some(number) => self.log.partition(number)?.check_usable(),
            None => Ok(()),
        }
    }

    /// What there is to say of a sequence that was appended before: to this partition, or to any.
    #[cold]
    fn duplicate(&self, sequence: u64, partition: Option<u32>) -> Result<Appended> {
        let mut found = None;
        for core in self.log.partitions() {
            let number = core.ident().partition;
            let has_it = self.places.get(number as usize).is_some_and(|place| place.has(sequence));
            if has_it && partition.is_none_or(|wanted| wanted == number) {
                let offset = core.position_of(self.id.number, sequence)?;
                found = found.or(offset.map(|offset| Position { partition: number, offset }));
            }
        }
        self.fence.check(self.id.epoch)?;
        Ok(Appended::Duplicate(found))
    }
}

/// What a producer has appended to a partition.
#[inline]
fn place(places: &mut Vec<Place>, partition: u32) -> Result<&mut Place> {
    let at = partition as usize;
    if at >= places.len() {
        // The log has become larger since it was opened.
        places.resize(at + 1, Place::default());
    }
    // Made where it is needed only: an error has something to drop.
    places.get_mut(at).ok_or_else(|| Error::Closed)
}

/// After an error: whether a record arrived is not known where the partition has failed.
#[cold]
fn doubt(partition: &PartitionCore) -> Option<u32> {
    partition.check_usable().is_err().then(|| partition.ident().partition)
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.log.drop_fence(self.id.number, &self.fence);
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("log", &self.log.name())
            .field("name", &self.name)
            .field("last_sequence", &self.largest)
            .finish_non_exhaustive()
    }
}
