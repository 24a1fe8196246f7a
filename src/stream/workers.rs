//! The threads of a stream: some make windows ready, some fill batches, at most `prefetch` ahead of the one who takes;
//! who takes fills batches too instead of waiting for one.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::shard::Dataset;
use crate::shard::dataset::Out;
use crate::stored::Normalize;
use crate::stream::batch::{Batch, Pool};
use crate::stream::gather::Gatherer;
use crate::stream::order::{Mode, Order};
use crate::stream::prepare::{LengthCheck, Windows};

/// What it takes to fill any batch of a stream.
pub(crate) struct Recipe {
    pub dataset: Arc<Dataset>,
    pub order: Order,
    pub mode: Mode,
    pub batch_size: usize,
    pub raw: bool,
    pub mean: Option<Vec<f32>>,
    pub factor: f32,
    /// Position of the first batch, and from one batch of this rank to the next.
    pub first: u64,
    pub stride: u64,
}

impl Recipe {
    /// The first position of batch `n`.
    pub fn position(&self, n: u64) -> u64 {
        self.first + n * self.stride
    }

    /// The windows that batch `n` takes rows from.
    pub fn windows(&self, n: u64) -> std::ops::RangeInclusive<u64> {
        let start = self.position(n);
        self.order.window_of(start)..=self.order.window_of(start + self.batch_size as u64 - 1)
    }

    /// Bytes of a batch.
    pub fn batch_bytes(&self) -> usize {
        let size = if self.raw { self.dataset.manifest().row_bytes() } else { self.dataset.dim() * 4 };
        self.batch_size * size
    }

    /// Fills `batch` with batch `n`; its windows are ready.
    pub fn fill(&self, n: u64, gatherer: &mut Gatherer, batch: &mut Batch) -> Result<()> {
        if self.raw {
            self.fill_out(n, gatherer, Out::Raw(batch.bytes_mut()))
        } else {
            self.fill_values(n, gatherer, batch.values_mut())
        }
    }

    /// The same, into float32 of somebody else.
    pub fn fill_values(&self, n: u64, gatherer: &mut Gatherer, out: &mut [f32]) -> Result<()> {
        let normalize = match &self.mean {
            Some(mean) => Normalize::Center(mean, self.factor),
            #[allow(clippy::float_cmp)] // exactly 1 needs no multiplication
            None if self.factor == 1.0 => Normalize::No,
            None => Normalize::Scale(self.factor),
        };
        self.fill_out(n, gatherer, Out::F32(out, normalize))
    }

    fn fill_out(&self, n: u64, gatherer: &mut Gatherer, out: Out<'_>) -> Result<()> {
        gatherer.gather(&self.dataset, &self.order, self.position(n), self.batch_size, out)
    }
}

struct State {
    /// The next batch that nobody fills yet.
    next: u64,
    /// Batches before this one have been taken.
    taken: u64,
    filled: BTreeMap<u64, Batch>,
    /// The first batch that cannot be filled; those before it are still given out.
    failed_from: u64,
    /// Why. It may come a moment after `failed_from`, from another thread.
    error: Option<Error>,
    /// Threads that wait for `room`.
    idle: usize,
    /// Whether somebody waits for `filled`.
    waiting: bool,
    stop: bool,
}

impl State {
    /// The next batch that nobody fills, as far as there is room for it.
    fn claim(&mut self, prefetch: u64) -> Option<u64> {
        let claimed =
            (self.failed_from == u64::MAX && self.next < self.taken.saturating_add(prefetch)).then_some(self.next)?;
        self.next += 1;
        Some(claimed)
    }
}

/// What one thread that fills batches keeps.
pub(crate) struct Filler {
    pub gatherer: Gatherer,
    pub lengths: LengthCheck,
}

impl Filler {
    pub fn new() -> Self {
        Self { gatherer: Gatherer::default(), lengths: LengthCheck::new() }
    }
}

struct Shared {
    recipe: Arc<Recipe>,
    prefetch: u64,
    pool: Pool,
    windows: Windows,
    state: Mutex<State>,
    room: Condvar,
    filled: Condvar,
}

/// The running threads; dropping it ends them.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    helped: bool,
}

