//! A seed says all: the same one gives the same operations in the same order, the same bytes and the same outcome.
//!
//! What makes it so: over the simulated disk there is no thread (what would be done in the background is done by the
//! caller, between two calls), no clock and no random number but the disk's own, which come from its seed; and where an
//! order shows, the library keeps it in sorted maps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use placemark::storage::{Crash, Operation};

use crate::model::Loss;
use crate::run::{Counts, Live, Run, open};
use crate::seen::{Seen, resolve, verify};

/// All that a run has shown: what it did, the operations that came of it, and every byte that it left.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    trail: Vec<String>,
    operations: Vec<(Operation, String)>,
    left: Vec<BTreeMap<PathBuf, Vec<u8>>>,
}

/// Makes a run twice, and compares.
pub(crate) fn repeated(seed: u64, counts: &Counts) -> Result<(), String> {
    let (once, again) = (told(seed, counts)?, told(seed, counts)?);
    counts.repeated.fetch_add(1, Ordering::Relaxed);
    if once.operations.is_empty() {
        return Err("no operation was noted".to_owned());
    }
    if let Some(at) = (0..once.operations.len()).find(|at| once.operations.get(*at) != again.operations.get(*at)) {
        let (first, second) = (&once.operations[at], again.operations.get(at));
        return Err(format!("operation {at} was {first:?} and then {second:?}\n  {}", once.trail.join("\n  ")));
    }
    if once == again { Ok(()) } else { Err("the same operations left something else".to_owned()) }
}

fn told(seed: u64, counts: &Counts) -> Result<Told, String> {
    let mut told = Told::default();
    let mut run = Run::new(counts, seed);
    run.crashes = false;
    for _ in 0..4 {
        run.disk.trace();
        run.work(20).map_err(|wrong| format!("{}\n  {wrong}", run.trail.join("\n  ")))?;
        told.operations.extend(run.disk.take_trace());
        let left = run.disk.crash(Crash::new(run.rng.next()));
        run.live = None;
        let files = left.files().into_iter().map(|path| (path.clone(), left.read_file(&path).unwrap_or_default()));
        told.left.push(files.collect());
        let store = open(&left, run.model.durability, &mut run.rng).map_err(|error| format!("opening: {error}"))?;
        let found = Seen::of(&store, &run.model)?;
        verify(&run.model, &found, Loss::Power)?;
        resolve(&mut run.model, &found, Loss::Power)?;
        run.disk = left;
        run.live = Some(Live::of(store));
    }
    told.trail = run.trail;
    Ok(told)
}
