//! `attention_forward` and `attention_backward` for Python.
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

use super::conversion::{slice, slice_mut};
use crate::error::{Error, Result};
use crate::lm::attention::{self, Shape};

/// Sizes from `qkv` [B,T,3C] and the number of heads.
fn shape(qkv: &PyBuffer<f32>, heads: usize) -> Result<Shape> {
    match *qkv.shape() {
        [batch, positions, columns] if heads > 0 && columns % (3 * heads) == 0 => {
            Ok(Shape { batch, positions, heads, width: columns / (3 * heads) })
        }
        _ => Err(Error::InvalidArgument(format!("attention: qkv must be [B,T,3C] with {heads} heads in C"))),
    }
}

/// Causal attention of queries, keys and values.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // PyO3 hands buffers over
#[pyo3(signature = (qkv, z, lse, *, heads, threads))]
pub fn attention_forward(
    py: Python<'_>,
    qkv: PyBuffer<f32>,
    mut z: PyBuffer<f32>,
    mut lse: PyBuffer<f32>,
    heads: usize,
    threads: usize,
) -> Result<()> {
    let shape = shape(&qkv, heads)?;
    let (qkv, z, lse) = (slice(&qkv, "qkv")?, slice_mut(&mut z, "z")?, slice_mut(&mut lse, "lse")?);
    py.detach(|| attention::forward(shape, qkv, z, lse, threads))
}

/// The gradient of `attention_forward`.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // PyO3 hands buffers over
#[pyo3(signature = (qkv, z, lse, dz, dqkv, *, heads, threads))]
pub fn attention_backward(
    py: Python<'_>,
    qkv: PyBuffer<f32>,
    z: PyBuffer<f32>,
    lse: PyBuffer<f32>,
    dz: PyBuffer<f32>,
    mut dqkv: PyBuffer<f32>,
    heads: usize,
    threads: usize,
) -> Result<()> {
    let shape = shape(&qkv, heads)?;
    let (qkv, z, lse, dz) = (slice(&qkv, "qkv")?, slice(&z, "z")?, slice(&lse, "lse")?, slice(&dz, "dz")?);
    let dqkv = slice_mut(&mut dqkv, "dqkv")?;
    py.detach(|| attention::backward(shape, qkv, z, lse, dz, dqkv, threads))
}
