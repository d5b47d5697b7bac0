//! `run`: polls, hands records over, settles what went well, rests after what did not, and stops when asked to.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant};

use placemark::{Error, Log, LogOptions, StartAt, Store};

use common::{WAIT, entries, in_cache, scratch, within};

const QUICK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(4));

fn numbered(store: &Store, partitions: u32, records: u64) -> Log {
    let log = store.log_with("log", LogOptions::new().partitions(partitions)).unwrap();
    for partition in 0..partitions {
        log.partition(partition).unwrap().append_batch((0..records).map(|number| number.to_string())).unwrap();
    }
    log
}

fn header(log: &Log, name: &str) -> Vec<String> {
    let read = entries(log.read(StartAt::Earliest).unwrap());
    read.iter().map(|entry| String::from_utf8(entry.header(name).unwrap().to_vec()).unwrap()).collect()
}

#[test]
fn what_succeeded_is_settled_up_to_the_record_that_failed() {
    within(WAIT, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let mut consumer = numbered(&store, 1, 10).consumer("group").backoff(QUICK.0, QUICK.1).at_least_once().unwrap();
        let stopper = consumer.stopper();
        let (mut seen, mut failures) = (Vec::new(), 0);
        let outcome = consumer.run(|entry| {
            seen.push(entry.offset());
            if entry.offset() == 4 {
                failures += 1;
                if failures == 3 {
                    stopper.stop();
                }
                return Err("not yet");
            }
            Ok(())
        });
        assert!(outcome.is_ok());
        assert_eq!(seen, [0, 1, 2, 3, 4, 4, 4]);
        assert_eq!(consumer.committed(0), Some(4));
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().unwrap().offsets(), 4..10, "no rest outlives it");
    });
}

#[test]
fn a_record_that_fails_is_passed_after_so_many_calls_with_the_error_as_the_reason() {
    within(WAIT, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let (log, dead) = (numbered(&store, 1, 300), store.log("dead").unwrap());
        let consumer = log.consumer("group").max_attempts(3).dead_letter(&dead).backoff(QUICK.0, QUICK.1);
        let mut consumer = consumer.at_least_once().unwrap();
        let stopper = consumer.stopper();
        let mut calls = vec![0; 300];
        consumer
            .run(|entry| {
                let call = &mut calls[usize::try_from(entry.offset()).unwrap()];
                *call += 1;
                if entry.offset() == 299 {
                    stopper.stop();
                }
                if [100, 101, 250].contains(&entry.offset()) { Err(format!("failure {call}")) } else { Ok(()) }
            })
            .unwrap();
        let expected: Vec<_> = (0..300).map(|offset| if [100, 101, 250].contains(&offset) { 3 } else { 1 }).collect();
        assert_eq!(calls, expected);
        assert_eq!(header(&dead, "placemark-offset"), ["100", "101", "250"]);
        assert_eq!(header(&dead, "placemark-reason"), ["failure 3"; 3]);
        assert_eq!(header(&dead, "placemark-attempts"), ["3"; 3]);
        assert_eq!(consumer.committed(0), Some(300));
    });
}

#[test]
fn a_partition_rests_longer_each_time_while_the_others_go_on() {
    within(WAIT, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let log = numbered(&store, 3, 20);
        let consumer = log.consumer("group").backoff(Duration::from_millis(20), Duration::from_millis(80));
        let mut consumer = consumer.max_poll_records(1).at_least_once().unwrap();
        let stopper = consumer.stopper();
        let (mut failures, mut others, mut before) = (Vec::new(), 0, 0);
        consumer
            .run(|entry| {
                if entry.partition() != 1 {
                    others += 1;
                    return Ok(());
                }
                failures.push(Instant::now());
                match failures.len() {
                    2 => before = others,
                    5 => stopper.stop(),
                    _ => {}
                }
                Err("for ever")
            })
            .unwrap();
        assert_eq!((before, others), (40, 40), "the others were done before it was tried again");
        let rests: Vec<_> = failures.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (rest, least) in rests.iter().zip([20, 40, 80, 80]) {
            assert!(*rest >= Duration::from_millis(least), "{rests:?}");
        }
    });
}

#[test]
fn a_stop_ends_a_wait_for_records_and_a_rest_at_once_and_lets_the_record_in_hand_be_finished() {
    within(WAIT, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let log = numbered(&store, 1, 10);
        // In a rest of an hour, and in a wait for records.
        for fails in [true, false] {
            let hour = Duration::from_secs(3600);
            let mut consumer = log.consumer("waits").backoff(hour, hour).at_least_once().unwrap();
            let stopper = consumer.stopper();
            let (send, done) = std::sync::mpsc::channel();
            let running = thread::spawn(move || {
                let outcome = consumer.run(|entry| {
                    if fails || entry.offset() == 9 {
                        send.send(()).unwrap();
                    }
                    if fails { Err("rest") } else { Ok(()) }
                });
                (outcome.is_ok(), consumer.committed(0))
            });
            done.recv_timeout(WAIT).unwrap();
            stopper.stop();
            assert_eq!(running.join().unwrap(), (true, (!fails).then_some(10)));
        }
        let mut consumer = log.consumer("group").max_attempts(1).skip().at_least_once().unwrap();
        let stopper = consumer.stopper();
        for expected in 1..=10 {
            let mut seen = 0;
            consumer
                .run(|_| {
                    seen += 1;
                    stopper.stop();
                    Ok::<(), Error>(())
                })
                .unwrap();
            assert_eq!(
                (seen, consumer.committed(0)),
                (1, Some(expected)),
                "a stop is no failure of what was behind it"
            );
        }
    });
}

