//! The header of a shard: a safetensors header that describes exactly `activations [rows, D]`, `tokens [rows]` and, where
//! the manifest says so, `contexts [rows]`.
//!
//! Pure: bytes in, a checked description out. Everything that is accepted here, the safetensors crate accepts too.

use crate::dtype::Dtype;
use crate::error::HeaderFault;
use crate::shard::json::Json;

/// Bytes of the length field that a safetensors file begins with.
pub const LENGTH_BYTES: u64 = 8;
/// Longest header that is read: two tensors need 300 bytes, a generous `__metadata__` some thousand.
pub const MAX_HEADER: u64 = 64 * 1024;
/// Length field and header of the shards that are written: the data begins at a multiple of 64.
pub const WRITTEN_BYTES: usize = 512;
/// Most dimensions of an activation; keeps all row arithmetic far from overflow.
pub const MAX_DIM: u64 = 1 << 24;

/// What a header says, after every check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Rows of each tensor.
    pub rows: u64,
    /// Values per row.
    pub dim: u64,
    /// Type of the activations.
    pub dtype: Dtype,
    /// Offset of the activations in the file.
    pub activations_at: u64,
    /// Offset of the tokens in the file.
    pub tokens_at: u64,
    /// Offset of the numbers of contexts in the file, where it has them.
    pub contexts_at: Option<u64>,
    /// Length of the file.
    pub file_bytes: u64,
}

/// The length of the header, from the first eight bytes of a file.
///
/// # Errors
/// [`HeaderFault::Length`] for zero, one, or more than [`MAX_HEADER`]: nothing is allocated on a file's word.
pub fn header_length(field: [u8; LENGTH_BYTES as usize]) -> Result<u64, HeaderFault> {
    let found = u64::from_le_bytes(field);
    if (2..=MAX_HEADER).contains(&found) { Ok(found) } else { Err(HeaderFault::Length { found, limit: MAX_HEADER }) }
}

/// Checks the JSON of a header (without the length field) and works out where everything lies.
///
/// # Errors
/// A [`HeaderFault`] that names the first thing found wrong.
pub fn parse(json: &[u8]) -> Result<Header, HeaderFault> {
    let mut tensors = Vec::new();
    for (name, value) in Json::parse_object(json)? {
        match name.as_str() {
            "__metadata__" => check_metadata(&value)?,
            "activations" | "tokens" | "contexts" => tensors.push(tensor(name, &value)?),
            _ => return Err(HeaderFault::Tensors(format!("{name:.60?} is neither activations, tokens nor contexts"))),
        }
    }
    tensors.sort_by_key(|t| t.begin);
    let mut at = 0;
    for t in &tensors {
        if t.begin < at {
            return Err(HeaderFault::Overlap(t.name.clone()));
        }
        if t.begin > at {
            return Err(HeaderFault::Hole(t.name.clone()));
        }
        at = t.end;
    }
    let find = |name: &str| {
        tensors.iter().find(|t| t.name == name).ok_or_else(|| HeaderFault::Tensors(format!("no tensor {name:?}")))
    };
    let (activations, tokens) = (find("activations")?, find("tokens")?);
    let (rows, dim, dtype) = match (activations.shape.as_slice(), Dtype::from_header_name(&activations.dtype)) {
        (&[rows, dim], Some(dtype)) if rows > 0 && (1..=MAX_DIM).contains(&dim) => (rows, dim, dtype),
        (shape, Some(_)) => {
            return Err(HeaderFault::Shape(format!(
                "activations: shape {shape:?} is not [rows, D] of 1 or more, D up to 2^24"
            )));
        }
        (_, None) => return Err(unknown_dtype(activations, Dtype::KNOWN_IN_HEADERS)),
    };
    let contexts = tensors.iter().find(|t| t.name == "contexts");
    for numbers in [Some(tokens), contexts].into_iter().flatten() {
        if numbers.dtype != "I32" {
            return Err(unknown_dtype(numbers, "I32"));
        }
        if numbers.shape != [rows] {
            return Err(HeaderFault::Shape(format!("{}: shape {:?} is not [{rows}]", numbers.name, numbers.shape)));
        }
    }
    let data = LENGTH_BYTES + json.len() as u64;
    let place = |offset: u64| {
        data.checked_add(offset).ok_or_else(|| HeaderFault::Overflow(format!("offset {offset} after the header")))
    };
    Ok(Header {
        rows,
        dim,
        dtype,
        activations_at: place(activations.begin)?,
        tokens_at: place(tokens.begin)?,
        contexts_at: contexts.map(|t| place(t.begin)).transpose()?,
        file_bytes: place(at)?,
    })
}

