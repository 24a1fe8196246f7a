//! Writing a dataset, shard by shard. What is complete on disk stays; a writer that is opened again goes on after it.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cpu::cpu;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::lock::FileLock;
use crate::shard::commit::{self, Durability, MANIFEST};
use crate::shard::contents::Marks;
use crate::shard::direct::Buffers;
use crate::shard::growing::{GrowingShard, PARALLEL_BYTES};
use crate::shard::manifest::{Manifest, Provenance};
use crate::shard::settings::{NonFinite, WriterSettings};
use crate::stored;

/// The only writer of a dataset.
pub struct DatasetWriter {
    folder: PathBuf,
    settings: WriterSettings,
    manifest: Manifest,
    shard: Option<GrowingShard>,
    /// Rows dropped since the last complete shard.
    dropped: u64,
    left_out: BTreeMap<String, u64>,
    converted: Vec<u8>,
    buffers: Buffers,
    failed: bool,
    process: u32,
    /// Under which name the manifest is kept.
    name: String,
    _lock: Option<FileLock>,
}

impl DatasetWriter {
    /// Opens the dataset in `folder` for writing: a new one, or one that was begun with the same settings.
    ///
    /// # Errors
    /// `RunLocked`, `SettingsDiffer`, `InvalidArgument`, `ManifestInvalid` (shards without a manifest), `OutOfSpace`,
    /// `IoFailed`, and those of [`Manifest::load`].
    pub fn open(folder: &Path, settings: WriterSettings) -> Result<Self> {
        let fresh = settings.empty()?;
        if let Ok(old) = Manifest::load(folder)
            && old.complete
        {
            same_settings(folder, &old, &fresh)?;
            return Ok(Self::with(folder, settings, old, MANIFEST.to_owned(), None));
        }
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let lock = FileLock::acquire(&folder.join(commit::LOCK))?;
        let manifest = begun(folder, fresh, settings.durability)?;
        commit::remove_leftovers(folder, manifest.shards.len())?;
        Ok(Self::with(folder, settings, manifest, MANIFEST.to_owned(), Some(lock)))
    }

    /// Goes on with `manifest`, which is kept as `name`.
    pub(super) fn with(
        folder: &Path,
        settings: WriterSettings,
        manifest: Manifest,
        name: String,
        lock: Option<FileLock>,
    ) -> Self {
        if manifest.complete {
            remove_lock(folder);
        }
        Self {
            folder: folder.to_path_buf(),
            settings,
            manifest,
            shard: None,
            dropped: 0,
            left_out: BTreeMap::new(),
            converted: Vec::new(),
            buffers: Buffers::default(),
            failed: false,
            process: std::process::id(),
            name,
            _lock: lock,
        }
    }

