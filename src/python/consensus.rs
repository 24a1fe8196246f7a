//! Clusters for Python: arrays through the buffer protocol, the GIL released.
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

use super::conversion::{slice, slice_mut};
use crate::consensus::{self, Input, Output};
use crate::error::Error;

/// Clusters of features of several dictionaries.
#[pyfunction]
#[pyo3(signature = (atoms, sizes, pairs, cosine, links, live, label, votes, sign, closeness, *, threshold, absolute))]
pub fn cluster(
    py: Python<'_>,
    atoms: PyBuffer<f32>,
    sizes: Vec<usize>,
    pairs: (PyBuffer<i32>, PyBuffer<i32>),
    cosine: PyBuffer<f32>,
    links: (PyBuffer<i32>, PyBuffer<i32>),
    live: PyBuffer<u8>,
    mut label: PyBuffer<i32>,
    mut votes: PyBuffer<u8>,
    mut sign: PyBuffer<i8>,
    mut closeness: PyBuffer<f64>,
    threshold: f64,
    absolute: bool,
) -> PyResult<()> {
    let &[_, width] = atoms.shape() else {
        return Err(Error::InvalidArgument("atoms must have two dimensions".to_owned()).into());
    };
    let input = Input {
        atoms: slice(&atoms, "atoms")?,
        width,
        sizes: &sizes,
        pairs: (slice(&pairs.0, "pairs")?, slice(&pairs.1, "pairs")?),
        cosine: slice(&cosine, "cosine")?,
        links: (slice(&links.0, "links")?, slice(&links.1, "links")?),
        live: slice(&live, "live")?,
        threshold,
        absolute,
    };
    let out = Output {
        label: slice_mut(&mut label, "label")?,
        votes: slice_mut(&mut votes, "votes")?,
        sign: slice_mut(&mut sign, "sign")?,
        closeness: slice_mut(&mut closeness, "closeness")?,
    };
    Ok(py.detach(|| consensus::cluster(&input, out))?)
}
