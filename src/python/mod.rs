//! The only files that name `PyO3`: explicit signatures, the GIL released around work, no logic.
#![allow(clippy::needless_pass_by_value)] // arguments arrive as values made from Python objects
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::error::Error;

mod attention;
mod compare;
mod consensus;
mod conversion;
mod cpu;
mod crossentropy;
mod engine;
mod kinds;
mod lock;
mod signals;
mod store;
mod stream;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        Python::attach(|py| {
            let class = py
                .import("sparsecode.errors")
                .and_then(|errors| errors.getattr(error.class()))
                .and_then(|class| class.cast_into::<PyType>().map_err(PyErr::from));
            match class {
                Ok(class) => PyErr::from_type(class, error.to_string()),
                Err(missing) => missing,
            }
        })
    }
}

/// The native core of sparsecode.
#[pymodule]
mod _core {
    use pyo3::prelude::*;
    use pyo3::types::PyTuple;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::threads::know_process();
        module.add("INSTRUCTION_SETS", PyTuple::new(module.py(), crate::vector::isa::NAMES)?)
    }

    #[pymodule_export]
    use super::attention::{attention_backward, attention_forward};
    #[pymodule_export]
    use super::compare::{assign, best_of_all, match_one_to_one, nearest};
    #[pymodule_export]
    use super::consensus::cluster;
    #[pymodule_export]
    use super::cpu::cpu_features;
    #[pymodule_export]
    use super::crossentropy::cross_entropy;
    #[pymodule_export]
    use super::engine::{CpuEngine, SweepView, kth_largest};
    #[pymodule_export]
    use super::lock::FileLock;
    #[pymodule_export]
    use super::store::{Dataset, DatasetParts, DatasetWriter, dataset_damage, read_shard_header};
    #[pymodule_export]
    use super::stream::{Batch, Stream};
}
