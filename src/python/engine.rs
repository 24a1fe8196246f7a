//! `SweepView` and `CpuEngine` for Python: tensors come as objects with the buffer protocol and are changed in place.
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::conversion::{Tensor, check_apart};
use super::kinds::kind;
use super::signals::Interrupt;
use super::stream::Stream;
use crate::engine::{
    self, Activations, CodesAs, Factors, GradientsOut, Idle, Kind, Kinds, Loss, Mode, Sweep, Totals, Trained,
};
use crate::error::{Error, Result};
use crate::vector::isa::Isa;

/// A parameter with its moments.
struct Triple([Tensor<f32>; 3]);

type Triples<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

impl Triple {
    fn open(name: &str, from: &Triples<'_>) -> Result<Self> {
        let part = |what: &str, from| Tensor::open(&format!("engine: {what}{name}"), from, true);
        Ok(Self([part("", &from.0)?, part("first moment of ", &from.1)?, part("second moment of ", &from.2)?]))
    }

    /// # Safety
    /// As [`Tensor::write`], for all three.
    unsafe fn trained(&self) -> Trained<'_> {
        // SAFETY: the caller answers.
        unsafe { Trained { value: self.0[0].write(), m: self.0[1].write(), v: self.0[2].write() } }
    }
}

/// The tensors and settings of a packed sweep, as the engine takes them.
#[pyclass(module = "sparsecode._core")]
pub struct SweepView {
    d: usize,
    sizes: Vec<usize>,
    l1: Vec<f64>,
    lr: Vec<f64>,
    loss: Loss,
    encoder: Option<Triple>,
    bias: Triple,
    decoder: Triple,
    pre_bias: Option<Triple>,
    fired: Tensor<i64>,
    idle: Option<(Tensor<i32>, Tensor<f32>)>,
    kinds: Option<Vec<Kind>>,
    /// Theta, magnitude and gain.
    own: [Option<Triple>; 3],
    since: Option<Tensor<i64>>,
    threshold: Option<Tensor<f32>>,
    annealing: Option<Tensor<f64>>,
}

#[pymethods]
impl SweepView {
    #[new]
    #[pyo3(signature = (activation_dim, sizes, l1, lr, *, mean, per_size, project, W_enc, b_enc, W_dec, b_dec, fired, idle = None,
        kinds = None, theta = None, b_mag = None, rho = None, since = None, threshold = None, annealing = None))]
    #[allow(non_snake_case)]
    fn new(
        activation_dim: usize,
        sizes: Vec<usize>,
        l1: Vec<f64>,
        lr: Vec<f64>,
        mean: bool,
        per_size: bool,
        project: bool,
        W_enc: Option<Triples<'_>>,
        b_enc: Triples<'_>,
        W_dec: Triples<'_>,
        b_dec: Option<Triples<'_>>,
        fired: &Bound<'_, PyAny>,
        idle: Option<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        kinds: Option<Vec<Bound<'_, PyDict>>>,
        theta: Option<Triples<'_>>,
        b_mag: Option<Triples<'_>>,
        rho: Option<Triples<'_>>,
        since: Option<Bound<'_, PyAny>>,
        threshold: Option<Bound<'_, PyAny>>,
        annealing: Option<Bound<'_, PyAny>>,
    ) -> Result<Self> {
        let own = |name, from: Option<Triples<'_>>| from.map(|from| Triple::open(name, &from)).transpose();
        let view = Self {
            d: activation_dim,
            sizes,
            l1,
            lr,
            loss: Loss { mean, per_size, project },
            encoder: W_enc.map(|from| Triple::open("W_enc", &from)).transpose()?,
            bias: Triple::open("b_enc", &b_enc)?,
            decoder: Triple::open("W_dec", &W_dec)?,
            pre_bias: b_dec.map(|from| Triple::open("b_dec", &from)).transpose()?,
            fired: Tensor::open("engine: fired", fired, true)?,
            idle: idle.map(|(lag, rates)| idle_tensors(&lag, &rates)).transpose()?,
            kinds: kinds.map(|kinds| kinds.iter().map(kind).collect()).transpose()?,
            own: [own("theta", theta)?, own("b_mag", b_mag)?, own("rho", rho)?],
            since: since.map(|since| Tensor::open("engine: since", &since, true)).transpose()?,
            threshold: threshold.map(|threshold| Tensor::open("engine: threshold", &threshold, true)).transpose()?,
            annealing: annealing.map(|annealing| Tensor::open("engine: annealing", &annealing, true)).transpose()?,
        };
        view.ranges_apart(&[])?;
        Ok(view)
    }

    /// Lets the moments of features that rest catch up: all are as if every step had worked on them.
    fn wake(&mut self, py: Python<'_>) -> Result<()> {
        self.ranges_apart(&[])?;
        // SAFETY: no two of the tensors share memory (just checked); Python code that would touch them while the GIL is
        // released breaks the documented contract of the class.
        let mut sweep = unsafe { self.sweep() };
        py.detach(|| engine::wake(&mut sweep))
    }
}

