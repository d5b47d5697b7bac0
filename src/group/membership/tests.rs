//! One case of behaviour each.

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn fenced<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Fenced))
}

/// As if every partition had records without end.
fn begin(group: &mut Group, member: MemberId) -> Option<Fetch> {
    group.begin_fetch(member, |_, _| true)
}

fn poll_until(group: &mut Group, member: MemberId, deadline: Option<Duration>) -> Option<(u32, BatchId)> {
    let fetch = begin(group, member)?;
    let (partition, end) = (fetch.partition, fetch.until.unwrap_or(fetch.from + 10));
    let delivered = group.end_fetch(fetch, Fetched::Records { end, deadline }).unwrap();
    Some((partition, delivered.batch.unwrap()))
}

/// Ten records of a partition, or a dropped range whole.
fn poll(group: &mut Group, member: MemberId) -> Option<(u32, BatchId)> {
    poll_until(group, member, None)
}

/// A group over so many partitions, and one member that owns them all.
fn alone(partitions: usize, mode: Mode) -> (Group, MemberId) {
    let mut group = Group::new(vec![0; partitions]);
    let member = group.join(mode);
    (group, member)
}

#[test]
fn members_share_the_partitions_and_each_change_is_a_generation() {
    let (mut group, first) = alone(4, Mode::AtLeastOnce);
    assert_eq!((group.owned(first), group.generation()), (vec![0, 1, 2, 3], 1));
    let second = group.join(Mode::AtLeastOnce);
    assert_eq!((group.owned(first), group.owned(second), group.generation()), (vec![0, 1], vec![2, 3], 2));
    group.grow(6);
    assert_eq!((group.owned(first), group.owned(second), group.generation()), (vec![0, 1, 4], vec![2, 3, 5], 3));
    assert_eq!(group.position(5), Some(0));
    group.leave(first);
    assert_eq!((group.owned(first), group.owned(second), group.generation()), (vec![], vec![0, 1, 2, 3, 4, 5], 4));
}

#[test]
fn leaving_twice_or_not_growing_changes_nothing() {
    let (mut group, member) = alone(2, Mode::AtLeastOnce);
    group.grow(2);
    group.grow(1);
    assert_eq!((group.partitions(), group.generation()), (2, 1));
    group.leave(member);
    group.leave(member);
    assert_eq!(group.generation(), 2);
}

#[test]
fn a_partition_waits_for_the_batch_in_flight_and_its_owner_gets_nothing_new_of_it() {
    let (mut group, first) = alone(1, Mode::AtLeastOnce);
    let (_, batch) = poll(&mut group, first).unwrap();
    let stays = group.join(Mode::AtLeastOnce);
    group.leave(first);
    assert!(poll(&mut group, stays).is_none(), "the batch outlives its consumer and still counts");
    assert_eq!(group.settle(0, batch).unwrap(), Some(10));
    assert_eq!(group.owned(stays), [0]);
    assert_eq!(begin(&mut group, stays).unwrap().from, 10);
}

#[test]
fn a_member_that_joins_gets_a_partition_when_its_last_batch_is_settled() {
    let (mut group, first) = alone(2, Mode::AtLeastOnce);
    let batches: Vec<_> = (0..4).map(|_| poll(&mut group, first).unwrap()).collect();
    assert_eq!(batches.iter().map(|(partition, _)| *partition).collect::<Vec<_>>(), [0, 1, 0, 1]);
    let second = group.join(Mode::AtLeastOnce);
    assert_eq!((group.owned(first), group.owned(second)), (vec![0, 1], vec![]));
    assert_eq!([poll(&mut group, first), poll(&mut group, first)].map(|polled| polled.unwrap().0), [0, 0]);

    group.settle(1, batches[1].1).unwrap();
    assert!(poll(&mut group, second).is_none());
    group.settle(1, batches[3].1).unwrap();
    assert_eq!((group.owned(first), group.owned(second)), (vec![0], vec![1]));
    assert_eq!(begin(&mut group, second).unwrap().from, 20);
}

