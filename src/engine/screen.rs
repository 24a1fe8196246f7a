//! Screening: which features may be active on which rows, from a cheap encode with a rigorous error bound.
//!
//! For row x and feature j the exact engine takes feature j as inactive when `dot(x, w) + b <= 0`, with the dot product
//! in float32 as [`super::simd::dot`] adds it. A screen computes another product s of rounded copies x', w' and keeps
//! the feature unless
//!
//! ```text
//! s <= -b - e        e = |x - x'| |w| + |x'| |w - w'| + c |x| |w|
//! ```
//!
//! Since x.w - x'.w' = (x - x').w + x'.(w - w'), Cauchy-Schwarz bounds what the rounding of the operands changed by the
//! first terms of e, with the norms of the errors that were in fact made, not of the largest possible ones (these would
//! be twice as large). `c` covers everything that is rounded to float32: both products, the norms and e itself. So
//! what is dropped is inactive, candidates are computed again exactly, and no screen changes a bit of the result.
//! `docs/engine.md` derives c. Rows and features whose norms are not finite, or huge, are always kept.

use super::aligned::Aligned;
use super::simd::{Kernel, LANES, Products, Simd, screen_tile};

/// Rows of a tile: the bits of one mask.
pub const TILE: usize = 64;

/// Which rows of a tile a feature is kept on: bit r % 32 of word r / 32.
pub type Mask = [u32; 2];

/// Groups of sixteen rows in a tile.
pub const GROUPS: usize = TILE / LANES;

/// Norms from here on count as infinite: products of two stay far from overflow.
const HUGE: f32 = 1e9;
/// Added to norms and biases: more than what underflow can take from them below `HUGE`.
const TINY_NORM: f32 = 1.0 / (1u64 << 58) as f32;
const TINY: f32 = TINY_NORM / (1u64 << 22) as f32;
/// Smallest step of an integer copy.
const SMALLEST_STEP: f32 = TINY_NORM;

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

/// A bound on the relative effect of float32 rounding, see the module's text.
fn rounding_slack(d: usize) -> f32 {
    (d + 64) as f32 / (1u32 << 23) as f32
}

/// A batch as a screen reads it.
#[derive(Debug, Default)]
pub struct RowPack {
    /// Words of a row; 0 before the first use.
    pub words: usize,
    /// [tiles][words][64 rows]: a word of all rows of a tile side by side.
    pub lines: Aligned,
    /// [rows of whole tiles]: what multiplies the bias of a feature: 1 / step.
    pub scale: Aligned,
    /// [rows of whole tiles]: what multiplies the error of a feature: norm / step; NaN keeps every feature.
    pub reach: Aligned,
    /// [rows of whole tiles]: what multiplies the norm of a feature: |x - x'| / step. Of integers only: the others have it
    /// in `ratio`.
    pub rough: Aligned,
    /// [rows of whole tiles]: what the integer 0 stands for, in steps; what multiplies the sum of a feature's integers.
    pub low: Aligned,
    /// [tiles]: largest |x - x'| / |x| of the tile's rows, but for integers.
    pub ratio: Aligned,
}

impl RowPack {
    /// Makes room for `rows` rows of `d` values.
    pub fn resize(&mut self, rounding: Rounding, rows: usize, d: usize) {
        let tiles = rows.div_ceil(TILE);
        self.words = rounding.words(d);
        self.lines.resize(tiles * TILE * self.words);
        self.scale.resize(tiles * TILE);
        self.reach.resize(tiles * TILE);
        self.rough.resize(tiles * TILE);
        self.low.resize(tiles * TILE);
        self.ratio.resize(tiles);
    }

