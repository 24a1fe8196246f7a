//! The loops, written once, and compiled for each instruction set.
//!
//! They are `inline(always)` so that they take on the features of the function they are inlined into.

use crate::dtype::Dtype;
use crate::simd::Normalize;
use crate::simd::lanes::{Lanes, Portable, Stored};
use crate::simd::scalar;

/// What is left of a row after its last whole vector.
type Scalar = Portable<1>;

/// Rows up to this are asked for as a whole, of longer ones the first two lines: the processor fetches the rest by itself
/// once it sees the start. Measured on one core, rows all over 0.5 GB, of 1 KiB: two lines 150 ns a row, all sixteen 135; of 4 KiB: two
/// lines 640, all 750.
const WHOLE_BYTES: usize = 1024;
/// Rows up to this are copied by vectors in place, longer ones by `memcpy`.
const VECTOR_BYTES: usize = 4096;

/// Stores a vector, past the caches where `PAST`.
///
/// # Safety
/// As [`Lanes::store`] or [`Lanes::stream`].
#[inline(always)]
unsafe fn put<L: Lanes, const PAST: bool>(to: *mut f32, v: L) {
    // SAFETY: the caller's promise.
    unsafe {
        if PAST {
            v.stream(to);
        } else {
            v.store(to);
        }
    }
}

/// # Safety
/// `from` readable for `n` stored values, `to` writable for `n`; the instruction set of `L` enabled. Where `PAST`, `to`
/// aligned to 64 bytes and `n` a multiple of 16.
#[inline(always)]
pub unsafe fn widen<L: Lanes, T: Stored, const PAST: bool>(from: *const u8, to: *mut f32, n: usize) {
    // SAFETY: i + WIDTH <= n in the first loop and i < n in the second.
    unsafe {
        let mut i = 0;
        while i + L::WIDTH <= n {
            put::<L, PAST>(to.add(i), T::load(from.add(i * T::SIZE)));
            i += L::WIDTH;
        }
        while i < n {
            T::load::<Scalar>(from.add(i * T::SIZE)).store(to.add(i));
            i += 1;
        }
    }
}

/// # Safety
/// As [`widen`], with `mean` readable for `n`.
#[inline(always)]
unsafe fn widen_centered<L: Lanes, T: Stored, const PAST: bool>(
    from: *const u8,
    to: *mut f32,
    n: usize,
    mean: *const f32,
    factor: f32,
) {
    // SAFETY: as in `widen`.
    unsafe {
        let wide = L::splat(factor);
        let mut i = 0;
        while i + L::WIDTH <= n {
            let x = T::load::<L>(from.add(i * T::SIZE)).sub(L::load(mean.add(i)));
            put::<L, PAST>(to.add(i), x.mul(wide));
            i += L::WIDTH;
        }
        while i < n {
            let x = T::load::<Scalar>(from.add(i * T::SIZE)).sub(Scalar::load(mean.add(i)));
            x.mul(Scalar::splat(factor)).store(to.add(i));
            i += 1;
        }
    }
}

/// # Safety
/// As [`widen`].
#[inline(always)]
unsafe fn widen_scaled<L: Lanes, T: Stored, const PAST: bool>(from: *const u8, to: *mut f32, n: usize, factor: f32) {
    // SAFETY: as in `widen`.
    unsafe {
        let wide = L::splat(factor);
        let mut i = 0;
        while i + L::WIDTH <= n {
            put::<L, PAST>(to.add(i), T::load::<L>(from.add(i * T::SIZE)).mul(wide));
            i += L::WIDTH;
        }
        while i < n {
            T::load::<Scalar>(from.add(i * T::SIZE)).mul(Scalar::splat(factor)).store(to.add(i));
            i += 1;
        }
    }
}

/// # Safety
/// As [`crate::simd::gather`]; `to` writable for all rows. Where `PAST`, aligned to 64 bytes, as are its rows.
#[inline(always)]
pub unsafe fn gather<L: Lanes, T: Stored, const PAST: bool>(
    rows: &[*const u8],
    ahead: &[*const u8],
    dim: usize,
    normalize: Normalize<'_>,
    to: *mut f32,
) {
    let lines = lines(dim * T::SIZE);
    for (i, &row) in rows.iter().enumerate() {
        ask(ahead, i, lines);
        // SAFETY: row i is readable by the caller's promise, and out holds rows.len() * dim values.
        unsafe {
            let to = to.add(i * dim);
            match normalize {
                Normalize::No => widen::<L, T, PAST>(row, to, dim),
                Normalize::Scale(factor) => widen_scaled::<L, T, PAST>(row, to, dim, factor),
                Normalize::Center(mean, factor) => widen_centered::<L, T, PAST>(row, to, dim, mean.as_ptr(), factor),
            }
        }
    }
}

/// # Safety
/// As [`crate::simd::gather_raw`]; `to` writable for all rows. Where `PAST`, aligned to 64 bytes, as are its rows.
#[inline(always)]
pub unsafe fn gather_raw<L: Lanes, const PAST: bool>(
    rows: &[*const u8],
    ahead: &[*const u8],
    row_bytes: usize,
    to: *mut u8,
) {
    let lines = lines(row_bytes);
    let step = L::WIDTH * 4;
    for (i, &row) in rows.iter().enumerate() {
        ask(ahead, i, lines);
        // SAFETY: row i is readable and out holds rows.len() * row_bytes; the vectors only carry bytes.
        unsafe {
            let to = to.add(i * row_bytes);
            if PAST || row_bytes.is_multiple_of(step) && row_bytes <= VECTOR_BYTES {
                let mut at = 0;
                while at < row_bytes {
                    put::<L, PAST>(to.add(at).cast(), L::load(row.add(at).cast()));
                    at += step;
                }
            } else {
                std::ptr::copy_nonoverlapping(row, to, row_bytes);
            }
        }
    }
}

