//! The engine's own threads: one call wakes all, the caller works too, and between the phases of a step they spin for
//! a moment before they sleep. Waking through the operating system costs more than a phase of a small dictionary.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Pauses before a waiting thread gives its core away, and times it does so before it sleeps: some 20 and 200 us.
const SPINS: u32 = 400;
const YIELDS: u32 = 100;

/// A fixed number of threads that work together, the caller among them.
pub struct Team {
    threads: usize,
    crew: Mutex<Option<Crew>>,
}

struct Crew {
    process: u32,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    round: AtomicUsize,
    working: AtomicUsize,
    panicked: AtomicBool,
    job: Mutex<Option<Job>>,
    wake: Condvar,
}

/// A borrowed closure whose true lifetime the type does not show: `Team::run` outlives every use of it.
#[derive(Clone, Copy)]
struct Job(&'static (dyn Fn(usize) + Sync));

const STOP: usize = usize::MAX;

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Team {
    /// A team of `threads`; the threads start with the first work.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), crew: Mutex::new(None) }
    }

    /// Threads that work, the caller among them.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work(thread)` once on every thread and returns when all are done.
    ///
    /// # Panics
    /// If `work` panicked on any thread.
    pub fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        if self.threads == 1 {
            return work(0);
        }
        let mut crew = self.crew.lock().unwrap_or_else(PoisonError::into_inner);
        // After a fork the child has the memory of the threads but not the threads: it makes its own.
        if crew.as_ref().is_some_and(|crew| crew.process != std::process::id()) {
            std::mem::forget(crew.take());
        }
        let crew = crew.get_or_insert_with(|| Crew::start(self.threads - 1));
        let shared = &*crew.shared;
        // SAFETY: only the lifetime changes. Workers use the reference between here and `working == 0` below, which this
        // function waits for on every way out; what is left in the slot after that is never called.
        let job = Job(unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work) });
        shared.working.store(crew.workers.len(), Ordering::Relaxed);
        {
            let mut slot = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(job);
            shared.round.fetch_add(1, Ordering::Release);
        }
        shared.wake.notify_all();
        let mine = catch_unwind(AssertUnwindSafe(|| work(0)));
        let mut waits = 0;
        while shared.working.load(Ordering::Acquire) != 0 {
            wait(&mut waits);
        }
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a thread of the engine panicked");
    }

    /// Calls `work(thread, index, item)` for every item, each on whichever thread is free.
    pub fn for_each<T: Send>(&self, items: &mut [T], work: impl Fn(usize, usize, &mut T) + Sync) {
        let next = AtomicUsize::new(0);
        let count = items.len();
        let base = Items(items.as_mut_ptr());
        self.run(&|thread| {
            let base = &base;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                // SAFETY: `index` is in bounds, and the counter gives each index to one thread once: no two
                // references to an item exist, and `items` is borrowed until all threads are done.
                work(thread, index, unsafe { &mut *base.0.add(index) });
            }
        });
    }
}

struct Items<T>(*mut T);
// SAFETY: threads reach distinct items through it (see `for_each`), which is sending each to one thread.
unsafe impl<T: Send> Sync for Items<T> {}

/// Waits a little: at first on the core, then giving it to others.
fn wait(waits: &mut u32) {
    *waits += 1;
    if *waits < SPINS {
        for _ in 0..8 {
            std::hint::spin_loop();
        }
    } else {
        std::thread::yield_now();
    }
}

impl Crew {
    fn start(workers: usize) -> Self {
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            job: Mutex::new(None),
            wake: Condvar::new(),
        });
        let workers = (1..=workers)
            .map(|index| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || worker(&shared, index))
            })
            .collect();
        Self { process: std::process::id(), shared, workers }
    }
}

fn worker(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut waits = 0;
        while shared.round.load(Ordering::Acquire) == seen && waits < SPINS + YIELDS {
            wait(&mut waits);
        }
        let job = {
            let mut slot = shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            while shared.round.load(Ordering::Acquire) == seen {
                slot = shared.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
            }
            seen = shared.round.load(Ordering::Acquire);
            *slot
        };
        if seen == STOP {
            return;
        }
        if let Some(Job(work)) = job {
            let done = catch_unwind(AssertUnwindSafe(|| work(index)));
            if done.is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
            shared.working.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        let crew = self.crew.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(crew) = crew else { return };
        if crew.process != std::process::id() {
            std::mem::forget(crew);
            return;
        }
        {
            let _slot = crew.shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            crew.shared.round.store(STOP, Ordering::Release);
        }
        crew.shared.wake.notify_all();
        for worker in crew.workers {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_worked_on_once_in_every_round() {
        let team = Team::new(3);
        let mut items = vec![0usize; 100];
        for round in 1..50 {
            team.for_each(&mut items, |_, index, item| *item += index);
            assert!(items.iter().enumerate().all(|(index, item)| *item == index * round));
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_works_on() {
        let team = Team::new(2);
        let broken = catch_unwind(AssertUnwindSafe(|| team.run(&|thread| assert!(thread == 0, "on purpose"))));
        assert!(broken.is_err());
        let count = AtomicUsize::new(0);
        team.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 2);
    }
}
