//! The figures as Markdown: all of them, and those that the README shows.

use std::fmt::Write;

use crate::contestants::Contestant;
use crate::rounds::Cells;
use crate::trials::{Measure, Outcome};

/// Of a table, with what it measures; in the order of the columns.
type Columns = &'static [(Measure, &'static str)];

const ALL: Columns = &[
    (Measure::Kept, "kept by `kill -9`"),
    (Measure::Append100, "append 100 B"),
    (Measure::Append1k, "append 1 KiB"),
    (Measure::Batch, "batch of 1000 x 100 B"),
    (Measure::DurableOne, "durable append, 1 thread"),
    (Measure::DurableMany, "durable append, 16 threads"),
    (Measure::ScanBatches, "scan, written in batches"),
    (Measure::ScanSingles, "scan, written singly"),
    (Measure::Consume, "read + position"),
    (Measure::ConsumeDurable, "read + durable position"),
    (Measure::Open, "open to first read"),
    (Measure::DiskSingles, "disk per byte, singly"),
    (Measure::DiskBatches, "disk per byte, batches"),
];

const SHORT: Columns = &[
    (Measure::Kept, "kept"),
    (Measure::Append100, "append"),
    (Measure::Batch, "batch"),
    (Measure::DurableOne, "durable"),
    (Measure::DurableMany, "by 16 threads"),
    (Measure::ScanBatches, "scan"),
    (Measure::Consume, "consume"),
    (Measure::Open, "open"),
    (Measure::DiskSingles, "disk"),
];

/// A peer that is this much better is said to be.
const NOTED: f64 = 1.05;

/// All that was measured.
pub(crate) struct Report<'a> {
    pub(crate) cells: &'a Cells,
    pub(crate) contestants: &'a [Contestant],
    pub(crate) machine: String,
    pub(crate) rounds: usize,
    pub(crate) mib: u64,
}

impl Report<'_> {
    /// Everything, with ratios to ours and what is to be known of each crate.
    pub(crate) fn full(&self) -> String {
        let mut text = format!(
            "{}. Medians of {} rounds, crates taking turns, each work in a process of its own and compared with what was \
             written. Records a second, of 100 B where nothing else is said; in brackets how many times as fast as \
             placemark. The log that is opened has {} MiB.\n\n",
            self.machine, self.rounds, self.mib
        );
        let mut notes = Notes::default();
        self.rows(&mut text, ALL, true, &mut notes);
        notes.list(&mut text);
        text.push_str("\n| | after a power failure, without a sync | durable append | a scan checks | used so |\n");
        text.push_str("|---|---|---|---|---|\n");
        for contestant in self.contestants {
            let about = contestant.about();
            let (power, durable, checks) = (about.power, about.durable, about.checks);
            let _ = writeln!(text, "| {} | {power} | {durable} | {checks} | {} |", named(*contestant), about.settings);
        }
        let _ = write!(text, "\n{}", self.losses(ALL));
        text
    }

    /// What the README shows.
    pub(crate) fn short(&self) -> String {
        let mut text = format!("On {}:\n\n", self.machine);
        let mut notes = Notes::default();
        self.rows(&mut text, SHORT, false, &mut notes);
        notes.list(&mut text);
        let _ = write!(text, "\n{}", self.losses(SHORT));
        text
    }

    fn rows(&self, text: &mut String, columns: Columns, ratios: bool, notes: &mut Notes) {
        let titles: Vec<&str> = columns.iter().map(|(_, title)| *title).collect();
        let _ = writeln!(text, "| | {} |\n|---|{}", titles.join(" | "), "--:|".repeat(columns.len()));
        for contestant in self.contestants {
            let cells: Vec<String> =
                columns.iter().map(|(measure, _)| self.cell(*contestant, *measure, ratios, notes)).collect();
            let _ = writeln!(text, "| {} | {} |", named(*contestant), cells.join(" | "));
        }
    }

    fn cell(&self, contestant: Contestant, measure: Measure, ratios: bool, notes: &mut Notes) -> String {
        let about = contestant.about();
        let mut cell = match self.cells.get(&(contestant, measure)) {
            None => return String::new(),
            Some(Outcome::Unable(_)) if contestant.is_limit() => return String::new(),
            Some(Outcome::Unable(why)) => return format!("- {}", notes.mark(&format!("{}: {why}.", about.name))),
            Some(Outcome::Failed(why)) => return format!("failed {}", notes.mark(&format!("{}: {why}", about.name))),
            Some(Outcome::Done(figures)) => shown(measure, median(figures.clone())),
        };
        let compared = ratios && contestant != Contestant::Placemark && measure < Measure::DiskSingles;
        if let Some(ratio) = self.ratio(contestant, measure).filter(|_| compared) {
            let _ = write!(cell, " ({}x)", digits(ratio));
        }
        for (_, remark) in about.remarks.iter().filter(|(of, _)| *of == measure) {
            let _ = write!(cell, " {}", notes.mark(&format!("{}: {remark}.", about.name)));
        }
        cell
    }

    /// How many times as good as ours.
    fn ratio(&self, contestant: Contestant, measure: Measure) -> Option<f64> {
        let of = |contestant| match self.cells.get(&(contestant, measure)) {
            Some(Outcome::Done(figures)) => Some(median(figures.clone())),
            _ => None,
        };
        let (theirs, ours) = (of(contestant)?, of(Contestant::Placemark)?);
        let less_is_better = matches!(measure, Measure::Open | Measure::DiskSingles | Measure::DiskBatches);
        Some(if less_is_better { ours / theirs } else { theirs / ours })
    }

    /// Where a crate is ahead of ours.
    fn losses(&self, columns: Columns) -> String {
        let mut lost = Vec::new();
        for (measure, title) in columns {
            let crates = self.contestants.iter().filter(|contestant| !contestant.is_limit());
            let ahead = crates.filter_map(|contestant| {
                let ratio = self.ratio(*contestant, *measure).filter(|ratio| *ratio >= NOTED)?;
                Some(format!("{} {}x", contestant.about().name, digits(ratio)))
            });
            let ahead: Vec<String> = ahead.collect();
            if !ahead.is_empty() {
                lost.push(format!("{} ({})", title.replace('`', ""), ahead.join(", ")));
            }
        }
        match lost.is_empty() {
            true => "Nobody is ahead of placemark by more than a twentieth.\n".to_owned(),
            false => format!("Ahead of placemark: {}.\n", lost.join("; ")),
        }
    }
}

