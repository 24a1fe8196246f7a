//! Phase one of a step, over rows: candidates to exact codes, decode, residual, and what each code gets of the gradient.
//!
//! A block of rows is worked on feature by feature while codes are computed (an encoder row is read once per block), and
//! row by row while they are decoded. What is left for phase two is in feature order: [`Codes`].
use std::time::Instant;

use super::codes::{Codes, Kept, RowCode, Scratch, TileStats};
use super::parameters::{Scales, Weights};
use crate::vector::dot::{add_scaled, dot4};
use crate::vector::simd::{Kernel, LANES, Simd};
use crate::vector::tile::TILE;

/// Which candidates are codes.
#[derive(Debug, Clone, Copy)]
pub enum Keep<'a> {
    /// Those above this number, which is 0 or more.
    Above(f32),
    /// Those above their feature's threshold, and those that are nearer to it than half a window.
    Jump {
        /// [n].
        theta: &'a [f32],
        /// Half of the window.
        half: f32,
    },
    /// Those above 0, with the value of their magnitude.
    Gated {
        /// [n].
        bias: &'a [f32],
        /// [n].
        magnitude: &'a [f32],
        /// [n]: e^rho.
        gain: &'a [f32],
    },
}

/// Candidates of one block to codes.
pub struct EncodeRows<'a, 'b> {
    /// Parameters.
    pub weights: Weights<'a>,
    /// Floats from one row of `x` to the next: d padded to whole vectors.
    pub stride: usize,
    /// Features from one tile of masks to the next.
    pub mask_stride: usize,
    /// [rows][stride], zeros after d.
    pub x: &'a [f32],
    /// Index of the first row in the batch.
    pub first_row: usize,
    /// Which are kept.
    pub keep: Keep<'a>,
    /// [tiles].
    pub stats: &'b mut [TileStats],
    /// Where the codes go, feature by feature.
    pub codes: &'b mut Codes,
    /// The thread's own: its masks hold the candidates, and it gets the features of the codes.
    pub scratch: &'b mut Scratch,
}

impl Kernel for EncodeRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { weights, stride, mask_stride, x, first_row, keep, stats, codes, scratch } = self;
        let start = Instant::now();
        list_candidates(s, scratch, mask_stride, weights.bias, x.len() / stride, stats);
        multiply(s, &weights, stride, x, scratch);
        match keep {
            Keep::Above(least) => keep_above(s, scratch, codes, first_row as u32, least),
            Keep::Jump { theta, half } => {
                keep_by::<S, false>(s, scratch, codes, first_row as u32, |feature, y| {
                    jump(y, theta[feature as usize], half)
                });
            }
            Keep::Gated { bias, magnitude, gain } => {
                grow(&mut codes.y, scratch.count + 2 * LANES);
                keep_by::<S, true>(s, scratch, codes, first_row as u32, |feature, y| {
                    let j = feature as usize;
                    let m = gain[j] * (y - bias[j]) + magnitude[j];
                    // A NaN is a code: it must reach the loss.
                    (if m <= 0.0 { 0.0 } else { m }, y > 0.0 || y.is_nan())
                });
            }
        }
        scratch.spent.encode += start.elapsed().as_secs_f64();
    }
}

/// What a feature with a threshold gives, and whether that is an entry at all.
#[inline(always)]
fn jump(y: f32, theta: f32, half: f32) -> (f32, bool) {
    let above = y > theta || y.is_nan();
    let below = if y < theta { -0.0 } else { 0.0 };
    (if above { y } else { below }, above || (y - theta).abs() < half)
}

