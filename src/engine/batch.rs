//! The batch, as every phase of every dictionary reads it.

use super::aligned::Aligned;
use super::path::Path;
use super::screen::{PackRows, Rounding, RowPack, TILE};
use super::simd::LANES;
use super::step::BLOCK_TILES;
use super::sweep::Batch;
use super::team::Team;

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
    pub(super) fn read(&mut self, path: Path, team: &Team, batch: Batch<'_>, d: usize, pre_bias: Option<&[f32]>) {
        let (stride, rounding) = (self.stride, path.rounding());
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
                path.run(PackRows { rounding, d, rows: x, stride, part });
            }
        });
        self.ratio = self.pack.ratio.iter().fold(0.0, |largest, ratio| largest.max(*ratio));
    }

    pub(super) fn bytes(&self) -> usize {
        self.x.bytes() + self.pack.bytes()
    }
}