/// The first bytes of a shard: length field and header, padded with spaces to [`WRITTEN_BYTES`].
#[must_use]
pub fn build(rows: u64, dim: u64, dtype: Dtype, contexts: bool) -> [u8; WRITTEN_BYTES] {
    let split = rows * dim * dtype.size() as u64;
    let end = split + rows * 4;
    let version = if contexts { 2 } else { 1 };
    let more = if contexts {
        let last = end + rows * 4;
        format!(",\"contexts\":{{\"dtype\":\"I32\",\"shape\":[{rows}],\"data_offsets\":[{end},{last}]}}")
    } else {
        String::new()
    };
    let json = format!(
        "{{\"__metadata__\":{{\"format\":\"sparsecode-activations\",\"version\":\"{version}\"}},\
         \"activations\":{{\"dtype\":\"{}\",\"shape\":[{rows},{dim}],\"data_offsets\":[0,{split}]}},\
         \"tokens\":{{\"dtype\":\"I32\",\"shape\":[{rows}],\"data_offsets\":[{split},{end}]}}{more}}}",
        dtype.header_name()
    );
    let mut bytes = [b' '; WRITTEN_BYTES];
    bytes[..8].copy_from_slice(&(WRITTEN_BYTES as u64 - LENGTH_BYTES).to_le_bytes());
    bytes[8..8 + json.len()].copy_from_slice(json.as_bytes());
    bytes
}

struct Tensor {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    begin: u64,
    end: u64,
}

fn unknown_dtype(tensor: &Tensor, known: &'static str) -> HeaderFault {
    HeaderFault::Dtype { tensor: tensor.name.clone(), dtype: tensor.dtype.chars().take(40).collect(), known }
}

/// Bytes of a value of a dtype that a shard may hold.
fn value_size(tensor: &str, dtype: &str) -> Result<u64, HeaderFault> {
    match (tensor, dtype, Dtype::from_header_name(dtype)) {
        ("activations", _, Some(known)) => Ok(known.size() as u64),
        ("tokens" | "contexts", "I32", _) => Ok(4),
        _ => {
            let known = if tensor == "activations" { Dtype::KNOWN_IN_HEADERS } else { "I32" };
            let dtype = dtype.chars().take(40).collect();
            Err(HeaderFault::Dtype { tensor: tensor.to_owned(), dtype, known })
        }
    }
}

fn check_metadata(value: &Json) -> Result<(), HeaderFault> {
    match value {
        Json::Object(entries) if entries.iter().all(|(_, v)| matches!(v, Json::Text(_))) => Ok(()),
        _ => Err(HeaderFault::Shape("__metadata__ must map names to text".to_owned())),
    }
}

fn tensor(name: String, value: &Json) -> Result<Tensor, HeaderFault> {
    let Json::Object(entries) = value else {
        return Err(HeaderFault::Shape(format!("{name} must be an object, not {value}")));
    };
    let (mut dtype, mut shape, mut offsets) = (None, None, None);
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("dtype", Json::Text(text)) => dtype = Some(text.clone()),
            ("shape", Json::List(list)) => shape = Some(sizes(&name, "shape", list)?),
            ("data_offsets", Json::List(list)) => offsets = Some(sizes(&name, "data_offsets", list)?),
            _ => return Err(HeaderFault::Shape(format!("{name}: {key:.60?} has no place there, or the wrong type"))),
        }
    }
    let (Some(dtype), Some(shape), Some(offsets)) = (dtype, shape, offsets) else {
        return Err(HeaderFault::Shape(format!("{name} needs dtype, shape and data_offsets")));
    };
    let &[begin, end] = offsets.as_slice() else {
        return Err(HeaderFault::Shape(format!("{name}: data_offsets must be two numbers")));
    };
    let bytes = shape
        .iter()
        .try_fold(value_size(&name, &dtype)?, |product, &n| product.checked_mul(n))
        .ok_or_else(|| HeaderFault::Overflow(format!("{name}: the product of shape {shape:?}")))?;
    match end.checked_sub(begin) {
        Some(found) if found == bytes => Ok(Tensor { name, dtype, shape, begin, end }),
        _ => Err(HeaderFault::Shape(format!("{name}: data_offsets {begin} to {end} do not hold {bytes} bytes"))),
    }
}

fn sizes(tensor: &str, key: &str, list: &[Json]) -> Result<Vec<u64>, HeaderFault> {
    list.iter().map(|item| item.size(&format!("{tensor}: {key}"))).collect()
}
