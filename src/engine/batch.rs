//! The batch, as every phase of every dictionary reads it.
use super::sweep::Activations;
use super::team::Team;
use crate::vector::aligned::Aligned;
use crate::vector::isa::Isa;
use crate::vector::packing::{PackRows, RowPack};
use crate::vector::rounding::Rounding;
use crate::vector::simd::LANES;
use crate::vector::tile::TILE;

/// Most tiles in a block of rows: 512 rows of D = 128 are 256 KB, and stay in the second cache while the encoder streams
/// past. Blocks of 256 took 5 % longer, of 64 20 %.
pub(super) const BLOCK_TILES: usize = 8;

/// The rows that codes point to.
#[derive(Debug, Clone, Copy)]
pub struct BatchRows<'a> {
    /// D.
    pub d: usize,
    /// d padded to whole vectors.
    pub stride: usize,
    /// [B][stride].
    pub x: &'a [f32],
    /// [B][groups][stride]: the derivative of the loss by the reconstruction, or by what the features of a group give.
    pub residual: &'a [f32],
    /// Ends of nested groups of features; none: one group of all.
    pub groups: &'a [usize],
}

impl BatchRows<'_> {
    /// Floats from one row's residuals to the next, and where those of feature `j` begin.
    #[inline(always)]
    pub fn residual_of(&self, j: usize) -> (usize, usize) {
        match self.groups {
            [] => (self.stride, 0),
            ends => (ends.len() * self.stride, ends.partition_point(|end| *end <= j) * self.stride),
        }
    }
}

/// The batch in rows of whole vectors, and packed for the screen.
#[derive(Debug, Default)]
pub(super) struct BatchBuffers {
    pub(super) stride: usize,
    pub(super) x: Aligned,
    pub(super) pack: RowPack,
    pub(super) ratio: f32,
}

impl BatchBuffers {
    pub(super) fn resize(&mut self, rounding: Rounding, rows: usize, d: usize) {
        let stride = d.next_multiple_of(LANES);
        if (self.stride, self.x.len()) != (stride, rows * stride) {
            // New memory is zero, and so is what pads the rows.
            self.x = Aligned::default();
            self.x.resize(rows * stride);
            self.stride = stride;
        }
        if d < stride {
            self.x.fill(0.0);
        }
        self.pack.resize(rounding, rows, d);
    }

    /// Copies the batch, less `pre_bias`, and packs it.
    pub(super) fn read(&mut self, isa: Isa, team: &Team, batch: Activations<'_>, d: usize, pre_bias: Option<&[f32]>) {
        let (stride, rounding) = (self.stride, isa.rounding());
        let rows = BLOCK_TILES * TILE;
        let mut items: Vec<_> = self
            .pack
            .parts(BLOCK_TILES)
            .into_iter()
            .zip(self.x.chunks_mut(rows * stride))
            .zip(batch.x.chunks(rows * d))
            .map(|((part, x), from)| Some((part, x, from)))
            .collect();
        team.for_each(&mut items, |_, _, item| {
            if let Some((part, x, from)) = item.take() {
                for (to, from) in x.chunks_exact_mut(stride).zip(from.chunks_exact(d)) {
                    to[..d].copy_from_slice(from);
                    if let Some(pre_bias) = pre_bias {
                        to.iter_mut().zip(pre_bias).for_each(|(x, b)| *x -= b);
                    }
                }
                isa.run(PackRows { rounding, d, rows: x, stride, part });
            }
        });
        self.ratio = self.pack.ratio.iter().fold(0.0, |largest, ratio| largest.max(*ratio));
    }

    pub(super) fn bytes(&self) -> usize {
        self.x.bytes() + self.pack.bytes()
    }
}
