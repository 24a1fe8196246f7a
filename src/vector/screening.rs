//! Screening: which features may be active on which rows, from a cheap encode with a rigorous error bound.
//!
//! For row x and feature j the exact engine takes feature j as inactive when `dot(x, w) + b <= 0`, with the dot product
//! in float32 as [`super::dot::dot`] adds it. A screen computes another product s of rounded copies x', w' and keeps
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

use super::packing::RowTile;
use super::simd::{Kernel, LANES, Lanes, Simd, Vectors};
use super::tile::{GROUPS, Mask, TILE};

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

/// How a screen multiplies words and adds the products.
pub trait Products: Copy {
    /// Its float lanes.
    type S: Simd;
    /// Sums of sixteen rows.
    type Acc: Copy;
    /// Where the sums begin.
    fn start(self) -> Self::Acc;
    /// Adds the products of a word of sixteen rows with a word of one feature, in all lanes; floats only in name.
    fn add(self, acc: Self::Acc, rows: <Self::S as Vectors>::V, feature: <Self::S as Vectors>::V) -> Self::Acc;
    /// The sums as floats.
    fn value(self, acc: Self::Acc) -> <Self::S as Vectors>::V;
    /// The float lanes.
    fn lanes(self) -> Self::S;
}

/// Screens a tile with blocks of `F` features by `G` groups of rows in registers; bit r of `masks[j]`: row r is kept.
#[inline(always)]
pub fn screen_tile<P: Products, const F: usize, const G: usize>(p: P, what: Screening<'_>, masks: &mut [Mask]) {
    let n = masks.len();
    masks.fill([0; 2]);
    for group in (0..GROUPS).step_by(G) {
        let mut j = 0;
        while j + F <= n {
            screen_block::<P, F, G>(p, &what, group, j, masks);
            j += F;
        }
        while j < n {
            screen_block::<P, 1, G>(p, &what, group, j, masks);
            j += 1;
        }
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // loops over registers
fn screen_block<P: Products, const F: usize, const G: usize>(
    p: P,
    what: &Screening<'_>,
    group: usize,
    j: usize,
    masks: &mut [Mask],
) {
    let s = p.lanes();
    let words = what.tile.words;
    let lines = &what.tile.lines[group * LANES..words * TILE];
    let weights = &what.weights[j * words..(j + F) * words];
    assert!(group + G <= GROUPS && lines.len() == words * TILE - group * LANES && weights.len() == F * words);
    let mut acc = [[p.start(); G]; F];
    for k in 0..words {
        let mut rows = [s.zero(); G];
        for g in 0..G {
            // SAFETY: k < words and group + g < GROUPS: sixteen floats from there end within `lines`, whose length was
            // checked above. Checks here would cost as much as the products.
            rows[g] = s.load(unsafe { &*lines.as_ptr().add(k * TILE + g * LANES).cast::<Lanes>() });
        }
        for f in 0..F {
            // SAFETY: f < F and k < words, and `weights` has F * words floats.
            let feature = s.splat(unsafe { *weights.get_unchecked(f * words + k) });
            for g in 0..G {
                acc[f][g] = p.add(acc[f][g], rows[g], feature);
            }
        }
    }
    let of_row =
        [what.tile.scale, what.tile.reach, what.tile.rough, what.tile.low].map(|row| row.as_chunks::<LANES>().0);
    for f in 0..F {
        let of_feature = [what.bias[j + f], what.error[j + f], what.norm[j + f], what.total[j + f]].map(|x| s.splat(x));
        for g in 0..G {
            let mut limit = s.mul(of_feature[0], s.load(&of_row[0][group + g]));
            for i in 1..4 {
                limit = s.fma(of_feature[i], s.load(&of_row[i][group + g]), limit);
            }
            let kept = s.not_le(p.value(acc[f][g]), limit);
            masks[j + f][(group + g) >> 1] |= kept << ((group + g) % 2 * LANES);
        }
    }
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
