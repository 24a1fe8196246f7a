//! What becomes known of a shard's rows while they are written: digests of their blocks, sums, tokens.

use std::ops::Range;

use crate::cpu::cpu;
use crate::dtype::Dtype;
use crate::shard::digest::{BlockDigest, shard_digest};
use crate::shard::manifest::{Manifest, ShardEntry};
use crate::shard::statistics::{BlockSums, Moments};

/// Bytes of activations that are digested and then summed: they stay in the second-level cache.
const PIECE_BYTES: usize = 256 << 10;

/// What rows have beside their activations.
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a> {
    /// The token of each.
    pub tokens: &'a [i32],
    /// The number of the context of each; empty where the dataset does not keep them.
    pub contexts: &'a [i32],
}

impl Marks<'_> {
    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Those of the first `n` rows, and of the others.
    #[must_use]
    pub fn split_at(&self, n: usize) -> (Self, Self) {
        let (tokens, more_tokens) = self.tokens.split_at(n);
        let (contexts, more_contexts) = self.contexts.split_at(n.min(self.contexts.len()));
        (Self { tokens, contexts }, Self { tokens: more_tokens, contexts: more_contexts })
    }
}

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
    /// Of each row, where the dataset has them.
    contexts: Option<Vec<i32>>,
    /// The block that is not full yet.
    block: Block,
    blocks: Vec<u64>,
    moments: Moments,
}

/// A block so far.
#[derive(Clone)]
pub struct Block {
    digest: BlockDigest,
    sums: BlockSums,
}

/// The rows of a batch that lie in one block, and the block with them.
pub struct Part {
    /// Of the batch.
    pub rows: Range<usize>,
    block: Block,
    dtype: Dtype,
}

impl Part {
    /// The block, once all rows of the part were added.
    #[must_use]
    pub fn end(self) -> Block {
        self.block
    }

    /// Adds the part's next rows, as they are on disk.
    pub fn add(&mut self, piece: &[u8]) {
        self.block.digest.update(piece);
        self.block.sums.update(cpu().level, self.dtype, piece);
    }
}

/// A batch that is known whole, not yet part of the shard.
pub struct Added {
    /// The blocks that it lies in, with it.
    pub blocks: Vec<Block>,
}

impl Added {
    /// Whether all values are finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.blocks.iter().all(|block| block.sums.are_finite())
    }
}

impl Contents {
    /// No rows yet of the shard called `name`, the next one of `manifest`.
    pub fn new(name: &str, manifest: &Manifest) -> Self {
        let (index, dim) = ((manifest.first + manifest.shards.len()) as u64, manifest.dim as usize);
        Self {
            block: Block { digest: BlockDigest::new(name, index, 0), sums: BlockSums::new(dim) },
            name: name.to_owned(),
            index,
            dim,
            dtype: manifest.dtype,
            block_rows: manifest.block_rows as usize,
            tokens: Vec::with_capacity(manifest.shard_rows.min(1 << 16) as usize),
            contexts: manifest.contexts.then(Vec::new),
            blocks: Vec::new(),
            moments: Moments::new(dim),
        }
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Rows in about [`PIECE_BYTES`].
    #[must_use]
    pub fn piece_rows(&self) -> usize {
        (PIECE_BYTES / (self.dim * self.dtype.size())).max(1)
    }

    /// The parts of the next `rows` rows, by block.
    #[must_use]
    pub fn parts(&self, rows: usize) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut done = 0;
        while done < rows {
            let number = (self.rows() + done) / self.block_rows;
            let end = rows.min((number + 1) * self.block_rows - self.rows());
            let block = if number == self.blocks.len() { self.block.clone() } else { self.new_block(number) };
            parts.push(Part { rows: done..end, block, dtype: self.dtype });
            done = end;
        }
        parts
    }

    fn new_block(&self, number: usize) -> Block {
        let digest = BlockDigest::new(&self.name, self.index, number as u64);
        Block { digest, sums: BlockSums::new(self.dim) }
    }

    /// Whether each row has the number of its context.
    #[must_use]
    pub fn has_contexts(&self) -> bool {
        self.contexts.is_some()
    }

    /// Makes a batch part of the shard, a row for each token.
    pub fn keep(&mut self, added: Added, marks: Marks<'_>) {
        self.tokens.extend_from_slice(marks.tokens);
        if let Some(contexts) = &mut self.contexts {
            contexts.extend_from_slice(marks.contexts);
        }
        for block in added.blocks {
            self.block = block;
            let end = (self.blocks.len() + 1) * self.block_rows;
            if end <= self.rows() {
                self.end_block(end);
            }
        }
    }

    /// Closes the current block, which ends before row `end`: its tokens and contexts follow its activations.
    fn end_block(&mut self, end: usize) {
        let start = self.blocks.len() * self.block_rows;
        self.block.digest.update(&little_endian(&self.tokens[start..end]));
        if let Some(contexts) = &self.contexts {
            self.block.digest.update(&little_endian(&contexts[start..end]));
        }
        self.blocks.push(self.block.digest.finish());
        let next = self.new_block(self.blocks.len());
        self.moments.merge(&std::mem::replace(&mut self.block, next).sums.finish());
    }

    /// What follows the activations in the file: all tokens, then all contexts.
    #[must_use]
    pub fn marks_bytes(&self) -> Vec<u8> {
        let mut bytes = little_endian(&self.tokens);
        bytes.extend(little_endian(self.contexts.as_deref().unwrap_or_default()));
        bytes
    }

    /// What the manifest has to say of a shard with this header.
    #[must_use]
    pub fn finish(mut self, header: &[u8]) -> (ShardEntry, Moments) {
        if !self.rows().is_multiple_of(self.block_rows) {
            self.end_block(self.rows());
        }
        let marks = if self.contexts.is_some() { 8 } else { 4 };
        let bytes = (header.len() + self.tokens.len() * (self.dim * self.dtype.size() + marks)) as u64;
        let digest = shard_digest(&self.name, self.index, bytes, header, &self.blocks);
        let entry = ShardEntry { rows: self.tokens.len() as u64, bytes, digest, blocks: self.blocks };
        (entry, self.moments)
    }
}

fn little_endian(tokens: &[i32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}
