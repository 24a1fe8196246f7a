//! Phase one of a step, over rows: candidates to exact codes, decode, residual, and what each code gets of the gradient.
//!
//! A block of rows is worked on feature by feature while codes are computed (an encoder row is read once per block), and
//! row by row while they are decoded. What is left for phase two is in feature order: [`Codes`].

use std::time::Instant;

use super::dense::Dense;
use super::features::{Sums, add_scaled};
use super::screen::{Mask, TILE};
use super::simd::{Kernel, LANES, Simd, dot4};

/// A code that is not zero: z of a feature on a row, and the derivative of the loss by it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Code {
    /// Row of the batch.
    pub row: u32,
    /// Its value, above 0 or NaN.
    pub z: f32,
    /// dL/dz.
    pub g: f32,
}

/// The codes of one block of rows: feature by feature, a feature's rows in order.
#[derive(Debug, Default)]
pub struct Codes {
    /// [n + 1]: where the codes of each feature begin.
    pub starts: Vec<u32>,
    /// The codes, and room for more.
    pub list: Vec<Code>,
    count: usize,
    /// The same codes with all zeros between them, where they are many.
    pub dense: Dense,
    /// Whether `dense` holds them.
    pub is_dense: bool,
}

impl Codes {
    /// The codes of feature `j`.
    #[inline(always)]
    #[must_use]
    pub fn feature(&self, j: usize) -> &[Code] {
        &self.list[self.starts[j] as usize..self.starts[j + 1] as usize]
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.starts.capacity() * size_of::<u32>() + self.list.capacity() * size_of::<Code>() + self.dense.bytes()
    }
}

/// What a thread needs while it works on a block; kept from one to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    /// [tiles][features]: candidate rows, a bit each.
    pub masks: Vec<Mask>,
    any: Vec<u32>,
    candidates: Vec<Place>,
    count: usize,
    values: Vec<f32>,
    features: Vec<u32>,
    row_starts: Vec<u32>,
    by_row: Vec<RowCode>,
    /// Gradients of the features that it works on, where they do not outlive the phase.
    pub sums: Sums,
    /// Time that this thread has spent.
    pub spent: Spent,
}

/// Seconds of one thread in the parts of phase one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Masks.
    pub screen: f64,
    /// Candidates listed and computed exactly, codes sorted.
    pub encode: f64,
    /// Reconstruction, residual, derivatives.
    pub decode: f64,
}

impl Scratch {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.masks.capacity() * size_of::<Mask>()
            + self.any.capacity() * size_of::<u32>()
            + self.candidates.capacity() * size_of::<Place>()
            + self.by_row.capacity() * size_of::<RowCode>()
            + self.sums.bytes()
            + (self.features.capacity() + self.row_starts.capacity() + self.values.capacity()) * size_of::<u32>()
    }
}

/// A feature and a row of the block.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    feature: u32,
    at: u32,
}

/// A code of a row: its feature, its value, and where it is among the block's codes.
#[derive(Debug, Clone, Copy, Default)]
struct RowCode {
    feature: u32,
    at: u32,
    z: f32,
}

/// Sums over a tile's rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct TileStats {
    /// Squared error.
    pub sse: f64,
    /// Codes, those of feature j in lane j % 16: a sum that vectors can add in the same order.
    pub l1: [f64; LANES],
    /// Codes above zero.
    pub l0: u64,
    /// Candidates that were computed exactly.
    pub candidates: u64,
}

/// One dictionary's parameters, as phase one reads them.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// D.
    pub d: usize,
    /// [n][d].
    pub encoder: &'a [f32],
    /// [n].
    pub bias: &'a [f32],
    /// [n][d].
    pub decoder: &'a [f32],
}

impl Weights<'_> {
    #[inline(always)]
    fn atom(&self, j: u32) -> &[f32] {
        let at = j as usize * self.d;
        &self.decoder[at..at + self.d]
    }
}

/// The scales of the loss.
#[derive(Debug, Clone, Copy)]
pub struct Scales {
    /// Derivative of the loss by the squared error, times 2.
    pub error: f32,
    /// Derivative of the loss by a code through the L1 term.
    pub l1: f32,
}

