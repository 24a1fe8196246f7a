//! Phase one (`dense_features` has phase two) for a block of rows on which many codes are active, as early in training: matrix products with their
//! sums in registers, instead of lists of codes.
//!
//! Every sum has the order that it has in `rows` and `features`, and a code that is zero adds exactly nothing, so that
//! the bits are the same. That holds for finite numbers only: a block that meets others is left to the lists.

use std::time::Instant;

use super::aligned::Aligned;
use super::codes::{Spent, TileStats};
use super::features::add_scaled;
use super::rows::{Scales, Weights};
use super::screen::TILE;
use super::simd::{Kernel, LANES, Simd, load_columns};

/// Codes of a block of rows, the zeros among them: [groups of 16 features][rows][16].
#[derive(Debug, Default)]
pub struct Dense {
    pub(super) rows: usize,
    pub(super) z: Aligned,
    pub(super) g: Aligned,
}

impl Dense {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.z.bytes() + self.g.bytes()
    }

    /// Counts the rows on which each feature is active.
    pub fn count_fired(&self, fired: &mut [i64]) {
        for (group, fired) in self.z.chunks_exact(self.rows * LANES).zip(fired.chunks_mut(LANES)) {
            for line in group.as_chunks::<LANES>().0 {
                for (fired, z) in fired.iter_mut().zip(line) {
                    *fired += i64::from(*z > 0.0);
                }
            }
        }
    }
}

/// Phase one over one block; gives whether all was finite, without which nothing of it counts.
pub struct DenseRows<'a, 'b> {
    /// Parameters.
    pub weights: Weights<'a>,
    /// d padded to whole vectors.
    pub stride: usize,
    /// [rows][stride], zeros after d.
    pub x: &'a [f32],
    /// Scales of the loss.
    pub scales: Scales,
    /// Whether derivatives are wanted.
    pub derivatives: bool,
    /// [rows][stride].
    pub residual: &'b mut [f32],
    /// [tiles].
    pub stats: &'b mut [TileStats],
    /// [tiles][stride], or empty.
    pub residual_sums: &'b mut [f32],
    /// Where the codes go.
    pub dense: &'b mut Dense,
    /// The thread's time.
    pub spent: &'b mut Spent,
}

impl Kernel for DenseRows<'_, '_> {
    type Output = bool;

    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> bool {
        if S::ACCUMULATORS >= 16 { self.work::<S, 4, 4>(s) } else { self.work::<S, 2, 2>(s) }
    }
}

impl DenseRows<'_, '_> {
    #[inline(always)]
    fn work<S: Simd, const R: usize, const C: usize>(self, s: S) -> bool {
        let Self { weights, stride, x, scales, derivatives, residual, stats, residual_sums, dense, spent } = self;
        let (rows, n) = (x.len() / stride, weights.bias.len());
        let start = Instant::now();
        dense.rows = rows;
        let size = n.next_multiple_of(LANES) * rows;
        dense.z.resize(size);
        dense.g.resize(if derivatives { size } else { 0 });
        products::<S, R, C>(s, weights.encoder, weights.d, x, stride, rows, &mut dense.z);
        let finite = activate(&mut dense.z, weights.bias, rows);
        if !finite {
            return false;
        }
        let encoded = Instant::now();
        spent.encode += (encoded - start).as_secs_f64();
        residual.fill(0.0);
        for group in (0..n.div_ceil(LANES)).step_by(PANEL_GROUPS) {
            let mut row = 0;
            while row + R <= rows {
                decode::<S, R, C>(s, &weights, &dense.z, rows, group, row, residual, stride);
                row += R;
            }
            while row < rows {
                decode::<S, 1, C>(s, &weights, &dense.z, rows, group, row, residual, stride);
                row += 1;
            }
        }
        finish(s, x, stride, scales.error, residual, stats);
        if !stats.iter().all(|tile| tile.sse.is_finite()) {
            stats.fill(TileStats::default());
            return false;
        }
        measure(&dense.z, rows, stats);
        if derivatives {
            products::<S, R, C>(s, weights.decoder, weights.d, residual, stride, rows, &mut dense.g);
            for (g, z) in dense.g.iter_mut().zip(dense.z.iter()) {
                *g = if *z > 0.0 { *g + scales.l1 } else { 0.0 };
            }
        }
        spent.decode += encoded.elapsed().as_secs_f64();
        for (sums, tile) in residual_sums.chunks_exact_mut(stride).zip(residual.chunks(TILE * stride)) {
            for row in tile.chunks_exact(stride) {
                add_scaled(s, sums, 1.0, row);
            }
        }
        true
    }
}

