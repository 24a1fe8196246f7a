//! Which instructions the engine uses: what this processor has, or what was asked for by name.

use super::screen::{Mask, Rounding, ScreenFloat32, Screening};
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Amx, Avx2, Avx512, Avx512Vnni, AvxVnni};
use super::simd::{Kernel, Scalar};
use crate::error::{Error, Result};

/// Lanes of the exact part.
#[derive(Debug, Clone, Copy)]
enum Width {
    Scalar(Scalar),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// What the screen multiplies with.
#[derive(Debug, Clone, Copy)]
enum Screen {
    Float32,
    #[cfg(target_arch = "x86_64")]
    Int8(Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    NarrowInt8(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Tiles(Amx),
}

/// A way to compute: all give the same bits, at different speeds.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    name: &'static str,
    width: Width,
    screen: Screen,
}

/// Every name, fastest first.
pub const NAMES: [&str; 7] = ["amx", "vnni", "avx512", "avxvnni", "avx2", "neon", "scalar"];

impl Path {
    /// The path of that name; `auto` is the fastest that runs here.
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

    /// Names of the paths that run here, fastest first.
    #[must_use]
    pub fn available() -> Vec<&'static str> {
        NAMES.iter().copied().filter(|name| Self::find(name).is_some()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn find(name: &str) -> Option<Self> {
        let wide = || Avx512::detect().map(Width::Avx512);
        let narrow = || Avx2::detect().map(Width::Avx2);
        let (width, screen) = match name {
            "amx" => (wide()?, Screen::Tiles(Amx::detect()?)),
            "vnni" => (wide()?, Screen::Int8(Avx512Vnni::detect()?)),
            "avx512" => (wide()?, Screen::Float32),
            "avxvnni" => (narrow()?, Screen::NarrowInt8(AvxVnni::detect()?)),
            "avx2" => (narrow()?, Screen::Float32),
            "scalar" => (Width::Scalar(Scalar), Screen::Float32),
            _ => return None,
        };
        Some(Self { name: NAMES.iter().find(|known| **known == name)?, width, screen })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn find(name: &str) -> Option<Self> {
        let width = match name {
            #[cfg(target_arch = "aarch64")]
            "neon" => Width::Neon(Neon),
            "scalar" => Width::Scalar(Scalar),
            _ => return None,
        };
        Some(Self { name: NAMES.iter().find(|known| **known == name)?, width, screen: Screen::Float32 })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How its screen rounds.
    #[must_use]
    pub fn rounding(&self) -> Rounding {
        match self.screen {
            Screen::Float32 => Rounding::Float32,
            #[cfg(target_arch = "x86_64")]
            Screen::Tiles(_) => Rounding::Bfloat16,
            #[cfg(target_arch = "x86_64")]
            Screen::Int8(_) | Screen::NarrowInt8(_) => Rounding::Int8,
        }
    }

    /// Runs a kernel on its lanes.
    pub fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        use super::simd::Simd;
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
        match self.screen {
            Screen::Float32 => self.run(ScreenFloat32 { what, masks: &mut masks[..n] }),
            #[cfg(target_arch = "x86_64")]
            Screen::Int8(p) => p.screen(what, &mut masks[..n]),
            #[cfg(target_arch = "x86_64")]
            Screen::NarrowInt8(p) => p.screen(what, &mut masks[..n]),
            #[cfg(target_arch = "x86_64")]
            Screen::Tiles(p) => p.screen(what, masks),
        }
    }
}

fn unavailable(name: &str) -> Error {
    Error::InvalidArgument(format!(
        "engine path '{name}' cannot run on this machine; these can: {}",
        Path::available().join(", ")
    ))
}