impl SweepView {
    /// Fails where two of the tensors share memory: each is borrowed alone. `more` are written to as well.
    fn ranges_apart(&self, more: &[std::ops::Range<usize>]) -> Result<()> {
        let triples = [Some(&self.bias), Some(&self.decoder), self.encoder.as_ref(), self.pre_bias.as_ref()];
        let mut ranges: Vec<_> = triples
            .into_iter()
            .flatten()
            .chain(self.own.iter().flatten())
            .flat_map(|triple| &triple.0)
            .map(Tensor::range)
            .collect();
        ranges.extend(self.since.iter().map(Tensor::range));
        ranges.extend(self.threshold.iter().map(Tensor::range));
        ranges.extend(self.annealing.iter().map(Tensor::range));
        ranges.push(self.fired.range());
        ranges.extend(self.idle.iter().flat_map(|(lag, rates)| [lag.range(), rates.range()]));
        ranges.extend_from_slice(more);
        check_apart(ranges)
    }

    /// # Safety
    /// Nothing else reads or writes the tensors while the sweep lives.
    unsafe fn sweep(&mut self) -> Sweep<'_> {
        // SAFETY: the caller answers, and `new` made sure that no two tensors overlap.
        unsafe {
            let [theta, magnitude, gain] = self.own.each_ref().map(|own| own.as_ref().map(|triple| triple.trained()));
            let kinds = self.kinds.as_ref().map(|kinds| Kinds {
                of: kinds,
                theta,
                magnitude,
                gain,
                since: self.since.as_ref().map(|since| since.write()),
                threshold: self.threshold.as_ref().map(|threshold| threshold.write()),
                annealing: self.annealing.as_ref().map(|annealing| annealing.write()),
            });
            Sweep {
                kinds,
                d: self.d,
                sizes: &self.sizes,
                l1: &self.l1,
                lr: &self.lr,
                loss: self.loss,
                encoder: self.encoder.as_ref().map(|triple| triple.trained()),
                bias: self.bias.trained(),
                decoder: self.decoder.trained(),
                pre_bias: self.pre_bias.as_ref().map(|triple| triple.trained()),
                fired: self.fired.write(),
                idle: self.idle.as_ref().map(|(lag, rates)| Idle { lag: lag.write(), rates: rates.write() }),
            }
        }
    }
}

fn idle_tensors(lag: &Bound<'_, PyAny>, rates: &Bound<'_, PyAny>) -> Result<(Tensor<i32>, Tensor<f32>)> {
    Ok((Tensor::open("engine: lag", lag, true)?, Tensor::open("engine: rates", rates, true)?))
}

/// Sums per dictionary: squared error, codes, active codes, candidates of the screen.
type Sums = (Vec<f64>, Vec<f64>, Vec<f64>, Vec<f64>);

/// The engine: threads, a path of instructions, and buffers.
#[pyclass(module = "sparsecode._core")]
pub struct CpuEngine {
    engine: engine::Engine,
}