#[test]
fn a_panic_of_the_handler_goes_through_and_leaves_its_record_unsettled() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let (log, dead) = (numbered(&store, 1, 5), store.log("dead").unwrap());
    let mut consumer = log.consumer("group").max_attempts(2).dead_letter(&dead).at_least_once().unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let died = panic::catch_unwind(AssertUnwindSafe(|| {
            consumer.run(|entry| {
                seen.push(entry.offset());
                assert!(entry.offset() != 2, "two is one too many");
                Ok::<(), Error>(())
            })
        }));
        assert!(died.is_err());
        assert_eq!(consumer.committed(0), Some(2), "what was done before it is settled");
    }
    assert_eq!(seen, [0, 1, 2, 2]);
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().unwrap().offsets(), 3..5);
    assert_eq!(header(&dead, "placemark-reason"), ["the handler panicked"]);
}

#[test]
fn our_own_errors_end_it() {
    within(WAIT, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let mut consumer = numbered(&store, 1, 1).consumer("group").at_least_once().unwrap();
        let running = thread::spawn(move || consumer.run(|_| Ok::<(), Error>(())));
        while store.group("group").placemarks().unwrap().is_empty() {
            thread::yield_now();
        }
        store.close().unwrap();
        assert!(matches!(running.join().unwrap(), Err(Error::Closed)));
    });
}

#[test]
fn what_was_held_too_long_by_the_handler_comes_again_and_does_not_end_it() {
    within(WAIT, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let log = numbered(&store, 1, 2);
        let consumer = log.consumer("group").processing_timeout(Duration::from_millis(20)).max_poll_records(1);
        let mut consumer = consumer.at_least_once().unwrap();
        let stopper = consumer.stopper();
        let mut seen = Vec::new();
        let other = log.consumer("group").at_least_once().unwrap();
        consumer
            .run(|entry| {
                seen.push(entry.offset());
                // Who looks takes back what is late.
                while seen.len() == 1 && store.group("group").members().unwrap().iter().any(|it| it.in_flight > 0) {
                    log.consumer("group").at_least_once().unwrap().poll(Duration::ZERO).unwrap();
                }
                if entry.offset() == 1 {
                    stopper.stop();
                }
                Ok::<(), Error>(())
            })
            .unwrap();
        drop(other);
        assert_eq!(seen, [0, 0, 1]);
        assert_eq!(consumer.committed(0), Some(2));
    });
}

#[test]
fn at_most_once_a_record_is_passed_whatever_the_handler_says() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let mut consumer = numbered(&store, 1, 10).consumer("group").max_poll_records(4).at_most_once().unwrap();
    let stopper = consumer.stopper();
    let mut seen = Vec::new();
    consumer
        .run(|entry| {
            seen.push(entry.offset());
            if entry.offset() == 5 {
                stopper.stop();
            }
            Err("no matter")
        })
        .unwrap();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7], "what was passed with it is still seen after a stop");
    assert_eq!(consumer.committed(0), Some(8));
}

#[test]
fn exactly_once_the_outputs_of_a_record_that_failed_are_taken_out_and_the_others_stay() {
    within(WAIT, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let log = numbered(&store, 1, 60);
        let (out, more, dead) = (store.log("out").unwrap(), store.log("more").unwrap(), store.log("dead").unwrap());
        let consumer = log.consumer("group").max_attempts(2).dead_letter(&dead).backoff(QUICK.0, QUICK.1);
        let mut consumer = consumer.exactly_once().unwrap();
        let stopper = consumer.stopper();
        let mut calls = 0;
        consumer
            .run(|entry, txn| {
                calls += 1;
                txn.append(&out, entry.value()).map_err(|error| error.to_string())?;
                if entry.offset() == 59 {
                    stopper.stop();
                }
                if entry.offset() % 20 == 7 {
                    txn.append(&more, "a first output to that log").map_err(|error| error.to_string())?;
                    return Err(format!("no {}", entry.offset()));
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(calls, 60 + 3);
        let outputs = entries(out.read(StartAt::Earliest).unwrap());
        let values: Vec<u64> = outputs.iter().map(|it| String::from_utf8_lossy(it.value()).parse().unwrap()).collect();
        assert!(values.iter().copied().eq((0..60).filter(|offset| offset % 20 != 7)), "{values:?}");
        assert_eq!(more.partition(0).unwrap().end_offset(), 0);
        assert_eq!(header(&dead, "placemark-reason"), ["no 7", "no 27", "no 47"]);
        assert_eq!(header(&dead, "placemark-attempts"), ["2"; 3]);
        assert_eq!(consumer.committed(0), Some(60));
    });
}

#[test]
fn exactly_once_outputs_that_are_too_much_together_are_committed_in_parts_and_no_failure() {
    within(WAIT, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let log = numbered(&store, 1, 10);
        let (out, dead) = (store.log("out").unwrap(), store.log("dead").unwrap());
        let mut consumer = log.consumer("group").max_attempts(1).dead_letter(&dead).exactly_once().unwrap();
        let stopper = consumer.stopper();
        let large = vec![7; 10 << 20];
        consumer
            .run(|entry, txn| {
                txn.append(&out, &large)?;
                if entry.offset() == 9 {
                    stopper.stop();
                }
                Ok::<(), Error>(())
            })
            .unwrap();
        assert_eq!((consumer.committed(0), dead.partition(0).unwrap().end_offset()), (Some(10), 0));
        assert_eq!(out.partition(0).unwrap().end_offset(), 10);
    });
}
