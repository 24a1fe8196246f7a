//! Portable Rust: arrays of sixteen.

use super::{Kernel, LANES, Lanes, Simd};

/// Any processor. `mul_add` is a library call where there is no fused multiply-add: slow, and the same bits.
#[derive(Debug, Clone, Copy)]
pub struct Scalar;

macro_rules! lanes {
    ($i:ident => $value:expr) => {{
        let mut out = [0.0f32; LANES];
        for ($i, out) in out.iter_mut().enumerate() {
            *out = $value;
        }
        out
    }};
}

#[allow(clippy::inline_always)]
impl Simd for Scalar {
    type V = Lanes;
    const ACCUMULATORS: usize = 2;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.call(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Lanes {
        *from
    }

    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Lanes {
        let mut out = [0.0; LANES];
        out[..from.len()].copy_from_slice(from);
        out
    }

    #[inline(always)]
    fn store(self, value: Lanes, to: &mut Lanes) {
        *to = value;
    }

    #[inline(always)]
    fn store_part(self, value: Lanes, to: &mut [f32]) {
        to.copy_from_slice(&value[..to.len()]);
    }

    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        lanes!(i => a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        lanes!(i => a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        lanes!(i => a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        lanes!(i => a[i] / b[i])
    }

    #[inline(always)]
    fn fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        lanes!(i => a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        lanes!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn drop_below(self, a: Lanes, least: f32) -> Lanes {
        lanes!(i => if a[i].abs() < least { 0.0 } else { a[i] })
    }

    #[inline(always)]
    fn sqrt(self, a: Lanes) -> Lanes {
        lanes!(i => a[i].sqrt())
    }

    #[inline(always)]
    fn sum(self, a: Lanes) -> f32 {
        let mut a = a;
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                a[i] += a[i + width];
            }
        }
        a[0]
    }

    #[inline(always)]
    #[allow(clippy::neg_cmp_op_on_partial_ord)] // NaN counts as "not less or equal"
    fn not_le(self, a: Lanes, b: Lanes) -> u32 {
        (0..LANES).fold(0, |mask, i| mask | (u32::from(!(a[i] <= b[i])) << i))
    }
}
