//! The CPU training engine: one step of every dictionary of a packed sweep, on the codes that are not zero.
//!
//! `run` takes a batch through all dictionaries, which `balance` shares out among the threads. A step of one dictionary
//! has two phases, each split over the threads that work on it: over rows (`encode`: screen and exact codes; `sort`: by feature; `decode`: residual) and
//! over features (`features`: gradients, projection, Adam, renormalisation; `idle` leaves out those at rest). Between them
//! lie only the codes that are active, feature by feature. `crate::vector` has the instructions and the screen, which
//! finds candidates with cheap products and a rigorous bound, `team` the threads. `calibrate` is for the start, before the
//! first step.
//! `docs/engine.md` explains all with figures.
//!
//! Every sum has one order, so that the result has the same bits on every path, for any number of threads, and for a
//! dictionary alone or in a sweep. Shape letters: B rows of a batch, D width, n features of one dictionary, N of all.
#![allow(clippy::inline_always)] // kernels are compiled per instruction set by being inlined into one entry each

mod adam;
mod balance;
mod batch;
mod calibrate;
mod codes;
mod dead;
mod decode;
mod dense;
mod dense_features;
mod dense_products;
mod derive;
mod dictionary;
mod encode;
mod features;
mod gradients;
mod idle;
mod kind;
mod largest;
mod parameters;
mod phases;
mod powers;
mod run;
mod sort;
mod step;
mod sweep;
mod team;
mod tops;
mod train;
mod worker;

pub use calibrate::kth_largest;
pub use codes::Spent;
pub use idle::wake;
pub use kind::{Activation, Aux, Kind, Penalty};
pub use parameters::Trained;
pub use run::{CodesAs, Engine};
pub use sweep::{ANNEALING, Activations, Factors, GradientsOut, Idle, Kinds, Loss, Mode, Sweep, Totals};
pub use train::TrainedSteps;
pub use worker::Profile;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