/// Dot products of all rows with all features, in the order of [`super::simd::dot`], R by F at a time.
#[inline(always)]
fn products<S: Simd, const R: usize, const F: usize>(
    s: S,
    features: &[f32],
    d: usize,
    rows_of: &[f32],
    stride: usize,
    rows: usize,
    out: &mut [f32],
) {
    let n = features.len() / d;
    for strip in (0..rows).step_by(STRIP) {
        for (group, out) in out.chunks_exact_mut(rows * LANES).enumerate() {
            for block in (0..LANES).step_by(F) {
                for row in (strip..(strip + STRIP).min(rows)).step_by(R) {
                    // Beyond the last row or feature, the last is computed again.
                    let mut left = [&rows_of[..stride]; R];
                    for r in 0..R {
                        let at = (row + r).min(rows - 1) * stride;
                        left[r] = &rows_of[at..at + stride];
                    }
                    let mut right = [&features[..d]; F];
                    for f in 0..F {
                        let at = (group * LANES + block + f).min(n - 1) * d;
                        right[f] = &features[at..at + d];
                    }
                    let sums = block_products::<S, R, F>(s, left, right, d);
                    for (r, sums) in sums.iter().enumerate().take(rows - row) {
                        let at = (row + r) * LANES + block;
                        out[at..at + F].copy_from_slice(sums);
                    }
                }
            }
        }
    }
}

/// Rows that stay in the first cache, with sixteen features, while products are computed: 16 KB at D = 128.
const STRIP: usize = 32;

/// Groups of features whose atoms stay in the first cache while rows are decoded: 32 KB at D = 128.
const PANEL_GROUPS: usize = 4;

#[inline(always)]
fn block_products<S: Simd, const R: usize, const F: usize>(
    s: S,
    left: [&[f32]; R],
    right: [&[f32]; F],
    d: usize,
) -> [[f32; F]; R] {
    let mut acc = [[s.zero(); F]; R];
    let whole = d / LANES;
    for v in 0..=whole {
        let width = if v < whole { LANES } else { d % LANES };
        if width == 0 {
            break;
        }
        let at = v * LANES;
        let mut features = [s.zero(); F];
        for f in 0..F {
            features[f] = load_columns(s, &right[f][at..at + width]);
        }
        for r in 0..R {
            let row = load_columns(s, &left[r][at..at + width]);
            for f in 0..F {
                acc[r][f] = s.fma(row, features[f], acc[r][f]);
            }
        }
    }
    let mut out = [[0.0; F]; R];
    if F == 4 {
        for r in 0..R {
            out[r].copy_from_slice(&s.sum4([acc[r][0], acc[r][1], acc[r][2], acc[r][3]]));
        }
    } else {
        let four = s.sum4([acc[0][0], acc[0][1], acc[1][0], acc[1][1]]);
        out[0].copy_from_slice(&four[..2]);
        out[1].copy_from_slice(&four[2..]);
    }
    out
}

/// Products to codes, in place; false if one is not finite.
#[inline(always)]
fn activate(z: &mut [f32], bias: &[f32], rows: usize) -> bool {
    let mut finite = true;
    for (group, bias) in z.chunks_exact_mut(rows * LANES).zip(bias.chunks(LANES)) {
        let mut biases = [f32::MIN; LANES];
        biases[..bias.len()].copy_from_slice(bias);
        for line in group.as_chunks_mut::<LANES>().0 {
            for i in 0..LANES {
                let z = line[i] + biases[i];
                finite &= z.abs() <= f32::MAX || i >= bias.len();
                line[i] = if z > 0.0 && i < bias.len() { z } else { 0.0 };
            }
        }
    }
    finite
}

