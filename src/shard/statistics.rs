//! Mean and spread of every dimension, kept while rows are written.
//!
//! Rows are summed in float32 in groups of 32, less a shift that is the shard's first row, and the groups in float64:
//! fast, and safe where the mean is large beside the spread. Groups lie at fixed rows of a block, blocks are added in their
//! order and shards joined in theirs (Chan, Golub and `LeVeque` 1979), so the result depends neither on threads nor on the
//! sizes of batches.

use crate::cpu::Simd;
use crate::shard::dtype::Dtype;
use crate::simd;

const GROUP: u64 = 32;

/// Count, mean and sum of squared deviations of every dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Rows seen.
    pub rows: u64,
    /// Mean of each dimension.
    pub mean: Vec<f64>,
    /// Sum over rows of (x - mean)^2 of each dimension.
    pub m2: Vec<f64>,
}

impl Moments {
    /// No rows yet.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self { rows: 0, mean: vec![0.0; dim], m2: vec![0.0; dim] }
    }

    /// Adds what `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        let (a, b) = (self.rows as f64, other.rows as f64);
        if other.rows == 0 {
            return;
        }
        let n = a + b;
        for d in 0..self.mean.len() {
            let delta = other.mean[d] - self.mean[d];
            self.mean[d] += delta * (b / n);
            self.m2[d] += other.m2[d] + delta * delta * (a * b / n);
        }
        self.rows += other.rows;
    }

    /// Mean over rows and dimensions of (x - mean of its dimension)^2.
    #[must_use]
    pub fn variance(&self) -> f64 {
        self.over_all(self.m2.iter().sum())
    }

    /// Root of the mean over rows and dimensions of x^2.
    #[must_use]
    pub fn rms(&self) -> f64 {
        let n = self.rows as f64;
        self.over_all(self.mean.iter().zip(&self.m2).map(|(mean, m2)| n * mean * mean + m2).sum()).sqrt()
    }

    fn over_all(&self, sum: f64) -> f64 {
        let values = self.rows as f64 * self.mean.len() as f64;
        if self.rows == 0 { 0.0 } else { sum / values }
    }
}

/// What is taken from every row of a shard before it is summed: the shard's first row.
#[derive(Clone)]
pub struct Shift {
    values: Vec<f32>,
    huge: bool,
}

impl Shift {
    /// `row` is the shard's first, of `dtype`.
    #[must_use]
    pub fn new(simd: Simd, dtype: Dtype, row: &[u8]) -> Self {
        let mut values = vec![0.0; row.len() / dtype.size()];
        simd::widen(simd, dtype, row, &mut values);
        Self { values, huge: simd::any_huge(simd, dtype, row) }
    }
}

/// Sums over the rows of one block of a shard while they arrive.
#[derive(Clone)]
pub struct BlockSums {
    rows: u64,
    group_sum: Vec<f32>,
    group_squares: Vec<f32>,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl BlockSums {
    /// No rows yet.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self {
            rows: 0,
            group_sum: vec![0.0; dim],
            group_squares: vec![0.0; dim],
            sum: vec![0.0; dim],
            squares: vec![0.0; dim],
        }
    }

    /// Adds rows of `dtype`; `x` holds whole rows.
    pub fn update(&mut self, simd: Simd, dtype: Dtype, shift: &Shift, mut x: &[u8]) {
        let row_bytes = self.sum.len() * dtype.size();
        while !x.is_empty() {
            let room = (GROUP - self.rows % GROUP) as usize;
            let (now, rest) = x.split_at(x.len().min(room * row_bytes));
            self.add(simd, dtype, shift, now);
            self.rows += (now.len() / row_bytes) as u64;
            if self.rows.is_multiple_of(GROUP) {
                self.flush();
            }
            x = rest;
        }
    }

    /// Beyond 2^50 a sum of 32 squares could overflow float32: such rows are summed in float64 throughout.
    fn add(&mut self, simd: Simd, dtype: Dtype, shift: &Shift, rows: &[u8]) {
        if !shift.huge && !simd::any_huge(simd, dtype, rows) {
            simd::accumulate(simd, dtype, rows, &shift.values, &mut self.group_sum, &mut self.group_squares);
            return;
        }
        let mut row = vec![0.0; self.sum.len()];
        for bytes in rows.chunks_exact(self.sum.len() * dtype.size()) {
            simd::widen(simd, dtype, bytes, &mut row);
            for (d, (&x, &shift)) in row.iter().zip(&shift.values).enumerate() {
                let v = f64::from(x) - f64::from(shift);
                self.sum[d] += v;
                self.squares[d] += v * v;
            }
        }
    }

    fn flush(&mut self) {
        for d in 0..self.sum.len() {
            self.sum[d] += f64::from(std::mem::take(&mut self.group_sum[d]));
            self.squares[d] += f64::from(std::mem::take(&mut self.group_squares[d]));
        }
    }

    /// Whether all values added so far are finite: a sum of squares that has met NaN or an infinity never is again, and
    /// no finite value of a stored type takes it there.
    #[must_use]
    pub fn are_finite(&self) -> bool {
        self.group_squares.iter().all(|x| x.is_finite()) && self.squares.iter().all(|x| x.is_finite())
    }
}

