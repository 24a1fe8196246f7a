//! One head of one sequence. E is its width; T its positions, in blocks of as many as a vector has lanes.
#![allow(clippy::inline_always)]
use std::f32::consts::LOG2_E;

use super::shape::Shape;
use crate::cpu::Level;
use crate::vector::dispatch::run;
use crate::vector::simd::{Vectors, WideKernel};

/// Keys whose scores are held at once, between two looks at the running maximum.
const KEYS: usize = 16;

/// Memory for one head, reused by the next.
#[derive(Default)]
pub struct Scratch {
    /// Rows [T][E] of queries (times a log2 e), keys, values and output gradients.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dz: Vec<f32>,
    /// dz . z of each position.
    dot: Vec<f32>,
    /// Results [T][E], before they are put among those of the other heads.
    out: [Vec<f32>; 3],
}

/// `z` [T,C] (the columns of head `h`) and `lse` [T] from `qkv` [T,3C].
pub fn forward(
    level: Level,
    shape: Shape,
    h: usize,
    qkv: &[f32],
    z: &mut [f32],
    lse: &mut [f32],
    scratch: &mut Scratch,
) {
    scratch.read(shape, h, qkv);
    let [q, k, v] = [&scratch.q, &scratch.k, &scratch.v];
    let out = &mut scratch.out[0];
    out.resize(q.len(), 0.0);
    run(level, Forward { width: shape.width, q, k, v, z: out, lse });
    put(out, shape.width, z, shape.heads * shape.width, h * shape.width, 1.0);
}

/// `dqkv` [T,3C] (the columns of head `h`) from [qkv [T,3C], z [T,C], lse [T], dz [T,C]].
pub fn backward(level: Level, shape: Shape, h: usize, given: [&[f32]; 4], dqkv: &mut [f32], scratch: &mut Scratch) {
    let [qkv, z, lse, dz] = given;
    let (width, row) = (shape.width, shape.heads * shape.width);
    scratch.read(shape, h, qkv);
    take(dz, width, row, h * width, 1.0, &mut scratch.dz);
    scratch.dot.clear();
    for (dz, z) in scratch.dz.chunks_exact(width).zip(z.chunks_exact(row)) {
        scratch.dot.push(dz.iter().zip(&z[h * width..]).map(|(a, b)| a * b).sum());
    }
    let Scratch { q, k, v, dz, dot, out } = scratch;
    for out in out.iter_mut() {
        out.resize(q.len(), 0.0);
    }
    let given = Given { q, k, v, dz, dot, lse };
    run(level, Backward { width, given, out });
    let scale = 1.0 / (width as f32).sqrt();
    // q was multiplied by scale * log2 e: dk already has the scale, and log2 e too many.
    for (part, factor) in [scale, 1.0 / LOG2_E, 1.0].into_iter().enumerate() {
        put(&out[part], width, dqkv, 3 * row, part * row + h * width, factor);
    }
}

impl Scratch {
    fn read(&mut self, shape: Shape, h: usize, qkv: &[f32]) {
        let (width, row) = (shape.width, shape.heads * shape.width);
        take(qkv, width, 3 * row, h * width, LOG2_E / (width as f32).sqrt(), &mut self.q);
        take(qkv, width, 3 * row, row + h * width, 1.0, &mut self.k);
        take(qkv, width, 3 * row, 2 * row + h * width, 1.0, &mut self.v);
    }
}

/// Columns `at` .. `at + width` of rows of `stride`, times `factor`, as [T][width].
fn take(from: &[f32], width: usize, stride: usize, at: usize, factor: f32, to: &mut Vec<f32>) {
    to.resize(from.len() / stride * width, 0.0);
    match width {
        4 => copy_columns::<4>(from, (stride, at), to, (width, 0), factor),
        8 => copy_columns::<8>(from, (stride, at), to, (width, 0), factor),
        _ => copy_columns::<16>(from, (stride, at), to, (width, 0), factor),
    }
}

/// The reverse of `take`.
fn put(from: &[f32], width: usize, to: &mut [f32], stride: usize, at: usize, factor: f32) {
    match width {
        4 => copy_columns::<4>(from, (width, 0), to, (stride, at), factor),
        8 => copy_columns::<8>(from, (width, 0), to, (stride, at), factor),
        _ => copy_columns::<16>(from, (width, 0), to, (stride, at), factor),
    }
}

