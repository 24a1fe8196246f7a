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
mod unit_rows;
mod weight;
mod work;

pub use assign::{Assignment, Edges, assign};
pub use best::{Best, best_of_all};
pub use matching::{Matching, Settings, match_one_to_one};
pub use nearest::{Nearest, nearest};
pub use work::Watch;
