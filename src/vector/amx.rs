//! AMX tiles: 16 features by 16 rows by 32 products of bfloat16 in one instruction, for the screen and for cosines.
//!
//! Stable Rust has no names for the tile registers, so the tiles are written as inline assembly. A block is 32
//! features (two tiles of weights) by 32 rows (two tiles of the batch); its four tiles of sums go to memory. Where these
//! are screened, vector instructions between the tiles' of the next block compare them with their limits.

use std::arch::asm;

use super::screening::Screening;
use super::simd::{Avx512, Kernel, LANES, Lanes, Simd};
use super::tile::{GROUPS, Mask, PANEL, TILE};

/// AMX tiles with bfloat16 products, and AVX-512.
#[derive(Debug, Clone, Copy)]
pub struct Amx(Avx512);

/// The sums of a block that is screened: [2 groups of rows][32 features][16 rows].
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

#[allow(clippy::unused_self)] // it is the proof that the instructions are there
impl Amx {
    /// The proof that this processor has the instructions and the operating system allows them, or None.
    pub fn detect() -> Option<Self> {
        if crate::cpu::cpu().amx_bf16 { Avx512::detect().map(Self) } else { None }
    }

    /// Screens a tile of rows; bit r of `masks[j]`: feature j is kept on row r. `masks` and `what` have whole panels.
    pub fn screen(self, what: Screening<'_>, masks: &mut [Mask]) {
        assert!(masks.len().is_multiple_of(PANEL) && what.tile.words.is_multiple_of(TILE_WORDS));
        self.0.run(Screen { amx: self, what, masks });
    }

    /// The sums [32 features][64 rows] of a panel [32][words] with a tile of rows [words][64].
    ///
    /// # Safety
    /// [`Registers`] of this thread are configured.
    pub unsafe fn products(self, panel: &[f32], lines: &[f32], words: usize, sums: &mut [f32; PANEL * TILE]) {
        for half in 0..2 {
            let at = half * 2 * LANES;
            // SAFETY: `self` exists only where the processor has tiles and AVX-512; the caller has configured them.
            unsafe { multiply::<{ 4 * TILE }, { 4 * LANES }>(panel, &lines[at..], words, &mut sums[at..], None) };
        }
    }

    /// Configures the tile registers of this thread.
    pub fn configure(self) -> Registers {
        // SAFETY: `self` exists only where the tile registers may be used; the configuration is 64 readable bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) };
        Registers(())
    }
}

/// The tile registers, configured while this lives; released after, so that switching threads need not save them.
#[derive(Debug)]
pub struct Registers(());

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: they were configured, so the instruction exists; nobody uses them after this.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

struct Screen<'a, 'b> {
    amx: Amx,
    what: Screening<'a>,
    masks: &'b mut [Mask],
}

impl Kernel for Screen<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { amx, what, masks } = self;
        let words = what.tile.words;
        let mut sums = [const { Sums([[0.0; LANES]; 64]) }; 2];
        let blocks = masks.len() / PANEL * (GROUPS / 2);
        let _registers = amx.configure();
        for block in 0..blocks {
            let (panel, half) = (block / 2, block % 2);
            let weights = &what.weights[panel * PANEL * words..(panel + 1) * PANEL * words];
            let rows = &what.tile.lines[half * 2 * LANES..];
            let [even, odd] = &mut sums;
            let (own, other) = if block % 2 == 0 { (even, odd) } else { (odd, even) };
            let done = (block > 0).then(|| Done::new(&what, block - 1, other, masks));
            // SAFETY: `Amx` exists only where the processor has tiles and AVX-512; the tiles are configured.
            unsafe { multiply::<{ 4 * LANES }, 2048>(weights, rows, words, own.0.as_flattened_mut(), done) };
        }
        if blocks > 0 {
            compare(s, &mut Done::new(&what, blocks - 1, &sums[(blocks - 1) % 2], masks));
        }
    }
}

/// A block whose sums are known: 32 features on half a tile of rows.
struct Done<'a> {
    half: usize,
    /// [32 rows].
    reach: &'a [f32],
    /// [32 features].
    bias: &'a [f32],
    /// [32 features].
    error: &'a [f32],
    sums: &'a Sums,
    /// [32 features].
    masks: &'a mut [Mask],
}

impl<'a> Done<'a> {
    #[inline(always)]
    fn new(what: &Screening<'a>, block: usize, sums: &'a Sums, masks: &'a mut [Mask]) -> Self {
        let (panel, half) = (block / 2, block % 2);
        let features = panel * PANEL..(panel + 1) * PANEL;
        Self {
            half,
            reach: &what.tile.reach[half * 2 * LANES..(half + 1) * 2 * LANES],
            bias: &what.bias[features.clone()],
            error: &what.error[features.clone()],
            sums,
            masks: &mut masks[features],
        }
    }
}

