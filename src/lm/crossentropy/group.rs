//! One group of rows: loss and gradients, chunk by chunk, with the buffers that stay in cache.
use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::pack::{PANEL, Packed};
use super::tile;
use crate::vector::aligned::Aligned;
use crate::vector::simd::{Vectors, WideKernel};

/// Panels in a block of the vocabulary: with 12 rows a block's logits take 24 KB of the first-level cache.
const BLOCK: usize = 32;
/// Tiles of rows in a chunk: with 12 rows each and a vocabulary of 4096 the exponentials take 590 KB.
const TILES: usize = 3;

/// What all groups read.
pub struct Problem<'a> {
    /// Hidden states [M,D].
    pub h: &'a [f32],
    /// Embedding [V,D].
    pub w: &'a [f32],
    /// Target tokens [M], checked.
    pub targets: &'a [i64],
    /// The embedding as tiles read it.
    pub packed: &'a Packed,
    /// M.
    pub rows: usize,
}

/// One group's rows and their part of dh; none where no gradients are wanted.
pub struct Job<'a> {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// dh of these rows.
    pub dh: Option<&'a mut [f32]>,
}

/// What a group gives back.
pub struct Gradients {
    /// Sum over its rows, in nats.
    pub loss: f64,
    /// Its part of dw [padded][stride]; empty where no gradients are wanted.
    pub dw: Aligned,
}

/// Work on one group.
pub struct Group<'a> {
    /// What its rows are of.
    pub problem: &'a Problem<'a>,
    /// Its rows.
    pub job: Job<'a>,
}

impl WideKernel for Group<'_> {
    type Output = Gradients;

    #[allow(clippy::inline_always)]
    #[inline(always)]
    fn call<S: Vectors>(self, s: S) -> Gradients {
        // Tile heights: as many sums as there are registers, less those for operands (32 of 16 floats, 16 of 8).
        match S::WIDTH {
            16 => run_on::<S, 12, 8>(s, self.problem, self.job),
            8 => run_on::<S, 6, 4>(s, self.problem, self.job),
            _ => run_on::<S, 4, 4>(s, self.problem, self.job),
        }
    }
}

/// Per-row results of a tile.
#[derive(Clone, Copy)]
struct TileRows<const ROWS: usize> {
    maximum: [f32; ROWS],
    sum: [f64; ROWS],
    target_logit: [f32; ROWS],
}

/// A chunk's buffers, reused by all chunks of a group.
struct Work<const ROWS: usize> {
    /// Exponentials [TILES][padded / PANEL][ROWS][PANEL].
    e: Aligned,
    /// Running maximum of each row when a block was worked on: [TILES][blocks][ROWS].
    maxima: Vec<[f32; ROWS]>,
    /// One tile of h in units of ln 2, [D][ROWS].
    h: Aligned,
    /// dh of one tile, [ROWS][stride].
    dh: Aligned,
    /// h times what a block's exponentials lack to probabilities / M, [TILES * ROWS][stride].
    scaled: Aligned,
}

#[allow(clippy::inline_always)]
#[inline(always)]
fn run_on<S: Vectors, const ROWS: usize, const TOKENS: usize>(s: S, problem: &Problem<'_>, job: Job<'_>) -> Gradients {
    let packed = problem.packed;
    let blocks = (packed.padded / PANEL).div_ceil(BLOCK);
    let wants = job.dh.is_some();
    let kept = if wants { TILES } else { 1 };
    let mut work = Work::<ROWS> {
        e: Aligned::zeros(kept * ROWS * if wants { packed.padded } else { BLOCK * PANEL }),
        maxima: vec![[0.0; ROWS]; TILES * blocks],
        h: Aligned::zeros(packed.width * ROWS),
        dh: Aligned::zeros(ROWS * packed.stride),
        scaled: Aligned::zeros(TILES * ROWS * packed.stride),
    };
    let mut dw = Aligned::zeros(if wants { packed.padded * packed.stride } else { 0 });
    let mut dh = job.dh;
    let mut loss = 0.0;
    for start in job.rows.clone().step_by(TILES * ROWS) {
        let mut tiles = [None; TILES];
        for (t, slot) in tiles.iter_mut().enumerate() {
            let rows = (start + t * ROWS).min(job.rows.end)..(start + (t + 1) * ROWS).min(job.rows.end);
            if rows.is_empty() {
                break;
            }
            let found = forward::<S, ROWS>(s, problem, &mut work, rows.clone(), t, blocks, wants);
            for (r, row) in rows.clone().enumerate() {
                let lse = f64::from(found.maximum[r]) + found.sum[r].log2();
                loss += (lse - f64::from(found.target_logit[r])) * std::f64::consts::LN_2;
                if let Some(dh) = dh.as_deref_mut() {
                    finish_dh(problem, row, found.sum[r], &work.dh[r * packed.stride..], {
                        &mut dh[(row - job.rows.start) * packed.width..][..packed.width]
                    });
                }
            }
            *slot = Some(found);
        }
        if wants {
            add_dw::<S, ROWS, TOKENS>(s, problem, &mut work, start, job.rows.end, &tiles, blocks, &mut dw);
        }
    }
    Gradients { loss, dw }
}

