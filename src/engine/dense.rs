//! Phase one (`dense_features` has phase two) for a block of rows on which many codes are active, as early in training: matrix products with their
//! sums in registers, instead of lists of codes.
//!
//! Every sum has the order that it has in `rows` and `features`, and a code that is zero adds exactly nothing, so that
//! the bits are the same. That holds for finite numbers only: a block that meets others is left to the lists.
use std::time::Instant;

use super::codes::{Dense, Scratch, TileStats};
use super::dense_products::{Panels, fill_quads, products};
use super::parameters::{Scales, Weights};
use crate::vector::dot::{add_scaled, load_columns};
use crate::vector::simd::{Kernel, LANES, Simd};
use crate::vector::tile::TILE;

/// Phase one over one block; gives whether all was finite, without which nothing of it counts.
pub struct DenseRows<'a, 'b> {
    /// Parameters.
    pub weights: Weights<'a>,
    /// The same side by side.
    pub panels: &'a Panels,
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
    /// The thread's own.
    pub scratch: &'b mut Scratch,
}

impl Kernel for DenseRows<'_, '_> {
    type Output = bool;

    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> bool {
        if S::ACCUMULATORS >= 16 { self.work::<S, 4, 4, 2, 2>(s) } else { self.work::<S, 2, 2, 1, 1>(s) }
    }
}

impl DenseRows<'_, '_> {
    #[inline(always)]
    fn work<S: Simd, const R: usize, const C: usize, const G: usize, const L: usize>(self, s: S) -> bool {
        let Self { weights, panels, stride, x, scales, derivatives, residual, stats, residual_sums, dense, scratch } =
            self;
        let (rows, n) = (x.len() / stride, weights.bias.len());
        let start = Instant::now();
        dense.rows = rows;
        let size = n.next_multiple_of(LANES) * rows;
        dense.z.resize(size);
        dense.g.resize(if derivatives { size } else { 0 });
        residual.fill(0.0);
        fill_quads(x, stride, &mut scratch.quads);
        // A few groups go through everything while their codes are in the second cache.
        let (features, codes) = (PANEL_GROUPS * LANES, PANEL_GROUPS * LANES * rows);
        let mut encoding = 0.0;
        for (part, z) in dense.z.chunks_mut(codes).enumerate() {
            let start = Instant::now();
            let first = part * features;
            let own = first..(first + features).min(n);
            products::<S, G, L>(s, panel(&panels.encoder, part, stride), &scratch.quads, stride, rows, z);
            if !activate(z, &weights.bias[own.clone()], rows) {
                stats.fill(TileStats::default());
                return false;
            }
            measure(z, rows, stats);
            encoding += start.elapsed().as_secs_f64();
            decode::<S, R, C>(
                s,
                &weights.decoder[own.start * weights.d..own.end * weights.d],
                weights.d,
                z,
                rows,
                residual,
                stride,
            );
        }
        scratch.spent.encode += encoding;
        finish(s, x, stride, scales.error, residual, stats);
        if !stats.iter().all(|tile| tile.sse.is_finite()) {
            stats.fill(TileStats::default());
            return false;
        }
        if derivatives {
            fill_quads(residual, stride, &mut scratch.quads);
            for (part, (g, z)) in dense.g.chunks_mut(codes).zip(dense.z.chunks(codes)).enumerate() {
                products::<S, G, L>(s, panel(&panels.decoder, part, stride), &scratch.quads, stride, rows, g);
                for (g, z) in g.iter_mut().zip(z) {
                    *g = if *z > 0.0 { *g + scales.l1 } else { 0.0 };
                }
            }
        }
        scratch.spent.decode += start.elapsed().as_secs_f64() - encoding;
        for (sums, tile) in residual_sums.chunks_exact_mut(stride).zip(residual.chunks(TILE * stride)) {
            for row in tile.chunks_exact(stride) {
                add_scaled(s, sums, 1.0, row);
            }
        }
        true
    }
}

/// Groups of features whose atoms stay in the first cache while rows are decoded: 32 KB at D = 128.
const PANEL_GROUPS: usize = 4;

fn panel(panels: &[f32], part: usize, stride: usize) -> &[f32] {
    let size = PANEL_GROUPS * LANES * stride;
    &panels[part * size..((part + 1) * size).min(panels.len())]
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

/// Adds what some groups of features give to the reconstructions, R rows and C vectors at a time.
#[inline(always)]
fn decode<S: Simd, const R: usize, const C: usize>(
    s: S,
    atoms: &[f32],
    d: usize,
    z: &[f32],
    rows: usize,
    out: &mut [f32],
    stride: usize,
) {
    let mut v = 0;
    while v * LANES < d {
        let whole = (v + C) * LANES <= d;
        let mut row = 0;
        while row < rows {
            match (row + R <= rows, whole) {
                (true, true) => decode_columns::<S, R, C>(s, atoms, d, z, rows, row, out, stride, v),
                (true, false) => decode_columns::<S, R, 1>(s, atoms, d, z, rows, row, out, stride, v),
                (false, true) => decode_columns::<S, 1, C>(s, atoms, d, z, rows, row, out, stride, v),
                (false, false) => decode_columns::<S, 1, 1>(s, atoms, d, z, rows, row, out, stride, v),
            }
            row += if row + R <= rows { R } else { 1 };
        }
        v += if whole { C } else { 1 };
    }
}

#[inline(always)]
fn decode_columns<S: Simd, const R: usize, const C: usize>(
    s: S,
    atoms: &[f32],
    d: usize,
    z: &[f32],
    rows: usize,
    row: usize,
    out: &mut [f32],
    stride: usize,
    v: usize,
) {
    let (start, end) = (v * LANES, ((v + C) * LANES).min(d));
    let mut acc = [[s.zero(); C]; R];
    for r in 0..R {
        let at = (row + r) * stride + start;
        for c in 0..C {
            acc[r][c] = load_columns(s, &out[at + c * LANES..at + (c + 1) * LANES]);
        }
    }
    for (z, atoms) in z.chunks_exact(rows * LANES).zip(atoms.chunks(LANES * d)) {
        let lines = &z[row * LANES..(row + R) * LANES].as_chunks::<LANES>().0[..R];
        for (i, atom) in atoms.chunks_exact(d).enumerate() {
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