#[test]
fn a_batch_dropped_by_its_former_owner_is_delivered_to_the_heir_first() {
    let (mut group, first) = alone(1, Mode::AtLeastOnce);
    let [(_, dropped), (_, settled)] = [(); 2].map(|()| poll(&mut group, first).unwrap());
    let second = group.join(Mode::AtLeastOnce);
    group.leave(first);
    assert_eq!(group.settle(0, settled).unwrap(), None);
    group.drop_batch(0, dropped);
    let fetch = begin(&mut group, second).unwrap();
    assert_eq!((fetch.from, fetch.until), (0, Some(10)));
    let end = group.end_fetch(fetch, Fetched::Records { end: 10, deadline: None }).unwrap();
    assert_eq!(group.settle(0, end.batch.unwrap()).unwrap(), Some(20), "what the former owner settled counts");
}

#[test]
fn a_partition_is_handed_over_when_its_batch_is_past_its_deadline_and_the_late_settlement_is_fenced() {
    let (mut group, first) = alone(1, Mode::AtLeastOnce);
    let (_, late) = poll_until(&mut group, first, Some(NOW)).unwrap();
    let second = group.join(Mode::AtLeastOnce);
    group.leave(first);
    assert_eq!(group.next_deadline(), Some(NOW));
    assert!(!group.expire(NOW.saturating_sub(Duration::from_nanos(1))));
    assert!(group.expire(NOW));
    assert_eq!((group.owned(second), group.next_deadline()), (vec![0], None));
    let (_, again) = poll(&mut group, second).unwrap();

    assert!(fenced(&group.settles_to(0, late)));
    assert!(fenced(&group.commit_begins(0, late)));
    assert!(fenced(&group.settle(0, late)));
    group.drop_batch(0, late);
    assert_eq!((group.floor(0), group.position(0)), (Some(0), Some(10)));
    assert_eq!(group.settle(0, again).unwrap(), Some(10));
}

#[test]
fn a_partition_being_committed_waits_for_the_transaction_whatever_the_deadline() {
    let (mut group, first) = alone(1, Mode::ExactlyOnce);
    let (_, batch) = poll_until(&mut group, first, Some(NOW)).unwrap();
    assert_eq!(group.settles_to(0, batch).unwrap(), Some(10));
    group.commit_begins(0, batch).unwrap();
    let second = group.join(Mode::ExactlyOnce);
    group.leave(first);
    assert_eq!(group.next_deadline(), None);
    assert!(!group.expire(NOW * 2));
    assert!(poll(&mut group, second).is_none());
    assert_eq!(group.settle(0, batch).unwrap(), Some(10));
    assert_eq!(begin(&mut group, second).unwrap().from, 10);
}

#[test]
fn what_was_read_before_a_hand_over_is_not_handed_out() {
    let (mut group, first) = alone(2, Mode::AtLeastOnce);
    let zero = begin(&mut group, first).unwrap();
    let one = begin(&mut group, first).unwrap();
    assert_eq!((zero.partition, one.partition), (0, 1));
    let second = group.join(Mode::AtLeastOnce);
    assert_eq!(group.owned(second), [1], "a read holds no hand-over up");
    assert!(group.is_current(&zero) && !group.is_current(&one));
    assert_eq!(group.end_fetch(one, Fetched::Records { end: 10, deadline: None }), None);
    assert_eq!(group.position(1), Some(0));
    assert!(group.end_fetch(zero, Fetched::Records { end: 10, deadline: None }).is_some());
}

