//! A file that is written past the page cache, on a thread of its own, from memory that the disk reads by itself.
//!
//! A harvest needs the processor for the model. Copying its rows into the page cache takes 7 % of a small model's forward
//! pass, more where the pages are fresh (docs/store.md); this takes next to nothing, as long as the disk keeps up.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use crate::shard::blocks::BLOCK_BYTES;
use crate::threads::lock;

/// What offsets, lengths and addresses of direct writes are multiples of: no disk asks for more.
const ALIGNMENT: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;
/// The disk keeps up if waiting for it takes a smaller share of the time than this.
const WAITING_SHARE: f64 = 0.05;

/// Memory in huge pages, where the system gives them: the disk is told of a thousandth as many pieces, and whoever fills
/// it needs fewer entries of the processor's address cache.
#[derive(Default)]
struct Buffer {
    memory: Option<MmapMut>,
}

impl Buffer {
    /// Its first `bytes` bytes; the first `keep` hold what they held.
    fn first(&mut self, bytes: usize, keep: usize) -> Result<&mut [u8]> {
        let memory = match self.memory.take() {
            Some(memory) if memory.len() >= bytes => memory,
            old => {
                let mut larger = MmapMut::map_anon((bytes + bytes / 4 + 1).next_multiple_of(HUGE_PAGE))?;
                #[cfg(target_os = "linux")]
                let _ = larger.advise(memmap2::Advice::HugePage); // without them it is only slower
                if let Some(old) = old {
                    larger[..keep].copy_from_slice(&old[..keep]);
                }
                larger
            }
        };
        Ok(&mut self.memory.insert(memory)[..bytes])
    }
}

/// Memory that the files of one writer hand on from one to the next: fresh pages cost more than what is put into them.
#[derive(Clone, Default)]
pub struct Buffers(Arc<Mutex<Vec<Buffer>>>);

impl Buffers {
    fn take(&self) -> Buffer {
        lock(&self.0).pop().unwrap_or_default()
    }

    fn give(&self, buffer: Buffer) {
        lock(&self.0).push(buffer);
    }
}

/// Bytes for the file at an offset; the buffer comes back.
type Job = (Buffer, usize, u64);

/// The file while it grows.
pub struct DirectFile {
    /// For what is no multiple of the alignment: the end, and the head that is written last.
    file: File,
    buffers: Buffers,
    /// Starts with the bytes behind the last ones that were handed over.
    filling: Buffer,
    filled: usize,
    /// Bytes handed over.
    handed: u64,
    jobs: SyncSender<Job>,
    /// A mutex only to be shared among threads; whoever reads has the file for itself.
    done: Mutex<Receiver<(Buffer, Result<()>)>>,
    /// Whether a job was handed over whose end was not seen.
    pending: bool,
    begun: Instant,
    waited: Duration,
}

impl DirectFile {
    /// Writes to the empty `file` at `path`, which will begin with `head` bytes that are not known yet; gives the file back
    /// where it cannot be written in this way.
    pub fn new(file: File, path: &Path, head: usize, buffers: &Buffers) -> std::result::Result<Self, File> {
        let Some((direct, copy)) = open_direct(path).and_then(|direct| Some((direct, file.try_clone().ok()?))) else {
            return Err(file);
        };
        let (jobs, taken) = sync_channel::<Job>(1);
        let (tell, done) = sync_channel(1);
        let work = move || {
            while let Ok((mut buffer, bytes, offset)) = taken.recv() {
                let result = buffer.first(bytes, bytes).and_then(|bytes| write(&direct, &copy, bytes, offset));
                if tell.send((buffer, result)).is_err() {
                    break;
                }
            }
        };
        if std::thread::Builder::new().name("sparsecode-write".to_owned()).spawn(work).is_err() {
            return Err(file);
        }
        let (buffers, filling) = (buffers.clone(), buffers.take());
        let (begun, waited) = (Instant::now(), Duration::ZERO);
        let done = Mutex::new(done);
        Ok(Self { file, buffers, filling, filled: head, handed: 0, jobs, done, pending: false, begun, waited })
    }

    /// Room for the next `bytes` bytes, which only `keep` makes part of the file.
    pub fn room(&mut self, bytes: usize) -> Result<&mut [u8]> {
        Ok(&mut self.filling.first(self.filled + bytes, self.filled)?[self.filled..])
    }

