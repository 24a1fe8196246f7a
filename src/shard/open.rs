//! One shard of a dataset, open for reading: its header checked, its blocks checked when they are first read.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, HeaderFault, Result};
use crate::shard::commit;
use crate::shard::digest::{BlockDigest, shard_digest};
use crate::shard::header::{self, Header};
use crate::shard::manifest::{Manifest, ShardEntry};
use crate::shard::settings::Access;
use crate::shard::verified::{self, Flags, Identity};

/// An open shard.
pub struct OpenShard {
    path: PathBuf,
    index: usize,
    header: Header,
    block_rows: u64,
    row_bytes: usize,
    blocks: Vec<u64>,
    flags: Flags,
    map: Option<Mmap>,
}

impl OpenShard {
    /// Opens shard `index` of the dataset in `folder`.
    ///
    /// # Errors
    /// `ShardMissing`, `ShardTruncated`, `ShardCorrupt` (length, header or the list of block digests), `InvalidName`
    /// (a symbolic link), `HeaderInvalid`, `IoFailed`.
    pub fn open(folder: &Path, manifest: &Manifest, index: usize, access: Access) -> Result<Self> {
        let entry = &manifest.shards[index];
        let name = commit::shard_name(index);
        let path = folder.join(&name);
        let file = open_file(&path)?;
        let meta = file.metadata().map_err(|e| Error::io(&path, e))?;
        check_length(&path, entry, meta.len())?;
        let data = entry.rows * (manifest.row_bytes() as u64 + manifest.numbers_bytes());
        let mut head = vec![0; (entry.bytes - data) as usize];
        read_exact_at(&file, &path, &mut head, 0, entry.bytes)?;
        let corrupt = |what: &str| Error::ShardCorrupt { path: path.clone(), what: what.to_owned() };
        if shard_digest(&name, index as u64, entry.bytes, &head, &entry.blocks) != entry.digest {
            return Err(corrupt("its header does not fit the digest in the manifest"));
        }
        let header = parse_head(&head).map_err(|fault| Error::HeaderInvalid { path: path.clone(), fault })?;
        let expected = (entry.rows, manifest.dim, manifest.dtype, entry.bytes);
        let found = (header.rows, header.dim, header.dtype, header.file_bytes);
        if found != expected || header.contexts_at.is_some() != manifest.contexts {
            return Err(corrupt("its header does not describe what the manifest lists"));
        }
        let map = match access {
            // SAFETY: the file is only ever written under another name; if something else truncates it, reading what
            // was cut off raises SIGBUS, which `check_length` makes unlikely and docs/reliability.md describes.
            Access::Mmap => Some(unsafe { Mmap::map(&file) }.map_err(|e| Error::io(&path, e))?),
            Access::Pread => None,
        };
        Ok(Self {
            flags: verified::flags(Identity::new(entry.digest, &meta), entry.blocks.len()),
            path,
            index,
            header,
            block_rows: manifest.block_rows,
            row_bytes: manifest.row_bytes(),
            blocks: entry.blocks.clone(),
            map,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its place in the dataset.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.header.rows
    }

    /// Number of blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The rows of block `block`.
    #[must_use]
    pub fn block(&self, block: usize) -> Range<u64> {
        let start = block as u64 * self.block_rows;
        start..self.rows().min(start + self.block_rows)
    }

    /// The first activation in memory, where the shard is mapped.
    #[must_use]
    pub fn activations(&self) -> Option<*const u8> {
        self.map.as_ref().map(|map| map[self.header.activations_at as usize..].as_ptr())
    }

    /// Whether the file is still as long as it was.
    ///
    /// # Errors
    /// `ShardTruncated`. A file that was removed or replaced is no error: the mapping keeps the old one.
    pub fn check_length(&self) -> Result<()> {
        match fs::metadata(&self.path) {
            Ok(meta) if meta.len() < self.header.file_bytes => Err(self.truncated(meta.len())),
            _ => Ok(()),
        }
    }

    /// Reads the activations of `rows` into `out`.
    ///
    /// # Errors
    /// `ShardTruncated`, `IoFailed`.
    pub fn read_activations(&self, files: &mut Files, rows: &Range<u64>, out: &mut [u8]) -> Result<()> {
        let at = self.header.activations_at + rows.start * self.row_bytes as u64;
        self.read(files, at, out)
    }

    /// Reads the tokens of `rows` (little-endian int32) into `out`.
    ///
    /// # Errors
    /// `ShardTruncated`, `IoFailed`.
    pub fn read_tokens(&self, files: &mut Files, rows: &Range<u64>, out: &mut [u8]) -> Result<()> {
        self.read(files, self.header.tokens_at + rows.start * 4, out)
    }

    /// Reads the numbers of the contexts of `rows` (little-endian int32) into `out`, which stays as it is where the shard
    /// has none.
    ///
    /// # Errors
    /// `ShardTruncated`, `IoFailed`.
    pub fn read_contexts(&self, files: &mut Files, rows: &Range<u64>, out: &mut [u8]) -> Result<()> {
        let Some(contexts_at) = self.header.contexts_at else { return Ok(()) };
        self.read(files, contexts_at + rows.start * 4, out)
    }

    /// Where each tensor begins in the file, and the bytes of a row of it, in the order in which they are digested.
    fn tensors(&self) -> impl Iterator<Item = (u64, usize)> {
        let all = [
            Some((self.header.activations_at, self.row_bytes)),
            Some((self.header.tokens_at, 4)),
            self.header.contexts_at.map(|at| (at, 4)),
        ];
        all.into_iter().flatten()
    }

    fn read(&self, files: &mut Files, at: u64, out: &mut [u8]) -> Result<()> {
        if let Some(map) = &self.map {
            out.copy_from_slice(&map[at as usize..at as usize + out.len()]);
            return Ok(());
        }
        let file = files.get(self)?;
        read_exact_at(file, &self.path, out, at, self.header.file_bytes)
    }

    /// Asks the system to have block `block` in memory soon (`wait` = false) or now.
    ///
    /// # Errors
    /// `ShardTruncated`, `IoFailed`, where the bytes cannot be had.
    pub fn populate(&self, block: usize, wait: bool, files: &mut Files) -> Result<()> {
        let rows = self.block(block);
        for (begin, size) in self.tensors() {
            let (at, length) = (begin + rows.start * size as u64, (rows.end - rows.start) * size as u64);
            match &self.map {
                Some(map) => self.advise(map, at as usize, length as usize, wait)?,
                None => will_need(files.get(self)?, at, length),
            }
        }
        Ok(())
    }

    /// Asks for huge pages where the file is read into memory from now on: rows all over it are then found in few entries
    /// of the processor's address cache. Advice, so its failure is none.
    pub fn want_huge_pages(&self) {
        #[cfg(target_os = "linux")]
        if let Some(map) = &self.map {
            let _ = map.advise(memmap2::Advice::HugePage);
        }
    }

    #[cfg(target_os = "linux")]
    fn advise(&self, map: &Mmap, at: usize, length: usize, wait: bool) -> Result<()> {
        use memmap2::Advice;
        let advice = if wait { Advice::PopulateRead } else { Advice::WillNeed };
        match map.advise_range(advice, at, length) {
            // EFAULT: beyond the end of the file, where touching would have been a SIGBUS.
            Err(e) if wait && e.raw_os_error() == Some(libc::EFAULT) => {
                self.check_length()?;
                Err(Error::io(&self.path, e))
            }
            // EHWPOISON and EIO are failures of the disk; EINVAL is a kernel before 5.14, which does without.
            Err(e) if wait && e.raw_os_error() == Some(libc::EIO) => Err(Error::io(&self.path, e)),
            _ => Ok(()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn advise(&self, _map: &Mmap, _at: usize, _length: usize, _wait: bool) -> Result<()> {
        Ok(())
    }

    /// Whether block `block` was checked in this process.
    #[must_use]
    pub fn is_verified(&self, block: usize) -> bool {
        verified::is_set(&self.flags, block)
    }

    /// Digests block `block` and compares.
    ///
    /// # Errors
    /// `ShardCorrupt`, `ShardTruncated`, `IoFailed`.
    pub fn verify(&self, block: usize, files: &mut Files) -> Result<()> {
        let rows = self.block(block);
        let count = (rows.end - rows.start) as usize;
        let mut digest = BlockDigest::new(&commit::shard_name(self.index), self.index as u64, block as u64);
        if let Some(map) = &self.map {
            self.populate(block, true, files)?;
            for (begin, size) in self.tensors() {
                let at = begin as usize + rows.start as usize * size;
                digest.update(&map[at..at + count * size]);
            }
        } else {
            let mut buffer = std::mem::take(&mut files.scratch);
            buffer.resize(count * self.tensors().map(|(_, size)| size).sum::<usize>(), 0);
            let mut done = 0;
            let mut read = Ok(());
            for (begin, size) in self.tensors() {
                let part = &mut buffer[done..done + count * size];
                done += part.len();
                read = read.and_then(|()| self.read(files, begin + rows.start * size as u64, part));
            }
            digest.update(&buffer);
            files.scratch = buffer;
            read?;
        }
        if digest.finish() == self.blocks[block] {
            verified::set(&self.flags, block);
            return Ok(());
        }
        self.check_length()?;
        Err(Error::ShardCorrupt {
            path: self.path.clone(),
            what: format!("rows {} to {} do not fit their digest in the manifest", rows.start, rows.end),
        })
    }

    fn truncated(&self, found: u64) -> Error {
        Error::ShardTruncated { path: self.path.clone(), expected: self.header.file_bytes, found }
    }
}

/// Descriptors and a buffer of one reading thread; mapped shards need neither.
#[derive(Default)]
pub struct Files {
    open: Vec<(usize, File)>,
    scratch: Vec<u8>,
}

impl Files {
    /// Most descriptors that one thread keeps; beyond, the one opened first is closed.
    const MOST: usize = 64;

    fn get(&mut self, shard: &OpenShard) -> Result<&File> {
        let at = if let Some(at) = self.open.iter().position(|(index, _)| *index == shard.index) {
            at
        } else {
            if self.open.len() == Self::MOST {
                self.open.remove(0);
            }
            self.open.push((shard.index, open_file(&shard.path)?));
            self.open.len() - 1
        };
        Ok(&self.open[at].1)
    }
}

/// Reads and checks the header of a shard by itself, without a manifest.
///
/// # Errors
/// `ShardMissing`, `HeaderInvalid`, `ShardTruncated`, `ShardCorrupt` (longer than the header says), `IoFailed`.
pub fn read_header(path: &Path) -> Result<Header> {
    let file = open_file(path)?;
    let found = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let mut field = [0; header::LENGTH_BYTES as usize];
    read_exact_at(&file, path, &mut field, 0, header::LENGTH_BYTES)?;
    let invalid = |fault| Error::HeaderInvalid { path: path.into(), fault };
    let length = header::header_length(field).map_err(invalid)?;
    let mut json = vec![0; length as usize];
    read_exact_at(&file, path, &mut json, header::LENGTH_BYTES, header::LENGTH_BYTES + length)?;
    let header = header::parse(&json).map_err(invalid)?;
    match found.cmp(&header.file_bytes) {
        std::cmp::Ordering::Less => {
            Err(Error::ShardTruncated { path: path.into(), expected: header.file_bytes, found })
        }
        std::cmp::Ordering::Greater => Err(Error::ShardCorrupt {
            path: path.into(),
            what: format!("{} bytes too long", found - header.file_bytes),
        }),
        std::cmp::Ordering::Equal => Ok(header),
    }
}

fn parse_head(head: &[u8]) -> std::result::Result<Header, HeaderFault> {
    let Some((field, json)) = head.split_first_chunk() else {
        return Err(HeaderFault::Length { found: head.len() as u64, limit: header::MAX_HEADER });
    };
    let length = header::header_length(*field)?;
    if length != json.len() as u64 {
        return Err(HeaderFault::Length { found: length, limit: json.len() as u64 });
    }
    header::parse(json)
}

fn check_length(path: &Path, entry: &ShardEntry, found: u64) -> Result<()> {
    match found.cmp(&entry.bytes) {
        std::cmp::Ordering::Less => Err(Error::ShardTruncated { path: path.into(), expected: entry.bytes, found }),
        std::cmp::Ordering::Greater => {
            Err(Error::ShardCorrupt { path: path.into(), what: format!("{} bytes too long", found - entry.bytes) })
        }
        std::cmp::Ordering::Equal => Ok(()),
    }
}

/// Opens a shard for reading; a symbolic link is refused, it could lead out of the folder.
fn open_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK,
    );
    let file = options.open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::ShardMissing(path.to_path_buf()),
        _ if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) => Error::InvalidName {
            path: path.to_path_buf(),
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            why: "it is a symbolic link",
        },
        _ => Error::io(path, e),
    })?;
    match file.metadata() {
        Ok(meta) if meta.is_file() => Ok(file),
        Ok(_) => Err(Error::ShardCorrupt { path: path.to_path_buf(), what: "not a regular file".to_owned() }),
        Err(e) => Err(Error::io(path, e)),
    }
}

fn read_exact_at(file: &File, path: &Path, mut out: &mut [u8], mut at: u64, expected: u64) -> Result<()> {
    while !out.is_empty() {
        match read_at(file, out, at) {
            Ok(0) => return Err(Error::ShardTruncated { path: path.into(), expected, found: at }),
            Ok(n) => {
                at += n as u64;
                out = &mut out[n..];
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io(path, e)),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, out: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, at)
}

#[cfg(windows)]
fn read_at(file: &File, out: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, at)
}

/// Asks for reading ahead; advice, so its failure is none.
#[cfg(target_os = "linux")]
fn will_need(file: &File, at: u64, length: u64) {
    use std::os::fd::AsRawFd;
    // SAFETY: no memory is passed.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), at as i64, length as i64, libc::POSIX_FADV_WILLNEED) };
}

#[cfg(not(target_os = "linux"))]
fn will_need(_file: &File, _at: u64, _length: u64) {}
