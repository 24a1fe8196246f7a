//! How a dataset is read, and how far what is read is trusted.

/// How bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// From a mapping: fast; a file that is truncated meanwhile can kill the process (SIGBUS).
    Mmap,
    /// With a system call per row: slower, and every failure is an error.
    Pread,
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
