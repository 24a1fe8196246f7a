//! Dead features of a dictionary, and the loss that brings them back (AuxK): the largest of them decode what the others left.
use std::time::Instant;

use super::batch::BatchBuffers;
use super::codes::{Codes, TileStats};
use super::dense_products::fill_panels;
use super::derive::DeriveAux;
use super::dictionary::Dictionary;
use super::largest::LargestOfRows;
use super::parameters::Weights;
use super::sort::SortRows;
use super::worker::{Dead, Worker};
use crate::threads::lock;
use crate::vector::simd::LANES;
use crate::vector::tile::TILE;

impl Worker {
    /// Finds out which features are dead, and counts the rows of a training; true if there are any.
    pub(super) fn find_dead(&mut self, own: &mut Dictionary<'_>, d: usize, stride: usize) -> bool {
        let Dead { features, bias, encoder, panels, .. } = &mut self.dead;
        features.clear();
        let (false, Some(aux), Some(since)) = (own.is_evaluation(), own.kind.aux, &mut own.since) else { return false };
        features.extend((0..).zip(&**since).filter(|(_, since)| **since >= aux.dead_after).map(|(j, _)| j));
        if own.update.is_some() {
            // Those that fire begin anew in the phase of the features.
            since.iter_mut().for_each(|since| *since += own.rows as i64);
        }
        bias.clear();
        bias.extend(features.iter().map(|j| own.bias.value[*j as usize]));
        encoder.clear();
        for j in &*features {
            encoder.extend_from_slice(&own.encoder()[*j as usize * d..(*j as usize + 1) * d]);
        }
        panels.resize(features.len().next_multiple_of(LANES) * stride);
        fill_panels(encoder, d, stride, panels);
        !features.is_empty()
    }

    /// The loss of dead features, once the residuals of the whole batch are known. False: there is none, since no residual
    /// differs from the others by more than rounding.
    pub(super) fn aux_phase(&mut self, batch: &BatchBuffers, own: &Dictionary<'_>, d: usize, tiles: usize) -> bool {
        let start = Instant::now();
        let Some(aux) = own.kind.aux else { return false };
        let Self { isa, team, residual, scratch, dead, .. } = self;
        let (stride, groups, n) = (batch.stride, own.kind.group_count(), own.bias.value.len());
        let scaled = own.scales.error;
        let variation = variation(residual, stride, groups, d) / (f64::from(scaled) * f64::from(scaled));
        if variation.is_nan() || variation <= 0.0 {
            return false;
        }
        let scale = (2.0 * aux.alpha / variation) as f32;
        let weights = Weights { d, encoder: own.encoder(), bias: own.bias.value, decoder: own.decoder.value };
        let Dead { features, bias, panels, blocks, gap, .. } = dead;
        let size = tiles * TILE;
        gap.resize(batch.x.len());
        let count = batch.x.len().div_ceil(size * stride);
        if blocks.len() < count {
            blocks.resize_with(count, Codes::default);
        }
        let k = aux.k;
        let parts = batch.x.chunks(size * stride).zip(residual.chunks(size * stride * groups));
        let mut items: Vec<_> = parts.zip(gap.chunks_mut(size * stride)).zip(blocks).collect();
        team.for_each(&mut items, |thread, index, (((x, residual), gap), codes)| {
            let scratch = &mut *lock(&scratch[thread]);
            let (first_row, rows, features) = (index * size, x.len() / stride, Some(&**features));
            isa.run(LargestOfRows { panels, bias, k, features, stride, x, first_row, codes, scratch });
            // They are no codes of the dictionary, and count nowhere.
            let stats = &mut vec![TileStats::default(); tiles];
            isa.run(SortRows { n, first_row, rows, waited: false, above: None, stats, codes, scratch });
            isa.run(DeriveAux { weights, stride, residual, groups, scaled, scale, gap, codes, scratch });
        });
        self.profile.rows += start.elapsed().as_secs_f64();
        true
    }
}

/// The sum over all rows of the squared distance of a residual from their mean; 0 where it is rounding alone.
fn variation(residual: &[f32], stride: usize, groups: usize, d: usize) -> f64 {
    let (mut sums, mut squares) = (vec![0.0f64; d], vec![0.0f64; d]);
    let mut rows = 0.0;
    for row in residual.chunks_exact(groups * stride) {
        rows += 1.0;
        let row = row[(groups - 1) * stride..].iter().map(|r| f64::from(*r));
        for ((sum, square), r) in sums.iter_mut().zip(&mut squares).zip(row) {
            *sum += r;
            *square += r * r;
        }
    }
    let square = squares.iter().sum::<f64>();
    let found = square - sums.iter().map(|sum| sum * sum).sum::<f64>() / rows;
    if found > f64::from(f32::EPSILON) * square { found } else { 0.0 }
}
