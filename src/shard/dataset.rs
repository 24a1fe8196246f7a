//! A dataset open for reading: its shards as one long list of rows.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::cpu::cpu;
use crate::error::{Error, Result};
use crate::shard::manifest::Manifest;
use crate::shard::open::{Files, OpenShard};
use crate::shard::segments::Segments;
use crate::shard::settings::{Access, Verify};
use crate::stored::{self, Normalize, Rows};

/// Where rows are put.
pub enum Out<'a> {
    /// As float32, normalised.
    F32(&'a mut [f32], Normalize<'a>),
    /// As they are stored.
    Raw(&'a mut [u8]),
}

/// An open dataset.
pub struct Dataset {
    folder: PathBuf,
    manifest: Manifest,
    shards: Vec<OpenShard>,
    rows: Segments,
    access: Access,
    verify: Verify,
    blocks: Vec<(u32, u32)>,
    /// Address of the first row of each mapped shard.
    starts: Vec<usize>,
}

impl Dataset {
    /// Opens the dataset in `folder`: the manifest and every shard's header are checked.
    ///
    /// # Errors
    /// `DatasetMissing`, `FormatTooNew`, `ManifestInvalid`, `InvalidName`, `ShardMissing`, `ShardTruncated`,
    /// `ShardCorrupt`, `HeaderInvalid`, `IoFailed`.
    pub fn open(folder: &Path, access: Access, verify: Verify) -> Result<Self> {
        let manifest = Manifest::load(folder)?;
        let shards = (0..manifest.shards.len())
            .map(|index| OpenShard::open(folder, &manifest, index, access))
            .collect::<Result<Vec<_>>>()?;
        let rows = Segments::new(manifest.shards.iter().map(|s| s.rows));
        let blocks = shards.iter().enumerate().flat_map(|(s, shard)| (0..shard.blocks()).map(move |b| (s, b)));
        let blocks = blocks.map(|(s, b)| (s as u32, b as u32)).collect();
        let starts = shards.iter().map(|shard| shard.activations().map_or(0, |start| start as usize)).collect();
        Ok(Self { folder: folder.to_path_buf(), manifest, shards, rows, access, verify, blocks, starts })
    }

    /// The folder it was opened from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How it is read.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// When digests are compared.
    #[must_use]
    pub fn verify_mode(&self) -> Verify {
        self.verify
    }

