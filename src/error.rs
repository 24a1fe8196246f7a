//! One variant per way to fail. The Python side has one exception class of the same name for each (`errors.py`).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Everything that can go wrong in the core. Each message says what happened and where; the Python side adds what to do on a command line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process holds the lock of a file that only one may write.
    #[error("{}: another process is writing here; wait for it to finish", .0.display())]
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

    /// A file name in a manifest would leave its folder, or is not the name that its place asks for.
    #[error("{}: the file name {name:?} is not allowed here ({why}); the dataset was not written by sparsecode", path.display())]
    InvalidName {
        /// The manifest or folder.
        path: PathBuf,
        /// The name found.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },

    // The activation store.
    /// There is no dataset in this folder.
    #[error("{}: no dataset here (no manifest.json)", .0.display())]
    DatasetMissing(PathBuf),

    /// A dataset that is complete cannot be written to.
    #[error("{}: the dataset is complete; choose another folder, or delete this one to write it again", .0.display())]
    DatasetComplete(PathBuf),

    /// A dataset was begun with other settings.
    #[error("{}: begun with {differences}; use the same settings, or choose another folder", path.display())]
    SettingsDiffer {
        /// The dataset.
        path: PathBuf,
        /// Name, old and new value of each difference.
        differences: String,
    },

    /// Written by a later version in a format that this one does not know.
    #[error("{}: format {found} is newer than this version reads ({known}); update sparsecode", path.display())]
    FormatTooNew {
        /// The manifest.
        path: PathBuf,
        /// Its format number.
        found: u64,
        /// The newest format that this version reads.
        known: u64,
    },

    /// The manifest's digest is right, but its contents contradict each other.
    #[error("{}: {what}; the manifest was not written by sparsecode", path.display())]
    ManifestInvalid {
        /// The manifest.
        path: PathBuf,
        /// The contradiction.
        what: String,
    },

    /// A shard that the manifest lists is not there.
    #[error("{}: the shard is missing; restore it from a copy, or harvest again", .0.display())]
    ShardMissing(PathBuf),

    /// A shard is shorter than it must be.
    #[error("{}: truncated: {found} of {expected} bytes; restore it from a copy, or harvest again", path.display())]
    ShardTruncated {
        /// The shard.
        path: PathBuf,
        /// Bytes that should be there.
        expected: u64,
        /// Bytes that are.
        found: u64,
    },

    /// A shard's or the manifest's bytes are not the ones that were written.
    #[error("{}: {what}; restore it from a copy, or harvest again", path.display())]
    ShardCorrupt {
        /// The file.
        path: PathBuf,
        /// Which check failed.
        what: String,
    },

    /// A shard's header is not one that sparsecode writes.
    #[error("{}: header: {fault}; the file is damaged or not an activation shard", path.display())]
    HeaderInvalid {
        /// The shard.
        path: PathBuf,
        /// What is wrong.
        fault: HeaderFault,
    },

    /// An activation is NaN or infinite.
    #[error(
        "{}: shard {shard}, row {row}: {what}; find out why the model gave it, or pass non_finite=\"drop\"",
        path.display()
    )]
    NonFiniteActivation {
        /// The dataset.
        path: PathBuf,
        /// Index of the shard that was being written.
        shard: usize,
        /// Row of the dataset that it would have been.
        row: u64,
        /// NaN or infinity, or a value too large for the type on disk.
        what: String,
    },
}

/// The ways a header can be wrong: one Python exception class each, under `HeaderInvalid`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// Zero, or more than the limit.
    #[error("length {found} is not between 2 and {limit} bytes")]
    Length {
        /// As the file says.
        found: u64,
        /// The largest length accepted.
        limit: u64,
    },
    /// Not UTF-8.
    #[error("not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    /// Not JSON, or not a JSON object.
    #[error("not a JSON object ({0})")]
    NotJson(String),
    /// One key twice in an object.
    #[error("key {0:?} stands twice")]
    DuplicateKey(String),
    /// Objects within objects beyond the limit.
    #[error("nested more than {0} levels deep")]
    TooDeep(usize),
    /// A number below zero.
    #[error("{0} is negative")]
    Negative(String),
    /// A number, or a product of numbers, beyond 64 bits.
    #[error("{0} overflows 64 bits")]
    Overflow(String),
    /// A dtype that the store does not know.
    #[error("{tensor}: dtype {dtype:?} is not one of {known}")]
    Dtype {
        /// Name of the tensor.
        tensor: String,
        /// As the header says.
        dtype: String,
        /// What it may be.
        known: &'static str,
    },
    /// Shapes that do not fit the tensors of a shard, or offsets that do not fit the shape.
    #[error("{0}")]
    Shape(String),
    /// A tensor is missing, or one too many is there.
    #[error("{0}")]
    Tensors(String),
    /// Two tensors share bytes.
    #[error("{0:?} overlaps the tensor before it")]
    Overlap(String),
    /// Bytes between tensors that belong to none.
    #[error("bytes before {0:?} belong to no tensor")]
    Hole(String),
}

impl HeaderFault {
    /// Name of the Python exception class in `sparsecode.errors`.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Length { .. } => "HeaderLength",
            Self::NotUtf8(_) => "HeaderNotUtf8",
            Self::NotJson(_) => "HeaderNotJson",
            Self::DuplicateKey(_) => "HeaderDuplicateKey",
            Self::TooDeep(_) => "HeaderTooDeep",
            Self::Negative(_) => "HeaderNegative",
            Self::Overflow(_) => "HeaderOverflow",
            Self::Dtype { .. } => "HeaderDtype",
            Self::Shape(_) => "HeaderShape",
            Self::Tensors(_) => "HeaderTensors",
            Self::Overlap(_) => "HeaderOverlap",
            Self::Hole(_) => "HeaderHole",
        }
    }
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
            Self::InvalidName { .. } => "InvalidName",
            Self::DatasetMissing(_) => "DatasetMissing",
            Self::DatasetComplete(_) => "DatasetComplete",
            Self::SettingsDiffer { .. } => "SettingsDiffer",
            Self::FormatTooNew { .. } => "FormatTooNew",
            Self::ManifestInvalid { .. } => "ManifestInvalid",
            Self::ShardMissing(_) => "ShardMissing",
            Self::ShardTruncated { .. } => "ShardTruncated",
            Self::ShardCorrupt { .. } => "ShardCorrupt",
            Self::HeaderInvalid { fault, .. } => fault.class(),
            Self::NonFiniteActivation { .. } => "NonFiniteActivation",
        }
    }

    /// Wraps an operating-system error met at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        // By kind: the numbers differ between systems.
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Self::OutOfSpace(path),
            _ => Self::IoFailed { path, source },
        }
    }
}
