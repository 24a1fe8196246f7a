//! Manifests: any changed bit is noticed; with the digest made right, contradictions are.

use std::path::Path;

use super::write;
use crate::error::Error;
use crate::shard::commit::MANIFEST;
use crate::shard::digest::shard_digest;
use crate::shard::manifest::sealed;
use crate::shard::{Access, Dataset, Manifest, Verify};

fn sample() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 3, 20, 8);
    std::fs::read(dir.path().join(MANIFEST)).unwrap()
}

fn parse(bytes: &[u8]) -> Result<Manifest, Error> {
    Manifest::parse(bytes, Path::new("manifest.json"))
}

/// The manifest with `from` replaced by `to` and the digest made right again: a deliberate change, not an accident.
fn forged(from: &str, to: &str) -> Result<Manifest, Error> {
    let text = String::from_utf8(sample()).unwrap();
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text, "{from:?} is not there");
    let body = &changed[..changed.rfind(",\n  \"digest\": \"xxh3-128:").unwrap()];
    parse(&sealed(body.as_bytes()))
}

#[test]
fn what_is_written_is_read_back() {
    let bytes = sample();
    let manifest = parse(&bytes).unwrap();
    assert_eq!((manifest.rows(), manifest.shards.len(), manifest.complete), (20, 3, true));
    assert_eq!(manifest.to_bytes(), bytes);
}

#[test]
fn every_flipped_bit_cut_and_added_byte_is_corruption() {
    let bytes = sample();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(parse(&flipped), Err(Error::ShardCorrupt { .. })), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(matches!(parse(&bytes[..cut]), Err(Error::ShardCorrupt { .. })), "cut at {cut}");
    }
    assert!(matches!(parse(&[&bytes[..], b"\n"].concat()), Err(Error::ShardCorrupt { .. })));
}

#[test]
fn a_newer_format_is_named() {
    assert!(matches!(forged("\"format\": 1", "\"format\": 3"), Err(Error::FormatTooNew { found: 3, known: 2, .. })));
    assert!(matches!(forged("\"format\": 1", "\"format\": 3, \"new\": []"), Err(Error::FormatTooNew { .. })));
    for bad in ["0", "-1", "1.5", "\"1\"", "null"] {
        let error = forged("\"format\": 1", &format!("\"format\": {bad}"));
        assert!(matches!(error, Err(Error::ManifestInvalid { .. })), "{bad}");
    }
}

#[test]
fn hostile_names_are_refused() {
    const HOSTILE: [&str; 62] = [
        "",
        ".",
        "..",
        "/",
        "//",
        "\\\\",
        "../shard-00000.safetensors",
        "..\\\\shard-00000.safetensors",
        "/etc/passwd",
        "/tmp/shard-00000.safetensors",
        "./shard-00000.safetensors",
        "a/shard-00000.safetensors",
        "shard-00000.safetensors/",
        "shard-00000.safetensors/.",
        "shard-00000.safetensors/..",
        "shard-00000.safetensors\\u0000",
        "\\u0000",
        "\\u0000shard-00000.safetensors",
        "shard-00000.safetensors\\n",
        " shard-00000.safetensors",
        "shard-00000.safetensors ",
        "shard-0.safetensors",
        "shard-000000.safetensors",
        "shard-+0000.safetensors",
        "shard-00001.safetensors",
        "shard-99999.safetensors",
        "shard--0000.safetensors",
        "SHARD-00000.SAFETENSORS",
        "Shard-00000.safetensors",
        "shard-00000.safetensor",
        "shard-00000.safetensors.tmp",
        ".shard-00000.safetensors.tmp",
        "shard-00000.pt",
        "shard-00000.pkl",
        "manifest.json",
        ".lock",
        "~",
        "~/shard-00000.safetensors",
        "$HOME",
        "%2e%2e%2fshard-00000.safetensors",
        "file:///etc/passwd",
        "http://example.org/x",
        "C:\\\\x",
        "C:",
        "CON",
        "NUL",
        "con.safetensors",
        "shard-00000.safetensors:stream",
        "\\\\\\\\server\\\\share",
        "....//",
        "..;/",
        "..%00/",
        "|ls",
        ";ls",
        "`ls`",
        "-rf",
        "shard-\\u0660\\u0660\\u0660\\u0660\\u0660.safetensors",
        "shard-00000\\u202e.safetensors",
        "shard\\u201000000.safetensors",
        "shard-00000.safetensors\\u0301",
        "\\ufeffshard-00000.safetensors",
        "\\ud83d\\ude00",
    ];
    for name in HOSTILE {
        let error = forged("\"file\": \"shard-00000.safetensors\"", &format!("\"file\": \"{name}\""));
        assert!(matches!(error, Err(Error::InvalidName { .. })), "{name:?}: {error:?}");
    }
}

