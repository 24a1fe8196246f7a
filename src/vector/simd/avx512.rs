//! 512-bit x86 vectors: sixteen lanes are one register.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_NLE_UQ, _CMP_NLT_UQ, _MM_HINT_T0, _mm_prefetch, _mm512_abs_ps, _mm512_add_epi32,
    _mm512_add_ps, _mm512_castps512_ps256, _mm512_cmp_ps_mask, _mm512_div_ps, _mm512_extractf32x8_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_compress_epi32, _mm512_maskz_loadu_ps,
    _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_sqrt_ps,
    _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
};

use super::avx2::{sum8, sums};
use super::{Kernel, LANES, Lanes, Simd, Word};

/// AVX-512 F, BW, DQ and VL, with AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// The proof that this processor has the instructions, or None.
    pub fn detect() -> Option<Self> {
        (crate::cpu::cpu().simd >= crate::cpu::Simd::Avx512).then_some(Self(()))
    }
}

/// Methods of [`Simd`] that are one instruction.
macro_rules! instructions {
    ($($name:ident($($operand:ident),+) = $instruction:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($operand: __m512),+) -> __m512 {
            // SAFETY: `self` exists only where the processor has AVX-512.
            unsafe { $instruction($($operand),+) }
        }
    )+};
}

#[allow(clippy::inline_always)]
impl Simd for Avx512 {
    type V = __m512;
    const ACCUMULATORS: usize = 16;

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
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512 (so for every block without a reason below).
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> __m512 {
        // SAFETY: as above; sixteen floats are readable at `from`.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_part(self, from: &[f32]) -> __m512 {
        let mask = part(from.len());
        // SAFETY: as above; the mask has at most `from.len()` lanes, the others are not touched.
        unsafe { _mm512_maskz_loadu_ps(mask, from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, value: __m512, to: &mut Lanes) {
        // SAFETY: as above; sixteen floats are writable at `to`.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn store_part(self, value: __m512, to: &mut [f32]) {
        let mask = part(to.len());
        // SAFETY: as above; the mask has at most `to.len()` lanes, the others are not touched.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, value) }
    }

    instructions! {
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        fma(a, b, c) = _mm512_fmadd_ps;
        max(a, b) = _mm512_max_ps;
        sqrt(a) = _mm512_sqrt_ps;
    }

    #[inline(always)]
    fn drop_below(self, a: __m512, least: f32) -> __m512 {
        // SAFETY: see `splat`.
        unsafe {
            let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(_mm512_abs_ps(a), _mm512_set1_ps(least));
            _mm512_maskz_mov_ps(kept, a)
        }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        // SAFETY: see `splat`; AVX-512 implies AVX2 in `cpu()`.
        unsafe { sum8(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)) }
    }

    #[inline(always)]
    fn sum4(self, a: [__m512; 4]) -> [f32; 4] {
        // SAFETY: see `splat`; AVX-512 implies AVX2 in `cpu()`.
        unsafe {
            sums(
                [
                    _mm512_castps512_ps256(a[0]),
                    _mm512_castps512_ps256(a[1]),
                    _mm512_castps512_ps256(a[2]),
                    _mm512_castps512_ps256(a[3]),
                ],
                [
                    _mm512_extractf32x8_ps::<1>(a[0]),
                    _mm512_extractf32x8_ps::<1>(a[1]),
                    _mm512_extractf32x8_ps::<1>(a[2]),
                    _mm512_extractf32x8_ps::<1>(a[3]),
                ],
            )
        }
    }

    #[inline(always)]
    fn not_le(self, a: __m512, b: __m512) -> u32 {
        // SAFETY: see `splat`.
        u32::from(unsafe { _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(a, b) })
    }

    #[inline(always)]
    fn list_bits(self, bits: u64, first: u32, to: &mut [u32]) -> usize {
        let count = bits.count_ones() as usize;
        assert!(to.len() >= count + LANES);
        let mut done = 0;
        for group in 0..4 {
            let own = (bits >> (16 * group)) as u16;
            // SAFETY: see `splat`; `done` does not exceed `count`, and from there on sixteen places are writable.
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
        // SAFETY: see `splat`; sixteen words of four bytes are readable and writable, whose bits are kept.
        unsafe {
            let lanes = _mm512_maskz_compress_epi32(kept as u16, _mm512_loadu_si512(lanes.as_ptr().cast()));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), lanes);
        }
    }

    #[inline(always)]
    fn prefetch(self, row: &[f32]) {
        for line in row.chunks(LANES) {
            // SAFETY: a prefetch touches no memory that the program can see, and the address is that of a live slice.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
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
