//! Vectors: the one layer of arithmetic that training, comparison, the store and the language model stand on.
//!
//! `simd` has vectors of float32 on every instruction set, `dispatch` runs code on those that the processor has, and `half`
//! is what narrower numbers are. `dot` has the order in which products are added, `aligned` the memory for them. A screen
//! multiplies cheaply and bounds what it may be wrong by: `rounding` rounds its operands, `packing` lays them out in tiles
//! (`tile`), `screening` compares, `bytes` and `amx` are its faster products. `isa` chooses among all these by name.
#![allow(clippy::inline_always)] // kernels are compiled per instruction set by being inlined into one entry each

pub(crate) mod aligned;
#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bytes;
pub(crate) mod dispatch;
pub(crate) mod dot;
pub mod half;
pub mod isa;
pub(crate) mod packing;
pub mod rounding;
pub(crate) mod screening;
pub(crate) mod simd;
pub(crate) mod tile;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