#[test]
fn what_was_read_while_the_partition_waits_for_its_heir_is_not_handed_out() {
    let (mut group, first) = alone(1, Mode::AtLeastOnce);
    let second = group.join(Mode::AtLeastOnce);
    group.leave(first);
    let (_, batch) = poll(&mut group, second).unwrap();
    let read = begin(&mut group, second).unwrap();
    group.leave(second);
    let third = group.join(Mode::AtLeastOnce);
    assert_eq!(group.end_fetch(read, Fetched::Records { end: 20, deadline: None }), None);
    group.drop_batch(0, batch);
    assert_eq!(begin(&mut group, third).unwrap().from, 0);
}

#[test]
fn what_was_read_before_a_partition_went_and_came_back_is_not_handed_out() {
    let (mut group, first) = alone(2, Mode::AtLeastOnce);
    begin(&mut group, first).unwrap();
    let one = begin(&mut group, first).unwrap();
    let second = group.join(Mode::AtLeastOnce);
    group.leave(second);
    assert_eq!(group.owned(first), [0, 1]);
    assert_eq!(group.end_fetch(one, Fetched::Records { end: 10, deadline: None }), None);
}

#[test]
fn a_partition_that_has_not_moved_yet_stays_if_a_new_balance_lets_it() {
    let (mut group, first) = alone(3, Mode::AtLeastOnce);
    let batches: Vec<_> = (0..3).map(|_| poll(&mut group, first).unwrap()).collect();
    let second = group.join(Mode::AtLeastOnce);
    group.grow(5);
    for (partition, batch) in batches {
        group.settle(partition, batch).unwrap();
    }
    assert_eq!((group.owned(first), group.owned(second)), (vec![0, 1, 2], vec![3, 4]));
}

#[test]
fn what_was_read_before_a_seek_or_a_pause_is_not_handed_out() {
    let (mut group, member) = alone(1, Mode::AtLeastOnce);
    let records = |fetch: &Fetch| Fetched::Records { end: fetch.from + 10, deadline: None };
    let read = begin(&mut group, member).unwrap();
    group.seek(member, 0, 50).unwrap();
    let found = records(&read);
    assert_eq!(group.end_fetch(read, found), None);

    let read = begin(&mut group, member).unwrap();
    assert_eq!(read.from, 50);
    group.pause(member, 0).unwrap();
    assert!(begin(&mut group, member).is_none());
    group.resume(member, 0).unwrap();
    let found = records(&read);
    assert_eq!(group.end_fetch(read, found), None);

    let forgotten = begin(&mut group, member).unwrap();
    let read = begin(&mut group, member).unwrap();
    let found = records(&forgotten);
    assert_eq!(group.end_fetch(forgotten, found), None, "a later fetch takes its place");
    let found = records(&read);
    assert!(group.end_fetch(read, found).is_some());
    assert_eq!(group.position(0), Some(60));
}

#[test]
fn a_pause_ends_with_ownership() {
    let (mut group, first) = alone(1, Mode::AtLeastOnce);
    group.pause(first, 0).unwrap();
    group.leave(first);
    let second = group.join(Mode::AtLeastOnce);
    assert!(poll(&mut group, second).is_some());
    assert!(fenced(&group.resume(first, 0)));
}

#[test]
fn a_pause_outlives_a_rebalance_that_leaves_the_partition_where_it_is() {
    let (mut group, first) = alone(2, Mode::AtLeastOnce);
    group.pause(first, 0).unwrap();
    let second = group.join(Mode::AtLeastOnce);
    group.leave(second);
    assert_eq!(group.owned(first), [0, 1]);
    assert_eq!([poll(&mut group, first), poll(&mut group, first)].map(|polled| polled.unwrap().0), [1, 1]);
}

#[test]
fn only_the_owner_seeks_pauses_and_resumes() {
    let (mut group, first) = alone(2, Mode::AtLeastOnce);
    let second = group.join(Mode::AtLeastOnce);
    assert!(group.owns(first, 0) && !group.owns(second, 0));
    assert!(fenced(&group.seek(second, 0, 5)));
    assert!(fenced(&group.pause(second, 0)));
    assert!(fenced(&group.resume(second, 0)));
    assert!(fenced(&group.seek(first, 2, 5)), "no such partition");
    assert_eq!(group.position(0), Some(0));
}

