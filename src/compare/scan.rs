//! The pass over all pairs of two segments: cheap products, maxima both ways, exact values of what could be among them.
//!
//! With s the cheap product of a pair, v its exact value and |s - v| <= e: where the best k of a row found so far reach
//! down to f, a pair of the row is among its best k only if s >= f - e. And where k pairs of the row have s >= t, its
//! best k have v >= t - e and so s >= t - 2e. Pairs above the higher of these limits, of their row or of their column,
//! are computed exactly; all others cannot be among the best.
use std::ops::Range;
use std::sync::Mutex;

use super::packed::{Packed, Segment};
use super::products::{Operands, SUMS};
use super::tops::Tops;
use crate::threads::lock;
use crate::vector::dot::dot4;
use crate::vector::isa::Multiply;
use crate::vector::simd::{Kernel, LANES, Simd};
use crate::vector::tile::{GROUPS, PANEL, TILE};

/// Atoms of the column side whose products are held at once: 256 KB, which stay in the second cache.
pub const CHUNK: usize = 1024;

/// What a thread keeps between pieces.
pub struct Scratch {
    sums: Vec<[f32; SUMS]>,
    /// Largest sums of each row in each panel.
    highest: Vec<[f32; TILE]>,
    /// Limits of the columns of a chunk.
    limits: Vec<f32>,
    /// Pairs to be computed: row of the tile, column of the chunk.
    pairs: Vec<(u8, u16)>,
}

impl Scratch {
    /// Empty.
    pub fn new() -> Self {
        Self {
            sums: vec![[0.0; SUMS]; CHUNK / PANEL],
            highest: vec![[0.0; TILE]; CHUNK / PANEL],
            limits: vec![0.0; CHUNK],
            pairs: Vec::new(),
        }
    }
}

/// Rows of a segment against all columns of another.
pub struct Scan<'a> {
    /// The atoms.
    pub packed: &'a Packed,
    /// What multiplies.
    pub multiply: Multiply,
    /// Whether the sign of a cosine does not count.
    pub absolute: bool,
    /// The segment of the rows.
    pub a: &'a Segment,
    /// Which of its tiles.
    pub tiles: Range<usize>,
    /// The segment of the columns.
    pub b: &'a Segment,
    /// Best columns of each row of the tiles.
    pub rows: &'a mut Tops,
    /// Best rows of each column, one for each chunk of columns; other threads may be adding rows of theirs.
    pub columns: &'a [Mutex<Tops>],
    /// Room.
    pub scratch: &'a mut Scratch,
}

/// Empty lists of the best `k` rows of each of `count` columns, a chunk at a time.
pub fn columns(count: usize, k: usize) -> Vec<Mutex<Tops>> {
    (0..count).step_by(CHUNK).map(|start| Mutex::new(Tops::new((count - start).min(CHUNK), k))).collect()
}

impl Kernel for Scan<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(mut self, s: S) {
        let _registers = self.multiply.configure();
        let error = Packed::error(self.a, self.b);
        for tile in self.tiles.clone() {
            for chunk in 0..self.columns.len() {
                self.chunk(s, tile, chunk, error);
            }
        }
    }
}

