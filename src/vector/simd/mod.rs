//! Sixteen float32 lanes, whatever the processor: every kernel of the engine is written once, over [`Simd`].
//!
//! Operations are per lane and correctly rounded, and [`Simd::sum`] adds the lanes in one fixed tree: kernels give the
//! same bits on every instruction set. All `unsafe` of the arithmetic is in this folder: a value of an instruction set's
//! type exists only where the processor has it, and [`Simd::run`] is the one door through which a [`Kernel`] is compiled
//! for it. (The vectors of `crate::simd` are as wide as a register instead: their sums depend on the width.)

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub use avx2::{Avx2, Pair};
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use scalar::Scalar;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Float32 lanes in memory.
pub type Lanes = [f32; LANES];

/// A piece of work that is compiled once per instruction set. `call` and all it calls must be `#[inline(always)]`.
pub trait Kernel {
    /// What it gives.
    type Output;
    /// Does the work with the vectors of `s`.
    fn call<S: Simd>(self, s: S) -> Self::Output;
}

/// Four bytes.
pub trait Word: Copy {}
impl Word for f32 {}
impl Word for u32 {}

/// One instruction set. Values of the type exist only where the processor has it.
pub trait Simd: Copy + Send + Sync {
    /// Sixteen float32 lanes.
    type V: Copy;

    /// Accumulators of one kernel that fit the register file, counted in vectors of sixteen lanes; a power of two.
    const ACCUMULATORS: usize;

    /// Runs `kernel` compiled for this instruction set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// All lanes `value`.
    fn splat(self, value: f32) -> Self::V;
    /// Sixteen lanes from memory.
    fn load(self, from: &Lanes) -> Self::V;
    /// Up to sixteen lanes from memory, the others 0.
    fn load_part(self, from: &[f32]) -> Self::V;
    /// Sixteen lanes to memory.
    fn store(self, value: Self::V, to: &mut Lanes);
    /// The first `to.len()` lanes to memory.
    fn store_part(self, value: Self::V, to: &mut [f32]);
    /// a + b.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b + c, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of each two lanes; which one where either is NaN depends on the processor.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lanes nearer to 0 than `least` become 0; NaN stays.
    fn drop_below(self, a: Self::V, least: f32) -> Self::V;
    /// Square roots.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// The sum of the lanes: lane i with lane i + 8, those with the ones 4 further, then 2, then 1.
    fn sum(self, a: Self::V) -> f32;
    /// Bit i: whether NOT a[i] <= b[i]; true where either is NaN.
    fn not_le(self, a: Self::V, b: Self::V) -> u32;

    /// `sum` of four vectors at once.
    #[inline(always)]
    fn sum4(self, a: [Self::V; 4]) -> [f32; 4] {
        [self.sum(a[0]), self.sum(a[1]), self.sum(a[2]), self.sum(a[3])]
    }

    /// Writes the places of the set bits, counted from `first`, to the front of `to`, which has room for sixteen more, and
    /// gives how many there are.
    #[inline(always)]
    fn list_bits(self, mut bits: u64, first: u32, to: &mut [u32]) -> usize {
        let count = bits.count_ones() as usize;
        for place in &mut to[..count] {
            *place = first + bits.trailing_zeros();
            bits &= bits - 1;
        }
        count
    }

    /// Writes the lanes whose bit is set to the front of `to`; what follows them is of no use.
    #[inline(always)]
    fn compress<T: Word>(self, lanes: &[T; LANES], kept: u32, to: &mut [T; LANES]) {
        let mut at = 0;
        for (i, lane) in lanes.iter().enumerate() {
            // At most i lanes came before.
            to[at.min(i)] = *lane;
            at += (kept >> i) as usize & 1;
        }
    }

    /// All lanes 0.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// Asks for the cache lines of `row`, which will be read soon.
    #[inline(always)]
    fn prefetch(self, row: &[f32]) {
        let _ = row;
    }
}
