//! Portable Rust: arrays, which the compiler makes vectors of where it can.

use super::{Kernel, LANES, Simd, Vectors, WideKernel};
use crate::vector::half::{f16_to_f32, f32_to_f16};

/// Any processor. `fma` is a library call where there is no fused multiply-add: slow, and the same bits.
#[derive(Debug, Clone, Copy)]
pub struct Portable<const N: usize>;

/// 1.5 * 2^23: adding it to a small float rounds it to an integer, which then stands in the low bits.
pub const ROUNDER: f32 = 12_582_912.0;

macro_rules! lanes {
    ($i:ident => $value:expr) => {{
        let mut out = [0.0f32; N];
        for ($i, out) in out.iter_mut().enumerate() {
            *out = $value;
        }
        out
    }};
}

impl<const N: usize> Vectors for Portable<N> {
    type V = [f32; N];
    const WIDTH: usize = N;
    const ACCUMULATORS: usize = 2;

    fn run_wide<K: WideKernel>(self, kernel: K) -> K::Output {
        kernel.call(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; N] {
        [value; N]
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> [f32; N] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; N]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn write(self, value: [f32; N], to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; N]>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn read_f16(self, from: *const u8) -> [f32; N] {
        // SAFETY: the caller's promise.
        let halves = unsafe { from.cast::<[u16; N]>().read_unaligned() };
        lanes!(i => f16_to_f32(u16::from_le(halves[i])))
    }

    #[inline(always)]
    unsafe fn read_bf16(self, from: *const u8) -> [f32; N] {
        // SAFETY: the caller's promise.
        let halves = unsafe { from.cast::<[u16; N]>().read_unaligned() };
        lanes!(i => f32::from_bits(u32::from(u16::from_le(halves[i])) << 16))
    }

    #[inline(always)]
    unsafe fn write_f16(self, value: [f32; N], to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; N]>().write_unaligned(value.map(|x| f32_to_f16(x).to_le())) }
    }

    #[inline(always)]
    fn add(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(i => a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(i => a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(i => a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(i => a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        lanes!(i => a[i].mul_add(b[i], c[i]))
    }

    #[cfg(not(target_arch = "aarch64"))]
    #[inline(always)]
    fn mul_add(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        lanes!(i => a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn max(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        lanes!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn drop_below(self, a: [f32; N], least: f32) -> [f32; N] {
        lanes!(i => if a[i].abs() < least { 0.0 } else { a[i] })
    }

    #[inline(always)]
    fn sqrt(self, a: [f32; N]) -> [f32; N] {
        lanes!(i => a[i].sqrt())
    }

    #[inline(always)]
    fn round(self, a: [f32; N]) -> [f32; N] {
        lanes!(i => (a[i] + ROUNDER) - ROUNDER)
    }

    #[inline(always)]
    fn scale_by_power(self, a: [f32; N], n: [f32; N]) -> [f32; N] {
        lanes!(i => a[i] * f32::from_bits((n[i] + ROUNDER + 127.0).to_bits() << 23))
    }

    #[inline(always)]
    fn sum(self, a: [f32; N]) -> f32 {
        let (mut a, mut width) = (a, N / 2);
        while width > 0 {
            for i in 0..width {
                a[i] += a[i + width];
            }
            width /= 2;
        }
        a[0]
    }

    #[inline(always)]
    #[allow(clippy::neg_cmp_op_on_partial_ord)] // NaN counts as "not less or equal"
    fn not_le(self, a: [f32; N], b: [f32; N]) -> u32 {
        (0..N).fold(0, |mask, i| mask | (u32::from(!(a[i] <= b[i])) << i))
    }
}

impl Simd for Portable<LANES> {
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.call(self)
    }
}
