//! What the engine is given and gives back: a packed sweep, a batch, what to do with them, and sums.
use super::kind::{Activation, Kind, Penalty};
use super::parameters::Trained;
use crate::error::{Error, Result};

/// The conventions of the loss and of the update.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Squared error averaged over D as well as rows.
    pub mean: bool,
    /// L1 coefficients divided by the dictionary's size.
    pub per_size: bool,
    /// The gradient along each atom removed before Adam.
    pub project: bool,
}

/// A packed sweep, changed in place.
#[derive(Debug)]
pub struct Sweep<'a> {
    /// D.
    pub d: usize,
    /// [K].
    pub sizes: &'a [usize],
    /// [K].
    pub l1: &'a [f64],
    /// [K].
    pub lr: &'a [f64],
    /// Conventions.
    pub loss: Loss,
    /// [N][D]; None where tied.
    pub encoder: Option<Trained<'a>>,
    /// [N].
    pub bias: Trained<'a>,
    /// [N][D].
    pub decoder: Trained<'a>,
    /// [K][D].
    pub pre_bias: Option<Trained<'a>>,
    /// [N].
    pub fired: &'a mut [i64],
    /// Features that rest; None: all are worked on in every step.
    pub idle: Option<Idle<'a>>,
    /// Kinds of the dictionaries; None: all are `ReLU` + L1.
    pub kinds: Option<Kinds<'a>>,
}

/// Kinds of dictionaries, with what only some have. Vectors are packed over the dictionaries that have them.
#[derive(Debug)]
pub struct Kinds<'a> {
    /// [K].
    pub of: &'a [Kind],
    /// `JumpReLU`'s thresholds, never below 0.
    pub theta: Option<Trained<'a>>,
    /// Gated's biases of magnitudes.
    pub magnitude: Option<Trained<'a>>,
    /// Gated's logarithms of gains.
    pub gain: Option<Trained<'a>>,
    /// [N]: rows trained on since each feature fired, of dictionaries with a loss of dead features.
    pub since: Option<&'a mut [i64]>,
    /// [K]: `BatchTopK`'s running threshold, NaN before the first.
    pub threshold: Option<&'a mut [f32]>,
    /// [K][`ANNEALING`]: of penalties that are a power. Strength, p and the next p, NaN where its sum is not wanted; a
    /// step writes the sums of z^p and z^next where they are.
    pub annealing: Option<&'a mut [f64]>,
}

/// Numbers of a dictionary in [`Kinds::annealing`].
pub const ANNEALING: usize = 5;

impl<'a> Kinds<'a> {
    /// The vectors of a dictionary of that kind, the first that is left.
    pub(super) fn split_off(
        [theta, magnitude, gain]: &mut [Option<Trained<'a>>; 3],
        kind: &Kind,
        n: usize,
    ) -> [Option<Trained<'a>>; 2] {
        let take = |vector: &mut Option<Trained<'a>>| vector.as_mut().map(|vector| vector.split_off(n));
        match kind.activation {
            Activation::Jump { .. } => [take(theta), None],
            Activation::Gated => [take(magnitude), take(gain)],
            _ => [None, None],
        }
    }

    /// The vectors, for a shorter time.
    pub(super) fn vectors(&mut self) -> [Option<Trained<'_>>; 3] {
        [&mut self.theta, &mut self.magnitude, &mut self.gain].map(|vector| vector.as_mut().map(Trained::reborrow))
    }
}

/// Features that rest, of a whole sweep or a part of it.
#[derive(Debug)]
pub struct Idle<'a> {
    /// [N]: 0 for a feature that does not rest, else 1 and the steps that its moments lag behind.
    pub lag: &'a mut [i32],
    /// [K]: the rate up to which resting features stand still.
    pub rates: &'a mut [f32],
}

/// Rows to train on.
#[derive(Debug, Clone, Copy)]
pub struct Activations<'a> {
    /// [B][D].
    pub x: &'a [f32],
    /// B.
    pub rows: usize,
}

/// What a schedule multiplies in one step.
#[derive(Debug, Clone, Copy)]
pub struct Factors {
    /// The learning rates.
    pub lr: f64,
    /// The L1 coefficients and the strengths of other penalties. No feature wakes up for it: where there is no code, L1 has no gradient either.
    pub l1: f64,
}