    /// Rows in all shards.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.total()
    }

    /// Values per row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.manifest.dim as usize
    }

    /// The shard that holds `row`, and the row in it.
    #[inline]
    #[must_use]
    pub fn find(&self, row: u64) -> (&OpenShard, u64) {
        let (shard, row) = self.rows.find(row);
        (&self.shards[shard], row)
    }

    /// Where `row` lies in memory, for as long as this dataset is open.
    ///
    /// # Panics
    /// If there is no such row. The dataset must be mapped.
    #[inline]
    #[must_use]
    pub fn mapped_row(&self, row: u64) -> *const u8 {
        debug_assert!(self.access == Access::Mmap);
        let (shard, row) = if let [_] = self.starts[..] {
            assert!(row < self.rows(), "row {row} of {}", self.rows());
            (0, row)
        } else {
            self.rows.find(row)
        };
        // The header was checked against the length of the mapping.
        (self.starts[shard] + row as usize * self.manifest.row_bytes()) as *const u8
    }

    /// All shards.
    #[must_use]
    pub fn shards(&self) -> &[OpenShard] {
        &self.shards
    }

    /// Number of blocks in all shards; they are numbered in row order.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The rows of block `block` of the dataset.
    #[must_use]
    pub fn block(&self, block: usize) -> Range<u64> {
        let (shard, inner) = (self.blocks[block].0 as usize, self.blocks[block].1 as usize);
        let (start, rows) = (self.rows.start(shard), self.shards[shard].block(inner));
        start + rows.start..start + rows.end
    }

    /// The blocks that hold any of `rows`.
    #[must_use]
    pub fn blocks_of(&self, rows: &Range<u64>) -> Range<usize> {
        let first = self.blocks.partition_point(|&(s, b)| {
            self.rows.start(s as usize) + self.shards[s as usize].block(b as usize).end <= rows.start
        });
        let count = self.blocks[first..].partition_point(|&(s, b)| {
            self.rows.start(s as usize) + self.shards[s as usize].block(b as usize).start < rows.end
        });
        first..first + if rows.is_empty() { 0 } else { count }
    }

    /// Makes block `block` ready to be read: checked as the dataset's `Verify` asks (`again`: even if it was before,
    /// where that is `Always`), and in memory where it is mapped.
    ///
    /// # Errors
    /// `ShardCorrupt`, `ShardTruncated`, `IoFailed`.
    pub fn prepare(&self, block: usize, again: bool, files: &mut Files) -> Result<()> {
        let (shard, block) = (&self.shards[self.blocks[block].0 as usize], self.blocks[block].1 as usize);
        let wanted = match self.verify {
            Verify::Once => !shard.is_verified(block),
            Verify::Always => again || !shard.is_verified(block),
            Verify::Never => false,
        };
        if wanted { shard.verify(block, files) } else { shard.populate(block, true, files) }
    }

    /// Whether block `block` was checked in this process.
    #[must_use]
    pub fn is_verified(&self, block: usize) -> bool {
        self.shards[self.blocks[block].0 as usize].is_verified(self.blocks[block].1 as usize)
    }

    /// Asks the system to read block `block` ahead.
    ///
    /// # Errors
    /// `IoFailed`, `ShardMissing`.
    pub fn read_ahead(&self, block: usize, files: &mut Files) -> Result<()> {
        self.shards[self.blocks[block].0 as usize].populate(self.blocks[block].1 as usize, false, files)
    }

    /// Checks the digests of all shards with `threads` threads: (shard, what is wrong) of each bad one.
    #[must_use]
    pub fn bad_shards(&self, threads: usize, stop: &AtomicBool) -> Vec<(usize, Error)> {
        bad_among(&self.shards, threads, stop)
    }

    /// Reads `rows` in order, after checking the blocks they lie in.
    ///
    /// # Errors
    /// `InvalidArgument` where `rows` or `out` do not fit; `ShardCorrupt`, `ShardTruncated`, `IoFailed`.
    pub fn read(&self, rows: Range<u64>, mut out: Out<'_>) -> Result<()> {
        let mut files = Files::default();
        let count = self.check_rows(&rows)?;
        let (found, expected) = match &out {
            Out::F32(values, _) => (values.len(), count * self.dim()),
            Out::Raw(bytes) => (bytes.len(), count * self.manifest.row_bytes()),
        };
        if found != expected {
            return Err(Error::InvalidArgument(format!("output of {found} for {expected} values or bytes")));
        }
        let mut scratch = Vec::new();
        let mut done = 0;
        self.each_part(rows, &mut files, |shard, part, files| {
            let n = (part.end - part.start) as usize;
            match &mut out {
                Out::Raw(bytes) => {
                    let size = self.manifest.row_bytes();
                    shard.read_activations(files, &part, &mut bytes[done * size..(done + n) * size])?;
                }
                Out::F32(values, normalize) => {
                    let dim = self.dim();
                    scratch.resize(n * self.manifest.row_bytes(), 0);
                    shard.read_activations(files, &part, &mut scratch)?;
                    let rows: Vec<*const u8> =
                        scratch.chunks_exact(self.manifest.row_bytes()).map(<[u8]>::as_ptr).collect();
                    let values = &mut values[done * dim..(done + n) * dim];
                    // SAFETY: every pointer is the start of a row of `scratch`.
                    unsafe {
                        let rows = Rows { now: &rows, ahead: &[], past_caches: false };
                        stored::gather(cpu().level, self.manifest.dtype, rows, dim, *normalize, values);
                    }
                }
            }
            done += n;
            Ok(())
        })
    }

    /// Reads the tokens of `rows`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn tokens(&self, rows: Range<u64>, out: &mut [i32]) -> Result<()> {
        let mut files = Files::default();
        if self.check_rows(&rows)? != out.len() {
            return Err(Error::InvalidArgument(format!(
                "output of {} for {} tokens",
                out.len(),
                rows.end - rows.start
            )));
        }
        let mut out = out.iter_mut();
        self.each_part(rows, &mut files, |shard, part, files| {
            let mut bytes = vec![0; (part.end - part.start) as usize * 4];
            shard.read_tokens(files, &part, &mut bytes)?;
            let tokens = bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            tokens.zip(out.by_ref()).for_each(|(token, place)| *place = token);
            Ok(())
        })
    }

    /// The number of the context of each of `rows`, in any order.
    ///
    /// # Errors
    /// As [`Self::read`]; `InvalidArgument` where the dataset does not keep them.
    pub fn contexts(&self, rows: &[i64], out: &mut [i32]) -> Result<()> {
        let invalid = |what: String| Error::InvalidArgument(format!("{}: {what}", self.folder.display()));
        if !self.manifest.contexts || rows.len() != out.len() {
            return Err(invalid("its shards hold no numbers of contexts, or the output does not fit".to_owned()));
        }
        let mut files = Files::default();
        let (mut checked, mut ready) = (None, 0..0);
        for (&row, out) in rows.iter().zip(out) {
            let row = u64::try_from(row)
                .ok()
                .filter(|&row| row < self.rows())
                .ok_or_else(|| invalid(format!("row {row} does not exist; there are {}", self.rows())))?;
            if !ready.contains(&row) {
                let block = self.blocks_of(&(row..row + 1)).start;
                let shard = self.blocks[block].0;
                if checked.replace(shard) != Some(shard) {
                    self.shards[shard as usize].check_length()?;
                }
                self.prepare(block, true, &mut files)?;
                ready = self.block(block);
            }
            let (shard, inside) = self.find(row);
            let mut bytes = [0; 4];
            shard.read_contexts(&mut files, &(inside..inside + 1), &mut bytes)?;
            *out = i32::from_le_bytes(bytes);
        }
        Ok(())
    }

    fn check_rows(&self, rows: &Range<u64>) -> Result<usize> {
        if rows.start > rows.end || rows.end > self.rows() {
            return Err(Error::InvalidArgument(format!(
                "{}: rows {} to {} do not exist; there are {}",
                self.folder.display(),
                rows.start,
                rows.end,
                self.rows()
            )));
        }
        Ok((rows.end - rows.start) as usize)
    }

    /// Calls `read` for the part of `rows` in each block, once that block is prepared.
    fn each_part(
        &self,
        rows: Range<u64>,
        files: &mut Files,
        mut read: impl FnMut(&OpenShard, Range<u64>, &mut Files) -> Result<()>,
    ) -> Result<()> {
        let mut checked = None;
        for block in self.blocks_of(&rows) {
            let (s, b) = (self.blocks[block].0 as usize, self.blocks[block].1 as usize);
            let shard = &self.shards[s];
            if checked.replace(s) != Some(s) {
                shard.check_length()?;
            }
            self.prepare(block, true, files)?;
            let (start, inside) = (self.rows.start(s), shard.block(b));
            let part = inside.start.max(rows.start.saturating_sub(start))..inside.end.min(rows.end - start);
            read(shard, part, files)?;
        }
        Ok(())
    }
}