/// E columns of every row, times `factor`; places are (stride, first column). A width known when this is compiled makes
/// a row one or two vectors instead of a loop.
fn copy_columns<const E: usize>(
    from: &[f32],
    source: (usize, usize),
    to: &mut [f32],
    target: (usize, usize),
    factor: f32,
) {
    for (from, to) in from.chunks_exact(source.0).zip(to.chunks_exact_mut(target.0)) {
        let (from, to) = (&from[source.1..][..E], &mut to[target.1..][..E]);
        for e in 0..E {
            to[e] = from[e] * factor;
        }
    }
}

/// What the backward pass of a head reads; names as in `Scratch`.
struct Given<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    dz: &'a [f32],
    dot: &'a [f32],
    lse: &'a [f32],
}

/// A head's `z` and `lse`; `q`, `k`, `v` and `z` are [T][width] for the T of `lse`.
struct Forward<'a> {
    width: usize,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    z: &'a mut [f32],
    lse: &'a mut [f32],
}

impl WideKernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Vectors>(self, s: S) {
        let Self { width, q, k, v, z, lse } = self;
        assert!([q, k, v, z].iter().all(|rows| rows.len() == lse.len() * width));
        // SAFETY: all have as many rows.
        unsafe {
            match width {
                4 => forward_head::<S, 4>(s, q, k, v, z, lse),
                8 => forward_head::<S, 8>(s, q, k, v, z, lse),
                _ => forward_head::<S, 16>(s, q, k, v, z, lse),
            }
        }
    }
}

/// A head's gradients.
struct Backward<'a> {
    width: usize,
    given: Given<'a>,
    out: &'a mut [Vec<f32>; 3],
}

impl WideKernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Vectors>(self, s: S) {
        let Self { width, given, out } = self;
        let Given { q, k, v, dz, dot, lse } = given;
        assert!([q, k, v, dz].iter().all(|rows| rows.len() == lse.len() * width) && dot.len() == lse.len());
        // SAFETY: all have as many rows.
        unsafe {
            match width {
                4 => backward_head::<S, 4>(s, &given, out),
                8 => backward_head::<S, 8>(s, &given, out),
                _ => backward_head::<S, 16>(s, &given, out),
            }
        }
    }
}

/// Rows `start` .. of [T][E] as E vectors over positions; zero past the end.
#[inline(always)]
fn transposed<S: Vectors, const E: usize>(s: S, rows: &[f32], start: usize) -> [S::V; E] {
    let mut lanes = [[0.0f32; 16]; E];
    for (lane, row) in rows[start * E..].chunks_exact(E).take(S::WIDTH).enumerate() {
        for (to, &x) in lanes.iter_mut().zip(row) {
            to[lane] = x;
        }
    }
    // SAFETY: WIDTH is at most 16.
    unsafe { lanes.map(|lane| s.read(lane.as_ptr())) }
}

/// Writes E vectors over positions back as rows `start` .. of [T][E].
#[inline(always)]
fn write_rows<S: Vectors, const E: usize>(s: S, vectors: &[S::V; E], rows: &mut [f32], start: usize) {
    let mut lanes = [[0.0f32; 16]; E];
    for (lane, &vector) in lanes.iter_mut().zip(vectors) {
        *lane = s.lanes(vector);
    }
    for (lane, row) in rows[start * E..].chunks_exact_mut(E).take(S::WIDTH).enumerate() {
        for (x, from) in row.iter_mut().zip(&lanes) {
            *x = from[lane];
        }
    }
}

/// `count` values from `start` on as one vector, zero past the end.
#[inline(always)]
fn vector_at<S: Vectors>(s: S, values: &[f32], start: usize) -> S::V {
    let mut lanes = [0.0f32; 16];
    let count = S::WIDTH.min(values.len() - start);
    lanes[..count].copy_from_slice(&values[start..start + count]);
    // SAFETY: WIDTH is at most 16.
    unsafe { s.read(lanes.as_ptr()) }
}

