//! What the Python tests cannot see: the bound itself, on every path.
use super::assign::{Edges, FREE, assign};
use super::nearest::pack;
use super::products::{Operands, SUMS};
use super::tops::{NONE, Tops};
use super::work::each;
use super::*;
use crate::vector::dot::dot;
use crate::vector::isa::{Isa, Multiply};
use crate::vector::simd::{Kernel, Simd};
use crate::vector::tile::{PANEL, TILE};

/// Numbers that look random.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    }
}

fn unit(rows: &mut [f32], d: usize) {
    for row in rows.chunks_exact_mut(d) {
        let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        for x in row {
            *x = (f64::from(*x) / norm) as f32;
        }
    }
}

fn random(n: usize, d: usize, seed: u64) -> Vec<f32> {
    let mut next = noise(seed);
    let mut rows: Vec<f32> = (0..n * d).map(|_| next()).collect();
    unit(&mut rows, d);
    rows
}

/// Atoms whose entries lie just beside the middle between two numbers of bfloat16, all on one side, then the other.
fn halfway(n: usize, d: usize) -> Vec<f32> {
    let mut rows = vec![0.0; n * d];
    for (i, row) in rows.chunks_exact_mut(d).enumerate() {
        let beside = 1.0 + (0.98 + 0.04 * (i % 2) as f32) / 256.0;
        let scale = 1.0 / (d as f32).sqrt().log2().ceil().exp2();
        row.fill(beside * scale);
        let rest = 1.0 - row[1..].iter().map(|x| x * x).sum::<f32>();
        row[0] = rest.max(0.0).sqrt();
    }
    unit(&mut rows, d);
    rows
}

/// The largest |s - v| of all pairs, as a share of the bound.
struct Worst<'a>(&'a packed::Packed, Multiply);

impl Kernel for Worst<'_> {
    type Output = f32;

    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> f32 {
        let Self(packed, multiply) = self;
        let _registers = multiply.configure();
        let (a, b) = (&packed.segments[0], &packed.segments[1]);
        let mut worst = 0.0f32;
        let mut sums = [0.0; SUMS];
        for row in (a.start..a.start + a.padded()).step_by(TILE) {
            for column in (b.start..b.start + b.padded()).step_by(PANEL) {
                multiply.run(s, &Operands::new(packed, row, column), &mut sums);
                for (place, sum) in sums.iter().enumerate() {
                    let (j, r) = (place / TILE, place % TILE);
                    let exact = dot(s, packed.atom(row + r), packed.atom(column + j));
                    worst = worst.max((sum - exact).abs() / packed::Packed::error(a, b));
                }
            }
        }
        worst
    }
}

#[test]
fn products_stay_within_the_bound_on_every_path() {
    for name in Isa::available() {
        let isa = Isa::named(name).unwrap();
        for d in [1, 3, 16, 37, 128, 250, 1000] {
            for (a, b) in [
                (random(70, d, 1), random(40, d, 2)),
                (halfway(65, d), halfway(33, d)),
                (halfway(65, d), random(33, d, 3)),
            ] {
                let worst = isa.run(Worst(&pack(&isa, 1, &a, &b, d).unwrap(), isa.multiply()));
                assert!(worst <= 1.0, "{name}, d = {d}: {worst} of the bound");
            }
        }
    }
}

#[test]
fn the_bound_is_reached() {
    // Atoms that are off by almost half a step of bfloat16 everywhere: the bound is reached, a smaller one would be wrong.
    let Ok(isa) = Isa::named("amx") else { return };
    let a = halfway(64, 250);
    let worst = isa.run(Worst(&pack(&isa, 1, &a, &a, 250).unwrap(), isa.multiply()));
    assert!(worst > 0.9, "{worst} of the bound");
}

#[test]
fn the_best_are_kept_in_any_order() {
    let mut offers: Vec<(f32, u32)> = (0..40).map(|i| ((i * 7 % 11) as f32, i)).collect();
    let mut expected = offers.clone();
    expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    for _ in 0..5 {
        offers.rotate_left(13);
        let mut tops = Tops::new(2, 6);
        assert!(tops.last(1).is_none() && tops.of(1).next().is_none());
        for (value, index) in &offers {
            tops.offer(1, *value, *index);
        }
        assert_eq!(tops.of(1).collect::<Vec<_>>(), expected[..6]);
        assert_eq!(tops.indices()[..6], [NONE; 6]);
    }
}

#[test]
fn a_row_stays_free_where_that_is_heavier() {
    // Two rows want the one column; a third has no edge.
    let edges = Edges { starts: vec![0, 1, 2, 2], columns: vec![0, 0], weights: vec![5, 7] };
    let found = assign(&edges, 2, &mut |_| false).unwrap();
    assert_eq!(found.column_of, [FREE, 0, FREE]);
    assert_eq!(found.row_of, [1, FREE]);
    assert_eq!(found.u.iter().sum::<i64>() + found.v.iter().sum::<i64>(), 7);
}

#[test]
fn a_stop_is_heard_between_pieces() {
    let done = std::sync::atomic::AtomicUsize::new(0);
    let count = |(): &mut (), _: &usize| {
        done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let items: Vec<usize> = (0..100).collect();
    assert!(!each(1, &items, |_| 1, &mut |_| true, || (), count));
    assert_eq!(done.swap(0, std::sync::atomic::Ordering::Relaxed), 1);
    assert!(each(3, &items, |_| 1, &mut |_| false, || (), count));
    assert_eq!(done.into_inner(), 100);
}

#[test]
fn more_candidates_than_atoms_take_no_memory() {
    let (a, b, d) = (random(70, 8, 1), random(90, 8, 2), 8);
    let isa = Isa::named("auto").unwrap();
    let found = [90, usize::MAX].map(|candidates| {
        let settings = Settings { candidates, absolute: false, threads: 1 };
        match_one_to_one(&isa, (&a, &b, d), settings, &mut |_| false).unwrap().unwrap()
    });
    assert_eq!(found[0].partner, found[1].partner);
}
