//! The common loop: poll, hand each record to a closure, settle, back off, stop.

use std::fmt::Display;
use std::time::Duration;

use crate::consumer::{AtLeastOnce, AtMostOnce, Batch, Consumer, ExactlyOnce, Idle};
use crate::storage::Deadline;
use crate::sync::atomic::Ordering;
use crate::{Entry, Error, Result, Transaction};

/// A partition is left alone until then, since a record of it has failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest {
    until: Option<Deadline>,
    /// How long the next one is, if the same record fails again.
    next: Duration,
}

impl Consumer<AtMostOnce> {
    /// Hands every record to `handler`, as they come, until it is [stopped](Self::stopper). A record is passed before the
    /// handler sees it, so that what the handler answers changes nothing: it is for the handler to note what failed.
    ///
    /// A stop waits for the rest of the batch, which would be lost. So would it be in a panic of the handler, which goes
    /// through; [`max_poll_records`](crate::ConsumerBuilder::max_poll_records) bounds it.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = placemark::Log::open(dir.path())?;
    /// # orders.append_batch(["a", "b"])?;
    /// let mut mail = orders.consumer("mail").at_most_once()?;
    /// let stopper = mail.stopper();
    /// let mut sent = 0;
    /// mail.run(|entry| {
    ///     sent += 1;
    ///     if entry.value() == b"b" {
    ///         stopper.stop(); // mostly from another thread
    ///     }
    ///     Err("no answer from the server")
    /// })?;
    /// assert_eq!((sent, mail.committed(0)), (2, Some(2)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll). Once stopped it is `Ok`.
    pub fn run<E>(&mut self, mut handler: impl FnMut(&Entry) -> Result<(), E>) -> Result<()> {
        while let Some(batch) = self.wait_for_batch()? {
            for entry in &batch {
                // As the mode says: it has been passed.
                let _ = handler(entry);
            }
        }
        Ok(())
    }
}

impl Consumer<AtLeastOnce> {
    /// Hands every record to `handler`, as they come, until it is [stopped](Self::stopper). Records that it answers `Ok`
    /// for are settled, batch by batch.
    ///
    /// A record that it answers `Err` for comes again, after those before it were settled. Its partition rests meanwhile,
    /// as [`backoff`](crate::ConsumerBuilder::backoff) says, and the others go on. With
    /// [`max_attempts`](crate::ConsumerBuilder::max_attempts) it is passed once it has failed so often, with the text of
    /// the error as the reason. A panic of the handler goes through, and counts as a failure.
    ///
    /// A stop ends every wait at once. The handler is let finish the record in hand, and what it has done is settled.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = placemark::Store::open(dir.path())?;
    /// # let orders = store.log("orders")?;
    /// # orders.append_batch(["1", "two", "3"])?;
    /// let dead = store.log("orders-dead")?;
    /// let mut billing = orders.consumer("billing").max_attempts(1).dead_letter(&dead).at_least_once()?;
    /// let stopper = billing.stopper();
    /// let mut sum = 0;
    /// billing.run(|entry| {
    ///     let amount: u32 = String::from_utf8_lossy(entry.value()).parse()?;
    ///     sum += amount;
    ///     if amount == 3 {
    ///         stopper.stop(); // mostly from another thread
    ///     }
    ///     Ok::<(), std::num::ParseIntError>(())
    /// })?;
    /// assert_eq!(sum, 4);
    ///
    /// let letter = dead.read(placemark::StartAt::Earliest)?.next().unwrap()?;
    /// assert_eq!(letter.header("placemark-offset"), Some(&b"1"[..]));
    /// assert_eq!(letter.header("placemark-reason"), Some(&b"invalid digit found in string"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll) and [`commit`](Batch::commit), but for [`Error::Fenced`]: what was held past its
    /// processing timeout comes again. Once stopped it is `Ok`.
    pub fn run<E: Display>(&mut self, mut handler: impl FnMut(&Entry) -> Result<(), E>) -> Result<()> {
        while let Some(batch) = self.wait_for_batch()? {
            let partition = batch.partition();
            let mut hand = InHand { batch: Some(batch), done: 0 };
            let mut failed = None;
            while let Some(entry) = hand.entry() {
                if let Err(error) = handler(entry) {
                    failed = Some((entry.offset(), error));
                    break;
                }
                hand.done += 1;
                if self.is_stopped() {
                    break;
                }
            }
            let (done, rest) = (hand.done, hand.entry().map(Entry::offset));
            let Some(batch) = hand.batch.take() else { continue };
            if done > 0 {
                self.rests.remove(&partition);
            }
            let settled = match (failed, rest) {
                (Some((offset, error)), _) => {
                    if !batch.is_spent_by_failing() {
                        self.rest(partition);
                    }
                    batch.fail(offset, error)
                }
                (None, Some(rest)) => {
                    batch.cut(rest).and_then(|batch| batch.map_or(Ok(()), Batch::<AtLeastOnce>::commit))
                }
                (None, None) => batch.commit(),
            };
            unless_fenced(settled)?;
        }
        Ok(())
    }
}

