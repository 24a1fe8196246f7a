//! The inner loops, written once over vectors `S` and tile heights.
//!
//! R = `ROWS` rows of h are worked on together, PANEL = 16 tokens lie side by side. A block's logits (and then their
//! exponentials) are [panel][R][PANEL]: what one product writes, the next ones read in the order in which they need it.
#![allow(clippy::inline_always, clippy::missing_safety_doc)]
use super::pack::PANEL;
use crate::vector::simd::Vectors;

/// Logits of `ROWS` rows and two vectors of tokens, for a whole block: `to` [panels][ROWS][PANEL].
///
/// # Safety
/// `h` holds [width][ROWS] floats, `w` [panels][width][PANEL], `to` [panels][ROWS][PANEL]; `panels` is even.
/// The same holds, with the sizes they name, for all functions here.
#[inline(always)]
pub unsafe fn logits<S: Vectors, const ROWS: usize>(
    s: S,
    h: *const f32,
    w: *const f32,
    width: usize,
    panels: usize,
    to: *mut f32,
) {
    // SAFETY: offsets stay within the sizes that the contract names.
    unsafe {
        for column in (0..panels * PANEL).step_by(2 * S::WIDTH) {
            let second = column + S::WIDTH;
            let w0 = w.add(column / PANEL * width * PANEL + column % PANEL);
            let w1 = w.add(second / PANEL * width * PANEL + second % PANEL);
            let mut sums = [[s.splat(0.0); 2]; ROWS];
            for k in 0..width {
                let (b0, b1) = (s.read(w0.add(k * PANEL)), s.read(w1.add(k * PANEL)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let a = s.splat(*h.add(k * ROWS + r));
                    sum[0] = s.mul_add(a, b0, sum[0]);
                    sum[1] = s.mul_add(a, b1, sum[1]);
                }
            }
            let to0 = to.add(column / PANEL * ROWS * PANEL + column % PANEL);
            let to1 = to.add(second / PANEL * ROWS * PANEL + second % PANEL);
            for (r, sum) in sums.iter().enumerate() {
                s.write(sum[0], to0.add(r * PANEL));
                s.write(sum[1], to1.add(r * PANEL));
            }
        }
    }
}

/// Turns a block's logits (in units of ln 2) into 2^(logit - maximum), in place, and brings each row's running maximum
/// and sum up to date. `rescale` gets what earlier sums of the row must be multiplied by.
#[inline(always)]
pub unsafe fn exponentials<S: Vectors, const ROWS: usize>(
    s: S,
    block: *mut f32,
    panels: usize,
    maximum: &mut [f32; ROWS],
    sum: &mut [f64; ROWS],
    rescale: &mut [f32; ROWS],
) {
    // SAFETY: as in `logits`.
    unsafe {
        for r in 0..ROWS {
            let row = block.add(r * PANEL);
            let mut largest = [s.splat(maximum[r]); 2];
            for panel in 0..panels {
                for part in (0..PANEL).step_by(S::WIDTH) {
                    let x = s.read(row.add(panel * ROWS * PANEL + part));
                    let lane = (panel + part / S::WIDTH) % 2;
                    largest[lane] = s.max(largest[lane], x);
                }
            }
            let new = s.largest(s.max(largest[0], largest[1]));
            let shift = s.splat(new);
            let mut sums = [s.splat(0.0); 2];
            for panel in 0..panels {
                for part in (0..PANEL).step_by(S::WIDTH) {
                    let at = row.add(panel * ROWS * PANEL + part);
                    let e = s.exp2(s.sub(s.read(at), shift));
                    s.write(e, at);
                    let lane = (panel + part / S::WIDTH) % 2;
                    sums[lane] = s.add(sums[lane], e);
                }
            }
            rescale[r] = (maximum[r] - new).exp2(); // 1 where the maximum stays
            sum[r] = sum[r] * f64::from(rescale[r]) + f64::from(s.sum_in_order(s.add(sums[0], sums[1])));
            maximum[r] = new;
        }
    }
}

/// `dh` [ROWS][stride] = `dh` * rescale + e w, over one block: e [panels][ROWS][PANEL], w [panels * PANEL][stride].
#[inline(always)]
pub unsafe fn add_dh<S: Vectors, const ROWS: usize>(
    s: S,
    e: *const f32,
    w: *const f32,
    stride: usize,
    panels: usize,
    rescale: &[f32; ROWS],
    dh: *mut f32,
) {
    // SAFETY: as in `logits`.
    unsafe {
        for column in (0..stride).step_by(2 * S::WIDTH) {
            let mut sums = [[s.splat(0.0); 2]; ROWS];
            for panel in 0..panels {
                let e = e.add(panel * ROWS * PANEL);
                for token in 0..PANEL {
                    let at = w.add((panel * PANEL + token) * stride + column);
                    let (b0, b1) = (s.read(at), s.read(at.add(S::WIDTH)));
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let a = s.splat(*e.add(r * PANEL + token));
                        sum[0] = s.mul_add(a, b0, sum[0]);
                        sum[1] = s.mul_add(a, b1, sum[1]);
                    }
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                let at = dh.add(r * stride + column);
                let scale = s.splat(rescale[r]);
                s.write(s.mul_add(s.read(at), scale, sum[0]), at);
                let at = at.add(S::WIDTH);
                s.write(s.mul_add(s.read(at), scale, sum[1]), at);
            }
        }
    }
}

/// `dw` [panels * PANEL][stride] += e^T h over all rows of a chunk: `tiles` pointers to [panels][ROWS][PANEL] at a
/// distance of `tile_stride`, h [tiles * ROWS][stride]. `TOKENS` tokens are summed in registers at a time.
#[inline(always)]
pub unsafe fn add_dw<S: Vectors, const ROWS: usize, const TOKENS: usize>(
    s: S,
    e: *const f32,
    tile_stride: usize,
    tiles: usize,
    h: *const f32,
    stride: usize,
    panels: usize,
    dw: *mut f32,
) {
    // SAFETY: as in `logits`.
    unsafe {
        for token in (0..panels * PANEL).step_by(TOKENS) {
            let e = e.add(token / PANEL * ROWS * PANEL + token % PANEL);
            for column in (0..stride).step_by(2 * S::WIDTH) {
                let dw = dw.add(token * stride + column);
                let mut sums = [[s.splat(0.0); 2]; TOKENS];
                for (t, sum) in sums.iter_mut().enumerate() {
                    *sum = [s.read(dw.add(t * stride)), s.read(dw.add(t * stride + S::WIDTH))];
                }
                for tile in 0..tiles {
                    let e = e.add(tile * tile_stride);
                    for r in 0..ROWS {
                        let at = h.add((tile * ROWS + r) * stride + column);
                        let (b0, b1) = (s.read(at), s.read(at.add(S::WIDTH)));
                        for (t, sum) in sums.iter_mut().enumerate() {
                            let a = s.splat(*e.add(r * PANEL + t));
                            sum[0] = s.mul_add(a, b0, sum[0]);
                            sum[1] = s.mul_add(a, b1, sum[1]);
                        }
                    }
                }
                for (t, sum) in sums.iter().enumerate() {
                    s.write(sum[0], dw.add(t * stride));
                    s.write(sum[1], dw.add(t * stride + S::WIDTH));
                }
            }
        }
    }
}
