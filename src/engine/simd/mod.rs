//! Sixteen float32 lanes, whatever the processor: every kernel of the engine is written once, over [`Simd`].
//!
//! Operations are per lane and correctly rounded, and [`Simd::sum`] adds the lanes in one fixed tree: kernels give the
//! same bits on every instruction set. All `unsafe` of the arithmetic is in this folder: a value of an instruction set's
//! type exists only where the processor has it, and [`Simd::run`] is the one door through which a [`Kernel`] is compiled
//! for it. (The vectors of `crate::simd` are as wide as a register instead: their sums depend on the width.)

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod bytes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod products;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub use amx::{Amx, Registers};
#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub use bytes::{Avx512Vnni, AvxVnni};
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use products::{Products, screen_tile};
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

/// Up to sixteen lanes, the others 0.
#[inline(always)]
pub fn load_columns<S: Simd>(s: S, from: &[f32]) -> S::V {
    match from.first_chunk::<LANES>() {
        Some(lanes) => s.load(lanes),
        None => s.load_part(from),
    }
}

/// The dot product of two rows of equal length, of which `a` may be padded with zeros to whole vectors. The one order
/// of additions that every path of the engine keeps to: a lane's terms in order, then the tree of [`Simd::sum`].
#[inline(always)]
pub fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    s.sum(dot_lanes(s, a, b))
}

/// The lanes of [`dot`] before they are added.
#[inline(always)]
pub fn dot_lanes<S: Simd>(s: S, a: &[f32], b: &[f32]) -> S::V {
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    let a_whole = a.as_chunks::<LANES>().0;
    let mut acc = s.zero();
    for (a, b) in a_whole.iter().zip(b_whole) {
        acc = s.fma(s.load(a), s.load(b), acc);
    }
    if !b_rest.is_empty() {
        let start = b_whole.len() * LANES;
        acc = s.fma(s.load_part(&a[start..start + b_rest.len()]), s.load_part(b_rest), acc);
    }
    acc
}

/// Four dot products, in the order of [`dot`].
#[inline(always)]
#[allow(clippy::needless_range_loop)] // four arrays are walked at once
pub fn dot4<S: Simd>(s: S, a: [&[f32]; 4], b: [&[f32]; 4]) -> [f32; 4] {
    let d = b[0].len();
    let b = b.map(|b| b[..d].as_chunks::<LANES>());
    let mut acc = [s.zero(); 4];
    let whole = d / LANES;
    let a_whole = a.map(|a| &a.as_chunks::<LANES>().0[..whole]);
    // Eight vectors at a time, with no loop over them.
    let (a_long, b_long) = (a_whole.map(|a| a.as_chunks::<8>()), b.map(|b| b.0.as_chunks::<8>()));
    for v in 0..whole / 8 {
        let (a, b) = (a_long.map(|a| &a.0[v]), b_long.map(|b| &b.0[v]));
        for w in 0..8 {
            for i in 0..4 {
                acc[i] = s.fma(s.load(&a[i][w]), s.load(&b[i][w]), acc[i]);
            }
        }
    }
    for v in 0..whole % 8 {
        for i in 0..4 {
            acc[i] = s.fma(s.load(&a_long[i].1[v]), s.load(&b_long[i].1[v]), acc[i]);
        }
    }
    if !d.is_multiple_of(LANES) {
        for i in 0..4 {
            acc[i] = s.fma(s.load_part(&a[i][whole * LANES..d]), s.load_part(b[i].1), acc[i]);
        }
    }
    s.sum4(acc)
}
