//! Rows by number into one buffer: from the mapping with prefetch, or with one system call per row.

use crate::cpu::cpu;
use crate::error::Result;
use crate::shard::Dataset;
use crate::shard::dataset::Out;
use crate::shard::open::{Files, OpenShard};
use crate::simd;

/// What one thread keeps between batches.
#[derive(Default)]
pub struct Gatherer {
    files: Files,
    pointers: Vec<*const u8>,
    order: Vec<(u64, u32)>,
    row: Vec<u8>,
}

// SAFETY: the pointers are used within one call only; between calls they are never read.
unsafe impl Send for Gatherer {}
// SAFETY: as above, and only `&mut self` reaches them.
unsafe impl Sync for Gatherer {}

impl Gatherer {
    /// Reads `rows` of `dataset` into `out`, in this order. The blocks they lie in must have been prepared.
    ///
    /// # Errors
    /// `ShardTruncated`, `ShardMissing`, `IoFailed`, where rows are read by system calls.
    pub fn gather(&mut self, dataset: &Dataset, rows: &[u64], out: Out<'_>) -> Result<()> {
        if dataset.shards().first().is_some_and(|shard| shard.activations().is_some()) {
            self.gather_maps(dataset, rows, out);
            return Ok(());
        }
        self.gather_files(dataset, rows, out)
    }

    fn gather_maps(&mut self, dataset: &Dataset, rows: &[u64], out: Out<'_>) {
        let row_bytes = dataset.manifest().row_bytes();
        self.pointers.clear();
        self.pointers.extend(rows.iter().map(|&row| {
            let (shard, row) = dataset.find(row);
            let start = shard.activations().unwrap_or_else(|| unreachable!("a dataset is mapped as a whole"));
            // `find` gives a row of the shard, and its header was checked against the length of the mapping.
            start.wrapping_add(row as usize * row_bytes)
        }));
        // SAFETY: every pointer is the start of a row inside a mapping that lives as long as the dataset.
        unsafe {
            match out {
                Out::Raw(bytes) => simd::gather_raw(cpu().simd, &self.pointers, row_bytes, bytes),
                Out::F32(values, normalize) => {
                    simd::gather(
                        cpu().simd,
                        dataset.manifest().dtype,
                        &self.pointers,
                        dataset.dim(),
                        normalize,
                        values,
                    );
                }
            }
        }
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
                        simd::gather(cpu().simd, dataset.manifest().dtype, &[self.row.as_ptr()], dim, *normalize, to);
                    }
                }
            }
        }
        Ok(())
    }
}
