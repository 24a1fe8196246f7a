//! One step of a sweep: dictionaries one after the other, each in its phases over the team's threads.

use std::sync::Mutex;
use std::time::Instant;

use super::adam::Adam;
use super::aligned::Aligned;
use super::dense::DenseRows;
use super::features::{Features, FeaturesKernel, Gradients, Rows, Trained, Update, add_scaled};
use super::path::Path;
use super::rows::{Codes, RowsKernel, Scales, Scratch, Spent, TileStats, Weights};
use super::screen::{PANEL, PackRows, PackWeights, Rounding, RowPack, Screening, TILE, WeightPack};
use super::simd::{Kernel, LANES, Simd};
use super::team::Team;
use crate::error::{Error, Result};

/// Most tiles in a block of rows: 512 rows of D = 128 are 256 KB, and stay in the second cache while the encoder streams
/// past. Blocks of 256 took 5 % longer, of 64 20 %.
const BLOCK_TILES: usize = 8;

/// The same where codes are held as matrices: a thread's are then 8 MB for 4096 features.
const DENSE_BLOCK_TILES: usize = 4;

/// Share of active codes from which matrix products beat lists: for N = 8,128 at D = 128 they take 450 ms of one core
/// whatever the share, lists 960 ms at a half and less in proportion.
const DENSE: f64 = 0.2;

/// Codes that are held at once (12 bytes each); a dictionary that has more is worked on in waves of rows.
const WAVE_CODES: usize = 2 << 20;

/// Rows and residuals that stay in the second cache while features read them: 1,024 rows of D = 128. Reading them from the
/// third costs three times as much.
const CACHE_BYTES: usize = 1 << 20;

/// Codes of a feature in such a wave from which that pays for gradients that are kept from wave to wave.
const CODES_PER_WAVE: f64 = 2.0;

/// The conventions of the loss and of the update.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Squared error averaged over D as well as rows.
    pub mean: bool,
    /// L1 coefficients divided by the dictionary's size.
    pub per_size: bool,
    /// The gradient along each atom removed before Adam.
    pub project: bool,
}

/// A packed sweep, changed in place.
#[derive(Debug)]
pub struct Sweep<'a> {
    /// D.
    pub d: usize,
    /// [K].
    pub sizes: &'a [usize],
    /// [K].
    pub l1: &'a [f64],
    /// [K].
    pub lr: &'a [f64],
    /// Conventions.
    pub loss: Loss,
    /// [N][D]; None where tied.
    pub encoder: Option<Trained<'a>>,
    /// [N].
    pub bias: Trained<'a>,
    /// [N][D].
    pub decoder: Trained<'a>,
    /// [K][D].
    pub pre_bias: Option<Trained<'a>>,
    /// [N].
    pub fired: &'a mut [i64],
}

/// Rows to train on.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// [B][D].
    pub x: &'a [f32],
    /// B.
    pub rows: usize,
}

/// What to do with a batch.
#[derive(Debug)]
pub enum Mode<'a> {
    /// Update everything: step number `t` from 1, the learning rates times `lr_scale`.
    Step {
        /// Adam's t.
        t: u64,
        /// The schedule's factor.
        lr_scale: f64,
    },
    /// Gradients only, before projection; nothing else changes.
    Gradients(GradientsOut<'a>),
    /// Count and measure only.
    Evaluate,
}

/// Where gradients go, shaped as the parameters.
#[derive(Debug)]
pub struct GradientsOut<'a> {
    /// [N][D]; None where tied.
    pub encoder: Option<&'a mut [f32]>,
    /// [N].
    pub bias: &'a mut [f32],
    /// [N][D].
    pub decoder: &'a mut [f32],
    /// [K][D].
    pub pre_bias: Option<&'a mut [f32]>,
}

/// Sums over the rows of a batch, per dictionary.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Totals {
    /// [K]: squared error.
    pub sse: Vec<f64>,
    /// [K]: codes.
    pub l1: Vec<f64>,
    /// [K]: codes above zero.
    pub l0: Vec<f64>,
    /// [K]: codes that the screen let through.
    pub candidates: Vec<f64>,
}

impl Totals {
    /// Of no rows.
    #[must_use]
    pub fn zeros(dictionaries: usize) -> Self {
        let zeros = || vec![0.0; dictionaries];
        Self { sse: zeros(), l1: zeros(), l0: zeros(), candidates: zeros() }
    }

    /// Adds those of other rows.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.sse, &other.sse),
            (&mut self.l1, &other.l1),
            (&mut self.l0, &other.l0),
            (&mut self.candidates, &other.candidates),
        ];
        for (own, other) in pairs {
            own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
        }
    }
}

