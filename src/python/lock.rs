//! `FileLock` for Python: a context manager.
use std::path::PathBuf;

use pyo3::prelude::*;

use crate::error::Result;
use crate::lock;

/// An exclusive lock on a file, held from construction until `release`.
#[pyclass(module = "sparsecode._core")]
pub struct FileLock {
    held: Option<lock::FileLock>,
}

#[pymethods]
impl FileLock {
    #[new]
    #[pyo3(signature = (path))]
    fn new(path: PathBuf) -> Result<Self> {
        Ok(Self { held: Some(lock::FileLock::acquire(&path)?) })
    }

    #[staticmethod]
    #[pyo3(signature = (path))]
    fn wait(py: Python<'_>, path: PathBuf) -> Result<Self> {
        let held = py.detach(|| lock::FileLock::wait(&path))?;
        Ok(Self { held: Some(held) })
    }

    fn release(&mut self) {
        self.held = None;
    }
}