#[test]
fn partitions_take_turns_and_those_with_nothing_to_read_are_left_out() {
    let (mut group, member) = alone(3, Mode::AtLeastOnce);
    let turns: Vec<u32> = (0..7).map(|_| poll(&mut group, member).unwrap().0).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
    let only = |wanted: u32| move |partition: u32, _: u64| partition == wanted;
    assert_eq!(group.begin_fetch(member, only(2)).unwrap().partition, 2);
    assert_eq!(group.begin_fetch(member, only(2)).unwrap().partition, 2);
    assert!(group.begin_fetch(member, |_, _| false).is_none());
}

#[test]
fn a_dropped_batch_comes_before_anything_new_of_any_partition() {
    let (mut group, member) = alone(3, Mode::AtLeastOnce);
    let batches: Vec<_> = (0..3).map(|_| poll(&mut group, member).unwrap()).collect();
    for (partition, batch) in [batches[2], batches[1]] {
        group.drop_batch(partition, batch);
    }
    let turns: Vec<u32> = (0..4).map(|_| poll(&mut group, member).unwrap().0).collect();
    assert_eq!(turns, [1, 2, 0, 1]);
}

#[test]
fn exactly_once_has_one_batch_in_flight_for_each_partition() {
    for mode in [Mode::ExactlyOnce, Mode::ExactlyOnceFrom] {
        let (mut group, member) = alone(2, mode);
        let (first, batch) = poll(&mut group, member).unwrap();
        let (second, _) = poll(&mut group, member).unwrap();
        assert_eq!((first, second), (0, 1));
        assert!(begin(&mut group, member).is_none());
        group.settle(first, batch).unwrap();
        assert_eq!(poll(&mut group, member).unwrap().0, 0);
    }
}

#[test]
fn a_seek_fences_what_is_in_flight_exactly_once_and_lets_it_count_at_least_once() {
    let (mut group, member) = alone(1, Mode::ExactlyOnce);
    let (_, batch) = poll(&mut group, member).unwrap();
    group.seek(member, 0, 5).unwrap();
    assert!(fenced(&group.settle(0, batch)));
    assert_eq!(begin(&mut group, member).unwrap().from, 5);

    let (mut group, member) = alone(1, Mode::AtLeastOnce);
    let (_, batch) = poll(&mut group, member).unwrap();
    group.seek(member, 0, 5).unwrap();
    assert_eq!(group.settle(0, batch).unwrap(), Some(10));
    assert_eq!(begin(&mut group, member).unwrap().from, 5);
}

#[test]
fn a_seek_that_fences_the_last_batch_hands_the_partition_over() {
    let (mut group, first) = alone(2, Mode::ExactlyOnce);
    for _ in 0..2 {
        poll(&mut group, first).unwrap();
    }
    let second = group.join(Mode::ExactlyOnce);
    assert_eq!(group.owned(second), Vec::<u32>::new());
    group.seek(first, 1, 7).unwrap();
    assert_eq!(group.owned(second), [1]);
    assert_eq!(begin(&mut group, second).unwrap().from, 7);
}

#[test]
fn at_most_once_settles_before_handing_out_and_has_nothing_in_flight() {
    let (mut group, member) = alone(1, Mode::AtMostOnce);
    let fetch = begin(&mut group, member).unwrap();
    let delivered = group.end_fetch(fetch, Fetched::Records { end: 10, deadline: Some(NOW) });
    assert_eq!(delivered, Some(Delivered { batch: None, floor: Some(10) }));
    assert_eq!((group.active(), group.next_deadline()), (1, None));
    group.leave(member);
    assert!(group.is_empty());
}

