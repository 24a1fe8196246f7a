//! `manifest.json`: what a dataset holds, where it came from, and the digests that bind it together.
//!
//! The file ends in a line with the digest of every byte before it, so that any change is noticed; every later format
//! keeps that line and `"format"`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::shard::commit::{self, Durability, MANIFEST};
use crate::shard::header;
use crate::shard::statistics::Moments;

/// The newest format that is read: that of datasets whose shards say the context of each row, or of which rows were left out.
/// Others are written as format 1.
pub const FORMAT: u64 = 2;
/// What the file is, for other programs.
const KIND: &str = "sparsecode activations";
/// Bytes of activations in a block, about: the unit of checking and of windowed reading.
const BLOCK_BYTES: u64 = 1 << 20;
/// Largest manifest that is read: a thousand times that of a dataset of 1 TB.
const MAX_BYTES: u64 = 1 << 30;
const TAIL: [&str; 2] = [",\n  \"digest\": \"xxh3-128:", "\"\n}\n"];
const TAIL_BYTES: usize = TAIL[0].len() + 32 + TAIL[1].len();

/// Where the rows of a dataset came from: any JSON object.
pub type Provenance = serde_json::Map<String, serde_json::Value>;

/// One shard, as the manifest lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardEntry {
    /// Rows in it.
    pub rows: u64,
    /// Length of the file.
    pub bytes: u64,
    /// [`crate::shard::digest::shard_digest`] of the file.
    pub digest: u128,
    /// Digests of its blocks.
    pub blocks: Vec<u64>,
}

/// A dataset's contents. Its shards' names follow from their places.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Whether everything that was to be written is there.
    pub complete: bool,
    /// Values per row.
    pub dim: u64,
    /// Type of the values.
    pub dtype: Dtype,
    /// Whether the shards say the context of each row.
    pub contexts: bool,
    /// Rows of a full shard.
    pub shard_rows: u64,
    /// Rows of a full block.
    pub block_rows: u64,
    /// Where the rows came from.
    pub provenance: Provenance,
    /// Moments of all rows.
    pub moments: Moments,
    /// Rows with NaN or infinities that were dropped.
    pub non_finite: u64,
    /// Rows that were never appended, by the reason.
    pub left_out: BTreeMap<String, u64>,
    /// The place of the first shard: 0 but for what is beside a shard that was made apart.
    pub first: usize,
    /// The shards in order.
    pub shards: Vec<ShardEntry>,
}

