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

pub use super::pack::{PackRows, PackWeights, RowPack, RowTile, WeightPack};
pub use super::rounding::Rounding;
use super::simd::{Kernel, LANES, Products, Simd, screen_tile};

/// Rows of a tile: the bits of one mask.
pub const TILE: usize = 64;

/// Which rows of a tile a feature is kept on: bit r % 32 of word r / 32.
pub type Mask = [u32; 2];

/// Groups of sixteen rows in a tile.
pub const GROUPS: usize = TILE / LANES;

/// Features of a panel.
pub const PANEL: usize = 32;

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
