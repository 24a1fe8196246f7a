//! Which of many consecutive pieces holds an index: a table by upper bits, then a step or two.

/// Consecutive pieces of given lengths.
#[derive(Debug, Clone)]
pub struct Segments {
    starts: Vec<u64>,
    table: Vec<u32>,
    shift: u32,
}

/// Entries of the table, about: small enough for the first-level cache.
const TABLE: u64 = 2048;

impl Segments {
    /// Pieces of these lengths, each at least 1, one after another from 0.
    #[must_use]
    pub fn new(lengths: impl IntoIterator<Item = u64>) -> Self {
        let mut starts = vec![0];
        for length in lengths {
            starts.push(starts[starts.len() - 1] + length);
        }
        let total = starts[starts.len() - 1];
        let shift = u64::BITS - (total / TABLE).leading_zeros();
        let buckets = (total >> shift) + 1;
        let mut table = Vec::with_capacity(buckets as usize);
        let mut piece = 0;
        for bucket in 0..buckets {
            while piece + 2 < starts.len() && starts[piece + 1] <= bucket << shift {
                piece += 1;
            }
            table.push(piece as u32);
        }
        Self { starts, table, shift }
    }

    /// Sum of the lengths.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Where piece `i` starts.
    #[must_use]
    pub fn start(&self, i: usize) -> u64 {
        self.starts[i]
    }

    /// The piece that holds `index`, and the place in it.
    ///
    /// # Panics
    /// If `index` is not below `total()`.
    #[inline]
    #[must_use]
    pub fn find(&self, index: u64) -> (usize, u64) {
        assert!(index < self.total(), "index {index} of {}", self.total());
        let mut piece = self.table[(index >> self.shift) as usize] as usize;
        while self.starts[piece + 1] <= index {
            piece += 1;
        }
        (piece, index - self.starts[piece])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_found_where_a_search_finds_it() {
        for lengths in [vec![1], vec![5, 1, 1, 9], vec![1000; 7], (1..300).collect(), vec![100_000, 1, 1, 1, 70_000]] {
            let segments = Segments::new(lengths.iter().copied());
            let mut expected = (0..lengths.len()).flat_map(|i| (0..lengths[i]).map(move |j| (i, j)));
            for index in 0..segments.total() {
                assert_eq!(Some(segments.find(index)), expected.next());
            }
            assert_eq!(expected.next(), None);
        }
    }
}
