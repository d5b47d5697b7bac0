//! A program that uses a store, one call after the other, beside the model; and the crashes that are tried at each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use placemark::storage::{Crash, Keep, Moment, Operation, SimDisk};
use placemark::{
    AtLeastOnce, AtMostOnce, Batch, Consumer, Durability, Error, ExactlyOnce, ExactlyOnceFrom, Log, Producer,
    RecoveryMode, Store, WriteMode,
};

use crate::crew::Crew;
use crate::letters::Failing;
use crate::model::{Inc, Loss, Model, Note};
use crate::rng::Rng;
use crate::seen::{Seen, Trouble, resolve, verify, verify_producers};

pub(crate) const PATH: &str = "/data";

/// What a campaign counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) states: AtomicU64,
    pub(crate) faults: AtomicU64,
    pub(crate) damages: AtomicU64,
    pub(crate) repeated: AtomicU64,
}

/// The store as the program has it open.
pub(crate) struct Live {
    pub(crate) store: Store,
    pub(crate) logs: BTreeMap<Inc, Log>,
    pub(crate) members: BTreeMap<(Inc, String), Member>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) crews: BTreeMap<(Inc, String), Crew>,
    pub(crate) failing: BTreeMap<(Inc, String), Failing>,
    pub(crate) letters: Option<Log>,
    pub(crate) producers: BTreeMap<(Inc, &'static str), Producer>,
}

/// A consumer, and where the model has it.
pub(crate) struct Member {
    pub(crate) consumer: AnyConsumer,
    pub(crate) next: BTreeMap<u32, u64>,
    /// Where the gapless prefix of what is settled ends, and what is settled above.
    pub(crate) floor: BTreeMap<u32, u64>,
    pub(crate) above: BTreeSet<(u32, u64, u64, Note)>,
    pub(crate) database: Arc<Mutex<BTreeMap<u32, u64>>>,
}

pub(crate) enum AnyConsumer {
    AtMostOnce(Consumer<AtMostOnce>),
    AtLeastOnce(Consumer<AtLeastOnce>),
    ExactlyOnce(Consumer<ExactlyOnce>),
    ExactlyOnceFrom(Consumer<ExactlyOnceFrom>),
}

pub(crate) struct Pending {
    pub(crate) inc: Inc,
    pub(crate) group: String,
    pub(crate) from: u64,
    pub(crate) batch: Batch<AtLeastOnce>,
}

pub(crate) struct Run<'a> {
    pub(crate) counts: &'a Counts,
    pub(crate) disk: SimDisk,
    pub(crate) model: Model,
    pub(crate) live: Option<Live>,
    pub(crate) rng: Rng,
    /// How many crashes came before.
    pub(crate) depth: u32,
    /// Whether crashes are tried at each operation.
    pub(crate) crashes: bool,
    /// Whether an error may be met, and the first that was.
    pub(crate) faulty: bool,
    pub(crate) failed: Option<Error>,
    pub(crate) trail: Vec<String>,
}

/// How often an image is gone on with, and how often crashes are tried while it is opened.
const GO_ON: [usize; 2] = [150, 1500];
const AT_OPENING: usize = 40;
const DEEPEST: u32 = 4;

impl<'a> Run<'a> {
    pub(crate) fn new(counts: &'a Counts, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let durability = durability(&mut rng);
        Self {
            counts,
            disk: SimDisk::new(seed),
            model: Model::new(durability),
            live: None,
            rng,
            depth: 0,
            crashes: true,
            faulty: false,
            failed: None,
            trail: vec![format!("store {durability:?}")],
        }
    }

    /// One that goes on with what is on a disk, where no crash is tried.
    pub(crate) fn over(counts: &'a Counts, disk: SimDisk, model: Model, seed: u64) -> Self {
        Self {
            counts,
            disk,
            model,
            live: None,
            rng: Rng::new(seed),
            depth: DEEPEST,
            crashes: false,
            faulty: false,
            failed: None,
            trail: Vec::new(),
        }
    }