    /// Parts for `tiles` tiles each, to be filled independently.
    pub fn parts(&mut self, tiles: usize) -> Vec<RowPart<'_>> {
        let rows = tiles * TILE;
        let lines = self.lines.chunks_mut(rows * self.words);
        let scale = self.scale.chunks_mut(rows).zip(self.reach.chunks_mut(rows));
        let rough = self.rough.chunks_mut(rows).zip(self.low.chunks_mut(rows));
        let words = self.words;
        lines
            .zip(scale.zip(rough).zip(self.ratio.chunks_mut(tiles)))
            .map(|(lines, (((scale, reach), (rough, low)), ratio))| RowPart {
                words,
                lines,
                scale,
                reach,
                rough,
                low,
                ratio,
            })
            .collect()
    }

    /// One tile, to be read.
    #[must_use]
    pub fn tile(&self, tile: usize) -> RowTile<'_> {
        let rows = tile * TILE..(tile + 1) * TILE;
        let size = self.words * TILE;
        RowTile {
            words: self.words,
            lines: &self.lines[tile * size..(tile + 1) * size],
            scale: &self.scale[rows.clone()],
            reach: &self.reach[rows.clone()],
            rough: &self.rough[rows.clone()],
            low: &self.low[rows],
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let rows = self.scale.bytes() + self.reach.bytes() + self.rough.bytes() + self.low.bytes();
        self.lines.bytes() + rows + self.ratio.bytes()
    }
}

/// Some tiles of a [`RowPack`], to be filled.
#[derive(Debug)]
pub struct RowPart<'a> {
    words: usize,
    lines: &'a mut [f32],
    scale: &'a mut [f32],
    reach: &'a mut [f32],
    rough: &'a mut [f32],
    low: &'a mut [f32],
    ratio: &'a mut [f32],
}

/// One tile of a [`RowPack`].
#[derive(Debug, Clone, Copy)]
pub struct RowTile<'a> {
    /// Words of a row.
    pub words: usize,
    /// [words][TILE].
    pub lines: &'a [f32],
    /// [TILE].
    pub scale: &'a [f32],
    /// [TILE].
    pub reach: &'a [f32],
    /// [TILE].
    pub rough: &'a [f32],
    /// [TILE].
    pub low: &'a [f32],
}

/// A dictionary's encoder as a screen reads it. Rows are padded to whole panels of 32 features.
#[derive(Debug, Default)]
pub struct WeightPack {
    /// Words of a row.
    pub words: usize,
    /// [features][words]; empty for [`Rounding::Float32`], which reads the encoder itself; for [`Rounding::Bfloat16`]
    /// in panels of tiles.
    pub rows: Aligned,
    /// [features]: -(bias) / step; -inf for features that do not exist is never needed, masks beyond n are ignored.
    pub bias: Aligned,
    /// [features]: -(error per unit of |x|) / step; NaN keeps the feature on every row.
    pub error: Aligned,
    /// [features]: -(error per unit of |x - x'|) / step; of integers only.
    pub norm: Aligned,
    /// [features]: -(sum of a feature's integers).
    pub total: Aligned,
}

/// Features of a panel.
pub const PANEL: usize = 32;

impl WeightPack {
    /// Makes room for `n` features of `d` values.
    pub fn resize(&mut self, rounding: Rounding, n: usize, d: usize) {
        let padded = n.next_multiple_of(PANEL);
        self.words = rounding.words(d);
        self.rows.resize(if rounding == Rounding::Float32 { 0 } else { padded * self.words });
        self.bias.resize(padded);
        self.error.resize(padded);
        self.norm.resize(padded);
        self.total.resize(padded);
    }

    /// Parts of `features` features each (a multiple of [`PANEL`]), to be filled independently.
    pub fn parts(&mut self, features: usize) -> Vec<WeightPart<'_>> {
        let count = self.bias.len().div_ceil(features);
        let mut rows = self.rows.chunks_mut((features * self.words).max(1));
        let rows = (0..count).map(|_| rows.next().unwrap_or_default());
        rows.zip(self.bias.chunks_mut(features).zip(self.error.chunks_mut(features)))
            .zip(self.norm.chunks_mut(features).zip(self.total.chunks_mut(features)))
            .map(|((rows, (bias, error)), (norm, total))| WeightPart {
                words: self.words,
                rows,
                bias,
                error,
                norm,
                total,
            })
            .collect()
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.bytes() + self.bias.bytes() + self.error.bytes() + self.norm.bytes() + self.total.bytes()
    }
}

/// Some features of a [`WeightPack`], to be filled.
#[derive(Debug)]
pub struct WeightPart<'a> {
    words: usize,
    rows: &'a mut [f32],
    bias: &'a mut [f32],
    error: &'a mut [f32],
    norm: &'a mut [f32],
    total: &'a mut [f32],
}

