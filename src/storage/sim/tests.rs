use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::content::PAGE;
use super::*;

const ALL: u64 = 200;

fn path(path: &str) -> &Path {
    Path::new(path)
}

/// A file with these bytes, durable like its name.
fn durable(disk: &SimDisk, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(path(name), Mode::Create).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(path(name).parent().unwrap()).unwrap();
    file
}

fn lost(disk: &SimDisk) -> SimDisk {
    disk.crash(Crash::new(9).keep(Keep::Nothing))
}

fn kept(disk: &SimDisk) -> SimDisk {
    disk.crash(Crash::new(9).keep(Keep::Everything))
}

/// What random crashes leave of a file, each result once.
fn outcomes<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    (0..ALL).map(|seed| look(&disk.crash(Crash::new(seed)))).collect()
}

#[test]
fn a_power_loss_takes_what_was_not_synced() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", b"synced");
    file.write_at(b"S", 0).unwrap();
    file.write_at(b", and more", 6).unwrap();
    assert_eq!(lost(&disk).read_file("/file").unwrap(), b"synced");
    assert_eq!(kept(&disk).read_file("/file").unwrap(), b"Synced, and more");
    assert_eq!(disk.read_file("/file").unwrap(), b"Synced, and more", "the disk itself goes on");
    file.sync().unwrap();
    assert_eq!(lost(&disk).read_file("/file").unwrap(), b"Synced, and more");
    file.set_len(3).unwrap();
    assert_eq!(lost(&disk).read_file("/file").unwrap(), b"Synced, and more");
    assert_eq!(kept(&disk).read_file("/file").unwrap(), b"Syn");
    file.sync().unwrap();
    assert_eq!(lost(&disk).read_file("/file").unwrap(), b"Syn");
    file.set_len(8).unwrap();
    assert_eq!(kept(&disk).read_file("/file").unwrap(), b"Syn\0\0\0\0\0");
}

#[test]
fn stores_through_a_mapping_are_lost_like_writes() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", &[]);
    file.allocate(0, 8192).unwrap();
    file.sync().unwrap();
    let map = Arc::new(file.map(8192, true).unwrap());
    let mut writer = map.writer(0, 8192).unwrap();
    writer.slot(5000, 4).unwrap().copy_from_slice(b"abcd");
    writer.store_length(4996, 4);
    assert_eq!(disk.read_file("/file").unwrap()[4996..5004], *b"\x04\0\0\0abcd");
    assert_eq!(lost(&disk).read_file("/file").unwrap(), [0; 8192]);
    assert_eq!(kept(&disk).read_file("/file").unwrap()[5000..5004], *b"abcd");
    file.sync().unwrap();
    assert_eq!(lost(&disk).read_file("/file").unwrap()[4996..5004], *b"\x04\0\0\0abcd");
    writer.publish(5004);
    assert_eq!(map.bytes(5000..5004).unwrap(), b"abcd");
}

#[test]
fn an_open_slot_is_not_written_yet() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", b"before--");
    let map = Arc::new(file.map(8, true).unwrap());
    let mut writer = map.writer(0, 8).unwrap();
    writer.slot(0, 4).unwrap().copy_from_slice(b"AFTE");
    file.sync().unwrap();
    assert_eq!(lost(&disk).read_file("/file").unwrap(), b"before--");
    writer.publish(4);
    file.sync().unwrap();
    assert_eq!(lost(&disk).read_file("/file").unwrap(), b"AFTEre--");
}

#[test]
fn sectors_survive_each_by_itself() {
    for sector in [512, 4096] {
        let disk = SimDisk::new(1);
        let file = durable(&disk, "/file", &[1; 8192]);
        file.write_at(&[2; 8192], 0).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..ALL {
            let bytes = disk.crash(Crash::new(seed).sector(sector)).read_file("/file").unwrap();
            let sectors: Vec<_> = bytes.chunks(sector).map(|bytes| (bytes[0], bytes)).collect();
            for (first, bytes) in &sectors {
                assert!(bytes.iter().all(|byte| byte == first), "a sector was torn");
            }
            seen.insert(sectors.iter().map(|(first, _)| *first).collect::<Vec<_>>());
        }
        let some = if sector == 512 { 100 } else { 4 };
        assert!(seen.len() >= some, "only {} different disks", seen.len());
    }
}

