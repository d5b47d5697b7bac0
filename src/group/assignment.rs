//! Who reads which partition: a pure function of the members, what they hold, and the number of partitions.
//!
//! Shares differ by at most one, and members that stay keep what they can. *(The aim is that of Kafka's sticky
//! assignor; with all partitions of one log alike, it takes two passes.)*

use std::collections::{BTreeMap, BTreeSet};

/// A member's number; members that joined later have larger ones.
pub(crate) type MemberId = u64;

/// The owner of every partition, by its number; empty when there are no members.
///
/// `held` says what each member has now; what it has of partitions that others have too counts for the first of them.
pub(crate) fn assign(held: &BTreeMap<MemberId, BTreeSet<u32>>, partitions: u32) -> Vec<MemberId> {
    if held.is_empty() {
        return Vec::new();
    }
    let members = held.len();
    let count = usize::try_from(partitions).unwrap_or(usize::MAX);
    let (share, extra) = (count / members, count % members);
    let mut owners: Vec<Option<MemberId>> = vec![None; count];
    // Who holds most gets the larger shares, so that fewest partitions move.
    let mut order: Vec<(&MemberId, &BTreeSet<u32>)> = held.iter().collect();
    order.sort_by_key(|(id, holds)| (std::cmp::Reverse(holds.len()), **id));
    let mut open: Vec<(MemberId, usize)> = Vec::new();
    for (at, (id, holds)) in order.into_iter().enumerate() {
        let quota = share + usize::from(at < extra);
        let mut kept = 0;
        for partition in holds {
            let slot = usize::try_from(*partition).ok().and_then(|at| owners.get_mut(at));
            if let Some(slot) = slot.filter(|slot| kept < quota && slot.is_none()) {
                *slot = Some(*id);
                kept += 1;
            }
        }
        open.push((*id, quota - kept));
    }
    open.sort_unstable();
    let mut takers = open.iter().flat_map(|(id, wants)| std::iter::repeat_n(*id, *wants));
    // Quotas add up to the number of partitions, so that there is a taker for each that is free.
    owners.into_iter().filter_map(|owner| owner.or_else(|| takers.next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(owners: &[MemberId]) -> BTreeMap<MemberId, BTreeSet<u32>> {
        let mut shares: BTreeMap<MemberId, BTreeSet<u32>> = BTreeMap::new();
        for (partition, owner) in (0_u32..).zip(owners) {
            shares.entry(*owner).or_default().insert(partition);
        }
        shares
    }

    proptest! {
        #[test]
        fn shares_differ_by_at_most_one_and_those_who_stay_keep_what_they_can(
            joins in prop::collection::vec((any::<bool>(), 0_usize..8), 1..20),
            partitions in 1_u32..40,
        ) {
            let mut held: BTreeMap<MemberId, BTreeSet<u32>> = BTreeMap::new();
            for (next, (joins, at)) in joins.into_iter().enumerate() {
                if joins || held.len() < 2 {
                    held.insert(next as u64, BTreeSet::new());
                } else {
                    let id = *held.keys().nth(at % held.len()).unwrap();
                    held.remove(&id);
                }
                let owners = assign(&held, partitions);
                prop_assert_eq!(&owners, &assign(&held, partitions), "the same for the same input");
                prop_assert_eq!(owners.len(), partitions as usize);
                let after = shares(&owners);
                let counts: Vec<usize> = held.keys().map(|id| after.get(id).map_or(0, BTreeSet::len)).collect();
                let (least, most) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
                prop_assert!(most - least <= 1, "{:?}", counts);
                // No member both loses a partition and is given another.
                for (id, before) in &held {
                    let now = after.get(id).cloned().unwrap_or_default();
                    let lost = before.difference(&now).count();
                    let gained = now.difference(before).count();
                    prop_assert!(lost == 0 || gained == 0, "member {} lost {} and gained {}", id, lost, gained);
                }
                held = held.into_keys().map(|id| (id, after.get(&id).cloned().unwrap_or_default())).collect();
            }
        }
    }
}