/// Codes of one block in the order of rows; before, those that are not `above` this are dropped, where it is given.
pub struct SortRows<'b> {
    /// Features.
    pub n: usize,
    /// Index of the first row in the batch.
    pub first_row: usize,
    /// Rows.
    pub rows: usize,
    /// Whether the codes have waited for those of other blocks, with their features.
    pub waited: bool,
    /// Those above this are kept; None: all.
    pub above: Option<f32>,
    /// [tiles].
    pub stats: &'b mut [TileStats],
    /// The codes.
    pub codes: &'b mut Codes,
    /// The thread's own, which has the features of the codes and gets the codes row by row.
    pub scratch: &'b mut Scratch,
}

impl Kernel for SortRows<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { n, first_row, rows, waited, above, stats, codes, scratch } = self;
        let start = Instant::now();
        if waited {
            std::mem::swap(&mut scratch.features, &mut codes.features);
        }
        if let Some(least) = above {
            drop_below(s, scratch, codes, least);
        }
        sort_by_row(scratch, codes, n, first_row as u32, rows, stats);
        scratch.spent.encode += start.elapsed().as_secs_f64();
    }
}

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

/// The set bits of the masks, feature by feature; `values` gets the biases that the products are added to.
#[inline(always)]
pub(super) fn list_candidates<S: Simd>(
    s: S,
    scratch: &mut Scratch,
    mask_stride: usize,
    bias: &[f32],
    rows: usize,
    stats: &mut [TileStats],
) {
    let (n, tiles) = (bias.len(), rows.div_ceil(TILE));
    let Scratch { masks, any, kept, places, features, values, .. } = scratch;
    let rest = rows - (tiles - 1) * TILE;
    if rest < TILE {
        let valid =
            [if rest < 32 { (1 << rest) - 1 } else { u32::MAX }, if rest > 32 { (1 << (rest - 32)) - 1 } else { 0 }];
        for mask in &mut masks[(tiles - 1) * mask_stride..][..n] {
            *mask = [mask[0] & valid[0], mask[1] & valid[1]];
        }
    }
    // Most features are kept on no row of the block: `any` finds the others.
    any.clear();
    any.resize(n.next_multiple_of(64), 0);
    for tile in 0..tiles {
        for (any, mask) in any.iter_mut().zip(&masks[tile * mask_stride..tile * mask_stride + n]) {
            *any |= mask[0] | mask[1];
        }
    }
    grow(kept, 64 * tiles);
    let mut at = 0;
    for (block, any) in any.as_chunks::<64>().0.iter().enumerate() {
        let mut bits = 0u64;
        for (bit, any) in any.iter().enumerate() {
            bits |= u64::from(*any != 0) << bit;
        }
        // In two loops that branch on nothing but their ends, since which masks are zero cannot be foreseen.
        let mut count = 0;
        while bits != 0 {
            let feature = block * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            for tile in 0..tiles {
                let mask = masks[tile * mask_stride + feature];
                kept[count] = Kept { feature: feature as u32, tile: tile as u32 };
                count += usize::from(mask[0] | mask[1] != 0);
            }
        }
        for list in [&mut *places, &mut *features] {
            grow(list, at + count * TILE + 2 * LANES);
        }
        grow(values, at + count * TILE + 2 * LANES);
        for Kept { feature, tile } in &kept[..count] {
            let mask = masks[*tile as usize * mask_stride + *feature as usize];
            let mask = u64::from(mask[0]) | (u64::from(mask[1]) << 32);
            let found = s.list_bits(mask, tile * TILE as u32, &mut places[at..]);
            let whole = at..at + found.next_multiple_of(LANES);
            let (features, values) = (&mut features[whole.clone()], &mut values[whole]);
            for (features, values) in features.as_chunks_mut().0.iter_mut().zip(values.as_chunks_mut().0) {
                *features = [*feature; LANES];
                *values = [bias[*feature as usize]; LANES];
            }
            stats[*tile as usize].candidates += found as u64;
            at += found;
        }
    }
    scratch.count = at;
}