/// Phase one over one block; `scratch.masks` holds the candidates.
pub struct RowsKernel<'a, 'b> {
    /// Parameters.
    pub weights: Weights<'a>,
    /// Floats from one row of `x` and `residual` to the next: d padded to whole vectors.
    pub stride: usize,
    /// Features from one tile of masks to the next.
    pub mask_stride: usize,
    /// [rows][stride], zeros after d.
    pub x: &'a [f32],
    /// Index of the first row in the batch.
    pub first_row: usize,
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
    /// Where the codes go.
    pub codes: &'b mut Codes,
    /// The thread's own.
    pub scratch: &'b mut Scratch,
}

impl Kernel for RowsKernel<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { weights, stride, mask_stride, x, first_row, scales, derivatives, .. } = self;
        let Self { residual, stats, residual_sums, codes, scratch, .. } = self;
        let rows = x.len() / stride;
        let start = Instant::now();
        list_candidates(scratch, mask_stride, weights.bias.len(), rows, stats);
        encode(s, &weights, stride, x, codes, scratch, first_row as u32, rows);
        sort_by_row(codes, scratch, first_row as u32, rows);
        measure(codes, &scratch.features, first_row as u32, stats);
        let encoded = Instant::now();
        scratch.spent.encode += (encoded - start).as_secs_f64();
        for row in 0..rows {
            let places = &scratch.by_row[scratch.row_starts[row] as usize..scratch.row_starts[row + 1] as usize];
            let at = row * stride..(row + 1) * stride;
            let residual = &mut residual[at.clone()];
            let stats = &mut stats[row / TILE];
            stats.sse += f64::from(decode(s, &weights, places, &x[at], scales.error, residual));
            if derivatives {
                derive(s, &weights, places, residual, scales.l1, &mut codes.list);
            }
            if !residual_sums.is_empty() {
                let tile = row / TILE;
                add_scaled(s, &mut residual_sums[tile * stride..(tile + 1) * stride], 1.0, residual);
            }
        }
        scratch.spent.decode += encoded.elapsed().as_secs_f64();
    }
}

/// The set bits of the masks, feature by feature.
#[inline(always)]
fn list_candidates(scratch: &mut Scratch, mask_stride: usize, n: usize, rows: usize, stats: &mut [TileStats]) {
    let tiles = rows.div_ceil(TILE);
    let (last, rest) = ((tiles - 1) * mask_stride, rows - (tiles - 1) * TILE);
    if rest < TILE {
        let valid =
            [if rest < 32 { (1 << rest) - 1 } else { u32::MAX }, if rest > 32 { (1 << (rest - 32)) - 1 } else { 0 }];
        for mask in &mut scratch.masks[last..last + n] {
            *mask = [mask[0] & valid[0], mask[1] & valid[1]];
        }
    }
    // Most features are kept on no row of the block: `any` finds the others, 64 at a time.
    let any = &mut scratch.any;
    any.clear();
    any.resize(n.next_multiple_of(64), 0);
    for tile in 0..tiles {
        for (any, mask) in any.iter_mut().zip(&scratch.masks[tile * mask_stride..tile * mask_stride + n]) {
            *any |= mask[0] | mask[1];
        }
    }
    let list = &mut scratch.candidates;
    let mut at = 0;
    for (block, any) in any.as_chunks::<64>().0.iter().enumerate() {
        let mut kept = 0u64;
        for (bit, any) in any.iter().enumerate() {
            kept |= u64::from(*any != 0) << bit;
        }
        while kept != 0 {
            let j = block * 64 + kept.trailing_zeros() as usize;
            kept &= kept - 1;
            grow(list, at + tiles * TILE + 4);
            for (tile, stats) in stats.iter_mut().enumerate() {
                let mask = scratch.masks[tile * mask_stride + j];
                let mut mask = u64::from(mask[0]) | (u64::from(mask[1]) << 32);
                stats.candidates += u64::from(mask.count_ones());
                while mask != 0 {
                    list[at] = Place { feature: j as u32, at: (tile * TILE) as u32 + mask.trailing_zeros() };
                    at += 1;
                    mask &= mask - 1;
                }
            }
        }
    }
    scratch.count = at;
}

