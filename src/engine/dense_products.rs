//! The dot products of the dense path: all rows of a block with all features, in the order of [`crate::vector::dot::dot`] and so
//! with its bits, at the speed of a matrix product.
//!
//! That order adds a row's products in sixteen lanes and then the lanes in a tree. Vectors along a row would need shuffles
//! for the tree, which take as long as the products at D = 128. So vectors go across sixteen features instead: a lane of the dot
//! product is a sum of its own, and the tree adds whole vectors. Weights and rows are laid out for that beforehand.
use crate::vector::aligned::Aligned;
use crate::vector::simd::{LANES, Lanes, Simd};

/// Lanes of a dot product in an order in which the tree of [`Simd::sum`] needs few sums at once: places with their four bits
/// reversed, so that those that are added first stand together.
const LEAVES: [usize; LANES] = [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15];

/// Rows that products take at a time.
const QUAD: usize = 4;

/// A dictionary's weights with sixteen features side by side, as [`products`] reads them.
#[derive(Debug, Default)]
pub struct Panels {
    /// [groups of 16 features][16 lanes of a dot product, in the order of `LEAVES`][vectors of a row][16].
    pub encoder: Aligned,
    /// The same.
    pub decoder: Aligned,
}

impl Panels {
    /// Makes room for `n` features in rows of `stride` floats.
    pub fn resize(&mut self, n: usize, stride: usize) {
        let size = n.next_multiple_of(LANES) * stride;
        self.encoder.resize(size);
        self.decoder.resize(size);
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.encoder.bytes() + self.decoder.bytes()
    }
}

/// Puts rows of `d` floats into panels.
pub fn fill_panels(rows: &[f32], d: usize, stride: usize, panels: &mut [f32]) {
    let vectors = stride / LANES;
    for (group, panel) in rows.chunks(LANES * d).zip(panels.chunks_exact_mut(LANES * stride)) {
        let lines = panel.as_chunks_mut::<LANES>().0;
        if group.len() < LANES * d || d < stride {
            lines.fill([0.0; LANES]);
        }
        for (feature, row) in group.chunks_exact(d).enumerate() {
            for (v, lanes) in row.chunks(LANES).enumerate() {
                for (lane, value) in lanes.iter().enumerate() {
                    // The order of `LEAVES` is its own inverse.
                    lines[LEAVES[lane] * vectors + v][feature] = *value;
                }
            }
        }
    }
}

/// Puts rows side by side as [`products`] reads them: [fours of rows][16 lanes, in the order of `LEAVES`][vectors][4].
pub fn fill_quads(rows_of: &[f32], stride: usize, quads: &mut Aligned) {
    let vectors = stride / LANES;
    quads.resize((rows_of.len() / stride).next_multiple_of(QUAD) * stride);
    for (rows, quad) in rows_of.chunks(QUAD * stride).zip(quads.chunks_exact_mut(QUAD * stride)) {
        let out = quad.as_chunks_mut::<QUAD>().0;
        if rows.len() < QUAD * stride {
            out.fill([0.0; QUAD]);
        }
        for (r, row) in rows.chunks_exact(stride).enumerate() {
            for (v, lanes) in row.as_chunks::<LANES>().0.iter().enumerate() {
                for (lane, value) in lanes.iter().enumerate() {
                    out[LEAVES[lane] * vectors + v][r] = *value;
                }
            }
        }
    }
}

/// Dot products of all rows with the features of some groups, in the order of [`crate::vector::dot::dot`]: lane by lane, of sixteen
/// features at once, so that the tree of a sum goes from register to register. Four rows, G groups and L lanes at a time.
#[inline(always)]
pub fn products<S: Simd, const G: usize, const L: usize>(
    s: S,
    panels: &[f32],
    quads: &[f32],
    stride: usize,
    rows: usize,
    out: &mut [f32],
) {
    let (panel, lines) = (G * LANES * stride, G * LANES * rows);
    let whole = panels.len() / panel;
    for (panels, out) in panels.chunks_exact(panel).zip(out.chunks_exact_mut(lines)) {
        let out = out.as_chunks_mut::<LANES>().0;
        let mut weights = panels.as_chunks::<LANES>().0.chunks_exact(stride);
        let weights: [_; G] = std::array::from_fn(|_| weights.next().unwrap_or_default());
        for (first, quad) in (0..rows).step_by(QUAD).zip(quads.chunks_exact(QUAD * stride)) {
            let sums = quad_products::<S, G, L>(s, &weights, quad.as_chunks::<QUAD>().0, stride / LANES);
            for (r, sums) in sums.iter().enumerate().take(rows - first) {
                for g in 0..G {
                    s.store(sums[g], &mut out[g * rows + first + r]);
                }
            }
        }
    }
    if !panels.len().is_multiple_of(panel) {
        products::<S, 1, L>(s, &panels[whole * panel..], quads, stride, rows, &mut out[whole * lines..]);
    }
}