/// What to do with a batch.
#[derive(Debug)]
pub enum Mode<'a> {
    /// Update everything: step number `t` from 1, at a point of the schedule.
    Step {
        /// Adam's t.
        t: u64,
        /// The schedule's factors.
        factors: Factors,
    },
    /// Gradients only, before projection; nothing else changes.
    Gradients(GradientsOut<'a>),
    /// Count and measure only.
    Evaluate,
}

/// Where gradients go, shaped as the parameters.
#[derive(Debug)]
pub struct GradientsOut<'a> {
    /// [N][D]; None where tied.
    pub encoder: Option<&'a mut [f32]>,
    /// [N].
    pub bias: &'a mut [f32],
    /// [N][D].
    pub decoder: &'a mut [f32],
    /// [K][D].
    pub pre_bias: Option<&'a mut [f32]>,
    /// Theta, magnitude and gain, packed as these.
    pub own: [Option<&'a mut [f32]>; 3],
}

impl<'a> GradientsOut<'a> {
    /// The same, for a shorter time.
    pub(super) fn reborrow(&mut self) -> GradientsOut<'_> {
        GradientsOut {
            encoder: self.encoder.as_deref_mut(),
            bias: self.bias,
            decoder: self.decoder,
            pre_bias: self.pre_bias.as_deref_mut(),
            own: self.own.each_mut().map(|own| own.as_deref_mut()),
        }
    }

    /// Takes those of the first dictionary, which has `n` features of `d` values and is of that kind.
    pub(super) fn split_off(&mut self, n: usize, d: usize, kind: &Kind) -> GradientsOut<'a> {
        let has = [kind.vectors() == 1, kind.vectors() == 2, kind.vectors() == 2];
        let mut own = self.own.iter_mut().zip(has);
        let own = std::array::from_fn(|_| {
            let (own, has) = own.next()?;
            own.as_mut().filter(|_| has).and_then(|own| own.split_off_mut(..n))
        });
        GradientsOut {
            own,
            encoder: self.encoder.as_mut().and_then(|encoder| encoder.split_off_mut(..n * d)),
            bias: self.bias.split_off_mut(..n).unwrap_or_default(),
            decoder: self.decoder.split_off_mut(..n * d).unwrap_or_default(),
            pre_bias: self.pre_bias.as_mut().and_then(|pre_bias| pre_bias.split_off_mut(..d)),
        }
    }
}

/// Sums over the rows of a batch, per dictionary.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Totals {
    /// [K]: squared error.
    pub sse: Vec<f64>,
    /// [K]: codes.
    pub l1: Vec<f64>,
    /// [K]: codes above zero.
    pub l0: Vec<f64>,
    /// [K]: codes that the screen let through.
    pub candidates: Vec<f64>,
}

impl Totals {
    /// Of no rows.
    #[must_use]
    pub fn zeros(dictionaries: usize) -> Self {
        let zeros = || vec![0.0; dictionaries];
        Self { sse: zeros(), l1: zeros(), l0: zeros(), candidates: zeros() }
    }

    /// Adds those of other rows.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.sse, &other.sse),
            (&mut self.l1, &other.l1),
            (&mut self.l0, &other.l0),
            (&mut self.candidates, &other.candidates),
        ];
        for (own, other) in pairs {
            own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
        }
    }
}

/// Shapes must fit each other: the phases cut slices by them.
pub(super) fn check(sweep: &Sweep<'_>, batch: Activations<'_>, mode: &Mode<'_>) -> Result<()> {
    check_sweep(sweep)?;
    let (d, k) = (sweep.d, sweep.sizes.len());
    let total = sweep.sizes.iter().sum::<usize>();
    let mut found =
        vec![("x", batch.rows > 0 && batch.x.len() == batch.rows * d && batch.rows < u32::MAX as usize / 2)];
    if let Mode::Gradients(out) = mode {
        let fits = |out: &Option<&mut [f32]>, own: Option<usize>| out.as_ref().map(|out| out.len()) == own;
        found.extend([
            ("gradient of b_enc", out.bias.len() == total),
            ("gradient of W_dec", out.decoder.len() == total * d),
            ("gradient of W_enc", fits(&out.encoder, sweep.encoder.as_ref().map(|_| total * d))),
            ("gradient of b_dec", fits(&out.pre_bias, sweep.pre_bias.as_ref().map(|_| k * d))),
        ]);
        let sizes = vector_sizes(sweep);
        for (name, (own, size)) in ["theta", "b_mag", "rho"].into_iter().zip(out.own.iter().zip(sizes)) {
            found.push((name, own.as_ref().map_or(0, |own| own.len()) == size));
        }
    }
    all_fit(sweep, &format!(" and {} rows", batch.rows), &found)
}

