//! One shard while it is written: rows are digested and summed on their way to the file, the header comes last.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::cpu::cpu;
use crate::error::{Error, Result};
use crate::shard::commit::{self, Durability};
use crate::shard::digest::{BlockDigest, shard_digest};
use crate::shard::dtype::Dtype;
use crate::shard::header;
use crate::shard::manifest::{Manifest, ShardEntry};
use crate::shard::statistics::{Moments, ShardMoments};

/// Bytes of a piece that is digested and summed at once: it stays in the second-level cache.
const PIECE_BYTES: usize = 128 << 10;
/// Below this, a second thread costs more than it brings (about 30 microseconds to start).
const PARALLEL_BYTES: usize = 256 << 10;
/// The disk begins to write when so many bytes have come, long before the shard is full and must be synced.
const WRITE_BYTES: u64 = 8 << 20;

/// The shard that is being written, under its temporary name.
pub struct GrowingShard {
    name: String,
    index: u64,
    path: PathBuf,
    file: File,
    dim: usize,
    dtype: Dtype,
    block_rows: usize,
    tokens: Vec<i32>,
    block: BlockDigest,
    blocks: Vec<u64>,
    moments: ShardMoments,
    durability: Durability,
    /// Where the bytes begin that the disk was not asked to write yet.
    waiting: u64,
}

impl GrowingShard {
    /// Creates the file for the next shard of `manifest`.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`.
    pub fn create(folder: &Path, manifest: &Manifest, durability: Durability) -> Result<Self> {
        let index = manifest.shards.len();
        let name = commit::shard_name(index);
        let path = commit::temporary(folder, &name);
        let mut file = commit::create(folder, &name)?;
        // The header is written last: its rows are not known yet.
        file.seek(SeekFrom::Start(header::WRITTEN_BYTES as u64)).map_err(|e| Error::io(&path, e))?;
        Ok(Self {
            block: BlockDigest::new(&name, index as u64, 0),
            name,
            index: index as u64,
            path,
            file,
            dim: manifest.dim as usize,
            dtype: manifest.dtype,
            block_rows: manifest.block_rows as usize,
            tokens: Vec::with_capacity(manifest.shard_rows.min(1 << 16) as usize),
            blocks: Vec::new(),
            moments: ShardMoments::new(manifest.dim as usize),
            durability,
            waiting: 0,
        })
    }

    /// Rows in it so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// Appends rows in the type on disk, on one thread or two.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`.
    pub fn append(&mut self, data: &[u8], tokens: &[i32], threads: usize) -> Result<()> {
        let mut file = &self.file;
        let written = if threads > 1 && data.len() >= PARALLEL_BYTES {
            let path = self.path.clone();
            let file = self.file.try_clone().map_err(|e| Error::io(&path, e))?;
            std::thread::scope(|scope| {
                let writing = scope.spawn(move || (&file).write_all(data));
                self.digest(data, tokens);
                writing.join().unwrap_or_else(|_| Err(std::io::Error::other("the writing thread panicked")))
            })
        } else {
            let written = file.write_all(data);
            self.digest(data, tokens);
            written
        };
        written.map_err(|e| Error::io(&self.path, e))?;
        let end = header::WRITTEN_BYTES as u64 + self.rows() * (self.dim * self.dtype.size()) as u64;
        if end >= self.waiting + WRITE_BYTES {
            self.durability.begin_writing(&self.file, self.waiting, end);
            self.waiting = end;
        }
        Ok(())
    }

    fn digest(&mut self, data: &[u8], tokens: &[i32]) {
        let row_bytes = self.dim * self.dtype.size();
        let most = (PIECE_BYTES / row_bytes).max(1);
        let mut done = 0;
        while done < tokens.len() {
            let in_block = self.tokens.len() % self.block_rows;
            let rows = (tokens.len() - done).min(self.block_rows - in_block).min(most);
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

    /// Closes the current block: its tokens follow its activations.
    fn end_block(&mut self) {
        let start = self.blocks.len() * self.block_rows;
        self.block.update(&little_endian(&self.tokens[start..]));
        self.blocks.push(self.block.finish());
        self.block = BlockDigest::new(&self.name, self.index, self.blocks.len() as u64);
    }

    /// Completes the file and gives it its name; what the manifest has to say of it.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`.
    pub fn publish(mut self, folder: &Path) -> Result<(ShardEntry, Moments)> {
        if !self.tokens.len().is_multiple_of(self.block_rows) {
            self.end_block();
        }
        let rows = self.rows();
        let head = header::build(rows, self.dim as u64, self.dtype);
        let write = || -> std::io::Result<()> {
            let mut file = &self.file;
            file.write_all(&little_endian(&self.tokens))?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&head)
        };
        write().map_err(|e| Error::io(&self.path, e))?;
        commit::publish(folder, &self.name, &self.file, self.durability)?;
        let bytes = (head.len() + self.tokens.len() * (self.dim * self.dtype.size() + 4)) as u64;
        let digest = shard_digest(&self.name, self.index, bytes, &head, &self.blocks);
        Ok((ShardEntry { rows, bytes, digest, blocks: self.blocks }, self.moments.finish()))
    }
}

fn little_endian(tokens: &[i32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}
