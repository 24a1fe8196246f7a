//! Codes between the two phases of a step, and what a thread needs to make them.
use super::gradients::Sums;
use super::tops::Top;
use crate::vector::aligned::Aligned;
use crate::vector::simd::LANES;
use crate::vector::tile::Mask;

/// The codes of one block of rows that are not zero: feature by feature, a feature's rows in order.
#[derive(Debug, Default)]
pub struct Codes {
    /// [n + 1]: where the codes of each feature begin.
    pub(super) starts: Vec<u32>,
    /// How many there are; the lists have room for more.
    pub(super) count: usize,
    /// Their rows of the batch.
    pub(super) rows: Vec<u32>,
    /// Their values, above 0 or NaN; `JumpReLU` also has 0 for what is in its window at theta, and -0 below theta.
    pub(super) z: Vec<f32>,
    /// dL/dy.
    pub(super) g: Vec<f32>,
    /// Derivatives whose sums are gradients of the vectors of the kind.
    pub(super) own: [Vec<f32>; 3],
    /// Pre-activations, of kinds whose codes do not tell.
    pub(super) y: Vec<f32>,
    /// Of selected codes: the smallest of each row by the row's norm.
    pub(super) least: Vec<f32>,
    /// Their features, while they wait for the codes of other blocks.
    pub(super) features: Vec<u32>,
    /// The same codes with all zeros between them, where they are many.
    pub dense: Dense,
    /// Whether `dense` holds them.
    pub is_dense: bool,
}

/// The codes of one feature, side by side.
#[derive(Debug, Clone, Copy)]
pub struct FeatureCodes<'a> {
    /// Rows of the batch, ascending.
    pub rows: &'a [u32],
    /// Values.
    pub z: &'a [f32],
    /// dL/dy.
    pub g: &'a [f32],
}

impl Codes {
    /// The codes of feature `j`.
    #[inline(always)]
    #[must_use]
    pub fn feature(&self, j: usize) -> FeatureCodes<'_> {
        let at = self.starts[j] as usize..self.starts[j + 1] as usize;
        FeatureCodes { rows: &self.rows[at.clone()], z: &self.z[at.clone()], g: &self.g[at] }
    }

    /// How many are above 0.
    pub(super) fn count_positive(&self) -> u64 {
        self.z[..self.count].iter().map(|z| u64::from(*z > 0.0)).sum()
    }

    /// One of the lists of `own` for feature `j`.
    #[inline(always)]
    pub(super) fn own(&self, list: usize, j: usize) -> &[f32] {
        &self.own[list][self.starts[j] as usize..self.starts[j + 1] as usize]
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let floats =
            [&self.z, &self.g, &self.y, &self.least].into_iter().chain(&self.own).map(Vec::capacity).sum::<usize>();
        let integers = [&self.starts, &self.rows, &self.features].into_iter().map(Vec::capacity).sum::<usize>();
        (floats + integers) * size_of::<u32>() + self.dense.bytes()
    }
}

/// Codes of a block of rows, the zeros among them: [groups of 16 features][rows][16].
#[derive(Debug, Default)]
pub struct Dense {
    pub(super) rows: usize,
    pub(super) z: Aligned,
    pub(super) g: Aligned,
}

impl Dense {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.z.bytes() + self.g.bytes()
    }

    /// Counts the rows on which each feature is active.
    pub fn count_fired(&self, fired: &mut [i64]) {
        for (group, fired) in self.z.chunks_exact(self.rows * LANES).zip(fired.chunks_mut(LANES)) {
            for line in group.as_chunks::<LANES>().0 {
                for (fired, z) in fired.iter_mut().zip(line) {
                    *fired += i64::from(*z > 0.0);
                }
            }
        }
    }
}

