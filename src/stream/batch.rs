//! The memory of batches: aligned, and used again once nobody looks at it any more.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of a batch: a cache line, and a vector of AVX-512.
const ALIGN: usize = 64;

/// Memory of a fixed size.
struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a buffer is owned memory, with no ties to the thread that made it.
unsafe impl Send for Buffer {}
// SAFETY: shared references only read.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// None where the system refuses so much.
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGN).ok()?;
        // SAFETY: the layout has a size of at least 1.
        let start = unsafe { alloc_zeroed(layout) };
        NonNull::new(start).map(|start| Self { start, layout })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Where batches of one size come from, and return to when they are dropped.
#[derive(Clone)]
pub(crate) struct Pool {
    bytes: usize,
    keep: usize,
    free: Arc<Mutex<Vec<Buffer>>>,
}

impl Pool {
    /// Batches of `bytes`; at most `keep` unused ones are kept.
    pub fn new(bytes: usize, keep: usize) -> Self {
        Self { bytes, keep, free: Arc::default() }
    }

    /// Whether the system gives memory for a batch at all; it is kept for the first.
    pub fn has_room(&self) -> bool {
        let buffer = Buffer::new(self.bytes);
        let has_room = buffer.is_some();
        self.free.lock().unwrap_or_else(PoisonError::into_inner).extend(buffer);
        has_room
    }

    pub fn take(&self, rows: usize) -> Batch {
        let used = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = used.or_else(|| Buffer::new(self.bytes));
        let buffer = buffer.unwrap_or_else(|| {
            handle_alloc_error(Layout::from_size_align(self.bytes, ALIGN).unwrap_or(Layout::new::<u8>()))
        });
        Batch { buffer: Some(buffer), bytes: self.bytes, rows, pool: self.clone(), process: std::process::id() }
    }
}

/// One batch of rows. Dropping it gives its memory back to the stream it came from.
pub struct Batch {
    buffer: Option<Buffer>,
    bytes: usize,
    rows: usize,
    pool: Pool,
    process: u32,
}

impl Batch {
    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its bytes, row after row.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the buffer holds `bytes` bytes, all initialised, and lives until `drop`.
        self.buffer.as_ref().map_or(&[], |b| unsafe { std::slice::from_raw_parts(b.start.as_ptr(), self.bytes) })
    }

    /// Its bytes, to be written.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` is the only reference.
        self.buffer
            .as_mut()
            .map_or(&mut [], |b| unsafe { std::slice::from_raw_parts_mut(b.start.as_ptr(), self.bytes) })
    }

    /// Its values, where they are float32.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        let bytes = self.bytes();
        // SAFETY: aligned to 64, and any four bytes are a float32.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4) }
    }

    /// Its values, to be written, where they are float32.
    #[must_use]
    pub fn values_mut(&mut self) -> &mut [f32] {
        let bytes = self.bytes_mut();
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / 4) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // In a forked child the pool's lock may be held by a thread that is not there.
        if self.process == std::process::id()
            && let Some(buffer) = self.buffer.take()
        {
            let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < self.pool.keep {
                free.push(buffer);
            }
        }
    }
}
