//! Every level that this processor has, against the scalar reference, over every value of 16 bits and odd lengths.

use super::*;
use crate::cpu::cpu;
use crate::vector::half::{f16_to_f32, f32_to_f16};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Floats around every rounding boundary of both 16-bit types, and the special ones.
fn hard_floats() -> Vec<f32> {
    let mut floats =
        vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, f32::MAX, 65519.996];
    for half in (0..=u16::MAX).step_by(7) {
        for wide in [f16_to_f32(half), f32::from_bits(u32::from(half) << 16)] {
            let base = wide.to_bits();
            for offset in [0, 1, 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001] {
                floats.push(f32::from_bits(base.wrapping_add(offset)));
            }
        }
    }
    floats
}

#[test]
fn all_16_bit_values_widen_to_the_same_bits_on_every_level() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let mut expected = vec![0.0; 65536];
        widen(Level::Scalar, dtype, &bytes, &mut expected);
        for level in cpu().levels() {
            let mut found = vec![0.0; 65536];
            widen(level, dtype, &bytes, &mut found);
            assert_eq!(bits(&found), bits(&expected), "{dtype:?} {}", level.name());
        }
    }
}

#[test]
fn widening_is_the_definition_of_binary16() {
    for half in 0..=u16::MAX {
        let (sign, exponent, fraction) = (half >> 15, (half >> 10) & 31, f64::from(half & 1023));
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            e => (1.0 + fraction / 1024.0) * 2f64.powi(i32::from(e) - 15),
        };
        let expected = if sign == 1 { -magnitude } else { magnitude };
        let found = f64::from(f16_to_f32(half));
        assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()), "{half:#x}");
    }
}

#[test]
fn narrowing_gives_the_nearest_value_and_even_on_ties() {
    // Neighbours among the finite 16-bit values, by brute force.
    let halves: Vec<f64> = (0..0x7c00u16).map(|h| f64::from(f16_to_f32(h))).collect();
    for x in hard_floats().into_iter().filter(|x| x.is_finite() && x.abs() < 65520.0) {
        let magnitude = f64::from(x.abs());
        let above = halves.partition_point(|&h| h < magnitude).min(halves.len() - 1);
        let below = above.saturating_sub(usize::from(halves[above] > magnitude));
        let (up, down) = (halves[above] - magnitude, magnitude - halves[below]);
        let nearest = match up.total_cmp(&down) {
            std::cmp::Ordering::Less => above,
            std::cmp::Ordering::Greater => below,
            std::cmp::Ordering::Equal => {
                if above.is_multiple_of(2) {
                    above
                } else {
                    below
                }
            }
        };
        let expected = nearest as u16 | if x.is_sign_negative() { 0x8000 } else { 0 };
        assert_eq!(f32_to_f16(x), expected, "{x:e}");
    }
    assert_eq!(f32_to_f16(65520.0), 0x7c00);
}

#[test]
fn narrowing_is_the_same_on_every_level_and_length() {
    let floats = hard_floats();
    for dtype in [Dtype::F16, Dtype::Bf16, Dtype::F32] {
        for n in [0, 1, 3, 15, 16, 17, 33, floats.len()] {
            let mut expected = vec![0; n * dtype.size()];
            narrow(Level::Scalar, dtype, &floats[..n], &mut expected);
            for level in cpu().levels() {
                let mut found = vec![0; n * dtype.size()];
                narrow(level, dtype, &floats[..n], &mut found);
                assert!(found == expected, "{dtype:?} {} {n}", level.name());
            }
        }
    }
}

/// Every level, with ordinary stores and past the caches, where lines begin and one value behind.
fn ways() -> impl Iterator<Item = (Level, bool, usize)> {
    cpu().levels().flat_map(|level| [(false, 0), (true, 0), (true, 1)].map(|(past, shift)| (level, past, shift)))
}

/// The part of `memory` from the first address on that 64 divides.
fn from_line<T>(memory: &mut [T]) -> &mut [T] {
    let skipped = memory.as_ptr().align_offset(64);
    &mut memory[skipped..]
}