    /// Notes what is done, for whoever has to find out what went wrong.
    pub(crate) fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        crate::campaign::note(&what);
        self.trail.push(what);
    }

    /// Makes one call of the public interface, and tries crashes at all that it does to the disk. What the call is to
    /// do is in the model already, as open. `None` when it failed, where that may be.
    pub(crate) fn act<T>(
        &mut self,
        what: impl Into<String>,
        call: impl FnOnce(&mut Option<Live>, &SimDisk) -> placemark::Result<T>,
    ) -> Result<Option<T>, String> {
        self.note(what);
        if self.crashes {
            self.disk.keep_moments();
        }
        let result = call(&mut self.live, &self.disk);
        for moment in self.disk.take_moments() {
            self.examine(&moment)?;
        }
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.faulty => {
                self.note(format!("-> {error}"));
                self.failed.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(format!("failed without a cause: {error}")),
        }
    }

    /// Tries crashes between two calls, when everything is answered.
    pub(crate) fn examine_now(&mut self) -> Result<(), String> {
        if !self.crashes {
            return Ok(());
        }
        let seed = self.rng.next();
        self.try_image(
            &self.disk.crash(Crash::new(seed).keep(Keep::Nothing)),
            Loss::Power,
            false,
            "answered, nothing kept",
        )?;
        let random = self.disk.crash(Crash::new(seed));
        self.try_image(&random, Loss::Power, false, "answered, some kept")?;
        self.try_image(&self.disk.kill(), Loss::Process, false, "answered, killed")
    }

    fn examine(&mut self, moment: &Moment) -> Result<(), String> {
        let what = format!("before operation {}, {:?} of {}", moment.done, moment.operation, moment.path);
        let crash = |seed| Crash::new(seed);
        let mut images = vec![(moment.disk.kill(), Loss::Process, "killed")];
        images.push((moment.disk.crash(crash(0).keep(Keep::Nothing)), Loss::Power, "nothing kept"));
        for _ in 0..2 {
            images.push((moment.disk.crash(crash(self.rng.next())), Loss::Power, "512 B kept"));
        }
        images.push((moment.disk.crash(crash(self.rng.next()).sector(4096)), Loss::Power, "4 KiB kept"));
        match self.rng.below(8) {
            0 => images.push((moment.disk.crash(crash(1).keep(Keep::Everything)), Loss::Power, "all kept")),
            1 => images.push((moment.disk.crash(crash(self.rng.next()).same_boot()), Loss::Power, "same boot")),
            _ => {}
        }
        for (image, loss, kept) in images {
            // Where names are unsynced, what the next one does may hang on them.
            let names = match loss {
                Loss::Process => matches!(moment.operation, Operation::SyncDir | Operation::Remove),
                Loss::Power => moment.operation == Operation::SyncDir,
            };
            let again = self.rng.one_in(if names { AT_OPENING / 5 } else { AT_OPENING });
            self.try_image(&image, loss, again, &format!("{what}, {kept}"))?;
        }
        Ok(())
    }

    /// Opens what a crash left, and holds it against the model.
    fn try_image(&mut self, image: &SimDisk, loss: Loss, again: bool, what: &str) -> Result<(), String> {
        self.check_image(image, loss, again).map_err(|wrong| format!("{what}: {wrong}"))
    }

    fn check_image(&mut self, image: &SimDisk, loss: Loss, again: bool) -> Result<(), String> {
        self.counts.states.fetch_add(1, Ordering::Relaxed);
        let again = again.then(|| image.kill());
        let aside = self.rng.one_in(8).then(|| self.rng.next());
        let store = open(image, self.model.durability, &mut self.rng).map_err(|error| format!("opening: {error}"))?;
        let seen = Seen::of(&store, &self.model)?;
        verify(&self.model, &seen, loss)?;
        if let Some(seed) = aside {
            // What was found was made durable before anyone could see it.
            let after = image.crash(Crash::new(seed).keep(Keep::Nothing));
            self.counts.states.fetch_add(1, Ordering::Relaxed);
            let store = open(&after, self.model.durability, &mut self.rng).map_err(|e| format!("opened again: {e}"))?;
            let then = Seen::of(&store, &self.model).map_err(|wrong| format!("opened again: {wrong}"))?;
            same(&seen, &then)?;
        }
        if self.rng.one_in(8) {
            // On a copy: it is a call like any other, and the model does not know of it.
            let copy = image.kill();
            let store = open(&copy, self.model.durability, &mut self.rng).map_err(|error| format!("{error}"))?;
            verify_producers(&self.model, &store, &seen)?;
        }
        if let Some(again) = again {
            self.crash_while_opening(&again)?;
        }
        if self.depth < DEEPEST && self.rng.one_in(GO_ON[usize::from(self.depth > 0)]) {
            self.go_on(image, store, &seen, loss)?;
        }
        Ok(())
    }

    /// Loses the power again at everything that opening does.
    fn crash_while_opening(&mut self, image: &SimDisk) -> Result<(), String> {
        image.keep_moments();
        let opened = open(image, self.model.durability, &mut self.rng).map_err(|error| format!("opening: {error}"))?;
        let _ = Seen::of(&opened, &self.model);
        for moment in image.take_moments() {
            // Where names are about to be synced, many of them are at stake together.
            let times = if moment.operation == Operation::SyncDir { 8 } else { 1 };
            for _ in 0..times {
                let crash = Crash::new(self.rng.next());
                let keep = if self.rng.one_in(3) { Keep::Nothing } else { Keep::Random };
                self.counts.states.fetch_add(1, Ordering::Relaxed);
                let left = moment.disk.crash(crash.keep(keep));
                let what = format!("crashed again before {:?} of {}", moment.operation, moment.path);
                let store =
                    open(&left, self.model.durability, &mut self.rng).map_err(|e| format!("{what}: opening: {e}"))?;
                let seen = Seen::of(&store, &self.model).map_err(|wrong| format!("{what}: {wrong}"))?;
                verify(&self.model, &seen, Loss::Power).map_err(|wrong| format!("{what}: {wrong}"))?;
            }
        }
        Ok(())
    }

    /// Goes on with what a crash left, and crashes again.
    fn go_on(&mut self, image: &SimDisk, store: Store, seen: &Seen, loss: Loss) -> Result<(), String> {
        let mut model = self.model.clone();
        resolve(&mut model, seen, loss)?;
        let mut next = Run {
            counts: self.counts,
            disk: image.clone(),
            model,
            live: Some(Live::of(store)),
            rng: Rng::new(self.rng.next()),
            depth: self.depth + 1,
            crashes: true,
            faulty: false,
            failed: None,
            trail: vec![format!("crash {}", self.depth + 1)],
        };
        let closed = if next.rng.one_in(3) { next.reopen() } else { Ok(()) };
        closed
            .and_then(|()| next.work_and_crash(6))
            .map_err(|wrong| format!("{}\n  {}", next.trail.join("\n  "), wrong))
    }

    /// Works for a while, crashes, goes on with what is left, and so on.
    pub(crate) fn work_and_crash(&mut self, steps: usize) -> Result<(), String> {
        self.work(steps)?;
        while self.depth < DEEPEST {
            let crash = Crash::new(self.rng.next());
            let (left, loss) = match self.rng.below(3) {
                0 => (self.disk.kill(), Loss::Process),
                1 => (self.disk.crash(crash.keep(Keep::Nothing)), Loss::Power),
                _ => (self.disk.crash(crash), Loss::Power),
            };
            self.depth += 1;
            self.note(format!("crash {}: {loss:?}", self.depth));
            self.live = None;
            self.counts.states.fetch_add(1, Ordering::Relaxed);
            let store = open(&left, self.model.durability, &mut self.rng).map_err(|e| format!("opening: {e}"))?;
            let seen = Seen::of(&store, &self.model)?;
            verify(&self.model, &seen, loss)?;
            resolve(&mut self.model, &seen, loss)?;
            self.disk = left;
            self.live = Some(Live::of(store));
            if self.rng.one_in(3) {
                // What recovery did must hold beside the marker of a clean close.
                self.reopen()?;
            }
            self.work(4)?;
        }
        Ok(())
    }

    /// Reads everything, as it is now.
    pub(crate) fn look(&mut self) -> Result<(), String> {
        let Some(live) = &self.live else { return Ok(()) };
        match Seen::of(&live.store, &self.model) {
            Ok(seen) => {
                let mut model = self.model.clone();
                model.unfinished = self.failed.is_some();
                verify(&model, &seen, Loss::Process).map_err(|wrong| format!("read: {wrong}"))
            }
            Err(Trouble::Failed(_, error)) if self.faulty => {
                self.failed.get_or_insert(error);
                Ok(())
            }
            Err(wrong) => Err(wrong.into()),
        }
    }
}

