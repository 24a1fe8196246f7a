//! The shapes in which rows and features are packed, screened and multiplied.

use super::simd::LANES;

/// Rows of a tile: the bits of one mask.
pub const TILE: usize = 64;

/// Which rows of a tile a feature is kept on: bit r % 32 of word r / 32.
pub type Mask = [u32; 2];

/// Groups of sixteen rows in a tile.
pub const GROUPS: usize = TILE / LANES;

/// Features of a panel.
pub const PANEL: usize = 32;