impl Consumer<ExactlyOnce> {
    /// Hands every record to `handler`, with a transaction for what follows from it, until it is
    /// [stopped](Self::stopper). What the handler appended for the records of a batch is committed with the batch.
    ///
    /// Of a record that it answers `Err` for nothing appears: those before it are committed without it, and it comes
    /// again. Rests, attempts, panics and stops are as for a
    /// [consumer that reads at least once](Consumer::<AtLeastOnce>::run), except that a panic leaves the whole batch.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = placemark::Store::open(dir.path())?;
    /// # let orders = store.log("orders")?;
    /// # orders.append_batch(["1", "2"])?;
    /// let invoices = store.log("invoices")?;
    /// let mut invoicing = orders.consumer("invoicing").exactly_once()?;
    /// let stopper = invoicing.stopper();
    /// invoicing.run(|entry, txn| {
    ///     if entry.value() == b"2" {
    ///         stopper.stop(); // mostly from another thread
    ///     }
    ///     txn.append(&invoices, entry.value())
    /// })?;
    /// assert_eq!(invoices.read(placemark::StartAt::Earliest)?.count(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`poll`](Self::poll) and [`commit_with`](Transaction::commit_with), but for [`Error::Fenced`]: what was
    /// held past its processing timeout comes again. Once stopped it is `Ok`.
    pub fn run<E: Display>(
        &mut self,
        mut handler: impl FnMut(&Entry, &mut Transaction) -> Result<(), E>,
    ) -> Result<()> {
        while let Some(batch) = self.wait_for_batch()? {
            let partition = batch.partition();
            let mut txn = Transaction::new(self.handle.clone());
            let (mut done, mut failed, mut rest) = (0, None, None);
            for entry in &batch {
                let before = txn.savepoint();
                if let Err(error) = handler(entry, &mut txn) {
                    // What is too much only together comes again on its own.
                    let too_much = txn.is_over() && done > 0;
                    txn.roll_back(&before);
                    failed = (!too_much).then_some(error);
                    rest = Some(entry.offset());
                    break;
                }
                done += 1;
                if self.is_stopped() {
                    rest = batch.entry(done).map(Entry::offset);
                    break;
                }
            }
            if done > 0 {
                self.rests.remove(&partition);
            }
            if failed.is_some() && !batch.is_spent_by_failing() {
                self.rest(partition);
            }
            unless_fenced(commit_in_part(batch, txn, rest, failed))?;
        }
        Ok(())
    }
}

/// Commits a batch up to `rest`, if it is not done to its end, and fails the record there, if there is a reason.
fn commit_in_part(
    batch: Batch<ExactlyOnce>,
    txn: Transaction,
    rest: Option<u64>,
    failed: Option<impl Display>,
) -> Result<()> {
    let Some(rest) = rest else { return txn.commit_with(batch) };
    let culprit = failed.map(|error| batch.culprit(rest, error));
    if let Some(done) = batch.cut(rest)? {
        txn.commit_with(done)?;
    }
    culprit.map_or(Ok(()), super::batch::Culprit::note)
}

/// A batch in the hands of a handler that gets it record by record.
struct InHand {
    batch: Option<Batch<AtLeastOnce>>,
    /// So many of its records have been processed.
    done: usize,
}

impl InHand {
    fn entry(&self) -> Option<&Entry> {
        self.batch.as_ref()?.entry(self.done)
    }
}

impl Drop for InHand {
    /// Only a panic of the handler leaves a batch here: what was done before it is settled.
    fn drop(&mut self) {
        let Some(offset) = self.entry().map(Entry::offset) else { return };
        if let Some(batch) = self.batch.take() {
            // A failure of the disk is kept by the latch of the store, where the next call finds it.
            let _ = batch.fail(offset, "the handler panicked");
        }
    }
}

fn unless_fenced(settled: Result<()>) -> Result<()> {
    match settled {
        Err(Error::Fenced) => Ok(()),
        settled => settled,
    }
}

impl<M> Consumer<M> {
    /// `None` when it was stopped.
    fn wait_for_batch(&mut self) -> Result<Option<Batch<M>>> {
        loop {
            let mut idle = Idle::default();
            let found = self.next(Duration::MAX, &mut idle);
            if idle.stopped || found.is_err() {
                self.wake_all();
            }
            if idle.stopped || !matches!(found, Ok(None)) {
                return found;
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Leaves a partition alone for a while, longer each time.
    fn rest(&mut self, partition: u32) {
        let (first, longest) = self.choices.backoff;
        let rest = self.rests.entry(partition).or_insert(Rest { until: None, next: first });
        rest.until = Some(Deadline::after(rest.next));
        rest.next = rest.next.saturating_mul(2).min(longest);
        self.subscription.group.members().set_resting(self.member, partition, true);
    }

    /// Goes on with the partitions whose rest is over, and says when the next one's is.
    pub(super) fn wake(&mut self) -> Option<Deadline> {
        let mut next: Option<Deadline> = None;
        for (partition, rest) in &mut self.rests {
            match rest.until {
                Some(until) if until.passed() => {
                    rest.until = None;
                    self.subscription.group.members().set_resting(self.member, *partition, false);
                }
                Some(until) => next = Some(next.map_or(until, |next| next.or_earlier(until))),
                None => {}
            }
        }
        next
    }

    fn wake_all(&mut self) {
        for partition in std::mem::take(&mut self.rests).into_keys() {
            self.subscription.group.members().set_resting(self.member, partition, false);
        }
    }
}
