//! Every operation on sixteen lanes gives the same bits on every instruction set that runs here.

use super::isa::Isa;
use super::simd::{Kernel, LANES, Lanes, Simd};

/// Numbers that are large, small, subnormal, equal, of both signs, and neither NaN nor infinite.
fn numbers(seed: u32) -> Lanes {
    std::array::from_fn(|i| {
        let bits = (seed * 16 + i as u32).wrapping_mul(2_654_435_761);
        match bits >> 29 {
            0 => 0.0,
            1 => -0.0,
            2 => f32::from_bits(bits & 0x007f_ffff),
            _ => f32::from_bits((bits & 0x807f_ffff) | ((100 + (bits >> 24) % 50) << 23)),
        }
    })
}

/// All operations on four vectors, as bits.
struct Everything([Lanes; 4]);

impl Kernel for Everything {
    type Output = Vec<u32>;

    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> Vec<u32> {
        let four = self.0.map(|lanes| s.load(&lanes));
        let [a, b, c, d] = four;
        let small = s.mul(s.drop_below(a, 1e-3), s.splat(1e-5));
        let vectors = [
            s.add(a, b),
            s.sub(a, b),
            s.mul(a, b),
            s.div(a, s.add(s.max(b, s.sub(s.zero(), b)), s.splat(1.0))),
            s.fma(a, b, c),
            s.max(a, b),
            s.drop_below(c, 1.0),
            s.sqrt(s.max(a, s.sub(s.zero(), a))),
            s.add(s.round(small), s.zero()),
            s.scale_by_power(b, s.round(small)),
            s.load_part(&self.0[3][..11]),
        ];
        let mut bits: Vec<u32> = vectors.iter().flat_map(|v| s.lanes(*v)).map(f32::to_bits).collect();
        bits.extend(s.sum4(four).map(f32::to_bits));
        bits.extend([s.sum(a), s.sum_in_order(b), s.largest(c)].map(f32::to_bits));
        bits.extend([s.not_le(a, b), s.not_le(s.splat(f32::NAN), a), s.not_le(d, d)]);
        let mut part = [7.0; 5];
        s.store_part(d, &mut part);
        bits.extend(part.map(f32::to_bits));
        let bytes: [u8; 32] = std::array::from_fn(|i| (i * 37) as u8 & 0x7b);
        let mut halves = [0u8; 32];
        // SAFETY: two bytes for each of sixteen values.
        let wide = unsafe {
            s.write_f16(small, halves.as_mut_ptr());
            [s.read_f16(bytes.as_ptr()), s.read_bf16(bytes.as_ptr()), s.read_f16(halves.as_ptr())]
        };
        bits.extend(wide.iter().flat_map(|v| s.lanes(*v)).map(f32::to_bits));
        assert_eq!(s.sum(a).to_bits(), s.sum4([a; 4])[3].to_bits());
        assert_eq!(S::WIDTH, LANES);
        bits
    }
}

#[test]
#[cfg_attr(miri, ignore = "instructions that Miri does not know")]
fn operations_give_the_same_bits_on_every_instruction_set() {
    for seed in 0..500 {
        let four = [0, 1, 2, 3].map(|i| numbers(4 * seed + i));
        let expected = Isa::named("scalar").unwrap().run(Everything(four));
        for name in Isa::available() {
            assert_eq!(Isa::named(name).unwrap().run(Everything(four)), expected, "{name} {seed}");
        }
    }
}
