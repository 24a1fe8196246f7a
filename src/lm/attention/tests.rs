//! Against plain double precision, on every instruction set that this processor has.
#![allow(clippy::unwrap_used)]
use super::*;

/// Numbers in [-scale, scale) from a multiplicative generator.
fn numbers(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            scale * (((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0)
        })
        .collect()
}

/// z and dqkv from the formulas.
fn reference(shape: Shape, qkv: &[f32], dz: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let (n, e, row) = (shape.positions, shape.width, shape.heads * shape.width);
    let scale = 1.0 / (e as f64).sqrt();
    let (mut z, mut dqkv) = (vec![0.0; dz.len()], vec![0.0; qkv.len()]);
    for b in 0..shape.batch {
        for h in 0..shape.heads {
            let at = |part: usize, t: usize, i: usize| (b * n + t) * 3 * row + part * row + h * e + i;
            let get = |part, t, i| f64::from(qkv[at(part, t, i)]);
            for t in 0..n {
                let scores: Vec<f64> =
                    (0..=t).map(|s| scale * (0..e).map(|i| get(0, t, i) * get(1, s, i)).sum::<f64>()).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - most).exp()).sum();
                let p: Vec<f64> = scores.iter().map(|s| (s - most).exp() / sum).collect();
                let out = (b * n + t) * row + h * e;
                let gradient = |i: usize| f64::from(dz[out + i]);
                let dp: Vec<f64> = (0..=t).map(|s| (0..e).map(|i| gradient(i) * get(2, s, i)).sum()).collect();
                let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for s in 0..=t {
                    let ds = p[s] * (dp[s] - mean);
                    for i in 0..e {
                        z[out + i] += p[s] * get(2, s, i);
                        dqkv[at(0, t, i)] += scale * ds * get(1, s, i);
                        dqkv[at(1, s, i)] += scale * ds * get(0, t, i);
                        dqkv[at(2, s, i)] += p[s] * gradient(i);
                    }
                }
            }
        }
    }
    (z, dqkv)
}

fn run(level: Level, shape: Shape, qkv: &[f32], dz: &[f32], threads: usize) -> (Vec<f32>, Vec<f32>) {
    let mut z = vec![f32::NAN; dz.len()];
    let mut lse = vec![f32::NAN; shape.batch * shape.heads * shape.positions];
    let mut dqkv = vec![f32::NAN; qkv.len()];
    forward_on(level, shape, qkv, &mut z, &mut lse, threads).unwrap();
    backward_on(level, shape, qkv, &z, &lse, dz, &mut dqkv, threads).unwrap();
    (z, dqkv)
}

fn relative(got: &[f32], expected: &[f64]) -> f64 {
    let error: f64 = got.iter().zip(expected).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
    (error / expected.iter().map(|b| b * b).sum::<f64>().max(1e-300)).sqrt()
}

#[test]
fn equals_double_precision_at_odd_lengths_and_all_widths() {
    for level in cpu().levels() {
        for width in HEAD_WIDTHS {
            for (batch, positions, heads) in [(1, 2, 1), (2, 15, 3), (1, 16, 2), (3, 17, 1), (1, 33, 2), (2, 100, 4)] {
                for scale in [0.5, 6.0] {
                    let shape = Shape { batch, positions, heads, width };
                    let rows = batch * positions * heads * width;
                    let (qkv, dz) = (numbers(3 * rows, rows as u64, scale), numbers(rows, rows as u64 + 1, 1.0));
                    let (z, dqkv) = run(level, shape, &qkv, &dz, 2);
                    let (want_z, want_dqkv) = reference(shape, &qkv, &dz);
                    let (a, b) = (relative(&z, &want_z), relative(&dqkv, &want_dqkv));
                    assert!(a < 2e-6 && b < 1e-5, "{} {shape:?} {scale}: z {a:.2e} dqkv {b:.2e}", level.name());
                }
            }
        }
    }
}

#[test]
fn scores_of_thousands_do_not_overflow() {
    for level in cpu().levels() {
        let shape = Shape { batch: 1, positions: 40, heads: 1, width: 8 };
        let (qkv, dz) = (numbers(40 * 24, 5, 60.0), numbers(40 * 8, 6, 1.0));
        let (z, dqkv) = run(level, shape, &qkv, &dz, 1);
        let (want_z, want_dqkv) = reference(shape, &qkv, &dz);
        assert!(relative(&z, &want_z) < 1e-4 && relative(&dqkv, &want_dqkv) < 1e-3, "{}", level.name());
    }
}

#[test]
fn a_position_does_not_see_later_ones() {
    for level in cpu().levels() {
        let shape = Shape { batch: 1, positions: 50, heads: 2, width: 8 };
        let (mut qkv, dz) = (numbers(50 * 48, 1, 2.0), numbers(50 * 16, 2, 1.0));
        let (before, _) = run(level, shape, &qkv, &dz, 1);
        for x in &mut qkv[30 * 48..] {
            *x *= -7.0;
        }
        let (after, _) = run(level, shape, &qkv, &dz, 1);
        assert!(before[..30 * 16].iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert!(before[30 * 16..].iter().zip(&after[30 * 16..]).any(|(a, b)| a.to_bits() != b.to_bits()));
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let shape = Shape { batch: 12, positions: 250, heads: 2, width: 8 }; // large enough for five threads
    let (qkv, dz) = (numbers(12 * 250 * 48, 3, 1.0), numbers(12 * 250 * 16, 4, 1.0));
    let one = run(cpu().level, shape, &qkv, &dz, 1);
    for threads in [2, 5, 16] {
        let many = run(cpu().level, shape, &qkv, &dz, threads);
        assert!(one.0.iter().zip(&many.0).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert!(one.1.iter().zip(&many.1).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn what_is_not_finite_shows() {
    for level in cpu().levels() {
        let shape = Shape { batch: 1, positions: 20, heads: 1, width: 8 };
        let (mut qkv, dz) = (numbers(20 * 24, 3, 1.0), numbers(20 * 8, 4, 1.0));
        qkv[5 * 24 + 9] = f32::NAN; // a key
        let (z, _) = run(level, shape, &qkv, &dz, 1);
        assert!(z[6 * 8..].iter().all(|x| x.is_nan()), "{}", level.name());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let shape = Shape { batch: 1, positions: 4, heads: 1, width: 8 };
    let call = |shape: Shape, qkv: usize, z: usize, lse: usize| {
        forward(shape, &vec![0.0; qkv], &mut vec![0.0; z], &mut vec![0.0; lse], 1)
    };
    assert!(call(shape, 96, 32, 4).is_ok());
    assert!(call(shape, 95, 32, 4).is_err());
    assert!(call(shape, 96, 31, 4).is_err());
    assert!(call(shape, 96, 32, 5).is_err());
    assert!(call(Shape { width: 5, ..shape }, 60, 20, 4).is_err());
    assert!(call(Shape { positions: 0, ..shape }, 0, 0, 0).is_err());
}
