//! The phases of a step of one dictionary, each split over threads: packing, rows, features, pre-bias.
use std::time::Instant;

use super::adam::Adam;
use super::batch::{BatchBuffers, BatchRows};
use super::codes::TileStats;
use super::dense::DenseRows;
use super::dense_products::fill_panels;
use super::dictionary::Dictionary;
use super::features::FeaturesKernel;
use super::parameters::{Features, Trained, Weights};
use super::rows::{DecodeRows, EncodeRows};
use super::worker::Worker;
use crate::threads::lock;
use crate::vector::dot::add_scaled;
use crate::vector::packing::PackWeights;
use crate::vector::rounding::Rounding;
use crate::vector::screening::Screening;
use crate::vector::simd::{Kernel, Simd};
use crate::vector::tile::{PANEL, TILE};

impl Worker {
    pub(super) fn pack_weights(&mut self, batch: &BatchBuffers, own: &Dictionary<'_>, d: usize) {
        let start = Instant::now();
        let Self { isa, team, weights, .. } = self;
        let (rounding, ratio) = (isa.rounding(), batch.ratio);
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
                isa.run(kernel);
            }
        });
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
        rows: usize,
        d: usize,
        blocks: std::ops::Range<usize>,
        block_tiles: usize,
        dense: bool,
        stats: &mut [TileStats],
    ) {
        let start = Instant::now();
        let Self { isa, team, residual, weights: pack, panels, blocks: codes, scratch, tile_sums, .. } = self;
        let stride = batch.stride;
        let weights = Weights { d, encoder: own.encoder(), bias: own.bias.value, decoder: own.decoder.value };
        let n = weights.bias.len();
        let mask_stride = n.next_multiple_of(PANEL);
        let screen_rows: &[f32] = if isa.rounding() == Rounding::Float32 { weights.encoder } else { &pack.rows };
        let size = block_tiles * TILE;
        let (skip, count) = (blocks.start, blocks.len());
        let mut sums = tile_sums.chunks_mut(block_tiles * stride).skip(skip);
        let mut items: Vec<_> = batch
            .x
            .chunks(size * stride)
            .zip(residual.chunks_mut(size * stride))
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
            let start = Instant::now();
            scratch.masks.resize(block_tiles * mask_stride, [0; 2]);
            for (tile, masks) in scratch.masks.chunks_mut(mask_stride).take(stats.len()).enumerate() {
                let tile = batch_pack.tile(first_tile + tile);
                let (bias, error, norm, total) = (&pack.bias, &pack.error, &pack.norm, &pack.total);
                isa.screen(Screening { tile, weights: screen_rows, bias, error, norm, total }, n, masks);
            }
            scratch.spent.screen += start.elapsed().as_secs_f64();
            debug_assert!(first_tile * TILE < rows);
            let first_row = first_tile * TILE;
            isa.run(EncodeRows { weights, stride, mask_stride, x, first_row, stats, codes, scratch });
            isa.run(DecodeRows {
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
            });
        });
        self.profile.rows += start.elapsed().as_secs_f64();
    }

    pub(super) fn features_phase(
        &mut self,
        batch: &BatchBuffers,
        own: &mut Dictionary<'_>,
        d: usize,
        wave: usize,
        first_row: usize,
        block_rows: usize,
        kept: bool,
        last: bool,
    ) {
        let start = Instant::now();
        let Self { isa, team, residual, blocks, scratch, gradients, chunk_sums, .. } = self;
        let stride = batch.stride;
        let n = own.bias.value.len();
        let size = chunk(n);
        let with_sums = own.pre_bias.is_some() && last;
        chunk_sums.resize(if with_sums { n.div_ceil(size) * stride } else { 0 });
        chunk_sums.fill(0.0);
        let mut sums = chunk_sums.chunks_mut(stride);
        let mut all = kept.then(|| gradients.chunks(size, stride));
        let mut items = Vec::with_capacity(n.div_ceil(size));
        let Dictionary { encoder, bias, decoder, fired, lag, .. } = own;
        let mut encoders = encoder.as_mut().map(|encoder| encoder.chunks(size * d));
        let mut fired = fired.as_mut().map(|fired| fired.chunks_mut(size));
        let mut lag = lag.as_mut().map(|lag| lag.chunks_mut(size));
        for ((first, bias), decoder) in (0..).step_by(size).zip(bias.chunks(size)).zip(decoder.chunks(size * d)) {
            let encoder = encoders.as_mut().and_then(Iterator::next);
            let fired = fired.as_mut().and_then(Iterator::next);
            let lag = lag.as_mut().and_then(Iterator::next);
            let features = Features { encoder, bias, decoder };
            let kept = all.as_mut().and_then(Iterator::next);
            items.push(Some((first, features, fired, lag, kept, sums.next())));
        }
        let rows = BatchRows { d, stride, x: &batch.x, residual };
        let (blocks, update) = (&blocks[..wave], own.update.filter(|_| last));
        team.for_each(&mut items, |thread, _, item| {
            let Some((first, features, fired, lag, kept, sums)) = item.take() else { return };
            let count = features.bias.value.len();
            let scratch = &mut *lock(&scratch[thread]);
            let gradients = kept.unwrap_or_else(|| scratch.sums.of(count, stride));
            isa.run(FeaturesKernel {
                rows,
                blocks,
                first_row,
                block_rows,
                first,
                gradients,
                fired,
                features,
                complete: last,
                update,
                lag,
                through_encoder: sums,
            });
        });
        self.profile.features += start.elapsed().as_secs_f64();
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
