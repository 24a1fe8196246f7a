//! What works on one dictionary at a time: threads, and the buffers that they fill on the way.
use std::sync::Mutex;

use super::codes::{Codes, Scratch, Spent};
use super::dense_products::Panels;
use super::gradients::Sums;
use super::team::Team;
use crate::threads::lock;
use crate::vector::aligned::Aligned;
use crate::vector::isa::Isa;
use crate::vector::packing::WeightPack;

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

/// A team of threads and its buffers, which are kept from dictionary to dictionary.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) isa: Isa,
    pub(super) team: Team,
    pub(super) residual: Aligned,
    pub(super) weights: WeightPack,
    pub(super) panels: Panels,
    pub(super) blocks: Vec<Codes>,
    pub(super) scratch: Vec<Mutex<Scratch>>,
    pub(super) gradients: Sums,
    pub(super) chunk_sums: Aligned,
    pub(super) tile_sums: Aligned,
    /// [n]: what the screen takes for biases, of kinds whose codes do not begin at 0.
    pub(super) limits: Vec<f32>,
    /// The error of every feature in the screen, where rows have limits of their own.
    pub(super) level: f32,
    /// [n]: e^rho of gated dictionaries.
    pub(super) gain: Vec<f32>,
    /// [stride]: the sum of the batch's rows, for losses on all of them.
    pub(super) row_sum: Aligned,
    pub(super) dead: Dead,
    pub(super) profile: Profile,
}

/// Dead features of a dictionary, and what their loss needs.
#[derive(Debug, Default)]
pub(super) struct Dead {
    /// Which, ascending.
    pub(super) features: Vec<u32>,
    /// Their biases and encoders, side by side.
    pub(super) bias: Vec<f32>,
    pub(super) encoder: Vec<f32>,
    pub(super) panels: Aligned,
    /// Their codes, block by block, and [B][stride]: what these leave.
    pub(super) blocks: Vec<Codes>,
    pub(super) gap: Aligned,
}

impl Dead {
    fn bytes(&self) -> usize {
        let lists = self.features.capacity() + self.bias.capacity() + self.encoder.capacity();
        let codes = self.blocks.iter().map(Codes::bytes).sum::<usize>();
        lists * size_of::<f32>() + self.panels.bytes() + codes + self.gap.bytes()
    }
}

impl Worker {
    pub(super) fn new(isa: Isa, threads: usize) -> Self {
        let team = Team::new(threads);
        let scratch = (0..team.threads()).map(|_| Mutex::default()).collect();
        Self {
            isa,
            team,
            residual: Aligned::default(),
            weights: WeightPack::default(),
            panels: Panels::default(),
            blocks: Vec::new(),
            scratch,
            gradients: Sums::default(),
            chunk_sums: Aligned::default(),
            tile_sums: Aligned::default(),
            limits: Vec::new(),
            level: 0.0,
            gain: Vec::new(),
            row_sum: Aligned::default(),
            dead: Dead::default(),
            profile: Profile::default(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let codes = self.blocks.iter().map(Codes::bytes).sum::<usize>();
        let scratch = self.scratch.iter().map(|scratch| lock(scratch).bytes()).sum::<usize>();
        let sums = self.gradients.bytes() + self.chunk_sums.bytes() + self.tile_sums.bytes() + self.row_sum.bytes();
        let vectors = (self.limits.capacity() + self.gain.capacity()) * size_of::<f32>() + self.dead.bytes();
        vectors + self.residual.bytes() + self.weights.bytes() + self.panels.bytes() + codes + scratch + sums
    }
}
