//! Powers, exponentials and hyperbolic tangents of codes: the same bits on every machine, which those of a system's
//! library are not. Relative errors are below 1e-10. No branches, so that loops over codes become vectors.

/// Nearest integer: added and taken off, this leaves one.
const ROUNDS: f64 = 6_755_399_441_055_744.0;
const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// e^x, for x between -700 and 700; beyond, what it is there.
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    let x = if x > 700.0 { 700.0 } else { x };
    let x = if x < -700.0 { -700.0 } else { x };
    let n = (x * std::f64::consts::LOG2_E + ROUNDS) - ROUNDS;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut sum = 1.0;
    let mut k = 10.0;
    while k > 0.5 {
        sum = 1.0 + sum * (r / k);
        k -= 1.0;
    }
    // The integer is in the lowest bits of n + ROUNDS.
    sum * f64::from_bits((n + ROUNDS + 1023.0).to_bits() << 52)
}

/// ln x, for normal x above 0.
#[inline(always)]
fn ln(x: f64) -> f64 {
    // The exponent of the number whose mantissa is between the roots of a half and of two.
    const HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    let bits = x.to_bits();
    let shifted = bits.wrapping_sub(HALF);
    let exponent = (shifted as i64 >> 52) as i32;
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff).wrapping_add(HALF));
    let s = (m - 1.0) / (m + 1.0);
    let t = s * s;
    let series = 1.0
        + t * (1.0 / 3.0 + t * (1.0 / 5.0 + t * (1.0 / 7.0 + t * (1.0 / 9.0 + t * (1.0 / 11.0 + t * (1.0 / 13.0))))));
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

/// z^p, for z above 0; NaN for NaN.
#[inline(always)]
pub fn power(z: f32, p: f64) -> f64 {
    let z = f64::from(z);
    let found = exp(p * ln(z));
    if z.is_nan() { z } else { found }
}

/// tanh x, for x from 0.
#[inline(always)]
pub fn tanh(x: f64) -> f64 {
    let t = exp(-2.0 * x);
    (1.0 - t) / (1.0 + t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_the_library_to_ten_digits() {
        for i in 0..4000 {
            let x = f64::from(i) * 0.34 - 690.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-10, "{x}");
            let z = (f64::from(i) * 0.01 - 25.0).exp() as f32;
            assert!((ln(f64::from(z)) - f64::from(z).ln()).abs() < 1e-10, "{z}");
            for p in [1.0, 0.2, -0.8, 0.0] {
                assert!((power(z, p) / f64::from(z).powf(p) - 1.0).abs() < 1e-9, "{z} {p}");
            }
            let x = f64::from(i) * 0.01;
            assert!((tanh(x) - x.tanh()).abs() < 1e-10, "{x}");
        }
        assert_eq!((exp(0.0), power(3.0, 0.0), tanh(0.0)), (1.0, 1.0, 0.0));
        assert!(power(f32::NAN, 0.0).is_nan() && exp(f64::NAN).is_nan() && tanh(f64::NAN).is_nan());
    }
}
