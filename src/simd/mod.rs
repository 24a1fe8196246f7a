//! Conversion of stored activations to float32 and back, chosen at run time for this processor.
//!
//! `lanes` says what a vector is, for the language model too, one file per instruction set implements it, `kernels` is
//! written once over it and `levels` compiles it for each. All levels give the same bits: widening is exact, narrowing rounds to nearest even, and normalisation is one subtraction
//! and one multiplication, never fused.

#![allow(clippy::inline_always)] // kernels take on the features of the function that they are inlined into

mod kernels;
pub(crate) mod lanes;
pub(crate) mod levels;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::cpu::Simd;
use crate::dtype::Dtype;

/// What is done to a row after it is widened: nothing, `x * factor`, or `(x - mean) * factor`.
#[derive(Debug, Clone, Copy)]
pub enum Normalize<'a> {
    /// `x`.
    No,
    /// `x * factor`.
    Scale(f32),
    /// `(x - mean) * factor`, `mean` of the length of a row.
    Center(&'a [f32], f32),
}

macro_rules! dispatch_dtype {
    ($dtype:expr, $function:ident ($($argument:expr),*)) => {
        // SAFETY: the callers below have checked the lengths; the pointers of rows are their callers' promise.
        unsafe {
            match $dtype {
                Dtype::F16 => levels::$function::<lanes::F16>($($argument),*),
                Dtype::Bf16 => levels::$function::<lanes::Bf16>($($argument),*),
                Dtype::F32 => levels::$function::<lanes::F32>($($argument),*),
            }
        }
    };
}

/// Widens `src` (values of `dtype`) into `dst`.
///
/// # Panics
/// If the lengths do not fit.
pub fn widen(simd: Simd, dtype: Dtype, src: &[u8], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len() * dtype.size(), "widen: {} bytes into {} values", src.len(), dst.len());
    let (from, to, n) = (src.as_ptr(), dst.as_mut_ptr(), dst.len());
    dispatch_dtype!(dtype, widen(simd, from, to, n));
}

/// Rounds `src` to `dtype` (to nearest, ties to even; beyond the largest finite value to infinity) into `dst`.
///
/// # Panics
/// If the lengths do not fit.
pub fn narrow(simd: Simd, dtype: Dtype, src: &[f32], dst: &mut [u8]) {
    assert_eq!(dst.len(), src.len() * dtype.size(), "narrow: {} values into {} bytes", src.len(), dst.len());
    let (from, to, n) = (src.as_ptr(), dst.as_mut_ptr(), src.len());
    dispatch_dtype!(dtype, narrow(simd, from, to, n));
}

/// Converts values of one type into those of another: widened, then rounded as [`narrow`] does.
///
/// # Panics
/// If the lengths do not fit.
pub fn convert(simd: Simd, (from, src): (Dtype, &[u8]), (to, dst): (Dtype, &mut [u8])) {
    const PIECE: usize = 2048;
    assert_eq!(src.len() / from.size(), dst.len() / to.size(), "convert: values");
    // SAFETY: any four bytes are a float32.
    if let (Dtype::F32, ([], values, [])) = (from, unsafe { src.align_to::<f32>() }) {
        return narrow(simd, to, values, dst);
    }
    let mut wide = [0.0; PIECE];
    for (src, dst) in src.chunks(PIECE * from.size()).zip(dst.chunks_mut(PIECE * to.size())) {
        let wide = &mut wide[..src.len() / from.size()];
        widen(simd, from, src, wide);
        narrow(simd, to, wide, dst);
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
pub unsafe fn gather(simd: Simd, dtype: Dtype, rows: Rows<'_>, dim: usize, normalize: Normalize<'_>, out: &mut [f32]) {
    let Rows { now, ahead, past_caches } = rows;
    assert_eq!(out.len(), now.len() * dim, "gather: {} rows of {dim} into {} values", now.len(), out.len());
    if let Normalize::Center(mean, _) = normalize {
        assert_eq!(mean.len(), dim, "gather: a mean of {} for rows of {dim}", mean.len());
    }
    let to = out.as_mut_ptr();
    let past = past_caches && are_lines(to.cast(), dim * 4);
    dispatch_dtype!(dtype, gather(simd, now, ahead, dim, normalize, to, past));
}

/// Copies `rows` of `row_bytes`, one after another, into `out`.
///
/// # Safety
/// Every pointer in `rows.now` must be readable for `row_bytes`; those in `rows.ahead` are not read.
///
/// # Panics
/// If `out` does not fit.
pub unsafe fn gather_raw(simd: Simd, rows: Rows<'_>, row_bytes: usize, out: &mut [u8]) {
    let Rows { now, ahead, past_caches } = rows;
    assert_eq!(out.len(), now.len() * row_bytes, "gather: {} rows of {row_bytes} bytes", now.len());
    let to = out.as_mut_ptr();
    let past = past_caches && are_lines(to, row_bytes);
    // SAFETY: the caller's promise, and the length was checked.
    unsafe { levels::gather_raw(simd, now, ahead, row_bytes, to, past) }
}

/// Adds the rows of `x` (values of `dtype`), less `shift`, to `sum`, and their squares to `squares`, all in float64.
///
/// # Panics
/// If the lengths do not fit.
pub fn accumulate(simd: Simd, dtype: Dtype, x: &[u8], shift: &[f64], sum: &mut [f64], squares: &mut [f64]) {
    let dim = shift.len();
    assert!(dim > 0 && x.len().is_multiple_of(dim * dtype.size()), "accumulate: rows");
    assert!(sum.len() == dim && squares.len() == dim, "accumulate: sums");
    dispatch_dtype!(dtype, accumulate(simd, x, shift, sum, squares));
}

/// Index of the first value of `dtype` in `bytes` that is NaN or infinite.
#[must_use]
pub fn first_non_finite(simd: Simd, dtype: Dtype, bytes: &[u8]) -> Option<usize> {
    // In chunks: the scan of a chunk has no early exit, so that it becomes vector code.
    const CHUNK: usize = 4096;
    let size = dtype.size();
    for (i, chunk) in bytes.chunks(CHUNK).enumerate() {
        let found = dispatch_dtype!(dtype, any_non_finite(simd, chunk));
        if found {
            let inside = chunk.chunks_exact(size).position(|value| scalar::non_finite(dtype, value));
            return inside.map(|j| i * (CHUNK / size) + j);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
