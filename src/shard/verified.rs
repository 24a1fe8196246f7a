//! Which blocks of which files this process has checked: each is digested once, however often it is opened.

use std::collections::HashMap;
use std::fs::Metadata;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// One flag per block of a shard.
pub type Flags = Arc<[AtomicU64]>;

/// A file as it was when it was opened; one that is replaced or written to becomes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    digest: u128,
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
}

impl Identity {
    /// From the manifest's digest of the shard and the open file's metadata.
    #[cfg(unix)]
    #[must_use]
    pub fn new(digest: u128, meta: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            digest,
            file: (meta.dev(), meta.ino()),
            bytes: meta.len(),
            modified: (meta.mtime().max(meta.ctime()), meta.mtime_nsec() ^ meta.ctime_nsec()),
        }
    }

    /// From the manifest's digest of the shard and the open file's metadata.
    #[cfg(not(unix))]
    #[must_use]
    pub fn new(digest: u128, meta: &Metadata) -> Self {
        let modified = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = modified.map_or((0, 0), |t| (t.as_secs() as i64, i64::from(t.subsec_nanos())));
        Self { digest, file: (0, 0), bytes: meta.len(), modified }
    }
}

/// A file changed this recently could change again without a new time stamp (they tick every few milliseconds, on some
/// file systems every two seconds), so what is known about it is not shared.
const RECENT_SECONDS: i64 = 3;

/// The flags of a file with `blocks` blocks, shared by everyone in this process who has it open.
#[must_use]
pub fn flags(identity: Identity, blocks: usize) -> Flags {
    static FILES: LazyLock<Mutex<HashMap<Identity, Flags>>> = LazyLock::new(Mutex::default);
    let new = || (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect::<Flags>();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_secs() as i64);
    if now - identity.modified.0 < RECENT_SECONDS {
        return new();
    }
    // try_lock: in a forked child the lock may have been held by a thread that is not there. Fresh flags are always right.
    match FILES.try_lock() {
        Ok(mut files) => Arc::clone(files.entry(identity).or_insert_with(new)),
        Err(std::sync::TryLockError::Poisoned(poisoned)) => {
            Arc::clone(PoisonError::into_inner(poisoned).entry(identity).or_insert_with(new))
        }
        Err(std::sync::TryLockError::WouldBlock) => new(),
    }
}

/// Whether block `block` has been checked.
#[must_use]
pub fn is_set(flags: &Flags, block: usize) -> bool {
    flags[block / 64].load(Ordering::Relaxed) & (1 << (block % 64)) != 0
}

/// Notes that block `block` has been checked and is right.
pub fn set(flags: &Flags, block: usize) {
    flags[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
}
