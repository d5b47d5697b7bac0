//! Who is to own which partition.
//!
//! The idea is that of Kafka's sticky assignor: balance first, then as few moves as balance allows. With `p` partitions
//! and `n` members everyone gets `p / n`, and `p % n` of them one more. Those who hold more than their share already
//! come first for the extra ones, since each of them keeps a partition by it and nobody else would; what is held
//! beyond the share so found has to move, whoever gets it.

use std::collections::{BTreeMap, VecDeque};

use super::MemberId;

/// The owner each partition is to have, `None` for all of them when there are no members.
///
/// `members` stand in the order in which they joined, `held` says for each partition who has it now. Holders that are
/// not among the members count as none. The same input always gives the same answer.
pub(crate) fn assign(members: &[MemberId], held: &[Option<MemberId>]) -> Vec<Option<MemberId>> {
    let mut room = shares(members, held);
    let mut assigned: Vec<Option<MemberId>> =
        held.iter().map(|holder| holder.filter(|member| room.get_mut(member).is_some_and(take_one))).collect();

    let mut takers: VecDeque<(MemberId, usize)> =
        members.iter().map(|member| (*member, room.get(member).copied().unwrap_or(0))).collect();
    for free in assigned.iter_mut().filter(|owner| owner.is_none()) {
        while let Some((member, mut left)) = takers.pop_front() {
            if take_one(&mut left) {
                *free = Some(member);
                takers.push_back((member, left));
                break;
            }
        }
    }
    debug_assert!(members.is_empty() || assigned.iter().all(Option::is_some), "the shares add up to the partitions");
    assigned
}

/// How many partitions each member is to have.
fn shares(members: &[MemberId], held: &[Option<MemberId>]) -> BTreeMap<MemberId, usize> {
    let (Some(least), Some(mut extra)) = (held.len().checked_div(members.len()), held.len().checked_rem(members.len()))
    else {
        return BTreeMap::new();
    };
    let mut holding: BTreeMap<MemberId, usize> = members.iter().map(|member| (*member, 0)).collect();
    for holder in held.iter().flatten() {
        if let Some(count) = holding.get_mut(holder) {
            *count += 1;
        }
    }
    let holds_more = |member: &&MemberId| holding.get(*member).is_some_and(|count| *count > least);
    let (over, rest): (Vec<&MemberId>, Vec<&MemberId>) = members.iter().partition(holds_more);
    over.into_iter().chain(rest).map(|member| (*member, least + usize::from(take_one(&mut extra)))).collect()
}

fn take_one(left: &mut usize) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(number: u64) -> MemberId {
        MemberId(number)
    }

    fn count(assigned: &[Option<MemberId>], of: MemberId) -> usize {
        assigned.iter().filter(|owner| **owner == Some(of)).count()
    }

    /// The most that can stay where it is under any balanced assignment: every choice of who gets one more is tried.
    fn most_kept(members: &[MemberId], held: &[Option<MemberId>]) -> usize {
        let (least, extra) = (held.len() / members.len(), held.len() % members.len());
        (0..1u32 << members.len())
            .filter(|chosen| chosen.count_ones() as usize == extra)
            .map(|chosen| {
                let share = |place: usize| least + (chosen >> place & 1) as usize;
                members.iter().enumerate().map(|(place, id)| count(held, *id).min(share(place))).sum()
            })
            .max()
            .unwrap()
    }

    /// Members 0.. in join order, some of the holders (7 and above) already gone.
    fn groups() -> impl Strategy<Value = (Vec<MemberId>, Vec<Option<MemberId>>)> {
        let held = prop::collection::vec(prop::option::weighted(0.8, (0..9u64).prop_map(member)), 0..30);
        ((1..7u64).prop_map(|members| (0..members).map(member).collect()), held)
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_and_shares_differ_by_at_most_one((members, held) in groups()) {
            let assigned = assign(&members, &held);
            prop_assert_eq!(assigned.len(), held.len());
            prop_assert!(assigned.iter().all(|owner| owner.is_some_and(|owner| members.contains(&owner))));
            let counts: Vec<usize> = members.iter().map(|id| count(&assigned, *id)).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
        }

        #[test]
        fn as_few_partitions_move_as_balance_allows((members, held) in groups()) {
            let assigned = assign(&members, &held);
            let kept = held.iter().zip(&assigned).filter(|(now, then)| now.is_some() && now == then).count();
            prop_assert_eq!(kept, most_kept(&members, &held));
        }

        #[test]
        fn the_same_input_gives_the_same_answer_and_an_assignment_is_final((members, held) in groups()) {
            let assigned = assign(&members, &held);
            prop_assert_eq!(&assign(&members, &held), &assigned);
            prop_assert_eq!(&assign(&members, &assigned), &assigned);
        }
    }

    #[test]
    fn nobody_owns_anything_without_members() {
        assert_eq!(assign(&[], &[Some(member(1)), None]), [None, None]);
        assert_eq!(assign(&[member(1)], &[]), []);
    }

    #[test]
    fn a_member_that_joins_takes_its_share_and_no_more() {
        let (a, b) = (Some(member(0)), Some(member(1)));
        assert_eq!(assign(&[member(0), member(1)], &[a, a, a, a, a]), [a, a, a, b, b]);
    }

    #[test]
    fn more_members_than_partitions_leave_the_last_ones_without() {
        let (a, b) = (Some(member(0)), Some(member(1)));
        assert_eq!(assign(&[member(0), member(1), member(2)], &[None, None]), [a, b]);
        assert_eq!(assign(&[member(0), member(1), member(2)], &[b, b]), [b, a]);
    }
}
