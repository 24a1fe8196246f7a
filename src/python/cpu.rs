//! What the processor can do, for `sparsecode doctor`.
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::cpu;

/// The widest vector instruction set with code here, and which low-precision products there are.
#[pyfunction]
#[pyo3(signature = ())]
pub fn cpu_features(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let found = cpu::cpu();
    let features = PyDict::new(py);
    features.set_item("simd", found.level.name())?;
    features.set_item("avx512_bf16", found.avx512_bf16)?;
    features.set_item("avx512_vnni", found.avx512_vnni)?;
    features.set_item("avx_vnni", found.avx_vnni)?;
    features.set_item("amx_bf16", found.amx_bf16)?;
    Ok(features)
}