/// The JSON, as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    format: u64,
    kind: String,
    complete: bool,
    activation_dim: u64,
    dtype: String,
    rows: u64,
    contexts: Option<bool>,
    left_out: Option<BTreeMap<String, u64>>,
    shard_rows: u64,
    block_rows: u64,
    provenance: Provenance,
    statistics: RawStatistics,
    shards: Vec<RawShard>,
    #[serde(rename = "digest")]
    _digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStatistics {
    non_finite: u64,
    #[serde(rename = "rms")]
    _rms: f64,
    #[serde(rename = "variance")]
    _variance: f64,
    mean: Vec<f64>,
    m2: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShard {
    file: String,
    rows: u64,
    bytes: u64,
    digest: String,
    blocks: String,
}

impl Manifest {
    /// The manifest of a dataset without rows.
    #[must_use]
    pub fn new(dim: u64, dtype: Dtype, contexts: bool, shard_bytes: u64, provenance: Provenance) -> Self {
        let row_bytes = dim * dtype.size() as u64;
        let mut block_rows = (BLOCK_BYTES / row_bytes).max(1);
        let mut shard_rows = (shard_bytes / (row_bytes + numbers_bytes(contexts))).max(1);
        if shard_rows >= block_rows {
            shard_rows -= shard_rows % block_rows;
        } else {
            block_rows = shard_rows;
        }
        let moments = Moments::new(dim as usize);
        Self {
            complete: false,
            dim,
            dtype,
            contexts,
            shard_rows,
            block_rows,
            provenance,
            moments,
            non_finite: 0,
            left_out: BTreeMap::new(),
            first: 0,
            shards: vec![],
        }
    }

    /// With shards of so many rows, and with blocks that divide them.
    #[must_use]
    pub fn with_shard_rows(mut self, rows: u64) -> Self {
        let fits = |block: &u64| rows.is_multiple_of(*block);
        self.block_rows = (1..=self.block_rows.min(rows)).rev().find(fits).unwrap_or(1);
        self.shard_rows = rows.max(1);
        self
    }

    /// Rows in all shards.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.shards.iter().map(|s| s.rows).sum()
    }

    /// Bytes of a row's activations.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.dim as usize * self.dtype.size()
    }

    /// Bytes of what a row has beside its activations: its token, and the number of its context.
    #[must_use]
    pub fn numbers_bytes(&self) -> u64 {
        numbers_bytes(self.contexts)
    }

    /// The format that it is written as.
    fn format(&self) -> u64 {
        1 + u64::from(self.contexts || !self.left_out.is_empty())
    }

    /// A digest of what the rows are and where they came from: two datasets with the same one hold the same.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Xxh3::new();
        let provenance = serde_json::Value::Object(self.provenance.clone());
        hash.update(format!("{KIND} {} {} {provenance}\n", self.dim, self.dtype.name()).as_bytes());
        for shard in &self.shards {
            hash.update(&shard.digest.to_le_bytes());
        }
        format!("{:032x}", hash.digest128())
    }

    /// The file's contents.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let json = |value: &dyn erased::Json| value.text();
        let mut text = format!("{{\n  \"format\": {},\n  \"kind\": {},\n", self.format(), json(&KIND));
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  \"{name}\": {value},");
        };
        line("complete", self.complete.to_string());
        line("activation_dim", self.dim.to_string());
        line("dtype", json(&self.dtype.name()));
        line("rows", self.rows().to_string());
        if self.format() > 1 {
            line("contexts", self.contexts.to_string());
            line("left_out", json(&self.left_out));
        }
        line("shard_rows", self.shard_rows.to_string());
        line("block_rows", self.block_rows.to_string());
        line("provenance", json(&self.provenance));
        let (rms, variance) = (json(&self.moments.rms()), json(&self.moments.variance()));
        let (mean, m2) = (json(&self.moments.mean), json(&self.moments.m2));
        line(
            "statistics",
            format!(
                "{{\n    \"non_finite\": {},\n    \"rms\": {rms},\n    \"variance\": {variance},\n    \
                 \"mean\": {mean},\n    \"m2\": {m2}\n  }}",
                self.non_finite
            ),
        );
        let shards: Vec<String> = self.shards.iter().enumerate().map(|(i, s)| shard_line(self.first + i, s)).collect();
        let _ = write!(text, "  \"shards\": [{}]", shards.join(","));
        sealed(text.as_bytes())
    }

    /// Writes the manifest into `folder`, in place of the one before.
    ///
    /// # Errors
    /// `OutOfSpace` or `IoFailed`.
    pub fn save(&self, folder: &Path, durability: Durability) -> Result<()> {
        self.save_as(folder, MANIFEST, durability)
    }

    /// Writes it under another name.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_as(&self, folder: &Path, name: &str, durability: Durability) -> Result<()> {
        commit::replace(folder, name, &self.to_bytes(), durability)
    }

    /// Reads the manifest of the dataset in `folder`.
    ///
    /// # Errors
    /// `DatasetMissing`, and everything of [`Self::parse`].
    pub fn load(folder: &Path) -> Result<Self> {
        Self::load_from(folder, MANIFEST, 0)
    }

    /// Reads one of another name, whose first shard has the place `first`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_from(folder: &Path, name: &str, first: usize) -> Result<Self> {
        let path = folder.join(name);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Err(Error::DatasetMissing(folder.to_path_buf()));
            }
            Err(e) => return Err(Error::io(&path, e)),
        };
        let mut bytes = Vec::new();
        file.by_ref().take(MAX_BYTES).read_to_end(&mut bytes).map_err(|e| Error::io(&path, e))?;
        Self::parse_from(&bytes, &path, first)
    }

    /// Checks the contents of a manifest; `path` is for messages.
    ///
    /// # Errors
    /// `ShardCorrupt` where the digest does not fit, `FormatTooNew`, `InvalidName`, `ManifestInvalid`.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        Self::parse_from(bytes, path, 0)
    }

    fn parse_from(bytes: &[u8], path: &Path, first: usize) -> Result<Self> {
        check_digest(bytes).map_err(|what| Error::ShardCorrupt { path: path.into(), what: what.into() })?;
        let invalid = |what: String| Error::ManifestInvalid { path: path.into(), what };
        let loose: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        match loose.get("format").and_then(serde_json::Value::as_u64) {
            Some(1..=FORMAT) => {}
            Some(found) if found > FORMAT => {
                return Err(Error::FormatTooNew { path: path.into(), found, known: FORMAT });
            }
            _ => return Err(invalid("no format number".to_owned())),
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
        raw.check(path, first)
    }
}

fn numbers_bytes(contexts: bool) -> u64 {
    if contexts { 8 } else { 4 }
}

fn shard_line(index: usize, shard: &ShardEntry) -> String {
    let blocks = shard.blocks.iter().fold(String::new(), |mut text, block| {
        let _ = write!(text, "{block:016x}");
        text
    });
    format!(
        "\n    {{\"file\": \"{}\", \"rows\": {}, \"bytes\": {}, \"digest\": \"{:032x}\", \"blocks\": \"{blocks}\"}}",
        commit::shard_name(index),
        shard.rows,
        shard.bytes,
        shard.digest
    )
}

