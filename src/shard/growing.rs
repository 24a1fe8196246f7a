//! One shard while it is written: rows are digested and summed on their way to the file, the header comes last.

use std::fs::File;
use std::io::Result as IoResult;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, OnceLock};

use crate::cpu::cpu;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::shard::blocks::{BlockFile, End};
use crate::shard::commit::{self, Durability};
use crate::shard::contents::{Added, Contents, Marks, Part};
use crate::shard::direct::{Buffers, DirectFile};
use crate::shard::header;
use crate::shard::in_order::InOrder;
use crate::shard::manifest::{Manifest, ShardEntry};
use crate::shard::statistics::Moments;
use crate::stored;
use crate::threads::{lock, on_threads};

/// Below this, a second thread costs more than it brings (about 30 microseconds to start).
pub const PARALLEL_BYTES: usize = 256 << 10;
/// The disk begins to write when so many bytes have come, long before the shard is full and must be synced.
const WRITE_BYTES: u64 = 8 << 20;

/// How a shard's bytes come to the disk.
enum Target {
    /// Through the page cache: whoever reads them soon finds them there.
    Cached(BlockFile),
    /// Past it.
    Direct(DirectFile),
}

/// The shard that is being written, under its temporary name.
pub struct GrowingShard {
    name: String,
    path: PathBuf,
    target: Target,
    contents: Contents,
    durability: Durability,
    /// Where the bytes begin that the disk was not asked to write yet.
    waiting: u64,
    /// Rows in the type on disk, where they came in another.
    converted: Vec<u8>,
}

impl GrowingShard {
    /// Creates the file for the next shard of `manifest`; with `direct`, to be written past the page cache where that works,
    /// out of this memory.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`.
    pub fn create(
        folder: &Path,
        manifest: &Manifest,
        durability: Durability,
        direct: Option<&Buffers>,
    ) -> Result<Self> {
        let name = commit::shard_name(manifest.first + manifest.shards.len());
        let path = commit::temporary(folder, &name);
        let file = commit::create(folder, &name)?;
        // The header is written last: its rows are not known yet.
        let head = header::WRITTEN_BYTES;
        let opened = match direct {
            Some(buffers) => DirectFile::new(file, &path, head, buffers),
            None => Err(file),
        };
        let target = opened.map_or_else(|file| Target::Cached(BlockFile::new(file, vec![0; head])), Target::Direct);
        Ok(Self {
            path,
            target,
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
    /// Through the page cache the rows are written before they are known to be finite, and taken back if they are not.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`.
    pub fn append(&mut self, data: &[u8], dtype: Dtype, marks: Marks<'_>, threads: usize) -> Result<bool> {
        if marks.is_empty() {
            return Ok(true);
        }
        let rows =
            NewRows { data, dtype, count: marks.len(), threads: if data.len() < PARALLEL_BYTES { 1 } else { threads } };
        let contents = &self.contents;
        let added = match &mut self.target {
            Target::Cached(file) => {
                let waiting = take_waiting(file, &mut self.waiting);
                let written = rows.write(contents, &mut self.converted, file, self.durability, waiting);
                written.and_then(|(added, end)| {
                    if added.is_finite() {
                        file.keep(end);
                    } else {
                        file.refuse(end)?;
                    }
                    Ok(added)
                })
            }
            Target::Direct(file) => {
                let bytes = marks.len() * contents.dim * contents.dtype.size();
                file.room(bytes).map(|room| rows.fill(contents, room)).and_then(|added| {
                    if added.is_finite() {
                        file.keep(bytes)?;
                    }
                    Ok(added)
                })
            }
        };
        let added = added.map_err(|e| Error::io(&self.path, e))?;
        let finite = added.is_finite();
        if finite {
            self.contents.keep(added, marks);
        }
        Ok(finite)
    }

    /// Whether the disk takes the shard past the page cache as fast as its rows come.
    #[must_use]
    pub fn direct_keeps_up(&self) -> bool {
        match &self.target {
            Target::Cached(_) => false,
            Target::Direct(file) => file.keeps_up(),
        }
    }

    /// Completes the file and gives it its name; what the manifest has to say of it.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`.
    pub fn publish(self, folder: &Path) -> Result<(ShardEntry, Moments)> {
        let contents = self.contents;
        let head = header::build(contents.rows() as u64, contents.dim as u64, contents.dtype, contents.has_contexts());
        let (last, path) = (contents.marks_bytes(), &self.path);
        let file = match self.target {
            Target::Cached(file) => file.finish(&last, &head),
            Target::Direct(file) => file.finish(&last, &head),
        }
        .map_err(|e| Error::io(path, e))?;
        commit::publish(folder, &self.name, &file, self.durability)?;
        Ok(contents.finish(&head))
    }
}

/// The bytes that the disk shall begin to write, once there are enough of them.
fn take_waiting(file: &BlockFile, waiting: &mut u64) -> Option<Range<u64>> {
    let end = file.written();
    (end >= *waiting + WRITE_BYTES).then(|| std::mem::replace(waiting, end)..end)
}

/// Rows to append, and on how many threads.
struct NewRows<'a> {
    data: &'a [u8],
    dtype: Dtype,
    count: usize,
    threads: usize,
}

impl NewRows<'_> {
    /// Writes them, and adds them to the blocks of `contents`; those that are not in the type on disk are first put into
    /// `converted`.
    fn write<'r>(
        &'r self,
        contents: &Contents,
        converted: &'r mut Vec<u8>,
        file: &'r mut BlockFile,
        durability: Durability,
        waiting: Option<Range<u64>>,
    ) -> IoResult<(Added, End)> {
        let bytes = self.count * contents.dim * contents.dtype.size();
        let mut batch = file.batch(bytes);
        let opened: &File = batch.file();
        let waiting = Mutex::new(waiting);
        // Asking takes a millisecond for 8 MB: one thread does it while the others convert.
        let begin = || {
            let before = lock(&waiting).take();
            if let Some(range) = before {
                durability.begin_writing(opened, range);
            }
        };
        let place = (self.dtype != contents.dtype).then(|| {
            converted.resize(bytes, 0);
            &mut converted[..]
        });
        let mut written = Ok(());
        let added = self.each_piece(contents, place, begin, |piece| {
            if written.is_ok() {
                written = batch.push(piece);
            }
        });
        written.map(|()| (added, batch.end()))
    }

