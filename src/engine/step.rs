//! One step of one dictionary: how its rows are cut into blocks and waves, and the phases that each goes through.
use super::batch::{BLOCK_TILES, BatchBuffers};
use super::codes::{Codes, TileStats};
use super::dictionary::Dictionary;
use super::gradients::Gradients;
use super::sweep::GradientsOut;
use super::worker::Worker;
use crate::vector::tile::TILE;

/// Most tiles in a block where codes are held as matrices: a thread's are then 8 MB for 4096 features.
const DENSE_BLOCK_TILES: usize = 4;

/// Codes that are held at once (12 bytes each); a dictionary that has more is worked on in waves of rows.
const WAVE_CODES: usize = 2 << 20;

/// Rows and residuals that stay in the second cache while features read them: 1,024 rows of D = 128. Reading them from the
/// third costs three times as much.
const CACHE_BYTES: usize = 1 << 20;

/// Codes of a feature in such a wave from which that pays for gradients that are kept from wave to wave.
const CODES_PER_WAVE: f64 = 2.0;

/// What the batch before leads to expect of a dictionary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Codes of a row.
    pub(super) active: f64,
    /// Whether they will be held as matrices.
    pub(super) dense: bool,
}

impl Worker {
    /// Does to one dictionary what its `update` and `gradients` ask for.
    pub(super) fn dictionary(
        &mut self,
        batch: &BatchBuffers,
        mut own: Dictionary<'_>,
        rows: usize,
        d: usize,
        expected: Expected,
    ) -> TileStats {
        let n = own.bias.value.len();
        let stride = batch.stride;
        self.residual.resize(rows * stride);
        self.pack_weights(batch, &own, d);
        let tiles = rows.div_ceil(TILE);
        let Expected { active, dense } = expected;
        if dense {
            self.fill_panels(batch, &own, d);
        }
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
            self.gradients.of(n, stride);
        }
        for first in (0..blocks).step_by(wave) {
            let last = (first + wave).min(blocks);
            self.rows_phase(batch, &own, rows, d, first..last, block_tiles, dense, &mut stats);
            let done = &self.blocks[..last - first];
            if own.is_evaluation() {
                count_fired(own.fired.as_deref_mut().unwrap_or_default(), done);
            } else {
                let (first_row, block_rows) = (first * block_tiles * TILE, block_tiles * TILE);
                self.features_phase(batch, &mut own, d, last - first, first_row, block_rows, kept, last == blocks);
            }
        }
        if let Some(out) = &mut own.gradients {
            give_gradients(out, &self.gradients.so_far(), d, stride);
        }
        if with_pre_bias {
            self.pre_bias_phase(&mut own, d, stride);
        }
        stats.iter().fold(TileStats::default(), |mut sum, tile| {
            sum.sse += tile.sse;
            sum.l1.iter_mut().zip(tile.l1).for_each(|(sum, lane)| *sum += lane);
            sum.l0 += tile.l0;
            sum.codes += tile.codes;
            sum.candidates += tile.candidates;
            sum
        })
    }
}

fn count_fired(fired: &mut [i64], blocks: &[Codes]) {
    for block in blocks.iter().filter(|block| block.is_dense) {
        block.dense.count_fired(fired);
    }
    for (j, fired) in fired.iter_mut().enumerate() {
        for block in blocks.iter().filter(|block| !block.is_dense) {
            *fired += block.feature(j).z.iter().filter(|z| **z > 0.0).count() as i64;
        }
    }
}

/// Copies gradients out of their padded rows.
fn give_gradients(out: &mut GradientsOut<'_>, sums: &Gradients<'_>, d: usize, stride: usize) {
    for (j, (row, bias)) in sums.rows.chunks_exact(2 * stride).zip(&*sums.bias).enumerate() {
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
