//! How long a sync is held back, so that more can share it.
//!
//! Those whose records a sync covered mostly come back at once with their next. A sync that begins before they are here
//! leaves them to the one after it, and half of all threads always wait for the other half. So the next sync waits for
//! as many as there were before: for as long as a sync takes, counted from its end, since then it would have been better
//! not to wait; and ever more rarely where it was in vain. A thread that has been alone for that long never waits. *(The
//! idea: `commit_siblings` and `commit_delay` of `PostgreSQL`; here both are learned from the syncs before.)*

use std::time::Duration;

/// However slow the disk is: who comes back at once is here by then.
const LONGEST: Duration = Duration::from_millis(1);

/// After so many waits in vain they do not get any rarer: one sync of 64 is held back.
const MOST_IN_VAIN: u32 = 6;

/// Who is waited for before the next sync begins.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    awaited: u32,
    missing: u32,
    patience: Duration,
    /// How often in a row less than half of the awaited came in time.
    in_vain: u32,
    /// So many syncs are not held back.
    pause: u32,
}

impl Gathering {
    /// A sync has ended that took so long: `covered` threads, its leader included, are expected back, beside those who
    /// wait for the next sync already.
    pub(super) fn ended(&mut self, covered: u32, waiting: u32, took: Duration) {
        self.awaited = if covered + waiting > 1 { covered } else { 0 };
        if self.awaited > 0 && self.pause > 0 {
            self.pause -= 1;
            self.awaited = 0;
        }
        self.missing = self.awaited;
        self.patience = took.min(LONGEST);
    }

    /// One more is here.
    pub(super) fn came(&mut self) {
        self.missing = self.missing.saturating_sub(1);
    }

    /// How long those who are missing may still be waited for, `since` the last sync ended; `None` when all are here,
    /// or it has been long enough.
    pub(super) fn patience(&self, since: impl FnOnce() -> Duration) -> Option<Duration> {
        if self.missing == 0 {
            return None;
        }
        self.patience.checked_sub(since()).filter(|left| !left.is_zero())
    }

    /// The next sync begins.
    pub(super) fn begins(&mut self) {
        if self.missing > self.awaited / 2 {
            self.in_vain = (self.in_vain + 1).min(MOST_IN_VAIN);
            self.pause = (1 << self.in_vain) - 1;
        } else if self.awaited > 0 {
            self.in_vain = 0;
        }
        (self.awaited, self.missing) = (0, 0);
    }
}

#[cfg(test)]
impl Gathering {
    /// So many are awaited for so long.
    pub(super) fn of(awaited: u32, patience: Duration) -> Self {
        Self { awaited, missing: awaited, patience, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_micros(100);

    fn at_once() -> Duration {
        Duration::ZERO
    }

    #[test]
    fn a_thread_that_is_alone_never_waits() {
        let mut gathering = Gathering::default();
        for _ in 0..3 {
            gathering.ended(1, 0, TOOK);
            assert_eq!(gathering.patience(at_once), None);
            gathering.begins();
        }
    }

    #[test]
    fn as_many_as_were_covered_are_waited_for() {
        let mut gathering = Gathering::default();
        gathering.ended(1, 1, TOOK);
        assert_eq!(gathering.patience(at_once), Some(TOOK), "the leader may come back while another waits");
        gathering.ended(3, 1, TOOK);
        for _ in 0..3 {
            assert_eq!(gathering.patience(at_once), Some(TOOK));
            gathering.came();
        }
        assert_eq!(gathering.patience(at_once), None);
        gathering.came();
        gathering.begins();
        assert_eq!(gathering.patience(at_once), None);
    }

    #[test]
    fn who_comes_later_does_not_wait_for_those_who_did_not_come_back() {
        let mut gathering = Gathering::default();
        gathering.ended(4, 0, TOOK);
        assert_eq!(gathering.patience(|| TOOK / 4), Some(TOOK / 4 * 3));
        assert_eq!(gathering.patience(|| TOOK), None);
        assert_eq!(gathering.patience(|| Duration::from_secs(10)), None);
    }

    #[test]
    fn a_slow_disk_does_not_make_it_wait_as_long() {
        let mut gathering = Gathering::default();
        gathering.ended(2, 0, Duration::from_secs(1));
        assert_eq!(gathering.patience(at_once), Some(LONGEST));
    }

    #[test]
    fn what_is_in_vain_becomes_rare_and_comes_back_when_it_pays() {
        let mut gathering = Gathering::default();
        let mut next = |came: u32| {
            gathering.ended(4, 0, TOOK);
            let held_back = gathering.patience(at_once).is_some();
            (0..came).for_each(|_| gathering.came());
            gathering.begins();
            held_back
        };
        let held_back = (0..1000).filter(|_| next(1)).count();
        assert!((10..30).contains(&held_back), "{held_back} of 1000 syncs were held back");
        let pays = (0..1000).filter(|_| next(2)).count();
        assert!(pays > 900, "only {pays} of 1000");
    }
}
