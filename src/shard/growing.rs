//! One shard while it is written: rows are digested and summed on their way to the file, the header comes last.

use std::fs::File;
use std::io::{Result as IoResult, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use crate::cpu::cpu;
use crate::error::{Error, Result};
use crate::shard::commit::{self, Durability};
use crate::shard::digest::{BlockDigest, shard_digest};
use crate::shard::dtype::Dtype;
use crate::shard::header;
use crate::shard::in_order::InOrder;
use crate::shard::manifest::{Manifest, ShardEntry};
use crate::shard::statistics::{Moments, ShardMoments};
use crate::simd;
use crate::threads::{lock, on_threads};

/// Bytes of a piece that is converted, digested, summed and written at once: it stays in the second-level cache.
/// Measured on one thread, 512 MB: 64 KiB 149 ms, 128 KiB 140, 256 KiB 135, 1 MiB 137.
const PIECE_BYTES: usize = 256 << 10;
/// Below this, a second thread costs more than it brings (about 30 microseconds to start).
pub const PARALLEL_BYTES: usize = 256 << 10;
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
    /// Rows in the type on disk, where they came in another.
    converted: Vec<u8>,
}

/// What a shard was before rows that may have to be taken back.
struct Mark {
    rows: usize,
    blocks: usize,
    block: BlockDigest,
    moments: ShardMoments,
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
            converted: Vec::new(),
        })
    }

    /// Rows in it so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// Appends rows of `dtype`, on one thread or several; false where one of them is not finite in the type on disk, and
    /// then nothing was appended.
    ///
    /// The rows are written before they are known to be finite, and taken back if they are not.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`.
    pub fn append(&mut self, data: &[u8], dtype: Dtype, tokens: &[i32], threads: usize) -> Result<bool> {
        let before = self.mark();
        let parallel = threads > 1 && data.len() >= PARALLEL_BYTES;
        let written = match (dtype == self.dtype, parallel) {
            (_, true) => self.append_on_threads(data, dtype, tokens, threads),
            (true, false) => self.append_pieces(data, tokens),
            (false, false) => self.convert_pieces(data, dtype, tokens),
        };
        written.map_err(|e| Error::io(&self.path, e))?;
        let finite = self.moments.are_finite();
        if !finite {
            self.back_to(before)?;
        }
        Ok(finite)
    }

    /// The bytes that the disk shall begin to write, once there are enough of them.
    fn take_waiting(&mut self) -> Option<Range<u64>> {
        let end = header::WRITTEN_BYTES as u64 + self.rows() * (self.dim * self.dtype.size()) as u64;
        (end >= self.waiting + WRITE_BYTES).then(|| std::mem::replace(&mut self.waiting, end)..end)
    }

    fn begin_writing(&mut self) {
        if let Some(range) = self.take_waiting() {
            self.durability.begin_writing(&self.file, range);
        }
    }

    fn append_pieces(&mut self, data: &[u8], tokens: &[i32]) -> IoResult<()> {
        self.begin_writing();
        let (rows, row_bytes) = (self.piece_rows(), self.dim * self.dtype.size());
        for (piece, tokens) in data.chunks(rows * row_bytes).zip(tokens.chunks(rows)) {
            self.digest(piece, tokens);
            (&self.file).write_all(piece)?;
        }
        Ok(())
    }

    fn convert_pieces(&mut self, data: &[u8], dtype: Dtype, tokens: &[i32]) -> IoResult<()> {
        self.begin_writing();
        let rows = self.piece_rows();
        let mut piece = vec![0; rows.min(tokens.len()) * self.dim * self.dtype.size()];
        for (given, tokens) in data.chunks(rows * self.dim * dtype.size()).zip(tokens.chunks(rows)) {
            let stored = &mut piece[..tokens.len() * self.dim * self.dtype.size()];
            simd::convert(cpu().simd, (dtype, given), (self.dtype, stored));
            self.digest(stored, tokens);
            (&self.file).write_all(stored)?;
        }
        Ok(())
    }

    /// On several threads: each converts a piece, then writes and digests what is ready if no other is at it.
    fn append_on_threads(&mut self, data: &[u8], dtype: Dtype, tokens: &[i32], threads: usize) -> IoResult<()> {
        let (rows, to) = (self.piece_rows(), self.dtype);
        let [given_bytes, stored_bytes] = [dtype, to].map(|dtype| rows * self.dim * dtype.size());
        let mut converted = std::mem::take(&mut self.converted);
        let ready: Vec<OnceLock<&[u8]>> = data.chunks(given_bytes).map(|_| OnceLock::new()).collect();
        if dtype == to {
            converted.clear();
            ready.iter().zip(data.chunks(given_bytes)).for_each(|(ready, piece)| ready.set(piece).unwrap_or(()));
        } else {
            converted.resize(tokens.len() * self.dim * to.size(), 0);
        }
        let conversions = ready.iter().zip(data.chunks(given_bytes)).zip(converted.chunks_mut(stored_bytes));
        let queue = Mutex::new(conversions);
        let (mut file, waiting_file) = (self.file.try_clone()?, self.file.try_clone()?);
        let (durability, waiting) = (self.durability, Mutex::new(self.take_waiting()));
        let mut written = Ok(());
        let writing = InOrder::new(&ready, |_, piece: &[u8]| {
            if written.is_ok() {
                written = file.write_all(piece);
            }
        });
        let digesting = InOrder::new(&ready, |i, piece: &[u8]| {
            self.digest(piece, &tokens[i * rows..tokens.len().min((i + 1) * rows)]);
        });
        on_threads(threads, &|| {
            // Asking takes a millisecond for 8 MB: one thread does it while the others convert.
            let before = lock(&waiting).take();
            if let Some(range) = before {
                durability.begin_writing(&waiting_file, range);
            }
            loop {
                let Some(((ready, given), stored)) = lock(&queue).next() else { break };
                simd::convert(cpu().simd, (dtype, given), (to, stored));
                ready.set(stored).unwrap_or(());
                writing.go_on();
                digesting.go_on();
            }
            writing.go_on();
            digesting.finish();
            writing.finish();
        });
        self.converted = converted;
        written
    }

    fn piece_rows(&self) -> usize {
        (PIECE_BYTES / (self.dim * self.dtype.size())).max(1)
    }

    fn digest(&mut self, data: &[u8], tokens: &[i32]) {
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

    fn mark(&self) -> Mark {
        Mark {
            rows: self.tokens.len(),
            blocks: self.blocks.len(),
            block: self.block.clone(),
            moments: self.moments.clone(),
        }
    }

    fn back_to(&mut self, mark: Mark) -> Result<()> {
        let end = header::WRITTEN_BYTES as u64 + (mark.rows * self.dim * self.dtype.size()) as u64;
        let cut = self.file.set_len(end).and_then(|()| self.file.seek(SeekFrom::Start(end)));
        cut.map_err(|e| Error::io(&self.path, e))?;
        self.tokens.truncate(mark.rows);
        self.blocks.truncate(mark.blocks);
        (self.block, self.moments) = (mark.block, mark.moments);
        Ok(())
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