#[test]
fn gathering_normalises_the_same_on_every_level_odd_widths_and_addresses() {
    let bytes: Vec<u8> = (0..40_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 25) as u8).collect();
    for dtype in [Dtype::F16, Dtype::Bf16, Dtype::F32] {
        for dim in [1, 3, 8, 16, 17, 31, 128] {
            let row_bytes = dim * dtype.size();
            let rows: Vec<*const u8> = (0..37).map(|i| bytes[(i * 7 + 1) % 41 * 3..].as_ptr()).collect();
            let mean: Vec<f32> = (0..dim).map(|i| i as f32 * 0.125 - 1.0).collect();
            for normalize in [Normalize::No, Normalize::Scale(0.3), Normalize::Center(&mean, 0.3)] {
                let mut expected = vec![0.0; rows.len() * dim];
                for (row, out) in rows.iter().zip(expected.chunks_exact_mut(dim)) {
                    // SAFETY: every row lies inside `bytes`.
                    widen(Level::Scalar, dtype, unsafe { std::slice::from_raw_parts(*row, row_bytes) }, out);
                    match normalize {
                        Normalize::No => {}
                        Normalize::Scale(f) => out.iter_mut().for_each(|x| *x *= f),
                        Normalize::Center(m, f) => out.iter_mut().zip(m).for_each(|(x, m)| *x = (*x - m) * f),
                    }
                }
                for (level, past_caches, shift) in ways() {
                    let mut memory = vec![0.0; rows.len() * dim + 32];
                    let found = &mut from_line(&mut memory)[shift..][..rows.len() * dim];
                    let rows = Rows { now: &rows, ahead: &rows, past_caches };
                    // SAFETY: every row lies inside `bytes`.
                    unsafe { gather(level, dtype, rows, dim, normalize, found) };
                    fence();
                    assert_eq!(bits(found), bits(&expected), "{dtype:?} {dim} {} {past_caches}", level.name());
                }
            }
            for (level, past_caches, shift) in ways() {
                let mut memory = vec![0; rows.len() * row_bytes + 128];
                let found = &mut from_line(&mut memory)[shift..][..rows.len() * row_bytes];
                // SAFETY: every row lies inside `bytes`.
                unsafe { gather_raw(level, Rows { now: &rows, ahead: &[], past_caches }, row_bytes, found) };
                fence();
                for (row, copy) in rows.iter().zip(found.chunks_exact(row_bytes)) {
                    // SAFETY: as above.
                    assert!(unsafe { std::slice::from_raw_parts(*row, row_bytes) } == copy);
                }
            }
        }
    }
}

#[test]
fn the_first_non_finite_value_is_found_wherever_it_is() {
    for dtype in [Dtype::F16, Dtype::Bf16, Dtype::F32] {
        let n = 5000;
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 1, 1023, 2047, 2048, 4095, 4999] {
                let mut floats = vec![1.0; n];
                floats[at] = bad;
                let mut bytes = vec![0; n * dtype.size()];
                narrow(Level::Scalar, dtype, &floats, &mut bytes);
                for level in cpu().levels() {
                    assert_eq!(first_non_finite(level, dtype, &bytes), Some(at), "{dtype:?} {bad} {at}");
                }
            }
        }
        assert_eq!(first_non_finite(cpu().level, dtype, &vec![0; 4098]), None);
    }
}

#[test]
fn sums_are_the_same_on_every_level() {
    for (dim, dtype) in [(1, Dtype::F16), (5, Dtype::Bf16), (32, Dtype::F32), (33, Dtype::F16), (300, Dtype::F16)] {
        let x: Vec<f32> = (0..dim * 9).map(|i| (i as f32 * 0.37).sin()).collect();
        let shift: Vec<f64> = x[..dim].iter().map(|&x| f64::from(x)).collect();
        let mut bytes = vec![0; x.len() * dtype.size()];
        narrow(Level::Scalar, dtype, &x, &mut bytes);
        let mut stored = vec![0.0; x.len()];
        widen(Level::Scalar, dtype, &bytes, &mut stored);
        let (mut sum, mut squares) = (vec![0.5; dim], vec![0.25; dim]);
        for row in stored.chunks_exact(dim) {
            for (d, &value) in row.iter().enumerate() {
                let v = f64::from(value) - shift[d];
                sum[d] += v;
                squares[d] += v * v;
            }
        }
        for level in cpu().levels() {
            let (mut found, mut found_squares) = (vec![0.5; dim], vec![0.25; dim]);
            accumulate(level, dtype, &bytes, &shift, &mut found, &mut found_squares);
            assert_eq!((&found, &found_squares), (&sum, &squares), "{dim} {}", level.name());
        }
    }
}