/// Sums over the blocks of one shard.
pub struct ShardSums {
    rows: u64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl ShardSums {
    /// No rows yet.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self { rows: 0, sum: vec![0.0; dim], squares: vec![0.0; dim] }
    }

    /// Adds the next block.
    pub fn add(&mut self, mut block: BlockSums) {
        block.flush();
        self.rows += block.rows;
        for d in 0..self.sum.len() {
            self.sum[d] += block.sum[d];
            self.squares[d] += block.squares[d];
        }
    }

    /// The moments of the rows added, from which `shift` was taken.
    #[must_use]
    pub fn moments(&self, shift: &Shift) -> Moments {
        let n = self.rows as f64;
        let mut moments = Moments::new(self.sum.len());
        moments.rows = self.rows;
        if self.rows > 0 {
            for d in 0..self.sum.len() {
                moments.mean[d] = f64::from(shift.values[d]) + self.sum[d] / n;
                moments.m2[d] = (self.squares[d] - self.sum[d] * self.sum[d] / n).max(0.0);
            }
        }
        moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::cpu;

    fn rows(n: usize, dim: usize, offset: f32, scale: f32) -> Vec<f32> {
        (0..n * dim).map(|i| offset + scale * ((i as f32 * 0.7).sin() + (i % 13) as f32 * 0.1)).collect()
    }

    fn exact(x: &[f32], dim: usize) -> Moments {
        let mut moments = Moments::new(dim);
        moments.rows = (x.len() / dim) as u64;
        let n = moments.rows as f64;
        for d in 0..dim {
            let column = || x.iter().skip(d).step_by(dim).map(|&v| f64::from(v));
            moments.mean[d] = column().sum::<f64>() / n;
            moments.m2[d] = column().map(|v| (v - moments.mean[d]).powi(2)).sum();
        }
        moments
    }

    /// Moments of rows that come in batches, in blocks of 96.
    fn found(x: &[f32], dim: usize, batch: usize) -> Moments {
        let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let (simd, dtype) = (cpu().simd, Dtype::F32);
        let shift = Shift::new(simd, dtype, &bytes(&x[..dim]));
        let mut shard = ShardSums::new(dim);
        for block in x.chunks(96 * dim) {
            let mut sums = BlockSums::new(dim);
            block.chunks(batch * dim).for_each(|rows| sums.update(simd, dtype, &shift, &bytes(rows)));
            shard.add(sums);
        }
        shard.moments(&shift)
    }

    fn close(a: &[f64], b: &[f64], tolerance: f64) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance * b.abs().max(1e-30))
    }

    #[test]
    fn moments_equal_a_two_pass_sum_even_far_from_zero_and_for_huge_values() {
        for (offset, scale) in [(0.1, 1.0), (1000.0, 0.01), (-3.0, 1e-3), (0.5, 1e20), (0.5, 1e37)] {
            let dim = 7;
            let x = rows(333, dim, offset, scale);
            let (found, expected) = (found(&x, dim, 1000), exact(&x, dim));
            assert!(close(&found.mean, &expected.mean, 1e-6), "mean {offset} {scale}");
            assert!(close(&found.m2, &expected.m2, 1e-5), "m2 {offset} {scale}: {:?} {:?}", found.m2, expected.m2);
        }
    }

    #[test]
    fn batch_sizes_do_not_change_a_bit() {
        let dim = 5;
        let x = rows(200, dim, 0.3, 1.0);
        for batch in [1, 3, 32, 33, 64] {
            assert_eq!(found(&x, dim, batch), found(&x, dim, 200), "{batch}");
        }
    }

    #[test]
    fn merged_moments_are_those_of_all_rows() {
        let dim = 3;
        let x = rows(500, dim, 2.0, 0.5);
        let mut merged = Moments::new(dim);
        for part in [&x[..30], &x[30..900], &x[900..]] {
            merged.merge(&found(part, dim, 1000));
        }
        let expected = exact(&x, dim);
        assert_eq!(merged.rows, 500);
        assert!(close(&merged.mean, &expected.mean, 1e-7) && close(&merged.m2, &expected.m2, 1e-6));
        let rms = (x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.len() as f64).sqrt();
        assert!((merged.rms() - rms).abs() < 1e-7 * rms);
    }
}
