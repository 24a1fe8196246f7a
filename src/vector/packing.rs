//! A batch and an encoder as a screen reads them: rounded rows in the order of its products, and the limits of its
//! comparison. [`super::screening`] explains them.

use super::aligned::Aligned;
use super::rounding::{Rounded, Rounding, TINY, round_row, rounding_slack};
use super::simd::{Kernel, LANES, Simd};
use super::tile::{PANEL, TILE};

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
    /// [features]: the step of a feature's integers, else 1.
    pub step: Aligned,
}

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
        self.step.resize(padded);
    }

    /// Gives all features the largest error of one per unit of |x|, which is returned: then a row can have a limit of its
    /// own, as a part of its reach. Those whose error is NaN, and which are kept on every row, are left as they are.
    pub fn level(&mut self) -> f32 {
        // Rounded up: products and quotients below are off by less.
        let up = 1.0 + 1.0 / (1u32 << 20) as f32;
        let errors = self.error.iter().zip(&*self.step).map(|(error, step)| -error * step);
        let most = errors.fold(0.0f32, |most, error| if error > most { error } else { most }) * up;
        for (error, step) in self.error.iter_mut().zip(&*self.step) {
            if !error.is_nan() {
                *error = -most * up / step;
            }
        }
        most
    }

    /// Parts of `features` features each (a multiple of [`PANEL`]), to be filled independently.
    pub fn parts(&mut self, features: usize) -> Vec<WeightPart<'_>> {
        let count = self.bias.len().div_ceil(features);
        let mut rows = self.rows.chunks_mut((features * self.words).max(1));
        let rows = (0..count).map(|_| rows.next().unwrap_or_default());
        rows.zip(self.bias.chunks_mut(features).zip(self.error.chunks_mut(features)))
            .zip(self.norm.chunks_mut(features).zip(self.total.chunks_mut(features)))
            .zip(self.step.chunks_mut(features))
            .map(|(((rows, (bias, error)), (norm, total)), step)| WeightPart {
                words: self.words,
                rows,
                bias,
                error,
                norm,
                total,
                step,
            })
            .collect()
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
            + self.bias.bytes()
            + self.error.bytes()
            + self.norm.bytes()
            + self.total.bytes()
            + self.step.bytes()
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
    step: &'a mut [f32],
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
                part.step[j] = 1.0;
                continue;
            }
            let error = (1.0 + ratio) * rounded.error + (ratio + slack) * rounded.norm;
            part.bias[j] = -(bias[j] + TINY) / rounded.step;
            part.error[j] = -error / rounded.step;
            let by_row = rounding == Rounding::Int8;
            part.norm[j] = if by_row { -(rounded.norm + rounded.error) / rounded.step } else { 0.0 };
            part.total[j] = -rounded.total as f32;
            part.step[j] = rounded.step;
        }
    }
}
