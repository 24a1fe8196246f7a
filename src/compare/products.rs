//! Products of a tile of 64 rows with a panel of 32 others, in what the machine multiplies fastest.
use super::packed::Packed;
#[cfg(target_arch = "x86_64")]
use crate::vector::amx::Registers;
#[cfg(target_arch = "x86_64")]
use crate::vector::bytes::{Avx512Vnni, AvxVnni};
use crate::vector::isa::Multiply;
use crate::vector::packing::RowTile;
use crate::vector::screening::{Float32, Products};
use crate::vector::simd::{LANES, Lanes, Simd, Vectors};
use crate::vector::tile::{GROUPS, PANEL, TILE};

#[cfg(not(target_arch = "x86_64"))]
type Registers = ();

/// Sums of a panel with a tile: [32][64].
pub const SUMS: usize = PANEL * TILE;

/// One panel against one tile.
pub struct Operands<'a> {
    /// The tile's rows.
    pub tile: RowTile<'a>,
    /// The panel's rows, as `Multiply` reads them.
    pub panel: &'a [f32],
    /// [32] sums of the panel's integers, negative.
    pub totals: &'a [f32],
    /// [64] what the tile's integers stand for.
    pub row_steps: &'a [f32],
    /// [32] what the panel's stand for.
    pub panel_steps: &'a [f32],
}

impl<'a> Operands<'a> {
    /// The panel of packed rows from `column` on against the tile from `row` on.
    #[inline(always)]
    pub fn new(packed: &'a Packed, row: usize, column: usize) -> Self {
        let (panel, totals) = packed.panel(column);
        let row_steps = &packed.row_steps[row..row + TILE];
        Self {
            tile: packed.tile(row),
            panel,
            totals,
            row_steps,
            panel_steps: &packed.panel_steps[column..column + PANEL],
        }
    }
}

impl Multiply {
    /// Configures the registers that it needs, on this thread, for as long as they live.
    pub fn configure(self) -> Option<Registers> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(amx) => Some(amx.configure()),
            _ => None,
        }
    }

    /// The sums [32][64] of all pairs of a panel and a tile. The caller holds the registers configured.
    #[inline(always)]
    pub fn run<S: Simd>(self, s: S, what: &Operands<'_>, sums: &mut [f32; SUMS]) {
        match self {
            Self::Float32 if S::ACCUMULATORS >= 16 => panel::<_, 8, 2>(Float32(s), what, sums),
            Self::Float32 => panel::<_, 4, 1>(Float32(s), what, sums),
            #[cfg(target_arch = "x86_64")]
            Self::Int8(p) => bytes(p, what, sums),
            #[cfg(target_arch = "x86_64")]
            Self::NarrowInt8(p) => narrow_bytes(p, what, sums),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller has configured the registers.
            Self::Tiles(amx) => unsafe { amx.products(what.panel, what.tile.lines, what.tile.words, sums) },
        }
    }
}

/// Blocks of `F` rows of the panel by `G` groups of the tile's in registers.
#[inline(always)]
fn panel<P: Products, const F: usize, const G: usize>(p: P, what: &Operands<'_>, sums: &mut [f32; SUMS]) {
    for group in (0..GROUPS).step_by(G) {
        for j in (0..PANEL).step_by(F) {
            block::<P, F, G>(p, what, group, j, sums);
        }
    }
}

#[inline(always)]
fn block<P: Products, const F: usize, const G: usize>(
    p: P,
    what: &Operands<'_>,
    group: usize,
    j: usize,
    sums: &mut [f32; SUMS],
) {
    let s = p.lanes();
    let words = what.tile.words;
    let panel = &what.panel[j * words..(j + F) * words];
    assert!(group + G <= GROUPS && what.tile.lines.len() == words * TILE && panel.len() == F * words);
    let mut acc = [[p.start(); G]; F];
    for k in 0..words {
        let mut rows = [s.zero(); G];
        for g in 0..G {
            // SAFETY: k < words and group + g < GROUPS: sixteen floats from there lie within `lines`, whose length was
            // checked above. Checks here would cost as much as the products.
            let lanes = unsafe { &*what.tile.lines.as_ptr().add(k * TILE + (group + g) * LANES).cast::<Lanes>() };
            rows[g] = s.load(lanes);
        }
        for f in 0..F {
            // SAFETY: f < F and k < words, and `panel` has F * words floats.
            let other = s.splat(unsafe { *panel.get_unchecked(f * words + k) });
            for g in 0..G {
                acc[f][g] = p.add(acc[f][g], rows[g], other);
            }
        }
    }
    let sums = sums.as_chunks_mut::<LANES>().0;
    let steps = what.row_steps.as_chunks::<LANES>().0;
    let lows = what.tile.low.as_chunks::<LANES>().0;
    for f in 0..F {
        let (step, total) = (s.splat(what.panel_steps[j + f]), s.splat(-what.totals[j + f]));
        for g in 0..G {
            // Where floats are multiplied the steps are 1, and what 0 stands for is 0.
            let sum = s.fma(s.load(&lows[group + g]), total, p.value(acc[f][g]));
            let sum = s.mul(s.mul(sum, s.load(&steps[group + g])), step);
            s.store(sum, &mut sums[(j + f) * GROUPS + group + g]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn bytes(p: Avx512Vnni, what: &Operands<'_>, sums: &mut [f32; SUMS]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    fn inner(p: Avx512Vnni, what: &Operands<'_>, sums: &mut [f32; SUMS]) {
        panel::<_, 8, 2>(p, what, sums);
    }
    // SAFETY: `p` exists only where `cpu()` found these features.
    unsafe { inner(p, what, sums) }
}

#[cfg(target_arch = "x86_64")]
fn narrow_bytes(p: AvxVnni, what: &Operands<'_>, sums: &mut [f32; SUMS]) {
    #[target_feature(enable = "avx2,fma,avxvnni")]
    fn inner(p: AvxVnni, what: &Operands<'_>, sums: &mut [f32; SUMS]) {
        panel::<_, 4, 1>(p, what, sums);
    }
    // SAFETY: `p` exists only where `cpu()` found these features.
    unsafe { inner(p, what, sums) }
}
