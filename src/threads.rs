//! The same work on several threads at once.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Runs `work` at least once and at most once on each of `threads` threads, the caller's among them; work takes its next
/// piece from a queue, so that it is all done however many come.
///
/// Where the process has GNU OpenMP loaded, as every process with torch on Linux has, its threads are used: after each of
/// torch's own operations they spin for milliseconds in wait of the next, and threads of ours would share the cores with
/// them. A forked child has none of them left, but GNU OpenMP would wait for them for ever: it gets threads of ours.
pub fn on_threads(threads: usize, work: &(impl Fn() + Sync)) {
    match openmp() {
        _ if threads <= 1 => work(),
        Some(parallel) if !is_forked() => on_openmp(parallel, threads, work),
        _ => std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        }),
    }
}

/// Locks; a holder that panicked left nothing half-done (queues only).
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static PROCESS: OnceLock<u32> = OnceLock::new();

/// To be called when the library is loaded: processes that are forked from here on are known as such.
#[cfg(feature = "python")]
pub fn know_process() {
    PROCESS.get_or_init(std::process::id);
}

fn is_forked() -> bool {
    *PROCESS.get_or_init(std::process::id) != std::process::id()
}

/// What `#pragma omp parallel` compiles to: calls `body(data)` on each thread of a team and waits for all. Part of
/// libgomp's stable interface since version 4.0 (GCC 4.9).
type Parallel = unsafe extern "C" fn(body: extern "C" fn(*mut c_void), data: *mut c_void, threads: u32, flags: u32);

/// `GOMP_parallel`, if a library of this process has it; looked for once.
fn openmp() -> Option<Parallel> {
    static FOUND: OnceLock<Option<Parallel>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        #[cfg(target_os = "linux")]
        {
            // SAFETY: the name is a C string, and the symbol of that name has this signature.
            unsafe {
                let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr());
                (!symbol.is_null()).then(|| std::mem::transmute::<*mut c_void, Parallel>(symbol))
            }
        }
        #[cfg(not(target_os = "linux"))]
        None
    })
}

/// Work and the first panic in it: a panic must not cross C code.
struct Team<'a, W> {
    work: &'a W,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

extern "C" fn member<W: Fn() + Sync>(team: *mut c_void) {
    // SAFETY: `on_openmp` passes a Team<W> that outlives all members.
    let team = unsafe { &*team.cast::<Team<'_, W>>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(team.work)) {
        lock(&team.panic).get_or_insert(panic);
    }
}

fn on_openmp<W: Fn() + Sync>(parallel: Parallel, threads: usize, work: &W) {
    let mut team = Team { work, panic: Mutex::new(None) };
    // SAFETY: `member` shares the team among threads, for which its parts are Sync; it is alive until all have returned.
    unsafe { parallel(member::<W>, (&raw mut team).cast(), threads as u32, 0) };
    if let Some(panic) = lock(&team.panic).take() {
        resume_unwind(panic);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn queue_of_hundred(run: impl Fn(&(dyn Fn() + Sync))) -> usize {
        let queue = Mutex::new(0..100);
        let sum = AtomicUsize::new(0);
        run(&|| {
            loop {
                let Some(piece) = lock(&queue).next() else { break };
                sum.fetch_add(piece, Ordering::Relaxed);
            }
        });
        sum.into_inner()
    }

    #[test]
    fn all_pieces_are_done_on_any_number_of_threads() {
        for threads in [0, 1, 2, 9] {
            assert_eq!(queue_of_hundred(|work| on_threads(threads, &work)), 4950);
        }
    }

    /// Stands in for libgomp, which the tests' process has not: three members, one after the other.
    unsafe extern "C" fn three(body: extern "C" fn(*mut c_void), data: *mut c_void, threads: u32, _flags: u32) {
        assert_eq!(threads, 3);
        for _ in 0..3 {
            body(data);
        }
    }

    #[test]
    fn an_openmp_team_does_the_work_and_passes_panics_on() {
        assert_eq!(queue_of_hundred(|work| on_openmp(three, 3, &work)), 4950);
        let calls = AtomicUsize::new(0);
        let panics = || {
            calls.fetch_add(1, Ordering::Relaxed);
            panic!("in a member");
        };
        let caught = catch_unwind(AssertUnwindSafe(|| on_openmp(three, 3, &panics)));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"in a member"));
        assert_eq!(calls.into_inner(), 3);
    }
}
