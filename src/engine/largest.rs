//! The k largest: of a batch, by histograms of the bits of floats, or of each row, by lists that are cut.
//!
//! Of equal values all that are no less than the k-th are kept, which needs no order: so threads and blocks decide nothing.
//! NaN counts as larger than every number, and is always kept.
use std::time::Instant;

use super::codes::grow;
use super::codes::{Codes, Scratch, TileStats};
use super::dense_products::{fill_quads, products};
use super::encode::{list_candidates, multiply};
use super::parameters::Weights;
use super::tops::{Top, just_below, key};
use crate::vector::isa::Isa;
use crate::vector::packing::{RowPack, WeightPack};
use crate::vector::rounding::Rounding;
use crate::vector::screening::Screening;
use crate::vector::simd::{Kernel, LANES, Simd};
use crate::vector::tile::{PANEL, TILE};

/// What a batch's largest codes are above.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// Codes above this are kept, and NaN.
    pub above: f32,
    /// The smallest number that is kept; None: there is none.
    pub least: Option<f32>,
}

/// What the `count` largest of all codes in these blocks are above; None if there are fewer.
pub fn cut_of(blocks: &[Codes], count: usize) -> Option<Cut> {
    let values = || blocks.iter().flat_map(|block| &block.z[..block.count]).map(|z| key(*z));
    let (high, left) = bin_of(values().map(|key| key >> 16), count)?;
    let (low, _) = bin_of(values().filter(|key| key >> 16 == high).map(|key| key & 0xffff), left)?;
    let key = (high << 16) | low;
    Some(Cut { above: just_below(key), least: (key != u32::MAX).then(|| f32::from_bits(key)) })
}

/// All codes, where there are no more than are kept.
pub fn all_of(blocks: &[Codes]) -> Cut {
    let numbers = blocks.iter().flat_map(|block| &block.z[..block.count]).copied().filter(|z| *z > 0.0);
    Cut { above: 0.0, least: numbers.min_by(f32::total_cmp) }
}

/// Which of 2^16 bins the `count`-th largest is in, and how many of those in it are no smaller.
fn bin_of(bins: impl Iterator<Item = u32>, count: usize) -> Option<(u32, usize)> {
    let mut counts = vec![0u32; 1 << 16];
    bins.for_each(|bin| counts[bin as usize] += 1);
    let mut left = count;
    for (bin, found) in counts.iter().enumerate().rev() {
        match left.checked_sub(*found as usize) {
            None | Some(0) => return Some((bin as u32, left)),
            Some(less) => left = less,
        }
    }
    None
}

/// Groups of features that are multiplied before they are looked at: their products stay in the second cache.
const PANEL_GROUPS: usize = 4;

/// The largest of each row of a block to codes.
pub struct LargestOfRows<'a, 'b> {
    /// Features side by side, as [`products`] reads them.
    pub panels: &'a [f32],
    /// [n].
    pub bias: &'a [f32],
    /// Codes of a row.
    pub k: usize,
    /// Numbers of the features; None: from 0 on.
    pub features: Option<&'a [u32]>,
    /// d padded to whole vectors.
    pub stride: usize,
    /// [rows][stride], zeros after d.
    pub x: &'a [f32],
    /// Index of the first row in the batch.
    pub first_row: usize,
    /// Where the codes go, feature by feature.
    pub codes: &'b mut Codes,
    /// The thread's own, which gets the features of the codes.
    pub scratch: &'b mut Scratch,
}

impl Kernel for LargestOfRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        if S::ACCUMULATORS >= 16 { self.work::<S, 2, 2>(s) } else { self.work::<S, 1, 1>(s) }
    }
}