#[test]
fn any_part_of_a_growth_survives() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", &[1; 1000]);
    file.write_at(&[2; 9000], 1000).unwrap();
    let lengths = outcomes(&disk, |disk| disk.read_file("/file").unwrap().len());
    assert!(lengths.contains(&1000) && lengths.contains(&10_000) && lengths.len() > 20, "{lengths:?}");
    assert!(lengths.iter().all(|len| (1000..=10_000).contains(len)));
    assert!(lengths.iter().any(|len| len.is_multiple_of(512)), "{lengths:?}");
    file.sync().unwrap();
    file.set_len(10).unwrap();
    let lengths = outcomes(&disk, |disk| disk.read_file("/file").unwrap().len());
    assert_eq!(lengths, BTreeSet::from([10, 10_000]), "a cut is made or not");
}

#[test]
fn what_is_past_the_length_that_survived_reads_as_zeros() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", &[1; 10]);
    file.write_at(&[2; 9000], 10).unwrap();
    for seed in 0..ALL {
        let after = disk.crash(Crash::new(seed));
        let before = after.read_file("/file").unwrap();
        let file = after.open(path("/file"), Mode::Write).unwrap();
        file.set_len(20_000).unwrap();
        let grown = after.read_file("/file").unwrap();
        assert_eq!(grown[..before.len()], before);
        assert!(grown[before.len()..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn what_survived_is_durable() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", &[1; 10_000]);
    file.write_at(&[2; 10_000], 5000).unwrap();
    disk.open(path("/other"), Mode::Create).unwrap();
    for seed in 0..ALL {
        let after = disk.crash(Crash::new(seed));
        let again = lost(&after);
        assert_eq!(after.files(), again.files());
        assert_eq!(after.read_file("/file"), again.read_file("/file"));
    }
}

#[test]
fn a_synced_file_still_needs_its_name_synced() {
    let disk = SimDisk::new(1);
    disk.create_dir(path("/dir")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    let file = disk.open(path("/dir/file"), Mode::Create).unwrap();
    file.write_at(b"abc", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(lost(&disk).read_file("/dir/file"), None);
    let seen = outcomes(&disk, |disk| disk.read_file("/dir/file"));
    assert_eq!(seen, BTreeSet::from([None, Some(b"abc".to_vec())]));
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(lost(&disk).read_file("/dir/file"), None, "another directory was synced");
    disk.sync_dir(path("/dir")).unwrap();
    assert_eq!(outcomes(&disk, |disk| disk.read_file("/dir/file")), BTreeSet::from([Some(b"abc".to_vec())]));
}

#[test]
fn a_name_is_synced_without_what_it_names() {
    let disk = SimDisk::new(1);
    disk.create_dir(path("/dir")).unwrap();
    let file = disk.open(path("/dir/file"), Mode::Create).unwrap();
    file.write_at(b"abc", 0).unwrap();
    disk.sync_dir(path("/dir")).unwrap();
    assert_eq!(lost(&disk).kind(path("/dir")).unwrap(), None, "the directory's own name was not synced");
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(lost(&disk).read_file("/dir/file").unwrap(), b"");
}

#[test]
fn a_rename_survives_whole_or_not_at_all() {
    let disk = SimDisk::new(1);
    durable(&disk, "/old", b"new content");
    durable(&disk, "/name", b"old content");
    disk.rename(path("/old"), path("/name")).unwrap();
    let seen = outcomes(&disk, |disk| (disk.read_file("/old"), disk.read_file("/name").unwrap()));
    let before = (Some(b"new content".to_vec()), b"old content".to_vec());
    let after = (None, b"new content".to_vec());
    assert_eq!(seen, BTreeSet::from([before, after]));
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(lost(&disk).read_file("/name").unwrap(), b"new content");
}

#[test]
fn a_rename_between_directories_is_two_changes() {
    let disk = SimDisk::new(1);
    disk.create_dir(path("/a")).unwrap();
    disk.create_dir(path("/b")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    durable(&disk, "/a/file", b"abc");
    disk.rename(path("/a/file"), path("/b/file")).unwrap();
    let look = |disk: &SimDisk| (disk.read_file("/a/file").is_some(), disk.read_file("/b/file").is_some());
    assert_eq!(outcomes(&disk, look).len(), 4);
    disk.sync_dir(path("/b")).unwrap();
    assert_eq!(outcomes(&disk, look), BTreeSet::from([(true, true), (false, true)]));
    // A file that kept both names is one file.
    let both = (0..ALL).map(|seed| disk.crash(Crash::new(seed))).find(|disk| look(disk) == (true, true)).unwrap();
    both.open(path("/a/file"), Mode::Write).unwrap().write_at(b"x", 0).unwrap();
    assert_eq!(both.read_file("/b/file").unwrap(), b"xbc");
}

#[test]
fn names_come_and_go_each_by_itself_but_in_order() {
    let disk = SimDisk::new(1);
    durable(&disk, "/gone", b"");
    disk.remove_file(path("/gone")).unwrap();
    for version in [b"1", b"2"] {
        let file = disk.open(path("/tmp"), Mode::Create).unwrap();
        file.write_at(version, 0).unwrap();
        file.sync().unwrap();
        disk.rename(path("/tmp"), path("/name")).unwrap();
    }
    let look = |disk: &SimDisk| {
        (disk.read_file("/gone").is_some(), disk.read_file("/tmp"), disk.read_file("/name").map(|bytes| bytes[0]))
    };
    let seen = outcomes(&disk, look);
    let states: BTreeSet<_> = seen.iter().map(|(_, tmp, name)| (tmp.clone(), *name)).collect();
    let [one, two] = [b"1", b"2"].map(|bytes| Some(bytes.to_vec()));
    let in_order = [(None, None), (one, None), (None, Some(b'1')), (two, Some(b'1')), (None, Some(b'2'))];
    assert_eq!(states, BTreeSet::from(in_order));
    assert_eq!(seen.len(), 10, "the other name depends on these: {seen:?}");
}

#[test]
fn a_failed_sync_never_becomes_durable_later() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", &[1; 3 * PAGE]);
    file.write_at(b"x", 0).unwrap();
    file.write_at(b"y", PAGE as u64).unwrap();
    file.write_at(b"z", 2 * PAGE as u64).unwrap();
    disk.inject(Fault::new(Operation::Sync, ErrorKind::Other));
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert_eq!(lost(&disk).read_file("/file").unwrap(), [1; 3 * PAGE], "it became durable after all");
    assert_eq!(kept(&disk).read_file("/file").unwrap(), [1; 3 * PAGE], "nobody is going to write it any more");
    assert_eq!(disk.read_file("/file").unwrap()[0], b'x', "processes still see it");

    // A change makes a page dirty again, with all that it has; so does writing what it has.
    file.write_at(b"Y", PAGE as u64 + 1).unwrap();
    file.write_at(b"z", 2 * PAGE as u64).unwrap();
    let killed = disk.kill();
    for disk in [&disk, &killed] {
        disk.open(path("/file"), Mode::Write).unwrap().sync().unwrap();
        let bytes = lost(disk).read_file("/file").unwrap();
        assert_eq!((bytes[0], &bytes[PAGE..PAGE + 2], bytes[2 * PAGE]), (1, &b"yY"[..], b'z'));
    }
    // Nor does the death of the process bring back the page that was dropped, but writing it again does.
    let file = killed.open(path("/file"), Mode::Write).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(lost(&killed).read_file("/file").unwrap()[0], b'x');
}

#[test]
fn forgetting_clean_pages_shows_what_a_failed_sync_lost() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", &[1; 2 * PAGE]);
    file.write_at(&[2; 2 * PAGE], 0).unwrap();
    file.forget(0);
    assert_eq!(disk.read_file("/file").unwrap(), [2; 2 * PAGE], "dirty pages stay");
    disk.inject(Fault::new(Operation::Sync, ErrorKind::Other));
    assert!(file.sync().is_err());
    let killed = disk.kill();
    for disk in [disk, killed] {
        let file = disk.open(path("/file"), Mode::Write).unwrap();
        let map = file.map(PAGE, false).unwrap();
        file.forget(0);
        assert_eq!(disk.read_file("/file").unwrap(), [2; 2 * PAGE], "mapped pages stay");
        drop(map);
        file.forget(1);
        let bytes = disk.read_file("/file").unwrap();
        assert_eq!((bytes[0], bytes[PAGE]), (2, 1));
    }
}

#[test]
fn after_a_kill_the_page_cache_is_there_and_the_old_handles_are_not() {
    let disk = SimDisk::new(1);
    let lock = disk.lock(path("/LOCK")).unwrap();
    let file = durable(&disk, "/file", b"abc");
    file.write_at(b"ABC", 0).unwrap();
    file.allocate(0, 4096).unwrap();
    let map = Arc::new(file.map(4096, true).unwrap());
    let mut writer = map.writer(3, 4096).unwrap();
    writer.slot(3, 1).unwrap()[0] = b'D';
    writer.publish(4);
    let killed = disk.kill();
    writer.slot(4, 1).unwrap()[0] = b'E';
    writer.publish(5);
    file.write_at(b"E", 4).unwrap();
    disk.remove_file(path("/file")).unwrap();
    assert_eq!(killed.read_file("/file").unwrap()[..5], *b"ABCD\0");
    assert_eq!(lost(&killed).read_file("/file").unwrap(), b"abc", "the death of a process makes nothing durable");
    let held = killed.lock(path("/LOCK")).unwrap();
    assert!(held.is_some());
    drop(lock);
    assert!(killed.lock(path("/LOCK")).unwrap().is_none(), "a dead process gave back a lock");
    assert!(killed.cache_identity(path("/")).survives(&disk.cache_identity(path("/"))));
    assert_ne!(killed.random(), disk.random());
}

#[test]
fn after_a_power_loss_the_kernel_is_another() {
    let disk = SimDisk::new(1);
    let _lock = disk.lock(path("/LOCK")).unwrap();
    let (first, second) = (disk.crash(Crash::new(1)), disk.crash(Crash::new(2)));
    let identities = [&disk, &first, &second, &first.crash(Crash::new(1))].map(|disk| disk.cache_identity(path("/")));
    for (number, identity) in identities.iter().enumerate() {
        assert!(identities[..number].iter().all(|earlier| !identity.survives(earlier)));
    }
    assert!(kept(&disk).lock(path("/LOCK")).unwrap().is_some());
}

#[test]
fn nothing_happens_once_the_power_is_lost() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", &[0; 4096]);
    let map = Arc::new(file.map(4096, true).unwrap());
    let mut writer = map.writer(0, 4096).unwrap();
    let done = disk.operations();
    assert_eq!(done, 4, "create, write, sync, sync_dir");
    disk.crash_after(done + 1);
    file.write_at(b"kept", 100).unwrap();
    assert!(!disk.power_lost());
    assert_eq!(file.sync().unwrap_err().to_string(), "power lost");
    assert!(disk.power_lost());
    writer.slot(0, 4).unwrap().copy_from_slice(b"late");
    writer.publish(4);
    let failures = [
        file.write_at(b"late", 200).is_err(),
        file.len().is_err(),
        file.map(1, false).is_err(),
        file.allocate(0, 9000).is_err(),
        file.set_len(0).is_err(),
        disk.open(path("/file"), Mode::Read).is_err(),
        disk.open(path("/new"), Mode::Create).is_err(),
        disk.kind(path("/file")).is_err(),
        disk.list(path("/")).is_err(),
        disk.create_dir(path("/dir")).is_err(),
        disk.rename(path("/file"), path("/new")).is_err(),
        disk.remove_file(path("/file")).is_err(),
        disk.remove_dir(path("/file")).is_err(),
        disk.sync_dir(path("/")).is_err(),
        disk.lock(path("/LOCK")).is_err(),
    ];
    assert!(failures.iter().all(|failed| *failed), "{failures:?}");
    assert_eq!(disk.operations(), done + 1);
    let mut expected = [0; 4096];
    assert_eq!(lost(&disk).read_file("/file").unwrap(), expected);
    expected[100..104].copy_from_slice(b"kept");
    assert_eq!(kept(&disk).read_file("/file").unwrap(), expected, "what was stored later is not on the disk");
    assert_eq!(disk.kill().read_file("/file").unwrap(), expected);
    assert_eq!(disk.kill().files(), [PathBuf::from("/file")]);
}

#[test]
fn faults_strike_where_when_and_as_often_as_told() {
    let disk = SimDisk::new(1);
    let (a, b) = (durable(&disk, "/a", b""), durable(&disk, "/b", b""));
    disk.inject(Fault::new(Operation::Write, ErrorKind::PermissionDenied).nth(2).at("/a"));
    a.write_at(b"1", 0).unwrap();
    b.write_at(b"1", 0).unwrap();
    assert_eq!(a.write_at(b"2", 0).unwrap_err().kind(), ErrorKind::PermissionDenied);
    a.sync().unwrap();
    assert_eq!(disk.read_file("/a").unwrap(), b"1", "what failed had an effect");
    a.write_at(b"3", 0).unwrap();
    disk.inject(Fault::new(Operation::Rename, ErrorKind::Other).forever());
    for _ in 0..3 {
        assert!(disk.rename(path("/a"), path("/c")).is_err());
    }
    disk.clear_faults();
    disk.rename(path("/a"), path("/c")).unwrap();
}

#[test]
fn every_kind_of_operation_can_fail() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", b"abc");
    let (root, dir) = (path("/"), path("/dir"));
    let runs: [(Operation, &dyn Fn() -> io::Result<()>); 13] = [
        (Operation::Open, &|| disk.open(path("/file"), Mode::Read).map(drop)),
        (Operation::Create, &|| disk.open(path("/new"), Mode::Create).map(drop)),
        (Operation::Write, &|| file.write_at(b"x", 0)),
        (Operation::Sync, &|| file.sync()),
        (Operation::Allocate, &|| file.allocate(0, 100)),
        (Operation::SetLen, &|| file.set_len(200)),
        (Operation::Map, &|| file.map(100, false).map(drop)),
        (Operation::CreateDir, &|| disk.create_dir(dir)),
        (Operation::Rename, &|| disk.rename(path("/new"), path("/dir/new"))),
        (Operation::Remove, &|| disk.remove_file(path("/dir/new"))),
        (Operation::SyncDir, &|| disk.sync_dir(root)),
        (Operation::List, &|| disk.list(root).map(drop)),
        (Operation::Read, &|| file.read_at(&mut [0], 0).map(drop)),
    ];
    for (operation, run) in runs {
        disk.inject(Fault::new(operation, ErrorKind::TimedOut));
        assert_eq!(run().unwrap_err().kind(), ErrorKind::TimedOut, "{operation:?}");
        let before = disk.operations();
        run().unwrap();
        assert_eq!(disk.operations() - before, u64::from(operation.changes()), "{operation:?}");
    }
}

#[test]
fn a_full_disk_refuses_what_needs_blocks() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", &[1; 100]);
    let other = durable(&disk, "/other", b"");
    disk.capacity(4 * PAGE as u64);
    assert_eq!(disk.used(), PAGE as u64);
    file.allocate(0, 3 * PAGE as u64).unwrap();
    let full = |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
    full(other.allocate(0, 2 * PAGE as u64));
    assert_eq!(other.len().unwrap(), 0, "a refused allocation has no effect");
    full(other.write_at(&[2; 2 * PAGE], 10));
    assert_eq!(disk.read_file("/other").unwrap().len(), PAGE, "what fits is written");
    full(disk.open(path("/new"), Mode::Create).map(drop));
    full(disk.create_dir(path("/dir")));
    file.write_at(&[3; 3 * PAGE], 0).unwrap();
    assert_eq!(disk.used(), 4 * PAGE as u64);

    let map = file.map(PAGE, false).unwrap();
    disk.remove_file(path("/file")).unwrap();
    drop(file);
    full(other.allocate(0, 2 * PAGE as u64));
    drop(map);
    other.allocate(0, 2 * PAGE as u64).unwrap();
    full(other.allocate(0, 5 * PAGE as u64));
    assert_eq!(disk.crash(Crash::new(1).keep(Keep::Nothing)).used(), PAGE as u64, "the removal was not durable");
    disk.capacity(5 * PAGE as u64);
    other.allocate(0, 5 * PAGE as u64).unwrap();
    other.set_len(1).unwrap();
    assert_eq!(disk.used(), PAGE as u64);
}