/// Rounds rows into a part of a [`RowPack`].
pub struct PackRows<'a, 'b> {
    /// How.
    pub rounding: Rounding,
    /// Values of a row.
    pub d: usize,
    /// [rows][stride], the first `d` of each row used; fewer rows than the part has are followed by zeros.
    pub rows: &'a [f32],
    /// Floats from one row to the next.
    pub stride: usize,
    /// Where to.
    pub part: RowPart<'b>,
}

impl Kernel for PackRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { rounding, d, rows, stride, part } = self;
        let count = rows.len() / stride;
        let words = part.words;
        let mut word = vec![0.0f32; words];
        part.ratio.fill(0.0);
        for index in 0..part.scale.len() {
            let (tile, lane) = (index / TILE, index % TILE);
            let lines = &mut part.lines[tile * words * TILE..(tile + 1) * words * TILE];
            if index >= count {
                for line in lines.as_chunks_mut::<TILE>().0 {
                    line[lane] = 0.0;
                }
                (part.scale[index], part.reach[index]) = (1.0, 0.0);
                (part.rough[index], part.low[index]) = (0.0, 0.0);
                continue;
            }
            let row = &rows[index * stride..index * stride + d];
            let rounded = round_row(s, rounding, row, &mut word, true);
            for (line, word) in lines.as_chunks_mut::<TILE>().0.iter_mut().zip(&word) {
                line[lane] = *word;
            }
            part.scale[index] = 1.0 / rounded.step;
            part.reach[index] = rounded.norm / rounded.step;
            part.low[index] = rounded.low;
            part.rough[index] = 0.0;
            if rounding == Rounding::Int8 {
                part.rough[index] = rounded.error / rounded.step;
                continue;
            }
            let ratio = rounded.error / rounded.norm;
            if ratio > part.ratio[tile] {
                part.ratio[tile] = ratio;
            }
        }
    }
}

/// Rounds encoder rows into a part of a [`WeightPack`].
pub struct PackWeights<'a, 'b> {
    /// How.
    pub rounding: Rounding,
    /// Values of a row.
    pub d: usize,
    /// [features][d]; fewer than the part has are followed by zeros.
    pub rows: &'a [f32],
    /// [features].
    pub bias: &'a [f32],
    /// Largest |x - x'| / |x| of the rows they will meet, but for integers.
    pub ratio: f32,
    /// Where to.
    pub part: WeightPart<'b>,
}

impl Kernel for PackWeights<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { rounding, d, rows, bias, ratio, part } = self;
        let words = part.words;
        let slack = rounding_slack(d);
        let mut row = vec![0.0; if part.rows.is_empty() { 0 } else { words }];
        for j in 0..part.bias.len() {
            let rounded = if j < bias.len() {
                round_row(s, rounding, &rows[j * d..(j + 1) * d], &mut row, false)
            } else {
                row.fill(0.0);
                Rounded::default()
            };
            if rounding == Rounding::Bfloat16 {
                // [panels][tiles of a row][features of a panel][words of a tile's row]: each step of the screen reads
                // what follows the step before.
                let panel = &mut part.rows[j / PANEL * PANEL * words..(j / PANEL + 1) * PANEL * words];
                let tiles = panel.chunks_exact_mut(PANEL * LANES);
                for (tile, words) in tiles.zip(row.as_chunks::<LANES>().0) {
                    tile[j % PANEL * LANES..(j % PANEL + 1) * LANES].copy_from_slice(words);
                }
            } else if !row.is_empty() {
                part.rows[j * words..(j + 1) * words].copy_from_slice(&row);
            }
            if j >= bias.len() {
                (part.bias[j], part.error[j], part.norm[j], part.total[j]) = (0.0, 0.0, 0.0, 0.0);
                continue;
            }
            let error = (1.0 + ratio) * rounded.error + (ratio + slack) * rounded.norm;
            part.bias[j] = -(bias[j] + TINY) / rounded.step;
            part.error[j] = -error / rounded.step;
            let by_row = rounding == Rounding::Int8;
            part.norm[j] = if by_row { -(rounded.norm + rounded.error) / rounded.step } else { 0.0 };
            part.total[j] = -rounded.total as f32;
        }
    }
}

