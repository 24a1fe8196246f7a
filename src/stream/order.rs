//! Which row stands at which position: a pure function of (seed, epoch, position) and the shape of the dataset.
//!
//! The global sequence of positions is 0, 1, 2, ...; with R rows, position p belongs to epoch p / R. *Exact*: the rows of
//! an epoch are permuted as one. *Windowed*: the blocks of the dataset are permuted, W of them at a time form a window,
//! and the rows of a window are permuted; so a window can be read ahead, block by block, and nothing else is touched.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::shard::Dataset;
use crate::shard::segments::Segments;
use crate::stream::permutation::Permutation;

/// How rows are shuffled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One permutation of all rows.
    Exact,
    /// Permuted blocks, then permuted rows within windows of about this many bytes.
    Windowed {
        /// Bytes of activations in a window, about.
        bytes: u64,
    },
}

const TAG_EXACT: u64 = 0;
const TAG_BLOCKS: u64 = 1;
const TAG_WINDOW: u64 = 2;

/// Rows that are asked for while those before them are copied: enough lines under way to hide their latency, and few
/// enough that working out the rows of the next chunk takes less than it.
pub const CHUNK: usize = 64;

/// Rows whose blocks must be ready before any of them is read.
#[derive(Debug, Clone)]
pub struct Window {
    /// Blocks of the dataset, in the order in which they lie on disk.
    pub blocks: Vec<usize>,
}

/// The order of the rows of one range of a dataset.
pub struct Order {
    seed: u64,
    rows: Range<u64>,
    kind: Kind,
}

enum Kind {
    Exact { blocks: Range<usize> },
    Windowed { blocks: Vec<(usize, Range<u64>)>, per_window: usize, plans: Mutex<Vec<Arc<Plan>>> },
}

/// The windows of one epoch.
struct Plan {
    epoch: u64,
    blocks: Permutation,
    windows: Segments,
}

impl Order {
    /// The order of `rows` of `dataset`.
    ///
    /// # Errors
    /// `InvalidArgument` where there are no such rows.
    pub fn new(dataset: &Dataset, rows: Range<u64>, seed: u64, mode: Mode) -> Result<Self> {
        if rows.start >= rows.end || rows.end > dataset.rows() {
            return Err(Error::InvalidArgument(format!(
                "{}: rows {} to {} cannot be streamed; there are {}",
                dataset.folder().display(),
                rows.start,
                rows.end,
                dataset.rows()
            )));
        }
        let covered = dataset.blocks_of(&rows);
        let kind = match mode {
            Mode::Exact => Kind::Exact { blocks: covered },
            Mode::Windowed { bytes } => {
                let blocks = covered.map(|block| {
                    let all = dataset.block(block);
                    (block, all.start.max(rows.start)..all.end.min(rows.end))
                });
                let block_bytes = dataset.manifest().block_rows * dataset.manifest().row_bytes() as u64;
                let per_window = (bytes / block_bytes).max(1) as usize;
                Kind::Windowed { blocks: blocks.collect(), per_window, plans: Mutex::default() }
            }
        };
        Ok(Self { seed, rows, kind })
    }

    /// Rows in an epoch.
    #[must_use]
    pub fn rows_per_epoch(&self) -> u64 {
        self.rows.end - self.rows.start
    }

    /// The rows at positions `start`, `start + 1`, ...
    pub fn rows(&self, start: u64, out: &mut [u64]) {
        let mut done = 0;
        self.chunks(start, out.len(), &mut |rows| {
            out[done..done + rows.len()].copy_from_slice(rows);
            done += rows.len();
        });
    }

    /// Calls `each` with the rows at `count` positions from `start` on, in order, at most [`CHUNK`] of them at once.
    pub fn chunks(&self, start: u64, count: usize, each: &mut dyn FnMut(&[u64])) {
        let per_epoch = self.rows_per_epoch();
        let (mut at, mut left) = (start, count);
        while left > 0 {
            let (epoch, k) = (at / per_epoch, at % per_epoch);
            let n = ((per_epoch - k) as usize).min(left);
            self.chunks_in_epoch(epoch, k, n, each);
            at += n as u64;
            left -= n;
        }
    }