#[test]
fn what_would_end_in_a_signal_or_in_changed_bytes_panics() {
    let panics = |run: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(run)).is_err();
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", &[1; 100]);
    let map = Arc::new(file.map(3 * PAGE, true).unwrap());
    assert!(panics(&mut || map.fill(101)), "there is no file there");
    let mut writer = map.writer(100, 3 * PAGE).unwrap();
    assert!(panics(&mut || writer.slot(100, 1).unwrap().fill(0)), "there is no file there");
    file.set_len(2 * PAGE as u64).unwrap();
    writer.slot(100, 100).unwrap();
    assert!(panics(&mut || writer.slot(PAGE, 1).unwrap().fill(0)), "there are no blocks there");
    file.allocate(0, 2 * PAGE as u64).unwrap();
    writer.slot(PAGE, 1).unwrap();
    assert!(panics(&mut || file.write_at(b"x", PAGE as u64).unwrap()), "the writer has a reference");
    writer.publish(PAGE);
    assert!(panics(&mut || file.write_at(b"x", 0).unwrap()), "a reader may have these bytes");
    file.write_at(&[1], 0).unwrap();
    assert!(panics(&mut || file.set_len(PAGE as u64 - 1).unwrap()), "a reader may have these bytes");
    assert!(panics(&mut || writer.publish(4 * PAGE)), "it ends before");
    assert!(panics(&mut || writer.store_length(PAGE + 2, 1)), "not aligned");
    assert!(file.map(3 * PAGE, true).map(Arc::new).unwrap().writer(PAGE, 2 * PAGE).is_none(), "two writers of a file");
    file.set_len(PAGE as u64).unwrap();
    drop((writer, map));
    file.set_len(0).unwrap();
    file.write_at(b"x", 0).unwrap();
}