/// Sums, maxima and dh (not yet divided by the sums) of one tile of rows, leaving its exponentials in `work.e`.
#[allow(clippy::inline_always)]
#[inline(always)]
fn forward<S: Vectors, const ROWS: usize>(
    s: S,
    problem: &Problem<'_>,
    work: &mut Work<ROWS>,
    rows: Range<usize>,
    t: usize,
    blocks: usize,
    wants: bool,
) -> TileRows<ROWS> {
    let packed = problem.packed;
    let (width, stride) = (packed.width, packed.stride);
    let h = &mut work.h;
    h.fill(0.0); // rows past the end are zero: their logits are 0 and their results unused
    for (r, row) in rows.clone().enumerate() {
        for (k, &x) in problem.h[row * width..][..width].iter().enumerate() {
            h[k * ROWS + r] = x * LOG2_E;
        }
    }
    work.dh.fill(0.0);
    let mut found = TileRows { maximum: [f32::NEG_INFINITY; ROWS], sum: [0.0; ROWS], target_logit: [0.0; ROWS] };
    let mut rescale = [1.0; ROWS];
    let all = packed.padded / PANEL;
    for b in 0..blocks {
        let first = b * BLOCK;
        let panels = BLOCK.min(all - first);
        let at = if wants { (t * all + first) * ROWS * PANEL } else { 0 };
        let block = &mut work.e[at..][..panels * ROWS * PANEL];
        // SAFETY: the slices above have the sizes that `tile` names.
        unsafe {
            let w = packed.panels[first * width * PANEL..][..panels * width * PANEL].as_ptr();
            tile::logits::<S, ROWS>(s, work.h.as_ptr(), w, width, panels, block.as_mut_ptr());
            mask_padding::<ROWS>(block, first, packed.vocabulary);
            for (r, row) in rows.clone().enumerate() {
                let token = (problem.targets[row] as usize).wrapping_sub(first * PANEL);
                if token < panels * PANEL {
                    found.target_logit[r] = block[(token / PANEL * ROWS + r) * PANEL + token % PANEL];
                }
            }
            let (maximum, sum) = (&mut found.maximum, &mut found.sum);
            tile::exponentials::<S, ROWS>(s, block.as_mut_ptr(), panels, maximum, sum, &mut rescale);
            if wants {
                work.maxima[t * blocks + b] = found.maximum;
                let w = packed.rows[first * PANEL * stride..][..panels * PANEL * stride].as_ptr();
                let dh = work.dh.as_mut_ptr();
                tile::add_dh::<S, ROWS>(s, block.as_ptr(), w, stride, panels, &rescale, dh);
            }
        }
    }
    found
}

/// Tokens past the vocabulary's end get a logit of minus infinity.
fn mask_padding<const ROWS: usize>(block: &mut [f32], first: usize, vocabulary: usize) {
    for (p, panel) in block.chunks_exact_mut(ROWS * PANEL).enumerate() {
        let real = vocabulary.saturating_sub((first + p) * PANEL);
        if real < PANEL {
            for row in panel.chunks_exact_mut(PANEL) {
                row[real..].fill(f32::NEG_INFINITY);
            }
        }
    }
}

/// dh of one row: the sum over the vocabulary divided by the row's sum of exponentials, less the target's vector.
fn finish_dh(problem: &Problem<'_>, row: usize, sum: f64, weighted: &[f32], dh: &mut [f32]) {
    let share = (1.0 / (sum * problem.rows as f64)) as f32;
    let one = (1.0 / problem.rows as f64) as f32;
    let target = &problem.w[problem.targets[row] as usize * dh.len()..][..dh.len()];
    for ((out, &x), &w) in dh.iter_mut().zip(weighted).zip(target) {
        *out = x * share - w * one;
    }
}

/// Adds one chunk's rows to dw.
#[allow(clippy::inline_always)]
#[inline(always)]
fn add_dw<S: Vectors, const ROWS: usize, const TOKENS: usize>(
    s: S,
    problem: &Problem<'_>,
    work: &mut Work<ROWS>,
    start: usize,
    end: usize,
    tiles: &[Option<TileRows<ROWS>>; TILES],
    blocks: usize,
    dw: &mut Aligned,
) {
    let packed = problem.packed;
    let (width, stride, all) = (packed.width, packed.stride, packed.padded / PANEL);
    let count = tiles.iter().flatten().count();
    for b in 0..blocks {
        for (t, tile) in tiles.iter().flatten().enumerate() {
            for r in 0..ROWS {
                let row = start + t * ROWS + r;
                let to = &mut work.scaled[(t * ROWS + r) * stride..][..width];
                if row < end {
                    let lacks = f64::from(work.maxima[t * blocks + b][r] - tile.maximum[r]).exp2();
                    let share = (lacks / (tile.sum[r] * problem.rows as f64)) as f32;
                    for (to, &x) in to.iter_mut().zip(&problem.h[row * width..][..width]) {
                        *to = x * share;
                    }
                } else {
                    to.fill(0.0);
                }
            }
        }
        let first = b * BLOCK;
        let panels = BLOCK.min(all - first);
        let e = work.e[first * ROWS * PANEL..].as_ptr();
        let to = dw[first * PANEL * stride..][..panels * PANEL * stride].as_mut_ptr();
        // SAFETY: e holds `count` tiles at a distance of `all` panels; the others have the sizes that `tile` names.
        unsafe {
            let h = work.scaled.as_ptr();
            tile::add_dw::<S, ROWS, TOKENS>(s, e, all * ROWS * PANEL, count, h, stride, panels, to);
        }
    }
    let one = (1.0 / problem.rows as f64) as f32;
    for row in start..end.min(start + TILES * ROWS) {
        let to = &mut dw[problem.targets[row] as usize * stride..][..width];
        for (to, &x) in to.iter_mut().zip(&problem.h[row * width..][..width]) {
            *to -= x * one;
        }
    }
}
