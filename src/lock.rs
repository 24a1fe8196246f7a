//! An advisory lock on a file: one writer at a time; the operating system frees it when its holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// Holds an exclusive lock until it is dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Locks `path`, creating it where missing.
    ///
    /// # Errors
    /// [`Error::RunLocked`] if another process holds it, [`Error::IoFailed`] if it cannot be opened.
    pub fn acquire(path: &Path) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(|e| Error::io(path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::RunLocked(path.to_path_buf())),
            Err(TryLockError::Error(e)) => Err(Error::io(path, e)),
        }
    }

    /// Locks `path`, waiting for as long as another process holds it: for moments, such as rewriting a small file.
    ///
    /// # Errors
    /// [`Error::IoFailed`] if it cannot be opened or locked.
    pub fn wait(path: &Path) -> Result<Self> {
        let file = open(path)?;
        file.lock().map_err(|e| Error::io(path, e))?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(|e| Error::io(path, e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn second_holder_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::acquire(&path).unwrap();
        assert!(matches!(FileLock::acquire(&path), Err(Error::RunLocked(_))));
        drop(first);
        FileLock::acquire(&path).unwrap();
    }
}