#[test]
fn a_range_without_records_is_passed_over() {
    let (mut group, member) = alone(1, Mode::AtLeastOnce);
    let fetch = begin(&mut group, member).unwrap();
    let delivered = group.end_fetch(fetch, Fetched::Gap { end: 30 });
    assert_eq!(delivered, Some(Delivered { batch: None, floor: Some(30) }));
    assert_eq!(begin(&mut group, member).unwrap().from, 30);
}

#[test]
fn batches_of_departed_members_keep_the_group_active() {
    let (mut group, member) = alone(2, Mode::AtLeastOnce);
    let [(_, first), (_, second)] = [(); 2].map(|()| poll(&mut group, member).unwrap());
    assert_eq!(group.active(), 3);
    group.leave(member);
    assert_eq!((group.active(), group.is_empty()), (2, false));
    assert_eq!(group.settle(0, first).unwrap(), Some(10));
    group.drop_batch(1, second);
    assert_eq!((group.active(), group.is_empty()), (0, true));
}

#[test]
fn the_applications_position_is_asked_for_at_assignment_and_after_a_dropped_batch() {
    let (mut group, member) = alone(1, Mode::ExactlyOnceFrom);
    let unanswered =
        group.begin_fetch(member, |_, _| false).expect("the position is not known, so it may have records");
    assert!(unanswered.load);
    let fetch = begin(&mut group, member).unwrap();
    assert!(fetch.load, "the application failed to answer, and is asked again");
    let fetch = group.loaded(fetch, 40).unwrap();
    assert_eq!((fetch.from, fetch.until, fetch.load), (40, None, false));
    let delivered = group.end_fetch(fetch, Fetched::Records { end: 50, deadline: Some(NOW) }).unwrap();
    assert_eq!(group.settle(0, delivered.batch.unwrap()).unwrap(), Some(50));
    assert!(!begin(&mut group, member).unwrap().load);

    let (_, dropped) = poll(&mut group, member).unwrap();
    group.drop_batch(0, dropped);
    let fetch = begin(&mut group, member).unwrap();
    assert!(fetch.load);
    assert_eq!(group.loaded(fetch, 60).unwrap().from, 60, "the application's answer wins over what was dropped");
    poll_until(&mut group, member, Some(NOW)).unwrap();
    group.expire(NOW);
    let fetch = begin(&mut group, member).unwrap();
    assert!(fetch.load);
    group.loaded(fetch, 60).unwrap();
    let second = group.join(Mode::ExactlyOnceFrom);
    group.leave(member);
    assert!(begin(&mut group, second).unwrap().load);
}

#[test]
fn the_applications_position_is_not_taken_for_a_partition_that_has_moved_on() {
    let (mut group, member) = alone(1, Mode::ExactlyOnceFrom);
    let fetch = begin(&mut group, member).unwrap();
    group.seek(member, 0, 5).unwrap();
    assert!(group.loaded(fetch, 40).is_none());
    let fetch = begin(&mut group, member).unwrap();
    assert_eq!((fetch.from, fetch.load), (5, false), "who seeks after the assignment means it");
}

/// Of these records of partition 0, with their keys, those that may be given now.
fn poll_by_key(group: &mut Group, member: MemberId, records: &[(u64, u64)]) -> Option<(Vec<u64>, Option<BatchId>)> {
    let end = records.last().map_or(0, |(offset, _)| offset + 1);
    let mut fetch = group.begin_fetch(member, |_, from| from != end)?;
    let mut picker = super::super::keyed::Picker::new(*fetch.sight.take().unwrap(), 1);
    let taken = records.iter().filter(|(offset, key)| picker.offer(*offset, Some(*key))).map(|it| it.0).collect();
    let fetched = Fetched::Picked { picked: Box::new(picker.finish(end)), deadline: None };
    let delivered = group.end_fetch(fetch, fetched).unwrap();
    Some((taken, delivered.batch))
}

