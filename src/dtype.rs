//! Types of stored activations.

use crate::error::{Error, Result};

/// How an activation is stored. Little-endian, as safetensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// IEEE binary32.
    F32,
}

impl Dtype {
    /// The names that safetensors headers use, as an error message lists them.
    pub const KNOWN_IN_HEADERS: &str = "F16, BF16, F32";

    /// Bytes of one value.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Name in manifests and in Python.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
        }
    }

    /// The dtype of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F16, Self::Bf16, Self::F32].into_iter().find(|dtype| dtype.name() == name)
    }

    /// The same, where there must be one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: no such name.
    pub fn named(name: &str) -> Result<Self> {
        let choices = "cannot be stored; choose float16, bfloat16 or float32";
        Self::from_name(name).ok_or_else(|| Error::InvalidArgument(format!("dtype {name:?} {choices}")))
    }

    /// Name in safetensors headers.
    #[must_use]
    pub fn header_name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F32 => "F32",
        }
    }

    /// The dtype that a safetensors header calls so.
    #[must_use]
    pub fn from_header_name(name: &str) -> Option<Self> {
        [Self::F16, Self::Bf16, Self::F32].into_iter().find(|dtype| dtype.header_name() == name)
    }
}