impl LargestOfRows<'_, '_> {
    #[inline(always)]
    fn work<S: Simd, const G: usize, const L: usize>(self, s: S) {
        let Self { panels, bias, k, features, stride, x, first_row, codes, scratch } = self;
        let start = Instant::now();
        let rows = x.len() / stride;
        fill_quads(x, stride, &mut scratch.quads);
        scratch.products.resize(PANEL_GROUPS * LANES * rows);
        if scratch.tops.len() < rows {
            scratch.tops.resize_with(rows, Top::default);
        }
        scratch.tops[..rows].iter_mut().for_each(|top| top.begin(k));
        let size = PANEL_GROUPS * LANES * stride;
        for (part, panels) in panels.chunks(size).enumerate() {
            let out = &mut scratch.products[..panels.len() / stride * rows];
            products::<S, G, L>(s, panels, &scratch.quads, stride, rows, out);
            for (group, lines) in out.chunks_exact(LANES * rows).enumerate() {
                let first = (part * PANEL_GROUPS + group) * LANES;
                let own = &bias[first..(first + LANES).min(bias.len())];
                let mut biases = [0.0; LANES];
                biases[..own.len()].copy_from_slice(own);
                let (biases, there) = (s.load(&biases), (1u32 << own.len()) - 1);
                for (line, top) in lines.as_chunks::<LANES>().0.iter().zip(&mut scratch.tops) {
                    let y = s.add(s.load(line), biases);
                    let mut above = s.not_le(y, s.splat(top.above)) & there;
                    if above == 0 {
                        continue;
                    }
                    let mut values = [0.0; LANES];
                    s.store(y, &mut values);
                    while above != 0 {
                        let lane = above.trailing_zeros() as usize;
                        above &= above - 1;
                        top.push(k, values[lane], (first + lane) as u32);
                    }
                }
            }
        }
        to_codes(k, bias.len(), features, rows, first_row, codes, scratch);
        scratch.spent.encode += start.elapsed().as_secs_f64();
    }
}

/// The lists of all rows to codes, by counting: feature by feature, a feature's rows in order.
fn to_codes(
    k: usize,
    n: usize,
    features: Option<&[u32]>,
    rows: usize,
    first_row: usize,
    codes: &mut Codes,
    scratch: &mut Scratch,
) {
    let Codes { starts, count, rows: row_of, z, .. } = codes;
    starts.clear();
    starts.resize(n + 1, 0);
    for top in &mut scratch.tops[..rows] {
        top.cut(k);
        for found in &top.found {
            starts[*found as u32 as usize + 1] += 1;
        }
    }
    for j in 0..n {
        starts[j + 1] += starts[j];
    }
    *count = starts[n] as usize;
    grow(row_of, *count);
    grow(z, *count);
    grow(&mut scratch.features, *count);
    for (row, top) in (first_row as u32..).zip(&scratch.tops[..rows]) {
        for found in &top.found {
            let (key, feature) = ((*found >> 32) as u32, *found as u32);
            let at = starts[feature as usize] as usize;
            starts[feature as usize] += 1;
            row_of[at] = row;
            z[at] = if key == u32::MAX { f32::NAN } else { f32::from_bits(key) };
            scratch.features[at] = features.map_or(feature, |features| features[feature as usize]);
        }
    }
}

/// The largest of each row of a block to codes by the screen, which learns from the features before what a row's codes
/// are above.
#[derive(Clone, Copy)]
pub struct ScreenedRows<'a> {
    /// Parameters.
    pub weights: Weights<'a>,
    /// The rounded encoder, whose errors are the same for all features.
    pub pack: &'a WeightPack,
    /// This error.
    pub level: f32,
    /// The rounded batch.
    pub rows: &'a RowPack,
    /// Codes of a row.
    pub k: usize,
    /// The k-th largest of nearly every row is expected above this times the row's norm; NaN: unknown. It decides what
    /// is multiplied, never what is kept.
    pub expected: f32,
    /// d padded to whole vectors.
    pub stride: usize,
    /// [rows][stride], zeros after d.
    pub x: &'a [f32],
    /// Index of the first row in the batch: that of a tile.
    pub first_row: usize,
}

/// Features that are screened at first.
const FIRST: usize = 64;

/// The part of the features that were screened already which comes next.
const MORE: usize = 4;

/// What a limit is made smaller by, more than what rounding can make of it.
const SLACK: f32 = 1.0 / (1 << 18) as f32;

/// Limits that are larger than this, in steps of the errors, say nothing: all is kept.
const FARTHEST: f32 = 1e12;

/// The reach of a row of which nothing need be kept: what is kept even so is not looked at.
const NOTHING: f32 = 1e30;

