//! The activation store for Python: writing and opening datasets.
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;

use super::conversion::Bytes;
use super::signals::interruptible;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::shard::commit::{self, Durability};
use crate::shard::dataset::Out;
use crate::shard::open::read_header;
use crate::shard::{self, Access, Marks, NonFinite, Verify, WriterSettings};
use crate::stored::Normalize;

/// Settings from those that Python gives.
fn settings_of(
    activation_dim: usize,
    dtype: &str,
    contexts: bool,
    provenance: &str,
    shard_bytes: u64,
    durable: bool,
    threads: usize,
    direct: bool,
) -> Result<WriterSettings> {
    let provenance = serde_json::from_str(provenance)
        .map_err(|e| Error::InvalidArgument(format!("provenance is not a JSON object ({e})")))?;
    Ok(WriterSettings {
        dim: activation_dim,
        dtype: Dtype::named(dtype)?,
        contexts,
        provenance,
        shard_bytes,
        non_finite: NonFinite::Error,
        durability: if durable { Durability::Power } else { Durability::Process },
        threads,
        direct,
    })
}

/// A dataset whose shards are made apart, by several processes.
#[pyclass(module = "sparsecode._core", frozen)]
pub struct DatasetParts {
    inner: shard::Parts,
}

#[pymethods]
impl DatasetParts {
    #[new]
    #[pyo3(signature = (path, activation_dim, dtype, contexts, provenance, shard_bytes, shard_rows, durable, threads, direct))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        activation_dim: usize,
        dtype: &str,
        contexts: bool,
        provenance: &str,
        shard_bytes: u64,
        shard_rows: Option<u64>,
        durable: bool,
        threads: usize,
        direct: bool,
    ) -> Result<Self> {
        let settings = settings_of(activation_dim, dtype, contexts, provenance, shard_bytes, durable, threads, direct)?;
        Ok(Self { inner: py.detach(|| shard::Parts::open(&path, settings, shard_rows))? })
    }

    #[getter]
    fn shard_rows(&self) -> u64 {
        self.inner.shard_rows()
    }

    /// The rows of every shard that is there, by its place, and whether these are all.
    fn there(&self, py: Python<'_>) -> Result<(std::collections::BTreeMap<usize, u64>, bool)> {
        py.detach(|| self.inner.there())
    }

    #[pyo3(signature = (place))]
    fn writer(&self, py: Python<'_>, place: usize) -> Result<DatasetWriter> {
        Ok(DatasetWriter { inner: Some(py.detach(|| self.inner.writer(place))?) })
    }

    #[pyo3(signature = (shards, left_out))]
    fn gather(&self, py: Python<'_>, shards: usize, left_out: std::collections::BTreeMap<String, u64>) -> Result<bool> {
        py.detach(|| self.inner.gather(shards, &left_out))
    }
}

/// The only writer of a dataset.
#[pyclass(module = "sparsecode._core")]
pub struct DatasetWriter {
    inner: Option<shard::DatasetWriter>,
}

impl DatasetWriter {
    fn open(&mut self) -> Result<&mut shard::DatasetWriter> {
        self.inner.as_mut().ok_or_else(|| Error::InvalidArgument("the writer is closed".to_owned()))
    }
}

#[pymethods]
impl DatasetWriter {
    #[new]
    #[pyo3(signature = (path, activation_dim, dtype, contexts, provenance, shard_bytes, non_finite, durable, threads, direct))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        activation_dim: usize,
        dtype: &str,
        contexts: bool,
        provenance: &str,
        shard_bytes: u64,
        non_finite: &str,
        durable: bool,
        threads: usize,
        direct: bool,
    ) -> Result<Self> {
        let settings = WriterSettings {
            non_finite: NonFinite::named(non_finite)?,
            ..settings_of(activation_dim, dtype, contexts, provenance, shard_bytes, durable, threads, direct)?
        };
        let inner = py.detach(|| shard::DatasetWriter::open(&path, settings))?;
        Ok(Self { inner: Some(inner) })
    }

    #[getter]
    fn rows(&mut self) -> Result<u64> {
        Ok(self.open()?.rows())
    }

    #[getter]
    fn consumed(&mut self) -> Result<u64> {
        Ok(self.open()?.consumed())
    }

    #[pyo3(signature = (activations, dtype, tokens, contexts))]
    fn append(
        &mut self,
        py: Python<'_>,
        activations: &Bound<'_, PyAny>,
        dtype: &str,
        tokens: &Bound<'_, PyAny>,
        contexts: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (data, tokens, contexts) = (Bytes::new(activations)?, Bytes::new(tokens)?, Bytes::new(contexts)?);
        let dtype = Dtype::named(dtype)?;
        let writer = self.open()?;
        let marks = Marks { tokens: tokens.values()?, contexts: contexts.values()? };
        Ok(py.detach(|| writer.append(data.get(), dtype, marks))?)
    }

    #[pyo3(signature = (rows))]
    fn count_dropped(&mut self, rows: u64) -> Result<()> {
        self.open()?.count_dropped(rows);
        Ok(())
    }

    #[pyo3(signature = (counts))]
    fn note_left_out(&mut self, counts: std::collections::BTreeMap<String, u64>) -> Result<()> {
        self.open()?.note_left_out(counts);
        Ok(())
    }

    fn finish(&mut self, py: Python<'_>) -> Result<()> {
        let writer = self.open()?;
        py.detach(|| writer.finish())?;
        self.inner = None;
        Ok(())
    }

    fn close(&mut self, py: Python<'_>) {
        let writer = self.inner.take();
        py.detach(|| drop(writer));
    }
}

