//! A process for each crate and work, so that one's crash, memory or threads do not touch another's figures: what it is
//! told, and what it answers.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::contestants::Contestant;
use crate::peer::{Unable, unable};
use crate::works::Task;

/// Stands before every line that is meant for the parent; crates print what they like.
const MARK: &str = "peers: ";

/// Longest that a process may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// What the process found.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<(&'static str, String)>);

impl Report {
    pub(crate) fn figure(&mut self, name: &'static str, figure: impl Display) {
        self.0.push((name, figure.to_string()));
    }

    /// Operations a second.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn rate(&mut self, count: u64, took: Duration) {
        self.figure("rate", count as f64 / took.as_secs_f64());
    }

    pub(crate) fn print(&self, result: &Result<()>) {
        for (name, figure) in &self.0 {
            println!("{MARK}{name} {figure}");
        }
        match result {
            Ok(()) => println!("{MARK}done"),
            Err(error) => match error.downcast_ref::<Unable>() {
                Some(unable) => println!("{MARK}unable {unable}"),
                None => println!("{MARK}failed {error:#}"),
            },
        }
    }
}

pub(crate) type Figures = BTreeMap<String, f64>;

/// Runs the work in a process of its own, in the task's directory. What went wrong there goes wrong here; `Unable` if
/// that is what it said.
pub(crate) fn start(contestant: Contestant, task: &Task) -> Result<Figures> {
    let (out, err) = (task.dir.with_extension("out"), task.dir.with_extension("err"));
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").args(["--contestant", contestant.argument()]).args(arguments(task));
    if task.same {
        command.arg("--same");
    }
    // walrus-rust takes its directory from here, and says all it does unless it is told not to.
    command.env("WALRUS_DATA_DIR", &task.dir).env("WALRUS_QUIET", "1");
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let mut child = command.spawn().context("starting a process")?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status.to_string();
        }
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            break format!("took longer than {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    understood(&fs::read_to_string(&out)?, &status, &err)
}

fn arguments(task: &Task) -> [String; 6] {
    let Task { work, dir, count, seconds, skip, len, same: _ } = task;
    let work = clap::ValueEnum::to_possible_value(work).map_or(String::new(), |value| value.get_name().to_owned());
    [
        format!("--work={work}"),
        format!("--dir={}", dir.display()),
        format!("--count={count}"),
        format!("--seconds={seconds}"),
        format!("--skip={skip}"),
        format!("--len={len}"),
    ]
}

fn understood(out: &str, status: &str, err: &Path) -> Result<Figures> {
    let mut figures = Figures::new();
    for line in out.lines().filter_map(|line| line.strip_prefix(MARK)) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("done", _) => return Ok(figures),
            ("unable", why) => return Err(unable(why)),
            ("failed", why) => bail!("{why}"),
            (name, figure) => drop(figure.parse().map(|figure| figures.insert(name.to_owned(), figure))),
        }
    }
    let last = fs::read_to_string(err).unwrap_or_default();
    let last = last.lines().find(|line| !line.trim().is_empty()).unwrap_or("").to_owned();
    bail!("{status}: {last}")
}
