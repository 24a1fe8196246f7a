//! Comparison for Python: arrays through the buffer protocol, the GIL released, signals heard.
use std::time::{Duration, Instant};

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::conversion::{slice, slice_mut};
use crate::compare::{self, Best, Nearest, Settings};
use crate::error::{Error, Result};
use crate::vector::isa::Isa;

/// How often Python is asked whether somebody pressed Ctrl-C, and told how far the work is.
const LOOK: Duration = Duration::from_millis(50);

/// Hears signals and tells of progress while the core works.
struct Watcher {
    advance: Option<Py<PyAny>>,
    last: Instant,
    pairs: u64,
    failure: Option<PyErr>,
}

impl Watcher {
    fn new(advance: Option<Py<PyAny>>) -> Self {
        Self { advance, last: Instant::now(), pairs: 0, failure: None }
    }

    fn look(&mut self, pairs: u64) -> bool {
        self.pairs += pairs;
        if self.failure.is_none() && self.last.elapsed() > LOOK {
            self.last = Instant::now();
            self.failure = Python::attach(|py| py.check_signals().and_then(|()| self.tell(py))).err();
        }
        self.failure.is_some()
    }

    fn tell(&mut self, py: Python<'_>) -> PyResult<()> {
        let pairs = std::mem::take(&mut self.pairs);
        self.advance.as_ref().map_or(Ok(()), |advance| advance.call1(py, (pairs,)).map(drop))
    }

    /// The work's result, once it was not stopped.
    fn end<T>(mut self, py: Python<'_>, found: Option<T>) -> PyResult<T> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.tell(py)?;
        found.ok_or_else(|| Error::InvalidArgument("the comparison was stopped".to_owned()).into())
    }
}

fn matrix<'a>(of: &'a PyBuffer<f32>, name: &str) -> Result<(&'a [f32], usize)> {
    let &[_, d] = of.shape() else {
        return Err(Error::InvalidArgument(format!("{name} must have two dimensions")));
    };
    Ok((slice(of, name)?, d))
}

fn pair<'a>(a: &'a PyBuffer<f32>, b: &'a PyBuffer<f32>) -> Result<(&'a [f32], &'a [f32], usize)> {
    let ((a, d), (b, other)) = (matrix(a, "a")?, matrix(b, "b")?);
    if d != other {
        return Err(Error::InvalidArgument(format!("a has rows of {d}, b of {other}")));
    }
    Ok((a, b, d))
}

/// The nearest atom in every dictionary of each atom of every other.
#[pyfunction]
#[pyo3(signature = (atoms, sizes, live, cosine, index, live_cosine, *, absolute, path, threads, advance=None))]
pub fn best_of_all(
    py: Python<'_>,
    atoms: PyBuffer<f32>,
    sizes: Vec<usize>,
    live: Option<PyBuffer<u8>>,
    mut cosine: PyBuffer<f32>,
    mut index: PyBuffer<i32>,
    mut live_cosine: Option<PyBuffer<f32>>,
    absolute: bool,
    path: &str,
    threads: usize,
    advance: Option<Py<PyAny>>,
) -> PyResult<()> {
    let path = Isa::named(path)?;
    let atoms = matrix(&atoms, "atoms")?;
    let live = live.as_ref().map_or(Ok(&[][..]), |live| slice(live, "live"))?;
    let out = Best {
        cosine: slice_mut(&mut cosine, "cosine")?,
        index: slice_mut(&mut index, "index")?,
        live_cosine: live_cosine.as_mut().map_or(Ok(&mut [][..]), |values| slice_mut(values, "live_cosine"))?,
    };
    let mut watcher = Watcher::new(advance);
    let finished = py.detach(|| {
        let watch = &mut |pairs| watcher.look(pairs);
        compare::best_of_all(&path, threads, atoms, &sizes, live, absolute, out, watch)
    })?;
    watcher.end(py, finished.then_some(()))
}

/// The nearest atoms of each atom of a in b, and of each of b in a: as many as the rows of the arrays hold.
#[pyfunction]
#[pyo3(signature = (a, b, of_a, of_b, *, absolute, path, threads, advance=None))]
pub fn nearest(
    py: Python<'_>,
    a: PyBuffer<f32>,
    b: PyBuffer<f32>,
    mut of_a: (PyBuffer<f32>, PyBuffer<i32>),
    mut of_b: (PyBuffer<f32>, PyBuffer<i32>),
    absolute: bool,
    path: &str,
    threads: usize,
    advance: Option<Py<PyAny>>,
) -> PyResult<()> {
    let path = Isa::named(path)?;
    let atoms = pair(&a, &b)?;
    let wanted = |lists: &PyBuffer<f32>| lists.shape().last().copied().unwrap_or(0);
    let k = wanted(&of_a.0).max(wanted(&of_b.0));
    let mut watcher = Watcher::new(advance);
    let found = py.detach(|| compare::nearest(&path, threads, atoms, k, absolute, &mut |pairs| watcher.look(pairs)))?;
    let Nearest { of_a: lists_a, of_b: lists_b } = watcher.end(py, found)?;
    for (lists, out) in [(lists_a, &mut of_a), (lists_b, &mut of_b)] {
        lists.write(slice_mut(&mut out.0, "cosines")?, slice_mut(&mut out.1, "indices")?)?;
    }
    Ok(())
}

/// The one-to-one matching with the largest sum of cosines; gives rounds, edges, bound and seconds.
#[pyfunction]
#[pyo3(signature = (a, b, partner, cosine, *, candidates, absolute, path, threads, advance=None))]
pub fn match_one_to_one(
    py: Python<'_>,
    a: PyBuffer<f32>,
    b: PyBuffer<f32>,
    mut partner: PyBuffer<i32>,
    mut cosine: PyBuffer<f32>,
    candidates: usize,
    absolute: bool,
    path: &str,
    threads: usize,
    advance: Option<Py<PyAny>>,
) -> PyResult<Py<PyDict>> {
    let path = Isa::named(path)?;
    let atoms = pair(&a, &b)?;
    let settings = Settings { candidates, absolute, threads };
    let mut watcher = Watcher::new(advance);
    let found = py.detach(|| compare::match_one_to_one(&path, atoms, settings, &mut |pairs| watcher.look(pairs)))?;
    let found = watcher.end(py, found)?;
    found.write(slice_mut(&mut partner, "partner")?, slice_mut(&mut cosine, "cosine")?)?;
    let about = PyDict::new(py);
    about.set_item("rounds", found.rounds)?;
    about.set_item("candidates", found.edges)?;
    about.set_item("bound", found.bound)?;
    about.set_item("seconds", found.seconds)?;
    Ok(about.unbind())
}

/// The heaviest matching of a sparse graph with integer weights above 0, and its dual variables: (column of each row or
/// -1, u, v).
#[pyfunction]
#[pyo3(signature = (starts, columns, weights, width))]
pub fn assign(
    starts: Vec<usize>,
    columns: Vec<u32>,
    weights: Vec<i64>,
    width: usize,
) -> PyResult<(Vec<i64>, Vec<i64>, Vec<i64>)> {
    let edges = compare::Edges { starts, columns, weights };
    let found = compare::assign(&edges.checked(width)?, width, &mut |_| false);
    let found = found.ok_or_else(|| Error::InvalidArgument("assign: stopped".to_owned()))?;
    Ok((found.columns(), found.u, found.v))
}
