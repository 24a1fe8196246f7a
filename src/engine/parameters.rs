//! Parameters as the phases of a step see them: read by the rows, trained by the features.
use crate::vector::simd::Simd;

/// A parameter and its moments.
#[derive(Debug)]
pub struct Trained<'a> {
    /// The parameter.
    pub value: &'a mut [f32],
    /// First moment.
    pub m: &'a mut [f32],
    /// Second moment.
    pub v: &'a mut [f32],
}

impl<'a> Trained<'a> {
    /// Takes the first `len` values.
    #[must_use]
    pub fn split_off(&mut self, len: usize) -> Trained<'a> {
        Trained {
            value: self.value.split_off_mut(..len).unwrap_or_default(),
            m: self.m.split_off_mut(..len).unwrap_or_default(),
            v: self.v.split_off_mut(..len).unwrap_or_default(),
        }
    }
}

impl Trained<'_> {
    /// The same, for a shorter time.
    pub fn reborrow(&mut self) -> Trained<'_> {
        Trained { value: self.value, m: self.m, v: self.v }
    }

    /// Some of its values.
    pub fn part(&mut self, at: std::ops::Range<usize>) -> Trained<'_> {
        Trained { value: &mut self.value[at.clone()], m: &mut self.m[at.clone()], v: &mut self.v[at] }
    }

    /// Consecutive parts of `size` values.
    pub fn chunks(&mut self, size: usize) -> impl Iterator<Item = Trained<'_>> {
        let moments = self.m.chunks_mut(size).zip(self.v.chunks_mut(size));
        self.value.chunks_mut(size).zip(moments).map(|(value, (m, v))| Trained { value, m, v })
    }

    /// Row j of those of `d` values.
    #[inline(always)]
    pub fn row(&mut self, j: usize, d: usize) -> Trained<'_> {
        self.part(j * d..(j + 1) * d)
    }
}

/// The parameters of some features.
#[derive(Debug)]
pub struct Features<'a> {
    /// [features][d]; None where the encoder is the decoder.
    pub encoder: Option<Trained<'a>>,
    /// [features].
    pub bias: Trained<'a>,
    /// [features][d].
    pub decoder: Trained<'a>,
    /// [features] each, of kinds that have them: theta; magnitude and gain.
    pub own: [Option<Trained<'a>>; 2],
}

impl Features<'_> {
    /// Asks for the rows of feature j: they come from far away, once per step.
    #[inline(always)]
    pub fn prefetch<S: Simd>(&self, s: S, j: usize, d: usize) {
        for part in [Some(&self.decoder), self.encoder.as_ref()].into_iter().flatten() {
            for values in [&part.value, &part.m, &part.v] {
                if let Some(row) = values.get(j * d..(j + 1) * d) {
                    s.prefetch(row);
                }
            }
        }
    }
}

/// One dictionary's parameters, as phase one reads them.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// D.
    pub d: usize,
    /// [n][d].
    pub encoder: &'a [f32],
    /// [n].
    pub bias: &'a [f32],
    /// [n][d].
    pub decoder: &'a [f32],
}

impl Weights<'_> {
    /// The atom of feature j.
    #[inline(always)]
    pub fn atom(&self, j: u32) -> &[f32] {
        let at = j as usize * self.d;
        &self.decoder[at..at + self.d]
    }
}

/// Some features' part of vectors that only some kinds have, the first `len` of what is left.
pub(super) fn split_own<'a>(own: &mut [Option<Trained<'a>>; 2], len: usize) -> [Option<Trained<'a>>; 2] {
    own.each_mut().map(|vector| vector.as_mut().map(|vector| vector.split_off(len)))
}

/// The scales of the loss.
#[derive(Debug, Clone, Copy)]
pub struct Scales {
    /// Derivative of the loss by the squared error, times 2.
    pub error: f32,
    /// Derivative of the loss by a code through the L1 term.
    pub l1: f32,
}
