//! Against plain double precision, on every instruction set that this processor has.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::vector::dispatch::run as run_on;
use crate::vector::simd::{Vectors, WideKernel};

/// Numbers in [-1, 1) from a multiplicative generator.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

struct Case {
    h: Vec<f32>,
    w: Vec<f32>,
    targets: Vec<i64>,
    width: usize,
}

fn case(rows: usize, width: usize, vocabulary: usize, scale: f32) -> Case {
    let seed = (rows * 1009 + width * 31 + vocabulary) as u64;
    let h = numbers(rows * width, seed).iter().map(|x| x * scale).collect();
    let mut targets: Vec<i64> =
        numbers(rows, seed + 2).iter().map(|x| ((x + 1.0) / 2.0 * vocabulary as f32) as i64).collect();
    targets[rows - 1] = vocabulary as i64 - 1;
    Case { h, w: numbers(vocabulary * width, seed + 1), targets, width }
}

/// Loss, dh and dw in double precision.
fn reference(case: &Case) -> (f64, Vec<f64>, Vec<f64>) {
    let (d, m) = (case.width, case.targets.len());
    let v = case.w.len() / d;
    let (mut loss, mut dh, mut dw) = (0.0, vec![0.0; m * d], vec![0.0; v * d]);
    for r in 0..m {
        let h: Vec<f64> = case.h[r * d..][..d].iter().map(|&x| x.into()).collect();
        let logits: Vec<f64> =
            case.w.chunks(d).map(|w| w.iter().zip(&h).map(|(&w, h)| f64::from(w) * h).sum()).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|l| (l - most).exp()).sum();
        let target = case.targets[r] as usize;
        loss += most + sum.ln() - logits[target];
        for (token, logit) in logits.iter().enumerate() {
            let p = ((logit - most).exp() / sum - f64::from(u8::from(token == target))) / m as f64;
            for k in 0..d {
                dh[r * d + k] += p * f64::from(case.w[token * d + k]);
                dw[token * d + k] += p * h[k];
            }
        }
    }
    (loss / m as f64, dh, dw)
}

fn run(level: Level, case: &Case, threads: usize) -> (f64, Vec<f32>, Vec<f32>) {
    let (mut dh, mut dw) = (vec![f32::NAN; case.h.len()], vec![f32::NAN; case.w.len()]);
    let output = Some(Output { dh: &mut dh, dw: &mut dw });
    let loss = cross_entropy_on(level, &case.h, &case.w, &case.targets, case.width, threads, output).unwrap();
    (loss, dh, dw)
}

fn relative(got: &[f32], expected: &[f64]) -> f64 {
    let error: f64 = got.iter().zip(expected).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
    (error / expected.iter().map(|b| b * b).sum::<f64>().max(1e-300)).sqrt()
}

