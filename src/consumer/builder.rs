//! How a consumer is to read.

use std::time::Duration;

use crate::consumer::attempts::Attempts;
use crate::consumer::mode::{AtLeastOnce, AtMostOnce, ExactlyOnce, ExactlyOnceFrom};
use crate::consumer::{Choices, Consumer};
use crate::group::Mode;
use crate::types::check_name;
use crate::{Error, Log, Result, StartAt};

/// Choices for a consumer, ended by that of its mode. See [`Log::consumer`].
#[derive(Debug, Clone)]
#[must_use = "a consumer is there once its mode is chosen"]
pub struct ConsumerBuilder {
    log: Log,
    group: String,
    member: Option<String>,
    choices: Choices,
    max_attempts: Option<u32>,
    dead_letter: Option<Log>,
    skip: bool,
}

impl ConsumerBuilder {
    pub(crate) fn new(log: Log, group: &str) -> Self {
        Self {
            log,
            group: group.to_owned(),
            member: None,
            choices: Choices::default(),
            max_attempts: None,
            dead_letter: None,
            skip: false,
        }
    }

    /// Where the group begins if it is new: [`StartAt::Earliest`] unless said here. Joining fixes it, in every partition.
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.choices.start_at = start;
        self
    }

    /// Joins only if the log knows the group: a name with a typo is an error then, and not a new group. The error is
    /// [`Error::NoSuchGroup`].
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = placemark::Log::open(dir.path())?;
    /// # drop(orders.consumer("billing").at_least_once()?);
    /// use placemark::Error;
    ///
    /// let typo = orders.consumer("biling").existing().at_least_once();
    /// assert!(matches!(typo, Err(Error::NoSuchGroup { group, .. }) if group == "biling"));
    /// orders.consumer("billing").existing().at_least_once()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn existing(mut self) -> Self {
        self.choices.existing = true;
        self
    }

    /// A name for this member, by which [`Group::members`](crate::Group::members) tells it from others. It need not be the
    /// only one of its name.
    pub fn member_name(mut self, name: &str) -> Self {
        self.member = Some(name.to_owned());
        self
    }

    /// Most records in a batch: 500 unless said here, at least 1.
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.choices.max_poll_records = records;
        self
    }

    /// How long a batch may be held: one that is neither settled nor dropped by then is taken back and delivered again,
    /// and its settlement is [`Error::Fenced`]. For ever unless said here.
    pub fn processing_timeout(mut self, timeout: Duration) -> Self {
        self.choices.processing_timeout = Some(timeout);
        self
    }

    /// Most batches that this consumer has in flight, at least 1: with so many polled and not yet settled, a poll waits
    /// until one is. No bound unless said here. At least once only: at most once nothing is in flight, and exactly once
    /// it is one batch a partition.
    ///
    /// For a pool of workers: one thread polls, the workers settle, in any order.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = placemark::Log::open(dir.path())?;
    /// # orders.append_batch(["1", "2", "3"])?;
    /// use std::time::Duration;
    ///
    /// let mut billing = orders.consumer("billing").max_poll_records(1).max_in_flight(2).at_least_once()?;
    /// let first = billing.poll(Duration::ZERO)?.unwrap();
    /// let second = billing.poll(Duration::ZERO)?.unwrap();
    /// assert!(billing.poll(Duration::ZERO)?.is_none());
    ///
    /// second.commit()?;
    /// let third = billing.poll(Duration::ZERO)?.unwrap();
    /// assert_eq!((third.offsets(), billing.committed(0)), (2..3, None));
    ///
    /// first.commit()?;
    /// assert_eq!(billing.committed(0), Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.choices.max_in_flight = Some(batches);
        self
    }

    /// Keeps the order of each key while batches are worked on beside one another: a record is delivered when all before
    /// it of the same key and partition are settled or in the same batch. Records of other keys go past those that wait,
    /// up to 4,096 records ahead, and so do records without a key, which have no order to keep. A batch then need not
    /// hold all of its [offsets](crate::Batch::offsets).
    ///
    /// A batch takes the keys of all its records, so [`max_poll_records`](Self::max_poll_records) is best set to few.
    /// At least once only: in the other modes a partition has one batch at a time, or nothing is known of what is done.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = placemark::Log::open(dir.path())?;
    /// use std::time::Duration;
    /// use placemark::Record;
    ///
    /// for (key, value) in [("ann", "deposit"), ("ann", "withdraw"), ("bob", "deposit")] {
    ///     orders.append(Record::new(value).key(key))?;
    /// }
    /// let mut ledger = orders.consumer("ledger").by_key().max_poll_records(1).at_least_once()?;
    /// let ann = ledger.poll(Duration::ZERO)?.unwrap();
    /// let bob = ledger.poll(Duration::ZERO)?.unwrap(); // goes past what is next of ann
    /// assert_eq!((ann.offsets(), bob.offsets()), (0..1, 2..3));
    /// assert!(ledger.poll(Duration::ZERO)?.is_none());
    ///
    /// ann.commit()?;
    /// assert_eq!(ledger.poll(Duration::ZERO)?.unwrap().offsets(), 1..2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn by_key(mut self) -> Self {
        self.choices.by_key = true;
        self
    }

    /// How often a record may fail, at least once, before it is passed: to a [dead-letter log](Self::dead_letter), or
    /// [skipped](Self::skip), one of which is to be said. For ever unless said here: it is delivered again and again, and
    /// nothing behind it in its partition is.
    ///
    /// An attempt of a record is counted each time it is handed out as a batch of its own, before it is handed out, so that
    /// it counts even if the process does not survive it; and each time it is [named](crate::Batch::fail) as the one that
    /// failed among others, as [`run`](crate::Consumer::run) does. When a batch of many fails, by being dropped, held past its
    /// [timeout](Self::processing_timeout) or by the death of its process, nobody knows which record it was: that counts for
    /// none, and the batch comes again in halves, down to single records, until they are behind the one that fails. A record
    /// beside one that fails is never passed.
    ///
    /// What is counted is as durable as the store's durability says: the cost is one more write to the disk for each batch,
    /// of some 30 bytes, and under `Sync` one more wait for it. One batch of a partition is in flight at a time. When a
    /// record is passed, the placemark's metadata stay.
    ///
    /// At least once and exactly once only: at most once nothing is delivered again, and a database of the application's own
    /// decides itself where it goes on.
    ///
    /// | a record fails | without `max_attempts` | with `dead_letter` | with `skip` |
    /// |---|---|---|---|
    /// | fewer times than `n` | comes again | comes again | comes again |
    /// | the `n`th time | comes again | is appended there, and passed, in one transaction | is passed |
    /// | and the dead-letter log refuses it | | `poll` says why; it is passed once that is mended | |
    /// | at most once | is lost | `InvalidOption` | `InvalidOption` |
    /// | in a database of its own (`exactly_once_from`) | comes again | `InvalidOption` | `InvalidOption` |
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Appends a record that has failed [too often](Self::max_attempts) to this log of the same store, and passes it: both
    /// or neither, whatever crashes. So it is there once.
    ///
    /// It keeps its key, value and headers, and gets more headers, all of text: `placemark-log`, `placemark-partition` and
    /// `placemark-offset` say where it comes from, `placemark-attempts` how often it was tried, and `placemark-reason` why it
    /// failed last, in up to 1024 bytes: what [`fail`](crate::Batch::fail) or the handler of
    /// [`run`](crate::Consumer::run) said, or what was seen of it.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = placemark::Store::open(dir.path())?;
    /// use std::time::Duration;
    ///
    /// let (orders, dead) = (store.log("orders")?, store.log("orders-dead")?);
    /// orders.append_batch(["bad", "good"])?;
    /// let mut billing = orders.consumer("billing").max_attempts(2).dead_letter(&dead).max_poll_records(1).at_least_once()?;
    /// for _ in 0..2 {
    ///     drop(billing.poll(Duration::ZERO)?.unwrap()); // not settled, so it has failed
    /// }
    /// assert_eq!(billing.poll(Duration::ZERO)?.unwrap().offsets(), 1..2);
    /// let letter = dead.read(placemark::StartAt::Earliest)?.next().unwrap()?;
    /// assert_eq!((letter.value(), letter.header("placemark-attempts")), (&b"bad"[..], Some(&b"2"[..])));
    /// # Ok(())
    /// # }
    /// ```
    pub fn dead_letter(mut self, log: &Log) -> Self {
        self.dead_letter = Some(log.clone());
        self
    }

    /// Passes a record that has failed [too often](Self::max_attempts), and keeps nothing of it.
    pub fn skip(mut self) -> Self {
        self.skip = true;
        self
    }

    /// How long a partition rests under [`run`](crate::Consumer::run) after a record of it has failed: `first`, then twice as
    /// long each time that the same record fails again, and never longer than `longest`. 100 ms and 10 s unless said here.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.choices.backoff = (first, longest);
        self
    }

    /// Joins the group as a consumer that loses what is in hand at a crash, and sees nothing twice.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] for the group's name, [`Error::InvalidOption`], [`Error::OffsetOutOfRange`] for a new group's
    /// [`StartAt::Offset`] that a partition does not have, and [`Error::NoSuchLog`] when the log was deleted.
    pub fn at_most_once(self) -> Result<Consumer<AtMostOnce>> {
        self.join(Mode::AtMostOnce)
    }

    /// Joins the group as a consumer that loses nothing, and after a crash sees again what was in hand.
    ///
    /// # Errors
    ///
    /// As for [`at_most_once`](Self::at_most_once).
    pub fn at_least_once(self) -> Result<Consumer<AtLeastOnce>> {
        self.join(Mode::AtLeastOnce)
    }

    /// Joins the group as a consumer whose results, in logs of the same store, move together with its placemark.
    ///
    /// # Errors
    ///
    /// As for [`at_most_once`](Self::at_most_once).
    pub fn exactly_once(self) -> Result<Consumer<ExactlyOnce>> {
        self.join(Mode::ExactlyOnce)
    }

    /// Joins the group as a consumer whose results live in the application's own database, with the placemark beside
    /// them in the same transaction.
    ///
    /// `load` is asked for a partition's placemark whenever the partition is assigned, and again after a batch of it was
    /// dropped: the database is the truth, so its answer wins over the store's own placemark. `None` says that nothing
    /// was processed: the group's start decides.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = placemark::Log::open(dir.path())?;
    /// # orders.append_batch(["one", "two", "three"])?;
    /// use std::convert::Infallible;
    ///
    /// // A database would be asked; here it says that two records are done.
    /// let mut ledger = orders.consumer("ledger").exactly_once_from(|_partition| Ok::<_, Infallible>(Some(2)))?;
    /// let batch = ledger.poll(std::time::Duration::ZERO)?.unwrap();
    /// assert_eq!(batch.offsets(), 2..3);
    /// // ... the results and batch.placemark() are committed to the database, then the store is told:
    /// batch.commit()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`at_most_once`](Self::at_most_once). A poll fails with [`Error::Application`] when `load` does, and with
    /// [`Error::OffsetOutOfRange`] when the partition does not have the position it names.
    pub fn exactly_once_from<F, E>(self, mut load: F) -> Result<Consumer<ExactlyOnceFrom>>
    where
        F: FnMut(u32) -> Result<Option<u64>, E> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut consumer = self.join(Mode::ExactlyOnceFrom)?;
        consumer.load_from(Box::new(move |partition| load(partition).map_err(Into::into)));
        Ok(consumer)
    }

    fn join<M>(mut self, mode: Mode) -> Result<Consumer<M>> {
        check_name(&self.group)?;
        self.member.as_deref().map_or(Ok(()), check_name)?;
        if self.choices.max_poll_records == 0 {
            return Err(Error::option("max_poll_records", "is 0: a batch has at least one record"));
        }
        if self.choices.processing_timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::option("processing_timeout", "is 0: no batch could be processed in that"));
        }
        if self.choices.max_in_flight == Some(0) {
            return Err(Error::option("max_in_flight", "is 0: nothing could be delivered"));
        }
        let beside = [("max_in_flight", self.choices.max_in_flight.is_some()), ("by_key", self.choices.by_key)];
        if let Some((option, _)) = beside.into_iter().find(|(_, set)| *set && mode != Mode::AtLeastOnce) {
            return Err(Error::option(option, "has a meaning for at_least_once only: choose that, or leave it out"));
        }
        let (first, longest) = self.choices.backoff;
        if first.is_zero() || first > longest {
            return Err(Error::option("backoff", "must begin above 0, and not above what is longest"));
        }
        let attempts = self.attempts(mode)?;
        self.choices.mode = mode;
        self.choices.counted = attempts.is_some();
        let mut consumer = Consumer::join(self.log.handle(), self.log.core(), &self.group, self.member, self.choices)?;
        consumer.attempts = attempts;
        Ok(consumer)
    }

    /// What was said about records that fail, where it can be.
    fn attempts(&self, mode: Mode) -> Result<Option<Attempts>> {
        let refuse = |option, reason: &str| Err(Error::option(option, reason));
        let Some(most) = self.max_attempts else {
            return match (&self.dead_letter, self.skip) {
                (Some(_), _) => refuse("dead_letter", "needs max_attempts, which says when it is for"),
                (None, true) => refuse("skip", "needs max_attempts, which says when it is for"),
                (None, false) => Ok(None),
            };
        };
        if most == 0 {
            return refuse("max_attempts", "is 0: a record has at least one");
        }
        if matches!(mode, Mode::AtMostOnce | Mode::ExactlyOnceFrom) {
            return refuse("max_attempts", "has a meaning for at_least_once and exactly_once only");
        }
        if self.choices.by_key {
            return refuse("max_attempts", "counts one batch of a partition at a time, which by_key does not keep to");
        }
        if self.dead_letter.is_some() == self.skip {
            return refuse("max_attempts", "needs either dead_letter or skip, which say what becomes of the record");
        }
        if let Some(log) = &self.dead_letter {
            if !log.handle().is_same_store(self.log.handle()) {
                return refuse("dead_letter", "belongs to another store");
            }
            if log.core().id() == self.log.core().id() {
                return refuse("dead_letter", "is the log that is read: its records would fail again");
            }
            if log.core().check_key(false, 0).is_err() {
                return refuse("dead_letter", "keeps the latest record of every key only: letters would be lost");
            }
        }
        Ok(Some(Attempts { most, dead_letter: self.dead_letter.clone() }))
    }
}

impl Log {
    /// A consumer of this log, in the group of this name; the calls that follow choose how it reads.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = placemark::Log::open(dir.path())?;
    /// let mut mail = orders.consumer("mail").max_poll_records(10).at_most_once()?;
    /// assert!(mail.poll(std::time::Duration::ZERO)?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn consumer(&self, group: &str) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), group)
    }
}
