//! Operations that fail: each one of a run, in each way.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use placemark::storage::{Crash, Fault, Keep, Operation, SimDisk};
use placemark::{Error, RecoveryMode};

use crate::model::{Loss, Model};
use crate::rng::Rng;
use crate::run::{Counts, Live, Run, open, open_as};
use crate::seen::{Seen, resolve, verify};

/// Where a run is cut in two: what comes before goes well, and what fails comes behind it.
struct Beginning {
    disk: SimDisk,
    model: Model,
    seed: u64,
}

const STEPS: usize = 8;

/// Runs a program up to somewhere, then every continuation of it in which one operation fails.
pub(crate) fn faults(seed: u64, counts: &Counts) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut run = Run::new(counts, rng.next());
    run.crashes = false;
    run.work(rng.below(20))?;
    let loss = if rng.one_in(2) { Loss::Process } else { Loss::Power };
    let disk = match loss {
        Loss::Process => run.disk.kill(),
        Loss::Power => run.disk.crash(Crash::new(rng.next())),
    };
    run.live = None;
    let mut model = run.model.clone();
    let looked_at = disk.kill();
    let store = open(&looked_at, model.durability, &mut rng).map_err(|error| format!("opening: {error}"))?;
    let found = Seen::of(&store, &model)?;
    resolve(&mut model, &found, loss)?;
    // What a dead process left in the page cache is durable only once it was recovered.
    let disk = if loss == Loss::Process { looked_at.kill() } else { disk };
    drop(store);
    let start = Beginning { disk, model, seed: rng.next() };
    let undisturbed = start.copy();
    undisturbed.trace();
    start.go_on(counts, &undisturbed, false)?;
    let traced = undisturbed.take_trace();
    let whole = undisturbed.used();
    for (operation, error) in KINDS {
        let times = traced.iter().filter(|(of, _)| of == operation).count() as u64;
        // Reading and looking at names is most of what is done.
        let stride = if matches!(operation, Operation::Read | Operation::List) { 3 } else { 1 };
        for nth in (1..=times).step_by(stride) {
            let disk = start.copy();
            let fault = Fault::new(*operation, *error).nth(nth);
            let forever = rng.one_in(3);
            disk.inject(if forever { fault.forever() } else { fault });
            let what = format!("{operation:?} number {nth} fails with {error:?}, forever: {forever}");
            start.fails(counts, &disk, &what, &mut rng)?;
        }
    }
    let used = start.disk.used();
    for pages in 0..=whole.saturating_sub(used) / 4096 {
        let disk = start.copy();
        disk.capacity(used + pages * 4096);
        start.fails(counts, &disk, &format!("the disk has {pages} pages left"), &mut rng)?;
    }
    Ok(())
}

const KINDS: &[(Operation, ErrorKind)] = &[
    (Operation::Write, ErrorKind::Other),
    (Operation::Sync, ErrorKind::Other),
    (Operation::SyncDir, ErrorKind::Other),
    (Operation::Allocate, ErrorKind::Other),
    (Operation::Allocate, ErrorKind::StorageFull),
    (Operation::Write, ErrorKind::StorageFull),
    (Operation::SetLen, ErrorKind::Other),
    (Operation::Map, ErrorKind::Other),
    (Operation::Rename, ErrorKind::Other),
    (Operation::Remove, ErrorKind::Other),
    (Operation::Create, ErrorKind::StorageFull),
    (Operation::CreateDir, ErrorKind::StorageFull),
    (Operation::Open, ErrorKind::Other),
    (Operation::Read, ErrorKind::Other),
    (Operation::List, ErrorKind::Other),
];

impl Beginning {
    fn copy(&self) -> SimDisk {
        self.disk.kill()
    }

    fn go_on<'a>(&self, counts: &'a Counts, disk: &SimDisk, faulty: bool) -> Result<Run<'a>, String> {
        let mut run = Run::over(counts, disk.clone(), self.model.clone(), self.seed);
        run.faulty = faulty;
        match run.work(STEPS) {
            Ok(()) => Ok(run),
            Err(wrong) => Err(format!("{}\n  {wrong}", run.trail.join("\n  "))),
        }
    }

    /// Goes on while something fails, then opens what is left when all is well again.
    fn fails(&self, counts: &Counts, disk: &SimDisk, what: &str, rng: &mut Rng) -> Result<(), String> {
        counts.faults.fetch_add(1, Ordering::Relaxed);
        let mut run = self.go_on(counts, disk, true).map_err(|wrong| format!("{what}:\n  {wrong}"))?;
        let wrong = |run: &Run<'_>, wrong: String| format!("{what}:\n  {}\n  {wrong}", run.trail.join("\n  "));
        if let Some(error) = run.failed.as_ref().filter(|error| !expected(error)) {
            return Err(wrong(&run, format!("a failure of the disk became {error:?}")));
        }
        disk.clear_faults();
        disk.capacity(1 << 40);
        let crash = Crash::new(rng.next());
        let (left, loss) = match rng.below(4) {
            // The program ends, and the store is closed as well as it can be.
            0 => {
                run.live = None;
                (disk.kill(), Loss::Process)
            }
            1 => (disk.kill(), Loss::Process),
            2 => (disk.crash(crash.keep(Keep::Nothing)), Loss::Power),
            _ => (disk.crash(crash), Loss::Power),
        };
        run.live = None;
        let checked = goes_on_well(counts, &left, &run.model, loss, rng);
        checked.map_err(|text| wrong(&run, format!("{loss:?} lost: {text}")))
    }
}

/// Holds what is left against the model, and works with it.
fn goes_on_well(counts: &Counts, left: &SimDisk, model: &Model, loss: Loss, rng: &mut Rng) -> Result<(), String> {
    let store = open_as(left, model.durability, rng, RecoveryMode::Strict).map_err(|error| format!("{error}"))?;
    let seen = Seen::of(&store, model)?;
    verify(model, &seen, loss)?;
    if rng.one_in(4) {
        let mut model = model.clone();
        resolve(&mut model, &seen, loss)?;
        let mut run = Run::over(counts, left.clone(), model, rng.next());
        run.live = Some(Live::of(store));
        run.work(3).map_err(|wrong| format!("afterwards {}\n  {wrong}", run.trail.join("\n  ")))?;
    }
    Ok(())
}

/// What a failure of the disk may be told as.
fn expected(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::Failed { .. })
}
