//! `cross_entropy` for Python: arrays through the buffer protocol, the GIL released.
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

use super::conversion::{slice, slice_mut};
use crate::error::{Error, Result};
use crate::lm::crossentropy::{self, Output};

/// Mean cross-entropy of rows against an embedding, with its gradients.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // PyO3 hands buffers over
#[pyo3(signature = (h, weight, targets, *, dh=None, dweight=None, threads))]
pub fn cross_entropy(
    py: Python<'_>,
    h: PyBuffer<f32>,
    weight: PyBuffer<f32>,
    targets: PyBuffer<i64>,
    mut dh: Option<PyBuffer<f32>>,
    mut dweight: Option<PyBuffer<f32>>,
    threads: usize,
) -> Result<f64> {
    let &[_, width] = weight.shape() else {
        return Err(Error::InvalidArgument("cross_entropy: weight must have two dimensions".into()));
    };
    let output = match (&mut dh, &mut dweight) {
        (Some(dh), Some(dw)) => Some(Output { dh: slice_mut(dh, "dh")?, dw: slice_mut(dw, "dweight")? }),
        (None, None) => None,
        _ => return Err(Error::InvalidArgument("cross_entropy: dh and dweight come together".into())),
    };
    let (h, w, targets) = (slice(&h, "h")?, slice(&weight, "weight")?, slice(&targets, "targets")?);
    py.detach(|| crossentropy::cross_entropy(h, w, targets, width, threads, output))
}
