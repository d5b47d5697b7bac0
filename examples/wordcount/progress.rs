//! What shows while it works: a bar on a terminal, a line now and then elsewhere. Both go to standard error.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::stages::Stages;

/// Time between two lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_millis(250);

/// Shows how far the stages are.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    stages: &'a Stages,
    bar: Option<ProgressBar>,
    shown: Option<Instant>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(stages: &'a Stages) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {percent:>3} % fed, {wide_msg}");
            ProgressBar::new(stages.size()).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { stages, bar, shown: None }
    }

    /// Called often; it does not show every time.
    pub(crate) fn show(&mut self, counted: u64) {
        let (_, _, split) = self.stages.this_run();
        let position = self.stages.position();
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(format!("{split} words split, {counted} counted"));
        } else if position > 0 && self.shown.is_none_or(|shown| shown.elapsed() >= BETWEEN_LINES) {
            eprintln!(
                "fed {position} of {} bytes, {split} words split in this run, {counted} counted",
                self.stages.size()
            );
            self.shown = Some(Instant::now());
        }
    }

    /// Clears the bar, so that the results stand alone.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