impl Workers {
    /// Starts filling at batch `first`, with `threads` threads: the one who takes is the last of them, where there are
    /// several. (As an additional one it would take turns with them on the same cores.)
    pub fn start(recipe: Arc<Recipe>, first: u64, threads: usize, prefetch: usize, pool: Pool) -> Result<Self> {
        let shared = Arc::new(Shared {
            windows: Windows::new(*recipe.windows(first).start()),
            recipe,
            prefetch: prefetch as u64,
            pool,
            state: Mutex::new(State {
                next: first,
                taken: first,
                filled: BTreeMap::new(),
                failed_from: u64::MAX,
                error: None,
                idle: 0,
                waiting: false,
                stop: false,
            }),
            room: Condvar::new(),
            filled: Condvar::new(),
        });
        let mut workers = Self { shared: Arc::clone(&shared), threads: Vec::new(), helped: threads > 1 };
        let gathering = threads - usize::from(workers.helped);
        for i in 0..threads + gathering {
            let shared = Arc::clone(&shared);
            let (name, run): (_, fn(&Shared)) =
                if i < threads { ("prepare", Shared::prepare) } else { ("gather", Shared::gather) };
            let thread = std::thread::Builder::new().name(format!("sparsecode-{name}"));
            let started = thread.spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| run(&shared))).is_err() {
                    let what = "a thread of the stream panicked; please report it";
                    shared.fail(0, Some(Error::InvalidArgument(what.to_owned())));
                }
            });
            workers.threads.push(started.map_err(|e| Error::io(shared_path(&workers.shared), e))?);
        }
        Ok(workers)
    }

    /// Gets the next batch ready, or waits up to `patience` where others do; None where it is not there yet.
    pub fn take(&self, patience: Duration, filler: &mut Filler) -> Result<Option<Batch>> {
        let shared = &self.shared;
        let mut state = shared.lock();
        loop {
            let wanted = state.taken;
            if let Some(batch) = state.filled.remove(&wanted) {
                state.taken += 1;
                if state.idle > 0 {
                    shared.room.notify_one();
                }
                return Ok(Some(batch));
            }
            let failed_from = state.failed_from;
            if let Some(error) = state.error.take_if(|_| failed_from <= wanted) {
                return Err(error);
            }
            // Only what can be filled at once: waiting for a window would not be interrupted.
            if self.helped
                && shared.windows.are_ready(shared.recipe.windows(state.next))
                && let Some(n) = state.claim(shared.prefetch)
            {
                drop(state);
                shared.fill(n, filler);
                state = shared.lock();
                continue;
            }
            state.waiting = true;
            let (after, timeout) = shared.filled.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.waiting = false;
            if timeout.timed_out() {
                return Ok(None);
            }
        }
    }

    /// Waits for the threads to end. Not to be called in a forked child, which does not have them.
    fn end(&mut self) {
        self.shared.lock().stop = true;
        self.shared.room.notify_all();
        self.shared.windows.stop();
        for thread in self.threads.drain(..) {
            // A panic was turned into an error when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

fn shared_path(shared: &Shared) -> &std::path::Path {
    shared.recipe.dataset.folder()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that batch `n` cannot be filled: for `error`, or for the same reason as another that reports it.
    fn fail(&self, n: u64, error: Option<Error>) {
        let mut state = self.lock();
        state.failed_from = state.failed_from.min(n);
        state.error = state.error.take().or(error);
        self.filled.notify_all();
    }

    fn prepare(&self) {
        let recipe = &self.recipe;
        self.windows.work(&recipe.dataset, &recipe.order, recipe.mode);
    }

    fn gather(&self) {
        let mut filler = Filler::new();
        while let Some(n) = self.claim() {
            for window in self.recipe.windows(n) {
                match self.windows.wait(window) {
                    Ok(true) => {}
                    Ok(false) => return self.fail(n, None),
                    Err(error) => return self.fail(n, Some(error)),
                }
            }
            self.fill(n, &mut filler);
        }
    }

    /// Fills batch `n`, whose windows are ready.
    fn fill(&self, n: u64, filler: &mut Filler) {
        let recipe = &self.recipe;
        let mut batch = self.pool.take(recipe.batch_size);
        let Filler { gatherer, lengths } = filler;
        let result = lengths.run(&recipe.dataset).and_then(|()| recipe.fill(n, gatherer, &mut batch));
        match result {
            Ok(()) => {
                let mut state = self.lock();
                state.filled.insert(n, batch);
                if state.waiting && n == state.taken {
                    self.filled.notify_one();
                }
            }
            Err(error) => self.fail(n, Some(error)),
        }
    }

    fn claim(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if state.stop || state.failed_from < u64::MAX {
                return None;
            }
            if let Some(n) = state.claim(self.prefetch) {
                return Some(n);
            }
            state.idle += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}
