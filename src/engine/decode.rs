//! Codes of a block to reconstructions, row by row: residual, and what each code of a `ReLU` dictionary gets of the gradient.
use std::time::Instant;

use super::codes::{Codes, RowCode, Scratch, TileStats, grow};
use super::parameters::{Scales, Weights};
use crate::vector::dot::add_scaled;
use crate::vector::dot::dot4;
use crate::vector::simd::{Kernel, LANES, Simd};
use crate::vector::tile::TILE;

/// The reconstruction of one block from the codes that [`SortRows`] left, and what each of them gets of the gradient.
pub struct DecodeRows<'a, 'b> {
    /// Parameters.
    pub weights: Weights<'a>,
    /// Floats from one row of `x` and `residual` to the next: d padded to whole vectors.
    pub stride: usize,
    /// [rows][stride], zeros after d.
    pub x: &'a [f32],
    /// Scales of the loss.
    pub scales: Scales,
    /// Whether derivatives are wanted: no for an evaluation.
    pub derivatives: bool,
    /// [rows][stride]: the derivative of the loss by the reconstruction.
    pub residual: &'b mut [f32],
    /// [tiles].
    pub stats: &'b mut [TileStats],
    /// [tiles][stride]: sums of the residual's rows, where wanted (for the pre-bias); else empty.
    pub residual_sums: &'b mut [f32],
    /// The codes, which get their derivatives.
    pub codes: &'b mut Codes,
    /// The thread's own.
    pub scratch: &'b mut Scratch,
}

impl Kernel for DecodeRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { weights, stride, x, scales, derivatives, residual, stats, residual_sums, codes, scratch } = self;
        let start = Instant::now();
        grow(&mut codes.g, codes.count);
        for row in 0..x.len() / stride {
            let places = &scratch.by_row[scratch.row_starts[row] as usize..scratch.row_starts[row + 1] as usize];
            let at = row * stride..(row + 1) * stride;
            let residual = &mut residual[at.clone()];
            let tile = row / TILE;
            stats[tile].sse += f64::from(decode(s, &weights, places, &x[at], scales.error, residual));
            if derivatives {
                derive(s, &weights, places, residual, scales.l1, &mut codes.g);
            }
            if !residual_sums.is_empty() {
                add_scaled(s, &mut residual_sums[tile * stride..(tile + 1) * stride], 1.0, residual);
            }
        }
        scratch.spent.decode += start.elapsed().as_secs_f64();
    }
}

/// Reconstructs a row, writes its scaled residual, and gives the squared error.
#[inline(always)]
pub(super) fn decode<S: Simd>(
    s: S,
    weights: &Weights<'_>,
    places: &[RowCode],
    x: &[f32],
    scale: f32,
    residual: &mut [f32],
) -> f32 {
    let whole = weights.d / LANES;
    let mut squares = s.zero();
    let mut v = 0;
    macro_rules! columns {
        ($count:literal) => {
            while whole - v >= $count {
                let start = decode_columns::<S, $count>(s, weights, places, v);
                squares = finish_columns::<S, $count>(s, start, x, scale, residual, squares, v);
                v += $count;
            }
        };
    }
    if S::ACCUMULATORS >= 8 {
        columns!(8);
    }
    columns!(4);
    columns!(2);
    columns!(1);
    if !weights.d.is_multiple_of(LANES) {
        let mut acc = s.zero();
        for place in places {
            let rest = &weights.atom(place.feature)[whole * LANES..];
            acc = s.fma(s.splat(place.z), s.load_part(rest), acc);
        }
        squares = finish_columns::<S, 1>(s, [acc], x, scale, residual, squares, whole);
    }
    s.sum(squares)
}

#[inline(always)]
fn decode_columns<S: Simd, const C: usize>(s: S, weights: &Weights<'_>, places: &[RowCode], v: usize) -> [S::V; C] {
    let mut acc = [s.zero(); C];
    for place in places {
        let z = s.splat(place.z);
        let atom = &weights.atom(place.feature)[v * LANES..(v + C) * LANES];
        for (acc, atom) in acc.iter_mut().zip(atom.as_chunks::<LANES>().0) {
            *acc = s.fma(z, s.load(atom), *acc);
        }
    }
    acc
}

#[inline(always)]
fn finish_columns<S: Simd, const C: usize>(
    s: S,
    reconstruction: [S::V; C],
    x: &[f32],
    scale: f32,
    residual: &mut [f32],
    mut squares: S::V,
    v: usize,
) -> S::V {
    let x = x[v * LANES..(v + C) * LANES].as_chunks::<LANES>().0;
    let residual = residual[v * LANES..(v + C) * LANES].as_chunks_mut::<LANES>().0;
    let scale = s.splat(scale);
    for i in 0..C {
        let r = s.sub(reconstruction[i], s.load(&x[i]));
        squares = s.fma(r, r, squares);
        s.store(s.mul(r, scale), &mut residual[i]);
    }
    squares
}

/// dL/dz of a row's codes: the residual along their atoms, and the L1 term.
#[inline(always)]
fn derive<S: Simd>(s: S, weights: &Weights<'_>, places: &[RowCode], residual: &[f32], l1: f32, g: &mut [f32]) {
    for four in places.chunks(4) {
        let of = |i: usize| four.get(i).unwrap_or(&four[0]);
        let atoms = [0, 1, 2, 3].map(|i| weights.atom(of(i).feature));
        let products = dot4(s, [residual; 4], atoms);
        for (place, product) in four.iter().zip(products) {
            g[place.at as usize] = product + l1;
        }
    }
}