    /// Puts them into `place` in the type on disk, and adds them to the blocks of `contents`.
    fn fill(&self, contents: &Contents, place: &mut [u8]) -> Added {
        self.each_piece(contents, Some(place), || (), |_| ())
    }

    /// On each thread: `begin`; then puts pieces into `place`, if there is one, and does what is ready, if no other thread
    /// is at it: `write`, in the order of the pieces, and what their blocks take note of.
    ///
    /// A thread first takes the pieces of blocks that no other is at: what it converts it then reads from its own caches.
    fn each_piece<'r>(
        &'r self,
        contents: &Contents,
        mut place: Option<&'r mut [u8]>,
        begin: impl Fn() + Sync,
        mut write: impl FnMut(&'r [u8]) + Send,
    ) -> Added {
        let (to, dtype, mut data) = (contents.dtype, self.dtype, self.data);
        let [given_row, stored_row] = [dtype, to].map(|dtype| contents.dim * dtype.size());
        let mut parts = contents.parts(self.count);
        let rows = contents.piece_rows();
        let pieces = parts.iter().map(|part| part.rows.len().div_ceil(rows)).sum();
        let ready: Vec<OnceLock<&[u8]>> = (0..pieces).map(|_| OnceLock::new()).collect();
        let mut ready_left = &ready[..];
        // Where nothing has to be moved all pieces are those given, and ready.
        let all_ready = place.is_none() && self.threads > 1;
        let work: Vec<_> = parts
            .iter_mut()
            .map(|part| {
                let given = take(&mut data, part.rows.len() * given_row).chunks(rows * given_row);
                let own = take(&mut ready_left, given.len());
                if all_ready {
                    own.iter().zip(given.clone()).for_each(|(ready, piece)| ready.set(piece).unwrap_or(()));
                }
                let stored = place.take().map(|all| {
                    let (now, rest) = all.split_at_mut(part.rows.len() * stored_row);
                    place = Some(rest);
                    now.chunks_mut(rows * stored_row).map(Some)
                });
                let places = stored.into_iter().flatten().chain(std::iter::repeat_with(|| None));
                let queue = Mutex::new(own.iter().zip(given).zip(places));
                (queue, InOrder::new(own, |_, piece| part.add(piece)))
            })
            .collect();
        let writing = InOrder::new(&ready, |_, piece| write(piece));
        let begun = AtomicUsize::new(0);
        on_threads(self.threads, &|| {
            begin();
            let others = work.iter();
            for (queue, adding) in std::iter::from_fn(|| work.get(begun.fetch_add(1, Relaxed))).chain(others) {
                loop {
                    let Some(((ready, given), place)) = lock(queue).next() else { break };
                    let stored = place.map_or(given, |place| {
                        stored::convert(cpu().level, (dtype, given), (to, place));
                        place
                    });
                    ready.set(stored).unwrap_or(());
                    writing.go_on();
                    adding.go_on();
                }
            }
        });
        drop(work);
        let blocks = parts.into_iter().map(Part::end).collect();
        Added { blocks }
    }
}

/// Cuts the first `n` off.
fn take<'a, T>(slice: &mut &'a [T], n: usize) -> &'a [T] {
    let (first, rest) = slice.split_at(n);
    *slice = rest;
    first
}
