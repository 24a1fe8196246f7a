//! A stream of batches: what Python and the training engine see.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::shard::Dataset;
use crate::shard::open::Files;
use crate::stream::batch::{Batch, Pool};
use crate::stream::order::{Mode, Order};
use crate::stream::prepare::may_start_early;
use crate::stream::workers::{Filler, Recipe, Workers};

/// What a stream gives, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Rows of a batch.
    pub batch_size: usize,
    /// Seed of the order.
    pub seed: u64,
    /// The rows to stream.
    pub rows: Range<u64>,
    /// Position in the endless sequence at which the next round of batches starts, one batch per rank.
    pub position: u64,
    /// How rows are shuffled.
    pub mode: Mode,
    /// Values as they are stored, instead of normalised float32.
    pub raw: bool,
    /// Subtracted from every row.
    pub mean: Option<Vec<f32>>,
    /// Every value is divided by it (multiplied by its reciprocal), after the mean is subtracted.
    pub scale: f32,
    /// Threads that fill batches, the one who takes them among them where there are several; and as many that prepare
    /// blocks.
    pub threads: usize,
    /// Batches that are filled ahead; 0 fills each when it is asked for, without threads.
    pub prefetch: usize,
    /// Which batch of every round is this stream's.
    pub rank: u64,
    /// Batches in a round.
    pub world_size: u64,
}

/// Positions stay far from overflow.
const MAX_POSITION: u64 = 1 << 62;
/// How often a waiting stream looks whether it was interrupted.
const PATIENCE: Duration = Duration::from_millis(50);

/// An endless sequence of batches.
pub struct Stream {
    recipe: Arc<Recipe>,
    threads: usize,
    prefetch: usize,
    start: u64,
    round: u64,
    taken: u64,
    closed: bool,
    process: u32,
    workers: Option<Workers>,
    inline: Inline,
    pool: Pool,
}

/// What filling in the thread of the one who takes keeps.
struct Inline {
    filler: Filler,
    /// Windows before this one are ready.
    ready: u64,
}

impl Inline {
    fn new() -> Self {
        Self { filler: Filler::new(), ready: 0 }
    }
}

impl Stream {
    /// Opens a stream; threads start with the first batch.
    ///
    /// # Errors
    /// `InvalidArgument` where a setting does not fit the dataset.
    pub fn new(dataset: Arc<Dataset>, settings: Settings) -> Result<Self> {
        let invalid = |what: String| Err(Error::InvalidArgument(format!("{}: {what}", dataset.folder().display())));
        let s = &settings;
        let normalizes = s.mean.is_some() || s.scale.to_bits() != 1.0_f32.to_bits();
        if s.batch_size == 0 || s.threads == 0 || s.world_size == 0 || s.rank >= s.world_size {
            return invalid(format!(
                "batch_size {}, threads {} and world_size {} must be at least 1 and rank {} below world_size",
                s.batch_size, s.threads, s.world_size, s.rank
            ));
        }
        if !(s.scale.is_finite() && s.scale != 0.0 && (1.0 / s.scale).is_finite()) {
            return invalid(format!("cannot divide by a scale of {}", s.scale));
        }
        if s.mean.as_ref().is_some_and(|mean| mean.len() != dataset.dim()) {
            return invalid(format!("the mean must have {} values", dataset.dim()));
        }
        if s.raw && normalizes {
            return invalid("mean and scale need float32 output".to_owned());
        }
        let round = s.world_size.checked_mul(s.batch_size as u64).filter(|round| *round < MAX_POSITION);
        let Some(round) = round.filter(|_| s.position < MAX_POSITION) else {
            return invalid(format!("position {} or batch_size {} is too large", s.position, s.batch_size));
        };
        if s.batch_size
            .checked_mul(dataset.dim())
            .and_then(|n| n.checked_mul(4))
            .is_none_or(|n| n > isize::MAX as usize)
        {
            return invalid(format!("a batch of {} rows does not fit in memory", s.batch_size));
        }
        let order = Order::new(&dataset, s.rows.clone(), s.seed, s.mode)?;
        let recipe = Arc::new(Recipe {
            order,
            mode: s.mode,
            batch_size: s.batch_size,
            raw: s.raw,
            mean: settings.mean,
            factor: 1.0 / settings.scale,
            first: settings.position + settings.rank * settings.batch_size as u64,
            stride: round,
            dataset,
        });
        let pool = new_pool(&recipe, settings.prefetch);
        if !pool.has_room() {
            return Err(Error::InvalidArgument(format!(
                "{}: a batch of {} rows needs more memory than there is; choose fewer",
                recipe.dataset.folder().display(),
                recipe.batch_size
            )));
        }
        Ok(Self {
            recipe,
            threads: settings.threads,
            prefetch: settings.prefetch,
            start: settings.position,
            round,
            taken: 0,
            closed: false,
            process: std::process::id(),
            workers: None,
            inline: Inline::new(),
            pool,
        })
    }

