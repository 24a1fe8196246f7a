//! Screens with `vpdpbusd`: four products of bytes and their sum, exact, per lane and instruction. Rows are unsigned, features
//! signed.

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _mm256_castps_si256, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32,
    _mm256_setzero_si256, _mm512_castps_si512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_setzero_si512,
};

use super::screening::{Products, Screening, screen_tile};
use super::simd::{Avx2, Avx512, Twice};
use super::tile::Mask;

/// AVX-512 with byte products.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Vnni(Avx512);

impl Avx512Vnni {
    /// The proof that this processor has the instructions, or None.
    pub fn detect() -> Option<Self> {
        if crate::cpu::cpu().avx512_vnni { Avx512::detect().map(Self) } else { None }
    }

    /// Screens a tile; bit r of `masks[j]`: feature j is kept on row r.
    pub fn screen(self, what: Screening<'_>, masks: &mut [Mask]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
        fn inner(p: Avx512Vnni, what: Screening<'_>, masks: &mut [Mask]) {
            screen_tile::<_, 6, 4>(p, what, masks);
        }
        // SAFETY: `self` exists only where `cpu()` found these features.
        unsafe { inner(self, what, masks) }
    }
}

#[allow(clippy::inline_always)]
impl Products for Avx512Vnni {
    type S = Avx512;
    type Acc = __m512i;

    #[inline(always)]
    fn start(self) -> __m512i {
        // SAFETY: `self` exists only where the processor has AVX-512.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn add(self, acc: __m512i, rows: __m512, feature: __m512) -> __m512i {
        // SAFETY: `self` exists only where the processor has AVX-512 with VNNI.
        unsafe { _mm512_dpbusd_epi32(acc, _mm512_castps_si512(rows), _mm512_castps_si512(feature)) }
    }

    #[inline(always)]
    fn value(self, acc: __m512i) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512.
        unsafe { _mm512_cvtepi32_ps(acc) }
    }

    #[inline(always)]
    fn lanes(self) -> Avx512 {
        self.0
    }
}

/// AVX2 with byte products, which some processors without AVX-512 have.
#[derive(Debug, Clone, Copy)]
pub struct AvxVnni(Twice<Avx2>);

impl AvxVnni {
    /// The proof that this processor has the instructions, or None.
    pub fn detect() -> Option<Self> {
        if crate::cpu::cpu().avx_vnni { Avx2::detect().map(|s| Self(Twice(s))) } else { None }
    }

    /// Screens a tile; bit r of `masks[j]`: feature j is kept on row r.
    pub fn screen(self, what: Screening<'_>, masks: &mut [Mask]) {
        #[target_feature(enable = "avx2,fma,avxvnni")]
        fn inner(p: AvxVnni, what: Screening<'_>, masks: &mut [Mask]) {
            screen_tile::<_, 6, 1>(p, what, masks);
        }
        // SAFETY: `self` exists only where `cpu()` found these features.
        unsafe { inner(self, what, masks) }
    }
}

#[allow(clippy::inline_always)]
impl Products for AvxVnni {
    type S = Twice<Avx2>;
    type Acc = [__m256i; 2];

    #[inline(always)]
    fn start(self) -> [__m256i; 2] {
        // SAFETY: `self` exists only where the processor has AVX2.
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    fn add(self, acc: [__m256i; 2], rows: (__m256, __m256), feature: (__m256, __m256)) -> [__m256i; 2] {
        // SAFETY: `self` exists only where the processor has AVX2 with VNNI.
        unsafe {
            [
                _mm256_dpbusd_avx_epi32(acc[0], _mm256_castps_si256(rows.0), _mm256_castps_si256(feature.0)),
                _mm256_dpbusd_avx_epi32(acc[1], _mm256_castps_si256(rows.1), _mm256_castps_si256(feature.1)),
            ]
        }
    }

    #[inline(always)]
    fn value(self, acc: [__m256i; 2]) -> (__m256, __m256) {
        // SAFETY: `self` exists only where the processor has AVX2.
        unsafe { (_mm256_cvtepi32_ps(acc[0]), _mm256_cvtepi32_ps(acc[1])) }
    }

    #[inline(always)]
    fn lanes(self) -> Twice<Avx2> {
        self.0
    }
}