impl Scan<'_> {
    #[inline(always)]
    fn chunk<S: Simd>(&mut self, s: S, tile: usize, chunk: usize, error: f32) {
        let first = chunk * CHUNK;
        let columns = (self.b.len() - first).min(CHUNK);
        // A panel of padding alone would count an atom twice.
        let panels = columns.div_ceil(PANEL);
        let found = lock(&self.columns[chunk]);
        for j in 0..columns {
            self.scratch.limits[j] = found.floor(j) - error;
        }
        let k = found.k();
        drop(found);
        for panel in 0..panels {
            self.multiply_panel(s, tile, first, panel);
            self.maxima(s, panel, columns, k == 1, error);
        }
        let limits = self.row_limits(s, tile, panels, error);
        self.scratch.pairs.clear();
        for j in 0..columns {
            let sums = &self.scratch.sums[j / PANEL][j % PANEL * TILE..(j % PANEL + 1) * TILE];
            let column = self.scratch.limits[j];
            let mut kept = above(s, sums, &limits);
            if column < f32::INFINITY {
                kept |= above(s, sums, &[column; TILE]);
            }
            while kept != 0 {
                self.scratch.pairs.push((kept.trailing_zeros() as u8, j as u16));
                kept &= kept - 1;
            }
        }
        self.compute(s, tile, chunk);
    }

    #[inline(always)]
    fn multiply_panel<S: Simd>(&mut self, s: S, tile: usize, first: usize, panel: usize) {
        let what = Operands::new(self.packed, self.a.start + tile * TILE, self.b.start + first + panel * PANEL);
        let sums = &mut self.scratch.sums[panel];
        self.multiply.run(s, &what, sums);
        if self.absolute {
            for lanes in sums.as_chunks_mut::<LANES>().0 {
                let value = s.load(lanes);
                s.store(s.max(value, s.sub(s.zero(), value)), lanes);
            }
        }
    }

    /// Row maxima of a panel; limits of its columns, infinite where no sum comes up to what was found before.
    #[inline(always)]
    fn maxima<S: Simd>(&mut self, s: S, panel: usize, columns: usize, one: bool, error: f32) {
        let lines = self.scratch.sums[panel].as_chunks::<LANES>().0;
        let mut rows = [s.splat(f32::NEG_INFINITY); GROUPS];
        let limits = &mut self.scratch.limits[panel * PANEL..(panel + 1) * PANEL];
        for j in 0..PANEL {
            let mut values = [s.zero(); GROUPS];
            for g in 0..GROUPS {
                values[g] = s.load(&lines[j * GROUPS + g]);
                rows[g] = s.max(rows[g], values[g]);
            }
            let largest = s.max(s.max(values[0], values[1]), s.max(values[2], values[3]));
            if s.not_le(largest, s.splat(limits[j])) == 0 {
                limits[j] = f32::INFINITY;
            } else if one {
                let mut lanes = [0.0; LANES];
                s.store(largest, &mut lanes);
                let mut most = lanes[0];
                for lane in lanes {
                    most = if lane > most { lane } else { most };
                }
                limits[j] = limits[j].max(most - 2.0 * error);
            }
        }
        let missing = (panel * PANEL + PANEL).saturating_sub(columns).min(PANEL);
        limits[PANEL - missing..].fill(f32::INFINITY);
        for (line, value) in self.scratch.highest[panel].as_chunks_mut::<LANES>().0.iter_mut().zip(rows) {
            s.store(value, line);
        }
    }

    /// What a sum must be above to be computed for its row's sake; infinite for padding.
    #[inline(always)]
    fn row_limits<S: Simd>(&mut self, s: S, tile: usize, panels: usize, error: f32) -> [f32; TILE] {
        let mut limits = [f32::INFINITY; TILE];
        let k = self.rows.k();
        let highest = &self.scratch.highest[..panels];
        let mut most = [f32::NEG_INFINITY; TILE];
        if k == 1 {
            for panel in highest {
                for (most, value) in most.as_chunks_mut::<LANES>().0.iter_mut().zip(panel.as_chunks::<LANES>().0) {
                    let larger = s.max(s.load(most), s.load(value));
                    s.store(larger, most);
                }
            }
        }
        let mut values = [0.0; CHUNK / PANEL];
        for r in 0..(self.a.len() - tile * TILE).min(TILE) {
            let floor = self.rows.floor((tile - self.tiles.start) * TILE + r);
            limits[r] = floor - error;
            if k == 1 {
                limits[r] = limits[r].max(most[r] - 2.0 * error);
            } else if floor == f32::NEG_INFINITY && k <= panels {
                for (value, panel) in values.iter_mut().zip(highest) {
                    *value = panel[r];
                }
                let (_, kth, _) = values[..panels].select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
                limits[r] = *kth - 2.0 * error;
            }
        }
        limits
    }

    /// The exact values of the pairs found.
    #[inline(always)]
    fn compute<S: Simd>(&mut self, s: S, tile: usize, chunk: usize) {
        let rows = (self.a.len() - tile * TILE).min(TILE);
        let mut found = lock(&self.columns[chunk]);
        let (packed, absolute) = (self.packed, self.absolute);
        let (top, left) = (self.a.start + tile * TILE, self.b.start + chunk * CHUNK);
        let slots = (tile - self.tiles.start) * TILE;
        self.scratch.pairs.retain(|(r, _)| usize::from(*r) < rows);
        let tops = &mut *self.rows;
        for (place, four) in self.scratch.pairs.chunks(4).enumerate() {
            for (_, j) in self.scratch.pairs.iter().skip(4 * (place + 2)).take(4) {
                s.prefetch(packed.atom(left + usize::from(*j)));
            }
            let [mut a, mut b] = [[&[][..]; 4]; 2];
            for i in 0..4 {
                let (r, j) = four[i.min(four.len() - 1)];
                (a[i], b[i]) = (packed.atom(top + usize::from(r)), packed.atom(left + usize::from(j)));
            }
            let values = dot4(s, a, b);
            for (pair, value) in four.iter().zip(values) {
                let (r, j, value) = (usize::from(pair.0), usize::from(pair.1), cosine(value, absolute));
                tops.offer(slots + r, value, (chunk * CHUNK + j) as u32);
                found.offer(j, value, (tile * TILE + r) as u32);
            }
        }
    }
}

/// Bit r: whether sum r of 64 is above limit r.
#[inline(always)]
pub fn above<S: Simd>(s: S, sums: &[f32], limits: &[f32; TILE]) -> u64 {
    let (sums, limits) = (sums.as_chunks::<LANES>().0, limits.as_chunks::<LANES>().0);
    // A closure would not be compiled for the instruction set: calls instead of instructions.
    let mut kept = 0;
    for g in 0..GROUPS {
        kept |= u64::from(s.not_le(s.load(&sums[g]), s.load(&limits[g]))) << (g * LANES);
    }
    kept
}

/// A dot product of unit rows as a cosine: rounding may pass 1 by 1e-7.
#[inline(always)]
pub fn cosine(dot: f32, absolute: bool) -> f32 {
    let value = dot.clamp(-1.0, 1.0);
    if absolute { value.abs() } else { value }
}