#[test]
fn contradictions_are_refused_though_the_digest_fits() {
    for (from, to) in [
        ("\"rows\": 20", "\"rows\": 21"),
        ("\"rows\": 8", "\"rows\": 9"),
        ("\"rows\": 8", "\"rows\": 0"),
        ("\"rows\": 8", "\"rows\": 18446744073709551615"),
        ("\"rows\": 8", "\"rows\": -8"),
        ("\"bytes\": 592", "\"bytes\": 80"),
        ("\"blocks\": \"", "\"blocks\": \"0"),
        ("\"blocks\": \"", "\"blocks\": \"0123456789abcdef"),
        ("\"blocks\": \"", "\"blocks\": \"é"),
        ("\"activation_dim\": 3", "\"activation_dim\": 4"),
        ("\"activation_dim\": 3", "\"activation_dim\": 0"),
        ("\"activation_dim\": 3", "\"activation_dim\": 99999999"),
        ("\"block_rows\": 8", "\"block_rows\": 0"),
        ("\"block_rows\": 8", "\"block_rows\": 9223372036854775808"),
        ("\"shard_rows\": 8", "\"shard_rows\": 0"),
        ("float16", "float64"),
        ("sparsecode activations", "something else"),
        ("\"complete\": true", "\"complete\": 1"),
        ("\"complete\": true", "\"complete\": true, \"complete\": false"),
        ("\"complete\"", "\"unknown\": 1, \"complete\""),
        ("\"complete\": true,", ""),
        ("\"non_finite\"", "\"other\""),
        ("\"provenance\": {}", "\"provenance\": []"),
        ("\"format\": 1", "\"format\": 2"),
        ("\"format\": 1", "\"format\": 1, \"contexts\": false, \"left_out\": {}"),
        ("\"format\": 1", "\"format\": 2, \"contexts\": false, \"left_out\": {\"padding\": -1}"),
    ] {
        let error = forged(from, to);
        assert!(matches!(error, Err(Error::ManifestInvalid { .. })), "{from} {to}: {error:?}");
    }
}

#[test]
fn a_shard_without_room_for_a_length_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 3, 20, 8);
    let (name, at) = (dir.path().join("shard-00002.safetensors"), dir.path().join(MANIFEST));
    for head in 1..10 {
        let mut manifest = Manifest::load(dir.path()).unwrap();
        let shard = &mut manifest.shards[2];
        shard.bytes = head + 4 * (3 * 2 + 4);
        let bytes = vec![0; shard.bytes as usize];
        let head = &bytes[..head as usize];
        shard.digest = shard_digest("shard-00002.safetensors", 2, shard.bytes, head, &shard.blocks);
        std::fs::write(&name, &bytes).unwrap();
        std::fs::write(&at, manifest.to_bytes()).unwrap();
        let opened = Dataset::open(dir.path(), Access::Pread, Verify::Once);
        assert!(matches!(opened.map(|_| ()), Err(Error::HeaderInvalid { .. } | Error::ManifestInvalid { .. })));
    }
}

#[test]
fn contexts_that_the_manifest_promises_and_the_shard_lacks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (dim, rows) = (3, 6);
    write(dir.path(), dim, rows, 8);
    let (name, at) = (dir.path().join("shard-00000.safetensors"), dir.path().join(MANIFEST));
    let mut manifest = Manifest::load(dir.path()).unwrap();
    manifest.contexts = true;
    // The numbers of contexts would take the last bytes of the file: the head that is left for it has as many less.
    let head = manifest.shards[0].bytes as usize - rows as usize * (dim * 2 + 8);
    let mut bytes = std::fs::read(&name).unwrap();
    for fits in [false, true] {
        if fits {
            // A header of that length, which is valid: only what it lists contradicts the manifest.
            bytes[..8].copy_from_slice(&(head as u64 - 8).to_le_bytes());
            bytes.copy_within(512.., head);
        }
        let shard = &mut manifest.shards[0];
        shard.digest = shard_digest("shard-00000.safetensors", 0, shard.bytes, &bytes[..head], &shard.blocks);
        std::fs::write(&name, &bytes).unwrap();
        std::fs::write(&at, manifest.to_bytes()).unwrap();
        for access in [Access::Mmap, Access::Pread] {
            match (Dataset::open(dir.path(), access, Verify::Never).map(|_| ()), fits) {
                (Err(Error::HeaderInvalid { .. }), false) => {}
                (Err(Error::ShardCorrupt { what, .. }), true) => assert!(what.contains("the manifest lists"), "{what}"),
                (other, _) => panic!("{other:?}"),
            }
        }
    }
}

#[test]
#[cfg(unix)]
fn a_symbolic_link_is_not_a_shard() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    write(&data, 3, 20, 8);
    let shard = data.join("shard-00001.safetensors");
    std::fs::rename(&shard, dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", &shard).unwrap();
    for access in [Access::Mmap, Access::Pread] {
        assert!(matches!(Dataset::open(&data, access, Verify::Once), Err(Error::InvalidName { .. })));
    }
}
