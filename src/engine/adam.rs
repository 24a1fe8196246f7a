//! Adam (Kingma and Ba 2015, algorithm 1) on rows of parameters, with torch's constants and its order of operations.
//!
//! Moments are dropped once they are too small to matter: processors take a hundred times as long for subnormal numbers,
//! where those of a feature that fires no more would stay for ever. A first moment below 2^-100 moves a parameter by less
//! than 10^-22 of the learning rate, and the root of a second moment below 2^-112 vanishes beside epsilon.
use crate::vector::simd::{LANES, Simd};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f32 = 1e-8;
const LEAST_FIRST: f32 = 1.0 / (1u128 << 100) as f32;
const LEAST_SECOND: f32 = 1.0 / (1u128 << 112) as f32;

/// The first moment after a step without a gradient; `drop`: dropped if it is small.
#[inline(always)]
pub fn decay_first<S: Simd>(s: S, m: S::V, drop: bool) -> S::V {
    let m = s.fma(m, s.splat(-((1.0 - BETA1) as f32)), m);
    if drop { s.drop_below(m, LEAST_FIRST) } else { m }
}

/// The second moment after a step without a gradient; `drop`: dropped if it is small.
#[inline(always)]
pub fn decay_second<S: Simd>(s: S, v: S::V, drop: bool) -> S::V {
    let v = s.mul(v, s.splat(BETA2 as f32));
    if drop { s.drop_below(v, LEAST_SECOND) } else { v }
}

/// More than what parameters with these moments move per learning rate, in any step until the next gradient.
#[inline(always)]
pub fn farthest<S: Simd>(s: S, m: S::V, v: S::V) -> S::V {
    let m = s.max(m, s.sub(s.zero(), m));
    s.div(s.add(m, m), s.add(s.sqrt(v), s.splat(EPSILON)))
}

/// The constants of one step, at one learning rate.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    rate: f32,
    correction: f32,
}

impl Adam {
    /// For the step number `t` (from 1) at the learning rate `lr`.
    #[must_use]
    pub fn new(t: u64, lr: f64) -> Self {
        let t = t.min(i32::MAX as u64) as i32;
        let rate = -lr / (1.0 - BETA1.powi(t));
        let correction = 1.0 / (1.0 - BETA2.powi(t)).sqrt();
        Self { rate: rate as f32, correction: correction as f32 }
    }

    /// The bits of both constants.
    #[cfg(test)]
    pub fn bits(self) -> [u64; 2] {
        [self.rate, self.correction].map(|value| u64::from(value.to_bits()))
    }

    /// What Adam's ratio of moments is multiplied with.
    #[must_use]
    pub fn rate(self) -> f32 {
        self.rate.abs()
    }

    /// New value and moments of a vector of parameters `w` with gradient `g`.
    #[inline(always)]
    pub fn lanes<S: Simd>(self, s: S, w: S::V, m: S::V, v: S::V, g: S::V) -> (S::V, S::V, S::V) {
        let m = s.drop_below(s.fma(s.sub(g, m), s.splat((1.0 - BETA1) as f32), m), LEAST_FIRST);
        let v = s.fma(s.mul(g, s.splat((1.0 - BETA2) as f32)), g, s.mul(v, s.splat(BETA2 as f32)));
        let v = s.drop_below(v, LEAST_SECOND);
        let denominator = s.add(s.mul(s.sqrt(v), s.splat(self.correction)), s.splat(EPSILON));
        let w = s.fma(s.splat(self.rate), s.div(m, denominator), w);
        (w, m, v)
    }

    /// Updates a row in place by `g`, padded to whole vectors; gives the lanes of the new row's squared norm.
    #[inline(always)]
    pub fn row<S: Simd>(self, s: S, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) -> S::V {
        let mut squares = s.zero();
        let (w_whole, w_rest) = w.as_chunks_mut::<LANES>();
        let (m_whole, m_rest) = m.as_chunks_mut::<LANES>();
        let (v_whole, v_rest) = v.as_chunks_mut::<LANES>();
        for (((w, m), v), g) in w_whole.iter_mut().zip(m_whole).zip(v_whole).zip(g.as_chunks::<LANES>().0) {
            let (new_w, new_m, new_v) = self.lanes(s, s.load(w), s.load(m), s.load(v), s.load(g));
            squares = s.fma(new_w, new_w, squares);
            s.store(new_w, w);
            s.store(new_m, m);
            s.store(new_v, v);
        }
        if !w_rest.is_empty() {
            let start = g.len() - LANES;
            let g = s.load_part(&g[start..start + w_rest.len()]);
            let (new_w, new_m, new_v) = self.lanes(s, s.load_part(w_rest), s.load_part(m_rest), s.load_part(v_rest), g);
            squares = s.fma(new_w, new_w, squares);
            s.store_part(new_w, w_rest);
            s.store_part(new_m, m_rest);
            s.store_part(new_v, v_rest);
        }
        squares
    }

    /// Updates one parameter.
    #[inline(always)]
    pub fn one(self, w: &mut f32, m: &mut f32, v: &mut f32, g: f32) {
        *m = drop_below((g - *m).mul_add((1.0 - BETA1) as f32, *m), LEAST_FIRST);
        *v = drop_below((g * (1.0 - BETA2) as f32).mul_add(g, *v * BETA2 as f32), LEAST_SECOND);
        let denominator = v.sqrt() * self.correction + EPSILON;
        *w = self.rate.mul_add(*m / denominator, *w);
    }
}

fn drop_below(value: f32, least: f32) -> f32 {
    if value.abs() < least { 0.0 } else { value }
}