    fn chunks_in_epoch(&self, epoch: u64, mut k: u64, mut count: usize, each: &mut dyn FnMut(&[u64])) {
        match &self.kind {
            Kind::Exact { .. } => {
                let permutation = Permutation::new(self.rows_per_epoch(), self.seed, epoch, TAG_EXACT);
                chunks_of(&permutation, k, count, |rows| {
                    for row in &mut *rows {
                        *row += self.rows.start;
                    }
                    each(rows);
                });
            }
            Kind::Windowed { .. } => {
                let plan = self.plan(epoch);
                while count > 0 {
                    let (window, inside) = plan.windows.find(k);
                    let (blocks, segments) = self.window(&plan, window);
                    let n = ((segments.total() - inside) as usize).min(count);
                    let key = self.seed ^ (window as u64).rotate_left(32);
                    let permutation = Permutation::new(segments.total(), key, epoch, TAG_WINDOW);
                    chunks_of(&permutation, inside, n, |rows| {
                        for row in &mut *rows {
                            let (block, place) = segments.find(*row);
                            *row = blocks[block].1.start + place;
                        }
                        each(rows);
                    });
                    k += n as u64;
                    count -= n;
                }
            }
        }
    }

    /// Number of windows in an epoch: 1 for the exact order.
    #[must_use]
    pub fn windows_per_epoch(&self) -> u64 {
        match &self.kind {
            Kind::Exact { .. } => 1,
            Kind::Windowed { blocks, per_window, .. } => blocks.len().div_ceil(*per_window) as u64,
        }
    }

    /// The window, counted over all epochs, that holds position `position`.
    #[must_use]
    pub fn window_of(&self, position: u64) -> u64 {
        let (epoch, k) = (position / self.rows_per_epoch(), position % self.rows_per_epoch());
        match &self.kind {
            Kind::Exact { .. } => epoch,
            Kind::Windowed { .. } => epoch * self.windows_per_epoch() + self.plan(epoch).windows.find(k).0 as u64,
        }
    }

    /// The blocks of window `window`, counted over all epochs.
    #[must_use]
    pub fn blocks_of_window(&self, window: u64) -> Window {
        match &self.kind {
            Kind::Exact { blocks } => Window { blocks: blocks.clone().collect() },
            Kind::Windowed { .. } => {
                let per_epoch = self.windows_per_epoch();
                let plan = self.plan(window / per_epoch);
                let (blocks, _) = self.window(&plan, (window % per_epoch) as usize);
                Window { blocks: blocks.into_iter().map(|(block, _)| block).collect() }
            }
        }
    }

    /// The blocks of a window with their rows, as they lie on disk, and their lengths as segments.
    fn window(&self, plan: &Plan, window: usize) -> (Vec<(usize, Range<u64>)>, Segments) {
        let Kind::Windowed { blocks, per_window, .. } = &self.kind else { return (Vec::new(), Segments::new([])) };
        let places = window * per_window..blocks.len().min((window + 1) * per_window);
        let mut chosen = vec![0; places.len()];
        plan.blocks.range(places.start as u64, &mut chosen);
        chosen.sort_unstable();
        let chosen: Vec<_> = chosen.into_iter().map(|i| blocks[i as usize].clone()).collect();
        let segments = Segments::new(chosen.iter().map(|(_, rows)| rows.end - rows.start));
        (chosen, segments)
    }

    /// The windows of an epoch; the last few epochs are kept, since batches of two are under way at its end.
    fn plan(&self, epoch: u64) -> Arc<Plan> {
        let Kind::Windowed { blocks, per_window, plans } = &self.kind else { unreachable!("only windows have plans") };
        // try_lock, not lock: a fork may have copied it while it was held. To plan again is only slower.
        if let Ok(plans) = plans.try_lock()
            && let Some(plan) = plans.iter().find(|plan| plan.epoch == epoch)
        {
            return Arc::clone(plan);
        }
        let permutation = Permutation::new(blocks.len() as u64, self.seed, epoch, TAG_BLOCKS);
        let mut order = vec![0; blocks.len()];
        permutation.range(0, &mut order);
        let rows = |i: &u64| blocks[*i as usize].1.end - blocks[*i as usize].1.start;
        let windows = Segments::new(order.chunks(*per_window).map(|window| window.iter().map(rows).sum()));
        let plan = Arc::new(Plan { epoch, blocks: permutation, windows });
        if let Ok(mut plans) = plans.try_lock() {
            if plans.len() == 3 {
                plans.remove(0);
            }
            plans.push(Arc::clone(&plan));
        }
        plan
    }
}

/// Calls `each` with the images of `count` indices from `start` on, at most `CHUNK` of them at once.
fn chunks_of(permutation: &Permutation, mut start: u64, mut count: usize, mut each: impl FnMut(&mut [u64])) {
    let mut rows = [0; CHUNK];
    while count > 0 {
        let rows = &mut rows[..count.min(CHUNK)];
        permutation.range(start, rows);
        start += rows.len() as u64;
        count -= rows.len();
        each(rows);
    }
}
