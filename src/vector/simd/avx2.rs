//! 256-bit x86 vectors: sixteen lanes are two registers.

use std::arch::x86_64::{
    __m256, _CMP_LT_OQ, _CMP_NLE_UQ, _MM_HINT_T0, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_prefetch,
    _mm_shuffle_ps, _mm_storeu_ps, _mm_unpacklo_ps, _mm256_add_ps, _mm256_andnot_ps, _mm256_castps256_ps128,
    _mm256_cmp_ps, _mm256_div_ps, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps,
    _mm256_movehdup_ps, _mm256_movemask_ps, _mm256_mul_ps, _mm256_permute2f128_ps, _mm256_set1_ps, _mm256_shuffle_ps,
    _mm256_sqrt_ps, _mm256_storeu_ps, _mm256_sub_ps,
};

use super::{Kernel, LANES, Lanes, Simd};

/// AVX2 with FMA and half-precision conversion.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The proof that this processor has the instructions, or None.
    pub fn detect() -> Option<Self> {
        (crate::cpu::cpu().simd >= crate::cpu::Simd::Avx2).then_some(Self(()))
    }
}

/// Lanes 0 to 7 and 8 to 15.
#[derive(Debug, Clone, Copy)]
pub struct Pair(pub __m256, pub __m256);

/// Methods of [`Simd`] that are one instruction on each register.
macro_rules! instructions {
    ($($name:ident($($operand:ident),+) = $instruction:ident;)+) => {$(
        #[inline(always)]
        fn $name(self, $($operand: Pair),+) -> Pair {
            // SAFETY: `self` exists only where the processor has AVX2.
            unsafe { Pair($instruction($($operand.0),+), $instruction($($operand.1),+)) }
        }
    )+};
}

#[allow(clippy::inline_always)]
impl Simd for Avx2 {
    type V = Pair;
    const ACCUMULATORS: usize = 4;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        fn inner<K: Kernel>(s: Avx2, kernel: K) -> K::Output {
            kernel.call(s)
        }
        // SAFETY: `self` exists only where `cpu()` found these features; every processor with AVX2 and FMA has the bit
        // manipulation ones.
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Pair {
        // SAFETY: `self` exists only where the processor has AVX2 (so for every block without a reason below).
        let v = unsafe { _mm256_set1_ps(value) };
        Pair(v, v)
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Pair {
        // SAFETY: as above; sixteen floats are readable at `from`.
        unsafe { Pair(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Pair {
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    #[inline(always)]
    fn store(self, value: Pair, to: &mut Lanes) {
        // SAFETY: as above; sixteen floats are writable at `to`.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), value.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), value.1);
        }
    }

    #[inline(always)]
    fn store_part(self, value: Pair, to: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
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
    fn drop_below(self, a: Pair, least: f32) -> Pair {
        // SAFETY: see `splat`.
        unsafe {
            let (sign, least) = (_mm256_set1_ps(-0.0), _mm256_set1_ps(least));
            let drop = |a| {
                let below = _mm256_cmp_ps::<_CMP_LT_OQ>(_mm256_andnot_ps(sign, a), least);
                _mm256_andnot_ps(below, a)
            };
            Pair(drop(a.0), drop(a.1))
        }
    }

    #[inline(always)]
    fn sum(self, a: Pair) -> f32 {
        // SAFETY: see `splat`.
        unsafe { sum8(a.0, a.1) }
    }

    #[inline(always)]
    fn sum4(self, a: [Pair; 4]) -> [f32; 4] {
        // SAFETY: see `splat`.
        unsafe { sums([a[0].0, a[1].0, a[2].0, a[3].0], [a[0].1, a[1].1, a[2].1, a[3].1]) }
    }

    #[inline(always)]
    fn not_le(self, a: Pair, b: Pair) -> u32 {
        // SAFETY: see `splat`.
        unsafe {
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(a.0, b.0));
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(a.1, b.1));
            (low | (high << 8)) as u32
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

/// The tree of [`Simd::sum`] over lanes 0 to 7 and 8 to 15.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn sum8(low: __m256, high: __m256) -> f32 {
    let eight = _mm256_add_ps(low, high);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// `sum8` of four pairs at once: the same additions, lanes of several vectors side by side.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn sums(low: [__m256; 4], high: [__m256; 4]) -> [f32; 4] {
    let [a, b, c, d] = [
        _mm256_add_ps(low[0], high[0]),
        _mm256_add_ps(low[1], high[1]),
        _mm256_add_ps(low[2], high[2]),
        _mm256_add_ps(low[3], high[3]),
    ];
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