/// One feature of the block before: its 32 sums against their limits, 32 bits of mask; all pointers to the next.
macro_rules! compare_one {
    () => {
        "vbroadcastss zmm2, dword ptr [{bias}]
        vbroadcastss zmm3, dword ptr [{bias} + {error}]
        vmovaps zmm4, zmm2
        vfmadd231ps zmm2, zmm3, zmm0
        vfmadd231ps zmm4, zmm3, zmm1
        vcmpps k1, zmm2, zmmword ptr [{sums}], 25
        vcmpps k2, zmm4, zmmword ptr [{sums} + 2048], 25
        kunpckwd k1, k2, k1
        kmovd dword ptr [{masks}], k1
        add {bias}, 4
        add {sums}, 64
        add {masks}, 8
        dec {left}"
    };
}

/// The 32 by 32 sums of a panel of weights with half a tile of rows; while the tiles multiply, the block before (if
/// any) is compared, eight features per step: a step's four products take as long. In `sums` a feature is `FEATURE`
/// bytes after the one before, and the second sixteen rows are `GROUP` bytes after the first.
///
/// # Safety
/// The tiles are configured.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn multiply<const FEATURE: usize, const GROUP: usize>(
    weights: &[f32],
    rows: &[f32],
    words: usize,
    sums: &mut [f32],
    done: Option<Done<'_>>,
) {
    assert!(words > 0 && words.is_multiple_of(TILE_WORDS));
    assert!(weights.len() == PANEL * words && rows.len() + 2 * LANES >= words * TILE);
    assert!(size_of_val(sums) >= (PANEL - 1) * FEATURE + GROUP + size_of::<Lanes>());
    let none = [0.0; 2 * LANES];
    let (left, reach, bias, error, old, masks) = match done {
        None => (0, none.as_ptr(), none.as_ptr(), none.as_ptr(), std::ptr::null(), std::ptr::null_mut()),
        Some(done) => {
            assert!(done.reach.len() == 2 * LANES && done.half < 2);
            assert!(done.bias.len() == PANEL && done.error.len() == PANEL && done.masks.len() == PANEL);
            let masks = done.masks.as_mut_ptr().cast::<u32>().wrapping_add(done.half);
            let (reach, bias, error) = (done.reach.as_ptr(), done.bias.as_ptr(), done.error.as_ptr());
            (PANEL, reach, bias, error, done.sums.0.as_ptr(), masks)
        }
    };
    // SAFETY: the caller has configured the tiles. The loop over steps reads `words / 16` tiles of 16 rows: from the
    // weights and 16 features further without gaps, from the rows and one group further with the stride of a word of
    // the tile's 64 rows: all within the slices, whose lengths were just checked, as was that of `sums`. `left` is 32
    // where there is a block before, whose arrays have the lengths checked above, and 0 where there is none, whose
    // pointers are then not used but for `reach`. All registers that change are named.
    unsafe {
        asm!(
            "vmovups zmm0, zmmword ptr [{count}]",
            "vmovups zmm1, zmmword ptr [{count} + 64]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{w} + {line}]",
            "tileloadd tmm6, [{r} + {stride}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{r} + {stride} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{w} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {w}, 2048",
            "add {r}, 4096",
            "mov {count}, 8",
            "3:",
            "test {left}, {left}",
            "jz 4f",
            compare_one!(),
            "dec {count}",
            "jnz 3b",
            "4:",
            "dec {steps}",
            "jnz 2b",
            "5:",
            "test {left}, {left}",
            "jz 6f",
            compare_one!(),
            "jmp 5b",
            "6:",
            "mov {count}, {feature}",
            "tilestored [{out} + {count}], tmm0",
            "tilestored [{out} + {count} + {group}], tmm1",
            "tilestored [{out} + {count} + 16 * {feature}], tmm2",
            "tilestored [{out} + {count} + 16 * {feature} + {group}], tmm3",
            w = inout(reg) weights.as_ptr() => _,
            r = inout(reg) rows.as_ptr() => _,
            steps = inout(reg) words / TILE_WORDS => _,
            count = inout(reg) reach => _,
            left = inout(reg) left => _,
            bias = inout(reg) bias => _,
            error = in(reg) (error as usize).wrapping_sub(bias as usize),
            sums = inout(reg) old => _,
            masks = inout(reg) masks => _,
            stride = in(reg) TILE * size_of::<f32>(),
            line = in(reg) 64usize,
            out = in(reg) sums.as_mut_ptr(),
            feature = const FEATURE,
            group = const GROUP,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _,
            out("k1") _, out("k2") _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Compares the last block.
#[inline(always)]
fn compare<S: Simd>(s: S, done: &mut Done<'_>) {
    let reach = done.reach.as_chunks::<LANES>().0;
    for j in 0..PANEL {
        let (bias, error) = (s.splat(done.bias[j]), s.splat(done.error[j]));
        let low = s.not_le(s.load(&done.sums.0[j]), s.fma(error, s.load(&reach[0]), bias));
        let high = s.not_le(s.load(&done.sums.0[PANEL + j]), s.fma(error, s.load(&reach[1]), bias));
        done.masks[j][done.half] = low | (high << LANES);
    }
}
