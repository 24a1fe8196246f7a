//! The engine's own threads: the caller works too, and the others join while there is work left. Between the phases of a
//! step they spin for a moment before they sleep: waking through the operating system costs more than a phase of a small
//! dictionary. A thread that comes late, because another program has its core, is not waited for.
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Pauses before a waiting thread gives its core away, and times it does so before it sleeps: some 20 and 200 us.
const SPINS: u32 = 400;
const YIELDS: u32 = 100;

/// A fixed number of threads that work together, the caller among them.
pub struct Team {
    threads: usize,
    crew: Mutex<Option<Crew>>,
    /// Nanoseconds that threads spent in work, summed over them.
    busy: AtomicU64,
}

struct Crew {
    process: u32,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// The round in the upper half; then whether it is closed, then how many workers are in it.
    gate: AtomicU64,
    stop: AtomicBool,
    panicked: AtomicBool,
    job: Mutex<Option<Job>>,
    sleepers: AtomicUsize,
    wake: Condvar,
}

const ROUND: u64 = 1 << 32;
const CLOSED: u64 = 1 << 31;

/// A borrowed closure whose true lifetime the type does not show: `Team::run` outlives every use of it.
#[derive(Clone, Copy)]
struct Job(&'static (dyn Fn(usize) + Sync));

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Team {
    /// A team of `threads`; the threads start with the first work.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), crew: Mutex::new(None), busy: AtomicU64::new(0) }
    }

    /// Threads that work, the caller among them.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Seconds that threads spent in work since the team was made, summed over them.
    #[must_use]
    pub fn busy(&self) -> f64 {
        self.busy.load(Ordering::Relaxed) as f64 * 1e-9
    }

    /// Calls `work(thread)` once on the caller and on every thread that comes while the caller works, and returns when
    /// all are done.
    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
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
        // SAFETY: only the lifetime changes. Workers call the closure only between entering an open gate and leaving it,
        // and this function closes the gate and waits until all have left, on every way out.
        let job = Job(unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work) });
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
        let round = (shared.gate.load(Ordering::Relaxed) / ROUND + 1) % ROUND;
        shared.gate.store(round * ROUND, Ordering::SeqCst);
        shared.wake_sleepers();
        let mine = catch_unwind(AssertUnwindSafe(|| work(0)));
        shared.gate.fetch_or(CLOSED, Ordering::AcqRel);
        let mut waits = 0;
        while !shared.gate.load(Ordering::Acquire).is_multiple_of(CLOSED) {
            wait(&mut waits);
        }
        // Of this round, whether or not the caller panicked too.
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        assert!(!panicked, "a thread of the engine panicked");
    }

    /// Calls `work(thread, index, item)` for every item. Every thread begins with a part of its own, the same in every
    /// call with as many items, whose data its caches may still hold, and then takes from the parts of the others.
    ///
    /// # Panics
    /// If `work` panicked on any thread.
    pub fn for_each<T: Send>(&self, items: &mut [T], work: impl Fn(usize, usize, &mut T) + Sync) {
        let count = items.len();
        let parts: Vec<_> = (0..self.threads)
            .map(|part| Part {
                next: AtomicUsize::new(part * count / self.threads),
                end: (part + 1) * count / self.threads,
            })
            .collect();
        let base = Items(items.as_mut_ptr());
        self.run(&|thread| {
            let base = &base;
            let start = Instant::now();
            for part in parts[thread..].iter().chain(&parts[..thread]) {
                while let Some(index) = part.take() {
                    // SAFETY: parts are apart and in bounds, and the counter of a part gives each index to one thread
                    // once: no two references to an item exist, and `items` is borrowed until all threads are done.
                    work(thread, index, unsafe { &mut *base.0.add(index) });
                }
            }
            self.busy.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        });
    }
}

/// Items that one thread begins with. On a cache line of its own: threads count at the same time.
#[repr(align(64))]
struct Part {
    next: AtomicUsize,
    end: usize,
}

impl Part {
    fn take(&self) -> Option<usize> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.end).then_some(index)
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

impl Shared {
    fn wake_sleepers(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Whoever has counted itself asleep holds the lock until it waits, or sees the new round.
            drop(self.job.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }

    /// The gate once its round is not `seen`.
    fn next_round(&self, seen: u64) -> u64 {
        let mut waits = 0;
        while waits < SPINS + YIELDS {
            let gate = self.gate.load(Ordering::Acquire);
            if gate / ROUND != seen {
                return gate;
            }
            wait(&mut waits);
        }
        let mut slot = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let gate = self.gate.load(Ordering::SeqCst);
            if gate / ROUND != seen {
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                return gate;
            }
            slot = self.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Crew {
    fn start(workers: usize) -> Self {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(CLOSED),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            job: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
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
        let mut gate = shared.next_round(seen);
        seen = gate / ROUND;
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        // Enter, unless the round is closed or over.
        while gate / ROUND == seen && gate & CLOSED == 0 {
            let entered = shared.gate.compare_exchange_weak(gate, gate + 1, Ordering::AcqRel, Ordering::Acquire);
            if let Err(now) = entered {
                gate = now;
                continue;
            }
            let job = *shared.job.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Job(work)) = job
                && catch_unwind(AssertUnwindSafe(|| work(index))).is_err()
            {
                shared.panicked.store(true, Ordering::Relaxed);
            }
            shared.gate.fetch_sub(1, Ordering::AcqRel);
            break;
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
        crew.shared.stop.store(true, Ordering::Release);
        let round = (crew.shared.gate.load(Ordering::Relaxed) / ROUND + 1) % ROUND;
        crew.shared.gate.store((round * ROUND) | CLOSED, Ordering::SeqCst);
        crew.shared.wake_sleepers();
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
        for round in 1..200 {
            team.for_each(&mut items, |_, index, item| *item += index);
            assert!(items.iter().enumerate().all(|(index, item)| *item == index * round));
            if round % 50 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(5)); // asleep, and woken again
            }
        }
    }

    #[test]
    fn other_threads_come_while_there_is_work() {
        let team = Team::new(2);
        let helped = AtomicBool::new(false);
        let start = std::time::Instant::now();
        while !helped.load(Ordering::Relaxed) && start.elapsed().as_secs() < 20 {
            team.for_each(&mut [0; 64], |thread, _, _| {
                if thread == 1 {
                    helped.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(std::time::Duration::from_micros(100));
            });
        }
        assert!(helped.into_inner());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_works_on() {
        let team = Team::new(2);
        let broken = catch_unwind(AssertUnwindSafe(|| {
            team.for_each(&mut [0; 8], |_, index, _| assert!(index != 5, "on purpose"));
        }));
        assert!(broken.is_err());
        let count = AtomicUsize::new(0);
        team.for_each(&mut [0; 8], |_, _, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 8);
    }

    #[test]
    fn panics_of_several_threads_are_those_of_one_round() {
        let team = Team::new(2);
        let both = std::sync::Barrier::new(2);
        let broken = catch_unwind(AssertUnwindSafe(|| {
            team.for_each(&mut [0; 2], |_, _, _| {
                both.wait();
                panic!("on purpose");
            });
        }));
        assert!(broken.is_err());
        team.for_each(&mut [0; 8], |_, _, _| ());
    }
}
