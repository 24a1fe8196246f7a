//! Any bytes as the body of a manifest, with the digest made right so that the checks behind it are reached: no panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sparsecode_core::shard::Manifest;

fuzz_target!(|body: &[u8]| {
    let digest = sparsecode_core::shard::manifest::sealed(body);
    if let Ok(manifest) = Manifest::parse(&digest, Path::new("manifest.json")) {
        assert_eq!(Manifest::parse(&manifest.to_bytes(), Path::new("manifest.json")).unwrap(), manifest);
    }
});
