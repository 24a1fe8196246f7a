//! Functions compiled once for each instruction set, and those of the store.

use super::Normalize;
use super::kernels;
#[cfg(target_arch = "aarch64")]
use super::lanes::Neon;
use super::lanes::{Portable, Stored};

/// A function whose first argument is the level to run on: that one, or what the processor has of it. The body, in
/// which all that is called is `inline(always)`, is compiled for each level with its vectors as `L`; on Arm and where
/// there are no vectors, `L` is what stands in brackets. It is as unsafe as the body.
macro_rules! compiled {
    (
        $(#[$doc:meta])*
        $vis:vis unsafe fn $name:ident<$l:ident in [$arm:ty, $portable:ty] $(, $d:ident: $bound:ident)?>
        ($($argument:ident: $type:ty),+ $(,)?) $(-> $output:ty)? $body:block
    ) => {
        $(#[$doc])*
        $vis unsafe fn $name$(<$d: $bound>)?(simd: $crate::cpu::Simd, $($argument: $type),+) $(-> $output)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            unsafe fn avx512$(<$d: $bound>)?($($argument: $type),+) $(-> $output)? {
                type $l = $crate::simd::lanes::Avx512;
                // SAFETY: the caller's promise.
                unsafe { $body }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn avx2$(<$d: $bound>)?($($argument: $type),+) $(-> $output)? {
                type $l = $crate::simd::lanes::Avx2;
                // SAFETY: the caller's promise.
                unsafe { $body }
            }
            #[cfg(target_arch = "aarch64")]
            unsafe fn neon$(<$d: $bound>)?($($argument: $type),+) $(-> $output)? {
                type $l = $arm;
                // SAFETY: the caller's promise.
                unsafe { $body }
            }
            unsafe fn portable$(<$d: $bound>)?($($argument: $type),+) $(-> $output)? {
                type $l = $portable;
                // SAFETY: the caller's promise.
                unsafe { $body }
            }
            // SAFETY: `available` names only what the processor has; all else is the caller's promise.
            unsafe {
                match simd.available() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::cpu::Simd::Avx512 => avx512$(::<$d>)?($($argument),+),
                    #[cfg(target_arch = "x86_64")]
                    $crate::cpu::Simd::Avx2 => avx2$(::<$d>)?($($argument),+),
                    #[cfg(target_arch = "aarch64")]
                    $crate::cpu::Simd::Neon => neon$(::<$d>)?($($argument),+),
                    _ => portable$(::<$d>)?($($argument),+),
                }
            }
        }
    };
}
pub(crate) use compiled;

compiled! {
    /// # Safety
    /// As [`kernels::widen`].
    pub unsafe fn widen<L in [Neon, Portable<1>], T: Stored>(from: *const u8, to: *mut f32, n: usize) {
        kernels::widen::<L, T, false>(from, to, n);
    }
}

compiled! {
    /// # Safety
    /// As [`kernels::narrow`].
    pub unsafe fn narrow<L in [Neon, Portable<1>], T: Stored>(from: *const f32, to: *mut u8, n: usize) {
        kernels::narrow::<L, T>(from, to, n);
    }
}

compiled! {
    /// # Safety
    /// As [`crate::simd::gather`].
    pub unsafe fn gather<L in [Neon, Portable<1>], T: Stored>(
        rows: &[*const u8], ahead: &[*const u8], dim: usize, normalize: Normalize<'_>, to: *mut f32, past: bool,
    ) {
        if past {
            kernels::gather::<L, T, true>(rows, ahead, dim, normalize, to);
        } else {
            kernels::gather::<L, T, false>(rows, ahead, dim, normalize, to);
        }
    }
}

compiled! {
    /// # Safety
    /// As [`crate::simd::gather_raw`].
    pub unsafe fn gather_raw<L in [Neon, Portable<1>]>(
        rows: &[*const u8], ahead: &[*const u8], row_bytes: usize, to: *mut u8, past: bool,
    ) {
        if past {
            kernels::gather_raw::<L, true>(rows, ahead, row_bytes, to);
        } else {
            kernels::gather_raw::<L, false>(rows, ahead, row_bytes, to);
        }
    }
}

compiled! {
    /// # Safety
    /// As [`kernels::accumulate`].
    pub unsafe fn accumulate<L in [Neon, Portable<1>], T: Stored>(
        x: &[u8], shift: &[f64], sum: &mut [f64], squares: &mut [f64],
    ) {
        kernels::accumulate::<L, T>(x, shift, sum, squares);
    }
}

compiled! {
    /// # Safety
    /// As [`kernels::any_non_finite`].
    pub unsafe fn any_non_finite<L in [Neon, Portable<1>], T: Stored>(bytes: &[u8]) -> bool {
        kernels::any_non_finite::<L, T>(bytes)
    }
}