#[test]
fn a_file_that_grew_by_itself_after_a_crash_has_to_be_allocated_again() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "/file", &[]);
    file.set_len(2 * PAGE as u64).unwrap();
    file.sync().unwrap();
    file.allocate(0, 2 * PAGE as u64).unwrap();
    let used = outcomes(&disk, SimDisk::used);
    assert_eq!(used, BTreeSet::from([0, 2 * PAGE as u64]), "blocks in a hole may be lost");
    file.sync().unwrap();
    assert_eq!(lost(&disk).used(), 2 * PAGE as u64);
    file.allocate(2 * PAGE as u64, 4 * PAGE as u64).unwrap();
    for seed in 0..ALL {
        let after = disk.crash(Crash::new(seed));
        let pages = after.read_file("/file").unwrap().len().div_ceil(PAGE);
        assert_eq!(after.used(), (pages * PAGE) as u64, "a length that was allocated has its blocks");
    }
}

#[test]
fn the_same_seeds_make_the_same_disk() {
    let run = || {
        let disk = SimDisk::new(7);
        let file = durable(&disk, "/file", &vec![1; 50_000]);
        file.write_at(&vec![2; 50_000], 20_000).unwrap();
        disk.open(path("/other"), Mode::Create).unwrap();
        let random = disk.random();
        let after = disk.crash(Crash::new(5));
        (random, after.random(), after.cache_identity(path("/")), after.files(), after.read_file("/file"))
    };
    assert_eq!(run(), run());
    assert_ne!(SimDisk::new(1).random(), SimDisk::new(2).random());
}

