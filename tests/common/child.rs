//! Child processes: a test binary starts itself again, to run one test that does the child's work, and can be killed.

use std::env;
use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use super::WAIT;

/// Tells a test that it runs in a child, and in which directory it is to work.
const DIRECTORY: &str = "PLACEMARK_CHILD";

/// Marks the lines that a child says among those of the test harness.
const MARK: &str = "@child ";

/// The directory to work in, when this process is a child.
pub(crate) fn directory() -> Option<PathBuf> {
    env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Tells the parent something. It has left the process on return, so that a kill cannot take it back.
pub(crate) fn say(what: impl Display) {
    println!("{MARK}{what}");
}

/// A running child, killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    lines: Receiver<String>,
}

impl Child {
    /// Starts `test` of this binary as a child that works in `directory`.
    pub(crate) fn start(test: &str, directory: &Path, variables: &[(&str, &str)]) -> Self {
        Self::spawn(&mut Command::new(env::current_exe().unwrap()), test, directory, variables)
    }

    /// The same, for a child none of whose files may become longer than so many blocks of 512 bytes. What is over that
    /// is an error to it, not the signal that would end it.
    pub(crate) fn start_limited(test: &str, directory: &Path, variables: &[(&str, &str)], blocks: u64) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"trap "" XFSZ; ulimit -f "$1"; shift; exec "$@""#, "sh", &blocks.to_string()]);
        Self::spawn(shell.arg(env::current_exe().unwrap()), test, directory, variables)
    }

    fn spawn(command: &mut Command, test: &str, directory: &Path, variables: &[(&str, &str)]) -> Self {
        let mut process = command
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            // A line that a kill cut in two was not said.
            while output.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
                if let Some((_, said)) = line.trim_end().split_once(MARK) {
                    let _ = send.send(said.to_owned());
                }
                line.clear();
            }
        });
        Self { process, lines }
    }

    /// The next thing it says; `None` when it has ended.
    pub(crate) fn hear(&self) -> Option<String> {
        match self.lines.recv_timeout(WAIT) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the child says nothing"),
        }
    }

    /// Kills it with SIGKILL; what it had said and nobody had heard.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::iter::from_fn(|| self.hear()).collect()
    }

    /// Waits for it to end by itself; how it ended, and what it said that nobody had heard.
    pub(crate) fn finish(mut self) -> (ExitStatus, Vec<String>) {
        let said = std::iter::from_fn(|| self.hear()).collect();
        (self.process.wait().unwrap(), said)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
