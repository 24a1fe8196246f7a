//! The embedding in the two orders in which tiles read it, and memory aligned for vectors.

/// Tokens side by side in a panel: one 64-byte line.
pub const PANEL: usize = 16;
/// Widths are padded to a multiple of this: two vectors of the widest kind.
const WIDTH_STEP: usize = 32;

/// 64 bytes, aligned as such: loads of vectors never straddle two lines.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Line([f32; PANEL]);

/// Zeroed floats in whole aligned lines.
pub struct Aligned(Vec<Line>);

impl Aligned {
    /// At least `count` zeros.
    pub fn zeros(count: usize) -> Self {
        Self(vec![Line([0.0; PANEL]); count.div_ceil(PANEL)])
    }

    /// All floats.
    pub fn floats(&self) -> &[f32] {
        // SAFETY: a Line is PANEL floats without padding; the lifetime is that of self.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * PANEL) }
    }

    /// All floats, to be written.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `floats`, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * PANEL) }
    }
}

/// The embedding [V,D], packed once for a whole batch and read by all threads.
pub struct Packed {
    /// Tokens.
    pub vocabulary: usize,
    /// Tokens padded to two panels; the padding's rows are zero.
    pub padded: usize,
    /// D.
    pub width: usize,
    /// D padded to two vectors; the padding is zero.
    pub stride: usize,
    /// [padded / PANEL][D][PANEL]: a column of logits for each token of a panel.
    pub panels: Aligned,
    /// [padded][stride]: rows, for dh.
    pub rows: Aligned,
}

impl Packed {
    /// Packs `w` [vocabulary, width].
    pub fn new(w: &[f32], vocabulary: usize, width: usize) -> Self {
        let padded = vocabulary.next_multiple_of(2 * PANEL);
        let stride = width.next_multiple_of(WIDTH_STEP);
        let mut panels = Aligned::zeros(padded * width);
        let mut rows = Aligned::zeros(padded * stride);
        for (v, row) in w.chunks_exact(width).enumerate() {
            rows.floats_mut()[v * stride..][..width].copy_from_slice(row);
            let panel = &mut panels.floats_mut()[v / PANEL * width * PANEL..][..width * PANEL];
            for (k, &x) in row.iter().enumerate() {
                panel[k * PANEL + v % PANEL] = x;
            }
        }
        Self { vocabulary, padded, width, stride, panels, rows }
    }
}
