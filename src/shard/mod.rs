//! Activation shards on disk: what is in a file (`header`, `json`), what is in a folder (`manifest`), how both
//! are written so that they appear whole or not at all (`blocks`, `commit`, `growing`, `writer`; `parts` where several processes write), and how they are opened and checked
//! (`dataset`, `open`, `digest`, `verified`). The format is described byte for byte in `docs/format.md`.

mod blocks;
pub mod commit;
mod contents;
pub mod dataset;
pub mod digest;
mod direct;
pub mod growing;
pub mod header;
mod in_order;
pub mod json;
pub mod manifest;
pub mod open;
mod parts;
pub mod segments;
mod settings;
pub mod statistics;
pub mod verified;
pub mod writer;

pub use contents::Marks;
pub use dataset::Dataset;
pub use manifest::Manifest;
pub use parts::Parts;
pub use settings::{Access, NonFinite, Verify, WriterSettings};
pub use writer::DatasetWriter;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
