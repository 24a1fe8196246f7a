//! Codes of a block, which are in the order of features, in that of rows too.
use std::time::Instant;

use super::codes::{Codes, RowCode, Scratch, TileStats, grow, lanes, lanes_mut};
use crate::vector::simd::{Kernel, LANES, Simd};
use crate::vector::tile::TILE;

/// Codes of one block in the order of rows; before, those that are not `above` this are dropped, where it is given.
pub struct SortRows<'b> {
    /// Features.
    pub n: usize,
    /// Index of the first row in the batch.
    pub first_row: usize,
    /// Rows.
    pub rows: usize,
    /// Whether the codes have waited for those of other blocks, with their features.
    pub waited: bool,
    /// Those above this are kept; None: all.
    pub above: Option<f32>,
    /// [tiles].
    pub stats: &'b mut [TileStats],
    /// The codes.
    pub codes: &'b mut Codes,
    /// The thread's own, which has the features of the codes and gets the codes row by row.
    pub scratch: &'b mut Scratch,
}

impl Kernel for SortRows<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { n, first_row, rows, waited, above, stats, codes, scratch } = self;
        let start = Instant::now();
        if waited {
            std::mem::swap(&mut scratch.features, &mut codes.features);
        }
        if let Some(least) = above {
            drop_below(s, scratch, codes, least);
        }
        sort_by_row(scratch, codes, n, first_row as u32, rows, stats);
        scratch.spent.encode += start.elapsed().as_secs_f64();
    }
}

/// Keeps the codes above `least`.
#[inline(always)]
fn drop_below<S: Simd>(s: S, scratch: &mut Scratch, codes: &mut Codes, least: f32) {
    let whole = codes.count.next_multiple_of(LANES);
    grow(&mut scratch.features, whole + LANES);
    grow(&mut codes.rows, whole + LANES);
    grow(&mut codes.z, whole + LANES);
    codes.z[codes.count..whole].fill(0.0);
    let mut at = 0;
    for i in (0..whole).step_by(LANES) {
        let (z, rows, of) = (lanes(&codes.z, i), lanes(&codes.rows, i), lanes(&scratch.features, i));
        let active = s.not_le(s.load(&z), s.splat(least));
        s.compress(&z, active, lanes_mut(&mut codes.z, at));
        s.compress(&rows, active, lanes_mut(&mut codes.rows, at));
        s.compress(&of, active, lanes_mut(&mut scratch.features, at));
        at += active.count_ones() as usize;
    }
    codes.count = at;
}

#[inline(always)]
fn prefix_sums(counts: &mut [u32]) {
    let mut sum = 0;
    for count in counts {
        sum += *count;
        *count = sum;
    }
}

/// Lists where the codes of each row are, in the order of features, and where those of each feature begin; sums and
/// counts them.
#[inline(always)]
fn sort_by_row(
    scratch: &mut Scratch,
    codes: &mut Codes,
    n: usize,
    first_row: u32,
    rows: usize,
    stats: &mut [TileStats],
) {
    let Scratch { features, row_starts, by_row, .. } = scratch;
    let Codes { starts, count, rows: row_of, z, .. } = codes;
    let (row_of, features, z) = (&row_of[..*count], &features[..*count], &z[..*count]);
    starts.clear();
    starts.resize(n + 1, 0);
    row_starts.clear();
    row_starts.resize(rows + 1, 0);
    for ((row, feature), at) in row_of.iter().zip(features).zip(1..) {
        row_starts[(row - first_row) as usize + 1] += 1;
        // Every feature's end is where its last code leaves it; a feature without codes ends where the one before does.
        starts[*feature as usize + 1] = at;
    }
    let mut end = 0;
    for start in starts {
        end = end.max(*start);
        *start = end;
    }
    prefix_sums(row_starts);
    grow(by_row, *count);
    for (((row, feature), z), at) in row_of.iter().zip(features).zip(z).zip(0..) {
        let row = (row - first_row) as usize;
        let next = &mut row_starts[row];
        by_row[*next as usize] = RowCode { feature: *feature, at, z: *z };
        *next += 1;
        let tile = &mut stats[row / TILE];
        tile.l1[*feature as usize % LANES] += f64::from(*z);
        tile.l0 += u64::from(*z > 0.0);
        tile.codes += 1;
    }
    // Every start has moved to the next row's: move them back.
    row_starts.copy_within(0..rows, 1);
    row_starts[0] = 0;
}