    /// Rows in complete shards: where to go on after an interruption.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.manifest.rows()
    }

    /// Rows passed to `append` up to the last complete shard: `rows` and those that were dropped before it.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.rows() + self.manifest.non_finite
    }

    /// Whether the dataset was complete when it was opened, or is since `finish`.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.manifest.complete
    }

    /// Appends rows: `data` holds `marks.len()` rows of `dtype`, little-endian.
    ///
    /// # Errors
    /// `NonFiniteActivation` (nothing is appended, the writer goes on); `DatasetComplete`, `InvalidArgument`;
    /// `OutOfSpace`, `IoFailed` (what was not in a complete shard is lost, the writer is closed).
    pub fn append(&mut self, data: &[u8], dtype: Dtype, marks: Marks<'_>) -> Result<()> {
        self.check_open()?;
        let numbered = if self.settings.contexts { marks.len() } else { 0 };
        if marks.contexts.len() != numbered {
            return Err(Error::InvalidArgument(format!(
                "{}: {} numbers of contexts for {} rows, not {numbered}",
                self.folder.display(),
                marks.contexts.len(),
                marks.len()
            )));
        }
        let values = marks.len() * self.settings.dim;
        if data.len() != values * dtype.size() {
            return Err(Error::InvalidArgument(format!(
                "{} bytes of {} are not {} rows of {}",
                data.len(),
                dtype.name(),
                marks.len(),
                self.settings.dim
            )));
        }
        if let Some(done) = self.append_at_once(data, dtype, marks)? {
            return Ok(done);
        }
        let mut converted = std::mem::take(&mut self.converted);
        let stored = if dtype == self.settings.dtype {
            data
        } else {
            converted.resize(values * self.settings.dtype.size(), 0);
            stored::convert(cpu().level, (dtype, data), (self.settings.dtype, &mut converted));
            &converted
        };
        let result = self.append_stored(stored, (data, dtype), marks);
        self.converted = converted;
        result
    }

    /// Appends a large batch that the current shard takes whole, each value touched once: checked for NaN and infinities
    /// on its way. None where the batch is another one, or has such rows; then nothing was appended.
    fn append_at_once(&mut self, data: &[u8], dtype: Dtype, marks: Marks<'_>) -> Result<Option<()>> {
        let here = self.shard.as_ref().map_or(0, GrowingShard::rows);
        if data.len() < PARALLEL_BYTES || here + marks.len() as u64 > self.manifest.shard_rows {
            return Ok(None);
        }
        let result = self.append_to_shard(data, dtype, marks);
        match result {
            Ok(true) => Ok(Some(())),
            Ok(false) => Ok(None),
            Err(_) => self.fail(result).map(|()| None),
        }
    }

    /// Appends rows to the current shard, which is completed where it is full; false where one is not finite.
    fn append_to_shard(&mut self, data: &[u8], dtype: Dtype, marks: Marks<'_>) -> Result<bool> {
        let shard = match &mut self.shard {
            Some(shard) => shard,
            none => none.insert({
                let direct = self.settings.direct.then_some(&self.buffers);
                GrowingShard::create(&self.folder, &self.manifest, self.settings.durability, direct)?
            }),
        };
        let finite = shard.append(data, dtype, marks, self.settings.threads)?;
        if shard.rows() == self.manifest.shard_rows {
            self.commit(false)?;
        }
        Ok(finite)
    }

    fn append_stored(&mut self, stored: &[u8], given: (&[u8], Dtype), marks: Marks<'_>) -> Result<()> {
        let row_bytes = self.manifest.row_bytes();
        let Some(first) = stored::first_non_finite(cpu().level, self.settings.dtype, stored) else {
            return self.write(stored, marks);
        };
        if self.settings.non_finite == NonFinite::Error {
            return Err(self.non_finite_error(first, given));
        }
        let mut kept = Vec::with_capacity(stored.len());
        let (mut tokens, mut contexts) = (Vec::with_capacity(marks.len()), Vec::with_capacity(marks.contexts.len()));
        let here = self.shard.as_ref().map_or(0, GrowingShard::rows);
        let mut room = self.manifest.shard_rows - here;
        for (i, row) in stored.chunks_exact(row_bytes).enumerate() {
            if stored::first_non_finite(cpu().level, self.settings.dtype, row).is_some() {
                self.dropped += 1;
                continue;
            }
            kept.extend_from_slice(row);
            tokens.push(marks.tokens[i]);
            contexts.extend(marks.contexts.get(i));
            // A shard that is full is completed before rows behind it are counted: `consumed` is where it ends.
            if tokens.len() as u64 == room {
                self.write(&kept, Marks { tokens: &tokens, contexts: &contexts })?;
                kept.clear();
                tokens.clear();
                contexts.clear();
                room = self.manifest.shard_rows;
            }
        }
        self.write(&kept, Marks { tokens: &tokens, contexts: &contexts })
    }

    fn non_finite_error(&self, value: usize, (data, dtype): (&[u8], Dtype)) -> Error {
        let bytes = &data[value * dtype.size()..(value + 1) * dtype.size()];
        let mut given = [0.0];
        stored::widen(cpu().level, dtype, bytes, &mut given);
        let what = if given[0].is_finite() {
            format!("{:e} is too large for {}; store as bfloat16 or float32", given[0], self.settings.dtype.name())
        } else {
            format!("the activation of dimension {} is {}", value % self.settings.dim, given[0])
        };
        let here = self.shard.as_ref().map_or(0, GrowingShard::rows);
        let before = self.manifest.first as u64 * self.manifest.shard_rows + self.rows() + here;
        let row = before + (value / self.settings.dim) as u64;
        let path = self.folder.clone();
        Error::NonFiniteActivation { path, shard: (row / self.manifest.shard_rows) as usize, row, what }
    }

    fn write(&mut self, mut data: &[u8], mut marks: Marks<'_>) -> Result<()> {
        let row_bytes = self.manifest.row_bytes();
        while !marks.is_empty() {
            let result = self.write_some(data, marks);
            let Ok(rows) = result else { return self.fail(result) };
            data = &data[rows * row_bytes..];
            marks = marks.split_at(rows).1;
        }
        Ok(())
    }

    /// Writes as many rows as the current shard takes; returns their number.
    fn write_some(&mut self, data: &[u8], marks: Marks<'_>) -> Result<usize> {
        let here = self.shard.as_ref().map_or(0, GrowingShard::rows);
        let rows = marks.len().min((self.manifest.shard_rows - here) as usize);
        let now = marks.split_at(rows).0;
        self.append_to_shard(&data[..rows * self.manifest.row_bytes()], self.settings.dtype, now)?;
        Ok(rows)
    }

    /// Makes the rows so far a complete shard, then lists it; `last` marks the dataset complete with it.
    fn commit(&mut self, last: bool) -> Result<()> {
        let mut next = self.manifest.clone();
        if let Some(shard) = self.shard.take() {
            // A disk that is waited for may as well have the page cache between.
            self.settings.direct &= shard.direct_keeps_up();
            let (entry, moments) = shard.publish(&self.folder)?;
            next.shards.push(entry);
            next.moments.merge(&moments);
        } else if !last {
            return Ok(());
        }
        next.complete = last;
        if last {
            next.left_out.clone_from(&self.left_out);
        }
        next.non_finite += std::mem::take(&mut self.dropped);
        next.save_as(&self.folder, &self.name, self.settings.durability)?;
        self.manifest = next;
        Ok(())
    }

    /// Counts rows that were dropped for NaN or infinities before they came here.
    pub fn count_dropped(&mut self, rows: u64) {
        self.dropped += rows;
    }

    /// Notes how many rows, by the reason, were left out of all: instead of what was noted before, written by [`Self::finish`].
    pub fn note_left_out(&mut self, counts: BTreeMap<String, u64>) {
        self.left_out = counts;
    }

    /// Writes the last shard and marks the dataset complete. Does nothing where it is complete already.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`, `InvalidArgument` after a failure.
    pub fn finish(&mut self) -> Result<()> {
        if self.manifest.complete {
            return Ok(());
        }
        self.check_open()?;
        let result = self.commit(true);
        if result.is_err() {
            return self.fail(result);
        }
        if self.name == MANIFEST {
            remove_lock(&self.folder);
        }
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        if self.manifest.complete {
            return Err(Error::DatasetComplete(self.folder.clone()));
        }
        if self.failed || self.process != std::process::id() {
            return Err(Error::InvalidArgument(format!(
                "{}: this writer is closed after a failure or a fork; open it again, it goes on after row {}",
                self.folder.display(),
                self.rows()
            )));
        }
        Ok(())
    }

    fn fail<T>(&mut self, result: Result<T>) -> Result<()> {
        self.failed = true;
        self.shard = None;
        // The files that are not listed take room that the next attempt needs. The first error is the one to report.
        self.remove_unlisted();
        result.map(|_| ())
    }

    /// Removes what the manifest on disk does not list: a commit that failed at its last fsync has replaced it already.
    /// Where it cannot be read now, all shards stay, for the next writer to decide.
    fn remove_unlisted(&self) {
        if self.name != MANIFEST {
            let _ = std::fs::remove_file(commit::temporary(&self.folder, &commit::shard_name(self.manifest.first)));
            return;
        }
        let listed = Manifest::load(&self.folder).map_or(usize::MAX, |manifest| manifest.shards.len());
        let _ = commit::remove_leftovers(&self.folder, listed);
    }
}

