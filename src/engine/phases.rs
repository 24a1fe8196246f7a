//! The phases of a step of one dictionary, each split over threads: packing, rows, features, pre-bias.
use std::ops::Range;
use std::time::Instant;

use super::adam::Adam;
use super::batch::{BatchBuffers, BatchRows};
use super::codes::{Scratch, TileStats};
use super::decode::DecodeRows;
use super::dense::DenseRows;
use super::dense_products::fill_panels;
use super::derive::DeriveRows;
use super::dictionary::Dictionary;
use super::encode::{EncodeRows, Keep};
use super::features::{FeaturesKernel, Silent};
use super::kind::{Activation, screen_bias};
use super::largest::{LargestOfRows, ScreenedRows};
use super::parameters::{Features, Trained, Weights, split_own};
use super::powers::exp;
use super::sort::SortRows;
use super::worker::Worker;
use crate::threads::lock;
use crate::vector::dot::add_scaled;
use crate::vector::isa::Isa;
use crate::vector::packing::{PackWeights, RowPack, WeightPack};
use crate::vector::rounding::Rounding;
use crate::vector::screening::Screening;
use crate::vector::simd::{Kernel, Simd};
use crate::vector::tile::{PANEL, TILE};

/// Some blocks of rows, and what is done with them.
pub(super) struct RowsWork {
    pub(super) blocks: Range<usize>,
    /// Where the codes of the first of them are held.
    pub(super) held: usize,
    /// Tiles of a block.
    pub(super) tiles: usize,
    /// Whether codes are matrices.
    pub(super) dense: bool,
    /// What codes are above, where they are not decided by vectors of the kind.
    pub(super) above: f32,
    /// What the k largest of a row are expected above; see [`ScreenedRows`].
    pub(super) expected: f32,
    pub(super) part: Part,
}

/// Which part of phase one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Part {
    /// Codes, and what follows from them.
    All,
    /// Codes alone, which then wait for those of other rows.
    Encode,
    /// What follows from codes that have waited: those above the first number are left, of all that there are.
    Decode(Option<f32>, u64),
}

impl Part {
    /// Whether codes are there already, which of them are dropped, and how many there are in the batch.
    fn decodes(self) -> (bool, Option<f32>, u64) {
        match self {
            Self::Decode(above, all_codes) => (true, above, all_codes),
            _ => (false, None, 0),
        }
    }
}

impl Worker {
    /// Packs the encoder for the screen; codes are above `from`, or as the vectors of the kind say.
    pub(super) fn pack_weights(&mut self, batch: &BatchBuffers, own: &Dictionary<'_>, d: usize, from: f32) {
        let start = Instant::now();
        let Self { isa, team, weights, limits, gain, .. } = self;
        let biases = own.bias.value.iter();
        limits.clear();
        match own.kind.activation {
            Activation::Jump { window, .. } => {
                let half = window / 2.0;
                limits.extend(
                    biases.zip(own.vector(0)).map(|(b, theta)| screen_bias(*b, theta - half, theta.abs() + half)),
                );
            }
            _ if from > 0.0 => limits.extend(biases.map(|b| screen_bias(*b, from, from))),
            _ => {}
        }
        gain.clear();
        if own.kind.activation == Activation::Gated {
            gain.extend(own.vector(1).iter().map(|rho| exp(f64::from(*rho)) as f32));
        }
        let limits = if limits.is_empty() { &*own.bias.value } else { &**limits };
        let (rounding, ratio) = (isa.rounding(), batch.ratio);
        let n = own.bias.value.len();
        weights.resize(rounding, n, d);
        let features = chunk(n).next_multiple_of(PANEL);
        let encoder = own.encoder().chunks(features * d);
        let mut items: Vec<_> = weights
            .parts(features)
            .into_iter()
            .zip(encoder.zip(limits.chunks(features)))
            .map(|(part, (rows, bias))| Some(PackWeights { rounding, d, rows, bias, ratio, part }))
            .collect();
        team.for_each(&mut items, |_, _, item| {
            if let Some(kernel) = item.take() {
                isa.run(kernel);
            }
        });
        if matches!(own.kind.activation, Activation::TopK { .. }) {
            self.level = self.weights.level();
        }
        self.profile.pack += start.elapsed().as_secs_f64();
    }

    /// Puts encoder and atoms side by side for products of matrices.
    pub(super) fn fill_panels(&mut self, batch: &BatchBuffers, own: &Dictionary<'_>, d: usize) {
        let start = Instant::now();
        let (n, stride) = (own.bias.value.len(), batch.stride);
        self.panels.resize(n, stride);
        let size = chunk(n);
        let encoder = own.encoder().chunks(size * d).zip(self.panels.encoder.chunks_mut(size * stride));
        let decoder = own.decoder.value.chunks(size * d).zip(self.panels.decoder.chunks_mut(size * stride));
        let mut items: Vec<_> = encoder.chain(decoder).collect();
        self.team.for_each(&mut items, |_, _, (rows, panels)| fill_panels(rows, d, stride, panels));
        self.profile.pack += start.elapsed().as_secs_f64();
    }

