//! The engine: its threads, its path, and how the dictionaries of a sweep are shared out among the threads.
use std::sync::Mutex;
use std::time::Instant;

use super::balance::{ALONE, Shared, share};
use super::batch::BatchBuffers;
use super::codes::Dense;
use super::dense_products::Panels;
use super::dictionary::{Dictionary, cut};
use super::idle::wake_if_faster;
use super::kind::Activation;
use super::step::{Expected, Found};
use super::sweep::{Activations, Mode, Sweep, Totals, check};
use super::worker::{Profile, Worker};
use crate::error::{Error, Result};
use crate::threads::lock;
use crate::vector::isa::Isa;

/// Share of active codes from which matrix products beat lists: at D = 128 they take 41 ms of one core for 1,024 features
/// whatever the share, lists 60 to 100 at a half; they meet at 31 % for 512 features and at 22 % for 4,096.
const DENSE: f64 = 0.25;

/// The engine: threads, a path, and buffers that are kept from step to step.
#[derive(Debug)]
pub struct Engine {
    batch: BatchBuffers,
    /// All threads on one dictionary.
    together: Worker,
    /// One thread each, on a dictionary of its own.
    alone: Vec<Worker>,
    /// Expected codes per row of each dictionary: of the last batch.
    density: Vec<f64>,
    /// What the largest codes of each dictionary are expected above, see [`Expected`].
    floors: Vec<f32>,
    /// Seconds that one thread takes for each dictionary: of the last batches.
    costs: Vec<f64>,
    codes: CodesAs,
    batch_seconds: f64,
}

/// How codes are held between the phases: all give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodesAs {
    /// As lists, or as whole matrices where the last batch had many.
    #[default]
    Measured,
    /// As lists.
    Lists,
    /// As whole matrices.
    Dense,
}

impl CodesAs {
    /// By name: measured, lists or dense.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: no such name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "measured" => Ok(Self::Measured),
            "lists" => Ok(Self::Lists),
            "dense" => Ok(Self::Dense),
            _ => Err(Error::InvalidArgument(format!("codes as '{name}'; known: measured, lists, dense"))),
        }
    }
}

impl Engine {
    /// An engine of `threads` threads on a path.
    #[must_use]
    pub fn new(isa: Isa, threads: usize) -> Self {
        let together = Worker::new(isa, threads);
        let threads = together.team.threads();
        Self {
            batch: BatchBuffers::default(),
            alone: (0..if threads > 1 { threads } else { 0 }).map(|_| Worker::new(isa, 1)).collect(),
            together,
            density: Vec::new(),
            floors: Vec::new(),
            costs: Vec::new(),
            codes: CodesAs::Measured,
            batch_seconds: 0.0,
        }
    }

    /// Holds codes as asked from now on.
    #[must_use]
    pub fn with_codes(mut self, codes: CodesAs) -> Self {
        self.codes = codes;
        self
    }

