//! What becomes known of a shard's rows while they are written: digests of their blocks, moments, tokens.

use crate::cpu::cpu;
use crate::shard::digest::{BlockDigest, shard_digest};
use crate::shard::dtype::Dtype;
use crate::shard::manifest::{Manifest, ShardEntry};
use crate::shard::statistics::{Moments, ShardMoments};

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
    block: BlockDigest,
    blocks: Vec<u64>,
    moments: ShardMoments,
}

/// What a shard was before rows that may have to be taken back.
pub struct Mark {
    rows: usize,
    blocks: usize,
    block: BlockDigest,
    moments: ShardMoments,
}

impl Contents {
    /// No rows yet of the shard called `name`, the next one of `manifest`.
    pub fn new(name: &str, manifest: &Manifest) -> Self {
        let index = manifest.shards.len() as u64;
        Self {
            block: BlockDigest::new(name, index, 0),
            name: name.to_owned(),
            index,
            dim: manifest.dim as usize,
            dtype: manifest.dtype,
            block_rows: manifest.block_rows as usize,
            tokens: Vec::with_capacity(manifest.shard_rows.min(1 << 16) as usize),
            blocks: Vec::new(),
            moments: ShardMoments::new(manifest.dim as usize),
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

    /// Adds rows: `data` as it is on disk, a row for each token.
    pub fn add(&mut self, data: &[u8], tokens: &[i32]) {
        let row_bytes = self.dim * self.dtype.size();
        let mut done = 0;
        while done < tokens.len() {
            let in_block = self.tokens.len() % self.block_rows;
            let rows = (tokens.len() - done).min(self.block_rows - in_block).min(self.piece_rows());
            let piece = &data[done * row_bytes..(done + rows) * row_bytes];
            self.block.update(piece);
            self.moments.update(cpu().simd, self.dtype, piece);
            self.tokens.extend_from_slice(&tokens[done..done + rows]);
            done += rows;
            if in_block + rows == self.block_rows {
                self.end_block();
            }
        }
    }

    /// Whether all values added so far are finite.
    pub fn are_finite(&self) -> bool {
        self.moments.are_finite()
    }

    pub fn mark(&self) -> Mark {
        Mark {
            rows: self.tokens.len(),
            blocks: self.blocks.len(),
            block: self.block.clone(),
            moments: self.moments.clone(),
        }
    }

    /// Forgets the rows that were added since `mark`.
    pub fn back_to(&mut self, mark: Mark) {
        self.tokens.truncate(mark.rows);
        self.blocks.truncate(mark.blocks);
        (self.block, self.moments) = (mark.block, mark.moments);
    }

    /// Closes the current block: its tokens follow its activations.
    fn end_block(&mut self) {
        let start = self.blocks.len() * self.block_rows;
        self.block.update(&little_endian(&self.tokens[start..]));
        self.blocks.push(self.block.finish());
        self.block = BlockDigest::new(&self.name, self.index, self.blocks.len() as u64);
    }

    /// The tokens as they are on disk.
    pub fn token_bytes(&self) -> Vec<u8> {
        little_endian(&self.tokens)
    }

    /// What the manifest has to say of a shard with this header.
    pub fn finish(mut self, header: &[u8]) -> (ShardEntry, Moments) {
        if !self.tokens.len().is_multiple_of(self.block_rows) {
            self.end_block();
        }
        let bytes = (header.len() + self.tokens.len() * (self.dim * self.dtype.size() + 4)) as u64;
        let digest = shard_digest(&self.name, self.index, bytes, header, &self.blocks);
        let entry = ShardEntry { rows: self.tokens.len() as u64, bytes, digest, blocks: self.blocks };
        (entry, self.moments.finish())
    }
}

fn little_endian(tokens: &[i32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}
