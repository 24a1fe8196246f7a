//! Atoms that stand still: what Adam does to a feature that fires no more, without touching its rows.
//!
//! Without a gradient, first moments shrink by a tenth each step until the parameters no longer change. From then on a
//! step would read and write six rows to no effect but the decay of the moments, which is made up for, multiplication
//! by multiplication with the same roundings, when the feature fires again or when somebody wants to see the moments.
//!
//! *When does a feature stand still?* A step adds at most `rate q` to a parameter w, q = m / (c sqrt(v) + epsilon), with
//! c >= 1. While there is no gradient q only falls: m loses a tenth each step, sqrt(v) a two-thousandth, and what is
//! left of a moment is dropped before it becomes subnormal (see [`super::adam`]). So if w + 2 R q rounds to w, and
//! w - 2 R q as well, no step at a rate of at most R moves w. R is kept per dictionary; a step at a higher rate wakes it
//! up first. An atom must also have come to rest under renormalisation: its factor must be exactly 1.
use super::adam::{Adam, decay_first, decay_second, farthest};
use super::kind::RELU;
use super::parameters::{Features, Trained};
use super::sweep::{Kinds, Sweep, check_sweep};
use crate::error::Result;
use crate::vector::dot::{dot, load_columns};
use crate::vector::isa::Isa;
use crate::vector::simd::{Kernel, LANES, Simd};

/// A feature that fires no more is looked at every so many steps.
const LOOKS: usize = 8;

/// Steps before which nobody rests: until then the corrections of Adam's moments change faster than the moments.
const FIRST: u64 = 64;

/// A rate of at least this keeps `rate q` from underflow.
const SMALLEST_RATE: f32 = 1e-6;

/// How a step looks for features that have come to rest.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Those whose number leaves this remainder are looked at.
    turn: usize,
    rate: f32,
}

impl Look {
    /// In step `t` of Adam, for rates of at most `rate`.
    pub fn new(t: u64, rate: f32) -> Self {
        Self { turn: (t % LOOKS as u64) as usize, rate }
    }

    /// Whether feature `j`, which has just been updated without a gradient, will stand still.
    #[inline(always)]
    pub fn rests<S: Simd>(self, s: S, features: &mut Features<'_>, j: usize, d: usize) -> bool {
        let bias = features.bias.row(j, 1);
        if !stands(s, self.rate, &bias) {
            return false;
        }
        if features.own.iter_mut().flatten().any(|vector| !stands(s, self.rate, &vector.row(j, 1))) {
            return false;
        }
        if let Some(encoder) = &mut features.encoder
            && !stands(s, self.rate, &encoder.row(j, d))
        {
            return false;
        }
        let atom = features.decoder.row(j, d);
        let factor = 1.0 / dot(s, atom.value, atom.value).sqrt();
        stands(s, self.rate, &atom) && factor.to_bits() == 1.0f32.to_bits()
    }

    /// Whether it is feature `j`'s turn.
    #[inline(always)]
    pub fn at(self, j: usize) -> bool {
        j % LOOKS == self.turn
    }
}

/// The rate up to which features of a dictionary shall stand still, whose last rate was `kept`; None if that holds.
fn new_rate(adam: Adam, t: u64, lr: f64, kept: f32) -> Option<f32> {
    let rate = adam.rate();
    if t < FIRST {
        return Some(0.0);
    }
    (rate > kept || rate.is_nan()).then(|| (2.0 * rate.max(lr as f32)).max(SMALLEST_RATE))
}

/// Whether no step up to `rate` changes a bit of the row while it has no gradient.
#[inline(always)]
fn stands<S: Simd>(s: S, rate: f32, row: &Trained<'_>) -> bool {
    let (up, down) = (s.splat(rate), s.splat(-rate));
    let mut moved = 0;
    for at in (0..row.value.len()).step_by(LANES) {
        let end = (at + LANES).min(row.value.len());
        let [w, m, v] = [&*row.value, &*row.m, &*row.v].map(|row| load_columns(s, &row[at..end]));
        let q = farthest(s, m, v);
        moved |= s.not_le(s.fma(up, q, w), w) | s.not_le(w, s.fma(down, q, w));
    }
    moved == 0
}

/// Makes up for `steps` steps without a gradient in the moments of feature `j`.
#[inline(always)]
pub fn catch_up<S: Simd>(s: S, features: &mut Features<'_>, j: usize, d: usize, steps: i32) {
    let rows = [Some(features.decoder.row(j, d)), features.encoder.as_mut().map(|encoder| encoder.row(j, d))];
    let vectors = features.own.iter_mut().flatten().map(|vector| vector.row(j, 1));
    for row in rows.into_iter().flatten().chain([features.bias.row(j, 1)]).chain(vectors) {
        decay(s, row.m, steps, decay_first);
        decay(s, row.v, steps, decay_second);
    }
}

