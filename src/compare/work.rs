//! A list of pieces of work on several threads, stopped when the caller says so.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::threads::{lock, on_threads};
use crate::vector::isa::Isa;
use crate::vector::rounding::Rounding;

/// Called on the calling thread between pieces, with the number of pairs of atoms compared since the last call; `true`
/// stops the work.
pub type Watch<'a> = dyn FnMut(u64) -> bool + Send + 'a;

/// Pairs of atoms in one piece of work at most, so that a stop is heard soon: some milliseconds of cheap products, a
/// quarter of a second in portable Rust.
pub fn most_pairs(isa: &Isa) -> usize {
    match isa.rounding() {
        _ if isa.name() == "scalar" => 1 << 19,
        Rounding::Float32 => 1 << 22,
        Rounding::Bfloat16 | Rounding::Int8 => 1 << 24,
    }
}

/// Works through `items`, each on whichever thread is free, with one `scratch` per thread. False where `watch` stopped it.
pub fn each<T: Sync, S>(
    threads: usize,
    items: &[T],
    pairs: impl Fn(&T) -> u64 + Sync,
    watch: &mut Watch<'_>,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) + Sync,
) -> bool {
    let (next, done, stop) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let caller = thread::current().id();
    let watch = Mutex::new(watch);
    on_threads(threads.min(items.len()), &|| {
        let mut scratch = scratch();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            work(&mut scratch, item);
            done.fetch_add(pairs(item), Ordering::Relaxed);
            if thread::current().id() == caller && lock(&watch)(done.swap(0, Ordering::Relaxed)) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
    if stop.into_inner() {
        return false;
    }
    let rest = done.into_inner();
    rest == 0 || !lock(&watch)(rest)
}