impl ScreenedRows<'_> {
    /// Writes the codes and, to `scratch`, their features.
    pub fn run(self, isa: &Isa, stats: &mut [TileStats], codes: &mut Codes, scratch: &mut Scratch) {
        let Self { weights, rows: batch, k, stride, x, first_row, .. } = self;
        let (n, count) = (weights.bias.len(), x.len() / stride);
        if scratch.tops.len() < count {
            scratch.tops.resize_with(count, Top::default);
        }
        let rows = first_row..first_row + stats.len() * TILE;
        scratch.reach.clear();
        scratch.reach.extend_from_slice(&batch.reach[rows]);
        for (row, top) in scratch.tops[..count].iter_mut().enumerate() {
            top.begin(k);
            let norm = self.norm(row);
            if self.expected > 0.0 && norm < f32::INFINITY {
                top.above = self.expected * norm;
                scratch.reach[row] = self.reach(row, top.above);
            }
        }
        self.screen(isa, stats, 0, scratch);
        if self.expected > 0.0 {
            for (tile, stats) in stats.chunks_mut(1).enumerate() {
                let own = tile * TILE..((tile + 1) * TILE).min(count);
                if scratch.tops[own.clone()].iter().all(|top| top.found.len() >= k) {
                    continue;
                }
                for row in own.clone() {
                    let top = &mut scratch.tops[row];
                    top.done = top.found.len() >= k;
                    scratch.reach[row] = if top.done { NOTHING } else { batch.reach[first_row + row] };
                    if !top.done {
                        top.begin(k);
                    }
                }
                let again = Self { x: &x[own.start * stride..own.end * stride], expected: f32::NAN, ..self };
                again.screen(isa, stats, tile, scratch);
            }
        }
        codes.least.clear();
        for (row, top) in scratch.tops[..count].iter_mut().enumerate() {
            top.cut(k);
            let norm = self.norm(row);
            let least = if top.found.len() < k { 0.0 } else { top.above };
            codes.least.push(if norm > 0.0 && norm < f32::INFINITY { least / norm } else { f32::INFINITY });
        }
        to_codes(k, n, None, count, first_row, codes, scratch);
    }

    /// The norm of a row of the block, or a little more; not finite where no screen can tell anything.
    fn norm(&self, row: usize) -> f32 {
        let row = self.first_row + row;
        self.rows.reach[row] / self.rows.scale[row]
    }

    /// The reach of a row of the block with which features are kept that may be above a number.
    fn reach(&self, row: usize, above: f32) -> f32 {
        let row = self.first_row + row;
        let limit = self.rows.reach[row] - above * (1.0 - SLACK) / self.level * self.rows.scale[row];
        if limit.abs() < FARTHEST { limit } else { f32::NAN }
    }

    /// All features against the rows of `x`, which begin with a tile of the block, in parts; rows raise their limits
    /// after each.
    fn screen(&self, isa: &Isa, stats: &mut [TileStats], tile: usize, scratch: &mut Scratch) {
        let Self { weights, pack, rows: batch, k, stride, x, first_row, .. } = *self;
        let (n, d, count, words) = (weights.bias.len(), weights.d, x.len() / stride, pack.words);
        let mut first = 0;
        while first < n {
            let start = Instant::now();
            // Where something is expected, limits are near from the start, and all features come at once.
            let next = if self.expected > 0.0 { n } else { first / MORE };
            let size = FIRST.max(next.next_multiple_of(PANEL)).min(n - first);
            let stop = (first + size).next_multiple_of(PANEL).min(pack.bias.len());
            let (own, padded) = (first..first + size, first..stop);
            let of = if isa.rounding() == Rounding::Float32 {
                &weights.encoder[own.start * d..own.end * d]
            } else {
                &pack.rows[first * words..stop * words]
            };
            let [bias, error, norm, total] =
                [&pack.bias, &pack.error, &pack.norm, &pack.total].map(|values| &values[padded.clone()]);
            scratch.masks.resize(stats.len() * padded.len(), [0; 2]);
            for (index, masks) in scratch.masks.chunks_mut(padded.len()).take(stats.len()).enumerate() {
                let mut rows = batch.tile(first_row / TILE + tile + index);
                rows.reach = &scratch.reach[(tile + index) * TILE..(tile + index + 1) * TILE];
                isa.screen(Screening { tile: rows, weights: of, bias, error, norm, total }, size, masks);
            }
            scratch.spent.screen += start.elapsed().as_secs_f64();
            let start = Instant::now();
            let weights = Weights {
                d,
                encoder: &weights.encoder[own.start * d..own.end * d],
                bias: &weights.bias[own.clone()],
                decoder: &[],
            };
            let (mask_stride, first_place) = (padded.len(), tile * TILE);
            isa.run(PushCandidates { weights, first, first_place, mask_stride, k, stride, x, stats, scratch });
            first = own.end;
            for row in first_place..first_place + count {
                let top = &mut scratch.tops[row];
                if first < n && !top.done && top.found.len() >= k {
                    top.cut(k);
                    scratch.reach[row] = self.reach(row, top.above);
                }
            }
            scratch.spent.encode += start.elapsed().as_secs_f64();
        }
    }
}

