//! Mean and spread of every dimension, kept while rows are written.
//!
//! Everything is float64: the first row of a large model's contexts is ten million times as long as the others, and a sum in
//! float32 would lose those. Groups of rows are summed less a shift, their first row, which is safe where the mean is large
//! beside the spread. Groups lie at fixed rows of a block; they are joined in their order, and so are blocks and shards (Chan,
//! Golub and `LeVeque` 1979): the result depends neither on threads nor on the sizes of batches.

use crate::cpu::Level;
use crate::dtype::Dtype;
use crate::stored;

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

/// Rows that are summed less the same shift, the first of them.
const GROUP: u64 = 256;

/// Moments of the rows of one block while they arrive.
#[derive(Clone)]
pub struct BlockSums {
    done: Moments,
    rows: u64,
    shift: Vec<f64>,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl BlockSums {
    /// No rows yet.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        let zeros = vec![0.0; dim];
        Self { done: Moments::new(dim), rows: 0, shift: zeros.clone(), sum: zeros.clone(), squares: zeros }
    }

    /// Adds rows of `dtype`; `x` holds whole rows.
    pub fn update(&mut self, level: Level, dtype: Dtype, mut x: &[u8]) {
        let row_bytes = self.sum.len() * dtype.size();
        while !x.is_empty() {
            let (now, rest) = x.split_at(x.len().min((GROUP - self.rows) as usize * row_bytes));
            if self.rows == 0 {
                let mut first = vec![0.0; self.sum.len()];
                stored::widen(level, dtype, &now[..row_bytes], &mut first);
                self.shift.iter_mut().zip(first).for_each(|(shift, value)| *shift = f64::from(value));
            }
            stored::accumulate(level, dtype, now, &self.shift, &mut self.sum, &mut self.squares);
            self.rows += (now.len() / row_bytes) as u64;
            if self.rows == GROUP {
                self.end_group();
            }
            x = rest;
        }
    }

    fn end_group(&mut self) {
        let n = self.rows as f64;
        if self.rows > 0 {
            let mut group = Moments { rows: self.rows, mean: vec![0.0; self.sum.len()], m2: vec![0.0; self.sum.len()] };
            for d in 0..self.sum.len() {
                group.mean[d] = self.shift[d] + self.sum[d] / n;
                group.m2[d] = (self.squares[d] - self.sum[d] * self.sum[d] / n).max(0.0);
            }
            self.done.merge(&group);
        }
        self.rows = 0;
        self.sum.fill(0.0);
        self.squares.fill(0.0);
    }

    /// Whether all values added so far are finite: a mean or a sum of squares that has met NaN or an infinity never is
    /// again, and no finite value of a stored type takes it there.
    #[must_use]
    pub fn are_finite(&self) -> bool {
        self.done.mean.iter().chain(&self.squares).all(|x| x.is_finite())
    }

    /// The moments of all rows.
    #[must_use]
    pub fn finish(mut self) -> Moments {
        self.end_group();
        self.done
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
        let mut shard = Moments::new(dim);
        for block in x.chunks(96 * dim) {
            let mut sums = BlockSums::new(dim);
            block.chunks(batch * dim).for_each(|rows| sums.update(cpu().level, Dtype::F32, &bytes(rows)));
            shard.merge(&sums.finish());
        }
        shard
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
            assert!(close(&found.mean, &expected.mean, 1e-12), "mean {offset} {scale}");
            assert!(close(&found.m2, &expected.m2, 1e-10), "m2 {offset} {scale}: {:?} {:?}", found.m2, expected.m2);
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
    fn a_row_ten_million_times_the_others_leaves_them_their_precision() {
        let dim = 3;
        for massive in [0, 95, 96, 500] {
            let mut x = rows(1000, dim, 0.3, 1.0);
            x[massive * dim..(massive + 1) * dim].iter_mut().for_each(|x| *x *= 1e7);
            let (found, n) = (found(&x, dim, 77), 1000.0);
            for d in 0..dim {
                // The others' sums by themselves, so that nothing is added to the massive value but at the end.
                let others = || x.iter().skip(d).step_by(dim).enumerate().filter(|&(i, _)| i != massive);
                let sum: f64 = others().map(|(_, &v)| f64::from(v)).sum();
                let huge = f64::from(x[massive * dim + d]);
                let mean = (huge + sum) / n;
                assert!((found.mean[d] - mean).abs() <= 1e-12 * mean.abs(), "mean {massive} {d}");
                let between = (huge - sum / (n - 1.0)).powi(2) * (n - 1.0) / n;
                let m2 = others().map(|(_, &v)| (f64::from(v) - sum / (n - 1.0)).powi(2)).sum::<f64>() + between;
                assert!((found.m2[d] - m2).abs() <= 1e-12 * m2, "m2 {massive} {d}");
            }
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
        assert!(close(&merged.mean, &expected.mean, 1e-12) && close(&merged.m2, &expected.m2, 1e-11));
        let rms = (x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.len() as f64).sqrt();
        assert!((merged.rms() - rms).abs() < 1e-12 * rms);
    }
}
