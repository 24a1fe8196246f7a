//! The loops, written once, and compiled for each instruction set.
//!
//! They are `inline(always)` so that they take on the features of the function they are inlined into.
use std::marker::PhantomData;

use super::types::{Normalize, Stored};
use crate::dtype::Dtype;
use crate::vector::half::f32_to_bf16;
use crate::vector::simd::{Portable, Vectors, WideKernel};

/// What is left of a row after its last whole vector.
const ONE: Portable<1> = Portable;

/// Rows up to this are asked for as a whole, of longer ones the first two lines: the processor fetches the rest by itself
/// once it sees the start. Measured on one core, rows all over 0.5 GB, of 1 KiB: two lines 150 ns a row, all sixteen 135; of 4 KiB: two
/// lines 640, all 750.
const WHOLE_BYTES: usize = 1024;
/// Rows up to this are copied by vectors in place, longer ones by `memcpy`.
const VECTOR_BYTES: usize = 4096;

/// Stores a vector, past the caches where `PAST`.
///
/// # Safety
/// As [`Vectors::write`] or [`Vectors::stream`].
#[inline(always)]
unsafe fn put<S: Vectors, const PAST: bool>(s: S, to: *mut f32, v: S::V) {
    // SAFETY: the caller's promise.
    unsafe {
        if PAST {
            s.stream(v, to);
        } else {
            s.write(v, to);
        }
    }
}

/// # Safety
/// `from` readable for `n` stored values, `to` writable for `n`. Where `PAST`, `to`
/// aligned to 64 bytes and `n` a multiple of 16.
#[inline(always)]
unsafe fn widen<S: Vectors, T: Stored, const PAST: bool>(s: S, from: *const u8, to: *mut f32, n: usize) {
    // SAFETY: i + WIDTH <= n in the first loop and i < n in the second.
    unsafe {
        let mut i = 0;
        while i + S::WIDTH <= n {
            put::<S, PAST>(s, to.add(i), T::load(s, from.add(i * T::SIZE)));
            i += S::WIDTH;
        }
        while i < n {
            ONE.write(T::load(ONE, from.add(i * T::SIZE)), to.add(i));
            i += 1;
        }
    }
}

/// # Safety
/// As [`widen`], with `mean` readable for `n`.
#[inline(always)]
unsafe fn widen_centered<S: Vectors, T: Stored, const PAST: bool>(
    s: S,
    from: *const u8,
    to: *mut f32,
    n: usize,
    mean: *const f32,
    factor: f32,
) {
    // SAFETY: as in `widen`.
    unsafe {
        let wide = s.splat(factor);
        let mut i = 0;
        while i + S::WIDTH <= n {
            let x = s.sub(T::load(s, from.add(i * T::SIZE)), s.read(mean.add(i)));
            put::<S, PAST>(s, to.add(i), s.mul(x, wide));
            i += S::WIDTH;
        }
        while i < n {
            let x = ONE.sub(T::load(ONE, from.add(i * T::SIZE)), ONE.read(mean.add(i)));
            ONE.write(ONE.mul(x, [factor]), to.add(i));
            i += 1;
        }
    }
}

/// # Safety
/// As [`widen`].
#[inline(always)]
unsafe fn widen_scaled<S: Vectors, T: Stored, const PAST: bool>(
    s: S,
    from: *const u8,
    to: *mut f32,
    n: usize,
    factor: f32,
) {
    // SAFETY: as in `widen`.
    unsafe {
        let wide = s.splat(factor);
        let mut i = 0;
        while i + S::WIDTH <= n {
            put::<S, PAST>(s, to.add(i), s.mul(T::load(s, from.add(i * T::SIZE)), wide));
            i += S::WIDTH;
        }
        while i < n {
            ONE.write(ONE.mul(T::load(ONE, from.add(i * T::SIZE)), [factor]), to.add(i));
            i += 1;
        }
    }
}

/// # Safety
/// As [`super::gather`]; `to` writable for all rows. Where `PAST`, aligned to 64 bytes, as are its rows.
#[inline(always)]
unsafe fn gather<S: Vectors, T: Stored, const PAST: bool>(
    s: S,
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
                Normalize::No => widen::<S, T, PAST>(s, row, to, dim),
                Normalize::Scale(factor) => widen_scaled::<S, T, PAST>(s, row, to, dim, factor),
                Normalize::Center(mean, factor) => widen_centered::<S, T, PAST>(s, row, to, dim, mean.as_ptr(), factor),
            }
        }
    }
}

