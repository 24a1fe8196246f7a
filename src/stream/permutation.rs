//! A keyed permutation of 0..n with O(1) memory: the exact shuffle.
//!
//! An index is split into two coordinates of a rectangle a x b with a, b about the square root of n, and eight rounds of
//! a Feistel network add to one coordinate a keyed hash of the other, modulo its side. Each round can be undone, so the
//! whole is a permutation of the rectangle; an image outside 0..n is sent through again ("cycle walking", Black and
//! Rogaway 2002), which happens to fewer than one index in b. Four rounds of ideal functions are indistinguishable from
//! random (Luby and Rackoff 1988); eight leave room for hashes that are merely good.
//!
//! The numbers are part of the format of an experiment: they may never change (golden values in the tests).

#![allow(clippy::inline_always)] // compiled once per instruction set, inside `range_*`

#[cfg(target_arch = "x86_64")]
use super::permutation512;
use super::rounds::Rounds;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Level;
use crate::cpu::cpu;

/// Indices that are permuted at once, so that the rounds become vector code.
const LANES: usize = 64;
/// Largest n: keeps every sum below 2^32.
const MAX: u64 = 1 << 62;

/// A permutation of 0..n, chosen by (seed, epoch, tag).
#[derive(Debug, Clone)]
pub struct Permutation(Rounds);

