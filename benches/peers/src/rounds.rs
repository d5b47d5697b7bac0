//! All trials of all contestants, in rounds, so that a noisy moment does not hit one only.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::contestants::Contestant;
use crate::trials::{Field, Measure, Outcome, Scale, Trial};

/// What a contestant reached: in every round, until it could not or went wrong.
pub(crate) type Cells = BTreeMap<(Contestant, Measure), Outcome<Vec<f64>>>;

/// Who does what, and how often.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) trials: Vec<Trial>,
    pub(crate) rounds: usize,
    /// No round begins that would not end within it, but for the first two.
    pub(crate) time: Duration,
    pub(crate) scale: Scale,
}

impl Plan {
    /// Holds the rounds, says on stderr how it goes, and returns how many there were.
    pub(crate) fn carry_out(&self, scratch: &Path) -> Result<(Cells, usize)> {
        let mut cells = Cells::new();
        let begun = Instant::now();
        self.open(&mut cells, scratch, begun)?;
        let mut longest = Duration::ZERO;
        for round in 0..self.rounds {
            let round_begun = Instant::now();
            if round > 1 && begun.elapsed() + longest > self.time {
                eprintln!("no time is left for round {}", round + 1);
                return Ok((cells, round));
            }
            for trial in self.trials.iter().filter(|trial| **trial != Trial::Open) {
                for _ in 0..trial.times(round) {
                    self.hold(&mut cells, scratch, *trial, (round, begun));
                }
            }
            longest = longest.max(round_begun.elapsed());
        }
        Ok((cells, self.rounds))
    }

    /// Opening comes first and for itself, since its logs are large: they go before anything else is measured.
    fn open(&self, cells: &mut Cells, scratch: &Path, begun: Instant) -> Result<()> {
        if self.trials.contains(&Trial::Open) {
            for contestant in &self.contestants {
                self.field(*contestant, scratch).fill();
            }
            for round in 0..self.rounds {
                self.hold(cells, scratch, Trial::Open, (round, begun));
            }
            for contestant in &self.contestants {
                self.field(*contestant, scratch).clear()?;
            }
        }
        Ok(())
    }

    /// One trial of all, another one first in every round.
    fn hold(&self, cells: &mut Cells, scratch: &Path, trial: Trial, (round, begun): (usize, Instant)) {
        eprintln!("[{:4} s] round {} of {}, {trial:?}", begun.elapsed().as_secs(), round + 1, self.rounds);
        let mut order = self.contestants.clone();
        let count = order.len();
        order.rotate_left(round % count.max(1));
        for contestant in order {
            note(cells, &self.field(contestant, scratch), trial);
        }
    }

    fn field(&self, contestant: Contestant, scratch: &Path) -> Field {
        Field { contestant, scratch: scratch.to_owned(), scale: self.scale }
    }
}

fn note(cells: &mut Cells, field: &Field, trial: Trial) {
    let contestant = field.contestant;
    if let Some(Outcome::Unable(_) | Outcome::Failed(_)) = cells.get(&(contestant, trial.measure())) {
        return;
    }
    for (measure, outcome) in field.hold(trial) {
        eprintln!("    {:16} {measure:?} {}", contestant.argument(), shown(&outcome));
        let cell = cells.entry((contestant, measure)).or_insert_with(|| Outcome::Done(Vec::new()));
        match (cell, outcome) {
            (Outcome::Done(figures), Outcome::Done(figure)) => figures.push(figure),
            (cell, Outcome::Unable(why)) => *cell = Outcome::Unable(why),
            (cell, Outcome::Failed(why)) => *cell = Outcome::Failed(why),
            // It went wrong before.
            (_, Outcome::Done(_)) => {}
        }
    }
}

fn shown(outcome: &Outcome<f64>) -> String {
    match outcome {
        Outcome::Done(figure) => format!("{figure:.3}"),
        Outcome::Unable(why) => format!("unable: {why}"),
        Outcome::Failed(why) => format!("FAILED: {why}"),
    }
}
