//! The best few of what was offered, for many atoms at once.
use crate::error::{Error, Result};

/// The `k` largest values offered to each of many slots, in order; of equal values those with the lower index.
///
/// What is kept does not depend on the order in which it was offered.
#[derive(Debug, Clone)]
pub struct Tops {
    k: usize,
    values: Vec<f32>,
    indices: Vec<u32>,
}

/// The index of a place that nothing was offered to; its value is -inf.
pub const NONE: u32 = u32::MAX;

impl Tops {
    /// Nothing yet, for `slots` atoms.
    pub fn new(slots: usize, k: usize) -> Self {
        Self { k, values: vec![f32::NEG_INFINITY; slots * k], indices: vec![NONE; slots * k] }
    }

    /// How many are kept per slot.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The value that an offer must reach to be kept.
    #[inline(always)]
    pub fn floor(&self, slot: usize) -> f32 {
        self.values[slot * self.k + self.k - 1]
    }

    /// Keeps `value` where it is among the best. Offering one index twice to a slot is the caller's mistake.
    #[inline(always)]
    pub fn offer(&mut self, slot: usize, value: f32, index: u32) {
        let start = slot * self.k;
        let (values, indices) = (&mut self.values[start..start + self.k], &mut self.indices[start..start + self.k]);
        let mut place = self.k;
        while place > 0 && (value > values[place - 1] || (value == values[place - 1] && index < indices[place - 1])) {
            place -= 1;
        }
        if place < self.k {
            values.copy_within(place..self.k - 1, place + 1);
            indices.copy_within(place..self.k - 1, place + 1);
            (values[place], indices[place]) = (value, index);
        }
    }

    /// Adds the slots of another with the same `k` after these.
    pub fn append(&mut self, mut more: Self) {
        self.values.append(&mut more.values);
        self.indices.append(&mut more.indices);
    }

    /// Writes values and indices to arrays [slots][k]; -1 where nothing was offered.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: they have another size.
    pub fn write(&self, values: &mut [f32], indices: &mut [i32]) -> Result<()> {
        if values.len() != self.values.len() || indices.len() != self.values.len() {
            let wanted = self.values.len();
            return Err(Error::InvalidArgument(format!("lists of {} values for {wanted}", values.len())));
        }
        values.copy_from_slice(&self.values);
        for (to, from) in indices.iter_mut().zip(&self.indices) {
            *to = i32::try_from(*from).unwrap_or(-1);
        }
        Ok(())
    }

    /// Slots.
    pub fn slots(&self) -> usize {
        self.values.len() / self.k
    }

    /// The last of a slot's list, where the list is full.
    pub fn last(&self, slot: usize) -> Option<(f32, u32)> {
        let place = slot * self.k + self.k - 1;
        (self.indices[place] != NONE).then(|| (self.values[place], self.indices[place]))
    }

    /// [slots][k], best first.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// [slots][k].
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Values and indices of one slot, without places that nothing was offered to.
    pub fn of(&self, slot: usize) -> impl Iterator<Item = (f32, u32)> + '_ {
        let range = slot * self.k..(slot + 1) * self.k;
        let pairs = self.values[range.clone()].iter().zip(&self.indices[range]);
        pairs.map(|(value, index)| (*value, *index)).take_while(|(_, index)| *index != NONE)
    }
}
