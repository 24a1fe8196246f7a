//! The inner loop of every screen that works in vector registers: features by rows, the sums in registers.

use super::{LANES, Lanes, Simd};
use crate::engine::screen::{GROUPS, Mask, Screening, TILE};

/// How a screen multiplies words and adds the products.
pub trait Products: Copy {
    /// Its float lanes.
    type S: Simd;
    /// Sums of sixteen rows.
    type Acc: Copy;
    /// Where the sums begin.
    fn start(self) -> Self::Acc;
    /// Adds the products of a word of sixteen rows with a word of one feature, in all lanes; floats only in name.
    fn add(self, acc: Self::Acc, rows: <Self::S as Simd>::V, feature: <Self::S as Simd>::V) -> Self::Acc;
    /// The sums as floats.
    fn value(self, acc: Self::Acc) -> <Self::S as Simd>::V;
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
