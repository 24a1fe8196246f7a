//! A few steps on every path that runs here give the same bits: small enough for the address sanitizer (`make sanitize`)
//! and, on the portable path, for Miri. `tests/sweep/test_engines.py` holds the engine against the float64 reference.
use super::*;
use crate::vector::isa::Isa;
use crate::vector::simd::{Kernel, LANES, Simd};

const D: usize = 20;
const SIZES: [usize; 2] = [7, 40];
const ROWS: usize = 130;

/// Numbers between -1 and 1, the same ones every time.
fn numbers(len: usize, mut seed: u32) -> Vec<f32> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// A parameter with its moments.
struct Tensor([Vec<f32>; 3]);

impl Tensor {
    fn new(value: Vec<f32>) -> Self {
        let zeros = vec![0.0; value.len()];
        Self([value, zeros.clone(), zeros])
    }

    fn trained(&mut self) -> Trained<'_> {
        let [value, m, v] = &mut self.0;
        Trained { value, m, v }
    }
}

/// Encoder, biases, decoder and pre-biases of dictionaries of `SIZES`.
fn parameters() -> [Tensor; 4] {
    let total: usize = SIZES.iter().sum();
    [numbers(total * D, 1), numbers(total, 2), numbers(total * D, 3), numbers(SIZES.len() * D, 4)].map(Tensor::new)
}

/// The bits of all parameters and sums after some steps.
fn bits_after(steps: u64, rows: usize, isa: &str, threads: usize, codes: CodesAs) -> Vec<u64> {
    bits_from(parameters(), &numbers(rows * D, 5), steps, isa, threads, codes)
}

/// The same from these parameters on, with these rows.
fn bits_from(mut tensors: [Tensor; 4], x: &[f32], steps: u64, isa: &str, threads: usize, codes: CodesAs) -> Vec<u64> {
    let (total, rows) = (SIZES.iter().sum(), x.len() / D);
    let mut fired = vec![0i64; total];
    let mut engine = Engine::new(Isa::named(isa).unwrap(), threads).with_codes(codes);
    let mut found = Vec::new();
    for t in 1..=steps {
        let [encoder, bias, decoder, pre_bias] = &mut tensors;
        let mut sweep = Sweep {
            d: D,
            sizes: &SIZES,
            l1: &[0.01, 0.02],
            lr: &[1e-3, 2e-3],
            loss: Loss { mean: true, per_size: false, project: true },
            encoder: Some(encoder.trained()),
            bias: bias.trained(),
            decoder: decoder.trained(),
            pre_bias: Some(pre_bias.trained()),
            fired: &mut fired,
            idle: None,
            kinds: None,
        };
        let totals = engine
            .run(&mut sweep, Activations { x, rows }, Mode::Step { t, factors: Factors { lr: 1.0, l1: 1.0 } })
            .unwrap();
        found.extend(totals.sse.iter().chain(&totals.l1).map(|sum| sum.to_bits()));
    }
    assert!(fired.iter().any(|count| *count > 0));
    found.extend(tensors.iter().flat_map(|tensor| &tensor.0).flatten().map(|value| u64::from(value.to_bits())));
    found
}

#[test]
fn the_portable_path_gives_the_same_bits_as_lists_and_as_matrices() {
    let rows = if cfg!(miri) { 66 } else { ROWS };
    let steps = if cfg!(miri) { 1 } else { 3 };
    let lists = bits_after(steps, rows, "scalar", 1, CodesAs::Lists);
    assert_eq!(lists, bits_after(steps, rows, "scalar", 2, CodesAs::Dense));
}

