//! The same work on several threads at once.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Runs `work` once on each of `threads` threads, the caller's among them; work takes its next piece from a queue.
pub fn on_threads(threads: usize, work: &(impl Fn() + Sync)) {
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
}

/// Locks; a holder that panicked left nothing half-done (queues only).
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
