//! Phase one of kinds that are not a plain error with a linear penalty: reconstructions by nested groups, a second
//! reconstruction, and what each code gets of the gradient, with the derivatives by the vectors of the kind.
use std::time::Instant;

use super::codes::grow;
use super::codes::{Codes, RowCode, Scratch, TileStats};
use super::parameters::Weights;
use super::powers::{power, tanh};
use crate::vector::dot::{add_scaled, dot4, load_columns};
use crate::vector::simd::{Kernel, LANES, Simd};
use crate::vector::tile::TILE;

/// Codes are not taken as smaller in z^(p - 1), which has no bound at 0.
const LEAST: f32 = 1e-6;

/// What a code gets of the gradient beside the error's derivative q by it.
#[derive(Debug, Clone, Copy)]
pub enum Derive<'a> {
    /// The same for every code.
    Plus(f32),
    /// The derivative of strength z^p, and sums of z^p and z^next where wanted.
    Power {
        /// By rows.
        strength: f64,
        /// p.
        p: f64,
        /// The next p.
        next: Option<f64>,
    },
    /// See [`super::kind::Activation::Jump`].
    Jump(Jump<'a>),
    /// See [`super::kind::Activation::Gated`].
    Gated {
        /// [n].
        bias: &'a [f32],
        /// [n]: e^rho.
        gain: &'a [f32],
        /// The penalty's derivative by relu(y).
        plus: f32,
    },
}

/// Of thresholds that are trained.
#[derive(Debug, Clone, Copy)]
pub struct Jump<'a> {
    /// [n].
    pub theta: &'a [f32],
    /// The window's width.
    pub window: f32,
    /// Whether y moves as well.
    pub to_input: bool,
    /// The penalty's derivative by a row's number of codes, times that number, and without it.
    pub by_count: [f64; 2],
    /// Strength by rows, and steepness, of a penalty by tanh.
    pub tanh: Option<(f64, f64)>,
    /// What a row below theta gets of the pre-activation loss, negative.
    pub silent: f32,
}

/// Reconstruction of one block and what each of its codes gets of the gradient.
pub struct DeriveRows<'a, 'b> {
    /// Parameters.
    pub weights: Weights<'a>,
    /// Ends of nested groups; at least one.
    pub ends: &'a [usize],
    /// Floats from one row of `x` to the next: d padded to whole vectors.
    pub stride: usize,
    /// [rows][stride], zeros after d.
    pub x: &'a [f32],
    /// What the kind adds.
    pub derive: Derive<'a>,
    /// Derivative of the loss by a group's squared error, times 2.
    pub scale: f32,
    /// Whether derivatives are wanted: no for an evaluation.
    pub derivatives: bool,
    /// [rows][groups][stride]: the derivative of the loss by what the features of a group give.
    pub residual: &'b mut [f32],
    /// [tiles].
    pub stats: &'b mut [TileStats],
    /// [tiles][stride]: sums of the first group's residuals, where wanted (for the pre-bias); else empty.
    pub residual_sums: &'b mut [f32],
    /// Index of the first row in the batch.
    pub first_row: usize,
    /// The codes, which get their derivatives.
    pub codes: &'b mut Codes,
    /// The thread's own.
    pub scratch: &'b mut Scratch,
}

impl Kernel for DeriveRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { weights, ends, stride, x, derive, scale, derivatives, .. } = self;
        let Self { residual, stats, residual_sums, first_row, codes, scratch, .. } = self;
        let start = Instant::now();
        let size = ends.len() * stride;
        grow(&mut codes.g, codes.count);
        let lists = match derive {
            Derive::Jump(_) => 1,
            Derive::Gated { .. } => 3,
            _ => 0,
        };
        codes.own[..lists].iter_mut().for_each(|list| grow(list, codes.count));
        if derivatives {
            begin(derive, codes, stats, first_row);
        }
        scratch.second.resize(if matches!(derive, Derive::Gated { .. }) { size } else { 0 });
        let Scratch { by_row, row_starts, bounds, second, .. } = scratch;
        for (row, residual) in residual.chunks_exact_mut(size).enumerate() {
            let places = &by_row[row_starts[row] as usize..row_starts[row + 1] as usize];
            let (x, tile) = (&x[row * stride..(row + 1) * stride], row / TILE);
            bounds.clear();
            bounds.push(0);
            bounds.extend(ends.iter().map(|end| places.partition_point(|place| (place.feature as usize) < *end)));
            let squares = decode(s, &weights, places, bounds, x, scale, residual, |place| place.z);
            stats[tile].sse += f64::from(squares);
            if derivatives {
                let row = Row { weights, places, bounds, stride };
                derive_row(s, row, derive, x, scale, residual, second, codes);
            }
            if !residual_sums.is_empty() {
                let sums = &mut residual_sums[tile * stride..(tile + 1) * stride];
                add_scaled(s, sums, 1.0, &residual[..stride]);
            }
        }
        scratch.spent.decode += start.elapsed().as_secs_f64();
    }
}

