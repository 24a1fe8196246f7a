//! Headers: each way to be wrong has its name, and no bytes whatever bring the parser down.

use crate::dtype::Dtype;
use crate::error::{Error, HeaderFault};
use crate::shard::header::{self, MAX_HEADER, build, header_length, parse};
use crate::shard::open::read_header;

const GOOD: &str = r#"{"__metadata__":{"format":"sparsecode-activations","version":"1"},"activations":{"dtype":"F16","shape":[3,2],"data_offsets":[0,12]},"tokens":{"dtype":"I32","shape":[3],"data_offsets":[12,24]}}"#;

fn fault(change: impl Fn(&str) -> String) -> &'static str {
    let changed = change(GOOD);
    assert_ne!(changed, GOOD, "the change changes nothing");
    parse(changed.as_bytes()).expect_err(&changed).class()
}

fn swap(from: &str, to: &str) -> &'static str {
    fault(|good| good.replacen(from, to, 1))
}

#[test]
fn what_is_built_is_read_back_and_aligned() {
    for (rows, dim, dtype) in [(1, 1, Dtype::F16), (1_032_192, 128, Dtype::Bf16), (1 << 31, 1 << 24, Dtype::F32)] {
        let bytes = build(rows, dim, dtype, false);
        let length = header_length(bytes[..8].try_into().unwrap()).unwrap();
        let found = parse(&bytes[8..]).unwrap();
        assert_eq!((length, found.rows, found.dim, found.dtype), (bytes.len() as u64 - 8, rows, dim, dtype));
        assert_eq!((found.activations_at, found.activations_at % 64), (bytes.len() as u64, 0));
        assert_eq!(found.tokens_at, found.activations_at + rows * dim * dtype.size() as u64);
        assert_eq!((found.file_bytes, found.contexts_at), (found.tokens_at + rows * 4, None));
        let numbered = parse(&build(rows, dim, dtype, true)[8..]).unwrap();
        assert_eq!((numbered.tokens_at, numbered.contexts_at), (found.tokens_at, Some(found.file_bytes)));
        assert_eq!(numbered.file_bytes, found.file_bytes + rows * 4);
    }
    assert_eq!(parse(GOOD.as_bytes()).unwrap().file_bytes, 8 + GOOD.len() as u64 + 24);
}

#[test]
fn each_fault_has_its_name() {
    assert_eq!(swap("\"tokens\":", "\"activations\":"), "HeaderDuplicateKey");
    assert_eq!(swap("\"dtype\":\"F16\"", "\"dtype\":\"F16\",\"dtype\":\"F16\""), "HeaderDuplicateKey");
    assert_eq!(swap("\"version\"", "\"format\""), "HeaderDuplicateKey");
    assert_eq!(swap("[12,24]", "[11,23]"), "HeaderOverlap");
    assert_eq!(swap("[12,24]", "[0,12]"), "HeaderOverlap");
    assert_eq!(swap("[12,24]", "[13,25]"), "HeaderHole");
    assert_eq!(fault(|g| g.replace("[0,12]", "[4,16]").replace("[12,24]", "[16,28]")), "HeaderHole");
    assert_eq!(swap("[3,2]", "[9223372036854775808,2]"), "HeaderOverflow");
    assert_eq!(swap("[3,2]", "[3,99999999999999999999]"), "HeaderOverflow");
    assert_eq!(swap("[0,12]", "[0,99999999999999999999]"), "HeaderOverflow");
    assert_eq!(swap("[3,2]", "[-3,2]"), "HeaderNegative");
    assert_eq!(swap("[3,2]", "[3,-99999999999999999999]"), "HeaderNegative");
    assert_eq!(swap("[0,12]", "[-12,0]"), "HeaderNegative");
    assert_eq!(swap("F16", "F64"), "HeaderDtype");
    assert_eq!(swap("I32", "I64"), "HeaderDtype");
    assert_eq!(swap("F16", "I32"), "HeaderDtype");
    for (from, to) in [
        ("[3,2]", "[3,2,1]"),
        ("[3,2]", "[6]"),
        ("[3,2]", "[3,4]"),
        ("[3,2]", "[3.5,2]"),
        ("[3,2]", "[\"3\",2]"),
        ("[3,2]", "[null,2]"),
        ("[3,2]", "6"),
        ("[0,12]", "[12,0]"),
        ("[0,12]", "[0]"),
        ("[0,12]", "[0,12,24]"),
        ("\"dtype\":\"F16\",", ""),
        ("\"dtype\":\"F16\"", "\"dtype\":5"),
        ("\"shape\"", "\"shapes\""),
        ("{\"format\"", "{\"x\":1,\"format\""),
        ("{\"format\":\"sparsecode-activations\",\"version\":\"1\"}", "7"),
    ] {
        assert_eq!(swap(from, to), "HeaderShape", "{from} {to}");
    }
    // Shapes that fit their offsets but not each other, and empty ones.
    assert_eq!(fault(|g| g.replace("[3],", "[2],").replace("[12,24]", "[12,20]")), "HeaderShape");
    assert_eq!(
        fault(|g| g
            .replace("[3,2]", "[0,2]")
            .replace("[0,12]", "[0,0]")
            .replace("[3],", "[0],")
            .replace("[12,24]", "[0,0]")),
        "HeaderShape"
    );
    assert_eq!(
        fault(|g| g.replace("[3,2]", "[3,0]").replace("[0,12]", "[0,0]").replace("[12,24]", "[0,12]")),
        "HeaderShape"
    );
    assert_eq!(swap("\"tokens\"", "\"weights\""), "HeaderTensors");
    assert_eq!(fault(|g| format!("{},\"more\":{{}}}}", &g[..g.len() - 1])), "HeaderTensors");
    assert_eq!(fault(|_| "{}".to_owned()), "HeaderTensors");
    let deep = |n: usize| format!("{{\"x\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert_eq!(fault(|_| deep(17)), "HeaderTooDeep");
    assert_eq!(fault(|_| deep(30_000)), "HeaderTooDeep");
    assert_eq!(fault(|_| "{\"a\":".repeat(10_000)), "HeaderTooDeep");
    for bad in [
        "",
        " {}",
        "[]",
        "null",
        "{",
        "{\"a\":1}}",
        "{\"a\":1} {}",
        "{\"a\":1}\n",
        "{\"a\":NaN}",
        "{\"a\":1e999}",
        "{'a':1}",
        "{\"a\":\"\\ud800\"}",
    ] {
        assert_eq!(
            parse(bad.as_bytes()).unwrap_err().class(),
            if bad.ends_with('\n') { "HeaderTensors" } else { "HeaderNotJson" },
            "{bad:?}"
        );
    }
    for bad in [&b"{\"\xff\":1}"[..], b"{\"\xc0\xaf\":1}", b"\x80", b"{\"\xed\xa0\x80\":1}"] {
        assert_eq!(parse(bad).unwrap_err().class(), "HeaderNotUtf8");
    }
}

#[test]
fn lengths_that_no_header_has_are_refused_at_once() {
    for bad in [0, 1, MAX_HEADER + 1, 1 << 40, (1 << 63) - 1, 1 << 63, u64::MAX] {
        assert!(matches!(header_length(bad.to_le_bytes()), Err(HeaderFault::Length { .. })), "{bad}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, [&bad.to_le_bytes()[..], GOOD.as_bytes(), &[0; 24]].concat()).unwrap();
        let start = std::time::Instant::now();
        let error = read_header(&path).unwrap_err();
        assert!(matches!(error, Error::HeaderInvalid { fault: HeaderFault::Length { .. }, .. }), "{error}");
        assert!(start.elapsed().as_millis() < 10);
    }
}

#[test]
fn a_lone_shard_cut_anywhere_or_too_long_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let whole = [&build(3, 2, Dtype::F16, false)[..], &[7; 24]].concat();
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(matches!(read_header(&path), Err(Error::ShardTruncated { .. })), "{cut}");
    }
    std::fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert!(matches!(read_header(&path), Err(Error::ShardCorrupt { .. })));
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(read_header(&path).unwrap().rows, 3);
}

