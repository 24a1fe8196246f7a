//! One pass over all pairs that proves a matching optimal, or finds the pairs that speak against it.
use std::ops::Range;

use super::packed::{Packed, Segment};
use super::products::{Operands, SUMS};
use super::scan::{above, cosine};
use super::tops::Tops;
use super::weight::{ONE, weight};
use super::work::{Watch, by_rows};
use crate::vector::dot::dot;
use crate::vector::isa::{Isa, Multiply};
use crate::vector::simd::{Kernel, LANES, Simd};
use crate::vector::tile::{PANEL, TILE};

/// Panels between two looks at what a row has found.
const PANELS: usize = 32;

/// For each row (segment 0) the `k` columns (segment 1) whose weight exceeds `u[i] + v[j]` most; none at all proves that
/// no matching of all pairs is heavier than the sum of u and v. None where `watch` stopped it.
pub fn violations(
    isa: &Isa,
    threads: usize,
    packed: &Packed,
    absolute: bool,
    (u, v): (&[i64], &[i64]),
    k: usize,
    watch: &mut Watch<'_>,
) -> Option<Tops> {
    let (a, b) = (&packed.segments[0], &packed.segments[1]);
    let multiply = isa.multiply();
    let prices: Vec<f32> = v.iter().map(|v| real(v - ONE)).collect();
    by_rows(
        isa,
        threads,
        packed,
        k,
        watch,
        || Box::new([0.0; SUMS]),
        |sums, tiles, found| {
            isa.run(Check { packed, multiply, absolute, a, tiles, b, u, v, prices: &prices, found, sums });
        },
    )
}

/// A weight's size as a cosine's.
fn real(weight: i64) -> f32 {
    (weight as f64 / ONE as f64) as f32
}

struct Check<'a> {
    packed: &'a Packed,
    multiply: Multiply,
    absolute: bool,
    a: &'a Segment,
    tiles: Range<usize>,
    b: &'a Segment,
    u: &'a [i64],
    v: &'a [i64],
    /// [m] v as cosines, less 1.
    prices: &'a [f32],
    found: &'a mut Tops,
    sums: &'a mut [f32; SUMS],
}

impl Kernel for Check<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(mut self, s: S) {
        let _registers = self.multiply.configure();
        let error = Packed::error(self.a, self.b);
        let panels = self.b.len().div_ceil(PANEL);
        for tile in self.tiles.clone() {
            for first in (0..panels).step_by(PANELS) {
                let limits = self.limits(tile, error);
                for panel in first..panels.min(first + PANELS) {
                    self.panel(s, tile, panel, &limits);
                }
            }
        }
    }
}

impl Check<'_> {
    /// A sum s may be of a pair that violates its row's price u and its column's v only if s - (v - 1) is above this.
    fn limits(&self, tile: usize, error: f32) -> [f32; TILE] {
        let mut limits = [f32::INFINITY; TILE];
        for r in 0..(self.a.len() - tile * TILE).min(TILE) {
            let known = self.found.floor((tile - self.tiles.start) * TILE + r).max(0.0);
            limits[r] = real(self.u[tile * TILE + r] - ONE) + known - error;
        }
        limits
    }

    #[inline(always)]
    fn panel<S: Simd>(&mut self, s: S, tile: usize, panel: usize, limits: &[f32; TILE]) {
        let packed = self.packed;
        let (row, column) = (self.a.start + tile * TILE, self.b.start + panel * PANEL);
        self.multiply.run(s, &Operands::new(packed, row, column), self.sums);
        for j in 0..(self.b.len() - panel * PANEL).min(PANEL) {
            let place = panel * PANEL + j;
            let price = s.splat(self.prices[place]);
            let sums = &mut self.sums[j * TILE..(j + 1) * TILE];
            for lanes in sums.as_chunks_mut::<LANES>().0 {
                let sum = s.load(lanes);
                let sum = if self.absolute { s.max(sum, s.sub(s.zero(), sum)) } else { sum };
                s.store(s.sub(sum, price), lanes);
            }
            let mut kept = above(s, sums, limits);
            while kept != 0 {
                let r = kept.trailing_zeros() as usize;
                kept &= kept - 1;
                let value = cosine(dot(s, packed.atom(row + r), packed.atom(column + j)), self.absolute);
                let excess = weight(value) - self.u[tile * TILE + r] - self.v[place];
                if excess > 0 {
                    self.found.offer((tile - self.tiles.start) * TILE + r, real(excess), place as u32);
                }
            }
        }
    }
}