/// What a thread needs while it works on a block; kept from one to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    /// [tiles][features]: candidate rows, a bit each.
    pub masks: Vec<Mask>,
    /// [features]: whether one is a candidate on any row.
    pub(super) any: Vec<u32>,
    /// The masks of some features that are not zero.
    pub(super) kept: Vec<Kept>,
    /// How many candidates there are, and of each its row of the block, its feature and its value.
    pub(super) count: usize,
    pub(super) places: Vec<u32>,
    pub(super) features: Vec<u32>,
    pub(super) values: Vec<f32>,
    /// [rows + 1]: where the codes of each row begin in `by_row`.
    pub(super) row_starts: Vec<u32>,
    pub(super) by_row: Vec<RowCode>,
    /// Rows of a dense block, side by side.
    pub(super) quads: Aligned,
    /// Their products with some features.
    pub(super) products: Aligned,
    /// [rows]: the largest of each row, see [`super::tops`].
    pub(super) tops: Vec<Top>,
    /// [rows of whole tiles]: their reach in the screen, with limits of their own.
    pub(super) reach: Vec<f32>,
    /// [groups + 1]: where the codes of each group begin among those of a row.
    pub(super) bounds: Vec<usize>,
    /// [groups][stride]: a second residual of a row.
    pub(super) second: Aligned,
    /// Gradients of the features that it works on, where they do not outlive the phase.
    pub sums: Sums,
    /// Time that this thread has spent.
    pub spent: Spent,
}

/// Seconds of one thread in the parts of phase one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Masks.
    pub screen: f64,
    /// Candidates listed and computed exactly, codes sorted.
    pub encode: f64,
    /// Reconstruction, residual, derivatives.
    pub decode: f64,
}

impl Scratch {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let lists = [&self.any, &self.places, &self.features, &self.row_starts].map(Vec::capacity);
        (lists.iter().sum::<usize>() + self.values.capacity()) * size_of::<u32>()
            + self.masks.capacity() * size_of::<Mask>()
            + self.kept.capacity() * size_of::<Kept>()
            + self.by_row.capacity() * size_of::<RowCode>()
            + self.tops.iter().map(Top::bytes).sum::<usize>()
            + self.quads.bytes()
            + self.products.bytes()
            + self.second.bytes()
            + self.sums.bytes()
    }
}

/// A feature that is a candidate on a tile of the block.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    pub(super) feature: u32,
    pub(super) tile: u32,
}

/// A code of a row: its feature, its value, and where it is among the block's codes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RowCode {
    pub(super) feature: u32,
    pub(super) at: u32,
    pub(super) z: f32,
}

/// Sums over a tile's rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct TileStats {
    /// Squared error.
    pub sse: f64,
    /// Codes, those of feature j in lane j % 16: a sum that vectors can add in the same order.
    pub l1: [f64; LANES],
    /// Codes above zero.
    pub l0: u64,
    /// Codes, NaN and what lies in windows among them.
    pub codes: u64,
    /// Candidates that were computed exactly.
    pub candidates: u64,
    /// Sums of z^p and of z^(next p), where they are wanted.
    pub powers: [f64; 2],
}

impl TileStats {
    /// Adds those of the next tile.
    pub(super) fn add(&mut self, tile: &Self) {
        self.sse += tile.sse;
        self.l1.iter_mut().zip(tile.l1).for_each(|(sum, lane)| *sum += lane);
        self.l0 += tile.l0;
        self.codes += tile.codes;
        self.candidates += tile.candidates;
        self.powers.iter_mut().zip(tile.powers).for_each(|(sum, power)| *sum += power);
    }
}

#[inline(always)]
pub(super) fn lanes<T: Copy>(list: &[T], at: usize) -> [T; LANES] {
    *list[at..].first_chunk().expect("room for whole vectors")
}

#[inline(always)]
pub(super) fn lanes_mut<T>(list: &mut [T], at: usize) -> &mut [T; LANES] {
    list[at..].first_chunk_mut().expect("room for whole vectors")
}

/// Makes a buffer at least `len` long; what is new in it is of no use.
#[inline(always)]
pub(super) fn grow<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len.next_power_of_two(), T::default());
    }
}
