//! The three delivery modes side by side over a handler that dies: `cargo run --example modes`.
//!
//! For each mode nine orders are handled by a child process, one at a time. It is killed (SIGKILL) twice: when it has
//! received order 3 and not yet handled it, and when it has handled order 6 and not yet settled it. Each time another
//! one goes on where the group's placemark is. What differs is only when that moves:
//!
//! - at most once: before the handler sees the order. A kill can lose an order, never repeat one;
//! - at least once: after the handler is done. A kill can repeat an order, never lose one;
//! - exactly once: together with what the handler wrote. A kill repeats the work, and its output appears once.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use placemark::{Entry, StartAt, Store};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const ORDERS: usize = 9;
/// What the child says when the parent kills it.
const KILLED_AT: [&str; 2] = ["received 3", "handled 6"];
const MODES: [&str; 3] = ["at-most-once", "at-least-once", "exactly-once"];

/// How often something happened to each order.
type Times = [usize; ORDERS];

fn main() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => compare(),
        [mode, dir] => handle(mode, Path::new(dir)),
        _ => Err("usage: modes".into()),
    }
}

/// The parent: runs each mode, prints what it delivered, and checks that it is what the mode's name says.
fn compare() -> Outcome {
    println!("nine orders; the handler is killed at {KILLED_AT:?}\n");
    for mode in MODES {
        let dir = tempfile::tempdir()?;
        let delivered = run(mode, dir.path())?;
        let outputs = outputs(mode, dir.path())?;
        println!("{mode:14} delivered {delivered:?}  outputs {outputs:?}");

        let lost = outputs.iter().filter(|times| **times == 0).count();
        let repeated = outputs.iter().filter(|times| **times > 1).count();
        println!("{:14} {lost} lost, {repeated} repeated\n", "");
        let (expected, twice) = match mode {
            "at-most-once" => ((1, 0), [1, 1, 1, 1, 1, 1, 1, 1, 1]),
            "at-least-once" => ((0, 1), [1, 1, 2, 1, 1, 2, 1, 1, 1]),
            _ => ((0, 0), [1, 1, 2, 1, 1, 2, 1, 1, 1]),
        };
        assert_eq!((lost, repeated), expected, "{mode} lost and repeated other orders than its name allows");
        assert_eq!(delivered, twice, "{mode} delivered other orders again than those that were not settled");
    }
    Ok(())
}

/// Handles all orders in children of which some are killed; how often each order was delivered.
fn run(mode: &str, dir: &Path) -> Outcome<Times> {
    let store = Store::open(dir.join("data"))?;
    store.log("orders")?.append_batch((1..=ORDERS).map(|order| order.to_string()))?;
    store.close()?;

    let mut delivered = Times::default();
    let mut kills = KILLED_AT.into_iter().peekable();
    loop {
        let mut child = start(mode, dir)?;
        let mut go_on = child.stdin.take().ok_or("the child has no input")?;
        let said = BufReader::new(child.stdout.take().ok_or("the child has no output")?);
        let mut killed = false;
        for line in said.lines() {
            let line = line?;
            if let Some(order) = line.strip_prefix("received ") {
                count(&mut delivered, order)?;
            }
            if kills.next_if_eq(&line.as_str()).is_some() {
                child.kill()?;
                killed = true;
            } else {
                writeln!(go_on)?;
            }
        }
        end(child, go_on, killed)?;
        if !killed {
            assert_eq!(kills.next(), None, "the child was done before it could be killed");
            return Ok(delivered);
        }
    }
}

fn start(mode: &str, dir: &Path) -> io::Result<Child> {
    Command::new(env::current_exe()?).arg(mode).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}

fn end(mut child: Child, go_on: ChildStdin, killed: bool) -> Outcome {
    drop(go_on);
    let status = child.wait()?;
    if killed || status.success() { Ok(()) } else { Err(format!("the child failed: {status}").into()) }
}

/// How often each order's output is there: lines in a file, or, exactly once, records in a log.
fn outputs(mode: &str, dir: &Path) -> Outcome<Times> {
    let mut times = Times::default();
    if mode == "exactly-once" {
        let store = Store::open(dir.join("data"))?;
        for invoice in store.log("invoices")?.read(StartAt::Earliest)? {
            count(&mut times, str::from_utf8(invoice?.value())?)?;
        }
    } else {
        for order in fs::read_to_string(dir.join("sent"))?.lines() {
            count(&mut times, order)?;
        }
    }
    Ok(times)
}

fn count(times: &mut Times, order: &str) -> Outcome {
    let order: usize = order.parse()?;
    *order.checked_sub(1).and_then(|at| times.get_mut(at)).ok_or("no such order")? += 1;
    Ok(())
}

/// The child: handles what the group has not yet passed.
fn handle(mode: &str, dir: &Path) -> Outcome {
    let store = Store::open(dir.join("data"))?;
    let orders = store.log("orders")?;
    // One order in each batch, so that exactly one is in hand when the process dies.
    let group = orders.consumer("billing").max_poll_records(1);
    match mode {
        "at-most-once" => {
            let mut consumer = group.at_most_once()?;
            while let Some(batch) = consumer.poll(Duration::ZERO)? {
                for order in &batch {
                    send(order, dir)?;
                }
            }
        }
        "at-least-once" => {
            let mut consumer = group.at_least_once()?;
            while let Some(batch) = consumer.poll(Duration::ZERO)? {
                for order in &batch {
                    send(order, dir)?;
                }
                batch.commit()?;
            }
        }
        "exactly-once" => {
            let invoices = store.log("invoices")?;
            let mut consumer = group.exactly_once()?;
            while let Some(batch) = consumer.poll(Duration::ZERO)? {
                let mut txn = store.transaction();
                for order in &batch {
                    say("received", order)?;
                    txn.append(&invoices, order.value())?;
                    say("handled", order)?;
                }
                txn.commit_with(batch)?;
            }
        }
        other => return Err(format!("there is no mode {other}").into()),
    }
    store.close()?;
    Ok(())
}

/// An effect outside the store, which no transaction can take back: a line in a file.
fn send(order: &Entry, dir: &Path) -> Outcome {
    say("received", order)?;
    let mut sent = File::options().create(true).append(true).open(dir.join("sent"))?;
    writeln!(sent, "{}", String::from_utf8_lossy(order.value()))?;
    say("handled", order)
}

/// Tells the parent, and waits: it says to go on, or kills.
fn say(what: &str, order: &Entry) -> Outcome {
    println!("{what} {}", String::from_utf8_lossy(order.value()));
    let mut answer = String::new();
    if io::stdin().read_line(&mut answer)? == 0 {
        return Err("the parent is gone".into());
    }
    Ok(())
}
