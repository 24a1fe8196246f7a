//! Shards that are made apart, by several processes at once and in any order, and how they become one dataset.
//!
//! Each shard has a sidecar, the manifest of a dataset of it alone, which is written after it. Whoever finds them all
//! writes the manifest of all, with the bytes that one writer would have written, and removes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::lock::FileLock;
use crate::shard::commit::{self, SHARD_LOCK, SIDECAR, beside, is_beside};
use crate::shard::manifest::Manifest;
use crate::shard::settings::WriterSettings;
use crate::shard::writer::{DatasetWriter, begun, check_sizes, remove_lock, same_settings};

/// A dataset whose shards are made apart.
pub struct Parts {
    folder: PathBuf,
    settings: WriterSettings,
    /// The manifest without shards.
    empty: Manifest,
}

impl Parts {
    /// Opens the dataset in `folder`: a new one, or one that was begun with the same settings, by parts or as a whole.
    /// With `shard_rows`, shards have so many rows, whatever their bytes.
    ///
    /// # Errors
    /// Those of [`DatasetWriter::open`] but `RunLocked`.
    pub fn open(folder: &Path, settings: WriterSettings, shard_rows: Option<u64>) -> Result<Self> {
        let mut empty = settings.empty()?;
        if let Some(rows) = shard_rows {
            empty = empty.with_shard_rows(rows);
        }
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        match Manifest::load(folder) {
            Ok(old) if old.complete => same_settings(folder, &old, &empty)?,
            _ => {
                let _lock = FileLock::wait(&folder.join(commit::LOCK))?;
                begun(folder, empty.clone(), settings.durability)?;
            }
        }
        Ok(Self { folder: folder.into(), settings, empty })
    }

    /// Rows of every shard but the last.
    #[must_use]
    pub fn shard_rows(&self) -> u64 {
        self.empty.shard_rows
    }

    /// The shards that are there: place and rows of each, and whether these are all.
    ///
    /// # Errors
    /// `SettingsDiffer`, `ShardMissing`, `ShardTruncated`, `IoFailed`, and those of [`Manifest::load`].
    pub fn there(&self) -> Result<(BTreeMap<usize, u64>, bool)> {
        let manifest = Manifest::load(&self.folder)?;
        let mut found: BTreeMap<_, _> = manifest.shards.iter().map(|shard| shard.rows).enumerate().collect();
        if !manifest.complete {
            for entry in fs::read_dir(&self.folder).map_err(|e| Error::io(&self.folder, e))? {
                let name = entry.map_err(|e| Error::io(&self.folder, e))?.file_name();
                if let Some((place, SIDECAR)) = is_beside(&name.to_string_lossy())
                    && let Some(part) = self.sidecar(place)?
                {
                    found.insert(place, part.rows());
                }
            }
        }
        Ok((found, manifest.complete))
    }

    /// Opens the shard at `place`, for its rows and `finish`.
    ///
    /// # Errors
    /// `RunLocked`: another process makes it; `IoFailed`.
    pub fn writer(&self, place: usize) -> Result<DatasetWriter> {
        let lock = FileLock::acquire(&self.folder.join(beside(place, SHARD_LOCK)))?;
        let manifest = Manifest { first: place, ..self.empty.clone() };
        let name = beside(place, SIDECAR);
        Ok(DatasetWriter::with(&self.folder, self.settings.clone(), manifest, name, Some(lock)))
    }

    /// Lists the shards that are there in the manifest, and completes the dataset where they are all `shards` of it.
    /// Before that the manifest is only written when twice as many follow each other without a gap.
    ///
    /// # Errors
    /// `OutOfSpace`, `IoFailed`, and those of [`Self::there`].
    pub fn gather(&self, shards: usize, left_out: &BTreeMap<String, u64>) -> Result<bool> {
        let _lock = FileLock::wait(&self.folder.join(commit::LOCK))?;
        let mut manifest = Manifest::load(&self.folder)?;
        let before = manifest.shards.len();
        while !manifest.complete && manifest.shards.len() < shards {
            let place = manifest.shards.len();
            let Some(part) = self.sidecar(place)? else { break };
            if part.rows() < self.empty.shard_rows && place + 1 < shards {
                break;
            }
            manifest.shards.extend(part.shards);
            manifest.moments.merge(&part.moments);
            manifest.non_finite += part.non_finite;
        }
        let listed = manifest.shards.len();
        if !manifest.complete && listed == shards {
            manifest.complete = true;
            manifest.left_out.clone_from(left_out);
        }
        if manifest.complete || (listed > before && listed >= 2 * before) {
            manifest.save(&self.folder, self.settings.durability)?;
        }
        if manifest.complete {
            self.remove_sidecars()?;
            remove_lock(&self.folder);
        }
        Ok(manifest.complete)
    }

    /// What is beside the shard at `place`, if that was made.
    fn sidecar(&self, place: usize) -> Result<Option<Manifest>> {
        match Manifest::load_from(&self.folder, &beside(place, SIDECAR), place) {
            Ok(part) => {
                same_settings(&self.folder, &part, &self.empty)?;
                check_sizes(&self.folder, &part)?;
                Ok((part.shards.len() == 1).then_some(part))
            }
            Err(Error::DatasetMissing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes what was beside the shards, and what killed processes left.
    fn remove_sidecars(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder).map_err(|e| Error::io(&self.folder, e))? {
            let entry = entry.map_err(|e| Error::io(&self.folder, e))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let plain = name.strip_suffix(".tmp").map(|name| name.trim_start_matches('.'));
            let temporary = plain
                .is_some_and(|name| commit::shard_index(name).is_some() || is_beside(&format!(".{name}")).is_some());
            if temporary || is_beside(&name).is_some() {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}
