//! A set of partitions, gone through in turn.

/// Numbers of partitions, lowest first. Looked at with every poll, and changed rarely.
#[derive(Debug, Default)]
pub(super) struct Partitions(Vec<u32>);

impl Partitions {
    #[inline]
    pub(super) fn as_slice(&self) -> &[u32] {
        &self.0
    }

    pub(super) fn insert(&mut self, partition: u32) {
        if let Err(at) = self.0.binary_search(&partition) {
            self.0.insert(at, partition);
        }
    }

    pub(super) fn remove(&mut self, partition: u32) {
        if let Ok(at) = self.0.binary_search(&partition) {
            self.0.remove(at);
        }
    }

    /// Has it in the set, or not.
    #[inline]
    pub(super) fn keep(&mut self, partition: u32, wanted: bool) {
        if wanted {
            self.insert(partition);
        } else {
            self.remove(partition);
        }
    }

    /// Those that follow the last one, then the others up to and including it.
    #[inline]
    pub(super) fn in_turn(&self, last: Option<u32>) -> impl Iterator<Item = u32> {
        let after = last.map_or(0, |last| self.0.partition_point(|partition| *partition <= last));
        let (others, following) = self.0.split_at_checked(after).unwrap_or_default();
        following.iter().chain(others).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn() {
        let mut partitions = Partitions::default();
        for partition in [5, 1, 3, 3] {
            partitions.insert(partition);
        }
        partitions.keep(4, true);
        partitions.keep(4, false);
        partitions.remove(9);
        assert_eq!(partitions.as_slice(), [1, 3, 5]);
        let turn = |last| partitions.in_turn(last).collect::<Vec<_>>();
        assert_eq!(turn(None), [1, 3, 5]);
        assert_eq!(turn(Some(0)), [1, 3, 5]);
        assert_eq!(turn(Some(1)), [3, 5, 1]);
        assert_eq!(turn(Some(4)), [5, 1, 3]);
        assert_eq!(turn(Some(5)), [1, 3, 5]);
    }
}