/// What rounding a row did.
#[derive(Default)]
struct Rounded {
    /// At least |row|; NaN where it is not finite or too large to bound.
    norm: f32,
    /// At least |row - rounded row|.
    error: f32,
    /// What an integer stands for; 1 for floats.
    step: f32,
    /// Sum of the integers.
    total: i32,
    /// What the integer 0 stands for, in steps.
    low: f32,
}

/// Rounds `row` into `words` (which may be empty for float32) and measures what that changed. Integers are signed, or
/// `unsigned` from the smallest value of the row on: activations are rarely as negative as they are positive.
#[inline(always)]
fn round_row<S: Simd>(s: S, rounding: Rounding, row: &[f32], words: &mut [f32], unsigned: bool) -> Rounded {
    let d = row.len();
    // Norms are themselves rounded: by less than this.
    let up = 1.0 + rounding_slack(d);
    let norm = super::simd::dot(s, row, row).sqrt() * up + TINY_NORM;
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
            error = errors.iter().sum::<f32>().sqrt() * up + TINY_NORM;
        }
        Rounding::Int8 => {
            let (least, most) = row.iter().fold((0.0f32, 0.0f32), |(least, most), x| (least.min(*x), most.max(*x)));
            let (bottom, top) = if unsigned { (0.0, 255.0) } else { (-127.0, 127.0) };
            step = if unsigned { (most - least) / 255.0 } else { most.max(-least) / 127.0 }.max(SMALLEST_STEP);
            let zero = if unsigned { least } else { 0.0 };
            low = zero / step;
            let inverse = 1.0 / step;
            let mut errors = 0.0f32;
            for (chunk, word) in row.chunks(4).zip(words.iter_mut()) {
                let mut bits = 0u32;
                for (i, x) in chunk.iter().enumerate() {
                    let q = ((x - zero) * inverse).round_ties_even().clamp(bottom, top);
                    let q = if q.is_nan() { 0 } else { q as i32 };
                    total += q;
                    let gap = x - (q as f32 * step + zero);
                    errors += gap * gap;
                    bits |= u32::from(q as u8) << (8 * i);
                }
                *word = f32::from_bits(bits);
            }
            error = errors.sqrt() * up + TINY_NORM;
        }
    }
    Rounded { norm, error, step, total, low }
}

/// The nearest bfloat16 (ties to even) as the bits of a float32 whose lower half is zero. NaN may become infinite: its
/// row is kept whatever the screen finds.
#[inline(always)]
fn bfloat16(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000
}

/// One tile of rows against one dictionary.
#[derive(Debug, Clone, Copy)]
pub struct Screening<'a> {
    /// The rows.
    pub tile: RowTile<'a>,
    /// The pack's rows, or the encoder itself.
    pub weights: &'a [f32],
    /// [features].
    pub bias: &'a [f32],
    /// [features].
    pub error: &'a [f32],
    /// [features].
    pub norm: &'a [f32],
    /// [features].
    pub total: &'a [f32],
}

/// Float32 products: the screen that every instruction set has.
#[derive(Debug, Clone, Copy)]
pub struct Float32<S>(pub S);

#[allow(clippy::inline_always)]
impl<S: Simd> Products for Float32<S> {
    type S = S;
    type Acc = S::V;
    #[inline(always)]
    fn start(self) -> S::V {
        self.0.zero()
    }
    #[inline(always)]
    fn add(self, acc: S::V, rows: S::V, feature: S::V) -> S::V {
        self.0.fma(rows, feature, acc)
    }
    #[inline(always)]
    fn value(self, acc: S::V) -> S::V {
        acc
    }
    #[inline(always)]
    fn lanes(self) -> S {
        self.0
    }
}

/// The float32 screen as a kernel.
pub struct ScreenFloat32<'a, 'b> {
    /// What to screen.
    pub what: Screening<'a>,
    /// [features].
    pub masks: &'b mut [Mask],
}

impl Kernel for ScreenFloat32<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        if S::ACCUMULATORS >= 16 {
            screen_tile::<_, 6, 4>(Float32(s), self.what, self.masks);
        } else {
            screen_tile::<_, 6, 1>(Float32(s), self.what, self.masks);
        }
    }
}
