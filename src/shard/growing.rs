//! One shard while it is written: rows are digested and summed on their way to the file, the header comes last.

use std::fs::File;
use std::io::Result as IoResult;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use crate::cpu::cpu;
use crate::error::{Error, Result};
use crate::shard::blocks::{BlockFile, End};
use crate::shard::commit::{self, Durability};
use crate::shard::contents::Contents;
use crate::shard::dtype::Dtype;
use crate::shard::header;
use crate::shard::in_order::InOrder;
use crate::shard::manifest::{Manifest, ShardEntry};
use crate::shard::statistics::Moments;
use crate::simd;
use crate::threads::{lock, on_threads};

/// Below this, a second thread costs more than it brings (about 30 microseconds to start).
pub const PARALLEL_BYTES: usize = 256 << 10;
/// The disk begins to write when so many bytes have come, long before the shard is full and must be synced.
const WRITE_BYTES: u64 = 8 << 20;

/// The shard that is being written, under its temporary name.
pub struct GrowingShard {
    name: String,
    path: PathBuf,
    file: BlockFile,
    contents: Contents,
    durability: Durability,
    /// Where the bytes begin that the disk was not asked to write yet.
    waiting: u64,
    /// Rows in the type on disk, where they came in another.
    converted: Vec<u8>,
}

impl GrowingShard {
    /// Creates the file for the next shard of `manifest`.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`.
    pub fn create(folder: &Path, manifest: &Manifest, durability: Durability) -> Result<Self> {
        let name = commit::shard_name(manifest.shards.len());
        let file = commit::create(folder, &name)?;
        Ok(Self {
            path: commit::temporary(folder, &name),
            // The header is written last: its rows are not known yet.
            file: BlockFile::new(file, vec![0; header::WRITTEN_BYTES]),
            contents: Contents::new(&name, manifest),
            name,
            durability,
            waiting: 0,
            converted: Vec::new(),
        })
    }

    /// Rows in it so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.contents.rows() as u64
    }

    /// Appends rows of `dtype`, on one thread or several; false where one of them is not finite in the type on disk, and
    /// then nothing was appended.
    ///
    /// The rows are written before they are known to be finite, and taken back if they are not.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`.
    pub fn append(&mut self, data: &[u8], dtype: Dtype, tokens: &[i32], threads: usize) -> Result<bool> {
        let before = self.contents.mark();
        let threads = if data.len() < PARALLEL_BYTES { 1 } else { threads };
        let end = self.append_pieces(data, dtype, tokens, threads).map_err(|e| Error::io(&self.path, e))?;
        let finite = self.contents.are_finite();
        if finite {
            self.file.keep(end);
        } else {
            self.contents.back_to(before);
            self.file.refuse(end).map_err(|e| Error::io(&self.path, e))?;
        }
        Ok(finite)
    }

    /// The bytes that the disk shall begin to write, once there are enough of them.
    fn take_waiting(&mut self) -> Option<Range<u64>> {
        let end = self.file.written();
        (end >= self.waiting + WRITE_BYTES).then(|| std::mem::replace(&mut self.waiting, end)..end)
    }

    /// On each thread: converts a piece, then writes and digests what is ready if no other is at it.
    fn append_pieces(&mut self, data: &[u8], dtype: Dtype, tokens: &[i32], threads: usize) -> IoResult<End> {
        let (durability, waiting) = (self.durability, Mutex::new(self.take_waiting()));
        let Self { contents, file, converted, .. } = self;
        let (rows, to) = (contents.piece_rows(), contents.dtype);
        let [given_bytes, stored_bytes] = [dtype, to].map(|dtype| rows * contents.dim * dtype.size());
        let ready: Vec<OnceLock<&[u8]>> = data.chunks(given_bytes).map(|_| OnceLock::new()).collect();
        // Of rows in the type on disk none are converted: all pieces are those given, and ready.
        if dtype == to && threads > 1 {
            ready.iter().zip(data.chunks(given_bytes)).for_each(|(ready, piece)| ready.set(piece).unwrap_or(()));
        }
        converted.resize(if dtype == to { 0 } else { tokens.len() * contents.dim * to.size() }, 0);
        let places = converted.chunks_mut(stored_bytes).map(Some).chain(std::iter::repeat_with(|| None));
        let queue = Mutex::new(ready.iter().zip(data.chunks(given_bytes)).zip(places));
        let mut batch = file.batch(tokens.len() * contents.dim * to.size());
        let opened: &File = batch.file();
        let mut written = Ok(());
        let writing = InOrder::new(&ready, |_, piece| {
            if written.is_ok() {
                written = batch.push(piece);
            }
        });
        let digesting = InOrder::new(&ready, |i, piece| {
            contents.add(piece, &tokens[i * rows..tokens.len().min((i + 1) * rows)]);
        });
        on_threads(threads, &|| {
            // Asking takes a millisecond for 8 MB: one thread does it while the others convert.
            let before = lock(&waiting).take();
            if let Some(range) = before {
                durability.begin_writing(opened, range);
            }
            loop {
                let Some(((ready, given), place)) = lock(&queue).next() else { break };
                let stored = place.map_or(given, |place| {
                    simd::convert(cpu().simd, (dtype, given), (to, place));
                    place
                });
                ready.set(stored).unwrap_or(());
                writing.go_on();
                digesting.go_on();
            }
        });
        written.map(|()| batch.end())
    }

    /// Completes the file and gives it its name; what the manifest has to say of it.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`.
    pub fn publish(self, folder: &Path) -> Result<(ShardEntry, Moments)> {
        let contents = self.contents;
        let head = header::build(contents.rows() as u64, contents.dim as u64, contents.dtype);
        let file = self.file.finish(&contents.token_bytes(), &head).map_err(|e| Error::io(&self.path, e))?;
        commit::publish(folder, &self.name, &file, self.durability)?;
        Ok(contents.finish(&head))
    }
}