/// The same of the sweep alone.
pub(super) fn check_sweep(sweep: &Sweep<'_>) -> Result<()> {
    let (d, k) = (sweep.d, sweep.sizes.len());
    let total = sweep.sizes.iter().sum::<usize>();
    let trained = |name: &'static str, what: &Trained<'_>, len: usize| {
        (name, what.value.len() == len && what.m.len() == len && what.v.len() == len)
    };
    let mut found = vec![
        ("sizes, l1 and lr", sweep.l1.len() == k && sweep.lr.len() == k && k > 0 && d > 0),
        ("sizes", sweep.sizes.iter().all(|size| *size > 0) && total < u32::MAX as usize / 2),
        trained("b_enc", &sweep.bias, total),
        trained("W_dec", &sweep.decoder, total * d),
        ("fired", sweep.fired.len() == total),
        ("idle", sweep.idle.as_ref().is_none_or(|idle| idle.lag.len() == total && idle.rates.len() == k)),
    ];
    found.extend(sweep.encoder.as_ref().map(|encoder| trained("W_enc", encoder, total * d)));
    found.extend(sweep.pre_bias.as_ref().map(|pre_bias| trained("b_dec", pre_bias, k * d)));
    if let Some(kinds) = &sweep.kinds {
        let [theta, both, _] = vector_sizes(sweep);
        let own = |name, vector: &Option<Trained<'_>>, size| match vector {
            Some(vector) => trained(name, vector, size),
            None => (name, size == 0),
        };
        let fits = kinds.of.len() == k && kinds.of.iter().zip(sweep.sizes).all(|(kind, n)| kind.fits(*n));
        let any = |has: fn(&Kind) -> bool| kinds.of.iter().any(has);
        let len = |there: Option<usize>, wanted: usize, needed: bool| there.map_or(!needed, |len| len == wanted);
        found.extend([
            ("kinds", fits),
            own("theta", &kinds.theta, theta),
            own("b_mag", &kinds.magnitude, both),
            own("rho", &kinds.gain, both),
            ("since", len(kinds.since.as_ref().map(|since| since.len()), total, any(|kind| kind.aux.is_some()))),
            (
                "threshold",
                len(
                    kinds.threshold.as_ref().map(|threshold| threshold.len()),
                    k,
                    any(|kind| matches!(kind.activation, Activation::BatchTopK { .. })),
                ),
            ),
            (
                "annealing",
                len(
                    kinds.annealing.as_ref().map(|annealing| annealing.len()),
                    k * ANNEALING,
                    any(|kind| kind.penalty == Penalty::Power),
                ),
            ),
        ]);
    }
    all_fit(sweep, "", &found)
}

/// Lengths of theta, magnitude and gain.
fn vector_sizes(sweep: &Sweep<'_>) -> [usize; 3] {
    let of = sweep.kinds.as_ref().map_or(&[][..], |kinds| kinds.of);
    let total =
        |vectors| of.iter().zip(sweep.sizes).filter(|(kind, _)| kind.vectors() == vectors).map(|(_, n)| n).sum();
    [total(1), total(2), total(2)]
}

fn all_fit(sweep: &Sweep<'_>, more: &str, found: &[(&str, bool)]) -> Result<()> {
    let (k, total) = (sweep.sizes.len(), sweep.sizes.iter().sum::<usize>());
    match found.iter().find(|(_, fits)| !fits) {
        None => Ok(()),
        Some((name, _)) => Err(Error::InvalidArgument(format!(
            "engine: {name} does not fit {k} dictionaries of {total} features, width {}{more}",
            sweep.d
        ))),
    }
}