#[test]
fn time_is_its_own() {
    let disk = SimDisk::new(1);
    assert_eq!(disk.now(), SimDisk::START);
    disk.advance(Duration::from_secs(5));
    disk.sleep(Duration::from_secs(86_400));
    assert_eq!(disk.now(), SimDisk::START + 86_405_000);
    assert_eq!(disk.kill().now(), disk.now());
    disk.set_now(42);
    assert_eq!(disk.crash(Crash::new(1)).now(), 42);
}

#[test]
fn threads_and_copying_are_switches() {
    let disk = SimDisk::new(1);
    assert!(!disk.spawn("job", Box::new(|| panic!("nobody asked for threads"))).unwrap());
    assert!(disk.overwrites_in_place(path("/")).unwrap());
    let disk = disk.with_threads().copy_on_write().kill();
    assert!(!disk.overwrites_in_place(path("/")).unwrap());
    let (done, waiting) = std::sync::mpsc::channel();
    assert!(disk.spawn("job", Box::new(move || done.send(()).unwrap())).unwrap());
    waiting.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[test]
fn tests_may_look_at_files_and_damage_them() {
    let disk = SimDisk::new(1);
    disk.open(path("/undecided"), Mode::Create).unwrap();
    disk.write_file("/a/b/file", b"abc");
    disk.write_file("other", b"");
    assert_eq!(disk.files(), ["/a/b/file", "/other", "/undecided"].map(PathBuf::from));
    assert_eq!(lost(&disk).files(), ["/a/b/file", "/other"].map(PathBuf::from));
    let file = disk.open(path("a/b/file"), Mode::Write).unwrap();
    let map = file.map(3, false).unwrap();
    map.fill(3);
    disk.write_file("/a/b/file", b"damaged");
    assert_eq!(map.bytes(0..3), Some(&b"abc"[..]));
    assert_eq!(file.len().unwrap(), 7);
    assert_eq!(lost(&disk).read_file("/a/b/file").unwrap(), b"damaged");
    assert_eq!(disk.read_file("/a/b"), None);
    assert_eq!(disk.read_file("/a/../a"), None);
}

#[test]
fn a_file_grows_and_shrinks_as_a_vector_does() {
    let (disk, mut random) = (SimDisk::new(1), Random::new(3));
    let file = durable(&disk, "/file", b"");
    let (mut live, mut synced) = (Vec::new(), Vec::new());
    for round in 0..2000 {
        let (at, len) = (random.below(40_000), random.below(9000));
        match random.below(8) {
            0 => {
                file.set_len(at as u64).unwrap();
                live.resize(at, 0);
            }
            1 => {
                file.allocate(at as u64, (at + len) as u64).unwrap();
                live.resize(live.len().max(if len == 0 { 0 } else { at + len }), 0);
            }
            2 => {
                file.sync().unwrap();
                synced.clone_from(&live);
            }
            _ if len > 0 => {
                let byte = u8::try_from(random.below(256)).unwrap();
                file.write_at(&vec![byte; len], at as u64).unwrap();
                live.resize(live.len().max(at + len), 0);
                live[at..at + len].fill(byte);
            }
            _ => {}
        }
        if round % 20 == 0 {
            assert!(disk.read_file("/file").unwrap() == live);
            assert!(disk.kill().read_file("/file").unwrap() == live);
            assert!(kept(&disk).read_file("/file").unwrap() == live);
            assert!(lost(&disk).read_file("/file").unwrap() == synced);
        }
    }
}
