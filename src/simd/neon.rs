//! Vectors of 4 float32 (Arm). The half-precision conversions are written as assembly: their intrinsics are not stable.

use std::arch::aarch64::{
    float32x4_t, uint16x4_t, vaddq_f32, vdupq_n_f32, vld1_u16, vld1q_f32, vmulq_f32, vreinterpretq_f32_u32,
    vshll_n_u16, vst1_u16, vst1q_f32, vsubq_f32,
};
use std::arch::asm;

use crate::simd::kernels::instantiate;
use crate::simd::lanes::Lanes;

/// Four float32.
pub struct Neon;

instantiate!(Neon, "neon");

// SAFETY: loads and stores of 4 values that need no alignment; `fcvtl` and `fcvtn` are part of the baseline.
unsafe impl Lanes for Neon {
    type V = float32x4_t;
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise; the instruction reads and writes registers only.
        unsafe {
            let half: uint16x4_t = vld1_u16(from.cast());
            let wide: float32x4_t;
            asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) half, options(pure, nomem, nostack));
            wide
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store_f16(to: *mut u8, v: float32x4_t) {
        // SAFETY: the caller's promise; the processor's default rounding is to nearest even.
        unsafe {
            let half: uint16x4_t;
            asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) half, in(vreg) v, options(pure, nomem, nostack));
            vst1_u16(to.cast(), half);
        }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: float32x4_t) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_f32(to, v) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vmulq_f32(a, b) }
    }
}