    pub(super) fn rows_phase(
        &mut self,
        batch: &BatchBuffers,
        own: &Dictionary<'_>,
        d: usize,
        work: RowsWork,
        stats: &mut [TileStats],
    ) {
        let start = Instant::now();
        let Self { isa, team, residual, weights: pack, panels, blocks: codes, scratch, tile_sums, gain, level, .. } =
            self;
        let stride = batch.stride;
        let weights = Weights { d, encoder: own.encoder(), bias: own.bias.value, decoder: own.decoder.value };
        let (n, mask_stride) = (weights.bias.len(), weights.bias.len().next_multiple_of(PANEL));
        let screen_rows: &[f32] = if isa.rounding() == Rounding::Float32 { weights.encoder } else { &pack.rows };
        let RowsWork { blocks, held, tiles: block_tiles, dense, above, expected, part } = work;
        let size = block_tiles * TILE;
        let all = &[n];
        let ends = if own.kind.groups.is_empty() { all } else { &*own.kind.groups };
        let (skip, count) = (blocks.start, blocks.len());
        let mut sums = tile_sums.chunks_mut(block_tiles * stride).skip(skip);
        let mut items: Vec<_> = batch
            .x
            .chunks(size * stride)
            .zip(residual.chunks_mut(size * stride * ends.len()))
            .zip(stats.chunks_mut(block_tiles))
            .skip(skip)
            .take(count)
            .zip(&mut codes[held..])
            .map(|(((x, residual), stats), codes)| (x, residual, stats, codes, sums.next().unwrap_or_default()))
            .collect();
        let (batch_pack, scales, derivatives) = (&batch.pack, own.scales, !own.is_evaluation());
        let keep = keep_of(own, gain, above);
        let (waited, above, all_codes) = part.decodes();
        let derive = own.derive(all_codes, gain);
        let has_matrices = own.may_have_matrices();
        team.for_each(&mut items, |thread, index, (x, residual, stats, codes, residual_sums)| {
            let scratch = &mut *lock(&scratch[thread]);
            let first_tile = (skip + index) * block_tiles;
            let (first_row, rows) = (first_tile * TILE, x.len() / stride);
            codes.is_dense = dense
                && has_matrices
                && isa.run(DenseRows {
                    weights,
                    panels,
                    stride,
                    x,
                    scales,
                    derivatives,
                    residual,
                    stats,
                    residual_sums,
                    dense: &mut codes.dense,
                    scratch,
                });
            if codes.is_dense {
                return;
            }
            if let (false, Activation::TopK { k }) = (waited, own.kind.activation) {
                if dense {
                    let (panels, bias) = (&*panels.encoder, weights.bias);
                    isa.run(LargestOfRows { panels, bias, k, features: None, stride, x, first_row, codes, scratch });
                } else {
                    let (rows, level) = (batch_pack, *level);
                    let screened = ScreenedRows { weights, pack, level, rows, k, expected, stride, x, first_row };
                    screened.run(isa, stats, codes, scratch);
                }
            } else if !waited {
                let tiles = first_tile..first_tile + stats.len();
                screen_block(isa, (batch_pack, tiles), (screen_rows, pack), n, scratch);
                isa.run(EncodeRows { weights, stride, mask_stride, x, first_row, keep, stats, codes, scratch });
            }
            if part == Part::Encode {
                std::mem::swap(&mut scratch.features, &mut codes.features);
                return;
            }
            isa.run(SortRows { n, first_row, rows, waited, above, stats, codes, scratch });
            match derive {
                None => isa.run(DecodeRows {
                    weights,
                    stride,
                    x,
                    scales,
                    derivatives,
                    residual,
                    stats,
                    residual_sums,
                    codes,
                    scratch,
                }),
                Some(derive) => isa.run(DeriveRows {
                    weights,
                    ends,
                    stride,
                    x,
                    derive,
                    scale: scales.error,
                    derivatives,
                    residual,
                    stats,
                    residual_sums,
                    first_row,
                    codes,
                    scratch,
                }),
            }
        });
        self.profile.rows += start.elapsed().as_secs_f64();
    }

