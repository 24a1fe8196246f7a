//! Vectors of 4 float32 (Arm). The half-precision conversions are written as assembly: their intrinsics are not stable.

use std::arch::aarch64::{
    float32x4_t, uint16x4_t, vaddq_f32, vdupq_n_f32, vld1_u16, vld1q_f32, vmulq_f32, vreinterpretq_f32_u32,
    vshll_n_u16, vst1_u16, vst1q_f32, vsubq_f32,
};
use std::arch::asm;

use super::lanes::{Lanes, instructions};

/// Four float32.
#[derive(Clone, Copy)]
pub struct Neon(float32x4_t);

// SAFETY: loads and stores of 4 values that need no alignment; `fcvtl` and `fcvtn` are part of the baseline.
unsafe impl Lanes for Neon {
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self {
        // SAFETY: the caller's promise; the instruction reads and writes registers only.
        unsafe {
            let half: uint16x4_t = vld1_u16(from.cast());
            let wide: float32x4_t;
            asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) half, options(pure, nomem, nostack));
            Self(wide)
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u8) {
        // SAFETY: the caller's promise; the processor's default rounding is to nearest even.
        unsafe {
            let half: uint16x4_t;
            asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) half, in(vreg) self.0, options(pure, nomem, nostack));
            vst1_u16(to.cast(), half);
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { vdupq_n_f32(x) })
    }

    instructions! {
        add(other) = vaddq_f32;
        sub(other) = vsubq_f32;
        mul(other) = vmulq_f32;
    }
}
