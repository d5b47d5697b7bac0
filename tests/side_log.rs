//! The log of placemarks: its size follows the groups there are, not the commits that were made.

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use placemark::StartAt;

use common::{WAIT, files, in_cache, scratch, within};

const GROUPS: u64 = 10;
const COMMITS: u64 = 100_000;
const MIB: u64 = 1 << 20;

#[test]
fn a_million_commits_by_ten_groups_take_little_disk_and_open_fast() {
    within(WAIT * 10, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let log = store.log("orders").unwrap();
        for chunk in (0..COMMITS).collect::<Vec<_>>().chunks(1000) {
            log.append_batch(chunk.iter().map(|number| number.to_be_bytes().to_vec())).unwrap();
        }
        let placemarks = dir.path().join("placemarks");
        let largest = AtomicU64::new(0);
        thread::scope(|scope| {
            for group in 0..GROUPS {
                let (log, placemarks, largest) = (&log, &placemarks, &largest);
                scope.spawn(move || {
                    let name = format!("group-{group}");
                    let mut consumer = log.consumer(&name).max_poll_records(1).at_least_once().unwrap();
                    for number in 0..COMMITS {
                        let batch = consumer.poll(WAIT).unwrap().unwrap();
                        assert_eq!(batch.offsets().start, number);
                        batch.commit().unwrap();
                        if (number + group) % 500 == 0 {
                            largest.fetch_max(files::disk_bytes(placemarks), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let largest = largest.into_inner();
        assert!(largest > 0 && largest <= 8 * MIB, "{largest} bytes while committing");
        check(dir.path(), &store);
        drop(log);
        store.close().unwrap();
        let closed = files::disk_bytes(&placemarks);
        assert!(closed < MIB, "{closed} bytes once closed");
        let started = Instant::now();
        let store = in_cache().open(dir.path()).unwrap();
        let took = started.elapsed();
        assert!(took < Duration::from_secs(1), "opening took {took:?}");
        check(dir.path(), &store);
    });
}

/// Whether each group is where it should be, here and in what a kill would leave.
fn check(dir: &Path, store: &placemark::Store) {
    let placemarks = |store: &placemark::Store| {
        let groups = store.groups().expect("the groups are known");
        assert_eq!(groups.len() as u64, GROUPS);
        for group in groups {
            let placemarks = store.group(&group).placemarks().expect("the placemarks are known");
            assert_eq!(placemarks.iter().map(|it| it.offset).collect::<Vec<_>>(), [COMMITS], "{group}");
        }
    };
    placemarks(store);
    // A compaction may still be at work, in the background.
    let killed = std::iter::repeat_with(|| files::image_at_rest(dir)).flatten().next().expect("it comes to rest");
    placemarks(&in_cache().open(killed.path()).expect("a killed store opens"));
}

#[test]
fn a_kill_at_any_time_of_the_compaction_loses_no_placemark() {
    within(WAIT * 4, || {
        let dir = scratch();
        let store = in_cache().open(dir.path()).unwrap();
        let log = store.log("orders").unwrap();
        log.append_batch((0..1000).map(|_| "record")).unwrap();
        let mut quiet = log.consumer("quiet").max_poll_records(1).at_least_once().unwrap();
        quiet.poll(WAIT).unwrap().unwrap().commit().unwrap();
        let mut busy = log.consumer("busy").max_poll_records(1).at_least_once().unwrap();
        let mut looked = 0;
        for round in 0..100 {
            for _ in 0..997 {
                busy.poll(WAIT).unwrap().unwrap().commit().unwrap();
            }
            // The files are copied while the work that the commits set off goes on behind them.
            if round % 5 == 0
                && let Some(killed) = files::image_at_rest(dir.path())
            {
                let store = in_cache().open(killed.path()).unwrap();
                let offset = |group: &str| store.group(group).placemarks().unwrap()[0].offset;
                assert_eq!((offset("quiet"), offset("busy")), (1, 997));
                looked += 1;
            }
            busy.seek(0, StartAt::Earliest).unwrap();
        }
        assert!(looked > 0, "the side log was never at rest");
    });
}
