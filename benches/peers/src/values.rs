//! The records that are written, and what is held against them when they are read back.
//!
//! They cannot be compressed, and the first of them come again only after more than what a compressor looks back on.

use std::time::Instant;

/// Values of one length, in an endless cycle.
#[derive(Debug)]
pub(crate) struct Values {
    bytes: Vec<u8>,
    len: usize,
    at: usize,
}

impl Values {
    pub(crate) fn new(len: usize) -> Self {
        // Batches of 1000 small records, or of 256 large ones, divide the cycle.
        let cycle = if len < 1000 { 2000 } else { 256 };
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        Self { bytes: words.flatten().take(cycle * len).collect(), len, at: 0 }
    }

    /// The first value again and again.
    pub(crate) fn same(len: usize) -> Self {
        let mut values = Self::new(len);
        values.bytes.truncate(len);
        values
    }

    #[inline]
    pub(crate) fn next(&mut self) -> &[u8] {
        if self.at == self.bytes.len() {
            self.at = 0;
        }
        let begin = self.at;
        self.at += self.len;
        &self.bytes[begin..self.at]
    }

    pub(crate) fn skip(&mut self, count: u64) {
        for _ in 0..count {
            self.next();
        }
    }

    /// The whole cycle in batches.
    pub(crate) fn batches(&self, size: usize) -> Vec<Vec<&[u8]>> {
        let values: Vec<&[u8]> = self.bytes.chunks_exact(self.len).collect();
        values.chunks_exact(size).map(<[_]>::to_vec).collect()
    }
}

/// What was read back: how many records, and a sum over them that depends on their contents and order.
#[derive(Debug)]
pub(crate) struct Seen {
    count: u64,
    sum: u64,
    /// When to look again whether it is enough.
    check: u64,
    most: u64,
    until: Option<Instant>,
    exact: Option<Exact>,
}

/// Every byte is compared.
#[derive(Debug)]
struct Exact {
    values: Values,
    wrong: Option<u64>,
}

/// Records between two looks at the clock.
const STRIDE: u64 = 16;

impl Seen {
    /// Until `most` have been seen.
    pub(crate) fn up_to(most: u64) -> Self {
        Self { count: 0, sum: 0, check: most, most, until: None, exact: None }
    }

    /// Until `most` have been seen or the time has come.
    pub(crate) fn until(time: Instant, most: u64) -> Self {
        Self { check: STRIDE.min(most), until: Some(time), ..Self::up_to(most) }
    }

    /// Compares each with the next of `values`.
    pub(crate) fn exactly(values: Values, most: u64) -> Self {
        Self { exact: Some(Exact { values, wrong: None }), ..Self::up_to(most) }
    }

    /// Takes note of a record. Whether more are wanted.
    #[inline]
    pub(crate) fn see(&mut self, value: &[u8]) -> bool {
        self.sum = added(self.sum, value);
        if let Some(exact) = &mut self.exact
            && exact.values.next() != value
            && exact.wrong.is_none()
        {
            exact.wrong = Some(self.count);
        }
        self.count += 1;
        self.count < self.check || self.go_on()
    }

    #[cold]
    fn go_on(&mut self) -> bool {
        self.check = (self.count + STRIDE).min(self.most);
        self.count < self.most && self.until.is_some_and(|time| Instant::now() < time)
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The first record that was not what had been written there.
    pub(crate) fn wrong(&self) -> Option<u64> {
        self.exact.as_ref().and_then(|exact| exact.wrong)
    }

    /// Whether the sum is that of the first of `values`.
    pub(crate) fn agrees_with(&self, mut values: Values) -> bool {
        let sum = (0..self.count).fold(0, |sum, _| added(sum, values.next()));
        sum == self.sum
    }
}

#[inline]
fn added(sum: u64, value: &[u8]) -> u64 {
    let first = value.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    let last = value.last_chunk().map_or(0, |last| u64::from_le_bytes(*last));
    sum.rotate_left(1) ^ first ^ last.rotate_left(32) ^ value.len() as u64
}
