//! The rounds of the permutation's Feistel network, in portable code.

#![allow(clippy::inline_always)] // compiled once per instruction set, inside `Permutation::range`

pub const ROUNDS: usize = 8;

/// A rectangle and the keys of the rounds on it.
#[derive(Debug, Clone)]
pub struct Rounds {
    pub n: u64,
    /// Sides of the rectangle: the first coordinate is below `a`, the second below `b`.
    pub a: u32,
    pub b: u32,
    pub keys: [(u32, u32); ROUNDS],
}

impl Rounds {
    /// Sends coordinates through all rounds.
    #[inline(always)]
    pub fn run<const N: usize>(&self, l: &mut [u32; N], r: &mut [u32; N]) {
        for pair in self.keys.as_chunks::<2>().0 {
            for i in 0..N {
                l[i] = add_below(l[i], hash(r[i], pair[0], self.a), self.a);
            }
            for i in 0..N {
                r[i] = add_below(r[i], hash(l[i], pair[1], self.b), self.b);
            }
        }
    }
}

/// x + y mod side, both below `side`, which is below 2^31 + 1.
#[inline(always)]
fn add_below(x: u32, y: u32, side: u32) -> u32 {
    let sum = x + y;
    sum.min(sum.wrapping_sub(side))
}

/// A number below `side` (Lemire's multiplication instead of a remainder).
#[inline(always)]
fn hash(x: u32, key: (u32, u32), side: u32) -> u32 {
    let mut h = (x ^ key.0).wrapping_mul(0x9e37_79b1);
    h ^= h >> 15;
    h = h.wrapping_mul(key.1);
    h ^= h >> 13;
    h = h.wrapping_mul(0x85eb_ca6b);
    ((u64::from(h) * u64::from(side)) >> 32) as u32
}