    pub(super) fn features_phase(
        &mut self,
        batch: &BatchBuffers,
        own: &mut Dictionary<'_>,
        d: usize,
        held: Range<usize>,
        first_row: usize,
        block_rows: usize,
        kept: bool,
        last: bool,
        with_dead: bool,
    ) {
        let start = Instant::now();
        let silent = own.silent();
        if silent != 0.0 && last {
            self.sum_rows(batch);
        }
        let Self { isa, team, residual, blocks, scratch, gradients, chunk_sums, row_sum, dead, .. } = self;
        let stride = batch.stride;
        let n = own.bias.value.len();
        let size = chunk(n);
        let with_sums = own.pre_bias.is_some() && last;
        chunk_sums.resize(if with_sums { n.div_ceil(size) * stride } else { 0 });
        chunk_sums.fill(0.0);
        let mut sums = chunk_sums.chunks_mut(stride);
        let mut all = kept.then(|| gradients.chunks(size, stride));
        let mut items = Vec::with_capacity(n.div_ceil(size));
        let (kind, own_sums, rows_of_batch) = (own.kind, own.kind.own(), own.rows as f64);
        let (trains, update) = (own.update.is_some(), own.update.filter(|_| last));
        let Dictionary { encoder, bias, decoder, fired, lag, own: vectors, since, .. } = own;
        let mut vectors = vectors.each_mut().map(|vector| vector.as_mut().map(Trained::reborrow));
        let mut since = since.as_mut().filter(|_| trains).map(|since| since.chunks_mut(size));
        let mut encoders = encoder.as_mut().map(|encoder| encoder.chunks(size * d));
        let mut fired = fired.as_mut().map(|fired| fired.chunks_mut(size));
        let mut lag = lag.as_mut().map(|lag| lag.chunks_mut(size));
        for ((first, bias), decoder) in (0..).step_by(size).zip(bias.chunks(size)).zip(decoder.chunks(size * d)) {
            let encoder = encoders.as_mut().and_then(Iterator::next);
            let fired = fired.as_mut().and_then(Iterator::next);
            let lag = lag.as_mut().and_then(Iterator::next);
            let since = since.as_mut().and_then(Iterator::next);
            let own = split_own(&mut vectors, bias.value.len());
            let features = Features { encoder, bias, decoder, own };
            let kept = all.as_mut().and_then(Iterator::next);
            items.push(Some((first, features, fired, since, lag, kept, sums.next())));
        }
        let groups = if kind.groups.len() > 1 { &*kind.groups } else { &[] };
        let rows = BatchRows { d, stride, x: &batch.x, residual, groups };
        let aux =
            with_dead.then(|| (BatchRows { residual: &dead.gap, groups: &[], ..rows }, &dead.blocks[held.clone()]));
        let silent = (silent != 0.0).then_some(Silent { by_row: silent, rows: rows_of_batch, sum: row_sum });
        let blocks = &blocks[held];
        team.for_each(&mut items, |thread, _, item| {
            let Some((first, features, fired, since, lag, kept, sums)) = item.take() else { return };
            let count = features.bias.value.len();
            let scratch = &mut *lock(&scratch[thread]);
            let gradients = kept.unwrap_or_else(|| scratch.sums.of(count, stride, own_sums));
            isa.run(FeaturesKernel {
                rows,
                blocks,
                first_row,
                block_rows,
                first,
                gradients,
                fired,
                since,
                features,
                aux,
                silent,
                complete: last,
                update,
                lag,
                through_encoder: sums,
            });
        });
        self.profile.features += start.elapsed().as_secs_f64();
    }

    /// The sum of the batch's rows, in their order.
    fn sum_rows(&mut self, batch: &BatchBuffers) {
        let mut sums = vec![0.0f64; batch.stride];
        for row in batch.x.chunks_exact(batch.stride) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        self.row_sum.resize(batch.stride);
        self.row_sum.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum as f32);
    }

    /// The gradient of the pre-bias, from the parts that the phases left, and its update.
    pub(super) fn pre_bias_phase(&mut self, own: &mut Dictionary<'_>, d: usize, stride: usize) {
        let mut sum = vec![0.0f32; stride];
        let parts = self.tile_sums.chunks_exact(stride).chain(self.chunk_sums.chunks_exact(stride));
        for part in parts {
            self.isa.run(AddRow { out: &mut sum, row: part });
        }
        if let Some(out) = own.gradients.as_mut().and_then(|out| out.pre_bias.as_mut()) {
            out.copy_from_slice(&sum[..d]);
        }
        if let (Some(update), Some(pre_bias)) = (own.update, &mut own.pre_bias) {
            self.isa.run(AdamRow { adam: update.adam, row: pre_bias.reborrow(), gradient: &sum });
        }
    }
}

/// How much the last group's residuals differ from their mean, squared and summed; 0 where that is no more than their
/// rounding to float32.
/// Which pre-activations of a dictionary become codes, or entries of a window.
fn keep_of<'a>(own: &'a Dictionary<'_>, gain: &'a [f32], above: f32) -> Keep<'a> {
    match own.kind.activation {
        Activation::Jump { window, .. } => Keep::Jump { theta: own.vector(0), half: window / 2.0 },
        Activation::Gated => Keep::Gated { bias: own.bias.value, magnitude: own.vector(0), gain },
        _ => Keep::Above(above),
    }
}

/// Masks of the candidates of some tiles, for all `n` features, to `scratch`.
fn screen_block(
    isa: &Isa,
    (rows, tiles): (&RowPack, Range<usize>),
    (weights, pack): (&[f32], &WeightPack),
    n: usize,
    scratch: &mut Scratch,
) {
    let start = Instant::now();
    let stride = n.next_multiple_of(PANEL);
    scratch.masks.resize(tiles.len() * stride, [0; 2]);
    for (tile, masks) in tiles.zip(scratch.masks.chunks_mut(stride)) {
        let (bias, error, norm, total) = (&pack.bias, &pack.error, &pack.norm, &pack.total);
        isa.screen(Screening { tile: rows.tile(tile), weights, bias, error, norm, total }, n, masks);
    }
    scratch.spent.screen += start.elapsed().as_secs_f64();
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
