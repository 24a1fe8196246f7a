//! The rounds of the permutation in AVX-512: the same numbers as the portable code, in half the time.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_add_epi64, _mm512_castsi512_si256, _mm512_cmpge_epu32_mask,
    _mm512_cmpge_epu64_mask, _mm512_cvtepu32_epi64, _mm512_extracti64x4_epi64, _mm512_mask_add_epi32,
    _mm512_mask_blend_epi32, _mm512_mask_sub_epi32, _mm512_min_epu32, _mm512_mul_epu32, _mm512_mullo_epi32,
    _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setr_epi32, _mm512_srli_epi32, _mm512_srli_epi64, _mm512_storeu_si512,
    _mm512_sub_epi32, _mm512_xor_si512,
};

use super::rounds::{ROUNDS, Rounds};

/// Indices of one call: four vectors, since one is busy with a chain of multiplications for four times as long as it
/// takes the multiplier.
pub const AT_ONCE: usize = 64;
const LANES: usize = 16;
const VECTORS: usize = AT_ONCE / LANES;

/// The images of `start` and the indices that follow, before any walking back into 0..n; true where one needs it.
///
/// `b` must be at least 16, so that a vector reaches into the next row of the rectangle at most once.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub fn images(p: &Rounds, start: u64, out: &mut [u64; AT_ONCE]) -> bool {
    let side = u64::from(p.b);
    let steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let (a, b) = (_mm512_set1_epi32(p.a as i32), _mm512_set1_epi32(p.b as i32));
    let one = _mm512_set1_epi32(1);
    let (mut l, mut r) = ([one; VECTORS], [one; VECTORS]);
    for i in 0..VECTORS {
        let first = start + (i * LANES) as u64;
        let place = _mm512_add_epi32(_mm512_set1_epi32((first % side) as i32), steps);
        let row = _mm512_set1_epi32((first / side) as i32);
        let beyond = _mm512_cmpge_epu32_mask(place, b);
        r[i] = _mm512_mask_sub_epi32(place, beyond, place, b);
        l[i] = _mm512_mask_add_epi32(row, beyond, row, one);
    }
    for pair in 0..ROUNDS / 2 {
        let (even, odd) = (p.keys[2 * pair], p.keys[2 * pair + 1]);
        for i in 0..VECTORS {
            l[i] = add_below(l[i], hash(r[i], even, a), a);
        }
        for i in 0..VECTORS {
            r[i] = add_below(r[i], hash(l[i], odd, b), b);
        }
    }
    let (side, n) = (_mm512_set1_epi64(side as i64), _mm512_set1_epi64(p.n as i64));
    let mut outside = 0;
    for i in 0..VECTORS {
        let low = _mm512_mul_epu32(_mm512_cvtepu32_epi64(_mm512_castsi512_si256(l[i])), side);
        let high = _mm512_mul_epu32(_mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64::<1>(l[i])), side);
        let low = _mm512_add_epi64(low, _mm512_cvtepu32_epi64(_mm512_castsi512_si256(r[i])));
        let high = _mm512_add_epi64(high, _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64::<1>(r[i])));
        outside |= _mm512_cmpge_epu64_mask(low, n) | _mm512_cmpge_epu64_mask(high, n);
        let to = out[i * LANES..(i + 1) * LANES].as_mut_ptr();
        // SAFETY: the slice holds sixteen values: two vectors.
        unsafe {
            _mm512_storeu_si512(to.cast(), low);
            _mm512_storeu_si512(to.add(LANES / 2).cast(), high);
        }
    }
    outside != 0
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_below(x: __m512i, y: __m512i, side: __m512i) -> __m512i {
    let sum = _mm512_add_epi32(x, y);
    _mm512_min_epu32(sum, _mm512_sub_epi32(sum, side))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn hash(x: __m512i, key: (u32, u32), side: __m512i) -> __m512i {
    let (first, second) = (_mm512_set1_epi32(key.0 as i32), _mm512_set1_epi32(key.1 as i32));
    let h = _mm512_mullo_epi32(_mm512_xor_si512(x, first), _mm512_set1_epi32(0x9e37_79b1_u32 as i32));
    let h = _mm512_xor_si512(h, _mm512_srli_epi32::<15>(h));
    let h = _mm512_mullo_epi32(h, second);
    let h = _mm512_xor_si512(h, _mm512_srli_epi32::<13>(h));
    let h = _mm512_mullo_epi32(h, _mm512_set1_epi32(0x85eb_ca6b_u32 as i32));
    // The upper halves of the products h * side, of even lanes and of odd ones.
    let even = _mm512_srli_epi64::<32>(_mm512_mul_epu32(h, side));
    let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(h), side);
    _mm512_mask_blend_epi32(0xaaaa, even, odd)
}
