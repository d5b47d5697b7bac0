//! Members that come, go and jump, and a side log that fills with what was said and taken back.

use placemark::StartAt;

use crate::consume::of;
use crate::model::{GroupModel, Inc, Model, Status};
use crate::run::{AnyConsumer, Run};

/// What a group that is made and deleted adds to the side log, at least.
const CHURN: usize = 500;

impl Run<'_> {
    /// A member leaves, in one way or the other, and what it held is delivered again.
    pub(crate) fn depart(&mut self, inc: Inc) -> Result<(), String> {
        let Some(group) = self.some_member(inc) else { return Ok(()) };
        if self.rng.one_in(2) {
            let closed = self.act(format!("close {group}"), |live, _| {
                let member = of(live.as_mut().unwrap(), inc, &group);
                member.consumer.close()
            })?;
            if closed.is_none() {
                return Ok(());
            }
        } else {
            self.note(format!("{group} leaves"));
        }
        self.leave(inc, &group);
        Ok(())
    }

    fn some_member(&mut self, inc: Inc) -> Option<String> {
        let members = self.live.as_ref().unwrap().members.keys();
        let of_log: Vec<String> = members.filter(|(of, _)| *of == inc).map(|(_, group)| group.clone()).collect();
        self.rng.pick(&of_log).cloned()
    }

    /// A member goes on elsewhere, which commits nothing.
    pub(crate) fn seek(&mut self, inc: Inc) -> Result<(), String> {
        let Some(group) = self.some_member(inc).filter(|group| !group.starts_with("database")) else { return Ok(()) };
        let count = self.model.logs[inc].count();
        let number = u32::try_from(self.rng.below(count as usize)).unwrap();
        let live = self.live.as_mut().unwrap();
        // One that was added to the log is taken in by the next poll.
        let assigned = of(live, inc, &group).consumer.position(number).is_some();
        let pending = &live.pending;
        if !assigned || pending.iter().any(|p| p.inc == inc && p.group == group && p.batch.partition() == number) {
            return Ok(());
        }
        let (starts, ends) = (self.starts(inc), self.ends(inc));
        let (start, end) = (starts[number as usize], ends[number as usize]);
        // Near its end, mostly: a partition may have a million offsets without a record.
        let to = start.max(end.saturating_sub(self.rng.below(6) as u64));
        *self.model.logs[inc].moved.entry(group.clone()).or_default() += 1;
        let sought = self.act(format!("seek {group} in {number} to {to}"), |live, _| {
            let member = of(live.as_mut().unwrap(), inc, &group);
            member.consumer.seek(number, StartAt::Offset(to))
        })?;
        if sought.is_some() {
            let member = of(self.live.as_mut().unwrap(), inc, &group);
            member.next.insert(number, to);
            member.floor.insert(number, to);
            member.above.retain(|(of, ..)| *of != number);
        }
        Ok(())
    }

    /// Fills the side log so far that it is compacted, by closing or in between, and crashes at all that is done then.
    pub(crate) fn churn(&mut self, inc: Inc) -> Result<(), String> {
        let group = format!("churn-{:.<240}", self.model.logs[inc].name);
        let acked = Model::acked(self.model.durability);
        let known = self.model.logs[inc].groups.entry(group.clone()).or_default();
        // It comes and goes: at any moment it may be there or not.
        *known = GroupModel { leaving: Some(Status::Open), ..GroupModel::default() };
        let closes = self.rng.one_in(2);
        let (examined, bytes) = (self.crashes, if closes { 540 << 10 } else { 1000 << 10 });
        for round in 0..bytes / CHURN + 60 {
            self.crashes = examined && !closes && round > bytes / CHURN && round % 10 == 0;
            let made = self.act("make a group and delete it", |live, _| {
                let live = live.as_mut().unwrap();
                drop(live.logs[&inc].consumer(&group).at_least_once()?);
                live.store.group(&group).delete()
            })?;
            self.trail.pop();
            if made.is_none() {
                return Ok(());
            }
        }
        self.crashes = examined;
        self.note(format!("{} groups were made and deleted", bytes / CHURN));
        self.model.logs[inc].groups.get_mut(&group).unwrap().leaving = Some(acked);
        self.model.logs[inc].groups.retain(|_, group| group.leaving != Some(Status::Durable));
        if closes { self.reopen() } else { Ok(()) }
    }
}

impl AnyConsumer {
    fn close(&mut self) -> placemark::Result<()> {
        match self {
            Self::AtMostOnce(consumer) => consumer.close(),
            Self::AtLeastOnce(consumer) => consumer.close(),
            Self::ExactlyOnce(consumer) => consumer.close(),
            Self::ExactlyOnceFrom(consumer) => consumer.close(),
        }
    }

    fn seek(&self, partition: u32, to: StartAt) -> placemark::Result<()> {
        match self {
            Self::AtMostOnce(consumer) => consumer.seek(partition, to),
            Self::AtLeastOnce(consumer) => consumer.seek(partition, to),
            Self::ExactlyOnce(consumer) => consumer.seek(partition, to),
            Self::ExactlyOnceFrom(consumer) => consumer.seek(partition, to),
        }
    }
}
