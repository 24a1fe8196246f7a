//! What the language model computes here: causal attention, and cross-entropy over a vocabulary.

pub mod attention;
pub mod crossentropy;
