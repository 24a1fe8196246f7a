//! The embedding in the two orders in which tiles read it.
use crate::vector::aligned::Aligned;

/// Tokens side by side in a panel: one 64-byte line.
pub const PANEL: usize = 16;
/// Widths are padded to a multiple of this: two vectors of the widest kind.
const WIDTH_STEP: usize = 32;

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
            rows[v * stride..][..width].copy_from_slice(row);
            let panel = &mut panels[v / PANEL * width * PANEL..][..width * PANEL];
            for (k, &x) in row.iter().enumerate() {
                panel[k * PANEL + v % PANEL] = x;
            }
        }
        Self { vocabulary, padded, width, stride, panels, rows }
    }
}
