//! How a row is rounded for a screen, and how far that took it: the bounds are derived in [`super::screening`].

use super::dot::dot;
use super::simd::{LANES, Simd};

/// Norms from here on count as infinite: products of two stay far from overflow.
const HUGE: f32 = 1e9;
/// Added to norms and biases: more than what underflow can take from them below `HUGE`.
const TINY_NORM: f32 = 1.0 / (1u64 << 58) as f32;
pub(super) const TINY: f32 = TINY_NORM / (1u64 << 22) as f32;
/// Smallest step of an integer copy.
const SMALLEST_STEP: f32 = TINY_NORM;

/// A number below 2^21 added to it is rounded to the nearest integer (ties to even), which is then in the lowest bits.
const ROUNDS: f32 = (3u32 << 22) as f32;

/// Integers of a row, as of a feature; and the widest rows whose sums of 255 * 127 stay within 32 bits.
const MOST: f32 = 255.0;
const MOST_SIGNED: f32 = 127.0;
const WIDEST: usize = i32::MAX as usize / (255 * 127);

/// How operands are rounded for a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Not at all; the screen's product is summed in another order.
    Float32,
    /// To the nearest bfloat16, two in a word.
    Bfloat16,
    /// To integers times a step of the row's own, four in a word.
    Int8,
}

impl Rounding {
    /// 32-bit words of a rounded row of `d` values. Bfloat16 rows fill whole tile rows of 64 bytes.
    #[must_use]
    pub fn words(self, d: usize) -> usize {
        match self {
            Self::Float32 => d,
            Self::Bfloat16 => d.div_ceil(32) * 16,
            Self::Int8 => d.div_ceil(4),
        }
    }
}

/// A bound on the relative effect of float32 rounding, see [`super::screening`].
pub(super) fn rounding_slack(d: usize) -> f32 {
    (d + 64) as f32 / (1u32 << 23) as f32
}

/// What rounding a row did.
#[derive(Default)]
pub(super) struct Rounded {
    /// At least |row|; NaN where it is not finite or too large to bound.
    pub(super) norm: f32,
    /// At least |row - rounded row|.
    pub(super) error: f32,
    /// What an integer stands for; 1 for floats.
    pub(super) step: f32,
    /// Sum of the integers.
    pub(super) total: i32,
    /// What the integer 0 stands for, in steps.
    pub(super) low: f32,
}

/// Rounds `row` into `words` (which may be empty for float32) and measures what that changed. Integers are signed, or
/// `unsigned` from the smallest value of the row on: activations are rarely as negative as they are positive.
#[inline(always)]
pub(super) fn round_row<S: Simd>(s: S, rounding: Rounding, row: &[f32], words: &mut [f32], unsigned: bool) -> Rounded {
    let d = row.len();
    // Norms are themselves rounded: by less than this.
    let up = 1.0 + rounding_slack(d);
    let norm = dot(s, row, row).sqrt() * up + TINY_NORM;
    let norm = if norm < HUGE { norm } else { f32::NAN };
    let (mut error, mut step, mut total, mut low) = (0.0, 1.0, 0, 0.0);
    match rounding {
        Rounding::Float32 => {
            if !words.is_empty() {
                words.copy_from_slice(row);
            }
        }
        Rounding::Bfloat16 => {
            let mut errors = [0.0f32; LANES];
            let mut values = [0.0f32; 2 * LANES];
            for (chunk, words) in row.chunks(2 * LANES).zip(words.as_chunks_mut::<LANES>().0) {
                values[..chunk.len()].copy_from_slice(chunk);
                values[chunk.len()..].fill(0.0);
                for (i, word) in words.iter_mut().enumerate() {
                    let (low, high) = (bfloat16(values[2 * i]), bfloat16(values[2 * i + 1]));
                    *word = f32::from_bits((low >> 16) | high);
                    let (a, b) = (values[2 * i] - f32::from_bits(low), values[2 * i + 1] - f32::from_bits(high));
                    errors[i] += a * a + b * b;
                }
            }
            error = s.sum(s.load(&errors)).sqrt() * up + TINY_NORM;
        }
        Rounding::Int8 => {
            let (least, most) = extremes(row);
            let (bottom, top) = if unsigned { (0.0, most_unsigned(d)) } else { (-MOST_SIGNED, MOST_SIGNED) };
            step = (if unsigned { most - least } else { most.max(-least) } / top).max(SMALLEST_STEP);
            let zero = if unsigned { least } else { 0.0 };
            low = zero / step;
            let inverse = 1.0 / step;
            let (mut errors, mut totals) = ([0.0f32; LANES], [0i32; LANES]);
            for (chunk, words) in row.chunks(LANES).zip(words.chunks_mut(LANES / 4)) {
                let mut values = [zero; LANES];
                values[..chunk.len()].copy_from_slice(chunk);
                let mut bytes = [0u8; LANES];
                for i in 0..LANES {
                    // The conversion of the language, which saturates, is no vector's. NaN becomes `bottom`.
                    let q = (values[i] - zero) * inverse;
                    let q = if q > bottom { q } else { bottom };
                    let q = if q < top { q } else { top } + ROUNDS;
                    let gap = values[i] - ((q - ROUNDS) * step + zero);
                    let q = q.to_bits().wrapping_sub(ROUNDS.to_bits());
                    totals[i] += q as i32;
                    errors[i] += gap * gap;
                    bytes[i] = q as u8;
                }
                for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *word = f32::from_bits(u32::from_le_bytes(*bytes));
                }
            }
            total = totals.iter().sum();
            error = s.sum(s.load(&errors)).sqrt() * up + TINY_NORM;
        }
    }
    Rounded { norm, error, step, total, low }
}

/// The largest integer of a row of `d`: where sums of 255 * 127 could wrap around, steps are coarser.
#[inline(always)]
fn most_unsigned(d: usize) -> f32 {
    if d <= WIDEST { MOST } else { (i32::MAX as usize / 127 / d) as f32 }
}

/// The smallest and the largest value, and 0 if that is beyond them; NaN does not count.
#[inline(always)]
fn extremes(row: &[f32]) -> (f32, f32) {
    let (mut least, mut most) = ([0.0f32; LANES], [0.0f32; LANES]);
    for chunk in row.chunks(LANES) {
        let mut values = [0.0; LANES];
        values[..chunk.len()].copy_from_slice(chunk);
        for i in 0..LANES {
            least[i] = if values[i] < least[i] { values[i] } else { least[i] };
            most[i] = if values[i] > most[i] { values[i] } else { most[i] };
        }
    }
    (least.into_iter().fold(0.0, f32::min), most.into_iter().fold(0.0, f32::max))
}

/// The nearest bfloat16 (ties to even) as the bits of a float32 whose lower half is zero. NaN may become infinite: its
/// row is kept whatever the screen finds.
#[inline(always)]
fn bfloat16(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000
}
