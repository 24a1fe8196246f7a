//! Vectors of 8 (AVX2, F16C) and 16 (AVX-512) float32.

/// AVX2 with F16C.
pub mod avx2 {
    use std::arch::x86_64::{
        __m256, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_ps, _mm256_castsi256_ps,
        _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_ps,
        _mm256_slli_epi32, _mm256_storeu_ps, _mm256_stream_ps, _mm256_sub_ps,
    };

    use crate::simd::kernels::instantiate;
    use crate::simd::lanes::Lanes;

    /// Eight float32.
    pub struct Avx2;

    instantiate!(Avx2, "avx2,fma,f16c");

    // SAFETY: unaligned loads and stores of 8 values.
    unsafe impl Lanes for Avx2 {
        type V = __m256;
        const WIDTH: usize = 8;

        #[inline(always)]
        unsafe fn load_f16(from: *const u8) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u8) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())))) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store_f16(to: *mut u8, v: __m256) {
            // SAFETY: the caller's promise.
            unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m256) {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_ps(to, v) }
        }

        #[inline(always)]
        unsafe fn stream(to: *mut f32, v: __m256) {
            // SAFETY: the caller's promise.
            unsafe { _mm256_stream_ps(to, v) }
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_sub_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the caller's promise.
            unsafe { _mm256_mul_ps(a, b) }
        }
    }
}

/// AVX-512 (F, BW, DQ, VL).
pub mod avx512 {
    use std::arch::x86_64::{
        __m512, _MM_FROUND_TO_NEAREST_INT, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_ps, _mm512_castsi512_ps,
        _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps,
        _mm512_slli_epi32, _mm512_storeu_ps, _mm512_stream_ps, _mm512_sub_ps,
    };

    use crate::simd::kernels::instantiate;
    use crate::simd::lanes::Lanes;

    /// Sixteen float32.
    pub struct Avx512;

    instantiate!(Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");

    // SAFETY: unaligned loads and stores of 16 values.
    unsafe impl Lanes for Avx512 {
        type V = __m512;
        const WIDTH: usize = 16;

        #[inline(always)]
        unsafe fn load_f16(from: *const u8) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u8) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe {
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()))))
            }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store_f16(to: *mut u8, v: __m512) {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m512) {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_ps(to, v) }
        }

        #[inline(always)]
        unsafe fn stream(to: *mut f32, v: __m512) {
            // SAFETY: the caller's promise.
            unsafe { _mm512_stream_ps(to, v) }
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_sub_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller's promise.
            unsafe { _mm512_mul_ps(a, b) }
        }
    }
}
