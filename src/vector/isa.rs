//! Which instructions are used: what this processor has, or what was asked for by name.

#[cfg(target_arch = "x86_64")]
use super::amx::Amx;
#[cfg(target_arch = "x86_64")]
use super::bytes::{Avx512Vnni, AvxVnni};
use super::rounding::Rounding;
use super::screening::{ScreenFloat32, Screening};
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512, Twice};
use super::simd::{Kernel, LANES, Portable, Simd};
#[cfg(target_arch = "aarch64")]
use super::simd::{Neon, Twice};
use super::tile::Mask;
use crate::error::{Error, Result};

/// Lanes of the exact part.
#[derive(Debug, Clone, Copy)]
enum Width {
    Scalar(Portable<LANES>),
    #[cfg(target_arch = "aarch64")]
    Neon(Twice<Twice<Neon>>),
    #[cfg(target_arch = "x86_64")]
    Avx2(Twice<Avx2>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// What multiplies where a bound on the error is enough.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Multiply {
    /// The lanes themselves.
    Float32,
    /// Bytes.
    #[cfg(target_arch = "x86_64")]
    Int8(Avx512Vnni),
    /// Bytes in narrower vectors.
    #[cfg(target_arch = "x86_64")]
    NarrowInt8(AvxVnni),
    /// Tiles of bfloat16.
    #[cfg(target_arch = "x86_64")]
    Tiles(Amx),
}

/// An instruction set to compute with: all give the same bits, at different speeds.
#[derive(Debug, Clone, Copy)]
pub struct Isa {
    name: &'static str,
    width: Width,
    multiply: Multiply,
}

/// Every name, fastest first.
pub const NAMES: [&str; 7] = ["amx", "vnni", "avx512", "avxvnni", "avx2", "neon", "scalar"];

impl Isa {
    /// The instruction set of that name; `auto` is the fastest that runs here.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]: no such name, or this machine cannot run it.
    pub fn named(name: &str) -> Result<Self> {
        if name == "auto" {
            return NAMES.iter().find_map(|name| Self::find(name)).ok_or_else(|| unavailable(name));
        }
        if !NAMES.contains(&name) {
            return Err(Error::InvalidArgument(format!(
                "engine path '{name}' is unknown; known: auto, {}",
                NAMES.join(", ")
            )));
        }
        Self::find(name).ok_or_else(|| unavailable(name))
    }

    /// Names of those that run here, fastest first.
    #[must_use]
    pub fn available() -> Vec<&'static str> {
        NAMES.iter().copied().filter(|name| Self::find(name).is_some()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn find(name: &str) -> Option<Self> {
        let wide = || Avx512::detect().map(Width::Avx512);
        let narrow = || Avx2::detect().map(|s| Width::Avx2(Twice(s)));
        let (width, multiply) = match name {
            "amx" => (wide()?, Multiply::Tiles(Amx::detect()?)),
            "vnni" => (wide()?, Multiply::Int8(Avx512Vnni::detect()?)),
            "avx512" => (wide()?, Multiply::Float32),
            "avxvnni" => (narrow()?, Multiply::NarrowInt8(AvxVnni::detect()?)),
            "avx2" => (narrow()?, Multiply::Float32),
            "scalar" => (Width::Scalar(Portable), Multiply::Float32),
            _ => return None,
        };
        Some(Self { name: NAMES.iter().find(|known| **known == name)?, width, multiply })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn find(name: &str) -> Option<Self> {
        let width = match name {
            #[cfg(target_arch = "aarch64")]
            "neon" => Width::Neon(Twice(Twice(Neon))),
            "scalar" => Width::Scalar(Portable),
            _ => return None,
        };
        Some(Self { name: NAMES.iter().find(|known| **known == name)?, width, multiply: Multiply::Float32 })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What multiplies its screens.
    pub(crate) fn multiply(&self) -> Multiply {
        self.multiply
    }

    /// How its screen rounds.
    #[must_use]
    pub fn rounding(&self) -> Rounding {
        match self.multiply {
            Multiply::Float32 => Rounding::Float32,
            #[cfg(target_arch = "x86_64")]
            Multiply::Tiles(_) => Rounding::Bfloat16,
            #[cfg(target_arch = "x86_64")]
            Multiply::Int8(_) | Multiply::NarrowInt8(_) => Rounding::Int8,
        }
    }

    /// Runs a kernel on its lanes.
    pub fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        match self.width {
            Width::Scalar(s) => s.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Width::Neon(s) => s.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Width::Avx2(s) => s.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Width::Avx512(s) => s.run(kernel),
        }
    }

    /// Screens one tile of rows against `n` features; `masks` has whole panels, those beyond `n` mean nothing.
    pub fn screen(&self, what: Screening<'_>, n: usize, masks: &mut [Mask]) {
        match self.multiply {
            Multiply::Float32 => self.run(ScreenFloat32 { what, masks: &mut masks[..n] }),
            #[cfg(target_arch = "x86_64")]
            Multiply::Int8(p) => p.screen(what, &mut masks[..n]),
            #[cfg(target_arch = "x86_64")]
            Multiply::NarrowInt8(p) => p.screen(what, &mut masks[..n]),
            #[cfg(target_arch = "x86_64")]
            Multiply::Tiles(p) => p.screen(what, masks),
        }
    }
}

fn unavailable(name: &str) -> Error {
    Error::InvalidArgument(format!(
        "engine path '{name}' cannot run on this machine; these can: {}",
        Isa::available().join(", ")
    ))
}
