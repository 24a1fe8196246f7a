//! One variant per way to fail. The Python side has one exception class of the same name for each (`errors.py`).

use std::path::{Path, PathBuf};

/// Everything that can go wrong in the core. Each message says what happened, where, and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process holds the lock of a file that only one may write.
    #[error("{}: another process is writing here; wait for it to finish, or choose another run with --run", .0.display())]
    RunLocked(PathBuf),

    /// The disk is full (or a quota, or the file size limit, is reached).
    #[error("{}: no space left on the device; free some and run the same command again, it resumes", .0.display())]
    OutOfSpace(PathBuf),

    /// Any other failure of the operating system.
    #[error("{}: {source}", path.display())]
    IoFailed {
        /// What was being read or written.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },

    /// A size, shape or value that a caller passed does not fit; the message names it.
    #[error("{0}")]
    InvalidArgument(String),
}

/// `Result` with the core's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Name of the Python exception class in `sparsecode.errors`.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::RunLocked(_) => "RunLocked",
            Self::OutOfSpace(_) => "OutOfSpace",
            Self::IoFailed { .. } => "IoFailed",
            Self::InvalidArgument(_) => "InvalidArgument",
        }
    }

    /// Wraps an operating-system error met at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Self::OutOfSpace(path),
            _ => Self::IoFailed { path, source },
        }
    }
}