    /// Where the next round starts: pass it as `position`, to every rank, to go on from here.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.start + self.taken * self.round
    }

    /// Rows of a batch.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.recipe.batch_size
    }

    /// Values per row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.recipe.dataset.dim()
    }

    /// Whether batches are values as they are stored, not float32.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.recipe.raw
    }

    /// The next batch.
    ///
    /// # Errors
    /// `ShardCorrupt`, `ShardTruncated`, `ShardMissing`, `IoFailed`; `InvalidArgument` after `close`. After an error
    /// the stream stands where it stood, and the next call tries again.
    pub fn next_batch(&mut self) -> Result<Batch> {
        loop {
            if let Some(batch) = self.next_batch_until(&mut || false)? {
                return Ok(batch);
            }
        }
    }

    /// The next batch, or None once `interrupted` says so; it is asked some twenty times a second.
    ///
    /// # Errors
    /// As [`Self::next_batch`].
    pub fn next_batch_until(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<Option<Batch>> {
        self.check()?;
        if self.prefetch == 0 {
            if !self.prepare_inline(interrupted)? {
                return Ok(None);
            }
            let mut batch = self.pool.take(self.recipe.batch_size);
            let filler = &mut self.inline.filler;
            self.recipe.fill(self.taken, &mut filler.gatherer, &mut batch)?;
            self.taken += 1;
            return Ok(Some(batch));
        }
        loop {
            let workers = match &self.workers {
                Some(workers) => workers,
                None => self.workers.insert(Workers::start(
                    Arc::clone(&self.recipe),
                    self.taken,
                    self.threads,
                    self.prefetch,
                    self.pool.clone(),
                )?),
            };
            match workers.take(PATIENCE, &mut self.inline.filler) {
                Ok(Some(batch)) => {
                    self.taken += 1;
                    return Ok(Some(batch));
                }
                Ok(None) if interrupted() => return Ok(None),
                Ok(None) => {}
                Err(error) => {
                    self.workers = None;
                    return Err(error);
                }
            }
        }
    }

    /// Writes the next batch into `out`, [batch size, D] row after row.
    ///
    /// # Errors
    /// As [`Self::next_batch`]; `InvalidArgument` where `out` does not fit, or the stream gives stored values.
    pub fn next_into(&mut self, out: &mut [f32]) -> Result<()> {
        let expected = self.recipe.batch_size * self.recipe.dataset.dim();
        if self.recipe.raw || out.len() != expected {
            return Err(Error::InvalidArgument(format!(
                "a batch is {expected} values of {}, not {} of float32",
                if self.recipe.raw { self.recipe.dataset.manifest().dtype.name() } else { "float32" },
                out.len()
            )));
        }
        self.check()?;
        if self.prefetch == 0 {
            self.prepare_inline(&mut || false)?;
            let filler = &mut self.inline.filler;
            self.recipe.fill_values(self.taken, &mut filler.gatherer, out)?;
            self.taken += 1;
            return Ok(());
        }
        out.copy_from_slice(self.next_batch()?.values());
        Ok(())
    }

    /// Ends the threads. Batches that were taken stay valid.
    pub fn close(&mut self) {
        self.leave_threads_of_another_process();
        self.workers = None;
        self.closed = true;
    }

    fn check(&mut self) -> Result<()> {
        if self.closed {
            return Err(Error::InvalidArgument("the stream is closed; open it again at its position".to_owned()));
        }
        if self.recipe.position(self.taken) > MAX_POSITION * 2 {
            return Err(Error::InvalidArgument("the stream has come to the end of all positions".to_owned()));
        }
        self.leave_threads_of_another_process();
        Ok(())
    }

    /// After a fork the child has the memory of the threads but not the threads, and locks that nobody will open.
    fn leave_threads_of_another_process(&mut self) {
        let process = std::process::id();
        if self.process != process {
            std::mem::forget(self.workers.take());
            std::mem::forget(std::mem::replace(&mut self.pool, new_pool(&self.recipe, self.prefetch)));
            self.inline = Inline::new();
            self.process = process;
        }
    }

    /// Prepares the windows of the next batch in this thread; false where interrupted.
    fn prepare_inline(&mut self, interrupted: &mut dyn FnMut() -> bool) -> Result<bool> {
        let recipe = &self.recipe;
        let windows = recipe.windows(self.taken);
        for window in (*windows.start()).max(self.inline.ready)..=*windows.end() {
            if !may_start_early(&recipe.dataset, &recipe.order, recipe.mode, window) {
                let mut files = Files::default();
                let blocks = recipe.order.blocks_of_window(window).blocks;
                for &block in blocks.iter().filter(|_| recipe.mode != Mode::Exact) {
                    recipe.dataset.read_ahead(block, &mut files)?;
                }
                for block in blocks {
                    if interrupted() {
                        return Ok(false);
                    }
                    recipe.dataset.prepare(block, true, &mut files)?;
                }
            }
            self.inline.ready = window + 1;
        }
        self.inline.filler.lengths.run(&recipe.dataset)?;
        Ok(true)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.leave_threads_of_another_process();
    }
}

/// Buffers for the batches that are filled ahead, the one that is filled and the one that the caller has.
fn new_pool(recipe: &Recipe, prefetch: usize) -> Pool {
    Pool::new(recipe.batch_bytes(), prefetch.saturating_add(2))
}
