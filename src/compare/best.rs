//! The nearest atom in every dictionary of a sweep, for every atom of every other.
use std::sync::Mutex;

use super::packed::{Packed, Segment};
use super::scan::{CHUNK, Scan, Scratch, columns};
use super::tops::Tops;
use super::unit_rows::check_unit_rows;
use super::work::{Watch, each, most_pairs};
use crate::error::{Error, Result};
use crate::threads::lock;
use crate::vector::isa::Isa;
use crate::vector::tile::TILE;

/// Where the results go, each [K][N]: entry [j][i] is about atom i of all and its nearest atom in dictionary j.
pub struct Best<'a> {
    /// Its cosine; 1 for an atom's own dictionary.
    pub cosine: &'a mut [f32],
    /// Its index within dictionary j; the atom itself in its own.
    pub index: &'a mut [i32],
    /// The cosine with the nearest live atom; -inf where there is none. Empty where nobody asks.
    pub live_cosine: &'a mut [f32],
}

struct Piece {
    a: usize,
    b: usize,
    first: usize,
    last: usize,
}

/// Fills `out` for K dictionaries of `sizes`, whose N atoms [N, d] follow each other in `atoms`. `live` [N] tells which
/// atoms count as live (empty: all). False where `watch` stopped it.
///
/// # Errors
/// [`Error::InvalidArgument`]: lengths that do not fit, or rows that are not of norm 1.
pub fn best_of_all(
    isa: &Isa,
    threads: usize,
    (atoms, d): (&[f32], usize),
    sizes: &[usize],
    live: &[u8],
    absolute: bool,
    out: Best<'_>,
    watch: &mut Watch<'_>,
) -> Result<bool> {
    check_unit_rows("best_of_all", atoms, d)?;
    let total: usize = sizes.iter().sum();
    let (cells, split) = (total * sizes.len(), !live.is_empty());
    if total * d != atoms.len()
        || sizes.contains(&0)
        || (split && live.len() != total)
        || out.cosine.len() != cells
        || out.index.len() != cells
        || out.live_cosine.len() != if split { cells } else { 0 }
    {
        return Err(Error::InvalidArgument(format!("best_of_all: sizes {sizes:?} do not fit the arrays")));
    }
    let starts: Vec<usize> = sizes.iter().scan(0, |end, size| Some(std::mem::replace(end, *end + size))).collect();
    let mut segments = Vec::new();
    for (k, size) in sizes.iter().enumerate() {
        for wanted in [true, false] {
            let alive = |i: &u32| !split || live[starts[k] + *i as usize] != 0;
            let index: Vec<u32> = (0..*size as u32).filter(|i| alive(i) == wanted).collect();
            if !index.is_empty() {
                segments.push(Segment::new(k, wanted, index));
            }
        }
    }
    // Rows come from the smaller segment of each pair, so that fewer tiles raise the limits of the columns.
    segments.sort_by_key(Segment::len);
    let row = |segment: &Segment, index: u32| {
        let start = (starts[segment.dictionary] + index as usize) * d;
        &atoms[start..start + d]
    };
    let packed = Packed::new(isa, threads, d, segments, row);
    let multiply = isa.multiply();
    let out = Mutex::new(Table { out, starts: &starts, total });
    lock(&out).begin(sizes, live);
    let pieces = pieces(&packed.segments, most_pairs(isa));
    let finished = each(
        threads,
        &pieces,
        |piece| (packed.segments[piece.a].rows(piece.first..piece.last) * packed.segments[piece.b].len()) as u64,
        watch,
        Scratch::new,
        |scratch, piece| {
            let (a, b) = (&packed.segments[piece.a], &packed.segments[piece.b]);
            let tiles = piece.first..piece.last;
            let mut rows = Tops::new(a.rows(tiles.clone()), 1);
            let found = columns(b.len(), 1);
            let (packed, columns) = (&packed, &found[..]);
            isa.run(Scan { packed, multiply, absolute, a, tiles, b, rows: &mut rows, columns, scratch });
            let mut out = lock(&out);
            out.take(a, piece.first * TILE, &rows, b);
            for (chunk, found) in found.into_iter().enumerate() {
                out.take(b, chunk * CHUNK, &found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner), a);
            }
        },
    );
    Ok(finished)
}

/// All pairs of segments of two dictionaries, the longest work first.
fn pieces(segments: &[Segment], most: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for b in 0..segments.len() {
        for a in 0..b {
            if segments[a].dictionary == segments[b].dictionary {
                continue;
            }
            let tiles = segments[a].padded() / TILE;
            let at_once = (most / TILE / segments[b].padded()).max(1);
            for first in (0..tiles).step_by(at_once) {
                pieces.push(Piece { a, b, first, last: tiles.min(first + at_once) });
            }
        }
    }
    pieces.sort_by_key(|piece| std::cmp::Reverse((piece.last - piece.first) * segments[piece.b].len()));
    pieces
}

struct Table<'a> {
    out: Best<'a>,
    starts: &'a [usize],
    total: usize,
}

impl Table<'_> {
    /// Nothing found yet, but each atom by itself.
    fn begin(&mut self, sizes: &[usize], live: &[u8]) {
        self.out.cosine.fill(f32::NEG_INFINITY);
        self.out.index.fill(-1);
        self.out.live_cosine.fill(f32::NEG_INFINITY);
        for (k, size) in sizes.iter().enumerate() {
            for i in 0..*size {
                let (atom, cell) = (self.starts[k] + i, k * self.total + self.starts[k] + i);
                (self.out.cosine[cell], self.out.index[cell]) = (1.0, i as i32);
                if live.get(atom).is_some_and(|live| *live != 0) {
                    self.out.live_cosine[cell] = 1.0;
                }
            }
        }
    }

    /// Takes the best atoms of `of` for the atoms of `own` from `first` on; of equal ones the lower index stays.
    fn take(&mut self, own: &Segment, first: usize, found: &Tops, of: &Segment) {
        let start = of.dictionary * self.total + self.starts[own.dictionary];
        let places = own.index[first..].iter().zip(found.values().iter().zip(found.indices()));
        for (atom, (value, index)) in places {
            let cell = start + *atom as usize;
            let Some(index) = of.index.get(*index as usize).map(|index| *index as i32) else { continue };
            let known = self.out.cosine[cell];
            if *value > known || (*value == known && index < self.out.index[cell]) {
                (self.out.cosine[cell], self.out.index[cell]) = (*value, index);
            }
            if of.live && !self.out.live_cosine.is_empty() {
                self.out.live_cosine[cell] = self.out.live_cosine[cell].max(*value);
            }
        }
    }
}
