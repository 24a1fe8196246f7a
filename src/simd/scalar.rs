//! Portable vectors and conversions: the reference that every path of the store equals bit for bit.

use super::lanes::{Lanes, Math, ROUNDER};
use crate::dtype::Dtype;

/// `N` values. Four of them the compiler turns into one SSE2 or NEON register.
#[derive(Clone, Copy)]
pub struct Portable<const N: usize>([f32; N]);

impl<const N: usize> Portable<N> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const u8, widen: impl Fn(u16) -> f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[u16; N]>().read_unaligned() }.map(|half| widen(u16::from_le(half))))
    }
}

// SAFETY: plain loads and stores of N values; needs no feature.
unsafe impl<const N: usize> Lanes for Portable<N> {
    const WIDTH: usize = N;

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::load_halves(from, f16_to_f32) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::load_halves(from, |half| f32::from_bits(u32::from(half) << 16)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; N]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; N]>().write_unaligned(self.0.map(|x| f32_to_f16(x).to_le())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; N]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; N])
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
}

impl<const N: usize> Math for Portable<N> {
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // `f32::mul_add` is a library call on x86 without FMA.
        #[cfg(target_arch = "aarch64")]
        return Self(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], addend.0[i])));
        #[cfg(not(target_arch = "aarch64"))]
        return Self(std::array::from_fn(|i| self.0[i] * factor.0[i] + addend.0[i]));
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(|x| (x + ROUNDER) - ROUNDER))
    }

    #[inline(always)]
    unsafe fn scale_by_power(self, n: Self) -> Self {
        self.zip(n, |x, n| x * f32::from_bits(((n + ROUNDER + 127.0).to_bits()) << 23))
    }
}

/// binary16 to binary32, exact; a signalling NaN becomes quiet, as in hardware.
#[inline(always)]
#[must_use]
pub fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half & 0x3ff);
    let bits = match exponent {
        // Zero or subnormal: fraction times 2^-24, which float32 holds exactly.
        0 => (fraction as f32 * (1.0 / 16_777_216.0)).to_bits(),
        31 if fraction == 0 => 0x7f80_0000,
        31 => 0x7fc0_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | bits)
}

/// binary32 to binary16, to nearest, ties to even; a NaN keeps its upper payload and becomes quiet, as in hardware.
#[inline(always)]
#[must_use]
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    sign | match magnitude {
        0x7f80_0001.. => 0x7e00 | ((magnitude >> 13) & 0x3ff) as u16,
        // 65520 and more is nearer to 65536, which does not exist.
        0x477f_f000.. => 0x7c00,
        // Normal: rebias by 112, round by adding half of the last kept bit, less one where that bit is even.
        0x3880_0000.. => ((magnitude - 0x3800_0000 + 0xfff + ((magnitude >> 13) & 1)) >> 13) as u16,
        // Subnormal: adding 0.5 aligns the fraction at 2^-24 and lets the processor round to nearest even.
        _ => ((f32::from_bits(magnitude) + 0.5).to_bits() & 0x7fff) as u16,
    }
}

/// binary32 to bfloat16, to nearest, ties to even; a NaN keeps its upper payload and becomes quiet.
#[inline(always)]
#[must_use]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    if (bits & 0x7fff_ffff) > 0x7f80_0000 { (bits >> 16) as u16 | 0x40 } else { rounded }
}

/// Whether one stored value (its bytes, little-endian) is NaN or infinite.
#[must_use]
pub fn non_finite(dtype: Dtype, value: &[u8]) -> bool {
    match (dtype, value) {
        (Dtype::F16, &[a, b]) => u16::from_le_bytes([a, b]) & 0x7c00 == 0x7c00,
        (Dtype::Bf16, &[a, b]) => u16::from_le_bytes([a, b]) & 0x7f80 == 0x7f80,
        (_, &[a, b, c, d]) => !f32::from_le_bytes([a, b, c, d]).is_finite(),
        _ => false,
    }
}
