//! 512-bit x86 registers: sixteen lanes.

use std::arch::x86_64::{
    __m256, __m512, __m512i, _CMP_NLE_UQ, _CMP_NLT_UQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm256_add_ps,
    _mm256_loadu_si256, _mm256_storeu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_castps512_ps256,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_div_ps,
    _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps,
    _mm512_maskz_compress_epi32, _mm512_maskz_loadu_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32, _mm512_sqrt_ps,
    _mm512_storeu_ps, _mm512_storeu_si512, _mm512_stream_ps, _mm512_sub_ps,
};

use super::avx2::{prefetch, sum8, sums};
use super::{Kernel, LANES, Simd, Vectors, WideKernel, Word};

/// AVX-512 F, BW, DQ and VL, with AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// The proof that this processor has the instructions, or None.
    pub fn detect() -> Option<Self> {
        (crate::cpu::cpu().level >= crate::cpu::Level::Avx512).then_some(Self(()))
    }
}

/// Methods of [`Vectors`] that are one instruction.
macro_rules! instructions {
    ($($name:ident($($operand:ident),+) = $instruction:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($operand: __m512),+) -> __m512 {
            // SAFETY: `self` exists only where the processor has AVX-512.
            unsafe { $instruction($($operand),+) }
        }
    )+};
}

// Every block without a reason of its own: `self` exists only where the processor has AVX-512 with AVX2, FMA and F16C, and
// pointers are their callers' promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vectors for Avx512 {
    type V = __m512;
    const WIDTH: usize = LANES;
    const ACCUMULATORS: usize = 16;

    fn run_wide<K: WideKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        fn inner<K: WideKernel>(s: Avx512, kernel: K) -> K::Output {
            kernel.call(s)
        }
        // SAFETY: `self` exists only where `cpu()` found these features; every processor with AVX-512 has the bit
        // manipulation ones.
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn write(self, value: __m512, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn stream(self, value: __m512, to: *mut f32) {
        unsafe { _mm512_stream_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn read_f16(self, from: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn read_bf16(self, from: *const u8) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn write_f16(self, value: __m512, to: *mut u8) {
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value)) }
    }

    instructions! {
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        fma(a, b, c) = _mm512_fmadd_ps;
        max(a, b) = _mm512_max_ps;
        sqrt(a) = _mm512_sqrt_ps;
        scale_by_power(a, n) = _mm512_scalef_ps;
    }

    #[inline(always)]
    fn drop_below(self, a: __m512, least: f32) -> __m512 {
        unsafe {
            let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(_mm512_abs_ps(a), _mm512_set1_ps(least));
            _mm512_maskz_mov_ps(kept, a)
        }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        unsafe { sum8(halves(a)) }
    }

    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        unsafe { sums([halves(a), halves(b), halves(c), halves(d)]) }
    }

    #[inline(always)]
    fn not_le(self, a: __m512, b: __m512) -> u32 {
        u32::from(unsafe { _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(a, b) })
    }

    #[inline(always)]
    fn prefetch(self, row: &[f32]) {
        prefetch(row);
    }
}

/// The lower lanes plus the upper ones.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn halves(a: __m512) -> __m256 {
    _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a))
}

impl Simd for Avx512 {
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        fn inner<K: Kernel>(s: Avx512, kernel: K) -> K::Output {
            kernel.call(s)
        }
        // SAFETY: `self` exists only where `cpu()` found these features; every processor with AVX-512 has the bit
        // manipulation ones.
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn load_part(self, from: &[f32]) -> __m512 {
        let mask = part(from.len());
        // SAFETY: `self` exists only where the processor has AVX-512; the mask has at most `from.len()` lanes, the others are not touched.
        unsafe { _mm512_maskz_loadu_ps(mask, from.as_ptr()) }
    }

    #[inline(always)]
    fn store_part(self, value: __m512, to: &mut [f32]) {
        let mask = part(to.len());
        // SAFETY: `self` exists only where the processor has AVX-512; the mask has at most `to.len()` lanes, the others are not touched.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, value) }
    }

    #[inline(always)]
    fn list_bits(self, bits: u64, first: u32, to: &mut [u32]) -> usize {
        let count = bits.count_ones() as usize;
        assert!(to.len() >= count + LANES);
        let mut done = 0;
        for group in 0..4 {
            let own = (bits >> (16 * group)) as u16;
            // SAFETY: as above; `done` does not exceed `count`, and from there on sixteen places are writable.
            unsafe {
                let places = _mm512_add_epi32(PLACES, _mm512_set1_epi32((first + 16 * group) as i32));
                _mm512_storeu_si512(to.as_mut_ptr().add(done).cast(), _mm512_maskz_compress_epi32(own, places));
            }
            done += own.count_ones() as usize;
        }
        count
    }

    #[inline(always)]
    fn compress<T: Word>(self, lanes: &[T; LANES], kept: u32, to: &mut [T; LANES]) {
        const { assert!(size_of::<T>() == 4) };
        // SAFETY: as above; sixteen words of four bytes are readable and writable, whose bits are kept.
        unsafe {
            let lanes = _mm512_maskz_compress_epi32(kept as u16, _mm512_loadu_si512(lanes.as_ptr().cast()));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), lanes);
        }
    }
}

/// 0 to 15.
// SAFETY: any bits are a vector of integers.
const PLACES: __m512i = unsafe { std::mem::transmute([0u32, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]) };

#[inline(always)]
fn part(len: usize) -> u16 {
    debug_assert!(len < LANES);
    ((1u32 << len.min(LANES)) - 1) as u16
}
