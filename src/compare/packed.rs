//! Atoms in the order and the roundings in which they are multiplied.
use std::ops::Range;

use crate::threads::{lock, on_threads};
use crate::vector::isa::Isa;
use crate::vector::packing::{PackRows, PackWeights, RowPack, RowTile, WeightPack};
use crate::vector::rounding::Rounding;
use crate::vector::tile::{PANEL, TILE};

/// More than what rounding to float32 changes in a limit: cosines and limits are below 4.
const MARGIN: f64 = 1.0 / (1u32 << 20) as f64;

/// Atoms of one dictionary that are scanned together. Its rows are padded to whole tiles with copies of the last atom,
/// which change no maximum.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Which dictionary.
    pub dictionary: usize,
    /// Whether these are its live atoms.
    pub live: bool,
    /// Where it begins among the packed rows.
    pub start: usize,
    /// Index within the dictionary of each of its atoms, ascending.
    pub index: Vec<u32>,
    /// Largest norm of its rows.
    reach: f64,
    /// Largest rounding error of its rows as the left operand, where that is an integer's.
    rough: f64,
    /// Largest error of a product with one of its rows, per norm of the other.
    error: f64,
    /// The same, per rounding error of the other.
    norm: f64,
}

impl Segment {
    /// Atoms `index` of a dictionary, before they are packed.
    pub fn new(dictionary: usize, live: bool, index: Vec<u32>) -> Self {
        Self { dictionary, live, start: 0, index, reach: 0.0, rough: 0.0, error: 0.0, norm: 0.0 }
    }

    /// Atoms in it, without padding.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Atoms in some of its tiles, without padding.
    pub fn rows(&self, tiles: Range<usize>) -> usize {
        self.len().min(tiles.end * TILE) - self.len().min(tiles.start * TILE)
    }

    /// Rows with padding.
    pub fn padded(&self) -> usize {
        self.index.len().next_multiple_of(TILE)
    }
}

/// Segments packed one after another, each both as rows and as weights of a screen.
pub struct Packed {
    /// Dimensions.
    pub d: usize,
    /// The segments, with their places.
    pub segments: Vec<Segment>,
    /// [rows][d] the atoms themselves.
    pub atoms: Vec<f32>,
    /// [rows] what an integer of the left operand stands for; 1 where floats are multiplied.
    pub row_steps: Vec<f32>,
    /// [rows] the same of the right operand.
    pub panel_steps: Vec<f32>,
    rows: RowPack,
    weights: WeightPack,
}

impl Packed {
    /// Packs atoms: `row(segment, index)` gives the atom of that index within the segment's dictionary.
    pub fn new<'a>(
        isa: &Isa,
        threads: usize,
        d: usize,
        mut segments: Vec<Segment>,
        row: impl Fn(&Segment, u32) -> &'a [f32],
    ) -> Self {
        let total = segments.iter().map(Segment::padded).sum::<usize>();
        let mut atoms = Vec::with_capacity(total * d);
        for segment in &mut segments {
            segment.start = atoms.len() / d;
            for index in (0..segment.padded()).map(|place| segment.index[place.min(segment.len() - 1)]) {
                atoms.extend_from_slice(row(segment, index));
            }
        }
        let rounding = isa.rounding();
        let (mut rows, mut weights) = (RowPack::default(), WeightPack::default());
        rows.resize(rounding, total, d);
        weights.resize(rounding, total, d);
        let at_once = 16 * TILE;
        in_parts(threads, rows.parts(at_once / TILE).into_iter().zip(atoms.chunks(at_once * d)), |(part, rows)| {
            isa.run(PackRows { rounding, d, rows, stride: d, part });
        });
        let ratio = rows.ratio.iter().fold(0.0f32, |a, b| a.max(*b));
        // A bias of 1 gives the step back, which the pack holds as -1 / step.
        let ones = vec![1.0; at_once];
        in_parts(threads, weights.parts(at_once).into_iter().zip(atoms.chunks(at_once * d)), |(part, rows)| {
            isa.run(PackWeights { rounding, d, rows, bias: &ones[..rows.len() / d], ratio, part });
        });
        let (row_steps, panel_steps): (Vec<f32>, Vec<f32>) = match rounding {
            Rounding::Int8 => (0..total).map(|row| (1.0 / rows.scale[row], -1.0 / weights.bias[row])).unzip(),
            Rounding::Float32 | Rounding::Bfloat16 => (vec![1.0; total], vec![1.0; total]),
        };
        for segment in &mut segments {
            for row in segment.start..segment.start + segment.len() {
                let (left, right) = (f64::from(row_steps[row]), f64::from(panel_steps[row]));
                segment.reach = segment.reach.max(f64::from(rows.reach[row]) * left);
                segment.rough = segment.rough.max(f64::from(rows.rough[row]) * left);
                segment.error = segment.error.max(f64::from(-weights.error[row]) * right);
                segment.norm = segment.norm.max(f64::from(-weights.norm[row]) * right);
            }
        }
        Self { d, segments, atoms, row_steps, panel_steps, rows, weights }
    }

    /// By how much a product of a row of `a` with one of `b` can differ from the exact engine's.
    pub fn error(a: &Segment, b: &Segment) -> f32 {
        ((a.reach * b.error + a.rough * b.norm) * (1.0 + MARGIN) + MARGIN) as f32
    }

    /// The atom of a packed row.
    #[inline(always)]
    pub fn atom(&self, row: usize) -> &[f32] {
        &self.atoms[row * self.d..(row + 1) * self.d]
    }

    /// A tile of rows, as the left operand.
    pub fn tile(&self, row: usize) -> RowTile<'_> {
        self.rows.tile(row / TILE)
    }

    /// A panel of rows, as the right operand, and the negative sums of its integers.
    pub fn panel(&self, row: usize) -> (&[f32], &[f32]) {
        let rows = if self.weights.rows.is_empty() { &self.atoms } else { &*self.weights.rows };
        let words = self.weights.words;
        (&rows[row * words..(row + PANEL) * words], &self.weights.total[row..row + PANEL])
    }
}

fn in_parts<T: Send>(threads: usize, parts: impl Iterator<Item = T> + Send, work: impl Fn(T) + Sync) {
    let parts = std::sync::Mutex::new(parts);
    on_threads(threads, &|| {
        loop {
            let Some(part) = lock(&parts).next() else { return };
            work(part);
        }
    });
}
