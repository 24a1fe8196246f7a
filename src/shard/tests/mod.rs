//! What a shard and a manifest may look like, what is refused and how, and what a crash leaves.

mod append;
mod crash;
mod header;
mod manifest;
mod parts;

use std::path::Path;

use crate::dtype::Dtype;
use crate::error::Result;
use crate::shard::commit::Durability;
use crate::shard::manifest::Provenance;
use crate::shard::{DatasetWriter, Marks, NonFinite, WriterSettings};

/// Settings of a small float16 dataset with full shards of `shard_rows`.
fn settings(dim: usize, shard_rows: usize) -> WriterSettings {
    WriterSettings {
        dim,
        dtype: Dtype::F16,
        contexts: false,
        provenance: Provenance::new(),
        shard_bytes: (shard_rows * (dim * 2 + 4)) as u64,
        non_finite: NonFinite::Error,
        durability: Durability::Power,
        threads: 1,
        direct: false,
    }
}

/// Appends rows `from` .. `to` of a fixed sequence.
fn append(writer: &mut DatasetWriter, dim: usize, from: u64, to: u64) -> Result<()> {
    for row in from..to {
        let data: Vec<u8> = (0..dim as u64).flat_map(|d| ((row * 31 + d * 7) as u16 & 0x3bff).to_le_bytes()).collect();
        writer.append(&data, Dtype::F16, Marks { tokens: &[row as i32], contexts: &[] })?;
    }
    Ok(())
}

/// Writes all of it.
fn write(folder: &Path, dim: usize, rows: u64, shard_rows: usize) {
    let mut writer = DatasetWriter::open(folder, settings(dim, shard_rows)).unwrap();
    append(&mut writer, dim, 0, rows).unwrap();
    writer.finish().unwrap();
}
