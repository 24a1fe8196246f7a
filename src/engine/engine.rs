//! The engine: its threads, its path, and the buffers that it keeps from step to step.

use std::sync::Mutex;
use std::time::Instant;

use super::aligned::Aligned;
use super::dense::Dense;
use super::dictionary::cut;
use super::features::Sums;
use super::idle::wake_if_faster;
use super::path::Path;
use super::rows::{Codes, Scratch, Spent};
use super::screen::{PackRows, Rounding, RowPack, TILE, WeightPack};
use super::simd::LANES;
use super::step::BLOCK_TILES;
use super::sweep::{Batch, Mode, Sweep, Totals, check};
use super::team::Team;
use crate::error::{Error, Result};

/// The engine: threads, a path, and buffers that are kept from step to step.
#[derive(Debug)]
pub struct Engine {
    pub(super) path: Path,
    pub(super) team: Team,
    pub(super) batch: BatchBuffers,
    pub(super) weights: WeightPack,
    pub(super) blocks: Vec<Codes>,
    pub(super) scratch: Vec<Mutex<Scratch>>,
    pub(super) gradients: Sums,
    pub(super) chunk_sums: Aligned,
    pub(super) tile_sums: Aligned,
    /// Expected codes per row of each dictionary: of the last batch.
    pub(super) density: Vec<f64>,
    pub(super) codes: CodesAs,
    pub(super) profile: Profile,
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

/// Where the time went, in seconds since the engine was made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Profile {
    /// The batch copied and packed.
    pub batch: f64,
    /// Encoders packed for the screen.
    pub pack: f64,
    /// Phase one, over rows.
    pub rows: f64,
    /// Phase two, over features.
    pub features: f64,
    /// Parts of phase one, summed over threads.
    pub threads: Spent,
    /// In any phase, summed over threads: what `threads()` times the phases' time is more than this, they waited.
    pub busy: f64,
}

/// The batch, as the phases read it, and what they leave of each row.
#[derive(Debug, Default)]
pub(super) struct BatchBuffers {
    pub(super) stride: usize,
    pub(super) x: Aligned,
    pub(super) residual: Aligned,
    pub(super) pack: RowPack,
    pub(super) ratio: f32,
}

impl Engine {
    /// An engine of `threads` threads on a path.
    #[must_use]
    pub fn new(path: Path, threads: usize) -> Self {
        let team = Team::new(threads);
        let scratch = (0..team.threads()).map(|_| Mutex::default()).collect();
        Self {
            path,
            team,
            scratch,
            batch: BatchBuffers::default(),
            weights: WeightPack::default(),
            blocks: Vec::new(),
            gradients: Sums::default(),
            chunk_sums: Aligned::default(),
            tile_sums: Aligned::default(),
            density: Vec::new(),
            codes: CodesAs::Measured,
            profile: Profile::default(),
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
    pub fn path(&self) -> Path {
        self.path
    }

    /// Threads, the caller among them.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.team.threads()
    }

    /// Where the time went since the engine was made.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let mut profile = Profile { busy: self.team.busy(), ..self.profile };
        for scratch in &self.scratch {
            let spent = lock(scratch).spent;
            profile.threads.screen += spent.screen;
            profile.threads.encode += spent.encode;
            profile.threads.decode += spent.decode;
        }
        profile
    }

    /// Bytes of buffers beside the sweep itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let batch = self.batch.x.bytes() + self.batch.residual.bytes() + self.batch.pack.bytes();
        let codes = self.blocks.iter().map(Codes::bytes).sum::<usize>();
        let scratch = self.scratch.iter().map(|scratch| lock(scratch).bytes()).sum::<usize>();
        let sums = self.gradients.bytes() + self.chunk_sums.bytes() + self.tile_sums.bytes();
        batch + self.weights.bytes() + codes + scratch + sums
    }

    /// Works on one batch.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: shapes that do not fit each other.
    pub fn run(&mut self, sweep: &mut Sweep<'_>, batch: Batch<'_>, mut mode: Mode<'_>) -> Result<Totals> {
        check(sweep, batch, &mode)?;
        self.batch.resize(self.path.rounding(), batch.rows, sweep.d);
        if sweep.pre_bias.is_none() {
            self.read_batch(batch, sweep.d, None);
        }
        self.density.resize(sweep.sizes.len(), f64::INFINITY);
        if !sweep.sizes.iter().enumerate().any(|(k, n)| self.is_dense(k, *n)) {
            // The start is over: its matrices are not needed again.
            self.blocks.iter_mut().for_each(|codes| codes.dense = Dense::default());
        }
        let mut totals = Totals::default();
        let (d, sizes) = (sweep.d, sweep.sizes);
        let mut first = 0;
        for (k, &n) in sizes.iter().enumerate() {
            if let Mode::Step { t, lr_scale } = mode {
                wake_if_faster(self.path, sweep, k, first..first + n, t, lr_scale);
            }
            let dictionary = cut(sweep, &mut mode, batch.rows, k, first..first + n);
            if let Some(pre_bias) = &dictionary.pre_bias {
                let pre_bias = pre_bias.value.to_vec();
                self.read_batch(batch, d, Some(&pre_bias));
            }
            let stats = self.dictionary(dictionary, batch.rows, d, k);
            self.density[k] = stats.candidates as f64 / batch.rows as f64;
            totals.sse.push(stats.sse);
            totals.l1.push(stats.l1.iter().sum());
            totals.l0.push(stats.l0 as f64);
            totals.candidates.push(stats.candidates as f64);
            first += n;
        }
        Ok(totals)
    }

    /// Copies the batch, less `pre_bias`, into rows of whole vectors, and packs it for the screen.
    fn read_batch(&mut self, batch: Batch<'_>, d: usize, pre_bias: Option<&[f32]>) {
        let start = Instant::now();
        let Self { path, team, batch: buffers, .. } = self;
        let (stride, rounding) = (buffers.stride, path.rounding());
        let rows = BLOCK_TILES * TILE;
        let mut items: Vec<_> = buffers
            .pack
            .parts(BLOCK_TILES)
            .into_iter()
            .zip(buffers.x.chunks_mut(rows * stride))
            .zip(batch.x.chunks(rows * d))
            .map(|((part, x), from)| Some((part, x, from)))
            .collect();
        team.for_each(&mut items, |_, _, item| {
            if let Some((part, x, from)) = item.take() {
                for (to, from) in x.chunks_exact_mut(stride).zip(from.chunks_exact(d)) {
                    to[..d].copy_from_slice(from);
                    if let Some(pre_bias) = pre_bias {
                        to.iter_mut().zip(pre_bias).for_each(|(x, b)| *x -= b);
                    }
                }
                path.run(PackRows { rounding, d, rows: x, stride, part });
            }
        });
        buffers.ratio = buffers.pack.ratio.iter().fold(0.0, |largest, ratio| largest.max(*ratio));
        self.profile.batch += start.elapsed().as_secs_f64();
    }
}

impl BatchBuffers {
    fn resize(&mut self, rounding: Rounding, rows: usize, d: usize) {
        let stride = d.next_multiple_of(LANES);
        if (self.stride, self.x.len()) != (stride, rows * stride) {
            // New memory is zero, and so is what pads the rows.
            (self.x, self.residual) = Default::default();
            self.x.resize(rows * stride);
            self.residual.resize(rows * stride);
            self.stride = stride;
        }
        if d < stride {
            self.x.fill(0.0);
        }
        self.pack.resize(rounding, rows, d);
    }
}

/// Locks; what a holder that panicked left is overwritten before it is read.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
