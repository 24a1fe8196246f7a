//! The native core of sparsecode: the activation store, the CPU training engine, cross-entropy and comparison.
//!
//! Nothing outside `python/` knows Python; `cargo test` builds without it. Each folder is one idea:
//! `shard` (bytes on disk), `simd` (vectors, and conversion of stored values), `stream` (the order of rows, and reading them in it),
//! `engine` (one training step of a packed sweep), `compare` (largest cosine similarities), `crossentropy` and
//! `attention` (the language model).

pub mod attention;
pub mod compare;
pub mod cpu;
pub mod crossentropy;
pub mod engine;
pub mod error;
pub mod lock;
pub mod shard;
pub mod simd;
pub mod stream;
mod threads;

#[cfg(feature = "python")]
mod python;