/// Adds the dot products of the candidates' rows and features to their values, four at a time.
#[inline(always)]
pub(super) fn multiply<S: Simd>(s: S, weights: &Weights<'_>, stride: usize, x: &[f32], scratch: &mut Scratch) {
    let d = weights.d;
    let Scratch { places, features, values, count, .. } = scratch;
    // A whole last group: what is beyond the candidates is computed and never looked at.
    let whole = count.next_multiple_of(4);
    for list in [&mut *places, &mut *features] {
        grow(list, whole);
    }
    grow(values, whole);
    if let Some(last) = count.checked_sub(1) {
        // Features stay in order: whether four are one is seen from the first and the last.
        let last = features[last];
        features[*count..whole].fill(last);
        places[*count..whole].fill(0);
    }
    let groups = places[..whole].as_chunks::<4>().0.iter().zip(features.as_chunks::<4>().0);
    for ((places, features), values) in groups.zip(values.as_chunks_mut::<4>().0) {
        // SAFETY: `list_candidates` lists rows of `x` and features that there are; where there is any, so is row 0, and
        // what fills the last group up is one of them.
        let (rows, encoders) = unsafe {
            (
                places.map(|place| x.get_unchecked(place as usize * stride..(place as usize + 1) * stride)),
                features.map(|j| weights.encoder.get_unchecked(j as usize * d..(j as usize + 1) * d)),
            )
        };
        // Candidates stand feature by feature: four of one feature read its encoder row once.
        let products =
            if features[0] == features[3] { dot4(s, rows, [encoders[0]; 4]) } else { dot4(s, rows, encoders) };
        for (value, product) in values.iter_mut().zip(products) {
            *value += product;
        }
    }
}

/// Candidates to codes: those with values above `least`.
#[inline(always)]
fn keep_above<S: Simd>(s: S, scratch: &mut Scratch, codes: &mut Codes, first_row: u32, least: f32) {
    let whole = begin_codes(scratch, codes);
    let Scratch { places, features, values, .. } = scratch;
    let mut at = 0;
    for i in (0..whole).step_by(LANES) {
        let (z, rows, of) = (lanes(values, i), lanes(places, i).map(|place| first_row + place), lanes(features, i));
        // A NaN is a code: it must reach the loss.
        let active = s.not_le(s.load(&z), s.splat(least));
        s.compress(&z, active, lanes_mut(&mut codes.z, at));
        s.compress(&rows, active, lanes_mut(&mut codes.rows, at));
        s.compress(&of, active, lanes_mut(features, at));
        at += active.count_ones() as usize;
    }
    codes.count = at;
}

/// Candidates to codes: `give` tells what a feature gives with a pre-activation, and whether it is kept. The
/// pre-activations are kept as well where that is asked for.
#[inline(always)]
fn keep_by<S: Simd, const WITH_Y: bool>(
    s: S,
    scratch: &mut Scratch,
    codes: &mut Codes,
    first_row: u32,
    give: impl Fn(u32, f32) -> (f32, bool),
) {
    let whole = begin_codes(scratch, codes);
    let Scratch { places, features, values, count, .. } = scratch;
    // What is beyond the candidates names a feature that there is.
    features[*count..whole].fill(0);
    let mut at = 0;
    for i in (0..whole).step_by(LANES) {
        let (y, rows, of) = (lanes(values, i), lanes(places, i).map(|place| first_row + place), lanes(features, i));
        let (mut z, mut active) = ([0.0; LANES], 0);
        for lane in 0..LANES {
            let (value, kept) = give(of[lane], y[lane]);
            z[lane] = value;
            active |= u32::from(kept && i + lane < *count) << lane;
        }
        s.compress(&z, active, lanes_mut(&mut codes.z, at));
        s.compress(&rows, active, lanes_mut(&mut codes.rows, at));
        s.compress(&of, active, lanes_mut(features, at));
        if WITH_Y {
            s.compress(&y, active, lanes_mut(&mut codes.y, at));
        }
        at += active.count_ones() as usize;
    }
    codes.count = at;
}