/// Candidates to codes: their values, four dot products at a time, then those above zero.
#[inline(always)]
fn encode<S: Simd>(
    s: S,
    weights: &Weights<'_>,
    stride: usize,
    x: &[f32],
    out: &mut Codes,
    scratch: &mut Scratch,
    first_row: u32,
    rows: usize,
) {
    let (d, n) = (weights.d, weights.bias.len());
    let Scratch { candidates, count, values, features, row_starts, .. } = scratch;
    let count = *count;
    let row_of = |place: &Place| &x[place.at as usize * stride..(place.at as usize + 1) * stride];
    let encoder_of = |place: &Place| &weights.encoder[place.feature as usize * d..(place.feature as usize + 1) * d];
    // A whole last group: what is beyond the candidates is computed and never looked at.
    let whole = count.next_multiple_of(4);
    candidates[count..whole].fill(Place::default());
    grow(values, whole);
    let groups = candidates[..whole].as_chunks::<4>().0;
    for (four, values) in groups.iter().zip(values.as_chunks_mut::<4>().0) {
        *values = dot4(
            s,
            [row_of(&four[0]), row_of(&four[1]), row_of(&four[2]), row_of(&four[3])],
            [encoder_of(&four[0]), encoder_of(&four[1]), encoder_of(&four[2]), encoder_of(&four[3])],
        );
    }
    grow(&mut out.list, count);
    grow(features, count);
    out.starts.clear();
    out.starts.resize(n + 1, 0);
    row_starts.clear();
    row_starts.resize(rows + 1, 0);
    let mut at = 0;
    for (place, value) in candidates[..count].iter().zip(values.iter()) {
        let z = value + weights.bias[place.feature as usize];
        // Written whether it is a code or not: the next one takes its place. A NaN is a code: it must reach the loss.
        #[allow(clippy::neg_cmp_op_on_partial_ord)]
        let active = u32::from(!(z <= 0.0));
        out.list[at] = Code { row: first_row + place.at, z, g: 0.0 };
        features[at] = place.feature;
        // Every feature's end is where its last candidate left it.
        out.starts[place.feature as usize + 1] = at as u32 + active;
        row_starts[place.at as usize + 1] += active;
        at += active as usize;
    }
    out.count = at;
    // A feature without candidates ends where the one before it does.
    let mut end = 0;
    for start in &mut out.starts {
        end = end.max(*start);
        *start = end;
    }
    prefix_sums(row_starts);
}

/// Makes a buffer at least `len` long; what it held is of no use.
#[inline(always)]
fn grow<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len.next_power_of_two(), T::default());
    }
}

#[inline(always)]
fn prefix_sums(counts: &mut [u32]) {
    let mut sum = 0;
    for count in counts {
        sum += *count;
        *count = sum;
    }
}

/// Lists where the codes of each row are, in the order of features.
#[inline(always)]
fn sort_by_row(codes: &Codes, scratch: &mut Scratch, first_row: u32, rows: usize) {
    let Scratch { features, row_starts, by_row, .. } = scratch;
    grow(by_row, codes.count);
    for (at, (code, feature)) in codes.list[..codes.count].iter().zip(features.iter()).enumerate() {
        let next = &mut row_starts[(code.row - first_row) as usize];
        by_row[*next as usize] = RowCode { feature: *feature, at: at as u32, z: code.z };
        *next += 1;
    }
    // Every start has moved to the next row's: move them back.
    row_starts.copy_within(0..rows, 1);
    row_starts[0] = 0;
}

/// Sums and counts of the codes.
#[inline(always)]
fn measure(codes: &Codes, features: &[u32], first_row: u32, stats: &mut [TileStats]) {
    for (code, feature) in codes.list[..codes.count].iter().zip(features) {
        let tile = &mut stats[(code.row - first_row) as usize / TILE];
        tile.l1[*feature as usize % LANES] += f64::from(code.z);
        tile.l0 += u64::from(code.z > 0.0);
    }
}

/// Reconstructs a row, writes its scaled residual, and gives the squared error.
#[inline(always)]
fn decode<S: Simd>(
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
fn derive<S: Simd>(s: S, weights: &Weights<'_>, places: &[RowCode], residual: &[f32], l1: f32, codes: &mut [Code]) {
    for four in places.chunks(4) {
        let of = |i: usize| four.get(i).unwrap_or(&four[0]);
        let atoms = [0, 1, 2, 3].map(|i| weights.atom(of(i).feature));
        let products = dot4(s, [residual; 4], atoms);
        for (place, product) in four.iter().zip(products) {
            codes[place.at as usize].g = product + l1;
        }
    }
}
