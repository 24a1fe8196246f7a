//! What becomes known of a shard's rows while they are written: digests of their blocks, sums, tokens.

use std::ops::Range;

use crate::cpu::cpu;
use crate::shard::digest::{BlockDigest, shard_digest};
use crate::shard::dtype::Dtype;
use crate::shard::manifest::{Manifest, ShardEntry};
use crate::shard::statistics::{BlockSums, Moments, ShardSums, Shift};
use crate::simd;

/// Bytes of activations that are digested and then summed: they stay in the second-level cache.
const PIECE_BYTES: usize = 256 << 10;

/// The rows of a shard so far, but for their activations.
pub struct Contents {
    name: String,
    index: u64,
    /// Values of a row.
    pub dim: usize,
    /// Type on disk.
    pub dtype: Dtype,
    block_rows: usize,
    tokens: Vec<i32>,
    shift: Option<Shift>,
    /// The block that is not full yet.
    block: Block,
    blocks: Vec<u64>,
    sums: ShardSums,
}

/// A block so far.
#[derive(Clone)]
pub struct Block {
    digest: BlockDigest,
    sums: BlockSums,
}

/// The rows of a batch that lie in one block, and the block with them.
pub struct Part<'a> {
    /// Of the batch.
    pub rows: Range<usize>,
    block: Block,
    shift: &'a Shift,
    dtype: Dtype,
}

impl Part<'_> {
    /// The block, once all rows of the part were added.
    pub fn end(self) -> Block {
        self.block
    }

    /// Adds the part's next rows, as they are on disk.
    pub fn add(&mut self, piece: &[u8]) {
        self.block.digest.update(piece);
        self.block.sums.update(cpu().simd, self.dtype, self.shift, piece);
    }
}

/// A batch that is known whole, not yet part of the shard.
pub struct Added {
    /// What was taken from its rows.
    pub shift: Shift,
    /// Those that it lies in, with it.
    pub blocks: Vec<Block>,
}

impl Added {
    /// Whether all values are finite.
    pub fn is_finite(&self) -> bool {
        self.blocks.iter().all(|block| block.sums.are_finite())
    }
}

impl Contents {
    /// No rows yet of the shard called `name`, the next one of `manifest`.
    pub fn new(name: &str, manifest: &Manifest) -> Self {
        let (index, dim) = (manifest.shards.len() as u64, manifest.dim as usize);
        Self {
            block: Block { digest: BlockDigest::new(name, index, 0), sums: BlockSums::new(dim) },
            name: name.to_owned(),
            index,
            dim,
            dtype: manifest.dtype,
            block_rows: manifest.block_rows as usize,
            tokens: Vec::with_capacity(manifest.shard_rows.min(1 << 16) as usize),
            shift: None,
            blocks: Vec::new(),
            sums: ShardSums::new(dim),
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Rows in about [`PIECE_BYTES`].
    pub fn piece_rows(&self) -> usize {
        (PIECE_BYTES / (self.dim * self.dtype.size())).max(1)
    }

    /// What is taken from rows before they are summed, where `row` of `dtype` is the next one.
    pub fn shift(&self, row: &[u8], dtype: Dtype) -> Shift {
        self.shift.clone().unwrap_or_else(|| {
            let mut stored = vec![0; self.dim * self.dtype.size()];
            simd::convert(cpu().simd, (dtype, row), (self.dtype, &mut stored));
            Shift::new(cpu().simd, self.dtype, &stored)
        })
    }

    /// The parts of the next `rows` rows, by block.
    pub fn parts<'a>(&self, rows: usize, shift: &'a Shift) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut done = 0;
        while done < rows {
            let number = (self.rows() + done) / self.block_rows;
            let end = rows.min((number + 1) * self.block_rows - self.rows());
            let block = if number == self.blocks.len() { self.block.clone() } else { self.new_block(number) };
            parts.push(Part { rows: done..end, block, shift, dtype: self.dtype });
            done = end;
        }
        parts
    }

    fn new_block(&self, number: usize) -> Block {
        let digest = BlockDigest::new(&self.name, self.index, number as u64);
        Block { digest, sums: BlockSums::new(self.dim) }
    }

    /// Makes a batch part of the shard, a row for each token.
    pub fn keep(&mut self, added: Added, tokens: &[i32]) {
        self.shift = Some(added.shift);
        self.tokens.extend_from_slice(tokens);
        for block in added.blocks {
            self.block = block;
            let end = (self.blocks.len() + 1) * self.block_rows;
            if end <= self.rows() {
                self.end_block(end);
            }
        }
    }

    /// Closes the current block, which ends before row `end`: its tokens follow its activations.
    fn end_block(&mut self, end: usize) {
        let start = self.blocks.len() * self.block_rows;
        self.block.digest.update(&little_endian(&self.tokens[start..end]));
        self.blocks.push(self.block.digest.finish());
        let next = self.new_block(self.blocks.len());
        self.sums.add(std::mem::replace(&mut self.block, next).sums);
    }

    /// The tokens as they are on disk.
    pub fn token_bytes(&self) -> Vec<u8> {
        little_endian(&self.tokens)
    }

    /// What the manifest has to say of a shard with this header.
    pub fn finish(mut self, header: &[u8]) -> (ShardEntry, Moments) {
        if !self.rows().is_multiple_of(self.block_rows) {
            self.end_block(self.rows());
        }
        let bytes = (header.len() + self.tokens.len() * (self.dim * self.dtype.size() + 4)) as u64;
        let digest = shard_digest(&self.name, self.index, bytes, header, &self.blocks);
        let entry = ShardEntry { rows: self.tokens.len() as u64, bytes, digest, blocks: self.blocks };
        let moments = self.shift.map_or_else(|| Moments::new(self.dim), |shift| self.sums.moments(&shift));
        (entry, moments)
    }
}

fn little_endian(tokens: &[i32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}
