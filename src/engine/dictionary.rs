//! One dictionary of a sweep, as a step sees it: its own parts of all tensors, its scales and its update.
use super::adam::Adam;
use super::derive::{Derive, Jump};
use super::features::Update;
use super::idle::Look;
use super::kind::{Activation, Kind, Penalty, RELU};
use super::parameters::{Scales, Trained};
use super::sweep::{ANNEALING, GradientsOut, Kinds, Mode, Sweep};

/// One dictionary of a sweep.
pub(super) struct Dictionary<'a> {
    pub(super) kind: &'a Kind,
    /// What multiplies penalties that are neither L1 nor a power, by rows.
    strength: f64,
    /// What multiplies a penalty in this step beside all that.
    factor: f64,
    pub(super) rows: usize,
    /// Theta; magnitude and gain.
    pub(super) own: [Option<Trained<'a>>; 2],
    pub(super) since: Option<&'a mut [i64]>,
    pub(super) threshold: Option<&'a mut f32>,
    annealing: Option<&'a mut [f64; ANNEALING]>,
    pub(super) encoder: Option<Trained<'a>>,
    pub(super) bias: Trained<'a>,
    pub(super) decoder: Trained<'a>,
    pub(super) pre_bias: Option<Trained<'a>>,
    pub(super) fired: Option<&'a mut [i64]>,
    pub(super) lag: Option<&'a mut [i32]>,
    pub(super) gradients: Option<GradientsOut<'a>>,
    pub(super) scales: Scales,
    pub(super) update: Option<Update>,
}

impl Dictionary<'_> {
    pub(super) fn encoder(&self) -> &[f32] {
        self.encoder.as_ref().map_or(&*self.decoder.value, |encoder| &*encoder.value)
    }

    pub(super) fn is_evaluation(&self) -> bool {
        self.gradients.is_none() && self.update.is_none()
    }

    /// One of the vectors of its kind.
    pub(super) fn vector(&self, i: usize) -> &[f32] {
        self.own[i].as_ref().map_or(&[], |own| &*own.value)
    }

    /// p, and the next one where its sums are wanted.
    fn powers(&self) -> (f64, f64, Option<f64>) {
        match &self.annealing {
            Some([strength, p, next, ..]) => (*strength * self.factor, *p, Some(*next).filter(|next| !next.is_nan())),
            None => (0.0, 1.0, None),
        }
    }

    /// Whether all its phases may hold codes as matrices, in this step.
    pub(super) fn may_have_matrices(&self) -> bool {
        let plain_power = self.kind.penalty == Penalty::Power && self.kind.has_one_residual() && {
            let (_, p, next) = self.powers();
            p.to_bits() == 1.0f64.to_bits() && (next.is_none() || self.update.is_none())
        };
        self.kind.has_matrices() || plain_power
    }

    /// Whether derivatives wait for the codes of all rows.
    pub(super) fn waits(&self) -> bool {
        !self.is_evaluation() && self.kind.needs_all_codes()
    }

    /// What codes are above where nothing else decides: in an evaluation `BatchTopK`'s running threshold, else 0.
    pub(super) fn threshold_in_use(&self) -> f32 {
        let selects = matches!(self.kind.activation, Activation::BatchTopK { .. });
        match &self.threshold {
            Some(threshold) if selects && **threshold > 0.0 => **threshold,
            _ => 0.0,
        }
    }

    /// What the pre-activation loss gives to a row below the threshold, negative.
    pub(super) fn silent(&self) -> f64 {
        if self.is_evaluation() { 0.0 } else { self.kind.pre_activation / self.rows as f64 }
    }

    /// What each code gets of the gradient; None: the linear penalty of its scales, by one residual. `codes`: all that
    /// there are, where derivatives wait for them; `gain`: e^rho.
    pub(super) fn derive<'b>(&'b self, codes: u64, gain: &'b [f32]) -> Option<Derive<'b>> {
        let by_rows = self.strength;
        match self.kind.activation {
            Activation::Jump { window, to_input } => {
                let by_count = match self.kind.penalty {
                    Penalty::L0 => [0.0, by_rows],
                    Penalty::Rows { l0 } => [4.0 / l0 * by_rows, -4.0 * by_rows],
                    Penalty::Target { l0 } => {
                        let mean = codes as f64 / self.rows as f64;
                        [0.0, by_rows * (2.0 / l0 * (mean / l0 - 1.0))]
                    }
                    _ => [0.0, 0.0],
                };
                let tanh = match self.kind.penalty {
                    Penalty::Tanh { steepness } => Some((by_rows, steepness)),
                    _ => None,
                };
                let silent = self.silent() as f32;
                Some(Derive::Jump(Jump { theta: self.vector(0), window, to_input, by_count, tanh, silent }))
            }
            Activation::Gated => Some(Derive::Gated { bias: self.bias.value, gain, plus: self.scales.l1 }),
            _ if self.kind.penalty == Penalty::Power && !self.may_have_matrices() => {
                let (strength, p, next) = self.powers();
                Some(Derive::Power {
                    strength: strength / self.rows as f64,
                    p,
                    next: next.filter(|_| self.update.is_some()),
                })
            }
            _ if self.kind.group_count() > 1 => Some(Derive::Plus(self.scales.l1)),
            _ => None,
        }
    }

    /// Takes note of the sums of powers of a step.
    pub(super) fn note_powers(&mut self, sums: [f64; 2]) {
        if let (Some(_), Some([.., own, next])) = (self.update, &mut self.annealing) {
            [*own, *next] = sums;
        }
    }

    /// `BatchTopK`'s running threshold after a step whose smallest code was `least`: a moving mean.
    pub(super) fn follow(&mut self, least: Option<f32>) {
        const RATE: f64 = 0.01;
        if let (Some(_), Some(threshold), Some(least)) = (self.update, &mut self.threshold, least) {
            let (old, least) = (f64::from(**threshold), f64::from(least));
            **threshold = if old.is_nan() { least } else { old + RATE * (least - old) } as f32;
        }
    }
}