/// # Safety
/// As [`super::gather_raw`]; `to` writable for all rows. Where `PAST`, aligned to 64 bytes, as are its rows.
#[inline(always)]
unsafe fn gather_raw<S: Vectors, const PAST: bool>(
    s: S,
    rows: &[*const u8],
    ahead: &[*const u8],
    row_bytes: usize,
    to: *mut u8,
) {
    let lines = lines(row_bytes);
    let step = S::WIDTH * 4;
    for (i, &row) in rows.iter().enumerate() {
        ask(ahead, i, lines);
        // SAFETY: row i is readable and out holds rows.len() * row_bytes; the vectors only carry bytes.
        unsafe {
            let to = to.add(i * row_bytes);
            if PAST || row_bytes.is_multiple_of(step) && row_bytes <= VECTOR_BYTES {
                let mut at = 0;
                while at < row_bytes {
                    put::<S, PAST>(s, to.add(at).cast(), s.read(row.add(at).cast()));
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
/// `from` readable for `n` values, `to` writable for `n` stored ones.
#[inline(always)]
unsafe fn narrow<S: Vectors, T: Stored>(s: S, from: *const f32, to: *mut u8, n: usize) {
    // SAFETY: every index is below n.
    unsafe {
        match T::DTYPE {
            Dtype::F32 => std::ptr::copy_nonoverlapping(from.cast::<u8>(), to, n * 4),
            // Integer arithmetic that compilers turn into vectors by themselves.
            Dtype::Bf16 => {
                for i in 0..n {
                    let bits = f32_to_bf16(from.add(i).read_unaligned());
                    to.add(i * 2).cast::<u16>().write_unaligned(bits.to_le());
                }
            }
            Dtype::F16 => {
                let mut i = 0;
                while i + S::WIDTH <= n {
                    s.write_f16(s.read(from.add(i)), to.add(i * 2));
                    i += S::WIDTH;
                }
                while i < n {
                    ONE.write_f16(ONE.read(from.add(i)), to.add(i * 2));
                    i += 1;
                }
            }
        }
    }
}

/// Columns whose sums are kept in registers while the rows go by: four vectors of float64 of AVX-512.
const SUMS: usize = 32;

/// # Safety
/// Lengths as [`super::accumulate`] checks them.
#[inline(always)]
unsafe fn accumulate<S: Vectors, T: Stored>(s: S, x: &[u8], shift: &[f64], sum: &mut [f64], squares: &mut [f64]) {
    let dim = shift.len();
    let mut d = 0;
    // SAFETY: d + SUMS <= dim, and then d < dim: the length of a row and of all sums.
    unsafe {
        while d + SUMS <= dim {
            columns::<S, T, SUMS>(s, x, shift, sum, squares, d);
            d += SUMS;
        }
        while d < dim {
            columns::<Portable<1>, T, 1>(ONE, x, shift, sum, squares, d);
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
unsafe fn columns<S: Vectors, T: Stored, const N: usize>(
    s: S,
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
            for i in (0..N).step_by(S::WIDTH) {
                s.write(T::load(s, from.add(i * T::SIZE)), wide.as_mut_ptr().add(i));
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

/// Whether any value of `bytes` is NaN or infinite: all exponent bits set. A loop that compilers turn into vectors by
/// themselves, those of the instruction set where it is inlined.
#[inline(always)]
fn any_non_finite<T: Stored>(bytes: &[u8]) -> bool {
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

/// See [`super::narrow`].
pub struct Narrow<'a, T> {
    pub of: PhantomData<T>,
    pub from: &'a [f32],
    pub to: &'a mut [u8],
}

impl<T: Stored> WideKernel for Narrow<'_, T> {
    type Output = ();
    #[inline(always)]
    fn call<S: Vectors>(self, s: S) {
        assert!(self.to.len() >= self.from.len() * T::SIZE);
        // SAFETY: just checked.
        unsafe { narrow::<S, T>(s, self.from.as_ptr(), self.to.as_mut_ptr(), self.from.len()) }
    }
}

/// See [`super::gather`], whose caller answers for the rows.
pub struct Gather<'a, T> {
    pub of: PhantomData<T>,
    pub rows: &'a [*const u8],
    pub ahead: &'a [*const u8],
    pub dim: usize,
    pub normalize: Normalize<'a>,
    pub to: &'a mut [f32],
    pub past: bool,
}

impl<T: Stored> WideKernel for Gather<'_, T> {
    type Output = ();
    #[inline(always)]
    fn call<S: Vectors>(self, s: S) {
        let Self { rows, ahead, dim, normalize, past, .. } = self;
        let to = self.to.as_mut_ptr();
        // SAFETY: `gather` checked lengths and alignment, and its caller answers for the rows.
        unsafe {
            if past {
                gather::<S, T, true>(s, rows, ahead, dim, normalize, to);
            } else {
                gather::<S, T, false>(s, rows, ahead, dim, normalize, to);
            }
        }
    }
}

/// See [`super::gather_raw`], whose caller answers for the rows.
pub struct GatherRaw<'a> {
    pub rows: &'a [*const u8],
    pub ahead: &'a [*const u8],
    pub row_bytes: usize,
    pub to: &'a mut [u8],
    pub past: bool,
}

impl WideKernel for GatherRaw<'_> {
    type Output = ();
    #[inline(always)]
    fn call<S: Vectors>(self, s: S) {
        let Self { rows, ahead, row_bytes, past, .. } = self;
        let to = self.to.as_mut_ptr();
        // SAFETY: `gather_raw` checked lengths and alignment, and its caller answers for the rows.
        unsafe {
            if past {
                gather_raw::<S, true>(s, rows, ahead, row_bytes, to);
            } else {
                gather_raw::<S, false>(s, rows, ahead, row_bytes, to);
            }
        }
    }
}

/// See [`super::accumulate`], which checks the lengths.
pub struct Accumulate<'a, T> {
    pub of: PhantomData<T>,
    pub x: &'a [u8],
    pub shift: &'a [f64],
    pub sum: &'a mut [f64],
    pub squares: &'a mut [f64],
}

impl<T: Stored> WideKernel for Accumulate<'_, T> {
    type Output = ();
    #[inline(always)]
    fn call<S: Vectors>(self, s: S) {
        // SAFETY: `accumulate` below stays within rows of the length of `shift`; sums are slices.
        unsafe { accumulate::<S, T>(s, self.x, self.shift, self.sum, self.squares) }
    }
}

/// Whether any value is NaN or infinite.
pub struct AnyNonFinite<'a, T> {
    pub of: PhantomData<T>,
    pub bytes: &'a [u8],
}

impl<T: Stored> WideKernel for AnyNonFinite<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn call<S: Vectors>(self, _: S) -> bool {
        any_non_finite::<T>(self.bytes)
    }
}