impl Live {
    pub(crate) fn of(store: Store) -> Self {
        Self {
            store,
            logs: BTreeMap::new(),
            members: BTreeMap::new(),
            pending: Vec::new(),
            crews: BTreeMap::new(),
            failing: BTreeMap::new(),
            letters: None,
            producers: BTreeMap::new(),
        }
    }
}

/// Nothing that was seen is lost between two openings. A partition may go on further away, and one in which nothing is
/// may be gone, as long as that it was made was not acknowledged.
pub(crate) fn same(seen: &Seen, then: &Seen) -> Result<(), String> {
    let mut expected = seen.clone();
    for (name, parts) in &mut expected.logs {
        let Some(found) = then.logs.get(name) else { continue };
        while parts.len() > found.len() && parts.last().is_some_and(|part| part.records.is_empty()) {
            parts.pop();
        }
        for (part, found) in parts.iter_mut().zip(found) {
            part.end = part.end.max(found.end);
        }
    }
    if expected == *then {
        return Ok(());
    }
    let marks = (seen.marks != then.marks).then(|| format!("marks {:?} then {:?}", seen.marks, then.marks));
    let logs = expected.logs.iter().filter(|(name, parts)| then.logs.get(*name) != Some(parts));
    let logs: Vec<String> =
        logs.map(|(name, parts)| format!("{name} {parts:?} then {:?}", then.logs.get(name))).collect();
    Err(format!("found once, and not again after power loss: {marks:?} {logs:?} {:?} {:?}", seen.groups, then.groups))
}

pub(crate) fn open(disk: &SimDisk, durability: Durability, rng: &mut Rng) -> placemark::Result<Store> {
    open_as(disk, durability, rng, RecoveryMode::Strict)
}

pub(crate) fn open_as(
    disk: &SimDisk,
    durability: Durability,
    rng: &mut Rng,
    recovery: RecoveryMode,
) -> placemark::Result<Store> {
    let mode = if rng.one_in(3) { WriteMode::Pwrite } else { WriteMode::Mapped };
    let options = Store::options().storage(Arc::new(disk.clone())).durability(durability);
    options.recovery_mode(recovery).write_mode(mode).open(PATH)
}

pub(crate) fn durability(rng: &mut Rng) -> Durability {
    match rng.below(4) {
        0 => Durability::Os,
        1 => Durability::Interval(std::time::Duration::from_millis(50)),
        _ => Durability::Sync,
    }
}
