//! A program that uses every part of the public interface, over a disk that loses its power, fails and rots: at every
//! operation, in every way, again and again. What is found afterwards is held against a model of what was promised.
//!
//! ```sh
//! cargo test --test simulation                                  # in three minutes
//! cargo test --release --test simulation -- --long              # ten times as much
//! cargo test --release --test simulation -- --seeds 500 --from 1000
//! cargo test --test simulation -- crashes --from 17 --seeds 1   # what a failure says to do
//! ```
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
mod allocated;
mod campaign;
mod consume;
mod crew;
mod damage;
mod faults;
mod groups;
mod letters;
mod members;
mod model;
mod notes;
mod produce;
mod repeat;
mod rng;
mod run;
mod seen;
mod steps;

use std::process::ExitCode;

use campaign::{Campaign, Goal, Plan};
use placemark::storage::Lie;
use run::{Counts, Run};

fn main() -> ExitCode {
    let plan = match Plan::read() {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::FAILURE;
        }
    };
    let campaigns = [
        Campaign {
            name: "crashes",
            goal: Goal::Enough(150_000),
            counted: "crash states",
            count: |counts| &counts.states,
            run: crashes,
        },
        Campaign {
            name: "faults",
            goal: Goal::Enough(20_000),
            counted: "injected faults",
            count: |counts| &counts.faults,
            run: faults::faults,
        },
        Campaign {
            name: "damage",
            goal: Goal::Enough(20_000),
            counted: "damaged stores",
            count: |counts| &counts.damages,
            run: damage::damage,
        },
        Campaign {
            name: "a disk that syncs no file",
            goal: Goal::FoundOut(5),
            counted: "crash states",
            count: |counts| &counts.states,
            run: |seed, counts| crashes_over(Run::new(counts, seed), Some(Lie::FileSynced)),
        },
        Campaign {
            name: "a disk that syncs no directory",
            goal: Goal::FoundOut(5),
            counted: "crash states",
            count: |counts| &counts.states,
            run: |seed, counts| crashes_over(Run::new(counts, seed), Some(Lie::DirectorySynced)),
        },
        Campaign {
            name: "repeated",
            goal: Goal::Enough(20),
            counted: "runs made twice",
            count: |counts| &counts.repeated,
            run: repeat::repeated,
        },
    ];
    let mut passed = true;
    for campaign in campaigns {
        passed &= plan.carry_out(&campaign);
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Crashes at every operation of a run, and again and again in what is left.
fn crashes(seed: u64, counts: &Counts) -> Result<(), String> {
    crashes_over(Run::new(counts, seed), None)
}

fn crashes_over(mut run: Run<'_>, lie: Option<Lie>) -> Result<(), String> {
    if let Some(lie) = lie {
        run.disk.lie(lie);
    }
    let worked = run.work_and_crash(30);
    worked.map_err(|wrong| format!("{}\n  {wrong}", run.trail.join("\n  ")))
}