#[test]
#[cfg_attr(miri, ignore = "instructions that Miri does not know")]
fn every_path_gives_the_same_bits_for_any_number_of_threads() {
    let expected = bits_after(3, ROWS, "scalar", 1, CodesAs::Lists);
    for isa in Isa::available() {
        for threads in [1, 3] {
            for codes in [CodesAs::Lists, CodesAs::Dense, CodesAs::Measured] {
                assert_eq!(expected, bits_after(3, ROWS, isa, threads, codes), "{isa} {threads} {codes:?}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "instructions that Miri does not know")]
fn every_path_takes_numbers_that_are_not_finite_alike() {
    for spoiled in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in ["encoder", "bias", "decoder", "pre-bias", "row"] {
            let run = |isa: &str, threads: usize, codes: CodesAs| {
                let (mut tensors, mut x) = (parameters(), numbers(ROWS * D, 5));
                match place {
                    "encoder" => tensors[0].0[0][3 * D + 1] = spoiled,
                    "bias" => tensors[1].0[0][3] = spoiled,
                    "decoder" => tensors[2].0[0][3 * D + 1] = spoiled,
                    "pre-bias" => tensors[3].0[0][1] = spoiled,
                    _ => x[70 * D + 1] = spoiled,
                }
                bits_from(tensors, &x, 2, isa, threads, codes)
            };
            let expected = run("scalar", 1, CodesAs::Lists);
            for isa in Isa::available() {
                for (threads, codes) in [(1, CodesAs::Lists), (3, CodesAs::Dense), (2, CodesAs::Measured)] {
                    let found = run(isa, threads, codes);
                    assert!(same_but_for_nan(&expected, &found), "{spoiled} {place} {isa} {codes:?}");
                }
            }
        }
    }
}

/// Whether all bits are the same, or both of a NaN: processors differ in its sign.
fn same_but_for_nan(a: &[u64], b: &[u64]) -> bool {
    let nan =
        |bits: u64| if bits >> 32 == 0 { f32::from_bits(bits as u32).is_nan() } else { f64::from_bits(bits).is_nan() };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || nan(*a) && nan(*b))
}

/// Sums of a dictionary by itself, without a pre-bias: encoder, biases and decoder.
fn run_alone(engine: &mut Engine, tensors: &mut [Tensor; 3], x: &[f32], rows: usize, mode: Mode) -> Totals {
    let [encoder, bias, decoder] = tensors;
    let n = bias.0[0].len();
    let mut sweep = Sweep {
        d: x.len() / rows,
        sizes: &[n],
        l1: &[0.01],
        lr: &[1e-3],
        loss: Loss { mean: true, per_size: false, project: true },
        encoder: Some(encoder.trained()),
        bias: bias.trained(),
        decoder: decoder.trained(),
        pre_bias: None,
        fired: &mut vec![0; n],
        idle: None,
        kinds: None,
    };
    engine.run(&mut sweep, Activations { x, rows }, mode).unwrap()
}

/// A digest of 64 bits of numbers.
fn digest(bits: &[u64]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&bits.iter().flat_map(|bits| bits.to_le_bytes()).collect::<Vec<u8>>())
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn the_bits_are_those_of_every_other_machine() {
    // Pinned on x86-64. A run that is resumed on another processor goes on with the same bits.
    let expected = 10_007_590_741_834_269_852;
    for isa in Isa::available() {
        assert_eq!(digest(&bits_after(3, ROWS, isa, 1, CodesAs::Lists)), expected, "{isa}");
    }
    // What depends on the step's number alone, up to where it is constant.
    let rates: Vec<u64> = (1..40_000).flat_map(|t| adam::Adam::new(t, 3e-3).bits()).collect();
    assert_eq!(digest(&rates), 10_549_623_200_537_954_821);
}

#[test]
#[cfg_attr(miri, ignore = "instructions that Miri does not know")]
fn candidates_that_are_no_codes_make_no_matrices() {
    let n = SIZES[1];
    let row = numbers(D, 1);
    let x = row.repeat(ROWS);
    let encoder = numbers(n * D, 2);
    // Just below zero everywhere, by less than any screen can tell.
    let bias: Vec<f32> =
        encoder.chunks(D).map(|w| -1e-5 - w.iter().zip(&row).map(|(w, x)| w * x).sum::<f32>()).collect();
    for isa in Isa::available() {
        let mut tensors = [encoder.clone(), bias.clone(), numbers(n * D, 3)].map(Tensor::new);
        let mut engine = Engine::new(Isa::named(isa).unwrap(), 1);
        for t in 1..=3 {
            let totals =
                run_alone(&mut engine, &mut tensors, &x, ROWS, Mode::Step { t, factors: Factors { lr: 1.0, l1: 1.0 } });
            assert_eq!(totals.l0, [0.0]);
            // The first step has matrices, since nothing is known before it; they know no candidates.
            if t > 1 {
                assert_eq!(totals.candidates, [(n * ROWS) as f64], "{isa}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "instructions that Miri does not know")]
fn sums_of_integers_do_not_overflow_in_wide_rows() {
    // 255 * 127 * D is beyond 2^31 - 1.
    const D: usize = 66_400;
    let x = vec![1.0; D];
    for isa in Isa::available() {
        let mut tensors = [vec![0.5; D], vec![-1.0], vec![(D as f32).sqrt().recip(); D]].map(Tensor::new);
        let mut engine = Engine::new(Isa::named(isa).unwrap(), 1).with_codes(CodesAs::Lists);
        let totals = run_alone(&mut engine, &mut tensors, &x, 1, Mode::Evaluate);
        assert_eq!(totals.l0, [1.0], "{isa}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "instructions that Miri does not know")]
fn few_candidates_are_multiplied_each_with_its_own_feature() {
    // A last group of one to four candidates, the first of which are feature 0.
    for (n, rows) in [(1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (2, 3), (3, 3), (5, 1), (2, 65)] {
        // Feature j is active on the last row only, feature 0 on all.
        let x: Vec<f32> = (1..=rows).flat_map(|row| [1.0, if row == rows { 1.0 } else { 0.0 }]).collect();
        let encoder: Vec<f32> = (0..n).flat_map(|j| if j == 0 { [1.0, 0.0] } else { [0.0, (j + 1) as f32] }).collect();
        let bias: Vec<f32> = (0..n).map(|j| if j == 0 { 0.0 } else { -0.5 }).collect();
        let expected = rows as f64 + (1..n).map(|j| (j + 1) as f64 - 0.5).sum::<f64>();
        for isa in Isa::available() {
            for codes in [CodesAs::Lists, CodesAs::Dense] {
                let mut tensors = [encoder.clone(), bias.clone(), encoder.clone()].map(Tensor::new);
                let mut engine = Engine::new(Isa::named(isa).unwrap(), 1).with_codes(codes);
                let totals = run_alone(&mut engine, &mut tensors, &x, rows, Mode::Evaluate);
                assert_eq!(totals.l1, [expected], "{isa} {codes:?} {n} {rows}");
            }
        }
    }
}

/// Set bits listed and lanes kept, beside loops over single bits.
struct Lists(Vec<u64>);

impl Kernel for Lists {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        for bits in self.0 {
            let expected: Vec<u32> = (0..64).filter(|i| bits >> i & 1 == 1).collect();
            let mut places = vec![9; expected.len() + LANES];
            assert_eq!(s.list_bits(bits, 300, &mut places), expected.len());
            assert!(places.iter().zip(&expected).all(|(place, i)| *place == 300 + i), "{bits:x}: {places:?}");
            // Bits that are no number's are kept as well.
            let lanes: [f32; LANES] = std::array::from_fn(|i| f32::from_bits(0x7f80_0001 + i as u32));
            let numbers: [u32; LANES] = std::array::from_fn(|i| i as u32 * 7);
            let (mut kept_lanes, mut kept_numbers) = ([0.0; LANES], [0; LANES]);
            let kept = bits as u32 & 0xffff;
            s.compress(&lanes, kept, &mut kept_lanes);
            s.compress(&numbers, kept, &mut kept_numbers);
            for (at, i) in (0..LANES).filter(|i| kept >> i & 1 == 1).enumerate() {
                assert_eq!(kept_lanes[at].to_bits(), lanes[i].to_bits(), "{bits:x}");
                assert_eq!(kept_numbers[at], numbers[i], "{bits:x}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "instructions that Miri does not know")]
fn every_path_lists_set_bits_and_keeps_lanes() {
    let mut bits = vec![0, u64::MAX, 1, 1 << 63, 0xffff_0000_0000_ffff];
    bits.extend((0..200u64).map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & (i << 32 | u64::MAX >> (i % 64))));
    for isa in Isa::available() {
        Isa::named(isa).unwrap().run(Lists(bits.clone()));
    }
}

#[test]
fn the_kth_largest_product_is_that_of_a_sort() {
    let value = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5;
    for (rows, n, d) in [(1, 1, 1), (9, 3, 5), (40, 37, 16), (133, 65, 33)] {
        let x: Vec<f32> = (0..rows * d).map(value).collect();
        let weights: Vec<f32> = (0..n * d).map(|i| value(i + 31)).collect();
        for k in [1, rows.div_ceil(3), rows] {
            let found = kth_largest(Isa::named("scalar").unwrap(), 1, &x, &weights, d, k).unwrap();
            for (w, found) in weights.chunks_exact(d).zip(&found) {
                let mut products: Vec<f64> = x
                    .chunks_exact(d)
                    .map(|x| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum())
                    .collect();
                products.sort_by(|a, b| b.total_cmp(a));
                assert!((f64::from(*found) - products[k - 1]).abs() < 1e-5, "{rows} {n} {d} {k}");
            }
            for isa in Isa::available() {
                let isa = Isa::named(isa).unwrap();
                assert_eq!(kth_largest(isa, 3, &x, &weights, d, k).unwrap(), found);
            }
        }
    }
    let isa = Isa::named("auto").unwrap();
    assert!(kth_largest(isa, 1, &[0.0; 6], &[0.0; 6], 3, 3).is_err());
    assert!(kth_largest(isa, 1, &[0.0; 6], &[0.0; 6], 3, 0).is_err());
    assert!(kth_largest(isa, 1, &[0.0; 5], &[0.0; 6], 3, 1).is_err());
}
