//! Runs the same work against placemark and against the crates that one would pick instead, and writes a table.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml             all of it, under ten minutes
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --quick  a look, under two
//! ```

mod child;
mod contestants;
mod limits;
mod machine;
mod peer;
mod peers;
mod position;
mod rounds;
mod table;
mod trials;
mod values;
mod works;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use child::Report;
use contestants::Contestant;
use rounds::Plan;
use trials::{Scale, Trial};
use works::Task;

/// The same work, done by placemark and by the crates that one would pick instead.
#[derive(Debug, Parser)]
struct Arguments {
    /// Less of everything, for a look; writes no file.
    #[arg(long)]
    quick: bool,
    /// Rounds at most, of which the table shows medians [default: 5, or 2 when quick].
    #[arg(long)]
    rounds: Option<usize>,
    /// Minutes after which no further round begins, but for the second.
    #[arg(long, default_value_t = 9.5)]
    minutes: f64,
    /// MiB of the log that is opened [default: 1024, or 64 when quick].
    #[arg(long)]
    mib: Option<u64>,
    /// Only these; writes no file.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Contestant>,
    /// Only these works; writes no file.
    #[arg(long, value_delimiter = ',')]
    works: Vec<Trial>,
    /// Where the logs are made [default: in this package's target directory].
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Rewrites the table in the README too.
    #[arg(long)]
    readme: bool,
    #[command(subcommand)]
    child: Option<Child>,
}

#[derive(Debug, Subcommand)]
enum Child {
    /// One work of one contestant, in a process of its own.
    #[command(hide = true)]
    Child {
        #[arg(long)]
        contestant: Contestant,
        #[command(flatten)]
        task: Task,
    },
}

/// The table of the README stands between these.
const MARKS: (&str, &str) = ("<!-- benches/peers begins -->\n", "<!-- benches/peers ends -->\n");

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.child {
        Some(Child::Child { contestant, task }) => {
            let mut report = Report::default();
            let result = contestant.run(&task, &mut report);
            report.print(&result);
            Ok(())
        }
        None => compare(&arguments),
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut scale = match arguments.quick {
        true => Scale { seconds: 0.3, records: 200_000, mib: 64 },
        false => Scale { seconds: 0.6, records: 700_000, mib: 1024 },
    };
    scale.mib = arguments.mib.unwrap_or(scale.mib);
    let plan = Plan {
        contestants: chosen(&arguments.only, Contestant::value_variants()),
        trials: chosen(&arguments.works, Trial::value_variants()),
        rounds: arguments.rounds.unwrap_or(if arguments.quick { 2 } else { 5 }),
        time: Duration::from_secs_f64(arguments.minutes * 60.0),
        scale,
    };
    let place = arguments.scratch.clone().unwrap_or_else(|| package.join("target"));
    fs::create_dir_all(&place)?;
    let scratch = tempfile::Builder::new().prefix("peers-").tempdir_in(&place)?;
    let (cells, rounds) = plan.carry_out(scratch.path())?;
    let report = table::Report {
        cells: &cells,
        contestants: &plan.contestants,
        machine: machine::described(scratch.path()),
        rounds,
        mib: scale.mib,
    };
    println!("{}", report.full());
    if !arguments.quick && arguments.only.is_empty() && arguments.works.is_empty() {
        fs::write(package.join("RESULTS.md"), format!("# Placemark and others, side by side\n\n{}", report.full()))?;
    }
    if arguments.readme {
        rewrite(&package.join("../../README.md"), &report.short())?;
    }
    Ok(())
}

fn chosen<T: Copy>(some: &[T], all: &[T]) -> Vec<T> {
    if some.is_empty() { all.to_vec() } else { some.to_vec() }
}

/// Puts `text` between the marks.
fn rewrite(path: &Path, text: &str) -> Result<()> {
    let readme = fs::read_to_string(path)?;
    let (before, rest) = readme.split_once(MARKS.0).context("the README has no mark for the table's begin")?;
    let (_, after) = rest.split_once(MARKS.1).context("the README has no mark for the table's end")?;
    let (begin, end) = MARKS;
    Ok(fs::write(path, format!("{before}{begin}\n{text}\n{end}{after}"))?)
}