impl Permutation {
    /// The permutation of 0..n for a key; `tag` separates uses that share seed and epoch.
    ///
    /// # Panics
    /// If n is 0 or beyond 2^62.
    #[must_use]
    pub fn new(n: u64, seed: u64, epoch: u64, tag: u64) -> Self {
        assert!((1..=MAX).contains(&n), "a permutation of {n}");
        let b = n.isqrt();
        let a = n.div_ceil(b);
        let mut state = [seed, epoch, tag, n].into_iter().fold(0x5061_7273_6543_6f64, |state, word| mix(state ^ word));
        let keys = std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let key = mix(state);
            (key as u32, (key >> 32) as u32 | 1)
        });
        Self(Rounds { n, a: a as u32, b: b as u32, keys })
    }

    /// Size of the permuted set.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.n
    }

    /// The image of `index`.
    ///
    /// # Panics
    /// If `index` is not below n.
    #[must_use]
    pub fn at(&self, index: u64) -> u64 {
        let mut out = [0];
        self.range(index, &mut out);
        out[0]
    }

    /// The images of `start`, `start + 1`, ...
    ///
    /// # Panics
    /// If the range does not lie below n.
    pub fn range(&self, start: u64, out: &mut [u64]) {
        assert!(start.checked_add(out.len() as u64).is_some_and(|end| end <= self.0.n), "beyond a permutation's end");
        match cpu().level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `cpu` found the features.
            Level::Avx512 => unsafe { self.range_avx512(start, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { self.range_avx2(start, out) },
            _ => self.range_on(start, out),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn range_avx512(&self, mut start: u64, out: &mut [u64]) {
        // A vector must not cross more than one row of the rectangle.
        let (fast, rest) = if self.0.b >= 16 { out.as_chunks_mut() } else { (&mut [][..], out) };
        for images in fast {
            if permutation512::images(&self.0, start, images) {
                for image in images {
                    self.walk(image);
                }
            }
            start += permutation512::AT_ONCE as u64;
        }
        self.range_on(start, rest);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn range_avx2(&self, start: u64, out: &mut [u64]) {
        self.range_on(start, out);
    }

    #[inline(always)]
    fn range_on(&self, start: u64, out: &mut [u64]) {
        let side = u64::from(self.0.b);
        let (mut l, mut r) = ((start / side) as u32, (start % side) as u32);
        for chunk in out.chunks_mut(LANES) {
            let (mut ls, mut rs) = ([0_u32; LANES], [0_u32; LANES]);
            for i in 0..chunk.len() {
                (ls[i], rs[i]) = (l, r);
                r += 1;
                if r == self.0.b {
                    (l, r) = (l + 1, 0);
                }
            }
            self.0.run(&mut ls, &mut rs);
            for (i, image) in chunk.iter_mut().enumerate() {
                *image = u64::from(ls[i]) * side + u64::from(rs[i]);
            }
            for image in chunk {
                self.walk(image);
            }
        }
    }

    /// Sends an image outside 0..n through again until it is inside.
    #[inline(always)]
    fn walk(&self, image: &mut u64) {
        let side = u64::from(self.0.b);
        while *image >= self.0.n {
            let (mut l, mut r) = ([(*image / side) as u32], [(*image % side) as u32]);
            self.0.run(&mut l, &mut r);
            *image = u64::from(l[0]) * side + u64::from(r[0]);
        }
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(n: u64, seed: u64, epoch: u64) -> Vec<u64> {
        let mut out = vec![0; n as usize];
        Permutation::new(n, seed, epoch, 0).range(0, &mut out);
        out
    }

    #[test]
    fn every_size_gives_a_permutation() {
        for n in (1..400).chain([1000, 4095, 4096, 4097, 65537, 250_000]) {
            let mut images = all(n, 7, 3);
            images.sort_unstable();
            assert!(images.iter().copied().eq(0..n), "{n}");
        }
    }

    #[test]
    fn one_at_a_time_is_the_same_as_a_range_on_every_level() {
        for n in [1, 2, 63, 255, 256, 257, 1000, 123_457] {
            let p = Permutation::new(n, 1, 2, 3);
            let images = {
                let mut out = vec![0; n as usize];
                p.range(0, &mut out);
                out
            };
            let mut plain = vec![0; n as usize];
            p.range_on(0, &mut plain);
            assert_eq!(images, plain);
            for k in (0..n).step_by(97) {
                assert_eq!(p.at(k), images[k as usize]);
            }
        }
        // Coordinates beyond 2^31, and a start inside a row of the rectangle.
        for n in [MAX, MAX - 1, 1 << 61, (1 << 40) + 3] {
            let p = Permutation::new(n, 4, 5, 6);
            for start in [0, 1, u64::from(p.0.b) - 7, u64::from(p.0.b) * 5 - 40, n - 200] {
                let (mut images, mut plain) = ([0; 200], [0; 200]);
                p.range(start, &mut images);
                p.range_on(start, &mut plain);
                assert_eq!(images, plain, "{n} {start}");
            }
        }
    }

    /// These numbers are pinned: a change would make every recorded experiment see other batches.
    #[test]
    fn golden_values() {
        assert_eq!(all(10, 0, 0), GOLDEN_10);
        let p = Permutation::new(1 << 40, 42, 7, 0);
        assert_eq!([p.at(0), p.at(1), p.at((1 << 40) - 1)], GOLDEN_LARGE);
        let hash = all(100_000, 5, 1).iter().fold(0_u64, |h, &x| mix(h ^ x));
        assert_eq!(hash, GOLDEN_HASH);
    }
    const GOLDEN_10: [u64; 10] = [2, 8, 0, 7, 3, 6, 9, 1, 5, 4];
    const GOLDEN_LARGE: [u64; 3] = [114_695_238_536, 212_002_157_188, 397_260_562_246];
    const GOLDEN_HASH: u64 = 10_139_539_442_305_763_806;

    #[test]
    fn the_largest_size_stays_inside() {
        let p = Permutation::new(MAX, 1, 1, 1);
        for k in [0, 1, MAX / 2, MAX - 1] {
            assert!(p.at(k) < MAX);
        }
    }

    /// Chi-squared of counts against equal expectation, as (statistic - degrees) / sqrt(2 degrees): a few, if uniform.
    fn excess(counts: &[u64]) -> f64 {
        let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        let statistic: f64 = counts.iter().map(|&c| (c as f64 - expected).powi(2) / expected).sum();
        let degrees = (counts.len() - 1) as f64;
        (statistic - degrees) / (2.0 * degrees).sqrt()
    }

    #[test]
    fn images_are_uniform_over_seeds_and_over_epochs() {
        for n in [7_u64, 50, 97, 1000] {
            for index in [0, 1, n / 2, n - 1] {
                let mut by_seed = vec![0; n as usize];
                let mut by_epoch = vec![0; n as usize];
                for key in 0..n * 100 {
                    by_seed[Permutation::new(n, key, 0, 0).at(index) as usize] += 1;
                    by_epoch[Permutation::new(n, 0, key, 0).at(index) as usize] += 1;
                }
                assert!(excess(&by_seed) < 5.0 && excess(&by_epoch) < 5.0, "{n} {index}: {}", excess(&by_seed));
            }
        }
    }

    #[test]
    fn distances_of_neighbours_are_uniform() {
        let n = 101_u64;
        for step in [1, 2, 10, 50] {
            let mut distances = vec![0; n as usize - 1];
            for seed in 0..20_000 {
                let p = Permutation::new(n, seed, 0, 0);
                distances[((p.at(step) + n - p.at(0)) % n - 1) as usize] += 1;
            }
            assert!(excess(&distances) < 5.0, "{step}: {}", excess(&distances));
        }
    }

    #[test]
    fn blocks_of_a_large_permutation_fall_evenly() {
        // Where the first 1/64 of the positions of 8 million rows come from, in 256 equal parts of the rows.
        let n = 8_000_000_u64;
        let mut out = vec![0; (n / 64) as usize];
        for seed in 0..4 {
            let mut parts = vec![0; 256];
            Permutation::new(n, seed, 0, 0).range(n / 3, &mut out);
            for &row in &out {
                parts[(row * 256 / n) as usize] += 1;
            }
            assert!(excess(&parts) < 5.0, "{}", excess(&parts));
        }
    }
}