/// A dataset open for reading.
#[pyclass(module = "sparsecode._core", frozen)]
pub struct Dataset {
    pub inner: Arc<shard::Dataset>,
}

#[pymethods]
impl Dataset {
    #[new]
    #[pyo3(signature = (path, access, verify))]
    fn new(py: Python<'_>, path: PathBuf, access: &str, verify: &str) -> Result<Self> {
        let (access, verify) = (Access::named(access)?, Verify::named(verify)?);
        let inner = py.detach(|| shard::Dataset::open(&path, access, verify))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    #[getter]
    fn rows(&self) -> u64 {
        self.inner.rows()
    }

    #[getter]
    fn activation_dim(&self) -> usize {
        self.inner.dim()
    }

    #[getter]
    fn dtype(&self) -> &'static str {
        self.inner.manifest().dtype.name()
    }

    #[getter]
    fn complete(&self) -> bool {
        self.inner.manifest().complete
    }

    #[getter]
    fn provenance(&self) -> String {
        serde_json::Value::Object(self.inner.manifest().provenance.clone()).to_string()
    }

    #[getter]
    fn fingerprint(&self) -> String {
        self.inner.manifest().fingerprint()
    }

    #[getter]
    fn mean(&self) -> Vec<f64> {
        self.inner.manifest().moments.mean.clone()
    }

    /// (rms, variance, rows dropped for NaN or infinities)
    #[getter]
    fn spread(&self) -> (f64, f64, u64) {
        let manifest = self.inner.manifest();
        (manifest.moments.rms(), manifest.moments.variance(), manifest.non_finite)
    }

    /// (file name, rows, bytes, digest) of every shard
    #[getter]
    fn shards(&self) -> Vec<(String, u64, u64, String)> {
        let shards = self.inner.manifest().shards.iter().enumerate();
        shards.map(|(i, s)| (commit::shard_name(i), s.rows, s.bytes, format!("{:032x}", s.digest))).collect()
    }

    #[getter]
    fn shard_rows(&self) -> u64 {
        self.inner.manifest().shard_rows
    }

    #[getter]
    fn block_rows(&self) -> u64 {
        self.inner.manifest().block_rows
    }

    #[pyo3(signature = (start, stop, out, raw))]
    fn read_into(&self, py: Python<'_>, start: u64, stop: u64, out: &Bound<'_, PyAny>, raw: bool) -> PyResult<()> {
        let mut out = Bytes::new(out)?;
        Ok(py.detach(|| {
            let out = if raw { Out::Raw(out.get_mut()?) } else { Out::F32(out.values_mut()?, Normalize::No) };
            self.inner.read(start..stop, out)
        })?)
    }

    #[pyo3(signature = (start, stop, out))]
    fn tokens_into(&self, py: Python<'_>, start: u64, stop: u64, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut out = Bytes::new(out)?;
        Ok(py.detach(|| self.inner.tokens(start..stop, out.values_mut()?))?)
    }

    /// Rows that were never appended, by the reason.
    #[getter]
    fn left_out(&self) -> std::collections::BTreeMap<String, u64> {
        self.inner.manifest().left_out.clone()
    }

    /// Whether the shards say the context of each row.
    #[getter]
    fn has_contexts(&self) -> bool {
        self.inner.manifest().contexts
    }

    #[pyo3(signature = (rows, out))]
    fn contexts_into(&self, py: Python<'_>, rows: &Bound<'_, PyAny>, out: &Bound<'_, PyAny>) -> PyResult<()> {
        let (rows, mut out) = (Bytes::new(rows)?, Bytes::new(out)?);
        Ok(py.detach(|| self.inner.contexts(rows.values()?, out.values_mut()?))?)
    }

    /// (file name, what is wrong) of every shard whose digests do not fit; an interrupt (Ctrl-C) ends it.
    #[pyo3(signature = (threads))]
    fn bad_shards(&self, py: Python<'_>, threads: usize) -> PyResult<Vec<(String, String)>> {
        listed(interruptible(py, |stop| self.inner.bad_shards(threads, stop)))
    }
}

/// (file name, what is wrong) of every shard of the dataset at `path` that cannot be opened or does not fit its digests.
#[pyfunction]
#[pyo3(signature = (path, threads))]
pub fn dataset_damage(py: Python<'_>, path: PathBuf, threads: usize) -> PyResult<Vec<(String, String)>> {
    let bad = interruptible(py, |stop| shard::dataset::damage(&path, threads, stop))?;
    listed(bad.map_err(PyErr::from))
}

fn listed(bad: PyResult<Vec<(usize, Error)>>) -> PyResult<Vec<(String, String)>> {
    Ok(bad?.into_iter().map(|(shard, error)| (commit::shard_name(shard), error.to_string())).collect())
}

/// Checks the header of a shard by itself: (rows, dim, dtype).
#[pyfunction]
#[pyo3(signature = (path))]
pub fn read_shard_header(py: Python<'_>, path: PathBuf) -> Result<(u64, u64, &'static str)> {
    let header = py.detach(|| read_header(&path))?;
    Ok((header.rows, header.dim, header.dtype.name()))
}
