//! What the kernels need of a vector of float32, and the three types on disk.

use crate::shard::Dtype;

/// A vector of `WIDTH` float32.
///
/// # Safety
/// Every method may be called only where the processor has the instruction set, inside a function that enables it;
/// pointers must be valid for `WIDTH` values of their type, with any alignment.
pub unsafe trait Lanes {
    /// The register.
    type V: Copy;
    /// Values in it.
    const WIDTH: usize;

    unsafe fn load_f16(from: *const u8) -> Self::V;
    unsafe fn load_bf16(from: *const u8) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store_f16(to: *mut u8, v: Self::V);
    unsafe fn store(to: *mut f32, v: Self::V);
    /// Stores past the caches where the processor can; `to` must be aligned to 64 bytes. See [`crate::simd::fence`].
    #[inline(always)]
    unsafe fn stream(to: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { Self::store(to, v) }
    }
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
}

/// A type on disk.
pub trait Stored {
    const DTYPE: Dtype;
    /// Bytes of a value.
    const SIZE: usize;

    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<L: Lanes>(from: *const u8) -> L::V;
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
    unsafe fn load<L: Lanes>(from: *const u8) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::load_f16(from) }
    }
}

impl Stored for Bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::load_bf16(from) }
    }
}

impl Stored for F32 {
    const DTYPE: Dtype = Dtype::F32;
    const SIZE: usize = 4;

    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L::V {
        // SAFETY: the caller's promise.
        unsafe { L::load(from.cast()) }
    }
}
