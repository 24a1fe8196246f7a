//! Digests that notice any change of a shard's bytes, name or place.
//!
//! A shard is checked in blocks of rows, so that a reader can check what it reads and no more. The digest of a block
//! covers its activations and its tokens and is seeded with the shard's name, its index and the block's number; the
//! digest of a shard covers name, index, length, header and all block digests. XXH3: these find accidents, not attacks.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

const BLOCK_DOMAIN: &[u8] = b"sparsecode block v1\0";
const SHARD_DOMAIN: &[u8] = b"sparsecode shard v1\0";

/// Digest of one block while its bytes arrive.
#[derive(Clone)]
pub struct BlockDigest(Xxh3);

impl BlockDigest {
    /// Begins block `block` of the shard called `name` at `index`.
    #[must_use]
    pub fn new(name: &str, index: u64, block: u64) -> Self {
        let mut place = BLOCK_DOMAIN.to_vec();
        place.extend_from_slice(name.as_bytes());
        let seed = xxh3_64_with_seed(&[index.to_le_bytes(), block.to_le_bytes()].concat(), xxh3_64(&place));
        Self(Xxh3::with_seed(seed))
    }

    /// Adds bytes: first all activations of the block in row order, then its tokens.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of what was added.
    #[must_use]
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}

/// Digest of a whole shard from its header bytes (length field included) and the digests of its blocks.
#[must_use]
pub fn shard_digest(name: &str, index: u64, file_bytes: u64, header: &[u8], blocks: &[u64]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(SHARD_DOMAIN);
    hash.update(&(name.len() as u64).to_le_bytes());
    hash.update(name.as_bytes());
    hash.update(&index.to_le_bytes());
    hash.update(&file_bytes.to_le_bytes());
    hash.update(&(header.len() as u64).to_le_bytes());
    hash.update(header);
    for block in blocks {
        hash.update(&block.to_le_bytes());
    }
    hash.digest128()
}