/// All dictionaries of a sweep.
pub(super) fn cut<'a>(sweep: &'a mut Sweep<'_>, mode: &'a mut Mode<'_>, rows: usize) -> Vec<Dictionary<'a>> {
    let d = sweep.d;
    let divisor = if sweep.loss.mean { rows as f64 * d as f64 } else { rows as f64 };
    let Sweep { sizes, l1, lr, loss, .. } = *sweep;
    let mut encoder = sweep.encoder.as_mut().map(Trained::reborrow);
    let (mut bias, mut decoder) = (sweep.bias.reborrow(), sweep.decoder.reborrow());
    let mut pre_bias = sweep.pre_bias.as_mut().map(Trained::reborrow);
    let step = if let Mode::Step { t, factors } = mode { Some((*t, *factors)) } else { None };
    let mut gradients = if let Mode::Gradients(out) = mode { Some(out.reborrow()) } else { None };
    let mut fired = &mut *sweep.fired;
    let (mut lag, rates) = match &mut sweep.idle {
        Some(idle) if step.is_some() => (Some(&mut *idle.lag), &*idle.rates),
        _ => (None, Default::default()),
    };
    let (of, mut vectors, mut since, mut threshold, mut annealing) = match &mut sweep.kinds {
        Some(Kinds { of, theta, magnitude, gain, since, threshold, annealing }) => {
            let vectors = [theta, magnitude, gain].map(|vector| vector.as_mut().map(Trained::reborrow));
            (*of, vectors, since.as_deref_mut(), threshold.as_deref_mut(), annealing.as_deref_mut())
        }
        None => (&[][..], [None, None, None], None, None, None),
    };
    let cut_one = |(k, &n): (usize, &usize)| {
        let kind = of.get(k).unwrap_or(&RELU);
        let factor = step.map_or(1.0, |(_, factors)| factors.l1);
        let annealing = annealing.as_mut().and_then(|annealing| annealing.split_off_mut(..ANNEALING));
        let annealing: Option<&mut [f64; ANNEALING]> = annealing.and_then(|annealing| annealing.first_chunk_mut());
        let penalty = match (kind.penalty, &annealing) {
            (Penalty::L1, _) if loss.per_size => l1[k] / n as f64,
            (Penalty::L1, _) => l1[k],
            (Penalty::Power, Some([strength, ..])) => *strength,
            _ => 0.0,
        };
        let penalty = penalty * factor;
        let rate = rates.get(k).copied().unwrap_or(0.0);
        let counted = fired.split_off_mut(..n).unwrap_or_default();
        let since = since.as_mut().and_then(|since| since.split_off_mut(..n)).filter(|_| kind.aux.is_some());
        let threshold = threshold.as_mut().and_then(|threshold| threshold.split_off_first_mut());
        Dictionary {
            kind,
            strength: kind.strength * factor / rows as f64,
            factor,
            rows,
            own: Kinds::split_off(&mut vectors, kind, n),
            since,
            threshold,
            annealing,
            encoder: encoder.as_mut().map(|encoder| encoder.split_off(n * d)),
            bias: bias.split_off(n),
            decoder: decoder.split_off(n * d),
            pre_bias: pre_bias.as_mut().map(|pre_bias| pre_bias.split_off(d)),
            fired: gradients.is_none().then_some(counted),
            lag: lag.as_mut().and_then(|lag| lag.split_off_mut(..n)),
            gradients: gradients.as_mut().map(|out| out.split_off(n, d, kind)),
            scales: Scales {
                error: (2.0 / (divisor * kind.group_count() as f64)) as f32,
                l1: (penalty / rows as f64) as f32,
            },
            update: step.map(|(t, factors)| Update {
                adam: Adam::new(t, lr[k] * factors.lr),
                project: loss.project,
                look: (rate > 0.0).then(|| Look::new(t, rate)),
            }),
        }
    };
    sizes.iter().enumerate().map(cut_one).collect()
}