/// The engine: threads, a path, and buffers that are kept from step to step.
#[derive(Debug)]
pub struct Engine {
    path: Path,
    team: Team,
    batch: BatchBuffers,
    weights: WeightPack,
    blocks: Vec<Codes>,
    scratch: Vec<Mutex<Scratch>>,
    gradients: Aligned,
    bias_gradients: Vec<f64>,
    chunk_sums: Aligned,
    tile_sums: Aligned,
    /// Expected codes per row of each dictionary: of the last batch.
    density: Vec<f64>,
    codes: CodesAs,
    profile: Profile,
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
}

#[derive(Debug, Default)]
struct BatchBuffers {
    stride: usize,
    x: Aligned,
    residual: Aligned,
    pack: RowPack,
    ratio: f32,
}

/// One dictionary of a sweep.
struct Dictionary<'a> {
    encoder: Option<Trained<'a>>,
    bias: Trained<'a>,
    decoder: Trained<'a>,
    pre_bias: Option<Trained<'a>>,
    fired: Option<&'a mut [i64]>,
    gradients: Option<GradientsOut<'a>>,
    scales: Scales,
    update: Option<Update>,
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
            gradients: Aligned::default(),
            bias_gradients: Vec::new(),
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
        let mut profile = self.profile;
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
        batch + self.weights.bytes() + codes + scratch + sums + self.bias_gradients.capacity() * size_of::<f64>()
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
        let mut totals = Totals::default();
        let (d, sizes) = (sweep.d, sweep.sizes);
        let mut first = 0;
        for (k, &n) in sizes.iter().enumerate() {
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

    fn dictionary(&mut self, mut own: Dictionary<'_>, rows: usize, d: usize, k: usize) -> TileStats {
        let n = own.bias.value.len();
        let stride = self.batch.stride;
        self.pack_weights(&own, d);
        let tiles = rows.div_ceil(TILE);
        let active = self.density[k].min(n as f64);
        let dense = match self.codes {
            CodesAs::Measured => active > DENSE * n as f64,
            CodesAs::Lists => false,
            CodesAs::Dense => true,
        };
        let most = if dense { DENSE_BLOCK_TILES } else { BLOCK_TILES };
        let block_tiles = most.min(tiles.div_ceil(2 * self.team.threads())).max(1);
        let expected = if dense { n as f64 } else { active } * (block_tiles * TILE) as f64;
        let blocks = tiles.div_ceil(block_tiles);
        let wave = ((WAVE_CODES as f64 / expected.max(1.0)) as usize).clamp(self.team.threads().min(blocks), blocks);
        let rows_in_cache = (CACHE_BYTES / (2 * size_of::<f32>() * stride)).max(1);
        let wave = if active * rows_in_cache as f64 >= CODES_PER_WAVE * n as f64 {
            wave.min((rows_in_cache / (block_tiles * TILE)).max(self.team.threads()))
        } else {
            wave
        };
        if self.blocks.len() < wave {
            self.blocks.resize_with(wave, Codes::default);
        }
        let with_pre_bias = own.pre_bias.is_some() && !own.is_evaluation();
        self.tile_sums.resize(if with_pre_bias { tiles * stride } else { 0 });
        self.tile_sums.fill(0.0);
        let mut stats = vec![TileStats::default(); tiles];
        // Gradients outlive the phase where several waves add to them or the caller wants them.
        let kept = !own.is_evaluation() && (wave < blocks || own.gradients.is_some());
        if kept {
            self.gradients.resize(2 * n * stride);
            self.bias_gradients.resize(n, 0.0);
        }
        for first in (0..blocks).step_by(wave) {
            let last = (first + wave).min(blocks);
            self.rows_phase(&own, rows, d, first..last, block_tiles, dense, &mut stats);
            let done = &self.blocks[..last - first];
            if own.is_evaluation() {
                count_fired(own.fired.as_deref_mut().unwrap_or_default(), done);
            } else {
                let (first_row, block_rows) = (first * block_tiles * TILE, block_tiles * TILE);
                let at = (first == 0, last == blocks);
                self.features_phase(&mut own, d, last - first, first_row, block_rows, kept, at);
            }
        }
        if let Some(out) = &mut own.gradients {
            give_gradients(out, &self.gradients, &self.bias_gradients, d, stride);
        }
        if with_pre_bias {
            self.pre_bias_phase(&mut own, d);
        }
        stats.iter().fold(TileStats::default(), |mut sum, tile| {
            sum.sse += tile.sse;
            sum.l1.iter_mut().zip(tile.l1).for_each(|(sum, lane)| *sum += lane);
            sum.l0 += tile.l0;
            sum.candidates += tile.candidates;
            sum
        })
    }

    fn pack_weights(&mut self, own: &Dictionary<'_>, d: usize) {
        let start = Instant::now();
        let Self { path, team, weights, batch, .. } = self;
        let (rounding, ratio) = (path.rounding(), batch.ratio);
        let n = own.bias.value.len();
        weights.resize(rounding, n, d);
        let features = chunk(n).next_multiple_of(PANEL);
        let encoder = own.encoder().chunks(features * d);
        let mut items: Vec<_> = weights
            .parts(features)
            .into_iter()
            .zip(encoder.zip(own.bias.value.chunks(features)))
            .map(|(part, (rows, bias))| Some(PackWeights { rounding, d, rows, bias, ratio, part }))
            .collect();
        team.for_each(&mut items, |_, _, item| {
            if let Some(kernel) = item.take() {
                path.run(kernel);
            }
        });
        self.profile.pack += start.elapsed().as_secs_f64();
    }

    fn rows_phase(
        &mut self,
        own: &Dictionary<'_>,
        rows: usize,
        d: usize,
        blocks: std::ops::Range<usize>,
        block_tiles: usize,
        dense: bool,
        stats: &mut [TileStats],
    ) {
        let start = Instant::now();
        let Self { path, team, batch, weights: pack, blocks: codes, scratch, tile_sums, .. } = self;
        let stride = batch.stride;
        let weights = Weights { d, encoder: own.encoder(), bias: own.bias.value, decoder: own.decoder.value };
        let n = weights.bias.len();
        let mask_stride = n.next_multiple_of(PANEL);
        let screen_rows: &[f32] = if path.rounding() == Rounding::Float32 { weights.encoder } else { &pack.rows };
        let size = block_tiles * TILE;
        let (skip, count) = (blocks.start, blocks.len());
        let mut sums = tile_sums.chunks_mut(block_tiles * stride).skip(skip);
        let mut items: Vec<_> = batch
            .x
            .chunks(size * stride)
            .zip(batch.residual.chunks_mut(size * stride))
            .zip(stats.chunks_mut(block_tiles))
            .skip(skip)
            .take(count)
            .zip(codes.iter_mut())
            .map(|(((x, residual), stats), codes)| (x, residual, stats, codes, sums.next().unwrap_or_default()))
            .collect();
        let (batch_pack, scales, derivatives) = (&batch.pack, own.scales, !own.is_evaluation());
        team.for_each(&mut items, |thread, index, (x, residual, stats, codes, residual_sums)| {
            let scratch = &mut *lock(&scratch[thread]);
            let first_tile = (skip + index) * block_tiles;
            codes.is_dense = dense
                && path.run(DenseRows {
                    weights,
                    stride,
                    x,
                    scales,
                    derivatives,
                    residual,
                    stats,
                    residual_sums,
                    dense: &mut codes.dense,
                    spent: &mut scratch.spent,
                });
            if codes.is_dense {
                return;
            }
            let start = Instant::now();
            scratch.masks.resize(block_tiles * mask_stride, [0; 2]);
            for (tile, masks) in scratch.masks.chunks_mut(mask_stride).take(stats.len()).enumerate() {
                let tile = batch_pack.tile(first_tile + tile);
                let (bias, error, norm, total) = (&pack.bias, &pack.error, &pack.norm, &pack.total);
                path.screen(Screening { tile, weights: screen_rows, bias, error, norm, total }, n, masks);
            }
            scratch.spent.screen += start.elapsed().as_secs_f64();
            debug_assert!(first_tile * TILE < rows);
            path.run(RowsKernel {
                weights,
                stride,
                mask_stride,
                x,
                first_row: first_tile * TILE,
                scales,
                derivatives,
                residual,
                stats,
                residual_sums,
                codes,
                scratch,
            });
        });
        self.profile.rows += start.elapsed().as_secs_f64();
    }

    fn features_phase(
        &mut self,
        own: &mut Dictionary<'_>,
        d: usize,
        wave: usize,
        first_row: usize,
        block_rows: usize,
        kept: bool,
        (is_first, last): (bool, bool),
    ) {
        let start = Instant::now();
        let Self { path, team, batch, blocks, gradients, bias_gradients, chunk_sums, .. } = self;
        let stride = batch.stride;
        let n = own.bias.value.len();
        let size = chunk(n);
        let with_sums = own.pre_bias.is_some() && last;
        chunk_sums.resize(if with_sums { n.div_ceil(size) * stride } else { 0 });
        chunk_sums.fill(0.0);
        let mut sums = chunk_sums.chunks_mut(stride);
        let all = if kept { (&mut gradients[..], &mut bias_gradients[..]) } else { Default::default() };
        let (mut all_rows, mut all_biases) = (all.0.chunks_mut(2 * size * stride), all.1.chunks_mut(size));
        let mut items = Vec::with_capacity(n.div_ceil(size));
        let Dictionary { encoder, bias, decoder, fired, .. } = own;
        let mut encoders = encoder.as_mut().map(|encoder| encoder.chunks(size * d));
        let mut fired = fired.as_mut().map(|fired| fired.chunks_mut(size));
        for ((first, bias), decoder) in (0..).step_by(size).zip(bias.chunks(size)).zip(decoder.chunks(size * d)) {
            let encoder = encoders.as_mut().and_then(Iterator::next);
            let fired = fired.as_mut().and_then(Iterator::next);
            let features = Features { encoder, bias, decoder };
            items.push(Some((first, features, fired, all_rows.next(), all_biases.next(), sums.next())));
        }
        let rows = Rows { d, stride, x: &batch.x, residual: &batch.residual };
        let (blocks, update) = (&blocks[..wave], own.update.filter(|_| last));
        team.for_each(&mut items, |_, _, item| {
            let Some((first, features, fired, kept_rows, kept_bias, sums)) = item.take() else { return };
            let count = features.bias.value.len();
            let (mut own_rows, mut own_bias) = (Vec::new(), Vec::new());
            let gradients = if let (Some(rows), Some(bias)) = (kept_rows, kept_bias) {
                if is_first {
                    rows.fill(0.0);
                    bias.fill(0.0);
                }
                Gradients { rows, bias }
            } else {
                own_rows.resize(2 * count * stride, 0.0);
                own_bias.resize(count, 0.0);
                Gradients { rows: &mut own_rows, bias: &mut own_bias }
            };
            path.run(FeaturesKernel {
                rows,
                blocks,
                first_row,
                block_rows,
                first,
                gradients,
                fired,
                features,
                update,
                through_encoder: sums,
            });
        });
        self.profile.features += start.elapsed().as_secs_f64();
    }

    /// The gradient of the pre-bias, from the parts that the phases left, and its update.
    fn pre_bias_phase(&mut self, own: &mut Dictionary<'_>, d: usize) {
        let stride = self.batch.stride;
        let mut sum = vec![0.0f32; stride];
        let parts = self.tile_sums.chunks_exact(stride).chain(self.chunk_sums.chunks_exact(stride));
        for part in parts {
            self.path.run(AddRow { out: &mut sum, row: part });
        }
        if let Some(out) = own.gradients.as_mut().and_then(|out| out.pre_bias.as_mut()) {
            out.copy_from_slice(&sum[..d]);
        }
        if let (Some(update), Some(pre_bias)) = (own.update, &mut own.pre_bias) {
            self.path.run(AdamRow { adam: update.adam, row: pre_bias.reborrow(), gradient: &sum });
        }
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

impl Dictionary<'_> {
    fn encoder(&self) -> &[f32] {
        self.encoder.as_ref().map_or(&*self.decoder.value, |encoder| &*encoder.value)
    }

    fn is_evaluation(&self) -> bool {
        self.gradients.is_none() && self.update.is_none()
    }
}

struct AddRow<'a> {
    out: &'a mut [f32],
    row: &'a [f32],
}

