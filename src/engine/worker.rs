//! What works on one dictionary at a time: threads, and the buffers that they fill on the way.

use std::sync::Mutex;

use super::aligned::Aligned;
use super::codes::{Codes, Scratch};
use super::dense_products::Panels;
use super::engine::Profile;
use super::gradients::Sums;
use super::path::Path;
use super::screen::WeightPack;
use super::team::Team;

/// A team of threads and its buffers, which are kept from dictionary to dictionary.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) path: Path,
    pub(super) team: Team,
    pub(super) residual: Aligned,
    pub(super) weights: WeightPack,
    pub(super) panels: Panels,
    pub(super) blocks: Vec<Codes>,
    pub(super) scratch: Vec<Mutex<Scratch>>,
    pub(super) gradients: Sums,
    pub(super) chunk_sums: Aligned,
    pub(super) tile_sums: Aligned,
    pub(super) profile: Profile,
}

impl Worker {
    pub(super) fn new(path: Path, threads: usize) -> Self {
        let team = Team::new(threads);
        let scratch = (0..team.threads()).map(|_| Mutex::default()).collect();
        Self {
            path,
            team,
            residual: Aligned::default(),
            weights: WeightPack::default(),
            panels: Panels::default(),
            blocks: Vec::new(),
            scratch,
            gradients: Sums::default(),
            chunk_sums: Aligned::default(),
            tile_sums: Aligned::default(),
            profile: Profile::default(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let codes = self.blocks.iter().map(Codes::bytes).sum::<usize>();
        let scratch = self.scratch.iter().map(|scratch| lock(scratch).bytes()).sum::<usize>();
        let sums = self.gradients.bytes() + self.chunk_sums.bytes() + self.tile_sums.bytes();
        self.residual.bytes() + self.weights.bytes() + self.panels.bytes() + codes + scratch + sums
    }
}

/// Locks; what a holder that panicked left is overwritten before it is read.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