/// Adds what some groups of features, from `group` on, give to the reconstruction of R rows.
#[inline(always)]
fn decode<S: Simd, const R: usize, const C: usize>(
    s: S,
    weights: &Weights<'_>,
    z: &[f32],
    rows: usize,
    group: usize,
    row: usize,
    out: &mut [f32],
    stride: usize,
) {
    let mut v = 0;
    while (v + C) * LANES <= weights.d {
        decode_columns::<S, R, C>(s, weights, z, rows, group, row, out, stride, v);
        v += C;
    }
    while v * LANES < weights.d {
        decode_columns::<S, R, 1>(s, weights, z, rows, group, row, out, stride, v);
        v += 1;
    }
}

#[inline(always)]
fn decode_columns<S: Simd, const R: usize, const C: usize>(
    s: S,
    weights: &Weights<'_>,
    z: &[f32],
    rows: usize,
    group: usize,
    row: usize,
    out: &mut [f32],
    stride: usize,
    v: usize,
) {
    let (d, n) = (weights.d, weights.bias.len());
    let (start, end) = (v * LANES, ((v + C) * LANES).min(d));
    let mut acc = [[s.zero(); C]; R];
    for r in 0..R {
        let at = (row + r) * stride + start;
        for c in 0..C {
            acc[r][c] = load_columns(s, &out[at + c * LANES..at + (c + 1) * LANES]);
        }
    }
    for (group, z) in z.chunks_exact(rows * LANES).enumerate().skip(group).take(PANEL_GROUPS) {
        let lines = &z[row * LANES..(row + R) * LANES].as_chunks::<LANES>().0[..R];
        let features = LANES.min(n - group * LANES);
        let atoms = weights.decoder[group * LANES * d..][..features * d].chunks_exact(d);
        for (i, atom) in atoms.enumerate() {
            let atom = &atom[start..end];
            let mut columns = [s.zero(); C];
            for c in 0..C {
                columns[c] = load_columns(s, &atom[c * LANES..((c + 1) * LANES).min(end - start)]);
            }
            for r in 0..R {
                let z = s.splat(lines[r][i]);
                for c in 0..C {
                    acc[r][c] = s.fma(z, columns[c], acc[r][c]);
                }
            }
        }
    }
    for r in 0..R {
        let at = (row + r) * stride + start;
        let out = out[at..at + C * LANES].as_chunks_mut::<LANES>().0;
        for c in 0..C {
            s.store(acc[r][c], &mut out[c]);
        }
    }
}

/// Reconstructions to scaled residuals, in place, and their squares.
#[inline(always)]
fn finish<S: Simd>(s: S, x: &[f32], stride: usize, scale: f32, residual: &mut [f32], stats: &mut [TileStats]) {
    let scale = s.splat(scale);
    for (row, (x, residual)) in x.chunks_exact(stride).zip(residual.chunks_exact_mut(stride)).enumerate() {
        let mut squares = s.zero();
        for (x, out) in x.as_chunks::<LANES>().0.iter().zip(residual.as_chunks_mut::<LANES>().0) {
            let difference = s.sub(s.load(out), s.load(x));
            squares = s.fma(difference, difference, squares);
            s.store(s.mul(difference, scale), out);
        }
        stats[row / TILE].sse += f64::from(s.sum(squares));
    }
}

/// Sums and counts of the codes, tile by tile: every lane adds feature after feature, a feature's rows in order, as the
/// lists do.
#[inline(always)]
fn measure(z: &[f32], rows: usize, stats: &mut [TileStats]) {
    for group in z.chunks_exact(rows * LANES) {
        for (lines, tile) in group.chunks(TILE * LANES).zip(stats.iter_mut()) {
            let mut sums = tile.l1;
            let mut active = [0u32; LANES];
            for line in lines.as_chunks::<LANES>().0 {
                for i in 0..LANES {
                    sums[i] += f64::from(line[i]);
                    active[i] += u32::from(line[i] > 0.0);
                }
            }
            tile.l1 = sums;
            tile.l0 += u64::from(active.iter().sum::<u32>());
        }
    }
    for tile in stats {
        (tile.codes, tile.candidates) = (tile.l0, tile.l0);
    }
}