#[test]
fn equals_double_precision_on_every_instruction_set_and_odd_sizes() {
    let sizes = [
        (1, 1, 2),
        (3, 5, 17),
        (12, 32, 512),
        (37, 33, 545),
        (49, 31, 1025),
        (145, 16, 47),
        (600, 8, 90),
        (30, 100, 70),
    ];
    for level in cpu().levels() {
        for (rows, width, vocabulary) in sizes {
            for scale in [0.3, 4.0] {
                let case = case(rows, width, vocabulary, scale);
                let (loss, dh, dw) = run(level, &case, 2);
                let (expected, want_dh, want_dw) = reference(&case);
                let what = format!("{} {rows} x {width} x {vocabulary}", level.name());
                assert!((loss - expected).abs() <= 1e-6 * expected.abs().max(1.0), "loss {what}: {loss} {expected}");
                assert!(relative(&dh, &want_dh) < 3e-6, "dh {what}: {}", relative(&dh, &want_dh));
                assert!(relative(&dw, &want_dw) < 3e-6, "dw {what}: {}", relative(&dw, &want_dw));
            }
        }
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let case = case(1500, 32, 300, 1.0);
    let one = run(cpu().level, &case, 1);
    for threads in [2, 3, 8, 40] {
        let many = run(cpu().level, &case, threads);
        assert_eq!(one.0.to_bits(), many.0.to_bits());
        assert!(one.1.iter().zip(&many.1).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert!(one.2.iter().zip(&many.2).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn the_loss_alone_is_the_same_loss() {
    for level in cpu().levels() {
        let case = case(100, 24, 700, 2.0);
        let alone = cross_entropy_on(level, &case.h, &case.w, &case.targets, case.width, 1, None).unwrap();
        assert_eq!(alone.to_bits(), run(level, &case, 1).0.to_bits());
    }
}

#[test]
fn a_maximum_that_rises_late_and_by_much_is_followed() {
    for level in cpu().levels() {
        let mut case = case(20, 16, 2000, 20.0);
        for (token, row) in case.w.chunks_mut(16).enumerate() {
            let factor = 1.0 + token as f32 / 400.0; // logits of +-1000 at the end
            for x in row {
                *x *= factor;
            }
        }
        let (loss, dh, dw) = run(level, &case, 1);
        let (expected, want_dh, want_dw) = reference(&case);
        assert!((loss - expected).abs() < 1e-6 * expected);
        assert!(relative(&dh, &want_dh) < 1e-4);
        assert!(relative(&dw, &want_dw) < 1e-4);
    }
}

#[test]
fn what_is_not_finite_shows_in_the_loss_and_its_row() {
    for level in cpu().levels() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut case = case(30, 16, 600, 1.0);
            case.h[5 * 16 + 3] = bad;
            let (loss, dh, dw) = run(level, &case, 1);
            assert!(!loss.is_finite(), "{} {bad}", level.name());
            assert!(!dh[5 * 16..6 * 16].iter().all(|x| x.is_finite()));
            assert!(dh[..5 * 16].iter().all(|x| x.is_finite()));
            assert!(!dw.iter().all(|x| x.is_finite()));
        }
        let mut case = case(30, 16, 600, 1.0);
        case.w[599 * 16] = f32::NAN;
        assert!(run(level, &case, 1).0.is_nan(), "{}", level.name());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = case(4, 8, 10, 1.0);
    let call = |h: &[f32], w: &[f32], targets: &[i64], width| cross_entropy(h, w, targets, width, 1, None);
    assert!(call(&case.h, &case.w, &case.targets, 8).is_ok());
    assert!(call(&case.h[1..], &case.w, &case.targets, 8).is_err());
    assert!(call(&case.h, &case.w[1..], &case.targets, 8).is_err());
    assert!(call(&[], &case.w, &[], 8).is_err());
    assert!(call(&case.h, &[], &case.targets, 8).is_err());
    assert!(call(&case.h, &case.w, &case.targets, 0).is_err());
    for target in [-1, 10, i64::MAX] {
        let message = call(&case.h, &case.w, &[0, 1, 2, target], 8).unwrap_err().to_string();
        assert!(message.contains(&format!("target {target} is outside a vocabulary of 10")), "{message}");
    }
}

struct Exp2(f32);

impl WideKernel for Exp2 {
    type Output = f32;
    #[allow(clippy::inline_always)]
    #[inline(always)]
    fn call<S: Vectors>(self, s: S) -> f32 {
        let lanes = s.lanes(s.exp2(s.splat(self.0)));
        assert!(lanes[..S::WIDTH].iter().all(|y| y.to_bits() == lanes[0].to_bits()));
        lanes[0]
    }
}

#[test]
fn powers_of_two_are_within_their_bound() {
    for level in cpu().levels() {
        let exp2 = |x: f32| run_on(level, Exp2(x));
        for i in 0..200_000 {
            let x = -126.0 + i as f32 * (127.0 + 126.0) / 200_000.0;
            let (got, want) = (f64::from(exp2(x)), f64::from(x).exp2());
            assert!((got - want).abs() <= 2.5e-7 * want, "2^{x}: {got} {want}");
        }
        assert!(exp2(f32::NAN).is_nan());
        assert!(exp2(f32::from_bits(0x7fc0_0001)).is_nan());
        for x in [-127.0, -1e4, f32::NEG_INFINITY] {
            assert!((0.0..1.2e-38).contains(&exp2(x)));
        }
        assert!((exp2(0.0) - 1.0).abs() < 1.5e-7);
    }
}
