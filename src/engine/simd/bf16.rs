//! The screen with `vdpbf16ps`: two products of bfloat16 and their sum per lane and instruction.

use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps, _mm512_setzero_ps};

use super::{Avx512, Products, screen_tile};
use crate::engine::screen::Screening;

/// AVX-512 with bfloat16 products.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    /// The proof that this processor has the instructions, or None.
    pub fn detect() -> Option<Self> {
        if crate::cpu::cpu().avx512_bf16 { Avx512::detect().map(Self) } else { None }
    }

    /// Screens a tile; bit r of `masks[j]`: feature j is kept on row r.
    pub fn screen(self, what: Screening<'_>, masks: &mut [u64]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
        fn inner(p: Avx512Bf16, what: Screening<'_>, masks: &mut [u64]) {
            screen_tile::<_, 6, 4>(p, what, masks);
        }
        // SAFETY: `self` exists only where `cpu()` found these features.
        unsafe { inner(self, what, masks) }
    }
}

#[allow(clippy::inline_always)]
impl Products for Avx512Bf16 {
    type S = Avx512;
    type Acc = __m512;

    #[inline(always)]
    fn start(self, _offset: f32) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn add(self, acc: __m512, rows: __m512, feature: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512 with bfloat16; the transmutes give 512 bits another
        // name.
        unsafe {
            let rows = std::mem::transmute::<__m512, __m512bh>(rows);
            let feature = std::mem::transmute::<__m512, __m512bh>(feature);
            _mm512_dpbf16_ps(acc, rows, feature)
        }
    }

    #[inline(always)]
    fn value(self, acc: __m512) -> __m512 {
        acc
    }

    #[inline(always)]
    fn lanes(self) -> Avx512 {
        self.0
    }
}
