//! Half precision and bfloat16 in portable code: the reference that every instruction set equals bit for bit.

/// binary16 to binary32, exact; a signalling NaN becomes quiet, as in hardware.
#[inline(always)]
#[must_use]
pub fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half & 0x3ff);
    let bits = match exponent {
        // Zero or subnormal: fraction times 2^-24, which float32 holds exactly.
        0 => (fraction as f32 * (1.0 / 16_777_216.0)).to_bits(),
        31 if fraction == 0 => 0x7f80_0000,
        31 => 0x7fc0_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | bits)
}

/// binary32 to binary16, to nearest, ties to even; a NaN keeps its upper payload and becomes quiet, as in hardware.
#[inline(always)]
#[must_use]
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    sign | match magnitude {
        0x7f80_0001.. => 0x7e00 | ((magnitude >> 13) & 0x3ff) as u16,
        // 65520 and more is nearer to 65536, which does not exist.
        0x477f_f000.. => 0x7c00,
        // Normal: rebias by 112, round by adding half of the last kept bit, less one where that bit is even.
        0x3880_0000.. => ((magnitude - 0x3800_0000 + 0xfff + ((magnitude >> 13) & 1)) >> 13) as u16,
        // Subnormal: adding 0.5 aligns the fraction at 2^-24 and lets the processor round to nearest even.
        _ => ((f32::from_bits(magnitude) + 0.5).to_bits() & 0x7fff) as u16,
    }
}

/// binary32 to bfloat16, to nearest, ties to even; a NaN keeps its upper payload and becomes quiet.
#[inline(always)]
#[must_use]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    if (bits & 0x7fff_ffff) > 0x7f80_0000 { (bits >> 16) as u16 | 0x40 } else { rounded }
}
