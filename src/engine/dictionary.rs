//! One dictionary of a sweep, as a step sees it: its own parts of all tensors, its scales and its update.
use super::adam::Adam;
use super::features::Update;
use super::idle::Look;
use super::parameters::{Scales, Trained};
use super::sweep::{GradientsOut, Mode, Sweep};

/// One dictionary of a sweep.
pub(super) struct Dictionary<'a> {
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
    let cut_one = |(k, &n): (usize, &usize)| {
        let penalty = if loss.per_size { l1[k] / n as f64 } else { l1[k] };
        let penalty = penalty * step.map_or(1.0, |(_, factors)| factors.l1);
        let rate = rates.get(k).copied().unwrap_or(0.0);
        let counted = fired.split_off_mut(..n).unwrap_or_default();
        Dictionary {
            encoder: encoder.as_mut().map(|encoder| encoder.split_off(n * d)),
            bias: bias.split_off(n),
            decoder: decoder.split_off(n * d),
            pre_bias: pre_bias.as_mut().map(|pre_bias| pre_bias.split_off(d)),
            fired: gradients.is_none().then_some(counted),
            lag: lag.as_mut().and_then(|lag| lag.split_off_mut(..n)),
            gradients: gradients.as_mut().map(|out| out.split_off(n, d)),
            scales: Scales { error: (2.0 / divisor) as f32, l1: (penalty / rows as f64) as f32 },
            update: step.map(|(t, factors)| Update {
                adam: Adam::new(t, lr[k] * factors.lr),
                project: loss.project,
                look: (rate > 0.0).then(|| Look::new(t, rate)),
            }),
        }
    };
    sizes.iter().enumerate().map(cut_one).collect()
}
