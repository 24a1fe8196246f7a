//! 128-bit Arm registers: four lanes. The half-precision conversions are written as assembly: their intrinsics are not stable.

use std::arch::aarch64::{
    float32x4_t, uint16x4_t, vabsq_f32, vaddq_f32, vbicq_u32, vbslq_f32, vcgtq_f32, vcltq_f32, vdivq_f32, vdupq_n_f32,
    vfmaq_f32, vld1_u16, vld1q_f32, vmulq_f32, vreinterpretq_f32_s32, vreinterpretq_f32_u32, vreinterpretq_s32_f32,
    vreinterpretq_u32_f32, vshll_n_u16, vshlq_n_s32, vsqrtq_f32, vst1_u16, vst1q_f32, vsubq_f32,
};
use std::arch::asm;

use super::portable::{Portable, ROUNDER};
use super::{Vectors, WideKernel};

/// NEON: every 64-bit Arm processor has it.
#[derive(Debug, Clone, Copy)]
pub struct Neon;

/// Methods of [`Vectors`] that are one instruction.
macro_rules! instructions {
    ($($name:ident($($operand:ident),+) = $instruction:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($operand: float32x4_t),+) -> float32x4_t {
            // SAFETY: NEON is part of the aarch64 baseline.
            unsafe { $instruction($($operand),+) }
        }
    )+};
}

impl Neon {
    #[inline(always)]
    fn array(self, a: float32x4_t) -> [f32; 4] {
        let mut lanes = [0.0; 4];
        // SAFETY: four floats are writable.
        unsafe { self.write(a, lanes.as_mut_ptr()) };
        lanes
    }
}

// Every block without a reason of its own: NEON is part of the aarch64 baseline, and pointers are their callers' promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vectors for Neon {
    type V = float32x4_t;
    const WIDTH: usize = 4;
    const ACCUMULATORS: usize = 16;

    fn run_wide<K: WideKernel>(self, kernel: K) -> K::Output {
        kernel.call(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn write(self, value: float32x4_t, to: *mut f32) {
        unsafe { vst1q_f32(to, value) }
    }

    #[inline(always)]
    unsafe fn read_f16(self, from: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise; the instruction reads and writes registers only.
        unsafe {
            let half: uint16x4_t = vld1_u16(from.cast());
            let wide: float32x4_t;
            asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) half, options(pure, nomem, nostack));
            wide
        }
    }

    #[inline(always)]
    unsafe fn read_bf16(self, from: *const u8) -> float32x4_t {
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn write_f16(self, value: float32x4_t, to: *mut u8) {
        // SAFETY: the caller's promise; the processor's default rounding is to nearest even.
        unsafe {
            let half: uint16x4_t;
            asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) half, in(vreg) value, options(pure, nomem, nostack));
            vst1_u16(to.cast(), half);
        }
    }

    instructions! {
        add(a, b) = vaddq_f32;
        sub(a, b) = vsubq_f32;
        mul(a, b) = vmulq_f32;
        div(a, b) = vdivq_f32;
        sqrt(a) = vsqrtq_f32;
    }

    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // Not `fmax`, which has a rule of its own for NaN.
        unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
    }

    #[inline(always)]
    fn drop_below(self, a: float32x4_t, least: f32) -> float32x4_t {
        // The bits of those below are cleared: NaN is not below.
        unsafe {
            let below = vcltq_f32(vabsq_f32(a), vdupq_n_f32(least));
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), below))
        }
    }

    #[inline(always)]
    fn round(self, a: float32x4_t) -> float32x4_t {
        self.sub(self.add(a, self.splat(ROUNDER)), self.splat(ROUNDER))
    }

    #[inline(always)]
    fn scale_by_power(self, a: float32x4_t, n: float32x4_t) -> float32x4_t {
        // In two additions, as the portable code rounds.
        let biased = self.add(self.add(n, self.splat(ROUNDER)), self.splat(127.0));
        self.mul(a, unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vreinterpretq_s32_f32(biased))) })
    }

    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        Portable::<4>.sum(self.array(a))
    }

    #[inline(always)]
    fn not_le(self, a: float32x4_t, b: float32x4_t) -> u32 {
        Portable::<4>.not_le(self.array(a), self.array(b))
    }
}
