//! Cross-entropy of a language model over vocabulary tiles: the logits of a batch never exist at once.
//!
//! M rows (tokens), D width, V vocabulary. With hidden states `h` [M,D], the output embedding `w` [V,D] and targets t:
//!
//! ```text
//! loss  = 1/M sum_r (log sum_v exp(h_r . w_v) - h_r . w_t(r))
//! dh_r  = 1/M (sum_v p_rv w_v - w_t(r))           p_rv = exp(h_r . w_v) / sum_u exp(h_r . w_u)
//! dw_v  = 1/M (sum_r p_rv h_r - sum_{r: t(r)=v} h_r)
//! ```
//!
//! Rows are worked on in chunks of some tens, whose exponentials for the whole vocabulary fit into the second-level
//! cache (`tile`): logits, a running maximum per row, exponentials and dh block by block of the vocabulary while they
//! lie in the first-level cache, then dw from the same exponentials. Nothing is computed twice.
//!
//! The rows are split into groups that depend on M alone; each adds into a dw of its own, and these are summed in
//! order: the same bits for any number of threads.

mod group;
mod pack;
mod tile;
use std::sync::Mutex;

use group::{Gradients, Group, Job, Problem};
use pack::Packed;

use crate::cpu::{Level, cpu};
use crate::error::{Error, Result};
use crate::threads::{lock, on_threads};
use crate::vector::dispatch::run;

/// Most groups of rows, and so most threads that help; each costs one buffer of the embedding's size.
const MAX_GROUPS: usize = 16;
/// Fewest rows in a group: below that, zeroing and adding its buffer would show.
const MIN_GROUP_ROWS: usize = 256;
/// Most bytes of all groups' buffers together (large models get fewer groups).
const MAX_BUFFER_BYTES: usize = 1 << 30;

/// Where the gradients go, if they are wanted.
pub struct Output<'a> {
    /// d loss / d h, [M,D].
    pub dh: &'a mut [f32],
    /// d loss / d w, [V,D].
    pub dw: &'a mut [f32],
}

/// Mean cross-entropy in nats of rows `h` [M,D] against the embedding `w` [V,D], with its gradients into `output`.
///
/// NaN and infinities in `h` or `w` give a loss that is not finite.
///
/// # Errors
/// [`Error::InvalidArgument`]: no rows, no vocabulary, sizes that do not fit, or a target outside 0 .. V.
pub fn cross_entropy(
    h: &[f32],
    w: &[f32],
    targets: &[i64],
    width: usize,
    threads: usize,
    output: Option<Output<'_>>,
) -> Result<f64> {
    cross_entropy_on(cpu().level, h, w, targets, width, threads, output)
}

/// The same on a given instruction set, which the processor must have: for tests and comparisons.
///
/// # Errors
/// As [`cross_entropy`], and where the processor lacks `level`.
pub fn cross_entropy_on(
    level: Level,
    h: &[f32],
    w: &[f32],
    targets: &[i64],
    width: usize,
    threads: usize,
    output: Option<Output<'_>>,
) -> Result<f64> {
    let rows = targets.len();
    let vocabulary = w.len() / width.max(1);
    check(level, h, w, targets, width, output.as_ref())?;
    let packed = Packed::new(w, vocabulary, width);
    let problem = Problem { h, w, targets, packed: &packed, rows };

    let buffer = size_of_val(w).max(1);
    let groups = (rows / MIN_GROUP_ROWS).clamp(1, MAX_GROUPS.min((MAX_BUFFER_BYTES / buffer).max(1)));
    let per_group = rows.div_ceil(groups);
    let (mut dh, dw) = match output {
        Some(Output { dh, dw }) => (dh.chunks_mut(per_group * width), Some(dw)),
        None => ([].chunks_mut(1), None),
    };
    let jobs: Vec<Job<'_>> = (0..rows)
        .step_by(per_group)
        .map(|start| Job { rows: start..rows.min(start + per_group), dh: dh.next() })
        .collect();
    let done = run_all(level, &problem, jobs, threads);
    if let Some(dw) = dw {
        let parts: Vec<&[f32]> = done.iter().map(|part| &*part.dw).collect();
        add_in_order(dw, &parts, packed.stride, width, threads);
    }
    Ok(done.iter().map(|part| part.loss).sum::<f64>() / rows as f64)
}

fn check(level: Level, h: &[f32], w: &[f32], targets: &[i64], width: usize, output: Option<&Output<'_>>) -> Result<()> {
    let refuse = |message: String| Err(Error::InvalidArgument(message));
    if !cpu().runs(level) {
        return refuse(format!("cross_entropy: this processor has no {}; use {}", level.name(), cpu().level.name()));
    }
    if targets.is_empty() || width == 0 || w.is_empty() {
        return refuse("cross_entropy: needs at least one row, one dimension and one token".into());
    }
    if h.len() != targets.len() * width || !w.len().is_multiple_of(width) {
        return refuse(format!(
            "cross_entropy: h has {} and w {} numbers, which do not fit {} rows of width {width}",
            h.len(),
            w.len(),
            targets.len()
        ));
    }
    if output.is_some_and(|output| output.dh.len() != h.len() || output.dw.len() != w.len()) {
        return refuse("cross_entropy: dh and dw must be as large as h and w".into());
    }
    let vocabulary = (w.len() / width) as i64;
    match targets.iter().find(|&&t| t < 0 || t >= vocabulary) {
        Some(target) => refuse(format!("cross_entropy: target {target} is outside a vocabulary of {vocabulary}")),
        None => Ok(()),
    }
}

/// Works off the jobs on `threads` threads (the caller's included); results in the order of the jobs.
fn run_all(level: Level, problem: &Problem<'_>, jobs: Vec<Job<'_>>, threads: usize) -> Vec<Gradients> {
    let count = jobs.len();
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    let work = || {
        loop {
            let next = lock(&queue).next();
            let Some((index, job)) = next else { break };
            let part = run(level, Group { problem, job });
            lock(&done).push((index, part));
        }
    };
    on_threads(threads.min(count), &work);
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, part)| part).collect()
}

/// `dw` [V,D] = sum of `parts` [V,stride] in their order.
fn add_in_order(dw: &mut [f32], parts: &[&[f32]], stride: usize, width: usize, threads: usize) {
    const ROWS: usize = 256;
    const MIN_SHARE: usize = 1 << 18; // additions in about 50 microseconds: less is not worth another thread
    let threads = threads.min(1 + dw.len() * parts.len() / MIN_SHARE);
    let queue = Mutex::new(dw.chunks_mut(ROWS * width).enumerate());
    on_threads(threads, &|| {
        loop {
            let next = lock(&queue).next();
            let Some((chunk, dw)) = next else { break };
            for (row, out) in dw.chunks_mut(width).enumerate() {
                let at = (chunk * ROWS + row) * stride;
                out.copy_from_slice(&parts[0][at..at + width]);
                for part in &parts[1..] {
                    for (sum, x) in out.iter_mut().zip(&part[at..at + width]) {
                        *sum += x;
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests;