/// The loss of dead features on one block: what their codes leave of the error of all, and the derivatives by them.
pub struct DeriveAux<'a, 'b> {
    /// Parameters.
    pub weights: Weights<'a>,
    /// Floats of a row, padded.
    pub stride: usize,
    /// [rows][groups][stride]: what [`DeriveRows`] left.
    pub residual: &'a [f32],
    /// Groups.
    pub groups: usize,
    /// What the last group's residual was multiplied with.
    pub scaled: f32,
    /// Derivative of the loss by half of the squared gap.
    pub scale: f32,
    /// [rows][stride]: the derivative of the loss by what dead features give.
    pub gap: &'b mut [f32],
    /// The codes of dead features, which get their derivatives.
    pub codes: &'b mut Codes,
    /// The thread's own, with the codes row by row.
    pub scratch: &'b mut Scratch,
}

impl Kernel for DeriveAux<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { weights, stride, residual, groups, scaled, scale, gap, codes, scratch } = self;
        let start = Instant::now();
        grow(&mut codes.g, codes.count);
        scratch.second.resize(stride);
        let Scratch { by_row, row_starts, second, .. } = scratch;
        let rows = residual.chunks_exact(groups * stride).zip(gap.chunks_exact_mut(stride));
        for (row, (residual, gap)) in rows.enumerate() {
            let places = &by_row[row_starts[row] as usize..row_starts[row + 1] as usize];
            let bounds = &[0, places.len()];
            second.fill(0.0);
            add_scaled(s, second, -1.0 / scaled, &residual[(groups - 1) * stride..]);
            decode(s, &weights, places, bounds, second, scale, gap, |place| place.z);
            let row = Row { weights, places, bounds, stride };
            along(s, row, gap, |place, q| codes.g[place.at as usize] = q);
        }
        scratch.spent.decode += start.elapsed().as_secs_f64();
    }
}

/// What depends on the codes alone: the penalty's derivative by each, to which that of the error is added later.
#[inline(always)]
fn begin(derive: Derive<'_>, codes: &mut Codes, stats: &mut [TileStats], first_row: usize) {
    let (z, g) = (&codes.z[..codes.count], &mut codes.g[..codes.count]);
    match derive {
        Derive::Power { strength, p, next } => {
            for (g, z) in g.iter_mut().zip(z) {
                let least = if *z < LEAST { LEAST } else { *z };
                *g = (strength * p * power(least, p - 1.0)) as f32;
            }
            if let Some(next) = next {
                for (z, row) in z.iter().zip(&codes.rows) {
                    let powers = &mut stats[(*row as usize - first_row) / TILE].powers;
                    powers[0] += power(*z, p);
                    powers[1] += power(*z, next);
                }
            }
        }
        Derive::Jump(Jump { tanh: Some((strength, steepness)), .. }) => {
            for (g, z) in g.iter_mut().zip(z) {
                let found = tanh(steepness * f64::from(*z));
                *g = (strength * steepness * (1.0 - found * found)) as f32;
            }
        }
        _ => g.fill(0.0),
    }
}

/// The codes of one row.
#[derive(Clone, Copy)]
struct Row<'a> {
    weights: Weights<'a>,
    places: &'a [RowCode],
    /// [groups + 1].
    bounds: &'a [usize],
    stride: usize,
}

