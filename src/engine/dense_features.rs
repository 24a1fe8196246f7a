//! Phase two for codes that are held as matrices: outer products with their sums in registers, every sum in the order of
//! the lists.
use super::batch::BatchRows;
use super::codes::Dense;
use super::gradients::Gradients;
use crate::vector::dot::load_columns;
use crate::vector::simd::{LANES, Simd};

/// Phase two: adds the codes of a block to the gradients of some features.
#[inline(always)]
pub fn accumulate<S: Simd>(
    s: S,
    rows: &BatchRows<'_>,
    dense: &Dense,
    first_row: usize,
    first: usize,
    gradients: &mut Gradients<'_>,
    fired: Option<&mut [i64]>,
) {
    let count = gradients.bias.len();
    let size = dense.rows * LANES;
    let mut fired = fired;
    for group in 0..count.div_ceil(LANES) {
        let at = (first / LANES + group) * size;
        let (z, g) = (dense.z[at..at + size].as_chunks::<LANES>().0, dense.g[at..at + size].as_chunks::<LANES>().0);
        let own = group * LANES..((group + 1) * LANES).min(count);
        let mut bias = [0.0f64; LANES];
        let mut active = [0u32; LANES];
        bias[..own.len()].copy_from_slice(&gradients.bias[own.clone()]);
        for (z, g) in z.iter().zip(g) {
            for i in 0..LANES {
                bias[i] += f64::from(g[i]);
                active[i] += u32::from(z[i] > 0.0);
            }
        }
        gradients.bias[own.clone()].copy_from_slice(&bias[..own.len()]);
        for (codes, active) in gradients.codes[own.clone()].iter_mut().zip(active) {
            *codes += active;
        }
        if let Some(fired) = fired.as_deref_mut() {
            for (fired, active) in fired[own.clone()].iter_mut().zip(active) {
                *fired += i64::from(active);
            }
        }
        let sums = &mut gradients.rows[own.start * 2 * rows.stride..own.end * 2 * rows.stride];
        let range = first_row * rows.stride..(first_row + dense.rows) * rows.stride;
        let (residual, x) = (&rows.residual[range.clone()], &rows.x[range]);
        if S::ACCUMULATORS >= 16 {
            add_outer::<S, 4, 4>(s, sums, rows.stride, 0, z, residual);
            add_outer::<S, 4, 4>(s, sums, rows.stride, rows.stride, g, x);
        } else {
            add_outer::<S, 2, 2>(s, sums, rows.stride, 0, z, residual);
            add_outer::<S, 2, 2>(s, sums, rows.stride, rows.stride, g, x);
        }
    }
}

/// Rows that stay in the first cache while all columns of sixteen features are added to: 32 KB at D = 128.
const STRIP: usize = 64;

/// sums[f][offset..] += codes[row][f] * values[row], rows in order, F features by C vectors at a time.
#[inline(always)]
fn add_outer<S: Simd, const F: usize, const C: usize>(
    s: S,
    sums: &mut [f32],
    stride: usize,
    offset: usize,
    codes: &[[f32; LANES]],
    values: &[f32],
) {
    let count = sums.len() / (2 * stride);
    let vectors = stride / LANES;
    for (codes, values) in codes.chunks(STRIP).zip(values.chunks(STRIP * stride)) {
        let mut v = 0;
        while v < vectors {
            let mut f = 0;
            while f < count {
                match (f + F <= count, v + C <= vectors) {
                    (true, true) => add_block::<S, F, C>(s, sums, stride, offset, codes, values, f, v),
                    (true, false) => add_block::<S, F, 1>(s, sums, stride, offset, codes, values, f, v),
                    (false, true) => add_block::<S, 1, C>(s, sums, stride, offset, codes, values, f, v),
                    (false, false) => add_block::<S, 1, 1>(s, sums, stride, offset, codes, values, f, v),
                }
                f += if f + F <= count { F } else { 1 };
            }
            v += if v + C <= vectors { C } else { 1 };
        }
    }
}

#[inline(always)]
fn add_block<S: Simd, const F: usize, const C: usize>(
    s: S,
    sums: &mut [f32],
    stride: usize,
    offset: usize,
    codes: &[[f32; LANES]],
    values: &[f32],
    f: usize,
    v: usize,
) {
    let mut acc = [[s.zero(); C]; F];
    for i in 0..F {
        let at = (f + i) * 2 * stride + offset + v * LANES;
        for c in 0..C {
            acc[i][c] = load_columns(s, &sums[at + c * LANES..at + (c + 1) * LANES]);
        }
    }
    for (code, value) in codes.iter().zip(values.chunks_exact(stride)) {
        let value = value[v * LANES..(v + C) * LANES].as_chunks::<LANES>().0;
        for i in 0..F {
            let code = s.splat(code[f + i]);
            for c in 0..C {
                acc[i][c] = s.fma(code, s.load(&value[c]), acc[i][c]);
            }
        }
    }
    for i in 0..F {
        let at = (f + i) * 2 * stride + offset + v * LANES;
        for c in 0..C {
            s.store(acc[i][c], &mut sums[at + c * LANES..at + (c + 1) * LANES].as_chunks_mut::<LANES>().0[0]);
        }
    }
}