/// Sum of products of E vectors with one row of E numbers, added to `sum`.
#[inline(always)]
unsafe fn dot<S: Vectors, const E: usize>(s: S, vectors: &[S::V; E], row: *const f32, sum: S::V) -> S::V {
    let mut sum = sum;
    for (e, vector) in vectors.iter().enumerate() {
        // SAFETY: the row has E numbers.
        sum = unsafe { s.mul_add(*vector, s.splat(*row.add(e)), sum) };
    }
    sum
}

/// `sums` += weight * row, for each of E numbers.
#[inline(always)]
unsafe fn accumulate<S: Vectors, const E: usize>(s: S, sums: &mut [S::V; E], weight: S::V, row: *const f32) {
    for (e, sum) in sums.iter_mut().enumerate() {
        // SAFETY: the row has E numbers.
        *sum = unsafe { s.mul_add(weight, s.splat(*row.add(e)), *sum) };
    }
}

/// What a score and its exponential get in lanes that may not be seen: minus infinity is added to the one (so that it
/// is not large), the other is multiplied by 0 (so that it is exactly 0: 2^-126 times a small gradient would be a
/// subnormal number, and processors take a hundred times as long for these).
#[derive(Clone, Copy)]
struct Mask<V> {
    add: V,
    factor: V,
}

/// 16 lanes unseen, 16 seen, 16 unseen: a mask is a window of it.
static MASKS: [[f32; 48]; 2] = {
    let mut masks = [[f32::NEG_INFINITY; 48], [0.0; 48]];
    let mut lane = 16;
    while lane < 32 {
        masks[0][lane] = 0.0;
        masks[1][lane] = 1.0;
        lane += 1;
    }
    masks
};

impl<V: Copy> Mask<V> {
    /// Lanes from `first` (at most 16) on are seen.
    #[inline(always)]
    fn from_lane<S: Vectors<V = V>>(s: S, first: usize) -> Self {
        // SAFETY: a window of 16 from 0 .. 16.
        unsafe { Self::window(s, 16 - first.min(16)) }
    }

    /// Lanes up to `last` are seen.
    #[inline(always)]
    fn to_lane<S: Vectors<V = V>>(s: S, last: usize) -> Self {
        // SAFETY: a window of 16 from 16 .. 32.
        unsafe { Self::window(s, 31 - last.min(15)) }
    }

    #[inline(always)]
    unsafe fn window<S: Vectors<V = V>>(s: S, start: usize) -> Self {
        // SAFETY: the caller's start leaves 16.
        unsafe { Self { add: s.read(MASKS[0].as_ptr().add(start)), factor: s.read(MASKS[1].as_ptr().add(start)) } }
    }

    #[inline(always)]
    fn exp2<S: Vectors<V = V>>(self, s: S, score: V) -> V {
        s.mul(s.exp2(s.add(score, self.add)), self.factor)
    }
}

#[inline(always)]
unsafe fn forward_head<S: Vectors, const E: usize>(
    s: S,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    z: &mut [f32],
    lse: &mut [f32],
) {
    let positions = lse.len();
    // SAFETY: rows below `positions` exist.
    unsafe {
        let mut scores = [s.zero(); KEYS];
        for start in (0..positions).step_by(S::WIDTH) {
            let queries: [S::V; E] = transposed(s, q, start);
            let mut maximum = s.splat(f32::NEG_INFINITY);
            let mut total = s.zero();
            let mut sums = [s.zero(); E];
            let end = positions.min(start + S::WIDTH);
            for first in (0..end).step_by(KEYS) {
                let count = KEYS.min(end - first);
                let (k, v) = (k.as_ptr().add(first * E), v.as_ptr().add(first * E));
                for (i, score) in scores[..count].iter_mut().enumerate() {
                    *score = dot(s, &queries, k.add(i * E), s.zero());
                }
                // A query sees its own position and those before.
                for (i, score) in scores[..count].iter_mut().enumerate().skip((start + 1).saturating_sub(first)) {
                    *score = s.add(*score, Mask::from_lane(s, first + i - start).add);
                }
                let new = scores[..count].iter().fold(maximum, |most, score| s.max(most, *score));
                let rescale = s.exp2(s.sub(maximum, new));
                maximum = new;
                total = s.mul(total, rescale);
                for score in &mut scores[..count] {
                    *score = s.exp2(s.sub(*score, maximum));
                    total = s.add(total, *score);
                }
                for sum in &mut sums {
                    *sum = s.mul(*sum, rescale);
                }
                for (i, p) in scores[..count].iter().enumerate() {
                    accumulate(s, &mut sums, *p, v.add(i * E));
                }
            }
            let (mut maxima, mut totals) = ([0.0f32; 16], [1.0f32; 16]);
            s.write(maximum, maxima.as_mut_ptr());
            s.write(total, totals.as_mut_ptr());
            for (lane, lse) in lse[start..end].iter_mut().enumerate() {
                *lse = maxima[lane] + totals[lane].log2();
            }
            let share = s.read(totals.map(f32::recip).as_ptr());
            write_rows(s, &sums.map(|sum| s.mul(sum, share)), z, start);
        }
    }
}

