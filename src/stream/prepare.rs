//! Making blocks ready before rows are taken from them: digests compared, pages in memory, two windows ahead.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::shard::open::{Files, OpenShard};
use crate::shard::{Dataset, Verify};
use crate::stream::order::{Mode, Order};

/// Windows that are prepared beyond the one in use: one whose digests are compared while the disk reads the next.
const WINDOWS_AHEAD: u64 = 2;
/// How often mapped files are asked for their length: what is cut off in between can still be a SIGBUS.
const LENGTH_CHECK: Duration = Duration::from_millis(50);

/// Whether rows of `window` may be read before its blocks are prepared.
///
/// In the exact order every block is used all the time, so that only the comparison of digests is worth waiting for.
pub(crate) fn may_start_early(dataset: &Dataset, order: &Order, mode: Mode, window: u64) -> bool {
    mode == Mode::Exact
        && match dataset.verify_mode() {
            Verify::Never => true,
            Verify::Always => false,
            Verify::Once => order.blocks_of_window(window).blocks.iter().all(|&block| dataset.is_verified(block)),
        }
}

/// Whether reading all of `dataset` into memory ahead of use pays: it must fit beside everything else.
fn fits_in_memory(dataset: &Dataset) -> bool {
    let bytes: u64 = dataset.manifest().shards.iter().map(|shard| shard.bytes).sum();
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.is_some_and(|kib| bytes / 1024 < kib / 2)
}

/// The windows under way, shared by the threads that prepare them and those that wait.
pub(crate) struct Windows {
    first: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The newest window that somebody needs.
    wanted: u64,
    /// Windows before this one are ready, or were never needed.
    ready: u64,
    /// The window whose blocks are handed out next, after all of `jobs`.
    next: u64,
    jobs: VecDeque<Job>,
    stop: bool,
}

#[derive(Default)]
struct Job {
    window: u64,
    planned: bool,
    blocks: Vec<usize>,
    taken: usize,
    done: usize,
    early: bool,
    failed: bool,
    error: Option<Error>,
}

impl Windows {
    /// Nothing is prepared before window `first`.
    pub fn new(first: u64) -> Self {
        let state = State { wanted: first, ready: first, next: first, jobs: VecDeque::new(), stop: false };
        Self { first, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all waiting and preparing.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// Waits until `window` may be read; false where everything stops.
    ///
    /// The first who waits for a window that could not be prepared gets the error, others get false.
    pub fn wait(&self, window: u64) -> Result<bool> {
        let mut state = self.lock();
        if state.wanted < window {
            state.wanted = window;
            self.changed.notify_all();
        }
        loop {
            if state.stop {
                return Ok(false);
            }
            let ready = window < state.ready;
            let job = state.jobs.iter_mut().find(|job| job.window == window);
            match job {
                Some(job) if job.failed => return job.error.take().map_or(Ok(false), Err),
                Some(job) if job.early => return Ok(true),
                _ if ready => return Ok(true),
                _ => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether all of `windows` may be read now; if not, they are asked for.
    pub fn are_ready(&self, windows: RangeInclusive<u64>) -> bool {
        let mut state = self.lock();
        if state.wanted < *windows.end() {
            state.wanted = *windows.end();
            self.changed.notify_all();
        }
        windows.into_iter().all(|window| {
            let job = state.jobs.iter().find(|job| job.window == window);
            !state.stop && job.map_or(window < state.ready, |job| job.early && !job.failed)
        })
    }

    /// The work of one preparing thread, until `stop`.
    pub fn work(&self, dataset: &Dataset, order: &Order, mode: Mode) {
        let mut files = Files::default();
        while let Some((window, block)) = self.take(dataset, order, mode) {
            self.finish(window, dataset.prepare(block, true, &mut files));
        }
    }

    /// The next block to prepare, opening windows up to `WINDOWS_AHEAD` beyond the wanted one.
    fn take(&self, dataset: &Dataset, order: &Order, mode: Mode) -> Option<(u64, usize)> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return None;
            }
            let open = state.jobs.iter_mut().find(|job| job.taken < job.blocks.len() && !job.failed);
            if let Some(job) = open {
                job.taken += 1;
                return Some((job.window, job.blocks[job.taken - 1]));
            }
            if state.next <= state.wanted + WINDOWS_AHEAD {
                let window = state.next;
                state.next += 1;
                state.jobs.push_back(Job { window, ..Job::default() });
                // Which blocks, and asking for them, takes a while: others go on meanwhile.
                drop(state);
                let (early, blocks) = plan(dataset, order, mode, window, self.first);
                state = self.lock();
                if let Some(job) = state.jobs.iter_mut().find(|job| job.window == window) {
                    (job.early, job.blocks, job.planned) = (early, blocks, true);
                }
                settle(&mut state);
                self.changed.notify_all();
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, window: u64, result: Result<()>) {
        let mut state = self.lock();
        if let Some(job) = state.jobs.iter_mut().find(|job| job.window == window) {
            job.done += 1;
            if let Err(error) = result
                && !job.failed
            {
                (job.failed, job.error) = (true, Some(error));
            }
        }
        settle(&mut state);
        self.changed.notify_all();
    }
}

/// Whether rows of a window may be read at once, and the blocks to prepare; they are on their way from the disk then.
fn plan(dataset: &Dataset, order: &Order, mode: Mode, window: u64, first: u64) -> (bool, Vec<usize>) {
    let early = may_start_early(dataset, order, mode, window);
    let fits = window == first && mode == Mode::Exact && fits_in_memory(dataset);
    let useful = !early || fits;
    let blocks = if useful { order.blocks_of_window(window).blocks } else { Vec::new() };
    if fits {
        // Never where data is larger than memory: a row that is read again would bring two megabytes.
        dataset.shards().iter().for_each(OpenShard::want_huge_pages);
    }
    if mode != Mode::Exact {
        let mut files = Files::default();
        for &block in &blocks {
            // Advice: what fails here fails again, with its error, when the block is prepared.
            let _ = dataset.read_ahead(block, &mut files);
        }
    }
    (early, blocks)
}

/// Drops finished windows from the front and counts them as ready.
fn settle(state: &mut State) {
    while state.jobs.front().is_some_and(|job| job.planned && job.done == job.blocks.len() && !job.failed) {
        state.ready = state.jobs.pop_front().map_or(state.ready, |job| job.window + 1);
    }
}

/// When the lengths of mapped files were last looked at.
pub(crate) struct LengthCheck(Option<Instant>);

impl LengthCheck {
    pub fn new() -> Self {
        Self(None)
    }

    /// Looks again where it is time.
    pub fn run(&mut self, dataset: &Dataset) -> Result<()> {
        if self.0.is_none_or(|last| last.elapsed() >= LENGTH_CHECK) {
            for shard in dataset.shards() {
                shard.check_length()?;
            }
            self.0 = Some(Instant::now());
        }
        Ok(())
    }
}
