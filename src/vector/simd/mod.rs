//! Vectors of float32, whatever the processor: numeric code is written once, over [`Simd`] or [`Vectors`].
//!
//! [`Vectors`] are as wide as their type says: one register in the store and the language model. [`Simd`] is sixteen lanes on
//! every processor, [`Twice`] putting narrower registers together, with sums in one fixed tree: what is written over it
//! gives the same bits everywhere. All `unsafe` of the arithmetic is in this folder: a value of an instruction set's type
//! exists only where the processor has it, and [`Simd::run`] and [`Vectors::run_wide`] are the doors through which a
//! [`Kernel`] or [`WideKernel`] is compiled for it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod twice;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use portable::Portable;
pub use twice::Twice;

/// Lanes of [`Simd`].
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

/// The same for work on vectors as wide as a register.
pub trait WideKernel {
    /// What it gives.
    type Output;
    /// Does the work with the vectors of `s`.
    fn call<S: Vectors>(self, s: S) -> Self::Output;
}

/// Four bytes.
pub trait Word: Copy {}
impl Word for f32 {}
impl Word for u32 {}

/// Vectors of one width. Values of the type exist only where the processor has the instructions.
///
/// Operations are per lane and correctly rounded. What takes pointers asks of its caller that they be valid for `WIDTH` values
/// of their type, with any alignment.
pub trait Vectors: Copy + Send + Sync {
    /// The lanes.
    type V: Copy;

    /// How many, at most sixteen; a power of two.
    const WIDTH: usize;

    /// Accumulators of one kernel that fit the register file, counted in vectors; a power of two.
    const ACCUMULATORS: usize;

    /// Runs `kernel` compiled for this instruction set.
    fn run_wide<K: WideKernel>(self, kernel: K) -> K::Output;

    /// All lanes `value`.
    fn splat(self, value: f32) -> Self::V;
    /// Lanes from memory.
    ///
    /// # Safety
    /// See [`Vectors`].
    unsafe fn read(self, from: *const f32) -> Self::V;
    /// Lanes to memory.
    ///
    /// # Safety
    /// See [`Vectors`].
    unsafe fn write(self, value: Self::V, to: *mut f32);
    /// Writes past the caches where the processor can. See [`crate::stored::fence`].
    ///
    /// # Safety
    /// See [`Vectors`]; `to` must be aligned to 64 bytes.
    #[inline(always)]
    unsafe fn stream(self, value: Self::V, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { self.write(value, to) }
    }
    /// Lanes from IEEE binary16.
    ///
    /// # Safety
    /// See [`Vectors`].
    unsafe fn read_f16(self, from: *const u8) -> Self::V;
    /// Lanes from bfloat16.
    ///
    /// # Safety
    /// See [`Vectors`].
    unsafe fn read_bf16(self, from: *const u8) -> Self::V;
    /// Lanes to IEEE binary16, to nearest, ties to even.
    ///
    /// # Safety
    /// See [`Vectors`].
    unsafe fn write_f16(self, value: Self::V, to: *mut u8);

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
    /// a b + c, rounded once where that is quick, else twice.
    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.fma(a, b, c)
    }
    /// The larger of each two lanes; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lanes nearer to 0 than `least` become 0; NaN stays.
    fn drop_below(self, a: Self::V, least: f32) -> Self::V;
    /// Square roots.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// The nearest integers, for |a| < 2^22; the sign of a zero depends on the processor.
    fn round(self, a: Self::V) -> Self::V;
    /// a 2^n for integers n in [-126, 127].
    fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V;
    /// The sum of the lanes: those of the lower half with those of the upper, and so on.
    fn sum(self, a: Self::V) -> f32;
    /// Bit i: whether NOT a[i] <= b[i]; true where either is NaN.
    fn not_le(self, a: Self::V, b: Self::V) -> u32;

    /// `sum` of four vectors at once.
    #[inline(always)]
    fn sum4(self, a: [Self::V; 4]) -> [f32; 4] {
        [self.sum(a[0]), self.sum(a[1]), self.sum(a[2]), self.sum(a[3])]
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

    /// The lanes in memory, zeros after them.
    #[inline(always)]
    fn lanes(self, a: Self::V) -> Lanes {
        let mut lanes = [0.0; LANES];
        // SAFETY: WIDTH is at most sixteen.
        unsafe { self.write(a, lanes.as_mut_ptr()) };
        lanes
    }

    /// The sum of the lanes, in lane order.
    #[inline(always)]
    fn sum_in_order(self, a: Self::V) -> f32 {
        self.lanes(a)[..Self::WIDTH].iter().sum()
    }

    /// The largest lane that is not NaN.
    #[inline(always)]
    fn largest(self, a: Self::V) -> f32 {
        self.lanes(a)[..Self::WIDTH].iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b))
    }

    /// 2^a for a <= 127 within 2.5e-7 relative; 2^-126 for anything below -126, which no sum of terms near 1 notices. NaN
    /// stays NaN.
    #[inline(always)]
    fn exp2(self, a: Self::V) -> Self::V {
        // Minimax polynomial of 2^r on [-1/2, 1/2] (Remez on the relative error): off by 7.5e-8.
        const C: [f32; 6] = [1.000_000_1, 0.693_146_94, 0.240_221_2, 0.055_507_13, 0.009_675_541, 0.001_327_647_2];
        let x = self.max(self.splat(-126.0), a);
        let n = self.round(x);
        let r = self.sub(x, n);
        let mut p = self.splat(C[5]);
        p = self.mul_add(p, r, self.splat(C[4]));
        p = self.mul_add(p, r, self.splat(C[3]));
        p = self.mul_add(p, r, self.splat(C[2]));
        p = self.mul_add(p, r, self.splat(C[1]));
        p = self.mul_add(p, r, self.splat(C[0]));
        self.scale_by_power(p, n)
    }
}

/// Vectors of sixteen lanes.
pub trait Simd: Vectors {
    /// Runs `kernel` compiled for this instruction set.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// Sixteen lanes from memory.
    #[inline(always)]
    fn load(self, from: &Lanes) -> Self::V {
        const { assert!(Self::WIDTH == LANES) };
        // SAFETY: sixteen floats are readable.
        unsafe { self.read(from.as_ptr()) }
    }

    /// Sixteen lanes to memory.
    #[inline(always)]
    fn store(self, value: Self::V, to: &mut Lanes) {
        const { assert!(Self::WIDTH == LANES) };
        // SAFETY: sixteen floats are writable.
        unsafe { self.write(value, to.as_mut_ptr()) }
    }

    /// Up to sixteen lanes from memory, the others 0.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::V {
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// The first `to.len()` lanes to memory.
    #[inline(always)]
    fn store_part(self, value: Self::V, to: &mut [f32]) {
        let lanes = self.lanes(value);
        to.copy_from_slice(&lanes[..to.len()]);
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
}
