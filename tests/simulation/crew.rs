//! Groups of one or two members, whose batches are settled in any order; with records of one key one after the other, or
//! not. Here it is followed record by record what was handed out and what is done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use placemark::{AtLeastOnce, Batch, Consumer};

use crate::model::{GivenUp, Inc, Model};
use crate::run::Run;
use crate::seen::check_entry;

pub(crate) struct Crew {
    consumers: Vec<Consumer<AtLeastOnce>>,
    held: Vec<Held>,
    by_key: bool,
    most_in_flight: usize,
    /// By partition, where the gapless prefix of what is done ends, and what was done since the group was joined.
    floor: BTreeMap<u32, u64>,
    done: BTreeSet<(u32, u64)>,
}

struct Held {
    /// Which consumer got it, as long as it has not left.
    by: Option<usize>,
    batch: Batch<AtLeastOnce>,
}

impl Crew {
    fn holds(&self, partition: u32, offset: u64) -> bool {
        let of_partition = self.held.iter().filter(|held| held.batch.partition() == partition);
        of_partition.flat_map(|held| held.batch.iter()).any(|entry| entry.offset() == offset)
    }

    fn is_done(&self, partition: u32, offset: u64) -> bool {
        self.floor.get(&partition).is_some_and(|floor| offset < *floor) || self.done.contains(&(partition, offset))
    }

    fn position(&self, partition: u32) -> Option<u64> {
        self.consumers.iter().find_map(|consumer| consumer.position(partition))
    }
}

