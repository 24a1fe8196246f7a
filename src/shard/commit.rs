//! Files that appear whole or not at all: written under a temporary name, fsync, rename, fsync of the folder.
//!
//! After a crash a temporary file may be left; [`remove_leftovers`] knows their names and touches nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Name of the manifest in a dataset's folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of the lock that a writer holds.
pub const LOCK: &str = ".lock";

/// Name of shard `index`: the only names that a manifest may hold.
#[must_use]
pub fn shard_name(index: usize) -> String {
    format!("shard-{index:05}.safetensors")
}

/// Where the file called `name` is written before it is complete.
#[must_use]
pub fn temporary(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.tmp"))
}

/// Whether what is committed shall survive a power failure, or only the death of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// fsync file and folder: nothing that was committed is lost, whatever happens.
    Power,
    /// No fsync: for benchmarks, tests, and data that is cheap to make again.
    Process,
}

impl Durability {
    fn sync(self, file: &File, path: &Path) -> Result<()> {
        match self {
            Self::Power => file.sync_all().map_err(|e| Error::io(path, e)),
            Self::Process => Ok(()),
        }
    }

    /// Asks the system to begin writing these bytes of the file to the disk: a later `sync` then waits for little.
    /// A hint; without it, and where it fails, nothing is lost but time.
    pub fn begin_writing(self, file: &File, bytes: Range<u64>) {
        #[cfg(target_os = "linux")]
        if self == Self::Power {
            use std::os::fd::AsRawFd;
            let (from, length) = (bytes.start.cast_signed(), (bytes.end - bytes.start).cast_signed());
            // SAFETY: no memory is passed; the descriptor is open as long as `file`.
            unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (self, file, bytes);
    }

    fn sync_folder(self, folder: &Path) -> Result<()> {
        if self == Self::Process || cfg!(windows) {
            return Ok(());
        }
        File::open(folder).and_then(|opened| opened.sync_all()).map_err(|e| Error::io(folder, e))
    }
}

/// Creates the temporary file for `name`, in place of one that a crash left.
///
/// # Errors
/// `OutOfSpace` or `IoFailed`.
pub fn create(folder: &Path, name: &str) -> Result<File> {
    let path = temporary(folder, name);
    remove_if_there(&path)?;
    OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(|e| Error::io(&path, e))
}

/// Gives the finished temporary file its name.
///
/// # Errors
/// `OutOfSpace` or `IoFailed`; the name then holds what it held before, or the new file where the last fsync failed.
pub fn publish(folder: &Path, name: &str, file: &File, durability: Durability) -> Result<()> {
    let (from, to) = (temporary(folder, name), folder.join(name));
    faults::step("before fsync");
    durability.sync(file, &from)?;
    faults::step("before rename");
    fs::rename(&from, &to).map_err(|e| Error::io(&to, e))?;
    faults::step("before fsync of the folder");
    durability.sync_folder(folder)?;
    faults::step("after fsync of the folder");
    Ok(())
}

/// Replaces the file called `name` by one that holds `bytes`.
///
/// # Errors
/// As [`publish`]; no temporary file is left.
pub fn replace(folder: &Path, name: &str, bytes: &[u8], durability: Durability) -> Result<()> {
    let path = temporary(folder, name);
    let written = (|| {
        let mut file = create(folder, name)?;
        faults::step("before write");
        let half = bytes.len() / 2;
        file.write_all(&bytes[..half]).map_err(|e| Error::io(&path, e))?;
        faults::step("half written");
        file.write_all(&bytes[half..]).map_err(|e| Error::io(&path, e))?;
        publish(folder, name, &file, durability)
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&path);
    }
    written
}

/// Removes what a crash left in a dataset's folder: temporary files, and shards from `shards` on, which were renamed
/// before the manifest listed them. Shards that were made apart stay; see [`crate::shard::Parts`].
///
/// # Errors
/// `IoFailed`.
pub fn remove_leftovers(folder: &Path, shards: usize) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let plain = name.strip_prefix('.').and_then(|n| n.strip_suffix(".tmp"));
        let is_left = match (plain, shard_index(name)) {
            (Some(plain), _) => plain == MANIFEST || shard_index(plain).is_some(),
            (None, Some(index)) => index >= shards && !folder.join(beside(index, SIDECAR)).exists(),
            (None, None) => false,
        };
        if is_left {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// The index in the name of a shard.
#[must_use]
pub fn shard_index(name: &str) -> Option<usize> {
    let index = name.strip_prefix("shard-")?.strip_suffix(".safetensors")?.parse().ok()?;
    (shard_name(index) == name).then_some(index)
}

/// What is beside a shard that was made apart: a manifest of it alone, and the lock of who makes it.
pub const SIDECAR: &str = "json";
/// See [`SIDECAR`].
pub const SHARD_LOCK: &str = "lock";

/// The name of a file beside shard `index`.
#[must_use]
pub fn beside(index: usize, what: &str) -> String {
    format!(".shard-{index:05}.{what}")
}

/// The index of the shard that a file is beside, and what it is.
#[must_use]
pub fn is_beside(name: &str) -> Option<(usize, &'static str)> {
    let (index, what) = name.strip_prefix(".shard-")?.split_once('.')?;
    let (index, what) = (index.parse().ok()?, [SIDECAR, SHARD_LOCK].into_iter().find(|known| *known == what)?);
    (beside(index, what) == name).then_some((index, what))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, e)),
        _ => Ok(()),
    }
}

/// Points at which a test ends the process, to see what is then on disk. Empty outside `cargo test`.
pub(crate) mod faults {
    #[cfg(not(test))]
    #[inline(always)]
    pub fn step(_name: &str) {}

    /// The environment variable that a test sets for its child: the number of the step to die at.
    #[cfg(test)]
    pub const DIE_AT: &str = "SPARSECODE_TEST_DIE_AT";

    #[cfg(test)]
    pub fn step(_name: &str) {
        use std::sync::atomic::{AtomicU64, Ordering};
        static STEPS: AtomicU64 = AtomicU64::new(0);
        if let Some(die_at) = std::env::var(DIE_AT).ok().and_then(|n| n.parse::<u64>().ok())
            && STEPS.fetch_add(1, Ordering::Relaxed) == die_at
        {
            std::process::abort();
        }
    }
}
