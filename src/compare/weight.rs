//! What a pair is worth in the matching, as an integer.

/// A cosine of 1 as an integer. A float32 cosine of 2^-16 or more has no bits below 2^-40; smaller ones are rounded.
pub const ONE: i64 = 1 << 40;

/// What a pair is worth in the matching: above 0 for every cosine, so that the heaviest matching leaves no atom of the
/// smaller dictionary out.
#[inline(always)]
pub fn weight(cosine: f32) -> i64 {
    (f64::from(cosine) * ONE as f64).round_ties_even() as i64 + 2 * ONE
}
