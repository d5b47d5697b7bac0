//! The producers of one log by their names. There may be a million: a hash table that keeps them tight, in a list in the
//! order in which they came, with all names in one piece.

use std::hash::{BuildHasher, RandomState};

use crate::placemarks::catalog::Named;
use crate::types::ProducerId;

#[derive(Debug, Default)]
pub(super) struct Producers {
    entries: Vec<Entry>,
    /// All names, one behind the other. One that is removed leaves its bytes: producers go with their log, all of them.
    names: String,
    /// Where each is in the list, by its hash: open addressing with linear probing. None, or a power of two.
    slots: Vec<Slot>,
    /// Slots that are not free.
    used: usize,
    /// Names may come from elsewhere than the application, and no one is to know which of them meet. What is seen from
    /// outside goes by the list, whose order does not depend on it.
    hasher: RandomState,
}

#[derive(Debug)]
struct Entry {
    named: Named<ProducerId>,
    /// Where its name begins.
    begin: usize,
    len: u32,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    place: u32,
}

/// What a slot has for a place where nothing is, or is any more: never one in the list, since each producer has a number
/// of its own, in 32 bits and from 1.
const FREE: u32 = u32::MAX;
const REMOVED: u32 = u32::MAX - 1;

impl Producers {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In the order in which they came, unless one was removed.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| self.name(entry))
    }

    /// The offsets of their newest records.
    pub(super) fn records(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| entry.named.record)
    }

    pub(super) fn get(&self, name: &str) -> Option<Named<ProducerId>> {
        let (_, slot) = self.find(name, self.hash(name))?;
        self.entries.get(slot.place as usize).map(|entry| entry.named)
    }

    /// Gives a name a number, and notes where that stands.
    pub(super) fn set(&mut self, name: &str, named: Named<ProducerId>) {
        let hash = self.hash(name);
        match self.find(name, hash) {
            None => self.add(name, hash, named),
            Some((_, slot)) => {
                if let Some(entry) = self.entries.get_mut(slot.place as usize) {
                    entry.named = named;
                }
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        let Some((at, Slot { place, .. })) = self.find(name, self.hash(name)) else { return };
        self.put(at, REMOVED);
        self.entries.swap_remove(place as usize);
        // The last of the list has taken its place.
        if let Some(moved) = self.entries.get(place as usize) {
            let from = small(self.entries.len());
            let found = self.probe(self.hash(self.name(moved))).find(|(_, slot)| slot.place == from);
            if let Some((at, _)) = found {
                self.put(at, place);
            }
        }
    }

    fn add(&mut self, name: &str, hash: u32, named: Named<ProducerId>) {
        if self.used >= self.slots.len() / 4 * 3 {
            self.grow();
        }
        let place = small(self.entries.len());
        self.entries.push(Entry { named, begin: self.names.len(), len: small(name.len()) });
        self.names.push_str(name);
        self.take_slot(Slot { hash, place });
    }

    /// Makes twice as many slots as there are entries, or more.
    fn grow(&mut self) {
        let len = (self.entries.len() * 2).next_power_of_two().max(8);
        let before = std::mem::replace(&mut self.slots, vec![Slot { hash: 0, place: FREE }; len]);
        self.used = 0;
        for slot in before.into_iter().filter(|slot| slot.place < REMOVED) {
            self.take_slot(slot);
        }
    }

    fn take_slot(&mut self, slot: Slot) {
        let free = self.probe(slot.hash).find(|(_, slot)| slot.place == FREE);
        if let Some(free) = free.and_then(|(at, _)| self.slots.get_mut(at)) {
            *free = slot;
            self.used += 1;
        }
    }

    fn put(&mut self, at: usize, place: u32) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.place = place;
        }
    }

    /// The slot of a name, and which it is.
    fn find(&self, name: &str, hash: u32) -> Option<(usize, Slot)> {
        let is_it = |slot: &Slot| {
            let entry = self.entries.get(slot.place as usize).filter(|_| slot.hash == hash);
            entry.is_some_and(|entry| self.name(entry) == name)
        };
        let found = self.probe(hash).find(|(_, slot)| slot.place == FREE || is_it(slot));
        found.filter(|(_, slot)| slot.place != FREE)
    }

    /// The slots where a name with this hash may be, up to a free one.
    fn probe(&self, hash: u32) -> impl Iterator<Item = (usize, Slot)> {
        let mask = self.slots.len().wrapping_sub(1);
        let slots = (0..self.slots.len()).map(move |step| (hash as usize).wrapping_add(step) & mask);
        slots.filter_map(|at| self.slots.get(at).map(|slot| (at, *slot)))
    }

    fn hash(&self, name: &str) -> u32 {
        let [a, b, c, d, ..] = self.hasher.hash_one(name).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    fn name(&self, entry: &Entry) -> &str {
        self.names.get(entry.begin..entry.begin + entry.len as usize).unwrap_or_default()
    }
}

/// Lengths of names and of lists of producers fit in 32 bits.
fn small(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(FREE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn named(number: u32) -> Named<ProducerId> {
        Named { id: ProducerId { number, epoch: 1 }, record: u64::from(number) * 3 }
    }

    #[test]
    fn names_are_found_set_and_removed_as_in_a_map() {
        let (mut producers, mut model) = (Producers::default(), BTreeMap::new());
        let mut random = 1_u32;
        for step in 1..20_000_u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let name = format!("{}-{}", "device".repeat((random >> 28) as usize), (random >> 8) % 300);
            // More are added, then more removed, down to none.
            if (random >> 4) % 8 < if step / 2000 % 2 == 0 { 6 } else { 1 } {
                producers.set(&name, named(step));
                model.insert(name, step);
            } else {
                producers.remove(&name);
                model.remove(&name);
            }
            if step % 500 == 0 {
                let mut names: Vec<_> = producers.names().map(str::to_owned).collect();
                names.sort();
                assert_eq!(names, model.keys().cloned().collect::<Vec<_>>());
            }
            assert_eq!(producers.is_empty(), model.is_empty());
        }
        for (name, step) in &model {
            let found = producers.get(name).unwrap();
            assert_eq!((found.id, found.record), (named(*step).id, named(*step).record));
        }
        let mut records: Vec<u64> = producers.records().collect();
        records.sort_unstable();
        let mut expected: Vec<u64> = model.values().map(|step| named(*step).record).collect();
        expected.sort_unstable();
        assert_eq!(records, expected);
        for name in model.keys() {
            producers.remove(name);
            assert!(producers.get(name).is_none());
        }
        assert!(producers.is_empty() && producers.get("device-1").is_none());
    }

    #[test]
    fn the_order_of_names_is_the_one_in_which_they_came() {
        let names: Vec<String> = (0..1000).map(|number| format!("device-{}", number * 7919 % 1000)).collect();
        let mut producers = Producers::default();
        for (number, name) in (1..).zip(&names) {
            producers.set(name, named(number));
        }
        producers.set(&names[10], named(2000));
        assert!(producers.names().eq(names.iter().map(String::as_str)));
    }
}
