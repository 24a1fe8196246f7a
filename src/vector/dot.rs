//! Rows multiplied and added: the one order of additions that every instruction set keeps to.

use super::simd::{LANES, Simd};

/// Up to sixteen lanes, the others 0.
#[inline(always)]
pub fn load_columns<S: Simd>(s: S, from: &[f32]) -> S::V {
    match from.first_chunk::<LANES>() {
        Some(lanes) => s.load(lanes),
        None => s.load_part(from),
    }
}

/// The dot product of two rows of equal length, of which `a` may be padded with zeros to whole vectors. The one order
/// of additions that every instruction set keeps to: a lane's terms in order, then the tree of [`Simd::sum`].
#[inline(always)]
pub fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    s.sum(dot_lanes(s, a, b))
}

/// The lanes of [`dot`] before they are added.
#[inline(always)]
pub fn dot_lanes<S: Simd>(s: S, a: &[f32], b: &[f32]) -> S::V {
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    let a_whole = a.as_chunks::<LANES>().0;
    let mut acc = s.zero();
    for (a, b) in a_whole.iter().zip(b_whole) {
        acc = s.fma(s.load(a), s.load(b), acc);
    }
    if !b_rest.is_empty() {
        let start = b_whole.len() * LANES;
        acc = s.fma(s.load_part(&a[start..start + b_rest.len()]), s.load_part(b_rest), acc);
    }
    acc
}

/// Four dot products, in the order of [`dot`].
#[inline(always)]
#[allow(clippy::needless_range_loop)] // four arrays are walked at once
pub fn dot4<S: Simd>(s: S, a: [&[f32]; 4], b: [&[f32]; 4]) -> [f32; 4] {
    let d = b[0].len();
    let b = b.map(|b| b[..d].as_chunks::<LANES>());
    let mut acc = [s.zero(); 4];
    let whole = d / LANES;
    let a_whole = a.map(|a| &a.as_chunks::<LANES>().0[..whole]);
    // Eight vectors at a time, with no loop over them.
    let (a_long, b_long) = (a_whole.map(|a| a.as_chunks::<8>()), b.map(|b| b.0.as_chunks::<8>()));
    for v in 0..whole / 8 {
        let (a, b) = (a_long.map(|a| &a.0[v]), b_long.map(|b| &b.0[v]));
        for w in 0..8 {
            for i in 0..4 {
                acc[i] = s.fma(s.load(&a[i][w]), s.load(&b[i][w]), acc[i]);
            }
        }
    }
    for v in 0..whole % 8 {
        for i in 0..4 {
            acc[i] = s.fma(s.load(&a_long[i].1[v]), s.load(&b_long[i].1[v]), acc[i]);
        }
    }
    if !d.is_multiple_of(LANES) {
        for i in 0..4 {
            acc[i] = s.fma(s.load_part(&a[i][whole * LANES..d]), s.load_part(b[i].1), acc[i]);
        }
    }
    s.sum4(acc)
}

/// out += factor * row.
#[inline(always)]
pub fn add_scaled<S: Simd>(s: S, out: &mut [f32], factor: f32, row: &[f32]) {
    let factor = s.splat(factor);
    let (out_whole, out_rest) = out.as_chunks_mut::<LANES>();
    let (row_whole, row_rest) = row.as_chunks::<LANES>();
    for (out, row) in out_whole.iter_mut().zip(row_whole) {
        s.store(s.fma(factor, s.load(row), s.load(out)), out);
    }
    if !out_rest.is_empty() {
        s.store_part(s.fma(factor, s.load_part(row_rest), s.load_part(out_rest)), out_rest);
    }
}

/// row *= by.
#[inline(always)]
pub fn scale<S: Simd>(s: S, row: &mut [f32], by: f32) {
    let by = s.splat(by);
    let (whole, rest) = row.as_chunks_mut::<LANES>();
    for row in whole {
        s.store(s.mul(s.load(row), by), row);
    }
    if !rest.is_empty() {
        s.store_part(s.mul(s.load_part(rest), by), rest);
    }
}
