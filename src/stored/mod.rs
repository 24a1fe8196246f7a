//! Stored activations to float32 and back, chosen at run time for this processor.
//!
//! `types` are those on disk, `kernels` is written once over the vectors of `crate::vector` and compiled for each instruction
//! set. All give the same bits: widening is exact, narrowing rounds to nearest even, and normalisation is one subtraction
//! and one multiplication, never fused.

#![allow(clippy::inline_always)] // kernels take on the features of the function that they are inlined into

mod kernels;
mod types;

use std::marker::PhantomData;
pub use types::Normalize;

use kernels::{Accumulate, AnyNonFinite, Gather, GatherRaw, Narrow};
use types::{Bf16, F16, F32};

use crate::cpu::Level;
use crate::dtype::Dtype;
use crate::vector::dispatch::run;

/// Does the same for whichever type is stored: `of` is that type.
macro_rules! for_dtype {
    ($dtype:expr, $of:ident => $work:expr) => {
        match $dtype {
            Dtype::F16 => {
                let $of = PhantomData::<F16>;
                $work
            }
            Dtype::Bf16 => {
                let $of = PhantomData::<Bf16>;
                $work
            }
            Dtype::F32 => {
                let $of = PhantomData::<F32>;
                $work
            }
        }
    };
}

/// Widens `src` (values of `dtype`) into `dst`.
///
/// # Panics
/// If the lengths do not fit.
pub fn widen(level: Level, dtype: Dtype, src: &[u8], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len() * dtype.size(), "widen: {} bytes into {} values", src.len(), dst.len());
    let (rows, dim) = ([src.as_ptr()], dst.len());
    let row = Rows { now: &rows, ahead: &[], past_caches: false };
    // SAFETY: the length of the one row was just checked.
    unsafe { gather(level, dtype, row, dim, Normalize::No, dst) }
}

/// Rounds `src` to `dtype` (to nearest, ties to even; beyond the largest finite value to infinity) into `dst`.
///
/// # Panics
/// If the lengths do not fit.
pub fn narrow(level: Level, dtype: Dtype, src: &[f32], dst: &mut [u8]) {
    assert_eq!(dst.len(), src.len() * dtype.size(), "narrow: {} values into {} bytes", src.len(), dst.len());
    for_dtype!(dtype, of => run(level, Narrow { of, from: src, to: dst }));
}

/// Converts values of one type into those of another: widened, then rounded as [`narrow`] does.
///
/// # Panics
/// If the lengths do not fit.
pub fn convert(level: Level, (from, src): (Dtype, &[u8]), (to, dst): (Dtype, &mut [u8])) {
    const PIECE: usize = 2048;
    assert_eq!(src.len() / from.size(), dst.len() / to.size(), "convert: values");
    // SAFETY: any four bytes are a float32.
    if let (Dtype::F32, ([], values, [])) = (from, unsafe { src.align_to::<f32>() }) {
        return narrow(level, to, values, dst);
    }
    let mut wide = [0.0; PIECE];
    for (src, dst) in src.chunks(PIECE * from.size()).zip(dst.chunks_mut(PIECE * to.size())) {
        let wide = &mut wide[..src.len() / from.size()];
        widen(level, from, src, wide);
        narrow(level, to, wide, dst);
    }
}

/// Which rows to read, and which ones to ask the memory for meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The rows to read.
    pub now: &'a [*const u8],
    /// Those that will be read next.
    pub ahead: &'a [*const u8],
    /// Whether they are written past the caches, as far as processor, alignment and lengths allow; [`fence`] must
    /// follow before another thread may read them.
    pub past_caches: bool,
}

/// Whether rows of `row_bytes` from `to` on can be written past the caches: by vectors that begin where lines do.
fn are_lines(to: *const u8, row_bytes: usize) -> bool {
    to.addr().is_multiple_of(64) && row_bytes.is_multiple_of(64)
}

/// Makes what was written past the caches visible to whoever sees what this thread writes later.
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: part of SSE, which every x86-64 has; it touches no memory.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Widens and normalises `rows`, one after another, into `out`.
///
/// # Safety
/// Every pointer in `rows.now` must be readable for `dim` values of `dtype`; those in `rows.ahead` are not read.
///
/// # Panics
/// If `out` or the mean do not fit.
pub unsafe fn gather(
    level: Level,
    dtype: Dtype,
    rows: Rows<'_>,
    dim: usize,
    normalize: Normalize<'_>,
    out: &mut [f32],
) {
    let Rows { now, ahead, past_caches } = rows;
    assert_eq!(out.len(), now.len() * dim, "gather: {} rows of {dim} into {} values", now.len(), out.len());
    if let Normalize::Center(mean, _) = normalize {
        assert_eq!(mean.len(), dim, "gather: a mean of {} for rows of {dim}", mean.len());
    }
    let past = past_caches && are_lines(out.as_ptr().cast(), dim * 4);
    for_dtype!(dtype, of => run(level, Gather { of, rows: now, ahead, dim, normalize, to: out, past }));
}

/// Copies `rows` of `row_bytes`, one after another, into `out`.
///
/// # Safety
/// Every pointer in `rows.now` must be readable for `row_bytes`; those in `rows.ahead` are not read.
///
/// # Panics
/// If `out` does not fit.
pub unsafe fn gather_raw(level: Level, rows: Rows<'_>, row_bytes: usize, out: &mut [u8]) {
    let Rows { now, ahead, past_caches } = rows;
    assert_eq!(out.len(), now.len() * row_bytes, "gather: {} rows of {row_bytes} bytes", now.len());
    let past = past_caches && are_lines(out.as_ptr(), row_bytes);
    run(level, GatherRaw { rows: now, ahead, row_bytes, to: out, past });
}

/// Adds the rows of `x` (values of `dtype`), less `shift`, to `sum`, and their squares to `squares`, all in float64.
///
/// # Panics
/// If the lengths do not fit.
pub fn accumulate(level: Level, dtype: Dtype, x: &[u8], shift: &[f64], sum: &mut [f64], squares: &mut [f64]) {
    let dim = shift.len();
    assert!(dim > 0 && x.len().is_multiple_of(dim * dtype.size()), "accumulate: rows");
    assert!(sum.len() == dim && squares.len() == dim, "accumulate: sums");
    for_dtype!(dtype, of => run(level, Accumulate { of, x, shift, sum, squares }));
}

/// Index of the first value of `dtype` in `bytes` that is NaN or infinite.
#[must_use]
pub fn first_non_finite(level: Level, dtype: Dtype, bytes: &[u8]) -> Option<usize> {
    // In chunks: the scan of a chunk has no early exit, so that it becomes vector code.
    const CHUNK: usize = 4096;
    let size = dtype.size();
    for (i, chunk) in bytes.chunks(CHUNK).enumerate() {
        let found = for_dtype!(dtype, of => run(level, AnyNonFinite { of, bytes: chunk }));
        if found {
            let inside = chunk.chunks_exact(size).position(|value| non_finite(dtype, value));
            return inside.map(|j| i * (CHUNK / size) + j);
        }
    }
    None
}

/// Whether one stored value (its bytes, little-endian) is NaN or infinite.
fn non_finite(dtype: Dtype, value: &[u8]) -> bool {
    match (dtype, value) {
        (Dtype::F16, &[a, b]) => u16::from_le_bytes([a, b]) & 0x7c00 == 0x7c00,
        (Dtype::Bf16, &[a, b]) => u16::from_le_bytes([a, b]) & 0x7f80 == 0x7f80,
        (_, &[a, b, c, d]) => !f32::from_le_bytes([a, b, c, d]).is_finite(),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