    /// The path in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.together.isa
    }

    /// Threads, the caller among them.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.together.team.threads()
    }

    /// Where the time went since the engine was made.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let mut profile = Profile { batch: self.batch_seconds, busy: self.together.team.busy(), ..Profile::default() };
        let alone = self.alone.iter().map(|worker| (worker, 1.0 / self.threads() as f64));
        for (worker, share) in alone.chain([(&self.together, 1.0)]) {
            profile.pack += share * worker.profile.pack;
            profile.rows += share * worker.profile.rows;
            profile.features += share * worker.profile.features;
            for scratch in &worker.scratch {
                let spent = lock(scratch).spent;
                profile.threads.screen += spent.screen;
                profile.threads.encode += spent.encode;
                profile.threads.decode += spent.decode;
            }
        }
        profile
    }

    /// Bytes of buffers beside the sweep itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.batch.bytes() + self.together.bytes() + self.alone.iter().map(Worker::bytes).sum::<usize>()
    }

    /// Works on one batch.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: shapes that do not fit each other.
    pub fn run(&mut self, sweep: &mut Sweep<'_>, batch: Activations<'_>, mut mode: Mode<'_>) -> Result<Totals> {
        check(sweep, batch, &mode)?;
        let (d, sizes, with_pre_bias) = (sweep.d, sweep.sizes, sweep.pre_bias.is_some());
        self.batch.resize(self.isa().rounding(), batch.rows, d);
        if !with_pre_bias {
            self.read_batch(batch, d, None);
        }
        if let Mode::Step { t, factors } = mode {
            wake_if_faster(self.isa(), sweep, t, factors.lr);
        }
        self.density.resize(sizes.len(), f64::INFINITY);
        if self.costs.len() != sizes.len() {
            self.costs = sizes.iter().map(|n| *n as f64).collect();
        }
        self.floors.resize(sizes.len(), f32::NAN);
        let mut dictionaries: Vec<_> = cut(sweep, &mut mode, batch.rows).into_iter().map(Some).collect();
        let expected: Vec<_> = dictionaries.iter().flatten().enumerate().map(|(k, own)| self.expect(k, own)).collect();
        if !expected.iter().any(|expected| expected.dense) {
            // The start is over: its matrices are not needed again.
            self.together.blocks.iter_mut().for_each(|codes| codes.dense = Dense::default());
            self.together.panels = Panels::default();
        }
        let alone: Vec<_> = expected.iter().map(|expected| !expected.dense && !with_pre_bias).collect();
        let Shared { together, alone } = share(&self.costs, &alone, self.threads());
        let mut found: Vec<_> = sizes.iter().map(|_| (Found::default(), 0.0)).collect();
        for k in together {
            let Some(dictionary) = dictionaries[k].take() else { continue };
            if let Some(pre_bias) = &dictionary.pre_bias {
                let pre_bias = pre_bias.value.to_vec();
                self.read_batch(batch, d, Some(&pre_bias));
            }
            let start = Instant::now();
            let done = self.together.dictionary(&self.batch, dictionary, batch.rows, d, expected[k]);
            found[k] = (done, ALONE * start.elapsed().as_secs_f64() * self.threads() as f64);
        }
        let queue = alone.into_iter().rev().filter_map(|k| dictionaries[k].take().map(|own| (k, own))).collect();
        self.work_alone(queue, batch.rows, d, &expected, &mut found);
        let mut totals = Totals::default();
        for (k, (Found { stats, floor }, seconds)) in found.into_iter().enumerate() {
            // Codes, not candidates: matrices know no candidates, and a dictionary would change sides with every batch.
            self.density[k] = stats.codes as f64 / batch.rows as f64;
            self.floors[k] = floor;
            self.costs[k] = seconds;
            totals.sse.push(stats.sse);
            totals.l1.push(stats.l1.iter().sum());
            totals.l0.push(stats.l0 as f64);
            totals.candidates.push(stats.candidates as f64);
        }
        Ok(totals)
    }

    /// Every thread takes dictionaries from the end of the queue until there are none left: no thread waits for another,
    /// and what one has written no other reads.
    fn work_alone(
        &mut self,
        queue: Vec<(usize, Dictionary<'_>)>,
        rows: usize,
        d: usize,
        expected: &[Expected],
        found: &mut [(Found, f64)],
    ) {
        if queue.is_empty() {
            return;
        }
        let (queue, found, batch) = (Mutex::new(queue), Mutex::new(found), &self.batch);
        self.together.team.for_each(&mut self.alone, |_, _, worker| {
            loop {
                let Some((k, dictionary)) = lock(&queue).pop() else { return };
                let start = Instant::now();
                let done = worker.dictionary(batch, dictionary, rows, d, expected[k]);
                lock(&found)[k] = (done, start.elapsed().as_secs_f64());
            }
        });
    }

    /// What to expect of dictionary `k`.
    fn expect(&self, k: usize, own: &Dictionary<'_>) -> Expected {
        let n = own.bias.value.len() as f64;
        let active = self.density[k].min(n);
        // Rows know soon what their largest codes are above: products of all features are there to be compared with.
        let selects = matches!(own.kind.activation, Activation::TopK { .. });
        let dense = match self.codes {
            CodesAs::Measured => active > DENSE * n && own.may_have_matrices(),
            CodesAs::Lists => false,
            CodesAs::Dense => own.may_have_matrices() || selects,
        };
        Expected { active, dense, floor: self.floors[k] }
    }

    fn read_batch(&mut self, batch: Activations<'_>, d: usize, pre_bias: Option<&[f32]>) {
        let start = Instant::now();
        self.batch.read(self.together.isa, &self.together.team, batch, d, pre_bias);
        self.batch_seconds += start.elapsed().as_secs_f64();
    }
}
