//! The ledger of the example, killed again and again: its balances come out right.

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;
#[expect(dead_code, reason = "the example's own `main` is not called")]
#[path = "../examples/ledger_sqlite.rs"]
mod ledger;

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use common::child::{self, Child};
use common::{Numbers, WAIT, options, scratch, within};

const TRANSFERS: u64 = 20_000;
/// More for the last run, which no one kills. A kill between the database's commit and the store's hearing of it leaves
/// the placemark behind until the next batch of the partition: here every partition has one.
const MORE: u64 = 2000;
const KILLS: u64 = 40;

#[test]
fn child_that_keeps_a_ledger() {
    let Some(dir) = child::directory() else { return };
    child::say("opening");
    let (done, running) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // Says how far it is, so that the parent can kill it there.
        let database = dir.join("ledger.db");
        scope.spawn(move || {
            while running.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
                if let Ok(applied) = ledger::connect(&database).and_then(|it| ledger::applied(&it)) {
                    child::say(format_args!("applied {applied}"));
                }
            }
        });
        let kept = ledger::run(&dir, TRANSFERS);
        drop(done);
        kept.unwrap();
    });
}

#[test]
fn a_ledger_in_sqlite_has_every_transfer_once_however_often_it_is_killed() {
    within(WAIT * 8, || {
        let dir = scratch();
        // Before there are two connections, of which one would be refused: see there.
        ledger::prepare(&ledger::connect(&dir.path().join("ledger.db")).unwrap()).unwrap();
        let (mut killed, mut applied) = (0, Vec::new());
        for round in 0..KILLS {
            let child = Child::start("child_that_keeps_a_ledger", dir.path(), &[]);
            let heard = 1 + Numbers::new(round).below(40);
            let said: Vec<_> = (0..heard).map_while(|_| child.hear()).collect();
            if (said.len() as u64) < heard {
                let (status, _) = child.finish();
                assert!(status.success(), "{status}");
            } else {
                child.kill();
                killed += 1;
            }
            applied.extend(said.iter().filter_map(|line| line.strip_prefix("applied ")?.parse::<u64>().ok()));
        }
        assert!(killed > KILLS / 2, "only {killed} of {KILLS} were killed before they were done");
        assert!(applied.is_sorted(), "what was committed was taken back: {applied:?}");
        assert!(applied.iter().any(|applied| (1..TRANSFERS).contains(applied)), "no kill fell into the work");
        // The rest in one go; it compares every balance with what it must be.
        ledger::run(dir.path(), TRANSFERS + MORE).unwrap();
        let store = options().open(dir.path().join("store")).unwrap();
        let placemarks = store.group("ledger").placemarks().unwrap();
        assert_eq!(placemarks.iter().map(|at| at.offset).sum::<u64>(), TRANSFERS + MORE);
        assert!(placemarks.iter().all(|at| at.lag == 0));
    });
}