#[pymethods]
impl CpuEngine {
    #[new]
    #[pyo3(signature = (path = "auto", threads = 1, codes = "measured"))]
    fn new(path: &str, threads: usize, codes: &str) -> Result<Self> {
        let codes = CodesAs::named(codes)?;
        Ok(Self { engine: engine::Engine::new(Isa::named(path)?, threads).with_codes(codes) })
    }

    #[staticmethod]
    fn paths() -> Vec<&'static str> {
        Isa::available()
    }

    #[getter]
    fn path(&self) -> &'static str {
        self.engine.isa().name()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.engine.threads()
    }

    #[getter]
    fn profile(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        let engine::Profile { batch, pack, rows, features, threads, busy } = self.engine.profile();
        let found = PyDict::new(py);
        let parts =
            [("screen", threads.screen), ("encode", threads.encode), ("decode", threads.decode), ("busy", busy)];
        for (name, seconds) in
            [("batch", batch), ("pack", pack), ("rows", rows), ("features", features)].into_iter().chain(parts)
        {
            found.set_item(name, seconds)?;
        }
        Ok(found.unbind())
    }

    #[getter]
    fn bytes(&self) -> usize {
        self.engine.bytes()
    }

    #[pyo3(signature = (sweep, x, t, lr_scale, l1_factor))]
    fn step(
        &mut self,
        py: Python<'_>,
        sweep: &mut SweepView,
        x: &Bound<'_, PyAny>,
        t: u64,
        lr_scale: f64,
        l1_factor: f64,
    ) -> Result<Sums> {
        self.run(py, sweep, x, Mode::Step { t, factors: Factors { lr: lr_scale, l1: l1_factor } }, &[])
    }

    /// Steps on the next batches of a stream; gives how many were done, `sums` with theirs added, and what stopped them
    /// early: the caller takes note of the steps, then raises it.
    #[pyo3(signature = (sweep, stream, t, schedule, sums = None))]
    fn train(
        &mut self,
        py: Python<'_>,
        sweep: &mut SweepView,
        stream: &mut Stream,
        t: u64,
        schedule: Vec<(f64, f64)>,
        sums: Option<Sums>,
    ) -> Result<(usize, Sums, Option<Py<PyBaseException>>)> {
        sweep.ranges_apart(&[])?;
        let totals = match sums {
            None => Totals::zeros(sweep.sizes.len()),
            Some((sse, l1, l0, candidates)) => Totals { sse, l1, l0, candidates },
        };
        // SAFETY: no two of the tensors share memory (just checked); Python code that would write to one of them while
        // the GIL is released breaks the documented contract of the class.
        let mut view = unsafe { sweep.sweep() };
        let (engine, stream) = (&mut self.engine, &mut stream.inner);
        let schedule: Vec<_> = schedule.into_iter().map(|(lr, l1)| Factors { lr, l1 }).collect();
        let mut interrupt = Interrupt::default();
        let found = py.detach(|| engine.train(&mut view, stream, t, &schedule, totals, &mut || interrupt.came()));
        let stopped = found.failure.map(PyErr::from).or(interrupt.raised()).map(|error| error.into_value(py));
        let Totals { sse, l1, l0, candidates } = found.totals;
        Ok((found.steps, (sse, l1, l0, candidates), stopped))
    }

    #[pyo3(signature = (sweep, x))]
    fn evaluate(&mut self, py: Python<'_>, sweep: &mut SweepView, x: &Bound<'_, PyAny>) -> Result<Sums> {
        self.run(py, sweep, x, Mode::Evaluate, &[])
    }

    #[pyo3(signature = (sweep, x, W_enc, b_enc, W_dec, b_dec, theta = None, b_mag = None, rho = None))]
    #[allow(non_snake_case)]
    fn gradients(
        &mut self,
        py: Python<'_>,
        sweep: &mut SweepView,
        x: &Bound<'_, PyAny>,
        W_enc: Option<&Bound<'_, PyAny>>,
        b_enc: &Bound<'_, PyAny>,
        W_dec: &Bound<'_, PyAny>,
        b_dec: Option<&Bound<'_, PyAny>>,
        theta: Option<&Bound<'_, PyAny>>,
        b_mag: Option<&Bound<'_, PyAny>>,
        rho: Option<&Bound<'_, PyAny>>,
    ) -> Result<Sums> {
        let open =
            |of: &str, from: &Bound<'_, PyAny>| Tensor::<f32>::open(&format!("engine: gradient of {of}"), from, true);
        let encoder = W_enc.map(|from| open("W_enc", from)).transpose()?;
        let pre_bias = b_dec.map(|from| open("b_dec", from)).transpose()?;
        let (bias, decoder) = (open("b_enc", b_enc)?, open("W_dec", W_dec)?);
        let maybe = |of: &str, from: Option<&Bound<'_, PyAny>>| from.map(|from| open(of, from)).transpose();
        let own = [maybe("theta", theta)?, maybe("b_mag", b_mag)?, maybe("rho", rho)?];
        let outputs = [Some(&bias), Some(&decoder), encoder.as_ref(), pre_bias.as_ref()];
        let ranges: Vec<_> = outputs.into_iter().flatten().chain(own.iter().flatten()).map(Tensor::range).collect();
        // SAFETY: `run` checks that these share no memory with each other or with what it reads, and Python code that
        // would touch them while the GIL is released breaks the documented contract of the class.
        let out = unsafe {
            GradientsOut {
                encoder: encoder.as_ref().map(|tensor| tensor.write()),
                bias: bias.write(),
                decoder: decoder.write(),
                pre_bias: pre_bias.as_ref().map(|tensor| tensor.write()),
                own: own.each_ref().map(|own| own.as_ref().map(|tensor| tensor.write())),
            }
        };
        self.run(py, sweep, x, Mode::Gradients(out), &ranges)
    }
}

