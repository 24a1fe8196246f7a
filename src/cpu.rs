//! What this processor can do, asked once at run time: wheels are built for the baseline and choose here.

use std::sync::OnceLock;

/// Vector instruction sets that the core has code for, from slowest to fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Portable Rust.
    Scalar,
    /// 128-bit Arm vectors.
    Neon,
    /// 256-bit x86 vectors with fused multiply-add and half-precision conversion.
    Avx2,
    /// 512-bit x86 vectors (F, BW, DQ, VL).
    Avx512,
}

/// The features found on this processor and permitted by this operating system.
#[allow(clippy::struct_excessive_bools)] // each is a feature that a processor has or has not
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// The widest vector instruction set with code in the core.
    pub level: Level,
    /// `vdpbf16ps`: products of bfloat16 pairs, summed in float32.
    pub avx512_bf16: bool,
    /// `vpdpbusd` on 512-bit vectors: products of int8 quadruples, summed in int32.
    pub avx512_vnni: bool,
    /// The same on 256-bit vectors, without AVX-512.
    pub avx_vnni: bool,
    /// Tile products of bfloat16 (the operating system has granted the tile registers).
    pub amx_bf16: bool,
}

impl Level {
    /// Lower-case name, as `SPARSECODE_ENGINE` and `sparsecode doctor` spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl Cpu {
    /// What may be run here, from slowest to fastest.
    pub fn levels(self) -> impl Iterator<Item = Level> {
        [Level::Scalar, Level::Neon, Level::Avx2, Level::Avx512].into_iter().filter(move |level| self.runs(*level))
    }

    /// Whether code for `level` may be run here.
    #[must_use]
    pub fn runs(self, level: Level) -> bool {
        level == Level::Scalar || level == self.level || (level == Level::Avx2 && self.level == Level::Avx512)
    }
}

/// Features of this processor, detected on the first call.
#[must_use]
pub fn cpu() -> Cpu {
    static CPU: OnceLock<Cpu> = OnceLock::new();
    *CPU.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Cpu {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let level = match (avx512 && avx2, avx2) {
        (true, _) => Level::Avx512,
        (_, true) => Level::Avx2,
        _ => Level::Scalar,
    };
    let wide = level == Level::Avx512;
    Cpu {
        level,
        avx512_bf16: wide && is_x86_feature_detected!("avx512bf16"),
        avx512_vnni: wide && is_x86_feature_detected!("avx512vnni"),
        avx_vnni: avx2 && is_x86_feature_detected!("avxvnni"),
        amx_bf16: wide && has_amx_bf16() && amx_permitted(),
    }
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Cpu {
    Cpu { level: Level::Neon, avx512_bf16: false, avx512_vnni: false, avx_vnni: false, amx_bf16: false }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Cpu {
    Cpu { level: Level::Scalar, avx512_bf16: false, avx512_vnni: false, avx_vnni: false, amx_bf16: false }
}

/// CPUID leaf 7: AMX-BF16 (EDX bit 22) and AMX-TILE (EDX bit 24).
#[cfg(target_arch = "x86_64")]
fn has_amx_bf16() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const BF16_AND_TILE: u32 = (1 << 22) | (1 << 24);
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BF16_AND_TILE == BF16_AND_TILE
}

/// Asks Linux for the tile registers of this process; without the grant their first use is a SIGILL.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: arch_prctl with these arguments reads and writes no memory of ours; it changes the process's permissions.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_permitted() -> bool {
    false
}