#[test]
fn records_of_a_key_in_flight_wait_and_are_not_looked_for_until_something_has_changed() {
    let mut group = Group::new([0]);
    let member = group.join(Terms { by_key: true, ..Mode::AtLeastOnce.into() });
    let mut records = vec![(0, 7), (1, 7), (2, 8)];
    let (taken, first) = poll_by_key(&mut group, member, &records).unwrap();
    assert_eq!(taken, [0]);
    let (taken, other) = poll_by_key(&mut group, member, &records).unwrap();
    assert_eq!(taken, [2]);
    assert_eq!(poll_by_key(&mut group, member, &records), Some((vec![], None)));
    assert!(poll_by_key(&mut group, member, &records).is_none(), "it is known that all have to wait");
    assert_eq!(group.settle(0, other.unwrap()).unwrap(), None);
    assert_eq!(poll_by_key(&mut group, member, &records), Some((vec![], None)));

    records.push((3, 9));
    let (taken, _) = poll_by_key(&mut group, member, &records).expect("there is more");
    assert_eq!(taken, [3]);
    assert_eq!(poll_by_key(&mut group, member, &records), Some((vec![], None)));
    assert_eq!(group.settle(0, first.unwrap()).unwrap(), Some(1));
    let (taken, second) = poll_by_key(&mut group, member, &records).unwrap();
    assert_eq!(taken, [1]);
    assert_eq!(group.settle(0, second.unwrap()).unwrap(), Some(3));
}

#[test]
fn what_waits_for_its_key_does_not_keep_other_partitions_from_their_turn() {
    let mut group = Group::new([0, 0]);
    let member = group.join(Terms { by_key: true, ..Mode::AtLeastOnce.into() });
    let mut served = Vec::new();
    for _ in 0..6 {
        let mut fetch = begin(&mut group, member).unwrap();
        // Of every second record the key is in flight.
        let mut picker = super::super::keyed::Picker::new(*fetch.sight.take().unwrap(), 1);
        let taken = (0..100).find(|at| picker.offer(*at, Some(if at % 2 == 0 { 0 } else { *at }))).unwrap();
        served.push((fetch.partition, taken));
        let fetched = Fetched::Picked { picked: Box::new(picker.finish(100)), deadline: None };
        group.end_fetch(fetch, fetched).unwrap();
    }
    assert_eq!(served, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 3), (1, 3)]);
}

#[test]
fn no_more_is_in_flight_than_the_member_asked_for() {
    let mut group = Group::new([0, 0]);
    let member = group.join(Terms { max_in_flight: 2, ..Mode::AtLeastOnce.into() });
    let first = poll(&mut group, member).unwrap();
    let second = poll(&mut group, member).unwrap();
    assert_eq!((first.0, second.0), (0, 1), "of all its partitions together");
    assert!(poll(&mut group, member).is_none());
    group.drop_batch(second.0, second.1);
    assert!(poll(&mut group, member).is_some());
    assert!(poll(&mut group, member).is_none());
    group.settle(first.0, first.1).unwrap();
    assert!(poll(&mut group, member).is_some());
}

#[test]
fn what_became_free_while_it_was_looked_for_is_looked_for_again() {
    let mut group = Group::new([0]);
    let member = group.join(Terms { by_key: true, ..Mode::AtLeastOnce.into() });
    let records = [(0, 7), (1, 7)];
    let (_, first) = poll_by_key(&mut group, member, &records).unwrap();
    let mut fetch = group.begin_fetch(member, |_, _| true).unwrap();
    let mut picker = super::super::keyed::Picker::new(*fetch.sight.take().unwrap(), 1);
    assert!(!picker.offer(1, Some(7)));
    group.settle(0, first.unwrap()).unwrap();
    let fetched = Fetched::Picked { picked: Box::new(picker.finish(2)), deadline: None };
    assert_eq!(group.end_fetch(fetch, fetched).unwrap().batch, None);
    assert_eq!(poll_by_key(&mut group, member, &records).unwrap().0, [1]);
}
