//! Runs kernels on registers of the processor's own width: in the store and the language model.

#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Vectors, WideKernel};
use crate::cpu::Level;

/// Runs `kernel` with the vectors of `level`, or the most that the processor has where it has less.
pub fn run<K: WideKernel>(level: Level, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if level >= Level::Avx512
        && let Some(s) = Avx512::detect()
    {
        return s.run_wide(kernel);
    }
    #[cfg(target_arch = "x86_64")]
    if level >= Level::Avx2
        && let Some(s) = Avx2::detect()
    {
        return s.run_wide(kernel);
    }
    #[cfg(target_arch = "aarch64")]
    if level >= Level::Neon {
        return Neon.run_wide(kernel);
    }
    let _ = level;
    Portable::<4>.run_wide(kernel)
}
