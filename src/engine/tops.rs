//! The largest values of one row so far, in a list that is cut when it is long.

/// A value from 0 up as an integer of the same order; NaN of either sign is the largest.
#[inline(always)]
pub fn key(value: f32) -> u32 {
    if value.is_nan() { u32::MAX } else { value.to_bits() }
}

/// What all values that are kept are above, if these are no less than the one with that key: for comparisons that keep NaN.
#[inline(always)]
pub fn just_below(key: u32) -> f32 {
    if key == u32::MAX { f32::INFINITY } else { f32::from_bits(key.saturating_sub(1)) }
}

/// The largest of one row so far.
#[derive(Debug, Default, Clone)]
pub struct Top {
    /// Values above `above` are among them.
    pub above: f32,
    /// Whether nothing is to be added any more.
    pub done: bool,
    /// The list is cut when it is as long as this.
    pub full: usize,
    /// Key and feature of each, the key above.
    pub found: Vec<u64>,
}

impl Top {
    pub fn begin(&mut self, k: usize) {
        self.above = 0.0;
        self.done = false;
        self.full = (4 * k).max(32);
        self.found.clear();
    }

    #[inline(always)]
    pub fn push(&mut self, k: usize, value: f32, feature: u32) {
        self.found.push(u64::from(key(value)) << 32 | u64::from(feature));
        if self.found.len() >= self.full {
            self.cut(k);
            self.full = 2 * self.found.len().max(2 * k);
        }
    }

    /// Leaves the k largest, and what equals the k-th.
    pub fn cut(&mut self, k: usize) {
        if self.found.len() < k {
            return;
        }
        let at = self.found.len() - k;
        let (_, least, _) = self.found.select_nth_unstable(at);
        let least = (*least >> 32) << 32;
        self.found.retain(|found| *found >= least);
        self.above = just_below((least >> 32) as u32);
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.found.capacity() * size_of::<u64>()
    }
}