impl CpuEngine {
    fn run(
        &mut self,
        py: Python<'_>,
        sweep: &mut SweepView,
        x: &Bound<'_, PyAny>,
        mode: Mode<'_>,
        outputs: &[std::ops::Range<usize>],
    ) -> Result<Sums> {
        let x = Tensor::<f32>::open("engine: x", x, false)?;
        let mut apart = outputs.to_vec();
        apart.push(x.range());
        sweep.ranges_apart(&apart)?;
        // SAFETY: no two of the buffers share memory (just checked); Python code that would write to one of them while
        // the GIL is released breaks the documented contract of the class.
        let (mut view, x) = unsafe { (sweep.sweep(), x.read()) };
        let batch = Activations { x, rows: x.len() / view.d.max(1) };
        let engine = &mut self.engine;
        let Totals { sse, l1, l0, candidates } = py.detach(|| engine.run(&mut view, batch, mode))?;
        Ok((sse, l1, l0, candidates))
    }
}

#[pyfunction]
#[pyo3(signature = (x, W_enc, k, *, out, path = "auto", threads = 1))]
#[allow(non_snake_case)]
pub fn kth_largest(
    py: Python<'_>,
    x: &Bound<'_, PyAny>,
    W_enc: &Bound<'_, PyAny>,
    k: usize,
    out: &Bound<'_, PyAny>,
    path: &str,
    threads: usize,
) -> Result<()> {
    let (rows, encoder) =
        (Tensor::<f32>::open("engine: x", x, false)?, Tensor::<f32>::open("engine: W_enc", W_enc, false)?);
    let out = Tensor::<f32>::open("engine: out", out, true)?;
    if out.len() == 0 || encoder.len() % out.len() != 0 {
        return Err(Error::InvalidArgument(format!("engine: {} values are not {} rows", encoder.len(), out.len())));
    }
    let path = Isa::named(path)?;
    // SAFETY: Python code that would write to one of them while the GIL is released breaks the function's contract.
    let (x, weights) = unsafe { (rows.read(), encoder.read()) };
    let found = py.detach(|| engine::kth_largest(path, threads, x, weights, weights.len() / out.len(), k))?;
    // SAFETY: the GIL is held, and the slices above are not read any more.
    unsafe { out.write() }.copy_from_slice(&found);
    Ok(())
}
