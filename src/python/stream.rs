//! The stream of batches for Python; a batch lends its memory through the buffer protocol.
use std::ffi::{c_int, c_void};

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::conversion::Bytes;
use super::signals::Interrupt;
use super::store::Dataset;
use crate::error::{Error, Result};
use crate::stream::{self, Mode, Settings};

/// An endless sequence of batches.
#[pyclass(module = "sparsecode._core")]
pub struct Stream {
    /// Rust code of this crate (the training engine) takes batches from here without Python.
    pub inner: stream::Stream,
}

#[pymethods]
impl Stream {
    #[new]
    #[pyo3(signature = (dataset, *, batch_size, seed, start_row, stop_row, position, window_bytes, raw, mean, scale, threads, prefetch, rank, world_size))]
    fn new(
        dataset: &Dataset,
        batch_size: usize,
        seed: u64,
        start_row: u64,
        stop_row: u64,
        position: u64,
        window_bytes: Option<u64>,
        raw: bool,
        mean: Option<Vec<f32>>,
        scale: f32,
        threads: usize,
        prefetch: usize,
        rank: u64,
        world_size: u64,
    ) -> Result<Self> {
        let mode = window_bytes.map_or(Mode::Exact, |bytes| Mode::Windowed { bytes });
        let rows = start_row..stop_row;
        let settings =
            Settings { batch_size, seed, rows, position, mode, raw, mean, scale, threads, prefetch, rank, world_size };
        Ok(Self { inner: stream::Stream::new(std::sync::Arc::clone(&dataset.inner), settings)? })
    }

    #[getter]
    fn position(&self) -> u64 {
        self.inner.position()
    }

    /// The next batch; an interrupt (Ctrl-C) ends the wait for it.
    fn next(&mut self, py: Python<'_>) -> PyResult<Batch> {
        let inner = &mut self.inner;
        let mut interrupt = Interrupt::default();
        let batch = py.detach(|| inner.next_batch_until(&mut || interrupt.came()))?;
        if let Some(raised) = interrupt.raised() {
            return Err(raised);
        }
        batch.map(|inner| Batch { inner }).ok_or_else(|| Error::InvalidArgument("interrupted".to_owned()).into())
    }

    /// Writes the next batch into a float32 array.
    #[pyo3(signature = (out))]
    fn next_into(&mut self, py: Python<'_>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut out = Bytes::new(out)?;
        let inner = &mut self.inner;
        Ok(py.detach(|| inner.next_into(out.values_mut()?))?)
    }

    fn close(&mut self, py: Python<'_>) {
        let inner = &mut self.inner;
        py.detach(|| inner.close());
    }
}

/// One batch of rows: memory that goes back to its stream when the last view of it is gone.
#[pyclass(module = "sparsecode._core")]
pub struct Batch {
    inner: stream::Batch,
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.inner.bytes().len()
    }

    // SAFETY: Python calls it with a view to fill; see below.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let mut this = slf.borrow_mut();
        let bytes = this.inner.bytes_mut();
        let (start, length) = (bytes.as_mut_ptr().cast::<c_void>(), bytes.len() as ffi::Py_ssize_t);
        drop(this);
        // SAFETY: the memory lives as long as this object, which the view holds; it never moves.
        let failed = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, length, 0, flags) };
        if failed == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