impl Drop for DatasetWriter {
    fn drop(&mut self) {
        // A child made by fork holds a copy; the files belong to the parent.
        if self.process == std::process::id() && !self.manifest.complete {
            self.shard = None;
            self.remove_unlisted();
        }
    }
}

/// The manifest of the dataset in `folder`: the one there, or a first one like `fresh`.
///
/// # Errors
/// Those of [`DatasetWriter::open`].
pub(super) fn begun(folder: &Path, fresh: Manifest, durability: Durability) -> Result<Manifest> {
    match Manifest::load(folder) {
        Ok(old) => {
            same_settings(folder, &old, &fresh)?;
            check_sizes(folder, &old)?;
            Ok(old)
        }
        Err(Error::DatasetMissing(_)) => {
            refuse_foreign_shards(folder)?;
            fresh.save(folder, durability)?;
            Ok(fresh)
        }
        Err(error) => Err(error),
    }
}

/// Nobody writes to a complete dataset, so nobody needs its lock; one who holds it already finds the dataset complete.
/// Left where the folder is read-only.
pub(super) fn remove_lock(folder: &Path) {
    let _ = std::fs::remove_file(folder.join(commit::LOCK));
}

pub(super) fn same_settings(folder: &Path, old: &Manifest, new: &Manifest) -> Result<()> {
    let mut differences = Vec::new();
    let mut compare = |name: &str, old: String, new: String| {
        if old != new {
            differences.push(format!("{name} {old:.60}, not {new:.60}"));
        }
    };
    compare("activation_dim", old.dim.to_string(), new.dim.to_string());
    compare("dtype", old.dtype.name().into(), new.dtype.name().into());
    compare("numbers of contexts", old.contexts.to_string(), new.contexts.to_string());
    compare("rows per shard", old.shard_rows.to_string(), new.shard_rows.to_string());
    let names: std::collections::BTreeSet<_> = old.provenance.keys().chain(new.provenance.keys()).collect();
    for name in names {
        let text = |p: &Provenance| p.get(name).map_or("nothing".to_owned(), ToString::to_string);
        compare(name, text(&old.provenance), text(&new.provenance));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::SettingsDiffer { path: folder.into(), differences: differences.join("; ") })
}