impl Kernel for AddRow<'_> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        add_scaled(s, self.out, 1.0, self.row);
    }
}

struct AdamRow<'a> {
    adam: Adam,
    row: Trained<'a>,
    gradient: &'a [f32],
}

impl Kernel for AdamRow<'_> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        self.adam.row(s, self.row.value, self.row.m, self.row.v, self.gradient);
    }
}

/// Features that one thread takes at a time: a function of the size alone, since sums over chunks are added in order.
fn chunk(n: usize) -> usize {
    if n <= 1024 { 16 } else { 64 }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Dictionary `k` of a sweep, which owns the features in `own`.
fn cut<'a>(
    sweep: &'a mut Sweep<'_>,
    mode: &'a mut Mode<'_>,
    rows: usize,
    k: usize,
    own: std::ops::Range<usize>,
) -> Dictionary<'a> {
    let d = sweep.d;
    let (wide, pre) = (own.start * d..own.end * d, k * d..(k + 1) * d);
    let divisor = if sweep.loss.mean { rows as f64 * d as f64 } else { rows as f64 };
    let penalty = if sweep.loss.per_size { sweep.l1[k] / own.len() as f64 } else { sweep.l1[k] };
    let scales = Scales { error: (2.0 / divisor) as f32, l1: (penalty / rows as f64) as f32 };
    let update = match mode {
        Mode::Step { t, lr_scale } => {
            Some(Update { adam: Adam::new(*t, sweep.lr[k] * *lr_scale), project: sweep.loss.project })
        }
        _ => None,
    };
    let gradients = match mode {
        Mode::Gradients(out) => Some(GradientsOut {
            encoder: out.encoder.as_mut().map(|encoder| &mut encoder[wide.clone()]),
            bias: &mut out.bias[own.clone()],
            decoder: &mut out.decoder[wide.clone()],
            pre_bias: out.pre_bias.as_mut().map(|pre_bias| &mut pre_bias[pre.clone()]),
        }),
        _ => None,
    };
    Dictionary {
        encoder: sweep.encoder.as_mut().map(|encoder| encoder.part(wide.clone())),
        bias: sweep.bias.part(own.clone()),
        decoder: sweep.decoder.part(wide),
        pre_bias: sweep.pre_bias.as_mut().map(|pre_bias| pre_bias.part(pre)),
        fired: gradients.is_none().then_some(&mut sweep.fired[own]),
        gradients,
        scales,
        update,
    }
}