/// `body` with the last line that holds its digest.
#[must_use]
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let tail = format!("{}{:032x}{}", TAIL[0], xxh3_128(body), TAIL[1]);
    [body, tail.as_bytes()].concat()
}

/// Checks the last line against everything before it.
fn check_digest(bytes: &[u8]) -> std::result::Result<(), &'static str> {
    let body = bytes.len().checked_sub(TAIL_BYTES).ok_or("too short to be a manifest")?;
    if sealed(&bytes[..body]) == bytes { Ok(()) } else { Err("the digest in its last line does not fit its contents") }
}

impl Raw {
    fn check(self, path: &Path, first: usize) -> Result<Manifest> {
        let invalid = |what: String| Error::ManifestInvalid { path: path.into(), what };
        let dtype =
            Dtype::from_name(&self.dtype).ok_or_else(|| invalid(format!("dtype {:.40?} is unknown", self.dtype)))?;
        if self.kind != KIND {
            return Err(invalid(format!("kind {:.40?} is not {KIND:?}", self.kind)));
        }
        if !(1..=header::MAX_DIM).contains(&self.activation_dim) || self.block_rows == 0 || self.shard_rows == 0 {
            return Err(invalid("activation_dim, shard_rows or block_rows is out of range".to_owned()));
        }
        if self.contexts.is_some() != (self.format > 1) || self.left_out.is_some() != (self.format > 1) {
            return Err(invalid("contexts and left_out belong to format 2, and only to it".to_owned()));
        }
        let contexts = self.contexts.unwrap_or(false);
        let row_bytes = self.activation_dim * dtype.size() as u64 + numbers_bytes(contexts);
        if self.block_rows.checked_mul(row_bytes).is_none() {
            return Err(invalid(format!("block_rows {} is too large", self.block_rows)));
        }
        let (mean, m2) = (self.statistics.mean, self.statistics.m2);
        if mean.len() as u64 != self.activation_dim || m2.len() != mean.len() {
            return Err(invalid("statistics do not fit activation_dim".to_owned()));
        }
        let mut shards = Vec::with_capacity(self.shards.len());
        let mut rows = 0_u64;
        for (index, raw) in self.shards.into_iter().enumerate() {
            check_name(path, first + index, &raw.file)?;
            let entry = raw.entry().ok_or_else(|| invalid(format!("shard {index}: digests are not hexadecimal")))?;
            let fits = entry.rows > 0
                && entry.rows.div_ceil(self.block_rows) == entry.blocks.len() as u64
                && entry.rows.checked_mul(row_bytes).is_some_and(|data| {
                    let limit = header::LENGTH_BYTES + header::MAX_HEADER;
                    data < entry.bytes && entry.bytes - data <= limit
                });
            if !fits {
                return Err(invalid(format!("shard {index}: rows, bytes and blocks do not fit each other")));
            }
            rows = rows.checked_add(entry.rows).ok_or_else(|| invalid("too many rows".to_owned()))?;
            shards.push(entry);
        }
        if rows != self.rows {
            return Err(invalid(format!("rows is {}, but the shards hold {rows}", self.rows)));
        }
        Ok(Manifest {
            complete: self.complete,
            dim: self.activation_dim,
            dtype,
            contexts,
            shard_rows: self.shard_rows,
            block_rows: self.block_rows,
            provenance: self.provenance,
            moments: Moments { rows, mean, m2 },
            non_finite: self.statistics.non_finite,
            left_out: self.left_out.unwrap_or_default(),
            first,
            shards,
        })
    }
}

/// A shard may have one name only: that of its place. So no name can point out of the folder.
fn check_name(path: &Path, index: usize, name: &str) -> Result<()> {
    if name == commit::shard_name(index) {
        return Ok(());
    }
    let why = match commit::shard_index(name) {
        Some(_) => "it belongs to another place in the list",
        None => "shards are called shard-NNNNN.safetensors",
    };
    Err(Error::InvalidName { path: path.into(), name: name.chars().take(80).collect(), why })
}

impl RawShard {
    fn entry(&self) -> Option<ShardEntry> {
        let hex = |text: &str, digits: usize| {
            (text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| u128::from_str_radix(text, 16).ok())
                .flatten()
        };
        if !self.blocks.is_ascii() {
            return None;
        }
        let blocks = (0..self.blocks.len().div_ceil(16))
            .map(|i| hex(self.blocks.get(i * 16..i * 16 + 16)?, 16).map(|digest| digest as u64))
            .collect::<Option<Vec<u64>>>()?;
        Some(ShardEntry { rows: self.rows, bytes: self.bytes, digest: hex(&self.digest, 32)?, blocks })
    }
}

mod erased {
    /// JSON text of values that cannot fail to have one.
    pub trait Json {
        fn text(&self) -> String;
    }

    impl<T: serde::Serialize> Json for T {
        fn text(&self) -> String {
            serde_json::to_string(self).unwrap_or_else(|_| "null".to_owned())
        }
    }
}