    /// Makes the first `bytes` bytes of the room part of the file. Waits for the write before, and says how it went.
    pub fn keep(&mut self, bytes: usize) -> Result<()> {
        self.filled += bytes;
        if self.filled < BLOCK_BYTES {
            return Ok(());
        }
        let whole = self.filled / ALIGNMENT * ALIGNMENT;
        let mut next = self.wait()?;
        let rest = self.filled - whole;
        // As large at once as it will have to be.
        let start = &mut next.first(self.filled, 0)?[..rest];
        start.copy_from_slice(&self.filling.first(self.filled, self.filled)?[whole..]);
        let full = std::mem::replace(&mut self.filling, next);
        self.jobs.send((full, whole, self.handed)).map_err(|_| gone())?;
        (self.filled, self.pending) = (rest, true);
        self.handed += whole as u64;
        Ok(())
    }

    /// Waits until nothing is being written; the buffer that is free then.
    fn wait(&mut self) -> Result<Buffer> {
        if !std::mem::take(&mut self.pending) {
            return Ok(self.buffers.take());
        }
        let start = Instant::now();
        let (buffer, result) = lock(&self.done).recv().map_err(|_| gone())?;
        self.waited += start.elapsed();
        result.map(|()| buffer)
    }

    /// Whether writing took (nearly) nothing from the time of whoever made the bytes.
    pub fn keeps_up(&self) -> bool {
        self.waited.as_secs_f64() <= WAITING_SHARE * self.begun.elapsed().as_secs_f64()
    }

    /// Writes everything, `last` behind what there is and `head` over the bytes that the file begins with.
    pub fn finish(mut self, last: &[u8], head: &[u8]) -> Result<File> {
        let free = self.wait()?;
        self.buffers.give(free);
        self.file.seek(SeekFrom::Start(self.handed))?;
        self.file.write_all(self.filling.first(self.filled, self.filled)?)?;
        self.file.write_all(last)?;
        write_at(&self.file, head, 0)?;
        self.buffers.give(self.filling);
        Ok(self.file)
    }
}

fn gone() -> Error {
    Error::other("the thread that writes has ended")
}

fn open_direct(path: &Path) -> Option<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}

/// Through `direct`, or through the page cache where the file system opens files for direct writes but refuses these.
fn write(direct: &File, cached: &File, bytes: &[u8], offset: u64) -> Result<()> {
    match write_at(direct, bytes, offset) {
        Err(e) if e.kind() == ErrorKind::InvalidInput => write_at(cached, bytes, offset),
        result => result,
    }
}

fn write_at(mut file: &File, bytes: &[u8], offset: u64) -> Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn opened(path: &Path) -> File {
        std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap()
    }

    fn bytes(n: usize, seed: usize) -> Vec<u8> {
        (0..n).map(|i| (((i + seed) * 2_654_435_761) >> 7) as u8).collect()
    }

    #[test]
    fn the_file_holds_what_was_kept_behind_the_head_however_it_came() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        // A file system without direct writes gives the file back: then there is nothing to test.
        let Ok(mut file) = DirectFile::new(opened(&path), &path, 512, &Buffers::default()) else { return };
        let mut expected = b"head".repeat(128);
        let sizes = [0, 1, 100, BLOCK_BYTES - 613, 5, BLOCK_BYTES, 3 * BLOCK_BYTES + 17, 0, 2, 4096];
        for (i, n) in sizes.into_iter().cycle().take(30).enumerate() {
            // What is not kept leaves no trace.
            file.room(n + 9).unwrap().fill(0xff);
            let data = bytes(n, i);
            file.room(n).unwrap().copy_from_slice(&data);
            file.keep(n).unwrap();
            expected.extend(data);
        }
        let last = bytes(2 * BLOCK_BYTES + 1, 3);
        file.finish(&last, &expected[..512]).unwrap();
        expected.extend(last);
        assert!(std::fs::read(&path).unwrap() == expected);
    }

    #[test]
    fn a_write_that_the_file_system_refuses_goes_through_the_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let cached = opened(&path);
        let Some(direct) = open_direct(&path) else { return };
        assert_eq!(write_at(&direct, b"odd", 1).unwrap_err().kind(), ErrorKind::InvalidInput);
        write(&direct, &cached, b"odd", 1).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"\0odd");
    }

    #[test]
    fn a_failed_write_is_told_at_the_next_call() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let Ok(mut file) = DirectFile::new(opened(&path), &path, 0, &Buffers::default()) else { return };
        // No file system takes bytes at an offset that is not representable.
        file.handed = (1 << 63) - BLOCK_BYTES as u64;
        file.room(2 * BLOCK_BYTES).unwrap().fill(1);
        file.keep(2 * BLOCK_BYTES).unwrap();
        assert!(file.finish(b"", b"").is_err());
    }
}