impl Run<'_> {
    pub(crate) fn crew(&mut self, inc: Inc) -> Result<(), String> {
        let group = format!("crew-{}", self.model.logs[inc].name);
        if self.model.logs[inc].groups.get(&group).is_some_and(|known| known.leaving.is_some()) {
            return Ok(());
        }
        let of = (inc, group);
        if !self.live.as_ref().unwrap().crews.contains_key(&of) {
            self.crew_begins(&of)?;
        }
        for _ in 0..=self.rng.below(6) {
            let Some(crew) = self.live.as_ref().unwrap().crews.get(&of) else { return Ok(()) };
            match self.rng.below(12) {
                0 if crew.consumers.len() == 1 => self.one_more(&of)?,
                0 | 1 if crew.consumers.len() == 2 => self.one_less(&of),
                2..5 if !crew.held.is_empty() => self.settle_any(&of)?,
                _ => self.poll_any(&of)?,
            }
        }
        Ok(())
    }

    fn crew_begins(&mut self, of: &(Inc, String)) -> Result<(), String> {
        let (by_key, most_in_flight) = (self.rng.one_in(2), 1 + self.rng.below(4));
        self.will_begin(of.0, "crew", &of.1);
        let joined = self.act(format!("join {}, by key: {by_key}, in flight: {most_in_flight}", of.1), |live, _| {
            let live = live.as_mut().unwrap();
            let crew = Crew {
                consumers: Vec::new(),
                held: Vec::new(),
                by_key,
                most_in_flight,
                floor: BTreeMap::new(),
                done: BTreeSet::new(),
            };
            let crew = live.crews.entry(of.clone()).or_insert(crew);
            crew.consumers.push(consumer(&live.logs[&of.0], &of.1, by_key, most_in_flight)?);
            Ok(())
        })?;
        if joined.is_none() {
            self.live.as_mut().unwrap().crews.remove(of);
            return Ok(());
        }
        for number in 0..self.model.logs[of.0].count() {
            let position = self.crew_of(of).position(number);
            let position = self.begins(of.0, &of.1, number, position)?;
            self.crew_of(of).floor.insert(number, position);
        }
        self.examine_now()
    }

    fn crew_of(&mut self, of: &(Inc, String)) -> &mut Crew {
        self.live.as_mut().unwrap().crews.get_mut(of).unwrap()
    }

    fn one_more(&mut self, of: &(Inc, String)) -> Result<(), String> {
        self.act(format!("another joins {}", of.1), |live, _| {
            let live = live.as_mut().unwrap();
            let crew = live.crews.get_mut(of).unwrap();
            crew.consumers.push(consumer(&live.logs[&of.0], &of.1, crew.by_key, crew.most_in_flight)?);
            Ok(())
        })?;
        Ok(())
    }

    /// One leaves. What it has in hand may still be settled.
    fn one_less(&mut self, of: &(Inc, String)) {
        let leaves = self.rng.below(2);
        self.note(format!("{leaves} leaves {}", of.1));
        let crew = self.crew_of(of);
        drop(crew.consumers.remove(leaves));
        for held in &mut crew.held {
            held.by = held.by.filter(|by| *by != leaves).map(|_| 0);
        }
    }

    fn poll_any(&mut self, of: &(Inc, String)) -> Result<(), String> {
        let count = self.crew_of(of).consumers.len();
        let by = self.rng.below(count);
        let polled = self.act(format!("{by} polls {}", of.1), |live, _| {
            live.as_mut().unwrap().crews.get_mut(of).unwrap().consumers[by].poll(Duration::ZERO)
        })?;
        match polled {
            None => Ok(()),
            Some(None) => self.idle(of, by),
            Some(Some(batch)) => self.handed_out(of, by, batch),
        }
    }

    /// Holds a batch against what was handed out before: nothing that is done or in hand, and nothing before what must
    /// come first.
    fn handed_out(&mut self, of: &(Inc, String), by: usize, batch: Batch<AtLeastOnce>) -> Result<(), String> {
        let (inc, partition) = (of.0, batch.partition());
        let mut in_batch = BTreeSet::new();
        for entry in &batch {
            let id = check_entry(&self.model, entry).map_err(|wrong| format!("{}: {wrong}", of.1))?;
            if self.model.records[id].inc != inc {
                return Err(format!("{} got record {id}, which is of another log", of.1));
            }
            in_batch.insert(entry.offset());
        }
        let crew = &self.live.as_ref().unwrap().crews[of];
        let in_flight = crew.held.iter().filter(|held| held.by == Some(by)).count();
        if in_flight >= crew.most_in_flight {
            return Err(format!("{by} of {} has {in_flight} batches in flight, and got one more", of.1));
        }
        if self.failed.is_none() {
            for entry in &batch {
                let at = format!("{}: {partition}:{}", of.1, entry.offset());
                if crew.is_done(partition, entry.offset()) || crew.holds(partition, entry.offset()) {
                    return Err(format!("{at} was handed out before"));
                }
                let first = self.model.of_partition(inc, partition).find(|(_, rec)| {
                    let before = rec.offset.filter(|before| *before < entry.offset() && !in_batch.contains(before));
                    before.is_some_and(|before| match (crew.by_key, entry.key()) {
                        (false, _) => !crew.is_done(partition, before) && !crew.holds(partition, before),
                        (true, None) => false,
                        (true, key) => rec.key.as_deref() == key && !crew.is_done(partition, before),
                    })
                });
                if let Some((id, rec)) = first {
                    return Err(format!("{at} was handed out, and record {id} at {:?} comes first", rec.offset));
                }
            }
        }
        self.crew_of(of).held.push(Held { by: Some(by), batch });
        Ok(())
    }

    /// Nothing was handed out: then nothing is there, or what is there waits.
    fn idle(&self, of: &(Inc, String), by: usize) -> Result<(), String> {
        let crew = &self.live.as_ref().unwrap().crews[of];
        if self.failed.is_some() || !crew.held.is_empty() {
            return Ok(());
        }
        for number in crew.consumers[by].assignment() {
            let waits = |at: u64| !crew.is_done(number, at);
            let waiting = self.model.of_partition(of.0, number).find(|(_, rec)| rec.offset.is_some_and(waits));
            if let Some((id, rec)) = waiting {
                return Err(format!("{} gets nothing, and record {id} at {number}:{:?} waits", of.1, rec.offset));
            }
        }
        Ok(())
    }

    /// Commits one of the batches in hand, whoever got it, or drops it.
    fn settle_any(&mut self, of: &(Inc, String)) -> Result<(), String> {
        let drops = self.rng.one_in(5);
        let count = self.crew_of(of).held.len();
        let at = self.rng.below(count);
        let Held { batch, .. } = self.crew_of(of).held.remove(at);
        let (partition, offsets) = (batch.partition(), batch.offsets());
        let what = format!("a batch of {}, {partition}:{offsets:?}", of.1);
        if drops {
            self.note(format!("drop {what}"));
            return Ok(());
        }
        let own: BTreeSet<(u32, u64)> = batch.iter().map(|entry| (partition, entry.offset())).collect();
        let floor = self.crew_of(of).floor.get(&partition).copied().unwrap_or(0);
        // What was given up is passed once that is noticed, which is now or at a later poll.
        let (least, most) = (self.reaches(of, partition, &own, true), self.reaches(of, partition, &own, false));
        let known = self.model.logs[of.0].groups.get(&of.1).and_then(|known| known.marks.get(&partition));
        let known = known.map_or(0, |history| history.0.len());
        for at in [least, most].into_iter().filter(|at| *at > floor) {
            self.mark(of.0, &of.1, partition, at, None);
        }
        let committed = self.act(format!("commit {what}"), |_, _| batch.commit())?;
        if committed.is_none() {
            return Ok(());
        }
        let crew = self.crew_of(of);
        crew.done.extend(own);
        let at = crew.consumers.first().and_then(|consumer| consumer.committed(partition)).filter(|at| *at > floor);
        if at.is_none_or(|at| at < least) && least > floor && self.failed.is_none() {
            return Err(format!("{what} was committed, and the placemark is at {at:?}, not at {least}..={most}"));
        }
        let Some(at) = at else { return Ok(()) };
        let mut offsets = self.model.of_partition(of.0, partition).filter_map(|(_, rec)| rec.offset);
        let passed = offsets.find(|offset| (most..at).contains(offset));
        drop(offsets);
        if let Some(passed) = passed {
            return Err(format!("{what} was committed, and the placemark at {at} has passed {passed}"));
        }
        self.crew_of(of).floor.insert(partition, at);
        let acked = Model::acked(self.model.durability);
        let history = self.model.logs[of.0].groups.get_mut(&of.1).unwrap().marks.entry(partition).or_default();
        history.0.truncate(known);
        history.push(at, None, acked);
        Ok(())
    }

    /// Where the gapless prefix ends once these are done: behind the last record of it. What was given up stands in its
    /// way, or does not.
    fn reaches(&self, of: &(Inc, String), partition: u32, own: &BTreeSet<(u32, u64)>, given_up_too: bool) -> u64 {
        let crew = &self.live.as_ref().unwrap().crews[of];
        let mut reached = crew.floor.get(&partition).copied().unwrap_or(0);
        let offsets = self.model.of_partition(of.0, partition).filter_map(|(_, rec)| rec.offset);
        let given_up = self.model.records.iter().filter(|rec| {
            given_up_too && rec.inc == of.0 && rec.partition == Some(partition) && rec.given_up == GivenUp::Yes
        });
        // What is done counts though it was given up meanwhile.
        let done = crew.done.iter().chain(own).filter(|(of, _)| *of == partition).map(|(_, at)| *at);
        let all = offsets.chain(done).chain(given_up.filter_map(|rec| rec.offset));
        let above: BTreeSet<u64> = all.filter(|at| *at >= reached).collect();
        for at in above {
            if !crew.done.contains(&(partition, at)) && !own.contains(&(partition, at)) {
                break;
            }
            reached = at + 1;
        }
        reached
    }
}

fn consumer(
    log: &placemark::Log,
    group: &str,
    by_key: bool,
    most_in_flight: usize,
) -> placemark::Result<Consumer<AtLeastOnce>> {
    let builder = log.consumer(group).max_poll_records(2).max_in_flight(most_in_flight);
    if by_key { builder.by_key() } else { builder }.at_least_once()
}
