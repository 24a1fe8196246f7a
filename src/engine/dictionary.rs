//! One dictionary of a sweep, as a step sees it: its own parts of all tensors, its scales and its update.

use super::adam::Adam;
use super::features::{Trained, Update};
use super::idle::Look;
use super::rows::Scales;
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

/// Dictionary `k` of a sweep, which owns the features in `own`.
pub(super) fn cut<'a>(
    sweep: &'a mut Sweep<'_>,
    mode: &'a mut Mode<'_>,
    rows: usize,
    k: usize,
    own: std::ops::Range<usize>,
) -> Dictionary<'a> {
    let d = sweep.d;
    let (wide, pre) = (own.start * d..own.end * d, k * d..(k + 1) * d);
    let divisor = if sweep.loss.mean { rows as f64 * d as f64 } else { rows as f64 };
    let penalty = if sweep.loss.per_size { sweep.l1[k] / own.len() as f64 } else { sweep.l1[k] };
    let scales = Scales { error: (2.0 / divisor) as f32, l1: (penalty / rows as f64) as f32 };
    let update = match mode {
        Mode::Step { t, lr_scale } => {
            let rate = sweep.idle.as_ref().map_or(0.0, |idle| idle.rates[k]);
            Some(Update {
                adam: Adam::new(*t, sweep.lr[k] * *lr_scale),
                project: sweep.loss.project,
                look: (rate > 0.0).then(|| Look::new(*t, rate)),
            })
        }
        _ => None,
    };
    let gradients = match mode {
        Mode::Gradients(out) => Some(GradientsOut {
            encoder: out.encoder.as_mut().map(|encoder| &mut encoder[wide.clone()]),
            bias: &mut out.bias[own.clone()],
            decoder: &mut out.decoder[wide.clone()],
            pre_bias: out.pre_bias.as_mut().map(|pre_bias| &mut pre_bias[pre.clone()]),
        }),
        _ => None,
    };
    Dictionary {
        encoder: sweep.encoder.as_mut().map(|encoder| encoder.part(wide.clone())),
        bias: sweep.bias.part(own.clone()),
        decoder: sweep.decoder.part(wide),
        pre_bias: sweep.pre_bias.as_mut().map(|pre_bias| pre_bias.part(pre)),
        fired: gradients.is_none().then_some(&mut sweep.fired[own.clone()]),
        lag: update.is_some().then(|| sweep.idle.as_mut().map(|idle| &mut idle.lag[own])).flatten(),
        gradients,
        scales,
        update,
    }
}