fn count_fired(fired: &mut [i64], blocks: &[Codes]) {
    for block in blocks.iter().filter(|block| block.is_dense) {
        block.dense.count_fired(fired);
    }
    for (j, fired) in fired.iter_mut().enumerate() {
        for block in blocks.iter().filter(|block| !block.is_dense) {
            *fired += block.feature(j).iter().filter(|code| code.z > 0.0).count() as i64;
        }
    }
}

/// Copies gradients out of their padded rows.
fn give_gradients(out: &mut GradientsOut<'_>, rows: &[f32], biases: &[f64], d: usize, stride: usize) {
    for (j, (row, bias)) in rows.chunks_exact(2 * stride).zip(biases).enumerate() {
        let (to_decoder, to_encoder) = row.split_at(stride);
        let decoder = &mut out.decoder[j * d..(j + 1) * d];
        decoder.copy_from_slice(&to_decoder[..d]);
        match &mut out.encoder {
            Some(encoder) => encoder[j * d..(j + 1) * d].copy_from_slice(&to_encoder[..d]),
            None => decoder.iter_mut().zip(to_encoder).for_each(|(out, g)| *out += g),
        }
        out.bias[j] = *bias as f32;
    }
}

/// Shapes must fit each other: the phases cut slices by them.
fn check(sweep: &Sweep<'_>, batch: Batch<'_>, mode: &Mode<'_>) -> Result<()> {
    let (d, k) = (sweep.d, sweep.sizes.len());
    let total = sweep.sizes.iter().sum::<usize>();
    let trained = |name: &'static str, what: &Trained<'_>, len: usize| {
        (name, what.value.len() == len && what.m.len() == len && what.v.len() == len)
    };
    let mut found = vec![
        ("sizes, l1 and lr", sweep.l1.len() == k && sweep.lr.len() == k && k > 0 && d > 0),
        ("sizes", sweep.sizes.iter().all(|size| *size > 0) && total < u32::MAX as usize / 2),
        trained("b_enc", &sweep.bias, total),
        trained("W_dec", &sweep.decoder, total * d),
        ("fired", sweep.fired.len() == total),
        ("x", batch.rows > 0 && batch.x.len() == batch.rows * d && batch.rows < u32::MAX as usize / 2),
    ];
    found.extend(sweep.encoder.as_ref().map(|encoder| trained("W_enc", encoder, total * d)));
    found.extend(sweep.pre_bias.as_ref().map(|pre_bias| trained("b_dec", pre_bias, k * d)));
    if let Mode::Gradients(out) = mode {
        let fits = |out: &Option<&mut [f32]>, own: Option<usize>| out.as_ref().map(|out| out.len()) == own;
        found.extend([
            ("gradient of b_enc", out.bias.len() == total),
            ("gradient of W_dec", out.decoder.len() == total * d),
            ("gradient of W_enc", fits(&out.encoder, sweep.encoder.as_ref().map(|_| total * d))),
            ("gradient of b_dec", fits(&out.pre_bias, sweep.pre_bias.as_ref().map(|_| k * d))),
        ]);
    }
    match found.iter().find(|(_, fits)| !fits) {
        None => Ok(()),
        Some((name, _)) => Err(Error::InvalidArgument(format!(
            "engine: {name} does not fit {k} dictionaries of {total} features, width {d} and {} rows",
            batch.rows
        ))),
    }
}
