//! Rows by number into one buffer: from the mapping with prefetch, or with one system call per row.

use crate::cpu::cpu;
use crate::error::Result;
use crate::shard::dataset::Out;
use crate::shard::open::{Files, OpenShard};
use crate::shard::{Access, Dataset};
use crate::stored::{self, Rows};
use crate::stream::order::{CHUNK, Order};

/// What one thread keeps between batches.
#[derive(Default)]
pub struct Gatherer {
    files: Files,
    rows: Vec<u64>,
    order: Vec<(u64, u32)>,
    row: Vec<u8>,
}

impl Gatherer {
    /// Reads the rows at `count` positions of `order` from `start` on into `out`. The blocks they lie in must have been
    /// prepared.
    ///
    /// # Errors
    /// `ShardTruncated`, `ShardMissing`, `IoFailed`, where rows are read by system calls.
    pub fn gather(&mut self, dataset: &Dataset, order: &Order, start: u64, count: usize, out: Out<'_>) -> Result<()> {
        if dataset.access() == Access::Mmap {
            gather_maps(dataset, order, start, count, out);
            return Ok(());
        }
        let mut rows = std::mem::take(&mut self.rows);
        rows.resize(count, 0);
        order.rows(start, &mut rows);
        let result = self.gather_files(dataset, &rows, out);
        self.rows = rows;
        result
    }

    fn gather_files(&mut self, dataset: &Dataset, rows: &[u64], mut out: Out<'_>) -> Result<()> {
        // In the order of the files, so that descriptors and pages are used while they are warm.
        let (row_bytes, dim) = (dataset.manifest().row_bytes(), dataset.dim());
        self.order.clear();
        self.order.extend(rows.iter().zip(0..).map(|(&row, place)| (row, place)));
        self.order.sort_unstable();
        self.row.resize(row_bytes, 0);
        for &(row, place) in &self.order {
            let (shard, row): (&OpenShard, u64) = dataset.find(row);
            let place = place as usize;
            match &mut out {
                Out::Raw(bytes) => {
                    let to = &mut bytes[place * row_bytes..(place + 1) * row_bytes];
                    shard.read_activations(&mut self.files, &(row..row + 1), to)?;
                }
                Out::F32(values, normalize) => {
                    shard.read_activations(&mut self.files, &(row..row + 1), &mut self.row)?;
                    let to = &mut values[place * dim..(place + 1) * dim];
                    // SAFETY: `self.row` holds one row.
                    unsafe {
                        let rows = Rows { now: &[self.row.as_ptr()], ahead: &[], past_caches: false };
                        stored::gather(cpu().level, dataset.manifest().dtype, rows, dim, *normalize, to);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Batches from this on are written past the caches: what does not stay in a core's second level until it is used need
/// not be read into it before it is written. Measured where that holds 2 MiB, every batch copied once after it came:
/// batches of 4 MiB 15 % faster (D = 512, float16), of 8 MiB 45 % (float32); of 2 MiB 10 % slower.
const PAST_CACHES_BYTES: usize = 4 << 20;

/// While the rows of one chunk are copied, those of the next are asked for.
fn gather_maps(dataset: &Dataset, order: &Order, start: u64, count: usize, mut out: Out<'_>) {
    let bytes = match &out {
        Out::Raw(bytes) => bytes.len(),
        Out::F32(values, _) => values.len() * 4,
    };
    let past_caches = bytes >= PAST_CACHES_BYTES;
    let (mut now, mut next) = ([std::ptr::null(); CHUNK], [std::ptr::null(); CHUNK]);
    let (mut known, mut done) = (0, 0);
    order.chunks(start, count, &mut |rows| {
        for (pointer, &row) in next.iter_mut().zip(rows) {
            *pointer = dataset.mapped_row(row);
        }
        let these = Rows { now: &now[..known], ahead: &next[..rows.len()], past_caches };
        // SAFETY: `mapped_row` gives rows of mappings that live as long as the dataset.
        unsafe { copy(dataset, these, done, &mut out) };
        done += known;
        known = rows.len();
        std::mem::swap(&mut now, &mut next);
    });
    // SAFETY: as above.
    unsafe { copy(dataset, Rows { now: &now[..known], ahead: &[], past_caches }, done, &mut out) };
    if past_caches {
        stored::fence();
    }
}

/// Puts `rows` into `out` from row `at` on.
///
/// # Safety
/// The pointers must be readable for a row.
unsafe fn copy(dataset: &Dataset, rows: Rows<'_>, at: usize, out: &mut Out<'_>) {
    let (size, dim) = (dataset.manifest().row_bytes(), dataset.dim());
    let (from, to) = (at, at + rows.now.len());
    // SAFETY: the caller's promise.
    unsafe {
        match out {
            Out::Raw(bytes) => stored::gather_raw(cpu().level, rows, size, &mut bytes[from * size..to * size]),
            Out::F32(values, normalize) => {
                let values = &mut values[from * dim..to * dim];
                stored::gather(cpu().level, dataset.manifest().dtype, rows, dim, *normalize, values);
            }
        }
    }
}