/// `out` = [dq / a, dk log2 e, dv], each [T][E].
#[inline(always)]
unsafe fn backward_head<S: Vectors, const E: usize>(s: S, given: &Given<'_>, out: &mut [Vec<f32>; 3]) {
    let Given { q, k, v, dz, dot: dots, lse } = *given;
    let positions = lse.len();
    let [dq, dk, dv] = out;
    // SAFETY: rows below `positions` exist.
    unsafe {
        // Loops of one kind each over a chunk: together they would need more registers than there are.
        let mut p = [s.zero(); KEYS];
        let mut ds = [s.zero(); KEYS];
        for start in (0..positions).step_by(S::WIDTH) {
            let (queries, gradients): ([S::V; E], [S::V; E]) = (transposed(s, q, start), transposed(s, dz, start));
            let minus_lse = s.sub(s.zero(), vector_at(s, lse, start));
            let minus_dot = s.sub(s.zero(), vector_at(s, dots, start));
            let mut sums = [s.zero(); E];
            let end = positions.min(start + S::WIDTH);
            for first in (0..end).step_by(KEYS) {
                let count = KEYS.min(end - first);
                let (k, v) = (k.as_ptr().add(first * E), v.as_ptr().add(first * E));
                for (i, p) in p[..count].iter_mut().enumerate() {
                    *p = dot(s, &queries, k.add(i * E), minus_lse);
                }
                for (i, p) in p[..count].iter_mut().enumerate() {
                    let key = first + i;
                    *p = if key > start { Mask::from_lane(s, key - start).exp2(s, *p) } else { s.exp2(*p) };
                }
                for (i, (ds, p)) in ds[..count].iter_mut().zip(&p).enumerate() {
                    *ds = s.mul(dot(s, &gradients, v.add(i * E), minus_dot), *p);
                }
                for (i, ds) in ds[..count].iter().enumerate() {
                    accumulate(s, &mut sums, *ds, k.add(i * E));
                }
            }
            write_rows(s, &sums, dq, start);
        }
        for start in (0..positions).step_by(S::WIDTH) {
            let (keys, values): ([S::V; E], [S::V; E]) = (transposed(s, k, start), transposed(s, v, start));
            let (mut dkeys, mut dvalues) = ([s.zero(); E], [s.zero(); E]);
            for first in (start..positions).step_by(KEYS) {
                let count = KEYS.min(positions - first);
                let (q, dz) = (q.as_ptr().add(first * E), dz.as_ptr().add(first * E));
                for (i, p) in p[..count].iter_mut().enumerate() {
                    *p = dot(s, &keys, q.add(i * E), s.splat(-lse[first + i]));
                }
                for (i, p) in p[..count].iter_mut().enumerate() {
                    let last = first + i - start;
                    *p = if last < S::WIDTH { Mask::to_lane(s, last).exp2(s, *p) } else { s.exp2(*p) };
                }
                for (i, (ds, p)) in ds[..count].iter_mut().zip(&p).enumerate() {
                    *ds = s.mul(dot(s, &values, dz.add(i * E), s.splat(-dots[first + i])), *p);
                }
                for (i, (p, ds)) in p[..count].iter().zip(&ds).enumerate() {
                    accumulate(s, &mut dvalues, *p, dz.add(i * E));
                    accumulate(s, &mut dkeys, *ds, q.add(i * E));
                }
            }
            write_rows(s, &dkeys, dk, start);
            write_rows(s, &dvalues, dv, start);
        }
    }
}