/// Room for as many codes as there are candidates; gives how many those are in whole vectors.
#[inline(always)]
fn begin_codes(scratch: &mut Scratch, codes: &mut Codes) -> usize {
    let Scratch { places, features, values, count, .. } = scratch;
    let whole = count.next_multiple_of(LANES);
    for list in [&mut *places, &mut *features, &mut codes.rows] {
        grow(list, whole + LANES);
    }
    for list in [&mut *values, &mut codes.z] {
        grow(list, whole + LANES);
    }
    // What is beyond the candidates is no code.
    values[*count..whole].fill(0.0);
    whole
}

/// Keeps the codes above `least`.
#[inline(always)]
fn drop_below<S: Simd>(s: S, scratch: &mut Scratch, codes: &mut Codes, least: f32) {
    let whole = codes.count.next_multiple_of(LANES);
    grow(&mut scratch.features, whole + LANES);
    grow(&mut codes.rows, whole + LANES);
    grow(&mut codes.z, whole + LANES);
    codes.z[codes.count..whole].fill(0.0);
    let mut at = 0;
    for i in (0..whole).step_by(LANES) {
        let (z, rows, of) = (lanes(&codes.z, i), lanes(&codes.rows, i), lanes(&scratch.features, i));
        let active = s.not_le(s.load(&z), s.splat(least));
        s.compress(&z, active, lanes_mut(&mut codes.z, at));
        s.compress(&rows, active, lanes_mut(&mut codes.rows, at));
        s.compress(&of, active, lanes_mut(&mut scratch.features, at));
        at += active.count_ones() as usize;
    }
    codes.count = at;
}

#[inline(always)]
fn lanes<T: Copy>(list: &[T], at: usize) -> [T; LANES] {
    *list[at..].first_chunk().expect("room for whole vectors")
}

#[inline(always)]
fn lanes_mut<T>(list: &mut [T], at: usize) -> &mut [T; LANES] {
    list[at..].first_chunk_mut().expect("room for whole vectors")
}

/// Makes a buffer at least `len` long; what is new in it is of no use.
#[inline(always)]
pub(super) fn grow<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) {
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

/// Lists where the codes of each row are, in the order of features, and where those of each feature begin; sums and
/// counts them.
#[inline(always)]
fn sort_by_row(
    scratch: &mut Scratch,
    codes: &mut Codes,
    n: usize,
    first_row: u32,
    rows: usize,
    stats: &mut [TileStats],
) {
    let Scratch { features, row_starts, by_row, .. } = scratch;
    let Codes { starts, count, rows: row_of, z, .. } = codes;
    let (row_of, features, z) = (&row_of[..*count], &features[..*count], &z[..*count]);
    starts.clear();
    starts.resize(n + 1, 0);
    row_starts.clear();
    row_starts.resize(rows + 1, 0);
    for ((row, feature), at) in row_of.iter().zip(features).zip(1..) {
        row_starts[(row - first_row) as usize + 1] += 1;
        // Every feature's end is where its last code leaves it; a feature without codes ends where the one before does.
        starts[*feature as usize + 1] = at;
    }
    let mut end = 0;
    for start in starts {
        end = end.max(*start);
        *start = end;
    }
    prefix_sums(row_starts);
    grow(by_row, *count);
    for (((row, feature), z), at) in row_of.iter().zip(features).zip(z).zip(0..) {
        let row = (row - first_row) as usize;
        let next = &mut row_starts[row];
        by_row[*next as usize] = RowCode { feature: *feature, at, z: *z };
        *next += 1;
        let tile = &mut stats[row / TILE];
        tile.l1[*feature as usize % LANES] += f64::from(*z);
        tile.l0 += u64::from(*z > 0.0);
        tile.codes += 1;
    }
    // Every start has moved to the next row's: move them back.
    row_starts.copy_within(0..rows, 1);
    row_starts[0] = 0;
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
