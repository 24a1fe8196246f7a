//! One step of one dictionary: how its rows are cut into blocks and waves, and the phases that each goes through.
use super::batch::{BLOCK_TILES, BatchBuffers};
use super::codes::{Codes, TileStats};
use super::dictionary::Dictionary;
use super::gradients::Gradients;
use super::kind::Activation;
use super::largest::{all_of, cut_of};
use super::phases::{Part, RowsWork};
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

/// Part of the smallest code of the last batch that the next batch's are expected above: from batch to batch the
/// smallest fell by up to 4 % in a training.
const FLOOR: f32 = 0.95;

/// Of so many rows one is allowed to have its k largest not all above what is expected: its tile is screened twice.
const ROWS_BELOW: usize = 1024;

/// The same of a part of the first batch.
const FIRST_FLOOR: f32 = 0.8;

/// How often a floor that was too high is halved before there is none.
const HALVES: u32 = 4;

/// What the batch before leads to expect of a dictionary.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Codes of a row.
    pub(super) active: f64,
    /// Whether they will be held as matrices.
    pub(super) dense: bool,
    /// What the batch's largest codes are above, or those of nearly every row by the row's norm, where these are selected;
    /// NaN: unknown. Whatever it says, the codes are the same.
    pub(super) floor: f32,
}

/// What a step of a dictionary found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    pub(super) stats: TileStats,
    /// What to expect of the next batch.
    pub(super) floor: f32,
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
    ) -> Found {
        let n = own.bias.value.len();
        let stride = batch.stride;
        self.residual.resize(rows * own.kind.group_count() * stride);
        let with_dead = self.find_dead(&mut own, d, stride);
        let tiles = rows.div_ceil(TILE);
        let Expected { active, dense, floor } = expected;
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
        // The loss of dead features begins when all residuals are known.
        let wave = if with_dead { blocks } else { wave };
        let held = if own.waits() { blocks } else { wave };
        if self.blocks.len() < held {
            self.blocks.resize_with(held, Codes::default);
        }
        let with_pre_bias = own.pre_bias.is_some() && !own.is_evaluation();
        self.tile_sums.resize(if with_pre_bias { tiles * stride } else { 0 });
        self.tile_sums.fill(0.0);
        let mut stats = vec![TileStats::default(); tiles];
        // Gradients outlive the phase where several waves add to them or the caller wants them.
        let kept = !own.is_evaluation() && (wave < blocks || own.gradients.is_some());
        if kept {
            self.gradients.of(n, stride, own.kind.own());
        }
        let mut found = Found { floor, ..Found::default() };
        let (above, expected, part) = (0.0, floor, Part::All);
        let mut work = RowsWork { blocks: 0..blocks, held: 0, tiles: block_tiles, dense, above, expected, part };
        let by_row = matches!(own.kind.activation, Activation::TopK { .. }) && !dense;
        let mut least = Vec::new();
        if own.waits() {
            let (above, least) = self.encode_all(batch, &own, d, &work, floor, &mut stats);
            found.floor = least.map_or(f32::NAN, |least| FLOOR * least);
            own.follow(least);
            let all_codes = self.blocks[..blocks].iter().map(Codes::count_positive).sum();
            work.part = Part::Decode(above, all_codes);
        } else {
            work.above = own.threshold_in_use();
            self.pack_weights(batch, &own, d, work.above);
        }
        for first in (0..blocks).step_by(wave) {
            let last = (first + wave).min(blocks);
            let held = if own.waits() { first..last } else { 0..last - first };
            let part = RowsWork { blocks: first..last, held: held.start, ..work };
            self.rows_phase(batch, &own, d, part, &mut stats);
            if by_row {
                self.blocks[held.clone()].iter().for_each(|codes| least.extend_from_slice(&codes.least));
            }
            if own.is_evaluation() {
                count_fired(own.fired.as_deref_mut().unwrap_or_default(), &self.blocks[held]);
            } else {
                let with_dead = with_dead && self.aux_phase(batch, &own, d, block_tiles);
                let (first_row, block_rows) = (first * block_tiles * TILE, block_tiles * TILE);
                self.features_phase(batch, &mut own, d, held, first_row, block_rows, kept, last == blocks, with_dead);
            }
        }
        if let Some(out) = &mut own.gradients {
            give_gradients(out, &self.gradients.so_far(), d, stride);
        }
        if with_pre_bias {
            self.pre_bias_phase(&mut own, d, stride);
        }
        for tile in &stats {
            found.stats.add(tile);
        }
        if by_row {
            let (_, least, _) = least.select_nth_unstable_by(own.rows / ROWS_BELOW, f32::total_cmp);
            found.floor = *least;
        }
        own.note_powers(found.stats.powers);
        found
    }

    /// Encodes the whole batch; gives what codes are above, where some are too many, and the smallest of those.
    fn encode_all(
        &mut self,
        batch: &BatchBuffers,
        own: &Dictionary<'_>,
        d: usize,
        work: &RowsWork,
        floor: f32,
        stats: &mut [TileStats],
    ) -> (Option<f32>, Option<f32>) {
        let mut encode = |worker: &mut Self, blocks: std::ops::Range<usize>, floor: f32| {
            worker.pack_weights(batch, own, d, floor);
            let part = RowsWork { blocks, above: floor.next_down().max(0.0), part: Part::Encode, ..*work };
            worker.rows_phase(batch, own, d, part, stats);
        };
        let all = work.blocks.clone();
        let Activation::BatchTopK { k } = own.kind.activation else {
            encode(self, all, 0.0);
            return (None, None);
        };
        let count = |rows: usize| ((k * rows as f64).round_ties_even() as usize).max(1);
        let wanted = count(own.rows);
        let mut floor = if wanted >= own.rows * own.bias.value.len() { 0.0 } else { floor };
        if floor.is_nan() {
            encode(self, 0..1, 0.0);
            let cut = cut_of(&self.blocks[..1], count(own.rows.min(work.tiles * TILE)));
            floor = cut.and_then(|cut| cut.least).map_or(0.0, |least| FIRST_FLOOR * least);
        }
        let mut halves = 0;
        loop {
            encode(self, all.clone(), floor);
            let blocks = &self.blocks[all.clone()];
            match cut_of(blocks, wanted) {
                Some(cut) => return (Some(cut.above), cut.least),
                None if floor > 0.0 => {
                    halves += 1;
                    floor = if halves > HALVES { 0.0 } else { floor / 2.0 };
                }
                None => {
                    let cut = all_of(blocks);
                    return (Some(cut.above), cut.least);
                }
            }
        }
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
        let own = sums.own.len() / sums.bias.len();
        let [theta, magnitude, gain] = &mut out.own;
        match (&sums.own[j * own..(j + 1) * own], theta, magnitude, gain) {
            ([of_theta], Some(theta), ..) => theta[j] = *of_theta as f32,
            ([of_magnitude, of_gain, of_bias], _, Some(magnitude), Some(gain)) => {
                (magnitude[j], gain[j]) = (*of_magnitude as f32, *of_gain as f32);
                out.bias[j] = *of_bias as f32;
            }
            _ => {}
        }
    }
}
