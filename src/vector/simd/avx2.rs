//! 256-bit x86 registers: eight lanes.

use std::arch::x86_64::{
    __m256, _CMP_LT_OQ, _CMP_NLE_UQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _MM_HINT_T0, _mm_add_ps, _mm_add_ss,
    _mm_cvtss_f32, _mm_loadu_si128, _mm_movehl_ps, _mm_prefetch, _mm_shuffle_ps, _mm_storeu_ps, _mm_storeu_si128,
    _mm_unpacklo_ps, _mm256_add_ps, _mm256_andnot_ps, _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps,
    _mm256_cmp_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_div_ps, _mm256_extractf128_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_movehdup_ps, _mm256_movemask_ps, _mm256_mul_ps,
    _mm256_permute2f128_ps, _mm256_round_ps, _mm256_set1_ps, _mm256_shuffle_ps, _mm256_slli_epi32, _mm256_sqrt_ps,
    _mm256_storeu_ps, _mm256_stream_ps, _mm256_sub_ps,
};

use super::portable::ROUNDER;
use super::{LANES, Vectors, WideKernel};

/// AVX2 with FMA and half-precision conversion.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The proof that this processor has the instructions, or None.
    pub fn detect() -> Option<Self> {
        (crate::cpu::cpu().level >= crate::cpu::Level::Avx2).then_some(Self(()))
    }
}

/// Methods of [`Vectors`] that are one instruction.
macro_rules! instructions {
    ($($name:ident($($operand:ident),+) = $instruction:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($operand: __m256),+) -> __m256 {
            // SAFETY: `self` exists only where the processor has AVX2.
            unsafe { $instruction($($operand),+) }
        }
    )+};
}

// Every block without a reason of its own: `self` exists only where the processor has AVX2 with FMA and F16C, and pointers
// are their callers' promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vectors for Avx2 {
    type V = __m256;
    const WIDTH: usize = 8;
    const ACCUMULATORS: usize = 8;

    fn run_wide<K: WideKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        fn inner<K: WideKernel>(s: Avx2, kernel: K) -> K::Output {
            kernel.call(s)
        }
        // SAFETY: `self` exists only where `cpu()` found these features; every processor with AVX2 and FMA has the bit
        // manipulation ones.
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn write(self, value: __m256, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn stream(self, value: __m256, to: *mut f32) {
        unsafe { _mm256_stream_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn read_f16(self, from: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn read_bf16(self, from: *const u8) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn write_f16(self, value: __m256, to: *mut u8) {
        unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value)) }
    }

    instructions! {
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        fma(a, b, c) = _mm256_fmadd_ps;
        max(a, b) = _mm256_max_ps;
        sqrt(a) = _mm256_sqrt_ps;
    }

    #[inline(always)]
    fn drop_below(self, a: __m256, least: f32) -> __m256 {
        unsafe {
            let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
            _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(magnitude, _mm256_set1_ps(least)), a)
        }
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn scale_by_power(self, a: __m256, n: __m256) -> __m256 {
        let biased = self.add(n, self.splat(ROUNDER + 127.0));
        unsafe { _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(biased)))) }
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        unsafe { sum8(a) }
    }

    #[inline(always)]
    fn sum4(self, a: [__m256; 4]) -> [f32; 4] {
        unsafe { sums(a) }
    }

    #[inline(always)]
    fn not_le(self, a: __m256, b: __m256) -> u32 {
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(a, b)) as u32 }
    }

    #[inline(always)]
    fn prefetch(self, row: &[f32]) {
        prefetch(row);
    }
}

#[inline(always)]
pub(super) fn prefetch(row: &[f32]) {
    for line in row.chunks(LANES) {
        // SAFETY: a prefetch touches no memory that the program can see, and the address is that of a live slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }
}

/// The tree of [`Vectors::sum`].
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn sum8(eight: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// `sum8` of four vectors at once: the same additions, lanes of several vectors side by side.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn sums([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
    // [a lanes 0-3 | b lanes 0-3] + [a lanes 4-7 | b lanes 4-7], and the same of c and d.
    let ab = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
    let cd = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(c, d), _mm256_permute2f128_ps::<0x31>(c, d));
    // Lanes 0 and 1 plus lanes 2 and 3: [a a c c | b b d d].
    let low = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
    let high = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
    let two = _mm256_add_ps(low, high);
    let one = _mm256_add_ps(two, _mm256_movehdup_ps(two));
    let (ac, bd) = (_mm256_castps256_ps128(one), _mm256_extractf128_ps::<1>(one));
    // [a, c] and [b, d] to [a, b, c, d].
    let ordered = _mm_unpacklo_ps(_mm_shuffle_ps::<0b10_10_10_00>(ac, ac), _mm_shuffle_ps::<0b10_10_10_00>(bd, bd));
    let mut out = [0.0; 4];
    // SAFETY: four floats are writable at `out`.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), ordered) };
    out
}
