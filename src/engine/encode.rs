//! Candidates of a block of rows to exact codes, feature by feature: an encoder row is read once per block.
use std::time::Instant;

use super::codes::{Codes, Kept, Scratch, TileStats, grow, lanes, lanes_mut};
use super::parameters::Weights;
use crate::vector::dot::dot4;
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
