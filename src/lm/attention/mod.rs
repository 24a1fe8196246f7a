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
mod shape;
use std::sync::Mutex;

use head::Scratch;

use crate::cpu::{Level, cpu};
use crate::error::Result;
use crate::threads::{lock, on_threads};
pub use shape::{HEAD_WIDTHS, Shape};

/// `z` [B,T,C] and the scores' log-sums `lse` [B,H,T] (in units of ln 2) from `qkv` [B,T,3C].
///
/// # Errors
/// [`crate::error::Error::InvalidArgument`]: sizes that do not fit, or a head width without code.
pub fn forward(shape: Shape, qkv: &[f32], z: &mut [f32], lse: &mut [f32], threads: usize) -> Result<()> {
    forward_on(cpu().level, shape, qkv, z, lse, threads)
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
    backward_on(cpu().level, shape, qkv, z, lse, dz, dqkv, threads)
}

fn forward_on(level: Level, shape: Shape, qkv: &[f32], z: &mut [f32], lse: &mut [f32], threads: usize) -> Result<()> {
    let row = shape.heads * shape.width;
    shape.check(level, qkv.len(), &[("z", z.len(), row), ("lse", lse.len(), shape.heads)])?;
    let n = shape.positions;
    let sequences = z.chunks_mut(n * row).zip(lse.chunks_mut(n * shape.heads)).zip(qkv.chunks(n * 3 * row));
    for_each_sequence(sequences, shape.useful(threads), |scratch, ((z, lse), qkv)| {
        for h in 0..shape.heads {
            head::forward(level, shape, h, qkv, z, &mut lse[h * n..][..n], scratch);
        }
    });
    Ok(())
}

fn backward_on(
    level: Level,
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
    shape.check(level, qkv.len(), &others)?;
    let n = shape.positions;
    let read = z.chunks(n * row).zip(lse.chunks(n * shape.heads)).zip(dz.chunks(n * row)).zip(qkv.chunks(n * 3 * row));
    for_each_sequence(
        dqkv.chunks_mut(n * 3 * row).zip(read),
        shape.useful(threads),
        |scratch, (dqkv, (((z, lse), dz), qkv))| {
            for h in 0..shape.heads {
                head::backward(level, shape, h, [qkv, z, &lse[h * n..][..n], dz], dqkv, scratch);
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