/// Sums of four rows.
type Sums<V, const G: usize> = [[V; G]; QUAD];

#[inline(always)]
fn quad_products<S: Simd, const G: usize, const L: usize>(
    s: S,
    weights: &[&[Lanes]; G],
    quad: &[[f32; QUAD]],
    vectors: usize,
) -> Sums<S::V, G> {
    // Sums that wait for the other half of their branch of the tree.
    let mut waiting = [[[s.zero(); G]; QUAD]; 4];
    let steps = LANES / L;
    for step in 0..steps {
        let mut sums = lane_sums::<S, G, L>(s, weights, quad, step * L, vectors);
        let mut level = 0;
        while step >> level & 1 == 1 {
            for (sums, waiting) in sums.iter_mut().zip(&waiting[level]) {
                for g in 0..G {
                    sums[g] = s.add(waiting[g], sums[g]);
                }
            }
            level += 1;
        }
        if step + 1 == steps {
            return sums;
        }
        waiting[level] = sums;
    }
    waiting[0]
}

/// The sums of L neighbouring lanes, added to each other.
#[inline(always)]
fn lane_sums<S: Simd, const G: usize, const L: usize>(
    s: S,
    weights: &[&[Lanes]; G],
    quad: &[[f32; QUAD]],
    leaf: usize,
    vectors: usize,
) -> Sums<S::V, G> {
    let own: [_; L] = std::array::from_fn(|l| (leaf + l) * vectors..(leaf + l + 1) * vectors);
    let weights: [[_; L]; G] = std::array::from_fn(|g| std::array::from_fn(|l| &weights[g][own[l].clone()]));
    let quad: [_; L] = std::array::from_fn(|l| &quad[own[l].clone()]);
    let mut acc = [[[s.zero(); G]; QUAD]; L];
    // Eight vectors at a time, with no loop over them.
    let weights = weights.map(|weights| weights.map(|weights| weights.as_chunks::<8>()));
    let quad = quad.map(|quad| quad.as_chunks::<8>());
    for v in 0..vectors / 8 {
        let (weights, quad) =
            (weights.map(|weights| weights.map(|weights| &weights.0[v])), quad.map(|quad| &quad.0[v]));
        for v in 0..8 {
            add_products::<S, G, L>(
                s,
                weights.map(|weights| weights.map(|weights| &weights[v])),
                quad.map(|quad| &quad[v]),
                &mut acc,
            );
        }
    }
    for v in 0..vectors % 8 {
        add_products::<S, G, L>(
            s,
            weights.map(|weights| weights.map(|weights| &weights.1[v])),
            quad.map(|quad| &quad.1[v]),
            &mut acc,
        );
    }
    let mut sums = acc[0];
    for acc in &acc[1..] {
        for (sums, acc) in sums.iter_mut().zip(acc) {
            for g in 0..G {
                sums[g] = s.add(sums[g], acc[g]);
            }
        }
    }
    sums
}

#[inline(always)]
fn add_products<S: Simd, const G: usize, const L: usize>(
    s: S,
    weights: [[&Lanes; L]; G],
    quad: [&[f32; QUAD]; L],
    acc: &mut [Sums<S::V, G>; L],
) {
    for l in 0..L {
        for r in 0..QUAD {
            let value = s.splat(quad[l][r]);
            for g in 0..G {
                acc[l][r][g] = s.fma(value, s.load(weights[g][l]), acc[l][r][g]);
            }
        }
    }
}
