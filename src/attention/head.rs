//! One head of one sequence. E is its width; T its positions, in blocks of as many as a vector has lanes.
#![allow(clippy::inline_always)]

use std::f32::consts::LOG2_E;

use super::shape::Shape;
use crate::cpu::Simd;
use crate::simd::lanes::{Math, Portable};
use crate::simd::levels::compiled;

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
pub fn forward(simd: Simd, shape: Shape, h: usize, qkv: &[f32], z: &mut [f32], lse: &mut [f32], scratch: &mut Scratch) {
    scratch.read(shape, h, qkv);
    let [q, k, v] = [&scratch.q, &scratch.k, &scratch.v];
    let out = &mut scratch.out[0];
    out.resize(q.len(), 0.0);
    // SAFETY: `Shape::check` compared the lengths, and `read` and `resize` gave the others.
    unsafe { forward_on(simd, shape.width, q, k, v, out, lse) };
    put(out, shape.width, z, shape.heads * shape.width, h * shape.width, 1.0);
}

/// `dqkv` [T,3C] (the columns of head `h`) from [qkv [T,3C], z [T,C], lse [T], dz [T,C]].
pub fn backward(simd: Simd, shape: Shape, h: usize, given: [&[f32]; 4], dqkv: &mut [f32], scratch: &mut Scratch) {
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
    // SAFETY: as in `forward`.
    unsafe { backward_on(simd, width, &given, out) };
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

compiled! {
    /// # Safety
    /// `q`, `k`, `v` and `z` are [T][width] for the T of `lse`.
    unsafe fn forward_on<L in [Portable<4>, Portable<4>]>(
        width: usize, q: &[f32], k: &[f32], v: &[f32], z: &mut [f32], lse: &mut [f32],
    ) {
        match width {
            4 => forward_head::<L, 4>(q, k, v, z, lse),
            8 => forward_head::<L, 8>(q, k, v, z, lse),
            _ => forward_head::<L, 16>(q, k, v, z, lse),
        }
    }
}

compiled! {
    /// # Safety
    /// All that is given and all of `out` has the same T, and rows of `width`.
    unsafe fn backward_on<L in [Portable<4>, Portable<4>]>(width: usize, given: &Given<'_>, out: &mut [Vec<f32>; 3]) {
        match width {
            4 => backward_head::<L, 4>(given, out),
            8 => backward_head::<L, 8>(given, out),
            _ => backward_head::<L, 16>(given, out),
        }
    }
}

/// Rows `start` .. of [T][E] as E vectors over positions; zero past the end.
#[inline(always)]
unsafe fn transposed<L: Math, const E: usize>(rows: &[f32], start: usize) -> [L; E] {
    let mut lanes = [[0.0f32; 16]; E];
    for (lane, row) in rows[start * E..].chunks_exact(E).take(L::WIDTH).enumerate() {
        for (to, &x) in lanes.iter_mut().zip(row) {
            to[lane] = x;
        }
    }
    // SAFETY: WIDTH is at most 16.
    unsafe { lanes.map(|lane| L::load(lane.as_ptr())) }
}

/// Writes E vectors over positions back as rows `start` .. of [T][E].
#[inline(always)]
unsafe fn write_rows<L: Math, const E: usize>(vectors: &[L; E], rows: &mut [f32], start: usize) {
    let mut lanes = [[0.0f32; 16]; E];
    for (lane, &vector) in lanes.iter_mut().zip(vectors) {
        // SAFETY: WIDTH is at most 16.
        unsafe { vector.store(lane.as_mut_ptr()) };
    }
    for (lane, row) in rows[start * E..].chunks_exact_mut(E).take(L::WIDTH).enumerate() {
        for (x, from) in row.iter_mut().zip(&lanes) {
            *x = from[lane];
        }
    }
}

/// `count` values from `start` on as one vector, zero past the end.
#[inline(always)]
unsafe fn vector_at<L: Math>(values: &[f32], start: usize) -> L {
    let mut lanes = [0.0f32; 16];
    let count = L::WIDTH.min(values.len() - start);
    lanes[..count].copy_from_slice(&values[start..start + count]);
    // SAFETY: WIDTH is at most 16.
    unsafe { L::load(lanes.as_ptr()) }
}

/// Sum of products of E vectors with one row of E numbers, added to `sum`.
#[inline(always)]
unsafe fn dot<L: Math, const E: usize>(vectors: &[L; E], row: *const f32, sum: L) -> L {
    let mut sum = sum;
    for (e, vector) in vectors.iter().enumerate() {
        // SAFETY: the row has E numbers.
        sum = unsafe { vector.mul_add(L::splat(*row.add(e)), sum) };
    }
    sum
}

/// `sums` += weight * row, for each of E numbers.
#[inline(always)]
unsafe fn accumulate<L: Math, const E: usize>(sums: &mut [L; E], weight: L, row: *const f32) {
    for (e, sum) in sums.iter_mut().enumerate() {
        // SAFETY: the row has E numbers.
        *sum = unsafe { weight.mul_add(L::splat(*row.add(e)), *sum) };
    }
}

/// What a score and its exponential get in lanes that may not be seen: minus infinity is added to the one (so that it
/// is not large), the other is multiplied by 0 (so that it is exactly 0: 2^-126 times a small gradient would be a
/// subnormal number, and processors take a hundred times as long for these).
#[derive(Clone, Copy)]
struct Mask<L> {
    add: L,
    factor: L,
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

impl<L: Math> Mask<L> {
    /// Lanes from `first` (at most 16) on are seen.
    #[inline(always)]
    unsafe fn from_lane(first: usize) -> Self {
        // SAFETY: a window of 16 from 0 .. 16.
        unsafe { Self::window(16 - first.min(16)) }
    }

    /// Lanes up to `last` are seen.
    #[inline(always)]
    unsafe fn to_lane(last: usize) -> Self {
        // SAFETY: a window of 16 from 16 .. 32.
        unsafe { Self::window(31 - last.min(15)) }
    }

    #[inline(always)]
    unsafe fn window(start: usize) -> Self {
        // SAFETY: the caller's start leaves 16.
        unsafe { Self { add: L::load(MASKS[0].as_ptr().add(start)), factor: L::load(MASKS[1].as_ptr().add(start)) } }
    }

    #[inline(always)]
    unsafe fn exp2(self, score: L) -> L {
        // SAFETY: the caller has the instruction set.
        unsafe { score.add(self.add).exp2().mul(self.factor) }
    }
}

#[inline(always)]
unsafe fn forward_head<L: Math, const E: usize>(q: &[f32], k: &[f32], v: &[f32], z: &mut [f32], lse: &mut [f32]) {
    let positions = lse.len();
    // SAFETY: rows below `positions` exist; the caller has the instruction set.
    unsafe {
        let mut scores = [L::splat(0.0); KEYS];
        for start in (0..positions).step_by(L::WIDTH) {
            let queries: [L; E] = transposed(q, start);
            let mut maximum = L::splat(f32::NEG_INFINITY);
            let mut total = L::splat(0.0);
            let mut sums = [L::splat(0.0); E];
            let end = positions.min(start + L::WIDTH);
            for first in (0..end).step_by(KEYS) {
                let count = KEYS.min(end - first);
                let (k, v) = (k.as_ptr().add(first * E), v.as_ptr().add(first * E));
                for (i, score) in scores[..count].iter_mut().enumerate() {
                    *score = dot(&queries, k.add(i * E), L::splat(0.0));
                }
                // A query sees its own position and those before.
                for (i, score) in scores[..count].iter_mut().enumerate().skip((start + 1).saturating_sub(first)) {
                    *score = score.add(Mask::<L>::from_lane(first + i - start).add);
                }
                let new = scores[..count].iter().fold(maximum, |most, score| most.max(*score));
                let rescale = maximum.sub(new).exp2();
                maximum = new;
                total = total.mul(rescale);
                for score in &mut scores[..count] {
                    *score = score.sub(maximum).exp2();
                    total = total.add(*score);
                }
                for sum in &mut sums {
                    *sum = sum.mul(rescale);
                }
                for (i, p) in scores[..count].iter().enumerate() {
                    accumulate(&mut sums, *p, v.add(i * E));
                }
            }
            let (mut maxima, mut totals) = ([0.0f32; 16], [1.0f32; 16]);
            maximum.store(maxima.as_mut_ptr());
            total.store(totals.as_mut_ptr());
            for (lane, lse) in lse[start..end].iter_mut().enumerate() {
                *lse = maxima[lane] + totals[lane].log2();
            }
            let share = L::load(totals.map(f32::recip).as_ptr());
            write_rows(&sums.map(|sum| sum.mul(share)), z, start);
        }
    }
}

/// `out` = [dq / a, dk log2 e, dv], each [T][E].
#[inline(always)]
unsafe fn backward_head<L: Math, const E: usize>(given: &Given<'_>, out: &mut [Vec<f32>; 3]) {
    let Given { q, k, v, dz, dot: dots, lse } = *given;
    let positions = lse.len();
    let [dq, dk, dv] = out;
    // SAFETY: rows below `positions` exist; the caller has the instruction set.
    unsafe {
        // Loops of one kind each over a chunk: together they would need more registers than there are.
        let mut p = [L::splat(0.0); KEYS];
        let mut ds = [L::splat(0.0); KEYS];
        for start in (0..positions).step_by(L::WIDTH) {
            let (queries, gradients): ([L; E], [L; E]) = (transposed(q, start), transposed(dz, start));
            let minus_lse = L::splat(0.0).sub(vector_at(lse, start));
            let minus_dot = L::splat(0.0).sub(vector_at(dots, start));
            let mut sums = [L::splat(0.0); E];
            let end = positions.min(start + L::WIDTH);
            for first in (0..end).step_by(KEYS) {
                let count = KEYS.min(end - first);
                let (k, v) = (k.as_ptr().add(first * E), v.as_ptr().add(first * E));
                for (i, p) in p[..count].iter_mut().enumerate() {
                    *p = dot(&queries, k.add(i * E), minus_lse);
                }
                for (i, p) in p[..count].iter_mut().enumerate() {
                    let key = first + i;
                    *p = if key > start { Mask::<L>::from_lane(key - start).exp2(*p) } else { p.exp2() };
                }
                for (i, (ds, p)) in ds[..count].iter_mut().zip(&p).enumerate() {
                    *ds = dot(&gradients, v.add(i * E), minus_dot).mul(*p);
                }
                for (i, ds) in ds[..count].iter().enumerate() {
                    accumulate(&mut sums, *ds, k.add(i * E));
                }
            }
            write_rows(&sums, dq, start);
        }
        for start in (0..positions).step_by(L::WIDTH) {
            let (keys, values): ([L; E], [L; E]) = (transposed(k, start), transposed(v, start));
            let (mut dkeys, mut dvalues) = ([L::splat(0.0); E], [L::splat(0.0); E]);
            for first in (start..positions).step_by(KEYS) {
                let count = KEYS.min(positions - first);
                let (q, dz) = (q.as_ptr().add(first * E), dz.as_ptr().add(first * E));
                for (i, p) in p[..count].iter_mut().enumerate() {
                    *p = dot(&keys, q.add(i * E), L::splat(-lse[first + i]));
                }
                for (i, p) in p[..count].iter_mut().enumerate() {
                    let last = first + i - start;
                    *p = if last < L::WIDTH { Mask::<L>::to_lane(last).exp2(*p) } else { p.exp2() };
                }
                for (i, (ds, p)) in ds[..count].iter_mut().zip(&p).enumerate() {
                    *ds = dot(&values, dz.add(i * E), L::splat(-dots[first + i])).mul(*p);
                }
                for (i, (p, ds)) in p[..count].iter().zip(&ds).enumerate() {
                    accumulate(&mut dvalues, *p, dz.add(i * E));
                    accumulate(&mut dkeys, *ds, q.add(i * E));
                }
            }
            write_rows(&dkeys, dk, start);
            write_rows(&dvalues, dv, start);
        }
    }
}
