//! The fuzz targets, on any toolchain: over the corpus, and over mutations of it that are the same in every run.
//!
//! `PLACEMARK_FUZZ_RUNS` is how many mutations each target gets, 100 by default. A failure prints the input; put it into
//! the corpus, under the name of its target. With cargo-fuzz at hand, `tests/fuzz/run` looks further.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as the tests do"
)]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;
#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::env;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use common::{Numbers, WAIT};

/// The inputs that are kept for a target.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Another input, made of two.
fn mutate(numbers: &mut Numbers, one: &[u8], other: &[u8]) -> Vec<u8> {
    let place = |numbers: &mut Numbers, len: usize| usize::try_from(numbers.below(len as u64 + 1)).unwrap();
    let mut bytes = one.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = place(numbers, bytes.len());
        match numbers.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][place(numbers, 4)],
            2 => {
                let len = place(numbers, 20);
                bytes.splice(at..at, numbers.bytes(len));
            }
            3 => bytes.truncate(at),
            4 => {
                let end = at + place(numbers, bytes.len() - at);
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let from = place(numbers, other.len());
                bytes.splice(at.., other[from..].iter().copied());
            }
        }
    }
    bytes.truncate(4096);
    bytes
}

fn run(name: &'static str) {
    let (_, target) = targets::ALL.into_iter().find(|(known, _)| *known == name).unwrap();
    let runs = env::var("PLACEMARK_FUZZ_RUNS").map_or(100, |runs| runs.parse().unwrap());
    let corpus = corpus(name);
    let (send, inputs) = mpsc::channel::<Option<Vec<u8>>>();
    let worker = thread::spawn(move || {
        let mut numbers = Numbers::new(name.len() as u64);
        let mutated = (0..runs).map(|_| {
            let [one, other] = [0, 1].map(|_| usize::try_from(numbers.below(corpus.len() as u64)).unwrap());
            mutate(&mut numbers, &corpus[one], &corpus[other])
        });
        let mutated: Vec<_> = mutated.collect();
        for input in corpus.iter().chain(&mutated) {
            send.send(Some(input.clone())).unwrap();
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| target(input)));
            if let Err(cause) = outcome {
                eprintln!("{name} fails with {}", hex(input));
                panic::resume_unwind(cause);
            }
        }
        send.send(None).unwrap();
    });
    let mut last = Vec::new();
    loop {
        match inputs.recv_timeout(WAIT) {
            Ok(Some(input)) => last = input,
            Ok(None) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name} hangs with {}", hex(&last)),
        }
    }
    worker.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn frames_behind_a_tail() {
    run("frames");
}

#[test]
fn segments_of_any_bytes() {
    run("segment");
}

#[test]
fn indexes_of_any_bytes() {
    run("index");
}

#[test]
fn side_logs_of_any_records() {
    run("side_log");
}

#[test]
fn files_damaged_in_any_way() {
    run("damage");
}

#[test]
fn calls_in_any_order() {
    run("calls");
}

#[test]
fn every_target_is_run_here_and_by_cargo_fuzz() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let own = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file!())).unwrap();
    for (name, _) in targets::ALL {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no binary");
        assert!(fuzz.join(format!("fuzz_targets/{name}.rs")).exists(), "{name} has no binary");
        assert!(own.contains(&format!("run(\"{name}\")")), "{name} is not run here");
    }
}
