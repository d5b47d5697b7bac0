//! Groups as they are cared for from outside: moved, copied, forgotten.

use placemark::ResetTo;

use crate::letters::is_failing;
use crate::model::{GroupModel, History, Inc, Mark, Model, Status};
use crate::run::Run;

impl Run<'_> {
    pub(crate) fn leave(&mut self, inc: Inc, group: &str) {
        let live = self.live.as_mut().unwrap();
        live.pending.retain(|pending| pending.inc != inc || pending.group != group);
        live.members.remove(&(inc, group.to_owned()));
        live.crews.remove(&(inc, group.to_owned()));
    }

    /// A group that is certain to be there, but for those where records fail, which go one way only.
    fn some_group(&mut self, inc: Inc) -> Option<String> {
        let known = &self.model.logs[inc].groups;
        let certain = |name: &str, group: &GroupModel| {
            !is_failing(name) && group.leaving.is_none() && matches!(group.status, Status::Cached | Status::Durable)
        };
        let groups: Vec<String> =
            known.iter().filter(|(name, group)| certain(name, group)).map(|(name, _)| name.clone()).collect();
        self.rng.pick(&groups).cloned()
    }

    pub(crate) fn reset(&mut self, inc: Inc) -> Result<(), String> {
        let group = self.some_group(inc).filter(|group| !group.starts_with("database"));
        group.map_or(Ok(()), |group| self.reset_group(inc, &group))
    }

    pub(crate) fn reset_group(&mut self, inc: Inc, group: &str) -> Result<(), String> {
        let count = self.model.logs[inc].count();
        self.leave(inc, group);
        let (starts, ends) = (self.starts(inc), self.ends(inc));
        let least = ends.iter().copied().min().unwrap_or(0);
        let to = usize::try_from(least + 1).map_or(0, |bound| self.rng.below(bound)) as u64;
        let known = &self.model.logs[inc].groups[group];
        let was: Vec<Option<Mark>> = (0..count).map(|number| known.marks.get(&number)?.last()).collect();
        let planned = self.rng.one_in(2);
        *self.model.logs[inc].moved.entry(group.to_owned()).or_default() += 1;
        for (number, start) in (0..count).zip(&starts) {
            self.mark(inc, group, number, to.max(*start), None);
        }
        let done = self.act(format!("reset {group} to {to}, planned: {planned}"), |live, _| {
            let live = live.as_ref().unwrap();
            let (group, log) = (live.store.group(group), &live.logs[&inc]);
            if planned {
                group.plan_reset(log, ResetTo::Offset(to))?.apply()
            } else {
                group.reset(log, ResetTo::Offset(to))
            }
        })?;
        let Some(resets) = done else { return Ok(()) };
        for ((reset, start), was) in resets.iter().zip(starts).zip(was) {
            // It may have passed offsets that have no record.
            let passed = |at: u64| at..reset.from;
            let is_from = was.is_none_or(|was| {
                let mut offsets = self.model.of_partition(inc, reset.partition).filter_map(|(_, rec)| rec.offset);
                was.at <= reset.from && !offsets.any(|offset| passed(was.at).contains(&offset))
            });
            if reset.to != to.max(start) || !is_from && self.failed.is_none() {
                return Err(format!("group {group} was said to be reset by {reset:?}, and was at {was:?}"));
            }
        }
        let acked = Model::acked(self.model.durability);
        (0..count).for_each(|number| self.settle_mark(inc, group, number, acked));
        Ok(())
    }

    /// Makes a group that is where another one is.
    pub(crate) fn fork(&mut self, inc: Inc) -> Result<(), String> {
        let Some(from) = self.some_group(inc).filter(|_| self.failed.is_none()) else { return Ok(()) };
        let to = format!("fork{}-{}", self.rng.below(2), self.model.logs[inc].name);
        let groups = &mut self.model.logs[inc].groups;
        let source = groups[&from].clone();
        let at = |history: &History| history.last().map(|mark| Mark { status: Status::Open, ..mark });
        if groups.contains_key(&to) || source.marks.values().all(|history| at(history).is_none()) {
            return Ok(());
        }
        let copy = |history: &History| History(at(history).into_iter().collect());
        let forked = GroupModel {
            marks: source.marks.iter().map(|(number, history)| (*number, copy(history))).collect(),
            starts: source.starts.iter().map(|(number, history)| (*number, copy(history))).collect(),
            forked: true,
            ..GroupModel::default()
        };
        groups.insert(to.clone(), forked);
        let done = self.act(format!("fork {from} as {to}"), |live, _| {
            live.as_ref().unwrap().store.group(&from).fork(&to).map(drop)
        })?;
        if done.is_some() {
            let acked = Model::acked(self.model.durability);
            let forked = self.model.logs[inc].groups.get_mut(&to).unwrap();
            forked.status = acked;
            forked.marks.values_mut().chain(forked.starts.values_mut()).for_each(|history| history.settle(acked));
        }
        Ok(())
    }

    /// One that was copied, to be read as the one that it was copied from.
    pub(crate) fn some_fork(&mut self, inc: Inc) -> Option<String> {
        let known = &self.model.logs[inc].groups;
        let forks: Vec<String> = known.keys().filter(|name| name.starts_with("fork")).cloned().collect();
        let fork = self.rng.pick(&forks).cloned()?;
        let known = &known[&fork];
        (known.leaving.is_none() && matches!(known.status, Status::Cached | Status::Durable)).then_some(fork)
    }

    pub(crate) fn delete_group(&mut self, inc: Inc) -> Result<(), String> {
        let Some(group) = self.some_group(inc) else { return Ok(()) };
        self.leave(inc, &group);
        self.model.logs[inc].groups.get_mut(&group).unwrap().leaving = Some(Status::Open);
        *self.model.logs[inc].moved.entry(group.clone()).or_default() += 1;
        let done =
            self.act(format!("delete group {group}"), |live, _| live.as_ref().unwrap().store.group(&group).delete())?;
        if done.is_some() {
            let acked = Model::acked(self.model.durability);
            let groups = &mut self.model.logs[inc].groups;
            groups.get_mut(&group).unwrap().leaving = Some(acked);
            groups.retain(|_, group| group.leaving != Some(Status::Durable));
        }
        Ok(())
    }
}
