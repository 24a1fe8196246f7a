//! The sizes of a call, and their check.
use crate::cpu::{Level, cpu};
use crate::error::{Error, Result};

/// Dimensions of a head for which there is code; others are left to the caller.
pub const HEAD_WIDTHS: [usize; 3] = [4, 8, 16];

/// Products of a thread's share below which another thread costs more than it saves: about 100 microseconds.
const MIN_SHARE: usize = 3_000_000;

/// Sizes of one call.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Positions.
    pub positions: usize,
    /// Heads.
    pub heads: usize,
    /// Dimensions of a head, one of [`HEAD_WIDTHS`].
    pub width: usize,
}

impl Shape {
    /// Threads worth starting for this size.
    #[must_use]
    pub fn useful(self, threads: usize) -> usize {
        let products = self.batch * self.heads * self.positions * self.positions * self.width;
        threads.min(1 + products / MIN_SHARE)
    }

    /// Refuses what does not fit: `others` are (name, length, numbers of a row).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub fn check(self, level: Level, qkv: usize, others: &[(&str, usize, usize)]) -> Result<()> {
        let refuse = |message: String| Err(Error::InvalidArgument(format!("attention: {message}")));
        if !cpu().runs(level) {
            return refuse(format!("this processor has no {}; use {}", level.name(), cpu().level.name()));
        }
        if !HEAD_WIDTHS.contains(&self.width) {
            return refuse(format!("heads of {} dimensions; there is code for {HEAD_WIDTHS:?}", self.width));
        }
        if self.positions == 0 {
            return refuse("no positions".into());
        }
        let rows = self.batch * self.positions;
        for &(name, got, per_row) in [("qkv", qkv, 3 * self.heads * self.width)].iter().chain(others) {
            if got != rows * per_row {
                return refuse(format!("{name} has {got} numbers, not {rows} rows of {per_row}"));
            }
        }
        Ok(())
    }
}