/// Applies `step` to a row so many times; every vector stops once it is zero.
#[inline(always)]
fn decay<S: Simd>(s: S, row: &mut [f32], steps: i32, step: impl Fn(S, S::V, bool) -> S::V + Copy) {
    let mut at = 0;
    while at + 8 * LANES <= row.len() {
        decay_columns::<S, 8>(s, &mut row[at..at + 8 * LANES], steps, step);
        at += 8 * LANES;
    }
    while at < row.len() {
        let end = (at + LANES).min(row.len());
        decay_columns::<S, 1>(s, &mut row[at..end], steps, step);
        at = end;
    }
}

/// Steps between two looks whether all is zero: few enough that what should have been dropped is not yet subnormal.
const AT_ONCE: i32 = 32;

#[inline(always)]
fn decay_columns<S: Simd, const C: usize>(
    s: S,
    row: &mut [f32],
    steps: i32,
    step: impl Fn(S, S::V, bool) -> S::V + Copy,
) {
    let mut values: [S::V; C] =
        std::array::from_fn(|i| load_columns(s, &row[i * LANES..((i + 1) * LANES).min(row.len())]));
    let mut left = steps;
    while left > 0 && values.iter().any(|value| s.not_le(s.max(*value, s.sub(s.zero(), *value)), s.zero()) != 0) {
        for _ in 1..left.min(AT_ONCE) {
            values = values.map(|value| step(s, value, false));
        }
        values = values.map(|value| step(s, value, true));
        left -= AT_ONCE;
    }
    for (value, to) in values.into_iter().zip(row.chunks_mut(LANES)) {
        match to.first_chunk_mut::<LANES>() {
            Some(to) => s.store(value, to),
            None => s.store_part(value, to),
        }
    }
}

/// Wakes features up: their moments catch up.
struct Wake<'a> {
    d: usize,
    features: Features<'a>,
    lag: &'a mut [i32],
}

impl Kernel for Wake<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(mut self, s: S) {
        for (j, lag) in self.lag.iter_mut().enumerate() {
            if *lag > 1 {
                catch_up(s, &mut self.features, j, self.d, *lag - 1);
            }
            *lag = 0;
        }
    }
}

/// Features of a dictionary rest up to a rate; a step that is faster wakes them up, and raises it.
pub(super) fn wake_if_faster(isa: Isa, sweep: &mut Sweep<'_>, t: u64, lr_scale: f64) {
    let Some(idle) = &mut sweep.idle else { return };
    let faster: Vec<bool> = (sweep.lr.iter().zip(&mut *idle.rates))
        .map(|(lr, kept)| {
            let rate = new_rate(Adam::new(t, lr * lr_scale), t, *lr, *kept);
            rate.is_some_and(|rate| {
                *kept = rate;
                true
            })
        })
        .collect();
    if faster.contains(&true) {
        wake_some(isa, sweep, |k| faster[k]);
    }
}

/// Lets the moments of all features that rest catch up.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::error::Error::InvalidArgument): shapes that do not fit each other.
pub fn wake(sweep: &mut Sweep<'_>) -> Result<()> {
    check_sweep(sweep)?;
    wake_some(Isa::named("auto")?, sweep, |_| true);
    Ok(())
}

/// Wakes up the dictionaries that are asked for.
fn wake_some(isa: Isa, sweep: &mut Sweep<'_>, asked: impl Fn(usize) -> bool) {
    let d = sweep.d;
    let Some(idle) = &mut sweep.idle else { return };
    let mut lag = &mut *idle.lag;
    let mut encoder = sweep.encoder.as_mut().map(Trained::reborrow);
    let (mut bias, mut decoder) = (sweep.bias.reborrow(), sweep.decoder.reborrow());
    let (of, mut vectors) = match &mut sweep.kinds {
        Some(kinds) => (kinds.of, kinds.vectors()),
        None => (&[][..], [None, None, None]),
    };
    for (k, n) in sweep.sizes.iter().enumerate() {
        let features = Features {
            encoder: encoder.as_mut().map(|encoder| encoder.split_off(n * d)),
            bias: bias.split_off(*n),
            decoder: decoder.split_off(n * d),
            own: Kinds::split_off(&mut vectors, of.get(k).unwrap_or(&RELU), *n),
        };
        let lag = lag.split_off_mut(..*n).unwrap_or_default();
        if asked(k) {
            isa.run(Wake { d, features, lag });
        }
    }
}
