//! The native core of sparsecode: the activation store, the CPU training engine, cross-entropy and comparison.
//!
//! Nothing outside `python/` knows Python; `cargo test` builds without it. Each folder is one idea, and imports from those
//! named before it (`tests/test_rust_layers.py` holds that):
//! `vector` (instruction sets, and the arithmetic on them), `stored` (values on disk to numbers and back), `shard` (bytes on
//! disk), `stream` (the order of rows, and reading them in it),
//! `engine` (one training step of a packed sweep), `compare` (largest cosine similarities), `consensus` (clusters of
//! features), `lm` (attention and cross-entropy of the language model).

pub mod compare;
pub mod consensus;
pub mod cpu;
pub mod dtype;
pub mod engine;
pub mod error;
pub mod lm;
pub mod lock;
pub mod shard;
pub mod stored;
pub mod stream;
mod threads;
pub mod vector;

#[cfg(feature = "python")]
mod python;