#[inline(always)]
fn derive_row<S: Simd>(
    s: S,
    row: Row<'_>,
    derive: Derive<'_>,
    x: &[f32],
    scale: f32,
    residual: &[f32],
    second: &mut [f32],
    codes: &mut Codes,
) {
    let Codes { g, own, y, .. } = codes;
    match derive {
        Derive::Plus(plus) => along(s, row, residual, |place, q| g[place.at as usize] = q + plus),
        Derive::Power { .. } => along(s, row, residual, |place, q| g[place.at as usize] += q),
        Derive::Jump(jump) => {
            let count = row.places.iter().filter(|place| place.z > 0.0).count();
            let by_count = (jump.by_count[0] * count as f64 + jump.by_count[1]) as f32;
            let half = jump.window / 2.0;
            along(s, row, residual, |place, q| {
                let at = place.at as usize;
                let (z, theta, q) = (place.z, jump.theta[place.feature as usize], q + g[at]);
                // What is not above theta is there because it lies in the window.
                let above = z > 0.0 || z.is_nan();
                let inside = !above || (z - theta).abs() < half;
                let through = if inside { (theta * q + by_count) / jump.window } else { 0.0 };
                // Rows below theta get their part for all rows, what is not below takes it back.
                let back = if z.to_bits() == (-0.0f32).to_bits() { 0.0 } else { jump.silent };
                g[at] = if above { q } else { 0.0 } + if jump.to_input { through } else { 0.0 } + back;
                own[0][at] = -through - back;
            });
        }
        Derive::Gated { bias, gain, plus } => {
            along(s, row, residual, |place, q| {
                let (at, j) = (place.at as usize, place.feature as usize);
                let by_magnitude = if place.z == 0.0 { 0.0 } else { q };
                own[0][at] = by_magnitude;
                own[1][at] = gain[j] * (y[at] - bias[j]) * by_magnitude;
                g[at] = gain[j] * by_magnitude;
            });
            decode(s, &row.weights, row.places, row.bounds, x, scale, second, |place| y[place.at as usize]);
            along(s, row, second, |place, q| {
                let at = place.at as usize;
                own[2][at] = q + plus;
                g[at] += q + plus;
            });
        }
    }
}

/// Products of the codes' atoms with the residual of their group.
#[inline(always)]
fn along<S: Simd>(s: S, row: Row<'_>, residual: &[f32], mut give: impl FnMut(RowCode, f32)) {
    for (own, residual) in row.bounds.windows(2).zip(residual.chunks_exact(row.stride)) {
        for four in row.places[own[0]..own[1]].chunks(4) {
            let atoms = [0, 1, 2, 3].map(|i| row.weights.atom(four.get(i).unwrap_or(&four[0]).feature));
            let products = dot4(s, [residual; 4], atoms);
            for (place, product) in four.iter().zip(products) {
                give(*place, product);
            }
        }
    }
}

/// Reconstructs a row by every group of features, writes the derivatives by what each gives, and gives the squared error
/// of all.
#[inline(always)]
fn decode<S: Simd>(
    s: S,
    weights: &Weights<'_>,
    places: &[RowCode],
    bounds: &[usize],
    x: &[f32],
    scale: f32,
    residual: &mut [f32],
    z: impl Fn(&RowCode) -> f32 + Copy,
) -> f32 {
    let vectors = x.len() / LANES;
    let (mut squares, mut v) = (s.zero(), 0);
    macro_rules! columns {
        ($count:literal) => {
            while vectors - v >= $count {
                squares = decode_columns::<S, $count>(s, weights, places, bounds, x, scale, residual, squares, v, z);
                v += $count;
            }
        };
    }
    if S::ACCUMULATORS >= 8 {
        columns!(8);
    }
    columns!(4);
    columns!(1);
    s.sum(squares)
}

#[inline(always)]
fn decode_columns<S: Simd, const C: usize>(
    s: S,
    weights: &Weights<'_>,
    places: &[RowCode],
    bounds: &[usize],
    x: &[f32],
    scale: f32,
    residual: &mut [f32],
    mut squares: S::V,
    v: usize,
    z: impl Fn(&RowCode) -> f32,
) -> S::V {
    let (stride, groups) = (x.len(), bounds.len() - 1);
    let columns = v * LANES..(v + C) * LANES;
    let (end, scale) = (columns.end.min(weights.d), s.splat(scale));
    let x = x[columns.clone()].as_chunks::<LANES>().0;
    let mut acc = [s.zero(); C];
    for group in 0..groups {
        for place in &places[bounds[group]..bounds[group + 1]] {
            let (z, atom) = (s.splat(z(place)), &weights.atom(place.feature)[columns.start..end]);
            for i in 0..C {
                acc[i] = s.fma(z, load_columns(s, &atom[i * LANES..]), acc[i]);
            }
        }
        let out = residual[group * stride..][columns.clone()].as_chunks_mut::<LANES>().0;
        for i in 0..C {
            let r = s.sub(acc[i], s.load(&x[i]));
            if group + 1 == groups {
                squares = s.fma(r, r, squares);
            }
            s.store(s.mul(r, scale), &mut out[i]);
        }
    }
    // The features of a group get the errors of all groups that they are in.
    for group in (1..groups).rev() {
        let (before, after) = residual.split_at_mut(group * stride);
        let out = before[(group - 1) * stride..][columns.clone()].as_chunks_mut::<LANES>().0;
        for (out, more) in out.iter_mut().zip(after[columns.clone()].as_chunks::<LANES>().0) {
            s.store(s.add(s.load(out), s.load(more)), out);
        }
    }
    squares
}
