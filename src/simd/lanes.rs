//! One vector of float32, as wide as the processor's registers: numeric code is written once over [`Lanes`], or over
//! [`Math`] where it needs more than the store does. And the three types on disk.
//!
//! Every method is `inline(always)`, so that a caller which is compiled for the instruction set (`compiled!`) gets single
//! instructions.

use crate::dtype::Dtype;

#[cfg(target_arch = "aarch64")]
pub use super::neon::Neon;
pub use super::scalar::Portable;
#[cfg(target_arch = "x86_64")]
pub use super::x86::{Avx2, Avx512};

/// A vector of `WIDTH` float32, at most 16.
///
/// # Safety
/// Every method may be called only where the processor has the instruction set, inside a function that enables it;
/// pointers must be valid for `WIDTH` values of their type, with any alignment.
pub unsafe trait Lanes: Copy {
    /// Values in it.
    const WIDTH: usize;

    unsafe fn load_f16(from: *const u8) -> Self;
    unsafe fn load_bf16(from: *const u8) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store_f16(self, to: *mut u8);
    unsafe fn store(self, to: *mut f32);
    /// Stores past the caches where the processor can; `to` must be aligned to 64 bytes. See [`crate::simd::fence`].
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { self.store(to) }
    }
    unsafe fn splat(x: f32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
}

/// What the language model needs beyond [`Lanes`], under the same contract.
pub trait Math: Lanes {
    /// `self * factor + addend`, in one rounding where the processor can.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// The larger of two; `other` where either is NaN.
    unsafe fn max(self, other: Self) -> Self;
    /// The nearest integer, for |self| < 2^22.
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for integers n in [-126, 127].
    unsafe fn scale_by_power(self, n: Self) -> Self;

    /// Sum of the lanes, in lane order.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = [0.0f32; 16];
        // SAFETY: WIDTH is at most 16.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes[..Self::WIDTH].iter().sum()
    }

    /// The largest lane that is not NaN.
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let mut lanes = [0.0f32; 16];
        // SAFETY: WIDTH is at most 16.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes[..Self::WIDTH].iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b))
    }

    /// 2^self for `self` <= 127 within 2.5e-7 relative; 2^-126 for anything below -126, which no sum of terms near 1
    /// notices. NaN stays NaN.
    #[inline(always)]
    unsafe fn exp2(self) -> Self {
        // Minimax polynomial of 2^r on [-1/2, 1/2] (Remez on the relative error): off by 7.5e-8.
        const C: [f32; 6] = [1.000_000_1, 0.693_146_94, 0.240_221_2, 0.055_507_13, 0.009_675_541, 0.001_327_647_2];
        // SAFETY: the caller has the instruction set.
        unsafe {
            let x = Self::splat(-126.0).max(self);
            let n = x.round();
            let r = x.sub(n);
            let mut p = Self::splat(C[5]);
            p = p.mul_add(r, Self::splat(C[4]));
            p = p.mul_add(r, Self::splat(C[3]));
            p = p.mul_add(r, Self::splat(C[2]));
            p = p.mul_add(r, Self::splat(C[1]));
            p = p.mul_add(r, Self::splat(C[0]));
            p.scale_by_power(n)
        }
    }
}

/// 1.5 * 2^23: adding it to a small float rounds it to an integer, which then stands in the low bits.
pub const ROUNDER: f32 = 12_582_912.0;

/// Methods of [`Lanes`] and [`Math`] that are one instruction.
macro_rules! instructions {
    ($($name:ident($($operand:ident),+) = $instruction:ident;)+) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($operand: Self),+) -> Self {
            // SAFETY: the caller's promise.
            Self(unsafe { $instruction(self.0, $($operand.0),+) })
        }
    )+};
}
pub(super) use instructions;

/// A type on disk.
pub trait Stored {
    const DTYPE: Dtype;
    /// Bytes of a value.
    const SIZE: usize;

    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<L: Lanes>(from: *const u8) -> L;
}

/// IEEE binary16.
pub struct F16;
/// The upper half of binary32.
pub struct Bf16;
/// IEEE binary32.
pub struct F32;

impl Stored for F16 {
    const DTYPE: Dtype = Dtype::F16;
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_f16(from) }
    }
}

impl Stored for Bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_bf16(from) }
    }
}

impl Stored for F32 {
    const DTYPE: Dtype = Dtype::F32;
    const SIZE: usize = 4;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(from.cast()) }
    }
}
