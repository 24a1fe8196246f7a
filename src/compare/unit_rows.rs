//! What is compared: rows of norm 1.
use crate::error::{Error, Result};

/// Fails unless `atoms` is a matrix of finite rows of width `d`, each of norm 1 to within a thousandth.
pub fn check_unit_rows(what: &str, atoms: &[f32], d: usize) -> Result<()> {
    if d == 0 || atoms.is_empty() || !atoms.len().is_multiple_of(d) {
        let len = atoms.len();
        return Err(Error::InvalidArgument(format!("{what}: {len} values are not rows of {d}; pass a matrix [n, d]")));
    }
    for (index, row) in atoms.chunks_exact(d).enumerate() {
        let norm = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
        if !(0.999..=1.001).contains(&norm) {
            return Err(Error::InvalidArgument(format!("{what}: row {index} is not of norm 1; pass unit rows")));
        }
    }
    Ok(())
}
