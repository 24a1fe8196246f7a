//! The atoms of dictionaries compared: each one's nearest atoms in another dictionary, and the best one-to-one matching.
//!
//! No n x m matrix of cosines is held. `packed` rounds the atoms for cheap products, with a rigorous bound of what that
//! changes (the training engine's screen, `docs/engine.md`); `products` multiplies 64 atoms by a panel of 32 others;
//! `scan` takes row and column maxima of the products, so that each is computed once for both directions, and computes
//! again in float32 every pair that could be among the best: the result is exact, and the same bits on every path and
//! for any number of threads. `best` is the nearest atom in every dictionary of a sweep, `nearest` the nearest K both
//! ways of one pair, `matching` the optimal assignment on them (`assign`) and its proof (`proof`).
//!
//! Shape letters: n, m atoms of two dictionaries, d dimensions, N atoms of K dictionaries.
#![allow(clippy::inline_always)] // kernels are compiled per instruction set by being inlined into one entry each
#![allow(clippy::float_cmp)] // a pair's value has one order of additions: equal values are ties, not near misses

mod assign;
mod best;
mod matching;
mod nearest;
mod packed;
mod products;
mod proof;
mod scan;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod tops;
mod work;

pub use assign::{Assignment, Edges, assign};
pub use best::{Best, best_of_all};
pub use matching::{Matching, Settings, match_one_to_one};
pub use nearest::{Nearest, nearest};
pub use work::Watch;

use crate::error::{Error, Result};

/// Fails unless `atoms` is a matrix of finite rows of width `d`, each of norm 1 to within a thousandth.
fn check_unit_rows(what: &str, atoms: &[f32], d: usize) -> Result<()> {
    if d == 0 || atoms.is_empty() || !atoms.len().is_multiple_of(d) {
        let len = atoms.len();
        return Err(Error::InvalidArgument(format!("{what}: {len} values are not rows of {d}; pass a matrix [n, d]")));
    }
    for (index, row) in atoms.chunks_exact(d).enumerate() {
        let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
        if !(0.999..=1.001).contains(&norm) {
            return Err(Error::InvalidArgument(format!("{what}: row {index} is not of norm 1; pass unit rows")));
        }
    }
    Ok(())
}
