//! The screen on AMX tiles: 16 features by 16 rows by 32 products of bfloat16 in one instruction.
//!
//! Stable Rust has no names for the tile registers, so the tiles are written as inline assembly. A block is 32
//! features (two tiles of weights) by 32 rows (two tiles of the batch); its four tiles of sums go to memory, and while
//! the next block is multiplied, the sums of this one are compared with their limits.

use std::arch::asm;

use super::{Avx512, Kernel, LANES, Lanes, Simd};
use crate::engine::screen::{GROUPS, Mask, PANEL, Screening, TILE};

/// AMX tiles with bfloat16 products, and AVX-512.
#[derive(Debug, Clone, Copy)]
pub struct Amx(Avx512);

/// The sums of a block: [2 halves of features][2 halves of rows][16 features][16 rows].
#[repr(C, align(64))]
struct Sums([Lanes; 64]);

/// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Config(bytes)
};

/// 32-bit words in a row of a tile.
const TILE_WORDS: usize = 16;

impl Amx {
    /// The proof that this processor has the instructions and the operating system allows them, or None.
    pub fn detect() -> Option<Self> {
        if crate::cpu::cpu().amx_bf16 { Avx512::detect().map(Self) } else { None }
    }

    /// Screens a tile of rows; bit r of `masks[j]`: feature j is kept on row r. `masks` and `what` have whole panels.
    pub fn screen(self, what: Screening<'_>, masks: &mut [Mask]) {
        assert!(masks.len().is_multiple_of(PANEL) && what.tile.words.is_multiple_of(TILE_WORDS));
        self.0.run(Screen { what, masks });
    }
}

struct Screen<'a, 'b> {
    what: Screening<'a>,
    masks: &'b mut [Mask],
}

impl Kernel for Screen<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { what, masks } = self;
        let words = what.tile.words;
        let mut sums = [const { Sums([[0.0; LANES]; 64]) }; 2];
        let blocks = masks.len() / PANEL * (GROUPS / 2);
        // SAFETY: `Amx` exists only where the tile registers may be used; the configuration is 64 readable bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) };
        for block in 0..=blocks {
            if block < blocks {
                let (panel, half) = (block / 2, block % 2);
                let weights = &what.weights[panel * PANEL * words..(panel + 1) * PANEL * words];
                let rows = &what.tile.lines[half * 2 * LANES..];
                multiply(weights, rows, words, &mut sums[block % 2]);
            }
            if block > 0 {
                let done = block - 1;
                compare(s, &what, done / 2, done % 2, &sums[done % 2], masks);
            }
        }
        // SAFETY: gives the tile registers back, so that switching threads need not save them.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// The 32 by 32 sums of a panel of weights with half a tile of rows. The tiles are configured.
#[inline(always)]
fn multiply(weights: &[f32], rows: &[f32], words: usize, sums: &mut Sums) {
    assert!(weights.len() == PANEL * words && rows.len() + 2 * LANES >= words * TILE && words > 0);
    let (w0, r0) = (weights.as_ptr(), rows.as_ptr());
    // SAFETY: `Screen::call` has configured the tiles. The loop reads `words / 16` tiles of 16 rows: from `w0` and from
    // 16 rows further without gaps, from `r0` and from one group further with the stride of a
    // word of the tile's 64 rows: all within the slices, whose lengths were just checked. The stores fill the four quarters of `sums`. All tiles are named as
    // clobbered.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{w0} + {line}]",
            "tileloadd tmm6, [{r0} + {rows}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{r1} + {rows}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{w0} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {w0}, 2048",
            "add {r0}, 4096",
            "add {r1}, 4096",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {line}], tmm0",
            "tilestored [{out} + {line} + 1024], tmm1",
            "tilestored [{out} + {line} + 2048], tmm2",
            "tilestored [{out} + {line} + 3072], tmm3",
            w0 = inout(reg) w0 => _,
            r0 = inout(reg) r0 => _,
            r1 = inout(reg) r0.add(LANES) => _,
            steps = inout(reg) words / TILE_WORDS => _,
            rows = in(reg) TILE * size_of::<f32>(),
            line = in(reg) 64usize,
            out = in(reg) sums.0.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Compares the sums of a block with their limits.
#[inline(always)]
fn compare<S: Simd>(s: S, what: &Screening<'_>, panel: usize, half: usize, sums: &Sums, masks: &mut [Mask]) {
    let reach = &what.tile.reach.as_chunks::<LANES>().0[2 * half..2 * half + 2];
    let (reach0, reach1) = (s.load(&reach[0]), s.load(&reach[1]));
    let features = panel * PANEL..(panel + 1) * PANEL;
    let (bias, error) = (&what.bias[features.clone()], &what.error[features.clone()]);
    let masks = &mut masks[features];
    for j in 0..PANEL {
        let base = (j / LANES) * 2 * LANES + j % LANES;
        let (bias, error) = (s.splat(bias[j]), s.splat(error[j]));
        let low = s.not_le(s.load(&sums.0[base]), s.fma(error, reach0, bias));
        let high = s.not_le(s.load(&sums.0[base + LANES]), s.fma(error, reach1, bias));
        masks[j][half] = low | (high << LANES);
    }
}