/// Footnotes, each once.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn mark(&mut self, note: &str) -> String {
        let at = self.0.iter().position(|known| known == note).unwrap_or_else(|| {
            self.0.push(note.to_owned());
            self.0.len() - 1
        });
        format!("<sup>{}</sup>", at + 1)
    }

    fn list(&self, text: &mut String) {
        for (number, note) in (1..).zip(&self.0) {
            let _ = write!(text, "{}<sup>{number}</sup> {note}", if number == 1 { "\n" } else { " " });
        }
        if !self.0.is_empty() {
            text.push('\n');
        }
    }
}

fn named(contestant: Contestant) -> String {
    let about = contestant.about();
    match contestant {
        Contestant::Placemark => "**placemark**".to_owned(),
        Contestant::Sqlite => format!("SQLite {} (rusqlite {})", rusqlite::version(), version(about.package)),
        _ if contestant.is_limit() => format!("*{}*", about.name),
        _ => format!("{} {}", about.name, version(about.package)),
    }
}

/// As the lock file has it.
fn version(package: &str) -> &'static str {
    let named = format!("name = \"{package}\"\nversion = \"");
    let (_, rest) = include_str!("../Cargo.lock").split_once(&named).unwrap_or_default();
    rest.split('"').next().unwrap_or_default()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(figures.len() / 2), at(figures.len().saturating_sub(1) / 2))
}

fn shown(measure: Measure, figure: f64) -> String {
    match measure {
        Measure::Open if figure >= 1e3 => format!("{} s", digits(figure / 1e3)),
        Measure::Open => format!("{} ms", digits(figure)),
        Measure::DiskSingles | Measure::DiskBatches => format!("{figure:.2}"),
        Measure::Kept if figure <= 0.0 => "none".to_owned(),
        Measure::Kept if figure >= 1.0 => "all".to_owned(),
        Measure::Kept => format!("{:.0} %", figure * 100.0),
        _ if figure >= 1e6 => format!("{} M/s", digits(figure / 1e6)),
        _ if figure >= 1e3 => format!("{} k/s", digits(figure / 1e3)),
        _ => format!("{figure:.0} /s"),
    }
}

/// Two or three of them that count.
fn digits(figure: f64) -> String {
    match figure {
        f if f >= 10.0 => format!("{f:.0}"),
        f if f >= 1.0 => format!("{f:.1}"),
        f if f >= 0.1 => format!("{f:.2}"),
        f => format!("{f:.3}"),
    }
}