/// Before rows are added to a dataset, those it has must be there.
pub(super) fn check_sizes(folder: &Path, manifest: &Manifest) -> Result<()> {
    for (index, shard) in manifest.shards.iter().enumerate() {
        let path = folder.join(commit::shard_name(manifest.first + index));
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.len() < shard.bytes => {
                return Err(Error::ShardTruncated { path, expected: shard.bytes, found: meta.len() });
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Error::ShardMissing(path)),
            Err(e) => return Err(Error::io(&path, e)),
        }
    }
    Ok(())
}

/// A writer puts the manifest first, so shards without one are somebody else's, or a manifest was lost: not ours to delete.
fn refuse_foreign_shards(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let name = entry.map_err(|e| Error::io(folder, e))?.file_name();
        if commit::shard_index(&name.to_string_lossy()).is_some() {
            let what = format!("the folder holds {} but no manifest; choose another folder", name.to_string_lossy());
            return Err(Error::ManifestInvalid { path: folder.into(), what });
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::shard::{Access, Dataset, Verify};

    #[test]
    fn a_commit_that_fails_once_the_manifest_has_its_name_loses_no_listed_shard() {
        let dir = tempfile::tempdir().unwrap();
        let settings = WriterSettings {
            dim: 1,
            dtype: Dtype::F16,
            contexts: false,
            provenance: Provenance::new(),
            shard_bytes: 4 * 6,
            non_finite: NonFinite::Error,
            durability: Durability::Power,
            threads: 1,
            direct: false,
        };
        let mut writer = DatasetWriter::open(dir.path(), settings).unwrap();
        let before = writer.manifest.clone();
        writer.append(&[0; 8], Dtype::F16, Marks { tokens: &[0; 4], contexts: &[] }).unwrap();
        assert_eq!(writer.rows(), 4);
        // As where only the fsync of the folder failed, after the new manifest was renamed.
        writer.manifest = before;
        let failed = Err::<(), _>(Error::io(dir.path(), std::io::ErrorKind::Other.into()));
        assert!(writer.fail(failed).is_err());
        drop(writer);
        assert_eq!(Dataset::open(dir.path(), Access::Pread, Verify::Once).unwrap().rows(), 4);
    }
}