/// Candidates of some features to the lists of their rows.
struct PushCandidates<'a, 'b> {
    weights: Weights<'a>,
    first: usize,
    /// Where the first row of `x` is among the lists.
    first_place: usize,
    mask_stride: usize,
    k: usize,
    stride: usize,
    x: &'a [f32],
    stats: &'b mut [TileStats],
    scratch: &'b mut Scratch,
}

impl Kernel for PushCandidates<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { weights, first, first_place, mask_stride, k, stride, x, stats, scratch } = self;
        list_candidates(s, scratch, mask_stride, weights.bias, x.len() / stride, stats);
        multiply(s, &weights, stride, x, scratch);
        let Scratch { places, features, values, count, tops, .. } = scratch;
        for ((place, feature), value) in places[..*count].iter().zip(&*features).zip(&*values) {
            let top = &mut tops[first_place + *place as usize];
            // A NaN is a code: it must reach the loss.
            if !top.done && (*value > top.above || value.is_nan()) {
                top.push(k, *value, first as u32 + feature);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(values: &[f32]) -> Codes {
        // What is beyond the count is of no use.
        let z = values.iter().copied().chain([9.0, 9.0]).collect();
        Codes { count: values.len(), z, ..Codes::default() }
    }

    #[test]
    fn the_cut_of_a_batch_is_that_of_a_sort() {
        let values: Vec<f32> = (0..500u32).map(|i| ((i * 7919 + 13) % 397) as f32 / 100.0 + 0.01).collect();
        let blocks: Vec<_> = values.chunks(60).map(block).collect();
        let mut sorted = values.clone();
        sorted.sort_by(f32::total_cmp);
        for count in [1, 2, 57, 499, 500] {
            let expected = sorted[500 - count];
            let cut = cut_of(&blocks, count).expect("as many codes");
            assert_eq!(cut.least, Some(expected));
            let kept = values.iter().filter(|z| **z > cut.above).count();
            assert_eq!(kept, values.iter().filter(|z| **z >= expected).count());
        }
        assert_eq!(cut_of(&blocks, 501), None);
        assert_eq!(all_of(&blocks), Cut { above: 0.0, least: Some(sorted[0]) });
    }

    #[test]
    fn nan_counts_first_and_keeps_nothing_beside_it() {
        let blocks = [block(&[1.0, f32::NAN]), block(&[-f32::NAN, 3.0])];
        assert_eq!(cut_of(&blocks, 2), Some(Cut { above: f32::INFINITY, least: None }));
        assert_eq!(cut_of(&blocks, 3).expect("three codes").least, Some(3.0));
        assert_eq!(all_of(&blocks).least, Some(1.0));
        assert_eq!(all_of(&[block(&[f32::NAN])]).least, None);
    }

    #[test]
    fn a_list_that_is_cut_on_the_way_keeps_what_equals_the_kth() {
        for k in [1, 3, 40] {
            let mut top = Top::default();
            top.begin(k);
            let values: Vec<f32> = (0..1000u32).map(|i| ((i * 7919 + 13) % 97 + 1) as f32).collect();
            for (j, value) in values.iter().enumerate() {
                if *value > top.above {
                    top.push(k, *value, j as u32);
                }
            }
            top.cut(k);
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            let mut expected: Vec<u32> = (0..1000).filter(|j| values[*j as usize] >= sorted[1000 - k]).collect();
            let mut found: Vec<u32> = top.found.iter().map(|found| *found as u32).collect();
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected, "{k}");
        }
    }
}
