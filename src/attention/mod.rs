//! Causal self-attention for small heads, straight from the projection's output and back to its gradient.
//!
//! B sequences, T positions, H heads of E dimensions, C = H E. `qkv` is [B,T,3C]: queries, keys and values side by side,
//! each with its heads side by side. For every head, with a = 1 / sqrt(E),
//!
//! ```text
//! p_ts = exp(a q_t . k_s) / sum_{u <= t} exp(a q_t . k_u)       z_t = sum_{s <= t} p_ts v_s
//! ds_ts = p_ts (dz_t . v_s - dz_t . z_t)
//! dq_t = a sum_s ds_ts k_s      dk_s = a sum_t ds_ts q_t      dv_s = sum_t p_ts dz_t
//! ```
//!
//! A head of 8 dimensions is narrower than a vector, so vectors run over positions: 16 queries are worked on together
//! against one key after the other, and nothing is ever summed across lanes. Only the logarithm of each query's sum is
//! kept for the backward pass, which runs twice over the scores: once with queries in the lanes (dq), once with keys
//! (dk, dv). Heads are independent: the same bits for any number of threads.

mod head;

use std::sync::Mutex;

use crate::cpu::{Simd, cpu};
use crate::error::{Error, Result};
use crate::threads::{lock, on_threads};
use head::Scratch;

/// Dimensions of a head for which there is code; others are left to the caller.
pub const HEAD_WIDTHS: [usize; 3] = [4, 8, 16];

/// Products of a thread's share below which another thread costs more than it saves: about 100 microseconds.
const MIN_SHARE: usize = 3_000_000;

/// Sizes of one call.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Positions.
    pub positions: usize,
    /// Heads.
    pub heads: usize,
    /// Dimensions of a head, one of [`HEAD_WIDTHS`].
    pub width: usize,
}

impl Shape {
    /// Threads worth starting for this size.
    fn useful(self, threads: usize) -> usize {
        let products = self.batch * self.heads * self.positions * self.positions * self.width;
        threads.min(1 + products / MIN_SHARE)
    }

    fn check(self, simd: Simd, qkv: usize, others: &[(&str, usize, usize)]) -> Result<()> {
        let refuse = |message: String| Err(Error::InvalidArgument(format!("attention: {message}")));
        if !cpu().runs(simd) {
            return refuse(format!("this processor has no {}; use {}", simd.name(), cpu().simd.name()));
        }
        if !HEAD_WIDTHS.contains(&self.width) {
            return refuse(format!("heads of {} dimensions; there is code for {HEAD_WIDTHS:?}", self.width));
        }
        if self.positions == 0 {
            return refuse("no positions".into());
        }
        let rows = self.batch * self.positions;
        for &(name, got, per_row) in [("qkv", qkv, 3 * self.heads * self.width)].iter().chain(others) {
            if got != rows * per_row {
                return refuse(format!("{name} has {got} numbers, not {rows} rows of {per_row}"));
            }
        }
        Ok(())
    }
}

/// `z` [B,T,C] and the scores' log-sums `lse` [B,H,T] (in units of ln 2) from `qkv` [B,T,3C].
///
/// # Errors
/// [`Error::InvalidArgument`]: sizes that do not fit, or a head width without code.
pub fn forward(shape: Shape, qkv: &[f32], z: &mut [f32], lse: &mut [f32], threads: usize) -> Result<()> {
    forward_on(cpu().simd, shape, qkv, z, lse, threads)
}

/// `dqkv` [B,T,3C] from `dz` [B,T,C] and what `forward` was given and gave.
///
/// # Errors
/// As [`forward`].
pub fn backward(
    shape: Shape,
    qkv: &[f32],
    z: &[f32],
    lse: &[f32],
    dz: &[f32],
    dqkv: &mut [f32],
    threads: usize,
) -> Result<()> {
    backward_on(cpu().simd, shape, qkv, z, lse, dz, dqkv, threads)
}

fn forward_on(simd: Simd, shape: Shape, qkv: &[f32], z: &mut [f32], lse: &mut [f32], threads: usize) -> Result<()> {
    let row = shape.heads * shape.width;
    shape.check(simd, qkv.len(), &[("z", z.len(), row), ("lse", lse.len(), shape.heads)])?;
    let n = shape.positions;
    let sequences = z.chunks_mut(n * row).zip(lse.chunks_mut(n * shape.heads)).zip(qkv.chunks(n * 3 * row));
    for_each_sequence(sequences, shape.useful(threads), |scratch, ((z, lse), qkv)| {
        for h in 0..shape.heads {
            head::forward(simd, shape, h, qkv, z, &mut lse[h * n..][..n], scratch);
        }
    });
    Ok(())
}

fn backward_on(
    simd: Simd,
    shape: Shape,
    qkv: &[f32],
    z: &[f32],
    lse: &[f32],
    dz: &[f32],
    dqkv: &mut [f32],
    threads: usize,
) -> Result<()> {
    let row = shape.heads * shape.width;
    let others =
        [("z", z.len(), row), ("lse", lse.len(), shape.heads), ("dz", dz.len(), row), ("dqkv", dqkv.len(), 3 * row)];
    shape.check(simd, qkv.len(), &others)?;
    let n = shape.positions;
    let read = z.chunks(n * row).zip(lse.chunks(n * shape.heads)).zip(dz.chunks(n * row)).zip(qkv.chunks(n * 3 * row));
    for_each_sequence(
        dqkv.chunks_mut(n * 3 * row).zip(read),
        shape.useful(threads),
        |scratch, (dqkv, (((z, lse), dz), qkv))| {
            for h in 0..shape.heads {
                head::backward(simd, shape, h, [qkv, z, &lse[h * n..][..n], dz], dqkv, scratch);
            }
        },
    );
    Ok(())
}

/// Works off the sequences on several threads, each with scratch memory of its own.
fn for_each_sequence<I>(sequences: I, threads: usize, work: impl Fn(&mut Scratch, I::Item) + Sync)
where
    I: Iterator + Send,
{
    let queue = Mutex::new(sequences);
    on_threads(threads, &|| {
        let mut scratch = Scratch::default();
        loop {
            let next = lock(&queue).next();
            let Some(sequence) = next else { break };
            work(&mut scratch, sequence);
        }
    });
}

#[cfg(test)]
mod tests;
