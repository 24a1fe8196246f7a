//! Vectors of twice the lanes, of two registers each.

#[cfg(target_arch = "x86_64")]
use super::Avx2;
#[cfg(target_arch = "aarch64")]
use super::Neon;
use super::Vectors;
use super::{Kernel, Simd, WideKernel};

/// The lower lanes in one vector of `B`, the upper in another.
#[derive(Debug, Clone, Copy)]
pub struct Twice<B>(pub B);

/// Methods of [`Vectors`] that do the same to both halves.
macro_rules! halves {
    ($($name:ident($($operand:ident),+);)+) => {$(
        #[inline(always)]
        fn $name(self, $($operand: Self::V),+) -> Self::V {
            (self.0.$name($($operand.0),+), self.0.$name($($operand.1),+))
        }
    )+};
}

impl<B: Vectors> Vectors for Twice<B> {
    type V = (B::V, B::V);
    const WIDTH: usize = 2 * B::WIDTH;
    const ACCUMULATORS: usize = B::ACCUMULATORS / 2;

    fn run_wide<K: WideKernel>(self, kernel: K) -> K::Output {
        self.0.run_wide(kernel)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        let v = self.0.splat(value);
        (v, v)
    }

    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { (self.0.read(from), self.0.read(from.add(B::WIDTH))) }
    }

    #[inline(always)]
    unsafe fn write(self, value: Self::V, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            self.0.write(value.0, to);
            self.0.write(value.1, to.add(B::WIDTH));
        }
    }

    #[inline(always)]
    unsafe fn read_f16(self, from: *const u8) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { (self.0.read_f16(from), self.0.read_f16(from.add(2 * B::WIDTH))) }
    }

    #[inline(always)]
    unsafe fn read_bf16(self, from: *const u8) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { (self.0.read_bf16(from), self.0.read_bf16(from.add(2 * B::WIDTH))) }
    }

    #[inline(always)]
    unsafe fn write_f16(self, value: Self::V, to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            self.0.write_f16(value.0, to);
            self.0.write_f16(value.1, to.add(2 * B::WIDTH));
        }
    }

    halves! {
        add(a, b);
        sub(a, b);
        mul(a, b);
        div(a, b);
        fma(a, b, c);
        mul_add(a, b, c);
        max(a, b);
        sqrt(a);
        round(a);
        scale_by_power(a, n);
    }

    #[inline(always)]
    fn drop_below(self, a: Self::V, least: f32) -> Self::V {
        (self.0.drop_below(a.0, least), self.0.drop_below(a.1, least))
    }

    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        self.0.sum(self.0.add(a.0, a.1))
    }

    #[inline(always)]
    fn sum4(self, [a, b, c, d]: [Self::V; 4]) -> [f32; 4] {
        let s = self.0;
        s.sum4([s.add(a.0, a.1), s.add(b.0, b.1), s.add(c.0, c.1), s.add(d.0, d.1)])
    }

    #[inline(always)]
    fn not_le(self, a: Self::V, b: Self::V) -> u32 {
        self.0.not_le(a.0, b.0) | (self.0.not_le(a.1, b.1) << B::WIDTH)
    }

    #[inline(always)]
    fn prefetch(self, row: &[f32]) {
        self.0.prefetch(row);
    }
}

#[cfg(target_arch = "x86_64")]
impl Simd for Twice<Avx2> {
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        fn inner<K: Kernel>(s: Twice<Avx2>, kernel: K) -> K::Output {
            kernel.call(s)
        }
        // SAFETY: `self` exists only where `cpu()` found these features; every processor with AVX2 and FMA has the bit
        // manipulation ones.
        unsafe { inner(self, kernel) }
    }
}

#[cfg(target_arch = "aarch64")]
impl Simd for Twice<Twice<Neon>> {
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.call(self)
    }
}