/// How many lines of a row are asked for.
#[inline(always)]
fn lines(row_bytes: usize) -> usize {
    // A row that begins inside a cache line reaches into one more.
    let whole = row_bytes.div_ceil(64) + usize::from(!row_bytes.is_multiple_of(64));
    if row_bytes <= WHOLE_BYTES { whole } else { 2 }
}

#[inline(always)]
fn ask(rows: &[*const u8], i: usize, lines: usize) {
    if let Some(&row) = rows.get(i) {
        for line in 0..lines {
            prefetch(row.wrapping_add(line * 64));
        }
    }
}

/// Into the second-level cache: those into the first wait for one of its few line buffers. Measured on one core,
/// rows of 256 bytes all over 2 GB: 34 ns a row instead of 40 to 45.
#[inline(always)]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is allowed; it never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// # Safety
/// `from` readable for `n` values, `to` writable for `n` stored ones; the instruction set of `L` enabled.
#[inline(always)]
pub unsafe fn narrow<L: Lanes, T: Stored>(from: *const f32, to: *mut u8, n: usize) {
    // SAFETY: every index is below n.
    unsafe {
        match T::DTYPE {
            Dtype::F32 => std::ptr::copy_nonoverlapping(from.cast::<u8>(), to, n * 4),
            // Integer arithmetic that compilers turn into vectors by themselves.
            Dtype::Bf16 => {
                for i in 0..n {
                    let bits = scalar::f32_to_bf16(from.add(i).read_unaligned());
                    to.add(i * 2).cast::<u16>().write_unaligned(bits.to_le());
                }
            }
            Dtype::F16 => {
                let mut i = 0;
                while i + L::WIDTH <= n {
                    L::load(from.add(i)).store_f16(to.add(i * 2));
                    i += L::WIDTH;
                }
                while i < n {
                    Scalar::load(from.add(i)).store_f16(to.add(i * 2));
                    i += 1;
                }
            }
        }
    }
}

/// Columns whose sums are kept in registers while the rows go by: four vectors of float64 of AVX-512.
const SUMS: usize = 32;

/// # Safety
/// The instruction set of `L` enabled; lengths as [`crate::simd::accumulate`] checks them.
#[inline(always)]
pub unsafe fn accumulate<L: Lanes, T: Stored>(x: &[u8], shift: &[f64], sum: &mut [f64], squares: &mut [f64]) {
    let dim = shift.len();
    let mut d = 0;
    // SAFETY: d + SUMS <= dim, and then d < dim: the length of a row and of all sums.
    unsafe {
        while d + SUMS <= dim {
            columns::<L, T, SUMS>(x, shift, sum, squares, d);
            d += SUMS;
        }
        while d < dim {
            columns::<Scalar, T, 1>(x, shift, sum, squares, d);
            d += 1;
        }
    }
}

/// Adds `N` columns from `d` on, in row order. Compilers make vectors of the loops over float64 by themselves, and fuse
/// nothing: each sum has the same bits on every level.
///
/// # Safety
/// As [`accumulate`]; d + N is at most the length of a row, and N a multiple of WIDTH.
#[inline(always)]
unsafe fn columns<L: Lanes, T: Stored, const N: usize>(
    x: &[u8],
    shift: &[f64],
    sum: &mut [f64],
    squares: &mut [f64],
    d: usize,
) {
    let place = d..d + N;
    let (mut shifts, mut sums, mut totals) = ([0.0; N], [0.0; N], [0.0; N]);
    shifts.copy_from_slice(&shift[place.clone()]);
    sums.copy_from_slice(&sum[place.clone()]);
    totals.copy_from_slice(&squares[place.clone()]);
    let mut wide = [0.0_f32; N];
    for row in x.chunks_exact(shift.len() * T::SIZE) {
        // SAFETY: the caller's promise; N values are read and written.
        unsafe {
            let from = row.as_ptr().add(d * T::SIZE);
            for i in (0..N).step_by(L::WIDTH) {
                T::load::<L>(from.add(i * T::SIZE)).store(wide.as_mut_ptr().add(i));
            }
        }
        for i in 0..N {
            let v = f64::from(wide[i]) - shifts[i];
            sums[i] += v;
            totals[i] += v * v;
        }
    }
    sum[place.clone()].copy_from_slice(&sums);
    squares[place].copy_from_slice(&totals);
}

/// Whether any value of `bytes` is NaN or infinite: all exponent bits set. A loop that
/// compilers turn into vectors by themselves, those of `L` if it is called where they are enabled.
///
/// # Safety
/// The instruction set of `L` enabled.
#[inline(always)]
pub unsafe fn any_non_finite<L: Lanes, T: Stored>(bytes: &[u8]) -> bool {
    match T::DTYPE {
        Dtype::F16 => any_exponent_full(bytes, 0x7c00),
        Dtype::Bf16 => any_exponent_full(bytes, 0x7f80),
        Dtype::F32 => bytes.chunks_exact(4).fold(false, |found, b| {
            found | ((u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000) == 0x7f80_0000)
        }),
    }
}

#[inline(always)]
fn any_exponent_full(bytes: &[u8], mask: u16) -> bool {
    bytes.chunks_exact(2).fold(false, |found, b| found | ((u16::from_le_bytes([b[0], b[1]]) & mask) == mask))
}
