//! How a dataset is written and read, and how far what is read is trusted.
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::shard::commit::Durability;
use crate::shard::header;
use crate::shard::manifest::{Manifest, Provenance};

fn choose<T, const N: usize>(what: &str, name: &str, options: [(&str, T); N]) -> Result<T> {
    let names = options.each_ref().map(|(name, _)| *name);
    let known = names.split_last().map_or(String::new(), |(last, first)| format!("{} or {last}", first.join(", ")));
    let found = options.into_iter().find(|(option, _)| *option == name);
    found.map(|(_, value)| value).ok_or_else(|| Error::InvalidArgument(format!("{what} must be {known}, not {name:?}")))
}

/// How bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// From a mapping: fast; a file that is truncated meanwhile can kill the process (SIGBUS).
    Mmap,
    /// With a system call per row: slower, and every failure is an error.
    Pread,
}

impl Access {
    /// By name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: no such name.
    pub fn named(name: &str) -> Result<Self> {
        choose("access", name, [("mmap", Self::Mmap), ("pread", Self::Pread)])
    }
}

/// When digests are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Each block before it is first used by this process.
    Once,
    /// Each block again whenever a stream or a read comes to it.
    Always,
    /// Headers only.
    Never,
}

impl Verify {
    /// By name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: no such name.
    pub fn named(name: &str) -> Result<Self> {
        choose("verify", name, [("once", Self::Once), ("always", Self::Always), ("never", Self::Never)])
    }
}

/// What is done with a row that holds NaN or infinities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonFinite {
    /// `append` fails and appends nothing.
    Error,
    /// The row is left out and counted.
    Drop,
}

impl NonFinite {
    /// By name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: no such name.
    pub fn named(name: &str) -> Result<Self> {
        choose("non_finite", name, [("error", Self::Error), ("drop", Self::Drop)])
    }
}

/// What a dataset is to hold, and how it is written.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// Values per row.
    pub dim: usize,
    /// Type on disk.
    pub dtype: Dtype,
    /// Whether rows come with the numbers of their contexts.
    pub contexts: bool,
    /// Where the rows come from.
    pub provenance: Provenance,
    /// Bytes of a full shard, about.
    pub shard_bytes: u64,
    /// What to do with NaN and infinities.
    pub non_finite: NonFinite,
    /// What a commit must survive.
    pub durability: Durability,
    /// Threads: 1, or 2 to write and digest at the same time. The files are the same.
    pub threads: usize,
    /// Write past the page cache, as long as the disk keeps up. The files are the same.
    pub direct: bool,
}

impl WriterSettings {
    /// The manifest of such a dataset before its first row.
    ///
    /// # Errors
    /// `InvalidArgument`: no dataset can have these.
    pub fn empty(&self) -> Result<Manifest> {
        let dim = self.dim as u64;
        if !(1..=header::MAX_DIM).contains(&dim) || self.shard_bytes == 0 {
            return Err(Error::InvalidArgument(format!("activation_dim {dim}, shard_bytes {}", self.shard_bytes)));
        }
        Ok(Manifest::new(dim, self.dtype, self.contexts, self.shard_bytes, self.provenance.clone()))
    }
}
