//! A list of pieces of work on several threads, stopped when the caller says so.
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::packed::Packed;
use super::tops::Tops;
use crate::threads::{lock, on_threads};
use crate::vector::isa::Isa;
use crate::vector::rounding::Rounding;
use crate::vector::tile::TILE;

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

/// Works through the rows of a pair's first segment, some tiles at a time, against all of the second: `work` fills lists of
/// `k` for its rows. None where `watch` stopped it.
pub fn by_rows<S>(
    isa: &Isa,
    threads: usize,
    packed: &Packed,
    k: usize,
    watch: &mut Watch<'_>,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, Range<usize>, &mut Tops) + Sync,
) -> Option<Tops> {
    let (a, b) = (&packed.segments[0], &packed.segments[1]);
    let tiles = a.padded() / TILE;
    let at_once = tiles.div_ceil(4 * threads.max(1)).min(most_pairs(isa) / TILE / b.padded()).max(1);
    let pieces: Vec<_> = (0..tiles)
        .step_by(at_once)
        .map(|first| first..tiles.min(first + at_once))
        .map(|tiles| (tiles.clone(), Mutex::new(Tops::new(a.rows(tiles), k))))
        .collect();
    let pairs = |(tiles, _): &(Range<usize>, _)| (a.rows(tiles.clone()) * b.len()) as u64;
    let finished = each(threads, &pieces, pairs, watch, scratch, |scratch, (tiles, found)| {
        work(scratch, tiles.clone(), &mut lock(found));
    });
    finished.then(|| join(k, pieces.into_iter().map(|(_, found)| found)))
}

/// Lists of `k`, one after another.
pub fn join(k: usize, parts: impl IntoIterator<Item = Mutex<Tops>>) -> Tops {
    let mut all = Tops::new(0, k);
    for part in parts {
        all.append(part.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    all
}
