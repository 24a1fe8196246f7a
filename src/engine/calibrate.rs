//! Order statistics of pre-activations, from which biases are set at the start: see [`kth_largest`].
use std::sync::Mutex;

use super::dense_products::{fill_panels, fill_quads, products};
use super::team::Team;
use crate::error::{Error, Result};
use crate::threads::lock;
use crate::vector::aligned::Aligned;
use crate::vector::isa::Isa;
use crate::vector::simd::{Kernel, LANES, Simd};

/// Features whose products with all rows a thread holds at a time: 1 MB for 8,192 rows.
const GROUP: usize = 2 * LANES;

/// For each of the features whose encoder rows are `weights` [n][d], the `k`-th largest (from 1) of its products with the
/// rows `x` [rows][d], in the order of addition that every step has: with a bias of its negative, exactly the products
/// that are larger make the feature fire.
///
/// The same bits on every path, for any number of threads, and for a feature alone or among others.
///
/// # Errors
/// [`Error::InvalidArgument`]: shapes that do not fit each other, or no `k`-th row.
pub fn kth_largest(isa: Isa, threads: usize, x: &[f32], weights: &[f32], d: usize, k: usize) -> Result<Vec<f32>> {
    if d == 0 || !x.len().is_multiple_of(d) || !weights.len().is_multiple_of(d) || k == 0 || k > x.len() / d {
        return Err(Error::InvalidArgument(format!(
            "engine: {} and {} values are not rows of {d}, or have no {k}-th largest",
            x.len(),
            weights.len()
        )));
    }
    let rows = x.len() / d;
    let stride = d.next_multiple_of(LANES);
    let mut padded = Aligned::default();
    padded.resize(rows * stride);
    padded.fill(0.0);
    for (to, from) in padded.chunks_exact_mut(stride).zip(x.chunks_exact(d)) {
        to[..d].copy_from_slice(from);
    }
    let mut quads = Aligned::default();
    fill_quads(&padded, stride, &mut quads);
    let mut found = vec![0.0; weights.len() / d];
    let team = Team::new(threads);
    let scratch: Vec<_> = (0..team.threads()).map(|_| Mutex::<Scratch>::default()).collect();
    let mut items: Vec<_> = weights.chunks(GROUP * d).zip(found.chunks_mut(GROUP)).collect();
    team.for_each(&mut items, |thread, _, (weights, found)| {
        let scratch = &mut *lock(&scratch[thread]);
        isa.run(KthLargest { d, stride, rows, weights, quads: &quads, k, scratch, found });
    });
    Ok(found)
}

/// What a thread keeps from group to group.
#[derive(Default)]
struct Scratch {
    panel: Aligned,
    products: Aligned,
    column: Vec<f32>,
}

struct KthLargest<'a, 'b> {
    d: usize,
    stride: usize,
    rows: usize,
    /// At most `GROUP` rows of d.
    weights: &'a [f32],
    quads: &'a [f32],
    k: usize,
    scratch: &'b mut Scratch,
    found: &'b mut [f32],
}

impl Kernel for KthLargest<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        if S::ACCUMULATORS >= 16 { self.work::<S, 2, 2>(s) } else { self.work::<S, 1, 1>(s) }
    }
}

impl KthLargest<'_, '_> {
    #[inline(always)]
    fn work<S: Simd, const G: usize, const L: usize>(self, s: S) {
        let Self { d, stride, rows, weights, quads, k, scratch: Scratch { panel, products: out, column }, found } =
            self;
        let groups = found.len().div_ceil(LANES);
        panel.resize(groups * LANES * stride);
        fill_panels(weights, d, stride, panel);
        out.resize(groups * LANES * rows);
        products::<S, G, L>(s, panel, quads, stride, rows, out);
        for (lines, found) in out.chunks_exact(LANES * rows).zip(found.chunks_mut(LANES)) {
            for (lane, found) in found.iter_mut().enumerate() {
                column.clear();
                column.extend(lines.as_chunks::<LANES>().0.iter().map(|line| line[lane]));
                let (_, kth, _) = column.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
                *found = *kth;
            }
        }
    }
}
