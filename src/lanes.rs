//! One vector of floats, as wide as the processor has: numeric code is written once over [`Lanes`].
//!
//! Every method is `inline(always)`, so that a caller which is compiled for the instruction set (`#[target_feature]`)
//! gets single instructions.
#![allow(
    clippy::inline_always,
    clippy::missing_safety_doc,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use
)]

/// A vector of `WIDTH` floats (at most 16).
///
/// # Safety
/// Every method needs a processor with the implementing type's instruction set; pointers must be valid for `WIDTH`
/// floats, at any alignment.
pub trait Lanes: Copy {
    /// Floats in one vector.
    const WIDTH: usize;
    /// All lanes equal to `x`.
    unsafe fn splat(x: f32) -> Self;
    /// Reads `WIDTH` floats.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes `WIDTH` floats.
    unsafe fn store(self, to: *mut f32);
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self - other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self * other`.
    unsafe fn mul(self, other: Self) -> Self;
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
const ROUNDER: f32 = 12_582_912.0;

/// Portable lanes: four floats, which the compiler turns into one SSE2 or NEON register.
#[derive(Clone, Copy, Debug)]
pub struct Portable([f32; 4]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Portable {
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: valid for WIDTH floats by the trait's contract.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) };
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

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm256_add_ps, _mm256_castps_si256,
        _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_mul_ps, _mm256_round_ps,
        _mm256_set1_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps,
        _mm512_storeu_ps, _mm512_sub_ps,
    };

    use super::{Lanes, ROUNDER};

    /// Eight floats; needs AVX2 and FMA.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx2(__m256);

    /// Sixteen floats; needs AVX-512F.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx512(__m512);

    // SAFETY of every block below: the trait's contract gives the instruction set and valid pointers.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Lanes for Avx2 {
        const WIDTH: usize = 8;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Self(unsafe { _mm256_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm256_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) };
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm256_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm256_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            Self(unsafe { _mm256_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
        }
        #[inline(always)]
        unsafe fn scale_by_power(self, n: Self) -> Self {
            Self(unsafe {
                let biased = _mm256_add_ps(n.0, _mm256_set1_ps(ROUNDER + 127.0));
                let power = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(biased)));
                _mm256_mul_ps(self.0, power)
            })
        }
    }

    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Lanes for Avx512 {
        const WIDTH: usize = 16;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) };
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
        }
        #[inline(always)]
        unsafe fn scale_by_power(self, n: Self) -> Self {
            Self(unsafe { _mm512_scalef_ps(self.0, n.0) })
        }
    }
}
