//! 128-bit Arm vectors: sixteen lanes are four registers.

use std::arch::aarch64::{
    float32x4_t, vabsq_f32, vaddq_f32, vbicq_u32, vcltq_f32, vdivq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vmaxq_f32,
    vmulq_f32, vreinterpretq_f32_u32, vreinterpretq_u32_f32, vsqrtq_f32, vst1q_f32, vsubq_f32,
};

use super::{Kernel, LANES, Lanes, Simd};

/// NEON: every 64-bit Arm processor has it.
#[derive(Debug, Clone, Copy)]
pub struct Neon;

type Quad = [float32x4_t; 4];

macro_rules! quad {
    ($i:ident => $value:expr) => {{
        // SAFETY: NEON is part of the aarch64 baseline.
        unsafe {
            [
                {
                    let $i = 0;
                    $value
                },
                {
                    let $i = 1;
                    $value
                },
                {
                    let $i = 2;
                    $value
                },
                {
                    let $i = 3;
                    $value
                },
            ]
        }
    }};
}

#[allow(clippy::inline_always)]
impl Simd for Neon {
    type V = Quad;
    const ACCUMULATORS: usize = 4;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.call(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Quad {
        // SAFETY: NEON is part of the aarch64 baseline.
        [unsafe { vdupq_n_f32(value) }; 4]
    }

    #[inline(always)]
    fn load(self, from: &Lanes) -> Quad {
        quad!(i => vld1q_f32(from.as_ptr().add(4 * i)))
    }

    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Quad {
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    #[inline(always)]
    fn store(self, value: Quad, to: &mut Lanes) {
        for (value, to) in value.into_iter().zip(to.chunks_exact_mut(4)) {
            // SAFETY: `to` has four floats.
            unsafe { vst1q_f32(to.as_mut_ptr(), value) }
        }
    }

    #[inline(always)]
    fn store_part(self, value: Quad, to: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    #[inline(always)]
    fn add(self, a: Quad, b: Quad) -> Quad {
        quad!(i => vaddq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn sub(self, a: Quad, b: Quad) -> Quad {
        quad!(i => vsubq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn mul(self, a: Quad, b: Quad) -> Quad {
        quad!(i => vmulq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn div(self, a: Quad, b: Quad) -> Quad {
        quad!(i => vdivq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn fma(self, a: Quad, b: Quad, c: Quad) -> Quad {
        quad!(i => vfmaq_f32(c[i], a[i], b[i]))
    }

    #[inline(always)]
    fn max(self, a: Quad, b: Quad) -> Quad {
        quad!(i => vmaxq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn drop_below(self, a: Quad, least: f32) -> Quad {
        // The bits of those below are cleared: NaN is not below.
        quad!(i => vreinterpretq_f32_u32(vbicq_u32(
            vreinterpretq_u32_f32(a[i]),
            vcltq_f32(vabsq_f32(a[i]), vdupq_n_f32(least))
        )))
    }

    #[inline(always)]
    fn sqrt(self, a: Quad) -> Quad {
        quad!(i => vsqrtq_f32(a[i]))
    }

    #[inline(always)]
    fn sum(self, a: Quad) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(a, &mut lanes);
        super::Scalar.sum(lanes)
    }

    #[inline(always)]
    fn not_le(self, a: Quad, b: Quad) -> u32 {
        let (mut x, mut y) = ([0.0; LANES], [0.0; LANES]);
        self.store(a, &mut x);
        self.store(b, &mut y);
        super::Scalar.not_le(x, y)
    }
}