/// A small generator of pseudo-random numbers (xorshift64*), seeded: every run tries the same mutations.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * n as u128) >> 64) as usize
    }
}

/// Words that mutations put in: structure, limits and other dtypes.
const WORDS: [&str; 28] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\u0000",
    "-",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "4",
    "6",
    "12",
    "24",
    "1e3",
    "2.0",
    "18446744073709551615",
    "9223372036854775807",
    "null",
    "F32",
    "BF16",
    "\"activations\"",
    "\"tokens\"",
    "[0,12]",
];

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1));
        let end = (at + random.below(12)).min(bytes.len());
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.below(256) as u8,
            2 => drop(bytes.drain(at.min(end)..end)),
            3 => {
                let word = WORDS[random.below(WORDS.len())].bytes();
                bytes.splice(at.min(end)..end, word);
            }
            4 => {
                let copy = bytes[at.min(end)..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            _ => {
                // One number becomes another: the mutation that most often stays a header.
                let digits: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    bytes[digits[random.below(digits.len())]] = b'0' + random.below(10) as u8;
                }
            }
        }
    }
}

/// 50,000 mutations here; `make soak` sets `SPARSECODE_MUTATIONS` to 1,000,000.
#[test]
fn mutated_headers_never_panic_and_what_is_accepted_safetensors_accepts_too() {
    let count = std::env::var("SPARSECODE_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(50_000);
    let mut random = Random(0x0005_eed0_f5a7_2022);
    let (mut accepted, mut refused) = (0, std::collections::BTreeMap::<_, u64>::new());
    let start = std::time::Instant::now();
    for _ in 0..count {
        let mut json = GOOD.as_bytes().to_vec();
        mutate(&mut random, &mut json);
        match parse(&json) {
            Err(fault) => *refused.entry(fault.class()).or_default() += 1,
            Ok(found) => {
                accepted += 1;
                assert!(found.file_bytes < 1 << 20, "{}", String::from_utf8_lossy(&json));
                let mut file = (json.len() as u64).to_le_bytes().to_vec();
                file.extend_from_slice(&json);
                file.resize(found.file_bytes as usize, 0);
                let tensors = safetensors::SafeTensors::deserialize(&file)
                    .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&json)));
                let activations = tensors.tensor("activations").unwrap();
                assert_eq!(activations.shape(), [found.rows as usize, found.dim as usize]);
                assert_eq!(activations.data().as_ptr(), file[found.activations_at as usize..].as_ptr());
                assert_eq!(
                    tensors.tensor("tokens").unwrap().data().as_ptr(),
                    file[found.tokens_at as usize..].as_ptr()
                );
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{count} mutations in {seconds:.1} s: {accepted} accepted, refused {refused:?}");
    assert!(accepted > count / 100 && refused.len() >= 9, "the mutations are too tame: {accepted} {refused:?}");
    assert!(seconds < 60.0);
}

#[test]
fn the_limit_admits_every_header_that_is_written() {
    assert!((header::WRITTEN_BYTES as u64) < MAX_HEADER);
    let longest = build(u64::MAX >> 30, header::MAX_DIM, Dtype::Bf16, true);
    assert!(longest.ends_with(b" "));
}
