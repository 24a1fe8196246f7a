//! Vectors: the one layer of arithmetic that training, comparison, the store and the language model stand on.
//!
//! `simd` has sixteen float32 lanes on every instruction set, `dot` the order in which their products are added, `aligned`
//! memory for them. A screen multiplies cheaply and bounds what it may be wrong by: `rounding` rounds its operands,
//! `packing` lays them out in tiles (`tile`), `screening` compares, `bytes` and `amx` are its faster products. `isa` chooses
//! among all these by name.
#![allow(clippy::inline_always)] // kernels are compiled per instruction set by being inlined into one entry each

pub(crate) mod aligned;
#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bytes;
pub(crate) mod dot;
pub mod isa;
pub(crate) mod packing;
pub mod rounding;
pub(crate) mod screening;
pub(crate) mod simd;
pub(crate) mod tile;
