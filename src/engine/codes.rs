//! Codes between the two phases of a step, and what a thread needs to make them.

use super::dense::Dense;
use super::gradients::Sums;
use super::screen::Mask;
use super::simd::LANES;

/// A code that is not zero: z of a feature on a row, and the derivative of the loss by it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Code {
    /// Row of the batch.
    pub row: u32,
    /// Its value, above 0 or NaN.
    pub z: f32,
    /// dL/dz.
    pub g: f32,
}

/// The codes of one block of rows: feature by feature, a feature's rows in order.
#[derive(Debug, Default)]
pub struct Codes {
    /// [n + 1]: where the codes of each feature begin.
    pub starts: Vec<u32>,
    /// The codes, and room for more.
    pub list: Vec<Code>,
    pub(super) count: usize,
    /// The same codes with all zeros between them, where they are many.
    pub dense: Dense,
    /// Whether `dense` holds them.
    pub is_dense: bool,
}

impl Codes {
    /// The codes of feature `j`.
    #[inline(always)]
    #[must_use]
    pub fn feature(&self, j: usize) -> &[Code] {
        &self.list[self.starts[j] as usize..self.starts[j + 1] as usize]
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.starts.capacity() * size_of::<u32>() + self.list.capacity() * size_of::<Code>() + self.dense.bytes()
    }
}

/// What a thread needs while it works on a block; kept from one to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    /// [tiles][features]: candidate rows, a bit each.
    pub masks: Vec<Mask>,
    pub(super) any: Vec<u32>,
    pub(super) candidates: Vec<Place>,
    pub(super) count: usize,
    pub(super) values: Vec<f32>,
    pub(super) features: Vec<u32>,
    pub(super) row_starts: Vec<u32>,
    pub(super) by_row: Vec<RowCode>,
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
        self.masks.capacity() * size_of::<Mask>()
            + self.any.capacity() * size_of::<u32>()
            + self.candidates.capacity() * size_of::<Place>()
            + self.by_row.capacity() * size_of::<RowCode>()
            + self.sums.bytes()
            + (self.features.capacity() + self.row_starts.capacity() + self.values.capacity()) * size_of::<u32>()
    }
}

/// A feature and a row of the block.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) feature: u32,
    pub(super) at: u32,
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
    /// Candidates that were computed exactly.
    pub candidates: u64,
}