/// Checks the dataset in `folder` as far as it can be read: (shard, what is wrong) of each shard that is missing, cannot
/// be opened, or does not fit its digests.
///
/// # Errors
/// Those of [`Manifest::load`]: without a manifest there is nothing to check against.
pub fn damage(folder: &Path, threads: usize, stop: &AtomicBool) -> Result<Vec<(usize, Error)>> {
    let manifest = Manifest::load(folder)?;
    let (mut shards, mut bad) = (Vec::new(), Vec::new());
    for index in 0..manifest.shards.len() {
        match OpenShard::open(folder, &manifest, index, Access::Pread) {
            Ok(shard) => shards.push(shard),
            Err(error) => bad.push((index, error)),
        }
    }
    bad.extend(bad_among(&shards, threads, stop));
    bad.sort_by_key(|(shard, _)| *shard);
    Ok(bad)
}

/// Digests every block of `shards` with `threads` threads: (index, first fault) of each bad one, in order.
fn bad_among(shards: &[OpenShard], threads: usize, stop: &AtomicBool) -> Vec<(usize, Error)> {
    let blocks: Vec<(usize, usize)> =
        shards.iter().enumerate().flat_map(|(s, shard)| (0..shard.blocks()).map(move |b| (s, b))).collect();
    let next = AtomicU64::new(0);
    let work = || {
        let mut files = Files::default();
        let mut bad: Vec<(usize, Error)> = Vec::new();
        while let Some(&(shard, block)) = blocks.get(next.fetch_add(1, Ordering::Relaxed) as usize)
            && !stop.load(Ordering::Relaxed)
        {
            if let Err(error) = shards[shard].verify(block, &mut files) {
                bad.push((shards[shard].index(), error));
            }
        }
        bad
    };
    let mut bad = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut bad = work();
        for thread in others {
            bad.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        bad
    });
    bad.sort_by_key(|(shard, _)| *shard);
    bad.dedup_by_key(|(shard, _)| *shard);
    bad
}
